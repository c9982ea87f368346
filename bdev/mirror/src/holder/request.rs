//! A host's I/O on its way through the mirror.

use bdev::hop::ClientId;
use bdev::{
    Backing, BlockRange, BlockStatus, Completed, Durability, Io, IoError, IoShell, NotReady, Op, StateFound,
};
use engine::{Buf, BufMut, Instant, Key};

use super::write::{Write, WriteStage};
use super::{Body, Ctx, Holder, Phase, Sides};
use crate::desk::{Purpose, Side};
use crate::intent_log::{FlushTicket, Permit};
use crate::locks::Owner;
use crate::range::ByteRange;

/// Requests under way at the most.
pub(crate) const REQUESTS_MAX: u32 = 1024;

/// Who is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    Host(ClientId),
    /// Nobody: the holder's own idea.
    Holder,
}

/// One I/O of a host.
#[derive(Debug)]
pub(crate) struct Request {
    pub(super) asker: Asker,
    pub(super) shell: IoShell,
    pub(super) work: Work,
    /// Since when a leg has failed what is under way.
    pub(super) failing_since: Option<Instant>,
}

/// What it is and where it is.
#[derive(Debug)]
pub(super) enum Work {
    Read(Read),
    Write(Write),
    Flush(Flush),
    /// Which blocks are backed, and what the own leg said.
    Status(BlockRange, Option<BlockStatus>),
}

/// A read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) range: BlockRange,
    pub(super) bytes: ByteRange,
    /// Here, or with the leg.
    pub(super) buffer: Option<BufMut>,
    pub(super) stage: ReadStage,
    /// For the write that mends the own leg.
    pub(super) permit: Option<Permit>,
    /// The error of the leg that was asked first.
    pub(super) first_error: Option<IoError>,
    /// The way to the peer's leg when it was sent.
    pub(super) attempt: u32,
    /// When it was taken.
    pub(super) since: Instant,
}

/// Where a read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadStage {
    /// Waits for an overlapping write.
    Locking,
    /// Waits for the lease.
    Unleased,
    /// With a leg.
    Flying(Side),
    /// The peer's leg is to be read and not there: waits for it.
    Parked,
    /// Read from the peer after the own leg failed; on its way back to the own leg.
    Mending,
}

/// A flush.
#[derive(Debug)]
pub(super) struct Flush {
    pub(super) errand: Errand,
    pub(super) waiting: Sides,
    pub(super) failed: [Option<IoError>; 2],
    /// The way to the peer's leg that it took.
    pub(super) attempt: u32,
    pub(super) stage: FlushStage,
    /// What an earlier flush, of nobody's, has failed with.
    pub(super) untold: Option<IoError>,
}

/// What every leg is asked for alike.
#[derive(Debug)]
pub(super) enum Errand {
    /// To flush.
    Flush(FlushTicket),
    /// To keep the unit's state: what the host gave, and its copy with its place once it is sealed.
    Store { from: Buf, frame: Option<(Buf, u64)> },
    /// The same with the state that is there already, for a host that wants to know it.
    Load { into: BufMut, found: StateFound, frame: Option<(Buf, u64)> },
    /// The same again, with the boot ids of now.
    Renew { frame: Option<(Buf, u64)> },
}

/// Where a flush is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlushStage {
    /// With the legs.
    Flying,
    /// A leg failed it: waits for a config.
    Parked,
    /// Behind another store or load of the unit's state.
    Waiting,
    /// Done; the answer waits for the lease.
    Answering,
}

impl Holder {
    fn bytes(&self, range: BlockRange) -> ByteRange {
        let size = u64::from(self.layout.block_size);
        ByteRange::new(range.lba * size, u64::from(range.blocks) * size)
    }

    /// Takes an I/O whose range has been checked.
    pub(super) fn accept(&mut self, client: ClientId, io: Io, ctx: &mut Ctx<'_>) {
        if io.op().range().is_some_and(|range| range.blocks == 0) {
            let done = io.complete(Ok(()), ctx.now());
            return ctx.front.push_back((client, done));
        }
        if let Op::Fence { .. } | Op::CompareAndWrite { .. } | Op::CryptoErase = io.op() {
            let done = io.complete(Err(IoError::Unsupported), ctx.now());
            return ctx.front.push_back((client, done));
        }
        if let Op::HandOver = io.op() {
            let result = self.hand_over(ctx).map_err(|_| IoError::NotReady(NotReady::Frozen));
            let done = io.complete(result, ctx.now());
            return ctx.front.push_back((client, done));
        }
        let (shell, op) = io.detach();
        let work = match op {
            Op::Read { range, into } => Work::Read(Read {
                range,
                bytes: self.bytes(range),
                buffer: Some(into),
                stage: ReadStage::Locking,
                permit: None,
                first_error: None,
                attempt: 0,
                since: ctx.now(),
            }),
            Op::Write { range, from, durability } => self.new_write(range, Body::Data(from), durability),
            Op::WriteZeroes { range, durability } => self.new_write(range, Body::Zeroes, durability),
            Op::Discard { range } => self.new_write(range, Body::Discard, Durability::Accepted),
            Op::Flush => Work::Flush(self.new_flush()),
            Op::StoreState { from } => Work::Flush(Flush::new(Errand::Store { from, frame: None })),
            Op::LoadState { into, found } => {
                Work::Flush(Flush::new(Errand::Load { into, found, frame: None }))
            }
            Op::BlockStatus { range, .. } => Work::Status(range, None),
            Op::Fence { .. } | Op::CompareAndWrite { .. } | Op::HandOver | Op::CryptoErase => {
                unreachable!("answered above")
            }
        };
        let key = self
            .requests
            .insert(Request { asker: Asker::Host(client), shell, work, failing_since: None })
            .expect("the node asks has_room first");
        self.start(key, ctx);
    }

    fn new_write(&self, range: BlockRange, body: Body, durability: Durability) -> Work {
        Work::Write(Write::new(range, self.bytes(range), body, durability))
    }

    fn start(&mut self, key: Key, ctx: &mut Ctx<'_>) {
        match self.requests.get(key).map(|request| &request.work) {
            Some(Work::Read(_)) => self.lock_read(key, ctx),
            Some(Work::Write(_)) => self.next_piece(key, ctx),
            Some(Work::Flush(Flush { errand: Errand::Flush(_), .. })) => self.send_flush(key, ctx),
            Some(Work::Flush(_)) => self.begin_errand(key, ctx),
            Some(Work::Status(range, _)) => {
                let range = *range;
                self.ask_status(key, range, ctx);
            }
            None => {}
        }
    }

    /// Asks the own leg which blocks are backed. Where it is out, or does not say, they count as backed.
    fn ask_status(&mut self, key: Key, range: BlockRange, ctx: &mut Ctx<'_>) {
        // Another block size would need another count.
        let alike = ctx.desk.block_size(Side::Own) == self.layout.block_size;
        if !alike || !self.in_sync().has(Side::Own) || !self.may_read(ctx.now()) {
            return self.end_status(key, None, ctx);
        }
        let place = self.on_leg(Side::Own, self.bytes(range));
        ctx.desk.block_status(place, Purpose::Request(key));
    }

    fn on_status(&mut self, key: Key, completed: &Completed, ctx: &mut Ctx<'_>) {
        let since = self.requests.get(key).map_or(ctx.now(), |request| request.shell.stamps.queued);
        let found = match (&completed.op, completed.result) {
            (Op::BlockStatus { found, .. }, Ok(())) if self.was_leased(since, ctx.now()) => *found,
            _ => None,
        };
        self.end_status(key, found, ctx);
    }

    fn end_status(&mut self, key: Key, said: Option<BlockStatus>, ctx: &mut Ctx<'_>) {
        if let Some(Work::Status(range, found)) = self.requests.get_mut(key).map(|request| &mut request.work)
        {
            let unknown = BlockStatus { blocks: range.blocks, backing: Backing::Allocated };
            *found = Some(said.unwrap_or(unknown));
        }
        self.reply(key, Ok(()), ctx);
    }

    /// Locks that became free: their owners go on.
    pub(super) fn run_granted(&mut self, ctx: &mut Ctx<'_>) {
        while let Some(owner) = self.granted.pop_front() {
            match owner {
                Owner::Copy(key) => self.read_copy(key, ctx),
                Owner::Request(key) => match self.requests.get(key).map(|request| &request.work) {
                    Some(Work::Read(_)) => self.send_read(key, ctx),
                    Some(Work::Write(_)) => self.admit(key, ctx),
                    Some(Work::Flush(_) | Work::Status(..)) | None => {}
                },
            }
        }
    }

    pub(super) fn release(&mut self, owner: Owner) {
        let granted = &mut self.granted;
        self.locks.release(owner, |next| granted.push_back(next));
    }

    /// A leg answered part of a request.
    pub(super) fn on_request_done(&mut self, key: Key, side: Side, completed: Completed, ctx: &mut Ctx<'_>) {
        match self.requests.get(key).map(|request| &request.work) {
            Some(Work::Read(_)) => self.on_read(key, side, completed, ctx),
            Some(Work::Write(_)) => self.on_write(key, side, completed.result, ctx),
            Some(Work::Flush(_)) => self.on_flush(key, side, completed.result, ctx),
            Some(Work::Status(..)) => self.on_status(key, &completed, ctx),
            None => {}
        }
    }

    /// Tells a host that every leg in sync has it, under the lease: a holder that has been followed meanwhile, because its own
    /// leg took so long, or because it stood still, says nothing any more (I4).
    pub(super) fn acknowledge(&mut self, key: Key, ctx: &mut Ctx<'_>) {
        if matches!(self.phase, Phase::Leaving(_)) || self.may_read(ctx.now()) {
            return self.reply(key, Ok(()), ctx);
        }
        match self.requests.get_mut(key).map(|request| &mut request.work) {
            Some(Work::Write(write)) => write.go(WriteStage::Answering),
            Some(Work::Flush(flush)) => flush.stage = FlushStage::Answering,
            Some(Work::Read(_) | Work::Status(..)) | None => {}
        }
        self.unleased.push(key);
    }

    /// Answers a host.
    pub(super) fn reply(&mut self, key: Key, result: Result<(), IoError>, ctx: &mut Ctx<'_>) {
        let Some(Request { asker, shell, work, .. }) = self.requests.remove(key) else { return };
        self.release(Owner::Request(key));
        let now = ctx.now();
        // Once a newer generation is at work, no answer of ours may pass for an acknowledgement (I4); and that the last leg has locked
        // this node out is nothing that a host has to do with: it would take it for a reservation.
        let result = match (self.phase, result) {
            (Phase::Leaving(_) | Phase::Ended(_), _) | (_, Err(IoError::Fenced)) => {
                Err(IoError::NotReady(NotReady::Standby))
            }
            (_, result) => result,
        };
        if let Asker::Host(_) = asker {
            self.count(&work, result);
            self.pace.on_request(shell.stamps.queued, now);
        }
        let op = match work {
            Work::Read(Read { range, buffer, .. }) => {
                Op::Read { range, into: buffer.expect("the leg gave the frame back") }
            }
            Work::Write(write) => write.into_op(),
            Work::Flush(flush) => self.finished(key, flush, result),
            Work::Status(range, found) => Op::BlockStatus { range, found },
        };
        let completed = shell.complete(op, result, now);
        if let Asker::Host(client) = asker {
            ctx.front.push_back((client, completed));
        }
    }

    /// The operation of a flush, a store or a load, with what a load found.
    fn finished(&mut self, key: Key, flush: Flush, result: Result<(), IoError>) -> Op {
        self.end_errand(key, &flush.errand, result);
        let mut op = flush.errand.into_op();
        if let (Op::LoadState { into, found }, Ok(())) = (&mut op, result) {
            *found = self.loaded(into);
        }
        op
    }

    fn count(&mut self, work: &Work, result: Result<(), IoError>) {
        let counters = &mut self.counters;
        counters.errors += u64::from(result.is_err());
        match work {
            Work::Read(read) => {
                counters.reads += 1;
                counters.read_bytes += read.bytes.len;
            }
            Work::Write(write) => {
                counters.writes += 1;
                counters.written_bytes += write.whole.len;
            }
            Work::Flush(Flush { errand: Errand::Flush(_), .. }) => counters.flushes += 1,
            Work::Flush(_) | Work::Status(..) => {}
        }
    }

    /// Answers every request that no leg has: a newer generation is at work.
    pub(super) fn abandon_requests(&mut self, ctx: &mut Ctx<'_>) {
        let idle = |work: &Work| match work {
            Work::Read(read) => {
                matches!(read.stage, ReadStage::Locking | ReadStage::Unleased | ReadStage::Parked)
            }
            Work::Write(write) => write.stage != WriteStage::Flying,
            Work::Flush(flush) => flush.stage != FlushStage::Flying,
            Work::Status(..) => false,
        };
        let keys: Vec<Key> =
            self.requests.iter().filter(|(_, request)| idle(&request.work)).map(|(key, _)| key).collect();
        for key in keys {
            self.reply(key, Err(IoError::NotReady(NotReady::Standby)), ctx);
        }
        // Whoever got a lock by that is answered next time, without an I/O.
        self.granted.clear();
        self.waiting.clear();
        self.uncached.clear();
        self.admitting.clear();
        self.logging.clear();
        self.unleased.clear();
        self.unit.abandon();
    }
}
