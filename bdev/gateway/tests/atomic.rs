//! COMPARE AND WRITE by many initiators at once, over a device that takes time and cannot do it itself: every success counts.

use std::collections::BTreeMap;
use std::time::Duration;

use bdev::sim::{SimBdev, SimConfig as DiskConfig};
use bdev::{BlockRange, Channel, Completions, Durability, Geometry, Io, IoError, Op, Tag};
use engine::{Core, Instant, Pool};
use gateway::{
    InitiatorGroup, LunConfig, LunMode, Map, NetMask, NodeConfig, PortalGroup, Remote, RemoteConfig, Target,
    TargetConfig,
};
use net::sim::{SimConfig, SimNet};
use uuid::Uuid;

const TARGET: &str = "iqn.2026-11.example:t0";
const HOSTS: u8 = 4;
const ROUNDS: u64 = 40;

/// One that counts in a block: it believes that the block holds `seen`, and wants to write one more.
struct Counter {
    channel: Box<dyn Channel>,
    seen: u64,
    successes: u64,
    reading: bool,
    busy: bool,
}

struct World {
    core: Core,
    network: SimNet,
    now: Instant,
    target: Target,
    counters: Vec<Counter>,
}

fn world(seed: u64) -> World {
    let core = Core::for_tests(Pool::for_tests());
    let network = SimNet::new(SimConfig { seed, ..SimConfig::default() });
    let host = |number: u8| Box::new(network.host([10, 0, 0, number].into()));
    let geometry = Geometry { block_size: 512, physical_block_size: 512, blocks: 1024 };
    let disk = SimBdev::new("s0", Uuid::from_u128(1), geometry, DiskConfig { seed, ..DiskConfig::default() });
    let mut target = Target::new(&core, host(1), TargetConfig::default());
    let portals = ["10.0.0.1:3260".parse().expect("address")];
    target.add_portal_group(&PortalGroup::new(1, portals)).expect("listening");
    let group = InitiatorGroup { tag: 1, initiators: vec!["ANY".into()], netmasks: vec![NetMask::Any] };
    target.add_initiator_group(group).expect("new");
    let luns = BTreeMap::from([(0, LunConfig::new(disk, LunMode::SyncDurable))]);
    let node = NodeConfig {
        alias: "t".into(),
        maps: vec![Map::new(1, 1)],
        luns,
        queue_depth: 8,
        ..NodeConfig::new(TARGET)
    };
    target.add_node(node).expect("new");
    let counters = (0..HOSTS).map(|number| {
        let address = "10.0.0.1:3260".parse().expect("address");
        let config = RemoteConfig::new(format!("iqn.2026-11.example:h{number}"), TARGET, address);
        let remote = Remote::new(format!("r{number}"), Uuid::nil(), config);
        let channel = remote.open_over(&core, host(10 + number));
        Counter { channel, seen: 0, successes: 0, reading: false, busy: false }
    });
    let counters = counters.collect();
    World { core, network, now: Instant::from_nanos(1_000_000_000), target, counters }
}

impl Counter {
    /// Counts, or looks what the others have counted.
    fn start(&mut self, core: &Core, now: Instant) {
        if self.busy || !self.channel.link(now).is_up() || self.successes == ROUNDS {
            return;
        }
        let range = BlockRange::new(7, 1);
        let op = if self.reading {
            Op::Read { range, into: core.pool().alloc(512).expect("a frame") }
        } else {
            let mut both = core.pool().alloc_zeroed(1024).expect("a frame");
            both[..8].copy_from_slice(&self.seen.to_be_bytes());
            both[512..520].copy_from_slice(&(self.seen + 1).to_be_bytes());
            Op::CompareAndWrite { range, both: both.freeze(), durability: Durability::Accepted }
        };
        self.channel.submit(Io::new(op, Tag(0), now), now).expect("room");
        self.busy = true;
    }

    fn finish(&mut self, done: &mut Completions) {
        let Some(completed) = done.pop_front() else { return };
        self.busy = false;
        match (completed.op, completed.result) {
            (Op::Read { into, .. }, Ok(())) => {
                self.seen = u64::from_be_bytes(into[..8].try_into().expect("eight bytes"));
                self.reading = false;
            }
            (Op::CompareAndWrite { .. }, Ok(())) => {
                self.seen += 1;
                self.successes += 1;
            }
            (_, Err(IoError::Miscompare { offset })) => {
                assert!(offset < 8, "the counter differs, nothing else");
                self.reading = true;
            }
            (op, result) => panic!("{op:?}: {result:?}"),
        }
    }
}

#[test]
fn no_success_is_lost_however_many_count() {
    for seed in 1..=8 {
        let mut world = world(seed);
        for _ in 0..2_000_000 {
            world.now += Duration::from_micros(20);
            let _ = world.network.advance(world.now);
            let _ = world.target.poll(world.now);
            for counter in &mut world.counters {
                let mut done = Completions::new();
                counter.start(&world.core, world.now);
                let _ = counter.channel.poll(world.now, &mut done);
                counter.finish(&mut done);
            }
            if world.counters.iter().all(|counter| counter.successes == ROUNDS) {
                break;
            }
        }
        let successes: u64 = world.counters.iter().map(|counter| counter.successes).sum();
        assert_eq!(successes, u64::from(HOSTS) * ROUNDS, "seed {seed}: somebody never got through");
        let last = world.counters.iter().map(|counter| counter.seen).max();
        assert_eq!(last, Some(successes), "seed {seed}: a success was lost");
    }
}
