//! Every device keeps the same contract: an I/O comes back exactly once, what was written is read, ranges are checked.
use std::sync::Arc;

use bdev::fault::{Fault, FaultBdev, FaultTarget};
use bdev::hop::{HopEvent, HopIdentity, hop};
use bdev::malloc::MallocBdev;
use bdev::null::NullBdev;
use bdev::sim::{SimBdev, SimConfig, SimFault};
use bdev::uring::{QUEUE_DEPTH, UringBdev, UringError};
use bdev::{
    Bdev, BlockRange, Capabilities, Channel, Completed, Completions, Durability, Geometry, Io, IoError, Op,
    Tag,
};
use engine::{Access, Clock, Core, Instant, MonotonicClock, Pool, RingConfig, RingHandle, Waker};
use uuid::Uuid;

const BLOCKS: u64 = 4096;

fn geometry() -> Geometry {
    Geometry { block_size: 512, physical_block_size: 4096, blocks: BLOCKS }
}

fn core() -> Core {
    let pool = Pool::for_tests();
    let ring =
        RingHandle::new(RingConfig::default(), &pool, Waker::new().expect("eventfd")).expect("io_uring");
    Core::new(0, pool, ring)
}

struct Bench {
    core: Core,
    channel: Box<dyn Channel>,
    clock: MonotonicClock,
    done: Completions,
}

impl Bench {
    fn new(bdev: Arc<dyn Bdev>) -> Self {
        let core = core();
        let channel = bdev.open(&core).expect("a channel");
        Self { core, channel, clock: MonotonicClock::start(), done: Completions::new() }
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn wait(&mut self, count: usize) -> Vec<Completed> {
        let until = self.now() + std::time::Duration::from_secs(10);
        while self.done.len() < count {
            assert!(self.now() < until, "{} of {count} completions in ten seconds", self.done.len());
            self.core.ring().expect("a ring").turn().expect("turn");
            let now = self.now();
            let _ = self.channel.poll(now, &mut self.done);
        }
        self.done.drain(..).collect()
    }

    fn run(&mut self, op: Op) -> Completed {
        let now = self.now();
        self.channel.submit(Io::new(op, Tag(7), now), now).expect("taken");
        let completed = self.wait(1).pop().expect("one");
        assert_eq!(completed.tag, Tag(7));
        completed
    }

    fn write(&mut self, lba: u64, blocks: u32, byte: u8, durability: Durability) -> Result<(), IoError> {
        let mut buf = self.core.pool().alloc(blocks as usize * 512).expect("a frame");
        buf.fill(byte);
        let range = BlockRange::new(lba, blocks);
        self.run(Op::Write { range, from: buf.freeze(), durability }).result
    }

    fn read(&mut self, lba: u64, blocks: u32) -> Result<Vec<u8>, IoError> {
        let into = self.core.pool().alloc(blocks as usize * 512).expect("a frame");
        let completed = self.run(Op::Read { range: BlockRange::new(lba, blocks), into });
        let Op::Read { into, .. } = completed.op else { panic!("another operation came back") };
        completed.result.map(|()| into.to_vec())
    }
}

fn scratch_file() -> (tempfile::NamedTempFile, Arc<UringBdev>) {
    let temp = tempfile::NamedTempFile::new().expect("temporary file");
    temp.as_file().set_len(BLOCKS * 512).expect("size");
    let bdev = UringBdev::open_file("u0", Uuid::nil(), temp.path(), 512, Access::ReadWrite).expect("open");
    (temp, bdev)
}

fn keeps_the_contract(bdev: Arc<dyn Bdev>) {
    let capabilities = bdev.capabilities();
    let mut bench = Bench::new(bdev);
    for durability in [Durability::Accepted, Durability::Durable] {
        bench.write(8, 16, 0xa5, durability).expect("written");
    }
    bench.run(Op::Flush).result.expect("flushed");
    assert!(bench.read(8, 16).expect("read").iter().all(|byte| *byte == 0xa5));
    assert!(bench.read(24, 1).expect("read").iter().all(|byte| *byte == 0));
    assert_eq!(bench.read(BLOCKS - 1, 2), Err(IoError::OutOfRange));
    assert_eq!(bench.write(u64::MAX, 1, 0, Durability::Accepted), Err(IoError::OutOfRange));
    if capabilities.contains(Capabilities::WRITE_ZEROES) {
        let range = BlockRange::new(8, 8);
        bench.run(Op::WriteZeroes { range, durability: Durability::Durable }).result.expect("zeroed");
        assert!(bench.read(8, 8).expect("read").iter().all(|byte| *byte == 0));
        assert!(bench.read(16, 8).expect("read").iter().all(|byte| *byte == 0xa5));
    }
    if capabilities.contains(Capabilities::DISCARD) {
        bench.run(Op::Discard { range: BlockRange::new(16, 8) }).result.expect("discarded");
    }
    let now = bench.now();
    for tag in 0..64 {
        let into = bench.core.pool().alloc(512).expect("a frame");
        let op = Op::Read { range: BlockRange::new(tag, 1), into };
        bench.channel.submit(Io::new(op, Tag(tag), now), now).expect("taken");
    }
    let mut tags: Vec<u64> = bench.wait(64).iter().map(|completed| completed.tag.0).collect();
    tags.sort_unstable();
    assert_eq!(tags, (0..64).collect::<Vec<_>>());
}

#[test]
fn malloc_keeps_the_contract() {
    keeps_the_contract(MallocBdev::new("m0", Uuid::nil(), geometry()));
}

#[test]
fn uring_keeps_the_contract() {
    let (_temp, bdev) = scratch_file();
    keeps_the_contract(bdev);
}

#[test]
fn sim_keeps_the_contract() {
    keeps_the_contract(SimBdev::new("s0", Uuid::nil(), geometry(), SimConfig::default()));
}

#[test]
fn an_unarmed_fault_device_keeps_the_contract() {
    let base = MallocBdev::new("m0", Uuid::nil(), geometry());
    keeps_the_contract(FaultBdev::new("f0", "error", Uuid::nil(), base));
}

#[test]
fn null_reads_zeroes_and_checks_ranges() {
    let mut bench = Bench::new(NullBdev::new("n0", Uuid::nil(), geometry()));
    bench.write(0, 8, 1, Durability::Durable).expect("accepted");
    assert!(bench.read(0, 8).expect("read").iter().all(|byte| *byte == 0));
    assert_eq!(bench.read(BLOCKS, 1), Err(IoError::OutOfRange));
}

#[test]
fn uring_refuses_what_does_not_fit_in_its_queue_and_gives_it_back() {
    let (_temp, bdev) = scratch_file();
    let mut bench = Bench::new(bdev);
    let now = bench.now();
    for _ in 0..QUEUE_DEPTH {
        bench.channel.submit(Io::new(Op::Flush, Tag(0), now), now).expect("room");
    }
    let refused = bench.channel.submit(Io::new(Op::Flush, Tag(9), now), now).expect_err("full");
    assert_eq!((refused.why, refused.io.tag), (IoError::Busy, Tag(9)));
    drop(refused.io.complete(Err(IoError::Aborted), now));
    assert_eq!(bench.wait(QUEUE_DEPTH as usize).len(), QUEUE_DEPTH as usize);
}

#[test]
fn uring_says_what_is_wrong_with_a_file() {
    let (temp, bdev) = scratch_file();
    let open = |path: &std::path::Path, block_size| {
        UringBdev::open_file("x", Uuid::nil(), path, block_size, Access::ReadWrite).map(drop)
    };
    let error = open(temp.path(), 512).expect_err("locked by the first").to_string();
    assert!(error.contains("another process"), "{error}");
    assert!(matches!(open(temp.path(), 520), Err(UringError::BlockSize(520))));
    let error = open(std::path::Path::new("/nonexistent/leg"), 512).expect_err("missing").to_string();
    assert!(error.contains("/nonexistent/leg"), "{error}");
    temp.as_file().set_len(BLOCKS * 1024).expect("grow");
    assert_eq!(bdev.rescan().expect("rescan"), BLOCKS * 2);
}

#[test]
fn a_crash_keeps_what_was_flushed() {
    let disk = SimBdev::new("s0", Uuid::nil(), geometry(), SimConfig { seed: 3, ..SimConfig::default() });
    let mut bench = Bench::new(disk.clone());
    bench.write(0, 8, 1, Durability::Accepted).expect("written");
    bench.run(Op::Flush).result.expect("flushed");
    bench.write(8, 8, 2, Durability::Durable).expect("written");
    bench.write(0, 32, 3, Durability::Accepted).expect("written");
    disk.crash();
    assert_eq!(bench.read(0, 1), Err(IoError::Aborted), "the old channel is dead");
    let mut bench = Bench::new(disk);
    let bytes = bench.read(0, 32).expect("read");
    let sectors: Vec<u8> = bytes.chunks(512).map(|sector| sector[0]).collect();
    assert!(sectors[..8].iter().all(|byte| [1, 3].contains(byte)), "{sectors:?}");
    assert!(sectors[8..16].iter().all(|byte| [2, 3].contains(byte)), "{sectors:?}");
    assert!(sectors[16..].iter().all(|byte| [0, 3].contains(byte)), "{sectors:?}");
    assert!(
        sectors.contains(&3) && sectors.iter().any(|byte| *byte != 3),
        "some survive, some do not: {sectors:?}"
    );
}

#[test]
fn simulated_faults_strike_and_heal() {
    let disk = SimBdev::new("s0", Uuid::nil(), geometry(), SimConfig::default());
    let mut bench = Bench::new(disk.clone());
    disk.inject(SimFault::BadBlock { lba: 5 });
    disk.inject(SimFault::FailWrites { count: 1 });
    assert_eq!(bench.read(0, 8), Err(IoError::Medium { lba: 5 }));
    assert_eq!(bench.write(5, 1, 1, Durability::Durable), Err(IoError::Medium { lba: 5 }));
    bench.write(5, 1, 1, Durability::Durable).expect("rewritten");
    bench.read(0, 8).expect("healed");
}

#[test]
fn armed_faults_strike_as_often_as_asked() {
    let base = MallocBdev::new("m0", Uuid::nil(), geometry());
    let fault = FaultBdev::new("f0", "error", Uuid::nil(), base.clone());
    let plan = fault.plan().clone();
    let mut bench = Bench::new(fault);
    plan.arm(FaultTarget::Write, Fault::Error, 1);
    assert_eq!(bench.write(3, 1, 1, Durability::Accepted), Err(IoError::Medium { lba: 3 }));
    plan.arm(FaultTarget::Write, Fault::Lost, 1);
    bench.write(3, 1, 1, Durability::Accepted).expect("it says so");
    assert_eq!(bench.read(3, 1).expect("read")[0], 0);
    plan.arm(FaultTarget::Write, Fault::Torn, 1);
    bench.write(0, 4, 2, Durability::Accepted).expect("it says so");
    let sectors: Vec<u8> = base.snapshot(BlockRange::new(0, 4)).chunks(512).map(|sector| sector[0]).collect();
    assert_eq!(sectors, [2, 2, 0, 0]);
    plan.arm(FaultTarget::Read, Fault::Silence, 1);
    let now = bench.now();
    let into = bench.core.pool().alloc(512).expect("a frame");
    bench
        .channel
        .submit(Io::new(Op::Read { range: BlockRange::new(0, 1), into }, Tag(1), now), now)
        .expect("taken");
    let now = bench.now();
    assert!(!bench.channel.poll(now, &mut bench.done).is_busy());
    plan.clear(FaultTarget::Read);
    assert_eq!(bench.wait(1).len(), 1);
    plan.set_latency(FaultTarget::Flush, std::time::Duration::from_millis(5));
    let before = bench.now();
    bench.run(Op::Flush).result.expect("flushed");
    assert!(bench.now() - before >= std::time::Duration::from_millis(5));
}

#[test]
fn a_hop_serves_channels_of_other_threads_and_tells_when_they_go() {
    let identity = HopIdentity {
        name: "h0".to_owned(),
        product: "hop",
        uuid: Uuid::nil(),
        geometry: geometry(),
        capabilities: Capabilities::FLUSH,
    };
    let (bdev, mut server) = hop(identity, Waker::new().expect("eventfd"));
    let client = std::thread::spawn(move || {
        let mut bench = Bench::new(bdev);
        for _ in 0..500 {
            bench.run(Op::Flush).result.expect("answered");
        }
    });
    let mut served = 0;
    let mut events = Vec::new();
    while events.len() < 2 {
        while let Some(event) = server.next_event() {
            events.push(event);
        }
        while let Some((id, io)) = server.take() {
            server.complete(id, io.complete(Ok(()), Instant::EPOCH));
            served += 1;
        }
        std::thread::yield_now();
    }
    client.join().expect("no failure");
    assert_eq!(served, 500);
    assert!(matches!(events[..], [HopEvent::Opened(a), HopEvent::Closed(b)] if a == b), "{events:?}");
}

#[test]
fn a_hop_whose_server_is_gone_gives_everything_back() {
    let identity = HopIdentity {
        name: "h0".to_owned(),
        product: "hop",
        uuid: Uuid::nil(),
        geometry: geometry(),
        capabilities: Capabilities::FLUSH,
    };
    let (bdev, server) = hop(identity, Waker::new().expect("eventfd"));
    let mut bench = Bench::new(bdev);
    let now = bench.now();
    bench.channel.submit(Io::new(Op::Flush, Tag(1), now), now).expect("taken");
    drop(server);
    assert_eq!(bench.wait(1)[0].result, Err(IoError::Aborted));
    let refused = bench.channel.submit(Io::new(Op::Flush, Tag(2), now), now).expect_err("gone");
    drop(refused.io.complete(Err(IoError::Aborted), now));
}
