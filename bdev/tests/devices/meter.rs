//! The meter counts what its channels did, and nothing else.

use bdev::meter::{Metered, OpKind};
use bdev::sim::{SimBdev, SimConfig, SimFault};
use bdev::{Bdev, BlockRange, Channel, Completions, Durability, Geometry, Io, Op, Tag};
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
