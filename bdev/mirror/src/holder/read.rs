//! Reads: from the own leg while it is in sync, else from the peer's; under the lease while both are (I19);
//! never beside an overlapping write (I12). What the own leg cannot read comes from the peer's and is written
//! back.

use bdev::{BlockRange, Completed, Durability, IoError, Op};
use engine::{Instant, Key};

use super::request::{Read, ReadStage, Work};
use super::{Ctx, Holder, Phase, Sides};
use crate::decide::{Patience, is_passing, may_read};
use crate::desk::{Purpose, Side};
use crate::format::LegMask;
use crate::intent_log::{Admission, Reach};
use crate::locks::{Grant, Mode, Owner};
use crate::range::ByteRange;

impl Holder {
    fn read_mut(&mut self, key: Key) -> Option<&mut Read> {
        match self.requests.get_mut(key).map(|request| &mut request.work) {
            Some(Work::Read(read)) => Some(read),
            _ => None,
        }
    }

    pub(super) fn lock_read(&mut self, key: Key, ctx: &mut Ctx<'_>) {
        let Some(bytes) = self.read_mut(key).map(|read| read.bytes) else { return };
        if self.locks.acquire(Owner::Request(key), bytes, Mode::Read) == Grant::Now {
            self.send_read(key, ctx);
        }
    }

    /// The peer, the only one that could be promoted, has answered lately, or cannot be promoted.
    pub(super) fn may_read(&self, now: Instant) -> bool {
        !matches!(self.phase, Phase::Leaving(_)) && may_read(self.config(), now, self.lease_until)
    }

    pub(super) fn send_read(&mut self, key: Key, ctx: &mut Ctx<'_>) {
        if !self.may_read(ctx.now()) {
            return self.await_lease(key);
        }
        self.route_read(key, ctx);
    }

    fn await_lease(&mut self, key: Key) {
        if let Some(read) = self.read_mut(key) {
            read.stage = ReadStage::Unleased;
            self.unleased.push(key);
        }
    }

    /// Whether the lease held at some time after the read, taken at `since`, was there. The time of a turn is that of its
    /// beginning: a thread that was stopped in the middle of one takes what came long after as if it had come then.
    pub(super) fn was_leased(&self, since: Instant, now: Instant) -> bool {
        self.may_read(now) && (now > since || self.config().in_sync != LegMask::both())
    }

    /// Sends a read to the leg that can answer it: the own one, or the peer's where that counts and is there. Nothing is
    /// read from a leg that is not known, or not fenced for us.
    pub(super) fn route_read(&mut self, key: Key, ctx: &mut Ctx<'_>) {
        let Some(first_error) = self.read_mut(key).map(|read| read.first_error) else { return };
        // What passes on the last leg may have passed.
        let forgiven = self.in_sync() == Sides::OWN
            && first_error.is_some_and(|error| !is_lasting(error))
            && self.patience(key, ctx) == Patience::Left;
        match first_error.filter(|_| !forgiven) {
            None if self.in_sync().has(Side::Own) => self.read_from(key, Side::Own, ctx),
            _ if self.is_joined() && self.in_sync().has(Side::Peer) => self.read_from(key, Side::Peer, ctx),
            _ if self.in_sync().has(Side::Peer) && self.patience(key, ctx) == Patience::Left => {
                self.park(key);
            }
            _ => self.fail_read(key, first_error.unwrap_or(IoError::LinkDown), ctx),
        }
    }

    fn fail_read(&mut self, key: Key, error: IoError, ctx: &mut Ctx<'_>) {
        let error = self.in_blocks(key, error);
        self.reply(key, Err(error), ctx);
    }

    fn read_from(&mut self, key: Key, side: Side, ctx: &mut Ctx<'_>) {
        let Some(bytes) = self.read_mut(key).map(|read| read.bytes) else { return };
        let (place, attempt) = (self.on_leg(side, bytes), self.attempt);
        let Some(read) = self.read_mut(key) else { return };
        read.stage = ReadStage::Flying(side);
        read.attempt = attempt;
        let into = read.buffer.take().expect("the frame is here between legs");
        ctx.desk.read(side, place, into, Purpose::Request(key));
    }

    /// What waits for the lease, once it is there.
    pub(super) fn drive_leases(&mut self, ctx: &mut Ctx<'_>) {
        if self.unleased.is_empty() || !self.may_read(ctx.now()) {
            return;
        }
        for key in core::mem::take(&mut self.unleased) {
            match self.requests.get(key).map(|request| &request.work) {
                Some(Work::Read(_)) => self.send_read(key, ctx),
                Some(Work::Write(_) | Work::Flush(_)) => self.reply(key, Ok(()), ctx),
                Some(Work::Status(..)) | None => {}
            }
        }
    }

    pub(super) fn on_read(&mut self, key: Key, side: Side, completed: Completed, ctx: &mut Ctx<'_>) {
        let Some(read) = self.read_mut(key) else { return };
        let (stage, first_error, since) = (read.stage, read.first_error, read.since);
        if let Op::Read { into, .. } = completed.op {
            read.buffer = Some(into);
        }
        match (stage, completed.result) {
            (ReadStage::Mending, Ok(())) => {
                self.counters.mended += 1;
                self.end_mend(key, Reach::BothLegs);
                self.reply(key, Ok(()), ctx);
            }
            (ReadStage::Mending, Err(error)) => {
                // The data are good and the leg is not.
                self.leg_failed(Side::Own, error, ctx);
                self.end_mend(key, Reach::Marked);
                self.reply(key, Ok(()), ctx);
            }
            (_, Ok(())) if first_error.is_some_and(is_lasting) => self.mend(key, ctx),
            (_, Ok(())) if side == Side::Own && !self.was_leased(since, ctx.now()) => self.await_lease(key),
            (_, Ok(())) => self.reply(key, Ok(()), ctx),
            (_, Err(error)) => self.read_failed(key, side, error, ctx),
        }
    }

    /// What the own leg cannot read the peer's may; a peer's leg that is out of reach may be back in a moment.
    fn read_failed(&mut self, key: Key, side: Side, error: IoError, ctx: &mut Ctx<'_>) {
        let patience = self.patience(key, ctx);
        let (last, leaving) = (self.in_sync() == Sides::OWN, matches!(self.phase, Phase::Leaving(_)));
        let Some(read) = self.read_mut(key) else { return };
        let (first, attempt) = (read.first_error.unwrap_or(error), read.attempt);
        match side {
            _ if leaving => self.fail_read(key, error, ctx),
            Side::Own if last && !is_lasting(error) && patience == Patience::Left => {
                self.park_for_a_moment(key, side, ctx);
            }
            Side::Own => {
                read.first_error = Some(first);
                self.route_read(key, ctx);
            }
            Side::Peer if !is_passing(error) || patience == Patience::Over => self.fail_read(key, first, ctx),
            Side::Peer => {
                if attempt == self.attempt {
                    self.leg_failed(Side::Peer, error, ctx);
                }
                self.route_read(key, ctx);
            }
        }
    }

    /// Writes what the peer gave back to the own leg. The read's lock keeps writes away. It is a write like any
    /// other to the log (R1): where its extents are not active yet, a later read mends.
    fn mend(&mut self, key: Key, ctx: &mut Ctx<'_>) {
        // The leg may hold on to what it writes; the host gets its own frame back.
        let data = self.read_mut(key).and_then(|read| read.buffer.as_ref());
        let copy = data.and_then(|data| {
            let mut copy = ctx.desk.frame(data.len())?;
            copy.copy_from_slice(data);
            Some(copy)
        });
        let Some(copy) = copy else { return self.reply(key, Ok(()), ctx) };
        let Some(bytes) = self.read_mut(key).map(|read| read.bytes) else { return };
        let admission =
            if bytes.len <= self.log.max_write_bytes() { self.log.admit(bytes) } else { Admission::Full };
        let permit = match admission {
            Admission::Active(permit) => permit,
            Admission::NeedsTransaction(permit) => {
                self.log.cancel(permit);
                return self.reply(key, Ok(()), ctx);
            }
            Admission::Full => return self.reply(key, Ok(()), ctx),
        };
        if let Some(read) = self.read_mut(key) {
            read.permit = Some(permit);
        }
        let place = self.on_leg(Side::Own, bytes);
        let Some(read) = self.read_mut(key) else { return };
        read.stage = ReadStage::Mending;
        ctx.desk.write(Side::Own, place.start, copy.freeze(), Durability::Durable, Purpose::Request(key));
    }

    fn end_mend(&mut self, key: Key, reach: Reach) {
        let Some((bytes, permit)) = self.read_mut(key).map(|read| (read.bytes, read.permit.take())) else {
            return;
        };
        if reach == Reach::Marked {
            self.bitmap.set(bytes);
        }
        if let Some(permit) = permit {
            self.log.finish(permit, reach, Durability::Durable, &self.bitmap);
        }
    }

    /// A leg's medium error in blocks of the volume.
    pub(super) fn in_blocks(&self, key: Key, error: IoError) -> IoError {
        let Some(request) = self.requests.get(key) else { return error };
        match (&request.work, error) {
            (Work::Read(Read { range: BlockRange { lba, .. }, .. }), IoError::Medium { .. }) => {
                IoError::Medium { lba: *lba }
            }
            (Work::Write(write), IoError::Medium { .. }) => {
                IoError::Medium { lba: write.piece.start / u64::from(self.layout.block_size) }
            }
            (_, error) => error,
        }
    }
}

/// True for an error that the same blocks would give again: worth to be mended.
const fn is_lasting(error: IoError) -> bool {
    !matches!(error, IoError::Busy | IoError::NotReady(_) | IoError::Aborted | IoError::TimedOut)
}

/// The part of the data area that a heartbeat reads.
pub(super) fn heartbeat_range() -> ByteRange {
    ByteRange::new(0, 4096)
}
