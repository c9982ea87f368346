//! The simulated disk against a model: reads see what was written last; a crash leaves only what it may.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::common::{Bench, geometry};
use bdev::sim::{SimBdev, SimConfig, SimFault, Survival};
use bdev::{Bdev, BlockRange, Channel, Completions, Durability, Geometry, Io, IoError, Op, Tag};
use engine::{Core, Instant, Pool};
use proptest::prelude::*;
use uuid::Uuid;

fn disk(seed: u64) -> Arc<SimBdev> {
    SimBdev::new("s0", Uuid::nil(), geometry(512), SimConfig { seed, ..SimConfig::default() })
}

#[test]
fn a_crash_keeps_what_was_stable() {
    let disk = disk(3);
    let mut bench = Bench::new(disk.clone());
    bench.write(0, 8, 1, Durability::Accepted).expect("written");
    bench.run(Op::Flush).result.expect("flushed");
    bench.write(8, 8, 2, Durability::Durable).expect("written");
    bench.write(0, 32, 3, Durability::Accepted).expect("written");
    let stable = disk.stable_image();
    assert_eq!((stable[0], stable[8 * 512], stable[16 * 512]), (1, 2, 0));
    disk.crash();
    assert_eq!(bench.read(0, 1), Err(IoError::Aborted), "the old channel is dead");
    let sectors = Bench::new(disk).blocks(0, 32);
    assert!(sectors[..8].iter().all(|byte| [1, 3].contains(byte)), "{sectors:?}");
    assert!(sectors[8..16].iter().all(|byte| [2, 3].contains(byte)), "{sectors:?}");
    assert!(sectors[16..].iter().all(|byte| [0, 3].contains(byte)), "{sectors:?}");
    let survived = sectors.iter().filter(|byte| **byte == 3).count();
    assert!((1..32).contains(&survived), "some survive, some do not: {sectors:?}");
}

#[test]
fn a_crash_tears_writes_in_flight_and_a_kill_does_not() {
    let tear = |seed, end: fn(&SimBdev)| {
        let disk = disk(seed);
        let mut bench = Bench::new(disk.clone());
        let op = bench.write_op(0, 32, 4, Durability::Durable);
        bench.submit(op, 1);
        end(&disk);
        assert_eq!(bench.wait(1)[0].result, Err(IoError::Aborted));
        let sectors = Bench::new(disk).blocks(0, 32);
        sectors.iter().filter(|byte| **byte == 4).count()
    };
    assert!((0..4).any(|seed| (1..32).contains(&tear(seed, SimBdev::crash))));
    let kills: Vec<usize> = (0..8).map(|seed| tear(seed, SimBdev::kill)).collect();
    assert!(kills.contains(&0) && kills.contains(&32), "{kills:?}");
    assert!(kills.iter().all(|count| [0, 32].contains(count)), "{kills:?}");
    assert_eq!(tear(0, |disk| disk.crash_with(Survival::None)), 0);
    assert_eq!(tear(0, |disk| disk.crash_with(Survival::All)), 32);
}

#[test]
fn faults_strike_and_heal() {
    let disk = disk(0);
    let mut bench = Bench::new(disk.clone());
    disk.inject(SimFault::BadBlock { lba: 5 });
    disk.inject(SimFault::FailWrites { count: 1 });
    assert_eq!(bench.read(0, 8), Err(IoError::Medium { lba: 5 }));
    assert_eq!(bench.write(5, 1, 1, Durability::Durable), Err(IoError::Medium { lba: 5 }));
    bench.write(5, 1, 1, Durability::Durable).expect("rewritten");
    assert_eq!(bench.blocks(4, 2), [0, 1]);
    disk.inject(SimFault::FailReads { count: 1 });
    assert_eq!(bench.read(0, 1), Err(IoError::Medium { lba: 0 }));
    bench.read(0, 1).expect("once");
    bench.write(6, 1, 1, Durability::Accepted).expect("written");
    disk.inject(SimFault::FailFlushes { count: 1 });
    bench.run(Op::Flush).result.expect_err("failed");
    assert_eq!(disk.stable_image()[6 * 512], 0, "a failed flush makes nothing stable");
    bench.run(Op::Flush).result.expect("once");
    assert_eq!(disk.stable_image()[6 * 512], 1);
}

#[test]
fn lying_writes_complete() {
    let disk = disk(0);
    let mut bench = Bench::new(disk.clone());
    disk.inject(SimFault::LoseWrites { count: 1 });
    bench.write(0, 4, 1, Durability::Durable).expect("it says so");
    assert_eq!(bench.blocks(0, 4), [0; 4]);
    disk.inject(SimFault::TearWrites { count: 1 });
    bench.write(0, 4, 2, Durability::Durable).expect("it says so");
    assert_eq!(bench.blocks(0, 4), [2, 2, 0, 0]);
    disk.inject(SimFault::MisdirectWrites { count: 1 });
    bench.write(0, 4, 3, Durability::Durable).expect("it says so");
    assert_eq!(bench.blocks(0, 4), [2, 2, 0, 0]);
    let image = disk.peek(0, 4096 * 512);
    assert_eq!(image.iter().filter(|byte| **byte == 3).count(), 4 * 512, "it is somewhere");
    disk.poke(512, &[9; 512]);
    assert_eq!(bench.blocks(0, 2), [2, 9]);
}

#[test]
fn a_write_that_sticks_lands_after_later_ones() {
    let disk = disk(0);
    let pool = Pool::for_tests();
    let mut channel = disk.clone().open(&Core::for_tests(pool.clone())).expect("opens");
    let start = Instant::EPOCH + Duration::from_secs(1);
    let write = |value: u8| {
        let mut frame = pool.alloc(512).expect("a frame");
        frame.fill(value);
        let op =
            Op::Write { range: BlockRange::new(0, 1), from: frame.freeze(), durability: Durability::Durable };
        Io::new(op, Tag(value.into()), start)
    };
    disk.inject(SimFault::DelayWrites { count: 1, extra: Duration::from_secs(3) });
    for value in 1..3 {
        channel.submit(write(value), start).expect("room");
    }
    let mut done = Completions::new();
    for (time, tag, value) in [(1, 2, 2), (4, 1, 1)] {
        let _ = channel.poll(start + Duration::from_secs(time), &mut done);
        assert_eq!(done.drain(..).map(|io| io.tag.0).collect::<Vec<_>>(), [tag]);
        assert_eq!(disk.peek(0, 1), [value]);
    }
}

const SMALL: u64 = 16;

/// Made once: touching its memory takes longer than a run.
static POOL: LazyLock<Pool> = LazyLock::new(Pool::for_tests);

#[derive(Clone, Debug)]
enum Step {
    Write { lba: u64, blocks: u32, durability: Durability },
    Zero { lba: u64, blocks: u32 },
    Flush,
    Read { lba: u64, blocks: u32 },
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = (0..SMALL, 1..=4_u32).prop_map(|(lba, blocks)| (lba, blocks.min((SMALL - lba) as u32)));
    let durability = prop_oneof![Just(Durability::Accepted), Just(Durability::Durable)];
    let step = prop_oneof![
        4 => (place.clone(), durability)
            .prop_map(|((lba, blocks), durability)| Step::Write { lba, blocks, durability }),
        1 => place.clone().prop_map(|(lba, blocks)| Step::Zero { lba, blocks }),
        1 => Just(Step::Flush),
        2 => place.prop_map(|(lba, blocks)| Step::Read { lba, blocks }),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What each block may hold: the stable content first, the visible content last.
#[derive(Clone, Debug)]
struct Model(Vec<Vec<u8>>);

impl Model {
    fn write(&mut self, lba: u64, blocks: u32, byte: u8, durability: Durability) {
        for block in &mut self.0[lba as usize..lba as usize + blocks as usize] {
            if durability == Durability::Durable {
                block.clear();
            }
            block.push(byte);
        }
    }

    fn flush(&mut self) {
        for block in &mut self.0 {
            let last = *block.last().expect("something is visible");
            *block = vec![last];
        }
    }
}

struct Small {
    core: Core,
    disk: Arc<SimBdev>,
    channel: Box<dyn Channel>,
    now: Instant,
}

impl Small {
    fn new(seed: u64) -> Self {
        let geometry = Geometry { block_size: 512, physical_block_size: 512, blocks: SMALL };
        let disk = SimBdev::new("s0", Uuid::nil(), geometry, SimConfig { seed, ..SimConfig::default() });
        let core = Core::for_tests(POOL.clone());
        let channel = disk.clone().open(&core).expect("a channel");
        Self { core, disk, channel, now: Instant::EPOCH }
    }

    fn run(&mut self, op: Op) -> Op {
        self.channel.submit(Io::new(op, Tag(0), self.now), self.now).expect("room");
        let mut done = Completions::new();
        let _ = self.channel.poll(self.now, &mut done);
        assert!(done.is_empty(), "it takes time");
        self.now = self.channel.next_deadline().expect("it is in flight");
        let _ = self.channel.poll(self.now, &mut done);
        let completed = done.pop_front().expect("it is due");
        completed.result.expect("no fault is armed");
        completed.op
    }

    fn read(&mut self, lba: u64, blocks: u32) -> Vec<u8> {
        let into = self.core.pool().alloc(blocks as usize * 512).expect("a frame");
        let Op::Read { into, .. } = self.run(Op::Read { range: BlockRange::new(lba, blocks), into }) else {
            panic!("another operation came back");
        };
        into.chunks(512).map(|block| block[0]).collect()
    }

    fn write(&mut self, lba: u64, blocks: u32, byte: u8, durability: Durability) {
        let mut from = self.core.pool().alloc(blocks as usize * 512).expect("a frame");
        from.fill(byte);
        self.run(Op::Write { range: BlockRange::new(lba, blocks), from: from.freeze(), durability });
    }
}

/// Runs the steps on disk and model; returns everything that was read.
fn play(seed: u64, steps: &[Step]) -> Vec<Vec<u8>> {
    let mut small = Small::new(seed);
    let mut model = Model(vec![vec![0]; SMALL as usize]);
    let mut trace = Vec::new();
    for (step, byte) in steps.iter().zip(1..) {
        match *step {
            Step::Write { lba, blocks, durability } => {
                small.write(lba, blocks, byte, durability);
                model.write(lba, blocks, byte, durability);
            }
            Step::Zero { lba, blocks } => {
                let range = BlockRange::new(lba, blocks);
                small.run(Op::WriteZeroes { range, durability: Durability::Accepted });
                model.write(lba, blocks, 0, Durability::Accepted);
            }
            Step::Flush => {
                small.run(Op::Flush);
                model.flush();
            }
            Step::Read { lba, blocks } => {
                let seen = small.read(lba, blocks);
                let expected = &model.0[lba as usize..][..blocks as usize];
                let expected: Vec<u8> =
                    expected.iter().map(|block| *block.last().expect("visible")).collect();
                assert_eq!(seen, expected);
                trace.push(seen);
            }
            Step::Crash => {
                small.disk.crash();
                small.channel = small.disk.clone().open(&small.core).expect("a channel");
                small.now += Duration::from_secs(1);
                let seen = small.read(0, SMALL as u32);
                for (block, byte) in model.0.iter_mut().zip(&seen) {
                    // Stable, or written last.
                    let allowed = [block[0], *block.last().expect("visible")];
                    assert!(allowed.contains(byte), "{byte} is none of {allowed:?}");
                    *block = vec![*byte];
                }
                trace.push(seen);
            }
        }
    }
    trace
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_disk_does_what_the_model_allows(seed in any::<u64>(), steps in steps()) {
        let trace = play(seed, &steps);
        prop_assert_eq!(trace, play(seed, &steps), "the seed decides everything");
    }
}
