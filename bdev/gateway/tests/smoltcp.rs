//! An export and an import whose TCP/IP is smoltcp itself, over a wire that loses, overtakes, damages and cuts: on simulated time, the same
//! run for the same seed. What a write was answered for is there, and nothing else is.

use std::collections::BTreeMap;
use std::time::Duration;

use bdev::malloc::MallocBdev;
use bdev::{Bdev, BlockRange, Channel, Completions, Durability, Geometry, Io, IoError, Op, Tag};
use engine::{Core, Instant, Pool, Prng};
use gateway::{
    InitiatorGroup, LunConfig, LunMode, Map, NetMask, NodeConfig, PortalGroup, Remote, RemoteConfig, Served,
    Target, TargetConfig,
};
use net::smol::{Link, LinkConfig, MemoryWire};
use uuid::Uuid;

const TARGET: &str = "iqn.2026-11.example:t0";
const HOST: &str = "iqn.2026-11.example:h0";
const MS: Duration = Duration::from_millis(1);
/// Places of 4 KiB that are written and read.
const PLACES: u64 = 16;
/// I/Os under way at a time.
const DEPTH: usize = 6;

/// What may be at a place: the byte that was answered for last, and those of writes whose end nobody knows.
#[derive(Clone, Debug, Default)]
struct Place {
    may_be: Vec<u8>,
    busy: bool,
}

/// Two ends of a wire.
struct World {
    core: Core,
    wire: MemoryWire,
    links: [Link; 2],
    target: Target,
    channel: Box<dyn Channel>,
    done: Completions,
    now: Instant,
    prng: Prng,
    places: Vec<Place>,
    under_way: BTreeMap<u64, (u64, Option<u8>)>,
    next: u64,
    /// I/Os that were answered, and that came back with an unknown end.
    counts: [u64; 2],
    /// Tells two runs apart.
    trace: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let core = Core::for_tests(Pool::for_tests());
        let wire = MemoryWire::new(Duration::from_micros(20), seed);
        let now = Instant::from(Duration::from_secs(1));
        let links = [0_u8, 1].map(|end| {
            let net = format!("10.0.0.{}/24", end + 1).parse().expect("a network");
            let config =
                LinkConfig { addresses: vec![net], ..LinkConfig::new("sim", seed * 2 + u64::from(end)) };
            Link::over(&config, Box::new(wire.end(usize::from(end))), now).expect("a link")
        });
        let geometry = Geometry { block_size: 512, physical_block_size: 4096, blocks: 16384 };
        let medium = MallocBdev::new("m0", Uuid::from_u128(7), geometry);
        let mut target = Target::new(&core, Box::new(links[0].network()), TargetConfig::default());
        let portals = ["10.0.0.1:3260".parse().expect("address")];
        target.add_portal_group(&PortalGroup::new(1, portals)).expect("listening");
        let group = InitiatorGroup { tag: 1, initiators: vec![HOST.into()], netmasks: vec![NetMask::Any] };
        target.add_initiator_group(group).expect("new");
        let luns = BTreeMap::from([(0, LunConfig::new(medium, LunMode::SyncCached))]);
        let maps = vec![Map::new(1, 1)];
        let node = NodeConfig { alias: "t0".into(), maps, luns, queue_depth: 32, ..NodeConfig::new(TARGET) };
        target.add_node(node).expect("new");
        let config = RemoteConfig::new(HOST, TARGET, "10.0.0.1:3260".parse().expect("address"));
        let remote = Remote::new("r0", Uuid::nil(), config);
        let channel = remote.open_over(&core, Box::new(links[1].network()));
        let places = vec![Place { may_be: vec![0], busy: false }; PLACES as usize];
        Self {
            core,
            wire,
            links,
            target,
            channel,
            done: Completions::new(),
            now,
            prng: Prng::from_seed(seed),
            places,
            under_way: BTreeMap::new(),
            next: 0,
            counts: [0; 2],
            trace: 0,
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_micros(20);
        self.wire.advance(self.now);
        for link in &mut self.links {
            let _ = link.receive(self.now);
        }
        let _ = self.channel.poll(self.now, &mut self.done);
        let _ = self.target.poll(self.now);
        for link in &mut self.links {
            let _ = link.transmit(self.now);
        }
        self.take_answers();
    }

    fn until(&mut self, what: &str, limit: Duration, mut ready: impl FnMut(&Self) -> bool) {
        let begin = self.now;
        while !ready(self) {
            self.step();
            assert!(self.now - begin < limit, "{what}: {:?}", self.channel.link(self.now));
        }
    }

    /// Begins a write or a read at a place where nothing is under way.
    fn begin(&mut self) {
        let lba = self.prng.below(PLACES);
        let place = &mut self.places[lba as usize];
        if place.busy || !self.channel.link(self.now).is_up() {
            return;
        }
        let range = BlockRange::new(lba * 8, 8);
        let (op, byte) = if self.prng.below(3) > 0 {
            let byte = self.prng.below(256) as u8;
            let mut from = self.core.pool().alloc(4096).expect("a frame");
            from.fill(byte);
            (Op::Write { range, from: from.freeze(), durability: Durability::Durable }, Some(byte))
        } else {
            (Op::Read { range, into: self.core.pool().alloc(4096).expect("a frame") }, None)
        };
        place.busy = true;
        self.next += 1;
        if let Err(refused) = self.channel.submit(Io::new(op, Tag(self.next), self.now), self.now) {
            self.places[lba as usize].busy = false;
            let _ = refused.io.complete(Err(IoError::Busy), self.now);
            return;
        }
        self.under_way.insert(self.next, (lba, byte));
    }

    fn take_answers(&mut self) {
        while let Some(completed) = self.done.pop_front() {
            let (lba, byte) = self.under_way.remove(&completed.tag.0).expect("it was under way, once");
            let place = &mut self.places[lba as usize];
            place.busy = false;
            self.trace =
                self.trace.rotate_left(7) ^ completed.tag.0 ^ self.now.since_epoch().as_nanos() as u64;
            match (completed.result, byte, &completed.op) {
                (Ok(()), Some(byte), _) => place.may_be = vec![byte],
                (Ok(()), None, Op::Read { into, .. }) => {
                    let found = into[0];
                    assert!(into.iter().all(|byte| *byte == found), "place {lba}: a torn block");
                    assert!(place.may_be.contains(&found), "place {lba}: {found} and not {:?}", place.may_be);
                    place.may_be = vec![found];
                }
                (Err(IoError::LinkDown | IoError::TimedOut), byte, _) => {
                    place.may_be.extend(byte);
                    self.counts[1] += 1;
                    continue;
                }
                other => panic!("place {lba}: {:?} {:?}", other.0, other.1),
            }
            self.counts[0] += 1;
        }
    }

    fn load(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            if self.under_way.len() < DEPTH {
                self.begin();
            }
            self.step();
        }
    }

    /// A run with everything that a wire does; the trace of it.
    fn run(mut self) -> (u64, [u64; 2], u64) {
        self.until("a session", Duration::from_secs(2), |world| world.channel.link(world.now).is_up());
        for _ in 0..4 {
            let permille = |prng: &mut Prng, most: u64| prng.below(most + 1);
            self.wire.lose(permille(&mut self.prng, 50));
            self.wire.reorder(permille(&mut self.prng, 100));
            self.wire.corrupt(permille(&mut self.prng, 20));
            self.load(30 * MS);
            let ends = [[true, true], [true, false], [false, true], [false, false]];
            self.wire.cut(ends[self.prng.below(4) as usize]);
            // Now shorter than the silence that ends the session, now longer.
            let cut = Duration::from_millis([5, 50, 1500][self.prng.below(3) as usize]);
            self.load(cut);
            self.wire.cut([false; 2]);
            self.until("a session again", Duration::from_secs(8), |world| {
                world.channel.link(world.now).is_up()
            });
        }
        self.wire.lose(0);
        self.until("an end of it", Duration::from_secs(8), |world| world.under_way.is_empty());
        let resent = self.links.iter().map(|link| link.status().counters.retransmissions).sum();
        (self.trace, self.counts, resent)
    }
}

/// A number from the environment: `make links` runs more seeds, or other ones.
fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn what_was_answered_for_is_there_whatever_the_wire_does() {
    let first = from_environment("GEMEL_SEED", 0);
    let mut unknown = 0;
    for seed in first..first + from_environment("GEMEL_SEEDS", 12) {
        let (_, [answered, lost], resent) = World::new(seed).run();
        assert!(answered > 100 && resent > 0, "seed {seed}: {answered} answered, {resent} sent again");
        unknown += lost;
    }
    assert!(unknown > 0, "no session ever ended");
}

/// What a user's lane brings an import is a frame in the turn that takes it.
#[test]
fn a_write_leaves_with_the_first_poll_of_its_import() {
    let mut world = World::new(5);
    let config = RemoteConfig {
        isid: Some([0x80, 0, 0, 0, 0, 9]),
        ..RemoteConfig::new(HOST, TARGET, "10.0.0.1:3260".parse().expect("address"))
    };
    let remote = Remote::new("r1", Uuid::nil(), config);
    let (bdev, mut import) = Served::over(&remote, Box::new(world.links[1].network()), &world.core);
    let mut user = bdev.open(&world.core).expect("a channel");
    world.until("both sessions", Duration::from_secs(2), |world| {
        let _ = import.poll(world.now);
        user.link(world.now).is_up()
    });
    // They have nothing to say for a moment; after 30 ms the peer's Ethernet address is asked for again.
    for _ in 0..250 {
        world.step();
        let _ = import.poll(world.now);
    }
    let sent_bytes = |world: &World| world.links[1].status().counters.frames.sent_bytes;
    let before = sent_bytes(&world);
    let from = world.core.pool().alloc_zeroed(4096).expect("a frame").freeze();
    let op = Op::Write { range: BlockRange::new(0, 8), from, durability: Durability::Durable };
    user.submit(Io::new(op, Tag(1), world.now), world.now).expect("room");
    let _ = import.poll(world.now);
    let _ = world.links[1].transmit(world.now);
    assert!(sent_bytes(&world) > before + 4096, "it waits for another turn");
    let mut done = Completions::new();
    while done.is_empty() {
        world.step();
        let _ = import.poll(world.now);
        let _ = user.poll(world.now, &mut done);
    }
    assert_eq!(done.pop_front().expect("one").result, Ok(()));
}

#[test]
fn a_seed_is_a_run() {
    assert_eq!(World::new(3).run(), World::new(3).run());
    assert_ne!(World::new(3).run().0, World::new(4).run().0);
}
