//! Writes. One piece at a time goes through these stages; a long one has several pieces.
//!
//! ```text
//! Locking --(range free)--> Admitting --(log slot)--> Logging --(transaction durable, R1)--> Flying
//!                               '-----------(extents active already)---------------------------^ |
//!   next piece <--(all legs in sync have it, R3)-- Flying --(a leg failed)--> Parked --(config)--'
//!   after the last one: Answering, until the lease is there (I4)
//! ```
//!
//! The lock is held until every leg has answered (R2). A write that a leg failed waits as `Parked` until a
//! config without that leg is durable, or the leg is back and takes it again.

use bdev::{BlockRange, Durability, IoError, Op};
use engine::{Buf, Key};

use super::request::Work;
use super::{Body, Ctx, Holder, Sides};
use crate::bitmap::ClearedBy;
use crate::decide::Judgement;
use crate::desk::{Purpose, Side};
use crate::intent_log::{Admission, Permit, Reach};
use crate::locks::{Grant, Mode, Owner};
use crate::mutation::{Mutation, is_broken};
use crate::range::ByteRange;

/// Where a write's piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteStage {
    /// Waits for its range.
    Locking,
    /// Waits for slots of the log.
    Admitting,
    /// Waits for a transaction.
    Logging,
    /// With the legs.
    Flying,
    /// A leg failed it.
    Parked,
    /// Done; the answer waits for the lease.
    Answering,
}

impl WriteStage {
    /// The picture above, as a table.
    pub(super) const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Locking => matches!(next, Self::Admitting | Self::Logging | Self::Flying),
            Self::Admitting => matches!(next, Self::Logging | Self::Flying),
            Self::Logging => matches!(next, Self::Flying | Self::Admitting),
            Self::Flying => matches!(next, Self::Parked | Self::Locking | Self::Answering),
            Self::Parked => matches!(next, Self::Flying | Self::Locking | Self::Answering),
            Self::Answering => false,
        }
    }
}

/// A write, write-zeroes or discard.
#[derive(Debug)]
pub(crate) struct Write {
    range: BlockRange,
    body: Body,
    pub(super) durability: Durability,
    /// All of it.
    pub(super) whole: ByteRange,
    /// The piece that is under way.
    pub(super) piece: ByteRange,
    pub(super) stage: WriteStage,
    permit: Option<Permit>,
    /// Legs that the piece was sent to.
    targets: Sides,
    /// Of them, those that have not answered.
    waiting: Sides,
    /// How each leg was asked for it.
    asked: [Durability; 2],
    pub(super) failed: [Option<IoError>; 2],
    /// The way to the peer's leg that the piece took.
    attempt: u32,
}

impl Write {
    pub(super) fn new(range: BlockRange, whole: ByteRange, body: Body, durability: Durability) -> Self {
        let piece = ByteRange::new(whole.start, 0);
        Self {
            range,
            body,
            durability,
            whole,
            piece,
            stage: WriteStage::Locking,
            permit: None,
            targets: Sides::empty(),
            waiting: Sides::empty(),
            asked: [durability; 2],
            failed: [None; 2],
            attempt: 0,
        }
    }

    /// A leg has it in flight, and may put it into its cache.
    pub(super) fn may_reach_cache(&self, side: Side) -> bool {
        self.waiting.has(side) && self.asked[side as usize] == Durability::Accepted
    }

    /// The same, and no log has it.
    pub(super) fn escapes_the_log(&self, side: Side) -> bool {
        self.permit.is_none() && self.may_reach_cache(side)
    }

    pub(super) fn go(&mut self, next: WriteStage) {
        debug_assert!(self.stage == next || self.stage.may_become(next), "{:?} to {next:?}", self.stage);
        self.stage = next;
    }

    pub(super) fn into_op(self) -> Op {
        let Self { range, durability, .. } = self;
        match self.body {
            Body::Data(from) => Op::Write { range, from, durability },
            Body::Zeroes => Op::WriteZeroes { range, durability },
            Body::Discard => Op::Discard { range },
        }
    }

    /// The piece's bytes; `None` for zeroes.
    fn payload(&self) -> Option<Buf> {
        let Body::Data(from) = &self.body else { return None };
        let at = |byte: u64| usize::try_from(byte - self.whole.start).expect("inside the frame");
        Some(from.slice(at(self.piece.start)..at(self.piece.end())))
    }
}

/// Most bytes of a piece; a small log takes less at a time.
const PIECE_MAX: u64 = 1 << 20;

impl Holder {
    pub(super) fn write_mut(&mut self, key: Key) -> Option<&mut Write> {
        match self.requests.get_mut(key).map(|request| &mut request.work) {
            Some(Work::Write(write)) => Some(write),
            _ => None,
        }
    }

    /// Starts the next piece, or answers the host when there is none.
    pub(super) fn next_piece(&mut self, key: Key, ctx: &mut Ctx<'_>) {
        let most = self.log.max_write_bytes().min(PIECE_MAX);
        let Some(write) = self.write_mut(key) else { return };
        let start = write.piece.end();
        let left = write.whole.end() - start;
        if left == 0 {
            return self.acknowledge(key, ctx);
        }
        let piece = ByteRange::new(start, left.min(most));
        write.piece = piece;
        write.go(WriteStage::Locking);
        self.has_progress(key);
        if self.locks.acquire(Owner::Request(key), piece, Mode::Write) == Grant::Now {
            self.admit(key, ctx);
        }
    }

    /// The range is ours: now the log (R1). A mirror whose own leg is out keeps no log: everything is copied
    /// when that leg comes back.
    pub(super) fn admit(&mut self, key: Key, ctx: &mut Ctx<'_>) {
        if self.waits_for_caching(key) {
            return self.uncached.push(key);
        }
        if !self.has_journal() {
            return self.send_write(key, ctx);
        }
        self.cut_to_alike(key);
        if let Some(write) = self.write_mut(key) {
            write.go(WriteStage::Admitting);
            self.admitting.push_back(key);
        }
        self.drive_admissions(ctx);
    }

    /// While a leg is copied to, a piece has granules that are out of sync there, or none: a write of both kinds would make those
    /// stale that have been copied, and a host that repeats it faster than they are would keep the copy from its end (I13).
    fn cut_to_alike(&mut self, key: Key) {
        let Some(piece) = self.write_mut(key).map(|write| write.piece) else { return };
        if self.copy_target().is_none() {
            return;
        }
        let alike = self.bitmap.leading_run(piece);
        if let Some(write) = self.write_mut(key) {
            write.piece = alike;
        }
    }

    /// Admits the writes that wait, oldest first, as far as the log has room.
    pub(super) fn drive_admissions(&mut self, ctx: &mut Ctx<'_>) {
        while let Some(&key) = self.admitting.front() {
            let Some(piece) = self.write_mut(key).map(|write| write.piece) else {
                self.admitting.pop_front();
                continue;
            };
            let (permit, stage) = match self.log.admit(piece) {
                Admission::Full => return,
                Admission::Active(permit) => (permit, WriteStage::Flying),
                Admission::NeedsTransaction(permit) => (permit, WriteStage::Logging),
            };
            self.admitting.pop_front();
            if let Some(write) = self.write_mut(key) {
                write.permit = Some(permit);
            }
            if stage == WriteStage::Flying {
                self.send_write(key, ctx);
            } else if let Some(write) = self.write_mut(key) {
                write.go(WriteStage::Logging);
                self.logging.push(key);
            }
        }
    }

    /// A transaction is durable: writes whose extents are active go out.
    pub(super) fn drive_logged(&mut self, ctx: &mut Ctx<'_>) {
        let mut waiting = core::mem::take(&mut self.logging);
        waiting.retain(|&key| {
            let Some(Work::Write(write)) = self.requests.get(key).map(|request| &request.work) else {
                return false;
            };
            let active = write.permit.as_ref().is_some_and(|permit| self.log.is_active(permit));
            if active {
                self.send_write(key, ctx);
            }
            !active
        });
        waiting.append(&mut self.logging);
        self.logging = waiting;
    }

    /// The log went with the leg that it was on.
    pub(super) fn forget_permit(&mut self, key: Key) {
        if let Some(permit) = self.write_mut(key).and_then(|write| write.permit.take()) {
            self.log.cancel(permit);
        }
    }

    /// The log cannot be written and this is the last leg: the writes that wait for it fail.
    pub(super) fn fail_unlogged(&mut self, error: IoError, ctx: &mut Ctx<'_>) {
        let logging = core::mem::take(&mut self.logging);
        self.fail_unadmitted(error, ctx);
        self.fail_unsent(logging, error, ctx);
    }

    /// The log is full and stays so: the writes that wait for room in it fail.
    pub(super) fn fail_unadmitted(&mut self, error: IoError, ctx: &mut Ctx<'_>) {
        let admitting = self.admitting.drain(..).collect();
        self.fail_unsent(admitting, error, ctx);
    }

    fn fail_unsent(&mut self, waiting: Vec<Key>, error: IoError, ctx: &mut Ctx<'_>) {
        for key in waiting {
            let Some(write) = self.write_mut(key) else { continue };
            if let Some(permit) = write.permit.take() {
                self.log.cancel(permit);
            }
            let error = self.in_blocks(key, error);
            self.reply(key, Err(error), ctx);
        }
    }

    /// The legs that a piece goes to. Where only one leg is in sync, the other takes it too if it is current
    /// there; otherwise the piece is marked first (R7).
    fn targets(&mut self, piece: ByteRange) -> Sides {
        let in_sync = self.in_sync();
        if in_sync == Sides::all() {
            return in_sync;
        }
        if self.copy_target().is_some() && !self.bitmap.is_any_set(piece) {
            return Sides::all();
        }
        if self.is_target_current() && is_broken(Mutation::R7PartClears) {
            let granules = piece.touched(self.bitmap.granule_shift());
            let whole = granules.bytes(self.bitmap.granule_shift(), self.layout.data_size);
            self.bitmap.clear(whole, ClearedBy::WrittenToEveryLeg);
            return Sides::all();
        }
        self.bitmap.set(piece);
        in_sync
    }

    fn send_write(&mut self, key: Key, ctx: &mut Ctx<'_>) {
        let Some(piece) = self.write_mut(key).map(|write| write.piece) else { return };
        let targets = self.targets(piece);
        let Some(write) = self.write_mut(key) else { return };
        write.go(WriteStage::Flying);
        (write.targets, write.waiting, write.failed) = (targets, Sides::empty(), [None; 2]);
        for side in [Side::Peer, Side::Own] {
            if targets.has(side) {
                self.send_to(key, side, ctx);
            }
        }
        if self.write_mut(key).is_some_and(|write| write.waiting.is_empty()) {
            self.judge_write(key, ctx);
        }
    }

    /// Nothing is sent to a peer's leg that is not fenced for us, or not any more: that is a failure at once.
    pub(super) fn send_to(&mut self, key: Key, side: Side, ctx: &mut Ctx<'_>) {
        if side == Side::Peer && !self.is_peer_ours() {
            if let Some(write) = self.write_mut(key) {
                write.failed[side as usize] = Some(IoError::LinkDown);
            }
            return;
        }
        let Some((piece, wanted)) = self.write_mut(key).map(|write| (write.piece, write.durability)) else {
            return;
        };
        let (place, attempt) = (self.on_leg(side, piece), self.attempt);
        let durability = self.on_leg_durability(side, wanted);
        if side == Side::Peer {
            self.owe_mark(ctx);
        }
        let Some(write) = self.write_mut(key) else { return };
        if side == Side::Peer {
            write.attempt = attempt;
        }
        write.waiting |= Sides::only(side);
        write.failed[side as usize] = None;
        write.asked[side as usize] = durability;
        match write.payload() {
            Some(from) => ctx.desk.write(side, place.start, from, durability, Purpose::Request(key)),
            None => ctx.desk.zero(side, place, durability, Purpose::Request(key)),
        }
    }

    /// A leg answered.
    pub(super) fn on_write(&mut self, key: Key, side: Side, result: Result<(), IoError>, ctx: &mut Ctx<'_>) {
        let Some(write) = self.write_mut(key) else { return };
        write.waiting -= Sides::only(side);
        write.failed[side as usize] = result.err();
        if write.waiting.is_empty() {
            self.judge_write(key, ctx);
        }
    }

    /// All legs have answered: acknowledged, or parked until the config says what the failures mean (R3).
    pub(super) fn judge_write(&mut self, key: Key, ctx: &mut Ctx<'_>) {
        let mut reported = None;
        let patience = self.patience(key, ctx);
        for side in [Side::Peer, Side::Own] {
            let Some((Some(error), attempt)) =
                self.write_mut(key).map(|write| (write.failed[side as usize], write.attempt))
            else {
                continue;
            };
            match self.judge(side, error, attempt, patience, ctx) {
                Judgement::Wait if self.is_back(side, attempt) => return self.send_again(key, side, ctx),
                // The host gets the other leg's error.
                Judgement::Wait if reported.is_some() => {}
                Judgement::Wait => return self.park(key),
                Judgement::Again => return self.park_for_a_moment(key, side, ctx),
                Judgement::Irrelevant => {}
                Judgement::Report => reported = Some(error),
            }
        }
        self.finish_write(key, reported, ctx);
    }

    fn finish_write(&mut self, key: Key, reported: Option<IoError>, ctx: &mut Ctx<'_>) {
        let Some(write) = self.write_mut(key) else { return };
        let reached = write.targets == Sides::all() && write.failed == [None; 2];
        let (piece, durability, permit) = (write.piece, write.durability, write.permit.take());
        if !reached {
            self.bitmap.set(piece);
        }
        let reach = if reached { Reach::BothLegs } else { Reach::Marked };
        if let Some(permit) = permit {
            self.log.finish(permit, reach, durability, &self.bitmap);
        }
        self.release(Owner::Request(key));
        match reported {
            None => self.next_piece(key, ctx),
            Some(error) => {
                let error = self.in_blocks(key, error);
                self.reply(key, Err(error), ctx);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::WriteStage::{self, Admitting, Answering, Flying, Locking, Logging, Parked};

    #[test]
    fn the_stages_follow_the_picture() {
        const TABLE: &str = "\
Locking   > Admitting Logging Flying
Admitting > Logging Flying
Logging   > Admitting Flying
Flying    > Locking Parked Answering
Parked    > Locking Flying Answering
Answering >
";
        let all: [WriteStage; 6] = [Locking, Admitting, Logging, Flying, Parked, Answering];
        let mut table = String::new();
        for from in all {
            let next: Vec<String> =
                all.iter().filter(|&&to| from.may_become(to)).map(|to| format!("{to:?}")).collect();
            table += format!("{:9} > {}", format!("{from:?}"), next.join(" ")).trim_end();
            table.push('\n');
        }
        assert_eq!(table, TABLE);
    }
}
