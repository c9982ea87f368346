//! A host, one node or two, and the operations that are counted: everything in one thread, on virtual time, the same in each run.

use core::hint::black_box;
use core::time::Duration;

use bdev::{BlockRange, Channel, Completions, Durability, Io, Op, Tag};
use engine::{Core, Instant, Pool, allocations};
use gateway::{Remote, RemoteConfig};
use iscsi::keys::DigestPreference;
use mirror::format::LegIndex;
use uuid::Uuid;

use super::node::{FRONT, Node, front_portal};
use super::wire::Wire;
use super::{Counted, Kind, Part, Place, Work};

/// Bytes of an operation.
const LEN: usize = 4096;
const BLOCKS: u32 = 8;
/// Blocks of an extent of the pair's intent log, twice: neighbours are activated together.
const APART: u64 = 2 * (64 << 10) / 512;
/// Places that are written again and again.
const HOT: u64 = 16;
/// What a turn takes.
const TURN: Duration = Duration::from_micros(1);
/// What a turn takes until all is up: timers are long.
const SETTLING_TURN: Duration = Duration::from_micros(100);

pub(super) struct World {
    core: Core,
    now: Instant,
    nodes: Vec<Node>,
    host: Box<dyn Channel>,
    done: Completions,
    operations: u64,
    cold: u64,
}

impl World {
    /// What a work is done on, ready for it.
    pub(super) fn new(place: Place) -> Self {
        let core = Core::for_tests(Pool::for_tests());
        let (wire, now) = (Wire::default(), Instant::from_nanos(1_000_000_000));
        let nodes = match place {
            Place::Ram => vec![Node::with_ram(&core, &wire)],
            Place::Mirror => {
                [LegIndex::Zero, LegIndex::One].map(|who| Node::of_pair(who, &core, &wire, now)).into()
            }
        };
        let mut config = RemoteConfig::new("iqn.2026-11.org.gemel:host", FRONT, front_portal(LegIndex::Zero));
        config.preferences.header_digest = DigestPreference::Never;
        config.preferences.data_digest = DigestPreference::Never;
        let remote = Remote::new("lun", Uuid::nil(), config);
        let host = remote.open_over(&core, Box::new(wire));
        let mut world = Self { core, now, nodes, host, done: Completions::new(), operations: 0, cold: 0 };
        while !(world.nodes[0].is_ready() && world.host.link(world.now).is_up()) {
            world.now += SETTLING_TURN;
            world.turn_unseen();
        }
        world
    }

    fn turn_unseen(&mut self) {
        let _ = self.host.poll(self.now, &mut self.done);
        for node in &mut self.nodes {
            let _ = node.poll(self.now);
        }
    }

    /// Operations until everything has been used that they use.
    pub(super) fn warm_up(&mut self, work: Work, operations: u64) {
        let mut left = Left { to_start: operations, open: 0 };
        while left.to_start + left.open > 0 {
            self.start(work, &mut left);
            self.turn_unseen();
            self.take(&mut left);
            self.now += TURN;
        }
    }

    /// The operations that are counted. The profiler knows this function and those of the parts by their names ([`super::callgrind`]).
    #[inline(never)]
    pub(super) fn counted(&mut self, work: Work, operations: u64) -> Counted {
        let mut counted = Counted { operations, allocations: [0; Part::ALL.len()] };
        let mut left = Left { to_start: operations, open: 0 };
        while left.to_start + left.open > 0 {
            let mut before = allocations::asked();
            let mut account = |part: Part| {
                let now = allocations::asked();
                counted.allocations[part as usize] += now - before;
                before = now;
            };
            self.host_turn(work, &mut left);
            account(Part::Host);
            self.node_turn();
            account(Part::Node);
            if self.nodes.len() > 1 {
                self.peer_turn();
                account(Part::Peer);
            }
            self.now += TURN;
        }
        counted
    }

    #[inline(never)]
    fn host_turn(&mut self, work: Work, left: &mut Left) {
        self.start(work, left);
        let _ = self.host.poll(self.now, &mut self.done);
        self.take(left);
    }

    #[inline(never)]
    fn node_turn(&mut self) {
        // Looked at, so that this function is still there while it polls: the profilers go by it.
        let _ = black_box(self.nodes[0].poll(self.now));
    }

    #[inline(never)]
    fn peer_turn(&mut self) {
        let _ = black_box(self.nodes[1].poll(self.now));
    }

    fn start(&mut self, work: Work, left: &mut Left) {
        while left.open < work.depth && left.to_start > 0 {
            let Some(frame) = self.core.pool().alloc(LEN) else { return };
            let range = BlockRange::new(self.next_lba(work), BLOCKS);
            let op = match work.kind {
                Kind::Read => Op::Read { range, into: frame },
                Kind::Write(_) => Op::Write { range, from: frame.freeze(), durability: Durability::Accepted },
            };
            let io = Io::new(op, Tag(self.operations), self.now);
            self.host.submit(io, self.now).map_err(|refused| refused.why).expect("the window is as deep");
            self.operations += 1;
            left.to_start -= 1;
            left.open += 1;
        }
    }

    fn next_lba(&mut self, work: Work) -> u64 {
        match work.kind {
            Kind::Read | Kind::Write(super::Extent::Hot) => self.operations % HOT * u64::from(BLOCKS),
            Kind::Write(super::Extent::Cold) => {
                self.cold += 1;
                self.cold * APART
            }
        }
    }

    fn take(&mut self, left: &mut Left) {
        for completed in self.done.drain(..) {
            completed.result.expect("nothing fails here");
            left.open -= 1;
        }
    }
}

/// What is still to be done.
struct Left {
    to_start: u64,
    open: u64,
}
