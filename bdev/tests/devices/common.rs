//! A reactor's loop around one channel.

use std::sync::Arc;

use bdev::uring::{FileOptions, UringBdev};
use bdev::{Bdev, BlockRange, Channel, Completed, Completions, Durability, Geometry, Io, IoError, Op, Tag};
use engine::{Clock, Core, Instant, MonotonicClock, Pool, RingConfig, RingHandle, Waker};
use uuid::Uuid;

pub(crate) const BLOCKS: u64 = 4096;

pub(crate) fn geometry(block_size: u32) -> Geometry {
    Geometry { block_size, physical_block_size: 4096, blocks: BLOCKS }
}

pub(crate) fn core() -> Core {
    let pool = Pool::for_tests();
    let ring =
        RingHandle::new(RingConfig::default(), &pool, Waker::new().expect("eventfd")).expect("io_uring");
    Core::new(0, pool, ring)
}

/// A sparse file with a device on it.
pub(crate) fn scratch_file(block_size: u32) -> (tempfile::NamedTempFile, Arc<UringBdev>) {
    file_of(geometry(block_size))
}

/// As [`scratch_file`], of any size.
pub(crate) fn file_of(geometry: Geometry) -> (tempfile::NamedTempFile, Arc<UringBdev>) {
    let temp = tempfile::NamedTempFile::new().expect("temporary file");
    temp.as_file().set_len(geometry.bytes()).expect("size");
    let options = FileOptions::new(geometry.block_size);
    let bdev = UringBdev::open_file("u0", Uuid::nil(), temp.path(), options).expect("open");
    (temp, bdev)
}

/// Who else is on the reactor.
type Neighbour = Box<dyn FnMut(Instant)>;

pub(crate) struct Bench {
    pub(crate) core: Core,
    pub(crate) channel: Box<dyn Channel>,
    pub(crate) done: Completions,
    block_size: usize,
    clock: MonotonicClock,
    neighbour: Neighbour,
}

impl Bench {
    pub(crate) fn new(bdev: Arc<dyn Bdev>) -> Self {
        Self::on(core(), bdev, Box::new(|_| {}))
    }

    pub(crate) fn on(core: Core, bdev: Arc<dyn Bdev>, neighbour: Neighbour) -> Self {
        let block_size = bdev.geometry().block_size as usize;
        let channel = bdev.open(&core).expect("a channel");
        Self {
            core,
            channel,
            done: Completions::new(),
            block_size,
            clock: MonotonicClock::start(),
            neighbour,
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    pub(crate) fn turn(&mut self) {
        self.core.ring().expect("a ring").turn().expect("turn");
        let now = self.now();
        (self.neighbour)(now);
        let _ = self.channel.poll(now, &mut self.done);
    }

    /// Turns until `count` I/Os ended; fails after ten seconds.
    pub(crate) fn wait(&mut self, count: usize) -> Vec<Completed> {
        let until = self.now() + std::time::Duration::from_secs(10);
        while self.done.len() < count {
            assert!(self.now() < until, "{} of {count} completions in ten seconds", self.done.len());
            self.turn();
        }
        self.done.drain(..).collect()
    }

    pub(crate) fn submit(&mut self, op: Op, tag: u64) {
        let now = self.now();
        self.channel.submit(Io::new(op, Tag(tag), now), now).expect("taken");
    }

    pub(crate) fn run(&mut self, op: Op) -> Completed {
        let name = op.name();
        self.submit(op, 7);
        let completed = self.wait(1).pop().expect("one");
        assert_eq!((completed.tag, completed.op.name()), (Tag(7), name));
        assert!(completed.stamps.queued <= completed.stamps.completed);
        completed
    }

    pub(crate) fn write_op(&self, lba: u64, blocks: u32, byte: u8, durability: Durability) -> Op {
        let mut buf = self.core.pool().alloc(blocks as usize * self.block_size).expect("a frame");
        buf.fill(byte);
        Op::Write { range: BlockRange::new(lba, blocks), from: buf.freeze(), durability }
    }

    pub(crate) fn read_op(&self, lba: u64, blocks: u32) -> Op {
        let into = self.core.pool().alloc(blocks as usize * self.block_size).expect("a frame");
        Op::Read { range: BlockRange::new(lba, blocks), into }
    }

    pub(crate) fn write(
        &mut self,
        lba: u64,
        blocks: u32,
        byte: u8,
        durability: Durability,
    ) -> Result<(), IoError> {
        let op = self.write_op(lba, blocks, byte, durability);
        self.run(op).result
    }

    pub(crate) fn read(&mut self, lba: u64, blocks: u32) -> Result<Vec<u8>, IoError> {
        let op = self.read_op(lba, blocks);
        let completed = self.run(op);
        let Op::Read { into, .. } = completed.op else { panic!("another operation came back") };
        completed.result.map(|()| into.to_vec())
    }

    /// The one byte that the blocks hold.
    pub(crate) fn read_byte(&mut self, lba: u64, blocks: u32) -> u8 {
        let bytes = self.read(lba, blocks).expect("read");
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "mixed content at {lba}+{blocks}");
        bytes[0]
    }

    /// The first byte of each block.
    pub(crate) fn blocks(&mut self, lba: u64, blocks: u32) -> Vec<u8> {
        let block_size = self.block_size;
        self.read(lba, blocks).expect("read").chunks(block_size).map(|block| block[0]).collect()
    }
}
