//! The meter counts what its channels did, and nothing else.

use bdev::meter::{HistogramConfig, Metered, OpKind, RateLimits};
use bdev::null::NullBdev;
use bdev::sim::{SimBdev, SimConfig, SimFault};
use bdev::{Bdev, BlockRange, Channel, Completions, Durability, FenceKey, Geometry, Io, Op, Tag};
use core::time::Duration;
use engine::{Core, Instant, Pool, PoolConfig, Progress};
use uuid::Uuid;

const DISK: Geometry = Geometry { block_size: 512, physical_block_size: 4096, blocks: 1 << 12 };

fn run(channel: &mut dyn Channel, op: Op, now: &mut Instant) -> Result<(), bdev::IoError> {
    assert!(channel.submit(Io::new(op, Tag(1), *now), *now).is_ok());
    let mut done = Completions::new();
    while done.is_empty() {
        *now += Duration::from_micros(10);
        let _: Progress = channel.poll(*now, &mut done);
    }
    done.pop_front().expect("just seen").result
}

#[test]
fn every_channel_counts_and_closed_ones_stay_in_the_sum() {
    let pool = Pool::new(PoolConfig::with_memory(16 << 20)).expect("memory");
    let core = Core::for_tests(pool.clone());
    let disk = SimBdev::new("disk".to_owned(), Uuid::from_u128(1), DISK, SimConfig::default());
    let metered = Metered::new(disk.clone());
    let mut now = Instant::EPOCH + Duration::from_secs(1);
    let write = |blocks: u32| Op::Write {
        range: BlockRange::new(8, blocks),
        from: pool.alloc(512 * blocks as usize).expect("a frame").freeze(),
        durability: Durability::Durable,
    };
    let read = || Op::Read { range: BlockRange::new(8, 1), into: pool.alloc(512).expect("a frame") };

    let mut first = metered.clone().open(&core).expect("opens");
    let mut second = metered.clone().open(&core).expect("opens");
    assert_eq!(run(&mut *first, write(8), &mut now), Ok(()));
    assert_eq!(run(&mut *second, write(1), &mut now), Ok(()));
    assert_eq!(run(&mut *second, read(), &mut now), Ok(()));
    assert_eq!(run(&mut *second, Op::Flush, &mut now), Ok(()));
    disk.inject(SimFault::FailWrites { count: 1 });
    assert!(run(&mut *first, write(1), &mut now).is_err());

    assert_eq!(metered.channels().len(), 2);
    drop(first);
    assert_eq!(metered.channels().len(), 1);
    let stats = metered.stats();
    let writes = stats.of(OpKind::Write);
    assert_eq!((writes.operations, writes.bytes, writes.errors), (2, 9 * 512, 1));
    assert_eq!(writes.latency.summary().count, 2);
    assert!(writes.busy >= writes.latency.summary().max);
    assert_eq!((stats.of(OpKind::Read).operations, stats.of(OpKind::Read).bytes), (1, 512));
    assert_eq!(stats.of(OpKind::Flush).operations, 1);
    assert_eq!(stats.of(OpKind::Unmap).operations, 0);

    metered.reset();
    assert_eq!(metered.stats().of(OpKind::Write).operations, 0);
    assert_eq!(run(&mut *second, read(), &mut now), Ok(()));
    assert_eq!(metered.stats().of(OpKind::Read).operations, 1);
}

struct Nulls {
    pool: Pool,
    metered: std::sync::Arc<Metered>,
    channel: Box<dyn Channel>,
    now: Instant,
}

impl Nulls {
    fn new() -> Self {
        let pool = Pool::new(PoolConfig::with_memory(16 << 20)).expect("memory");
        let core = Core::for_tests(pool.clone());
        let metered = Metered::new(NullBdev::new("n", Uuid::nil(), DISK));
        let channel = metered.clone().open(&core).expect("opens");
        Self { pool, metered, channel, now: Instant::EPOCH + Duration::from_secs(1) }
    }

    fn submit(&mut self, op: Op, tag: u64) {
        assert!(self.channel.submit(Io::new(op, Tag(tag), self.now), self.now).is_ok());
    }

    fn read(&self) -> Op {
        Op::Read { range: BlockRange::new(0, 8), into: self.pool.alloc(4096).expect("a frame") }
    }

    /// Lets time pass until nothing is left to wait for; the tags in the order of their completions.
    fn run(&mut self, count: usize) -> Vec<u64> {
        let mut done = Completions::new();
        loop {
            let _: Progress = self.channel.poll(self.now, &mut done);
            if done.len() >= count {
                return done.into_iter().map(|completed| completed.tag.0).collect();
            }
            self.now = self.channel.next_deadline().expect("something is held back").max(self.now);
        }
    }
}

#[test]
fn a_limit_holds_back_in_order_and_lets_flushes_pass() {
    let mut nulls = Nulls::new();
    nulls.metered.set_limits(RateLimits { ios: 100, ..RateLimits::default() }, nulls.now);
    let began = nulls.now;
    for tag in 0..50 {
        let read = nulls.read();
        nulls.submit(read, tag);
    }
    nulls.submit(Op::Flush, 99);
    assert_eq!(nulls.run(1), [99], "nothing has been paid for yet");
    assert_eq!(nulls.run(50), (0..50).collect::<Vec<_>>());
    let took = nulls.now - began;
    assert!((Duration::from_millis(490)..=Duration::from_millis(510)).contains(&took), "{took:?}");
    assert_eq!(nulls.metered.limits().ios, 100);
    // A fence does not overtake what was sent before it.
    for tag in 0..3 {
        let read = nulls.read();
        nulls.submit(read, tag);
    }
    nulls.submit(Op::Fence { key: FenceKey { node: 0, generation: 1 } }, 3);
    assert_eq!(nulls.run(4), [0, 1, 2, 3]);
    // Without the limit what is held back goes on at once.
    let read = nulls.read();
    nulls.submit(read, 7);
    nulls.metered.set_limits(RateLimits::default(), nulls.now);
    assert_eq!(nulls.run(1), [7]);
}

#[test]
fn what_is_held_back_too_long_times_out_and_nothing_is_lost_at_the_end() {
    let mut nulls = Nulls::new();
    nulls.metered.set_limits(RateLimits { read_bytes: 4096, ..RateLimits::default() }, nulls.now);
    let deadline = nulls.now + Duration::from_millis(100);
    for tag in 0..3 {
        let io = Io::new(nulls.read(), Tag(tag), nulls.now).with_deadline(deadline);
        assert!(nulls.channel.submit(io, nulls.now).is_ok());
    }
    // The first may go as soon as there is a token, and takes a second's worth.
    let mut done = Completions::new();
    nulls.now += Duration::from_millis(1);
    let _: Progress = nulls.channel.poll(nulls.now, &mut done);
    nulls.now = deadline;
    let _: Progress = nulls.channel.poll(nulls.now, &mut done);
    let results: Vec<bool> = done.iter().map(|completed| completed.result.is_ok()).collect();
    assert_eq!(results, [true, false, false]);
    let read = nulls.read();
    nulls.submit(read, 9);
    drop(nulls.channel);
}

#[test]
fn histograms_and_depths_are_taken_while_somebody_wants_them() {
    let mut nulls = Nulls::new();
    assert_eq!((nulls.metered.histogram(), nulls.metered.depth(nulls.now)), (None, None));
    let config = HistogramConfig { kind: Some(OpKind::Read), ..HistogramConfig::default() };
    nulls.metered.set_histogram(Some(config));
    nulls.metered.set_gauge(Duration::from_micros(100), nulls.now);
    for tag in 0..2 {
        let read = nulls.read();
        nulls.submit(read, tag);
    }
    nulls.submit(Op::Flush, 2);
    nulls.now += Duration::from_millis(5);
    let depth = nulls.metered.depth(nulls.now).expect("gauged");
    assert_eq!((depth.depth, depth.busy, depth.weighted.as_millis()), (3, Duration::from_millis(5), 15));
    nulls.run(3);
    drop(nulls.channel);
    let depth = nulls.metered.depth(nulls.now + Duration::from_secs(1)).expect("gauged");
    assert_eq!((depth.depth, depth.busy), (0, Duration::from_millis(5)));
    let histogram = nulls.metered.histogram().expect("taken");
    assert_eq!(histogram.below(&[]), [2], "a closed channel's reads stay, flushes are not asked for");
    nulls.metered.set_histogram(None);
    assert_eq!(nulls.metered.histogram(), None);
}
