//! Armed faults strike, as often as asked, and nobody else.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{BLOCKS, Bench, geometry};
use bdev::fault::{Delay, Fault, FaultBdev, FaultPlan, FaultTarget};
use bdev::malloc::MallocBdev;
use bdev::{BlockRange, Completions, Durability, Io, IoError, Op, Tag};
use engine::Instant;
use uuid::Uuid;

fn bench() -> (Arc<MallocBdev>, FaultPlan, Bench) {
    let base = MallocBdev::new("m0", Uuid::nil(), geometry(512));
    let fault = FaultBdev::new("f0", "error", Uuid::nil(), base.clone());
    let plan = fault.plan().clone();
    (base, plan, Bench::new(fault))
}

fn medium(base: &MallocBdev, blocks: u32) -> Vec<u8> {
    base.snapshot(BlockRange::new(0, blocks)).chunks(512).map(|sector| sector[0]).collect()
}

#[test]
fn errors_and_refusals_come_as_often_as_asked() {
    let (_, plan, mut bench) = bench();
    plan.arm(FaultTarget::Write, Fault::Error, 2);
    for _ in 0..2 {
        assert_eq!(bench.write(3, 1, 1, Durability::Accepted), Err(IoError::Medium { lba: 3 }));
    }
    bench.write(3, 1, 1, Durability::Accepted).expect("over");
    assert_eq!(plan.get(FaultTarget::Write), None);
    plan.arm(FaultTarget::Flush, Fault::Busy, 1);
    let now = bench.now();
    let refused = bench.channel.submit(Io::new(Op::Flush, Tag(1), now), now).expect_err("busy");
    assert_eq!((refused.why, refused.io.tag), (IoError::Busy, Tag(1)));
    bench.channel.submit(refused.io, now).expect("over");
    assert_eq!(bench.wait(1).len(), 1);
    plan.arm(FaultTarget::Read, Fault::Error, u32::MAX);
    for _ in 0..10 {
        bench.read(0, 1).expect_err("without end");
    }
    plan.clear(FaultTarget::Read);
    bench.read(0, 1).expect("cleared");
}

#[test]
fn lost_and_torn_writes_say_that_they_are_done() {
    let (base, plan, mut bench) = bench();
    plan.arm(FaultTarget::Write, Fault::Lost, 1);
    bench.write(0, 4, 1, Durability::Durable).expect("it says so");
    assert_eq!(medium(&base, 4), [0; 4]);
    plan.arm(FaultTarget::Write, Fault::Lost, 1);
    assert_eq!(bench.write(BLOCKS, 1, 1, Durability::Durable), Err(IoError::OutOfRange));
    plan.clear(FaultTarget::Write);
    // Two I/Os under one tag: the owner's names mean nothing to a device.
    plan.arm(FaultTarget::Write, Fault::Torn, 1);
    let torn = bench.write_op(0, 4, 2, Durability::Accepted);
    let whole = bench.write_op(8, 4, 3, Durability::Accepted);
    bench.submit(torn, 1);
    bench.submit(whole, 1);
    for completed in bench.wait(2) {
        completed.result.expect("it says so");
        assert!(matches!(completed.op, Op::Write { range, ref from, .. }
            if range.blocks == 4 && from.len() == 2048 && range.lba == if from[0] == 2 { 0 } else { 8 }));
    }
    assert_eq!(medium(&base, 12), [2, 2, 0, 0, 0, 0, 0, 0, 3, 3, 3, 3]);
    plan.arm(FaultTarget::Write, Fault::Torn, 2);
    bench.write(20, 1, 9, Durability::Accepted).expect("half of one block is none");
    let range = BlockRange::new(8, 4);
    bench.run(Op::WriteZeroes { range, durability: Durability::Accepted }).result.expect("it says so");
    assert_eq!(medium(&base, 12)[8..], [0, 0, 3, 3]);
    assert_eq!(bench.read_byte(20, 1), 0);
}

#[test]
fn corruption_changes_one_byte_on_the_way() {
    let (base, plan, mut bench) = bench();
    plan.arm(FaultTarget::Write, Fault::Corrupt { offset: 512, value: 0xee }, 1);
    let op = bench.write_op(0, 2, 1, Durability::Accepted);
    let completed = bench.run(op);
    assert!(matches!(completed.op, Op::Write { from, .. } if from.iter().all(|byte| *byte == 1)));
    assert_eq!(medium(&base, 2), [1, 0xee]);
    plan.arm(FaultTarget::Read, Fault::Corrupt { offset: 0, value: 5 }, 1);
    assert_eq!(bench.blocks(0, 2), [5, 0xee]);
    assert_eq!(bench.blocks(0, 2), [1, 0xee]);
    plan.arm(FaultTarget::Read, Fault::Corrupt { offset: 9_999, value: 5 }, 1);
    assert_eq!(bench.blocks(0, 2), [1, 0xee]);
}

#[test]
fn silence_lasts_until_it_is_cleared() {
    let (_, plan, mut bench) = bench();
    plan.arm(FaultTarget::Read, Fault::Silence, 1);
    for tag in 0..3 {
        let op = bench.read_op(0, 1);
        bench.submit(op, tag);
    }
    bench.write(0, 1, 1, Durability::Accepted).expect("writes are not silent");
    for _ in 0..10 {
        bench.turn();
    }
    assert!(bench.done.is_empty());
    plan.clear(FaultTarget::Read);
    assert_eq!(bench.wait(3).len(), 3);
}

#[test]
fn a_channel_dropped_in_silence_is_no_programming_error() {
    let (_, plan, mut bench) = bench();
    plan.arm(FaultTarget::Flush, Fault::Silence, 1);
    bench.submit(Op::Flush, 0);
}

#[test]
fn delays_hold_operations_and_one_in_a_hundred_longest() {
    let (_, plan, mut bench) = bench();
    let ms = Duration::from_millis(1);
    plan.set_delay(FaultTarget::Read, Delay { usual: ms, tail: 20 * ms });
    let start = Instant::from_nanos(1_000);
    for tag in 0..100 {
        let op = bench.read_op(0, 1);
        bench.channel.submit(Io::new(op, Tag(tag), start), start).expect("room");
    }
    let mut due = |now| {
        let mut done = Completions::new();
        let _ = bench.channel.poll(now, &mut done);
        (done.len(), bench.channel.next_deadline())
    };
    assert_eq!(due(start), (0, Some(start + ms)));
    assert_eq!(due(start + ms), (99, Some(start + 20 * ms)));
    assert_eq!(due(start + 20 * ms), (1, None));
    plan.set_latency(FaultTarget::Read, Duration::ZERO);
    bench.read(0, 1).expect("at once");
}
