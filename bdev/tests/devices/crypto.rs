//! A crypto device: what lies below is noise, the key opens it, an erase ends all of that, and what goes wrong on the way leaves the
//! old data or none.

use std::sync::Arc;

use crate::common::{Bench, core, geometry};
use bdev::crypto::{CryptoBdev, CryptoError, NoHeader, Opening, Over, Request, UserKey, Wish};
use bdev::fault::{Fault, FaultBdev, FaultPlan, FaultTarget};
use bdev::hop::{HopIdentity, hop};
use bdev::malloc::MallocBdev;
use bdev::sim::{SimBdev, SimConfig};
use bdev::{
    Access, AccessState, Bdev, BlockRange, Capabilities, Completions, Durability, Geometry, Io, IoError,
    NodeSide, Op, Shared, Tag,
};
use engine::{Clock, Core, MonotonicClock};
use uuid::Uuid;

const UUID: Uuid = Uuid::from_u128(77);
/// Blocks of 512 bytes before the data.
const RESERVED: u64 = 2048;

fn key(byte: u8) -> Arc<UserKey> {
    Arc::new(UserKey::new(&[byte; 32], None).expect("a key"))
}

/// What a device of [`BLOCKS`] blocks takes below.
pub(crate) fn below(block_size: u32) -> Geometry {
    let wanted = geometry(block_size);
    Geometry { blocks: wanted.blocks + (1 << 20) / u64::from(block_size), ..wanted }
}

fn make(core: &Core, base: Arc<dyn Bdev>, user: u8, wish: Wish) -> Result<Arc<CryptoBdev>, CryptoError> {
    let request = Request { name: "c0".to_owned(), base, user: key(user), wish };
    let mut opening = Opening::begin(request, core)?;
    let clock = MonotonicClock::start();
    for _ in 0..1_000_000 {
        core.ring().expect("a ring").turn().expect("turn");
        let _ = opening.poll(clock.now());
        if opening.is_over() {
            return opening.into_result().expect("over");
        }
    }
    panic!("no end of it");
}

const FORMAT: Wish = Wish::Format(UUID, Over::Blank);

pub(crate) fn formatted(base: Arc<dyn Bdev>) -> Arc<CryptoBdev> {
    make(&core(), base, 1, FORMAT).expect("formatted")
}

fn ram() -> Arc<MallocBdev> {
    MallocBdev::new("m0", Uuid::nil(), below(512))
}

fn open(base: Arc<dyn Bdev>, user: u8) -> Result<Arc<CryptoBdev>, CryptoError> {
    make(&core(), base, user, Wish::Open(None))
}

fn whole(base: &MallocBdev) -> Vec<u8> {
    base.snapshot(BlockRange::new(0, u32::try_from(below(512).blocks).expect("few")))
}

#[test]
fn what_lies_below_is_noise_and_the_key_reads_it() {
    let base = ram();
    let mut bench = Bench::new(formatted(base.clone()));
    bench.write(5, 3, 0x5a, Durability::Durable).expect("written");
    let below = whole(&base);
    assert!(!below.windows(16).any(|bytes| *bytes == [0x5a; 16]));
    let data = &below[1 << 20..];
    assert!(data[..5 * 512].iter().chain(&data[8 * 512..]).all(|byte| *byte == 0), "nothing beside it");
    assert_ne!(data[5 * 512..6 * 512], data[6 * 512..7 * 512]);
    let device = open(base, 1).expect("the key");
    assert_eq!((device.uuid(), device.geometry()), (UUID, geometry(512)));
    assert_eq!(Bench::new(device).blocks(4, 5), [0, 0x5a, 0x5a, 0x5a, 0]);
}

#[test]
fn what_cannot_be_opened_is_refused_and_nothing_is_written() {
    let base = ram();
    let refused = |user: u8, wish: Wish| {
        let before = whole(&base);
        let why = make(&core(), base.clone(), user, wish).map(drop).expect_err("refused");
        assert!(whole(&base) == before, "{why}: nothing is written");
        why
    };
    let name = || "m0".to_owned();
    assert_eq!(refused(1, Wish::Open(None)), CryptoError::NoHeader { base: name(), why: NoHeader::Blank });
    let mut raw = Bench::new(base.clone());
    raw.write(1, 1, 7, Durability::Durable).expect("written");
    assert_eq!(refused(1, Wish::Open(None)), CryptoError::NoHeader { base: name(), why: NoHeader::Foreign });
    assert!(matches!(refused(1, FORMAT), CryptoError::InUse { .. }));
    make(&core(), base.clone(), 1, Wish::Format(UUID, Over::Anything)).expect("by the operator's word");
    assert_eq!(refused(2, Wish::Open(None)), CryptoError::WrongKey { base: name() });
    assert!(matches!(refused(1, FORMAT), CryptoError::InUse { .. }), "it is formatted already");
    let other = Wish::Open(Some(Uuid::from_u128(1)));
    assert_eq!(refused(1, other), CryptoError::OtherUuid { base: name(), found: UUID });
    for slot in [0, 128] {
        raw.write(slot, 1, 0, Durability::Durable).expect("written");
    }
    raw.write(0, 1, 9, Durability::Durable).expect("written");
    assert_eq!(refused(1, Wish::Open(None)), CryptoError::NoHeader { base: name(), why: NoHeader::Foreign });
    let tiny = MallocBdev::new("m0", Uuid::nil(), Geometry { blocks: RESERVED, ..geometry(512) });
    let small = make(&core(), tiny, 1, FORMAT).map(drop).expect_err("no room");
    assert_eq!(small, CryptoError::TooSmall { base: name() });
}

#[test]
fn a_base_that_another_node_writes_to_is_refused() {
    let core = core();
    let identity = HopIdentity {
        name: "m0".to_owned(),
        product: "Mirror",
        uuid: Uuid::nil(),
        geometry: below(512),
        capabilities: Capabilities::FLUSH,
    };
    let (base, mut server) = hop(identity, &core);
    let (own, peer) = (AccessState::Optimized, AccessState::NonOptimized);
    server.set_access(Access::Shared(Shared { node: NodeSide::First, own, peer, epoch: 1 }));
    let why = make(&core, base, 1, FORMAT).map(drop).expect_err("shared");
    assert_eq!(why, CryptoError::Shared { base: "m0".to_owned() });
}

#[test]
fn one_slot_is_enough_and_the_other_is_mended() {
    let base = ram();
    let device = formatted(base.clone());
    Bench::new(device).write(0, 1, 3, Durability::Durable).expect("written");
    let before = whole(&base);
    for slot in [0, 128] {
        Bench::new(base.clone()).write(slot, 1, 0xee, Durability::Durable).expect("damaged");
        assert_eq!(Bench::new(open(base.clone(), 1).expect("the other slot")).read_byte(0, 1), 3);
        assert!(whole(&base) == before, "both slots again");
    }
}

fn erase(bench: &mut Bench) -> Result<(), IoError> {
    bench.run(Op::CryptoErase).result
}

#[test]
fn an_erase_changes_the_key_of_every_channel_and_leaves_none_of_the_old() {
    let base = ram();
    let device = formatted(base.clone());
    let (mut first, mut second) = (Bench::new(device.clone()), Bench::new(device.clone()));
    first.write(9, 2, 4, Durability::Durable).expect("written");
    let old = whole(&base);
    let (wrapped, encrypted) = (&old[56..128], &old[(1 << 20) + 9 * 512..][..1024]);
    erase(&mut first).expect("erased");
    let new = whole(&base);
    assert!(!new.windows(72).any(|bytes| bytes == wrapped), "the old key is nowhere");
    assert_eq!(&new[(1 << 20) + 9 * 512..][..1024], encrypted, "the data are as they were");
    for bench in [&mut first, &mut second] {
        let noise = bench.read(9, 2).expect("read");
        assert!(!noise.windows(8).any(|bytes| *bytes == [4; 8] || *bytes == [0; 8]));
        assert_eq!(bench.read_byte(8, 1), 0, "what was never written");
    }
    second.write(9, 1, 6, Durability::Durable).expect("written");
    assert_eq!(first.read_byte(9, 1), 6);
    assert_eq!(device.uuid(), UUID);
    assert_eq!(Bench::new(open(base.clone(), 1).expect("the same user key")).read_byte(9, 1), 6);
    assert!(open(base, 2).is_err());
}

#[test]
fn one_erase_at_a_time() {
    let device = formatted(ram());
    let (mut first, mut second) = (Bench::new(device.clone()), Bench::new(device));
    first.submit(Op::CryptoErase, 1);
    let now = second.now();
    for bench in [&mut first, &mut second] {
        let refused =
            bench.channel.submit(Io::new(Op::CryptoErase, Tag(2), now), now).expect_err("one is at work");
        assert_eq!(refused.why, IoError::Busy);
        drop(refused.io.complete(Err(IoError::Aborted), now));
    }
    first.wait(1).remove(0).result.expect("erased");
    erase(&mut second).expect("and another one");
}

fn faulty() -> (Arc<MallocBdev>, FaultPlan, Arc<CryptoBdev>) {
    let base = ram();
    let fault = FaultBdev::new("f0", "error", Uuid::nil(), base.clone());
    let plan = fault.plan().clone();
    (base, plan, formatted(fault))
}

#[test]
fn a_header_that_cannot_be_written_leaves_the_device_undecided_until_it_can() {
    let (base, plan, device) = faulty();
    let mut bench = Bench::new(device);
    bench.write(1, 1, 8, Durability::Durable).expect("written");
    plan.arm(FaultTarget::Write, Fault::Error, 1);
    assert!(matches!(erase(&mut bench), Err(IoError::Medium { .. })));
    assert_eq!(bench.read(1, 1), Err(IoError::Medium { lba: 1 }), "old or new: nobody knows");
    assert_eq!(bench.write(1, 1, 1, Durability::Accepted), Err(IoError::Medium { lba: 1 }));
    assert_eq!(Bench::new(open(base.clone(), 1).expect("whoever opens it")).read_byte(1, 1), 8);
    erase(&mut bench).expect("it can be written again");
    bench.write(1, 1, 2, Durability::Durable).expect("written");
    assert_eq!(Bench::new(open(base, 1).expect("the new key")).read_byte(1, 1), 2);
}

#[test]
fn an_erase_that_fails_half_way_has_the_new_key_and_the_next_one_takes_the_old_one_away() {
    let (base, plan, device) = faulty();
    let mut bench = Bench::new(device);
    let old = whole(&base)[56..128].to_vec();
    bench.write(1, 1, 8, Durability::Durable).expect("written");
    // The first write, its flush, and then the second one.
    bench.submit(Op::CryptoErase, 1);
    bench.turn();
    plan.arm(FaultTarget::Write, Fault::Error, 1);
    assert!(bench.wait(1).remove(0).result.is_err());
    assert!(whole(&base).windows(72).any(|bytes| *bytes == *old), "the old key is there yet: it says so");
    bench.write(2, 1, 5, Durability::Durable).expect("with the new key");
    assert_eq!(Bench::new(open(base.clone(), 1).expect("the new key")).read_byte(2, 1), 5);
    erase(&mut bench).expect("erased");
    assert!(!whole(&base).windows(72).any(|bytes| *bytes == *old));
}

#[test]
fn a_base_that_is_busy_is_asked_again() {
    let (_, plan, device) = faulty();
    let mut bench = Bench::new(device);
    plan.arm(FaultTarget::Flush, Fault::Busy, 1);
    erase(&mut bench).expect("asked again");
    plan.arm(FaultTarget::Write, Fault::Busy, 1);
    let write = bench.write_op(3, 1, 7, Durability::Accepted);
    let now = bench.now();
    let refused = bench.channel.submit(Io::new(write, Tag(5), now), now).expect_err("busy");
    assert_eq!((refused.why, refused.io.tag), (IoError::Busy, Tag(5)));
    assert!(
        matches!(refused.io.op(), Op::Write { range, from, .. }
        if *range == BlockRange::new(3, 1) && from.iter().all(|byte| *byte == 7)),
        "as it was given"
    );
    bench.channel.submit(refused.io, now).expect("room again");
    bench.wait(1).remove(0).result.expect("written");
    assert_eq!(bench.read_byte(3, 1), 7);
    plan.arm(FaultTarget::Read, Fault::Error, 1);
    assert_eq!(bench.read(3, 1), Err(IoError::Medium { lba: 3 }), "an address of this device");
}

#[test]
fn it_promises_what_the_base_does_and_grows_with_it() {
    let base = ram();
    let device = formatted(base.clone());
    let without = Capabilities::COMPARE_AND_WRITE;
    assert_eq!(device.capabilities(), (base.capabilities() - without) | Capabilities::CRYPTO_ERASE);
    let mut bench = Bench::new(device);
    bench.write(0, 8, 1, Durability::Durable).expect("written");
    bench.run(Op::Discard { range: BlockRange::new(2, 2) }).result.expect("discarded");
    let range = BlockRange::new(5, 1);
    bench.run(Op::WriteZeroes { range, durability: Durability::Durable }).result.expect("zeroed");
    assert_eq!(bench.blocks(0, 8), [1, 1, 0, 0, 1, 0, 1, 1]);
    bench.write(6, 1, 0, Durability::Durable).expect("zeroes, written");
    assert_eq!(bench.read_byte(6, 1), 0);
    assert!(
        whole(&base)[(1 << 20) + 6 * 512..][..512].iter().any(|byte| *byte != 0),
        "they are encrypted, too"
    );
}

/// Whether a device still reads what was written before the erase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Data {
    Old,
    Noise,
}

fn crashed_in_an_erase(core: &Core, seed: u64, steps: u64) -> (Data, usize) {
    let base = SimBdev::new("s0", Uuid::nil(), below(512), SimConfig { seed, ..SimConfig::default() });
    let bench = |device: Arc<CryptoBdev>| Bench::on(core.clone(), device, Box::new(|_| {}));
    let formatted = make(core, base.clone(), 1, FORMAT).expect("formatted");
    let opened = || make(core, base.clone(), 1, Wish::Open(None)).expect("a header, whatever happened");
    let mut before = bench(formatted);
    before.write(7, 1, 9, Durability::Durable).expect("written");
    let wrapped = base.peek(56, 72);
    let start = before.now();
    before.channel.submit(Io::new(Op::CryptoErase, Tag(0), start), start).expect("taken");
    let mut done = Completions::new();
    for _ in 0..steps {
        let now = before.channel.next_deadline().unwrap_or(start).max(start);
        let _ = before.channel.poll(now, &mut done);
    }
    let answered = done.len();
    base.crash();
    let mut after = bench(opened());
    let read = after.read(7, 1).expect("read");
    let data = if read.iter().all(|byte| *byte == 9) { Data::Old } else { Data::Noise };
    if data == Data::Noise {
        let stable = base.stable_image();
        assert!(!stable[..72 << 10].windows(72).any(|bytes| *bytes == wrapped), "whoever opens it ends it");
    }
    after.write(7, 1, 4, Durability::Durable).expect("written");
    assert_eq!(after.read_byte(7, 1), 4);
    if answered == 0 {
        before.wait(1).remove(0).result.expect_err("the old channel is dead");
    }
    (data, answered)
}

#[test]
fn power_may_go_at_any_step_of_an_erase() {
    let (core, mut seen) = (core(), Vec::new());
    for seed in 0..3 {
        for steps in 0..10 {
            let (data, answered) = crashed_in_an_erase(&core, seed, steps);
            assert!(data == Data::Noise || answered == 0, "seed {seed}, step {steps}: it was answered");
            seen.push((data, answered));
        }
    }
    for wanted in [(Data::Old, 0), (Data::Noise, 0), (Data::Noise, 1)] {
        assert!(seen.contains(&wanted), "{wanted:?} is reached");
    }
}
