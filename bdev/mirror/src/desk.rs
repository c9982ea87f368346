//! The I/O desk: everything that the core sends to a leg goes out here with its purpose, and comes back with
//! it.
//!
//! Owner: the node. Invariants: each I/O has one purpose; a completion finds it or is the programmer's
//! mistake; metadata blocks have frames of their own, so that no shortage of frames stops a config change,
//! a transaction (I23), a heartbeat or a look at a leg: those who have the frames may be waiting for that.
//!
//! The own disk may hang: it neither does an I/O nor fails it. Where the peer's leg can stand in, the core gives such I/Os up
//! (`Desk::give_up`): it is told that they timed out, and the disk still has them. What a disk has may land at any time, so
//! nothing is sent to it until everything that was given up has come back; until then the core's I/Os on it time out at once.

use std::collections::VecDeque;

use bdev::hop::ClientId;
use bdev::{BlockRange, Completed, Durability, FenceKey, Geometry, Io, IoError, Op, Tag};
use core::time::Duration;
use engine::{Buf, BufMut, Instant, Key, Pool, Slots};

use crate::format::{BLOCK_SIZE, BlockWrite};
use crate::range::ByteRange;

/// Which leg, as seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// This node's own leg.
    Own,
    /// The peer's leg, over the link.
    Peer,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Own, Self::Peer];

    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::Own => Self::Peer,
            Self::Peer => Self::Own,
        }
    }
}

/// Why an I/O was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// An I/O of the peer on our leg, with the peer's tag.
    Guarded { client: ClientId, tag: Tag },
    /// Part of a metadata read.
    Read { job: u32 },
    /// A step of formatting.
    Format,
    /// A superblock block; for the peer's leg, on which way there.
    Superblock { attempt: u32 },
    /// A transaction of the intent log.
    Transaction { seq: u64 },
    /// A page of our bitmap.
    Page { page: u32 },
    /// Part of a request of the front end.
    Request(Key),
    /// A flush of the holder's own.
    Flush,
    /// The flush of the own leg before a config that counts it alone.
    ChangeFlush { attempt: u32 },
    /// The flush of a node that is told to stop.
    LastFlush,
    /// The flush of the own leg that comes before a node reads it.
    FirstFlush,
    /// The flush of what copies are made from.
    SourceFlush { attempt: u32 },
    /// The read of a copy.
    CopyRead(Key),
    /// The write of a copy.
    CopyWrite(Key),
    /// The fence of the peer's leg.
    Fence { attempt: u32 },
    /// The read that renews the lease.
    Heartbeat { attempt: u32, sent: Instant },
    /// The unit's state on its way to a leg that comes back.
    UnitState { delivery: u64 },
    /// A block of the peer's log or bitmap that is emptied.
    Emptying { attempt: u32 },
    /// None any more: it was given up, and the own disk still has it.
    GivenUp,
}

/// An I/O on its way.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    side: Side,
    purpose: Purpose,
    since: Instant,
    /// What the core reads: whoever gives it up needs another frame.
    reads: Option<BlockRange>,
}

impl InFlight {
    /// This node's own on its own leg; it stays so until the disk is done with it.
    fn is_own_core(&self) -> bool {
        self.side == Side::Own && !matches!(self.purpose, Purpose::Guarded { .. })
    }
}

/// Whether the own disk does what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnDisk {
    /// It does.
    Answers,
    /// It has had an I/O for longer than a disk may.
    Hangs,
}

/// I/Os in flight at the most, both legs together.
const IN_FLIGHT_MAX: u32 = 4096;
/// Of them, kept back for the core's own metadata.
const METADATA_SHARE: usize = 256;
/// Frames kept back for metadata blocks.
const FRAMES_KEPT: usize = 32;

/// See the module.
pub(crate) struct Desk {
    pool: Pool,
    purposes: Slots<InFlight>,
    out: VecDeque<(Side, Io)>,
    frames: Vec<BufMut>,
    block_size: [u32; 2],
    in_flight: [u32; 2],
    /// Own I/Os that are not the peer's.
    own_core: u32,
    /// Of them, those that were given up.
    given_up: u32,
    /// Own I/Os that were not sent, because the disk has some that were given up.
    unsent: VecDeque<Completed>,
    io_timeout: Duration,
    attempts: u32,
    /// The time of the event that is being handled.
    pub(crate) now: Instant,
}

impl Desk {
    pub(crate) fn new(pool: Pool, own: Geometry, io_timeout: Duration) -> Self {
        let frames = (0..FRAMES_KEPT).filter_map(|_| pool.alloc(BLOCK_SIZE)).collect();
        Self {
            pool,
            purposes: Slots::with_capacity(IN_FLIGHT_MAX),
            out: VecDeque::with_capacity(IN_FLIGHT_MAX as usize),
            frames,
            block_size: [own.block_size, own.block_size],
            in_flight: [0; 2],
            own_core: 0,
            given_up: 0,
            unsent: VecDeque::new(),
            io_timeout,
            attempts: 0,
            now: Instant::EPOCH,
        }
    }

    /// A number for a way to the peer's leg, or for a job of reads: never the same twice, so that an answer to an older
    /// one is told apart.
    pub(crate) fn new_attempt(&mut self) -> u32 {
        self.attempts = self.attempts.wrapping_add(1);
        self.attempts
    }

    /// The peer's leg says what its blocks are.
    pub(crate) fn set_peer_block_size(&mut self, block_size: u32) {
        self.block_size[Side::Peer as usize] = block_size;
    }

    /// True while there is room for another request of a host or of the peer.
    pub(crate) fn has_room(&self) -> bool {
        self.purposes.len() + METADATA_SHARE < self.purposes.capacity()
    }

    /// I/Os in flight on a leg, the peer's on ours included.
    pub(crate) fn in_flight(&self, side: Side) -> u32 {
        self.in_flight[side as usize]
    }

    /// I/Os of this node itself in flight on its own leg.
    pub(crate) fn own_in_flight(&self) -> u32 {
        self.own_core
    }

    /// The next I/O for a channel.
    pub(crate) fn next_out(&mut self) -> Option<(Side, Io)> {
        self.out.pop_front()
    }

    /// A frame for data.
    pub(crate) fn frame(&self, len: usize) -> Option<BufMut> {
        self.pool.alloc(len)
    }

    /// A frame of a block for reading metadata, or for a heartbeat: of those kept back, where the pool has none.
    pub(crate) fn metadata_frame(&mut self) -> Option<BufMut> {
        self.pool.alloc(BLOCK_SIZE).or_else(|| self.frames.pop())
    }

    /// What metadata were read into is used no more.
    pub(crate) fn give_back(&mut self, completed: Completed) {
        if let Op::Read { into, .. } = completed.op {
            self.keep(into);
        }
    }

    /// Keeps a block's frame back, if there are too few.
    fn keep(&mut self, frame: BufMut) {
        if frame.len() == BLOCK_SIZE && self.frames.len() < FRAMES_KEPT {
            self.frames.push(frame);
        }
    }

    fn blocks(&self, side: Side, bytes: ByteRange) -> BlockRange {
        let size = u64::from(self.block_size[side as usize]);
        // A block too few would be a write that is acknowledged and never made.
        assert!(
            bytes.start.is_multiple_of(size) && bytes.len.is_multiple_of(size),
            "{bytes} in blocks of {size}"
        );
        let blocks = u32::try_from(bytes.len / size).expect("an I/O is shorter than 2^32 blocks");
        BlockRange::new(bytes.start / size, blocks)
    }

    /// Sends any operation.
    pub(crate) fn submit(&mut self, side: Side, op: Op, purpose: Purpose) {
        let reads = if let Op::Read { range, .. } = &op { Some(*range) } else { None };
        let entry = InFlight { side, purpose, since: self.now, reads };
        let key = self.purposes.insert(entry).expect("requests are bounded by has_room");
        let mut io = Io::new(op, Tag(key.to_bits()), self.now);
        if side == Side::Peer {
            io = io.with_deadline(self.now + self.io_timeout);
        }
        self.in_flight[side as usize] += 1;
        self.own_core += u32::from(entry.is_own_core());
        if entry.is_own_core() && self.given_up != 0 {
            self.unsent.push_back(io.complete(Err(IoError::TimedOut), self.now));
        } else {
            self.out.push_back((side, io));
        }
    }

    /// Reads bytes of a leg into a frame.
    pub(crate) fn read(&mut self, side: Side, bytes: ByteRange, into: BufMut, purpose: Purpose) {
        let range = self.blocks(side, bytes);
        self.submit(side, Op::Read { range, into }, purpose);
    }

    /// Writes bytes of a leg.
    pub(crate) fn write(
        &mut self,
        side: Side,
        offset: u64,
        from: Buf,
        durability: Durability,
        purpose: Purpose,
    ) {
        let range = self.blocks(side, ByteRange::new(offset, from.len() as u64));
        self.submit(side, Op::Write { range, from, durability }, purpose);
    }

    /// Makes bytes of a leg read as zeroes.
    pub(crate) fn zero(&mut self, side: Side, bytes: ByteRange, durability: Durability, purpose: Purpose) {
        let range = self.blocks(side, bytes);
        self.submit(side, Op::WriteZeroes { range, durability }, purpose);
    }

    /// A leg's block size.
    pub(crate) fn block_size(&self, side: Side) -> u32 {
        self.block_size[side as usize]
    }

    /// Asks the own leg which of its bytes are backed.
    pub(crate) fn block_status(&mut self, bytes: ByteRange, purpose: Purpose) {
        let range = self.blocks(Side::Own, bytes);
        self.submit(Side::Own, Op::BlockStatus { range, found: None }, purpose);
    }

    /// Flushes a leg.
    pub(crate) fn flush(&mut self, side: Side, purpose: Purpose) {
        self.submit(side, Op::Flush, purpose);
    }

    /// Fences the peer's leg.
    pub(crate) fn fence(&mut self, key: FenceKey, purpose: Purpose) {
        self.submit(Side::Peer, Op::Fence { key }, purpose);
    }

    /// True when a metadata block can be written now.
    pub(crate) fn has_block(&mut self) -> bool {
        if self.frames.is_empty() {
            self.frames.extend(self.pool.alloc(BLOCK_SIZE));
        }
        !self.frames.is_empty()
    }

    /// Writes a metadata block durably. The caller has asked [`Desk::has_block`].
    pub(crate) fn write_block(&mut self, side: Side, write: &BlockWrite, purpose: Purpose) {
        let mut frame = self.frames.pop().expect("asked for before");
        frame.copy_from_slice(&write.block);
        self.write(side, write.offset, frame.freeze(), Durability::Durable, purpose);
    }

    /// Takes a completion and says what it was for.
    pub(crate) fn settle(&mut self, mut completed: Completed) -> (Side, Purpose, Completed) {
        let found = self.purposes.remove(Key::from_bits(completed.tag.0));
        let entry = found.expect("each I/O completes once");
        let InFlight { side, purpose, .. } = entry;
        self.in_flight[side as usize] -= 1;
        self.own_core -= u32::from(entry.is_own_core());
        self.given_up -= u32::from(purpose == Purpose::GivenUp);
        if let Purpose::Superblock { .. }
        | Purpose::Transaction { .. }
        | Purpose::Page { .. }
        | Purpose::Format
        | Purpose::Emptying { .. } = purpose
        {
            completed = self.keep_frame(completed);
        }
        (side, purpose, completed)
    }

    fn keep_frame(&mut self, mut completed: Completed) -> Completed {
        if let Op::Write { from, .. } = core::mem::replace(&mut completed.op, Op::Flush)
            && let Ok(frame) = from.try_unique()
        {
            self.keep(frame);
        }
        completed
    }
}

// --- A disk that hangs ---

impl Desk {
    /// Whether the own disk has had an I/O, the peer's included, for so long.
    pub(crate) fn own_disk(&self, limit: Duration) -> OwnDisk {
        let late = |entry: &InFlight| entry.side == Side::Own && self.now - entry.since >= limit;
        let hangs = self.given_up != 0 || self.purposes.iter().any(|(_, entry)| late(entry));
        if hangs { OwnDisk::Hangs } else { OwnDisk::Answers }
    }

    /// True while the own disk has I/Os that were given up.
    pub(crate) fn is_own_unsettled(&self) -> bool {
        self.given_up != 0
    }

    /// Gives up this node's I/Os on its own leg: as the core is told of them. The peer's are never given up, because a fence
    /// means that nothing of it lands any more (R10). A read for whose reader there is no frame is left for the next time.
    pub(crate) fn give_up(&mut self) -> Vec<(Purpose, Completed)> {
        let (now, pool) = (self.now, &self.pool);
        let size = u64::from(self.block_size[Side::Own as usize]);
        let mut given_up = Vec::new();
        for (key, entry) in self.purposes.iter_mut() {
            if !entry.is_own_core() || entry.purpose == Purpose::GivenUp {
                continue;
            }
            let op = match entry.reads {
                None => Op::Flush,
                Some(range) => {
                    let bytes = u64::from(range.blocks) * size;
                    let Some(into) = usize::try_from(bytes).ok().and_then(|bytes| pool.alloc(bytes)) else {
                        continue;
                    };
                    Op::Read { range, into }
                }
            };
            let io = Io::new(op, Tag(key.to_bits()), entry.since);
            given_up.push((entry.purpose, io.complete(Err(IoError::TimedOut), now)));
            entry.purpose = Purpose::GivenUp;
        }
        self.given_up += u32::try_from(given_up.len()).expect("no more than are in flight");
        given_up
    }

    /// What was not sent, to be settled like anything that comes back.
    pub(crate) fn take_unsent(&mut self) -> VecDeque<Completed> {
        core::mem::take(&mut self.unsent)
    }

    /// True when [`Desk::take_unsent`] has something.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }
}
