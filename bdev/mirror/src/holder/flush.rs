//! Flushes of hosts: GOOD only when every leg in sync has flushed (I18). Stores and loads of the unit's state take the same
//! way (`unit_state.rs`).

use bdev::{Durability, IoError};
use engine::Key;

use super::request::{Errand, Flush, FlushStage, Work};
use super::{Ctx, Holder, Sides};
use crate::decide::{Judgement, Patience, is_passing};
use crate::desk::{Purpose, Side};
use crate::format::Reason;
use crate::intent_log::FlushTicket;
use crate::mutation::{Mutation, is_broken};
use crate::range::ByteRange;

impl Flush {
    pub(super) fn new(errand: Errand) -> Self {
        let (waiting, stage) = (Sides::empty(), FlushStage::Flying);
        Self { errand, waiting, failed: [None; 2], attempt: 0, stage, untold: None }
    }
}

impl Holder {
    pub(super) fn new_flush(&mut self) -> Flush {
        let untold = self.untold.take();
        Flush { untold, ..Flush::new(Errand::Flush(self.log.begin_flush())) }
    }

    /// A flush that no host has asked for failed on the last leg, which says so once, and may have lost what hosts wrote: the
    /// flushes of hosts that are under way fail with it, and so does the next one (I18).
    pub(super) fn owe_flush_error(&mut self, error: IoError) {
        if is_passing(error) {
            return;
        }
        self.untold = Some(error);
        for (_, request) in self.requests.iter_mut() {
            if let Work::Flush(flush) = &mut request.work {
                flush.untold = Some(error);
            }
        }
    }

    /// A flush that no host has asked for failed, whatever has become of its purpose.
    pub(super) fn unasked_flush_failed(&mut self, side: Side, error: IoError, ctx: &mut Ctx<'_>) {
        if self.in_sync() == Sides::only(side) {
            self.owe_flush_error(error);
        }
        self.flush_lost(side, error, ctx);
    }

    /// A flush of a leg failed. The leg says so once, and may have lost what hosts wrote: where the peer's counts, too, the own one
    /// is to go out, and what is copied to has what its source lacks now, perhaps (I5).
    fn flush_lost(&mut self, side: Side, error: IoError, ctx: &mut Ctx<'_>) {
        if is_passing(error) {
            return;
        }
        if self.copy_target() == Some(side.other()) {
            self.source_failed(side, ByteRange::new(0, 0), error, ctx);
        } else if side == Side::Own && self.in_sync() != Sides::OWN {
            self.own_leg_failed(Reason::IoError, error, ctx);
            self.own_lost = self.own_failure.map(|_| error);
        }
    }

    /// The own leg is the only one that counts now, whatever it has lost: hosts are told.
    pub(super) fn own_leg_is_last(&mut self) {
        if self.in_sync() == Sides::OWN
            && let Some(error) = self.own_lost.take()
        {
            self.owe_flush_error(error);
        }
    }

    /// Every leg in sync has flushed. What an own leg has lost that is to go out stays in the log until it is marked.
    pub(super) fn flushed(&mut self, ticket: FlushTicket) {
        if self.own_lost.is_none() {
            self.journal.has_flushed();
            self.log.end_flush(ticket);
        }
    }

    fn flush_mut(&mut self, key: Key) -> Option<&mut Flush> {
        match self.requests.get_mut(key).map(|request| &mut request.work) {
            Some(Work::Flush(flush)) => Some(flush),
            _ => None,
        }
    }

    fn is_flush(&mut self, key: Key) -> bool {
        !matches!(
            self.flush_mut(key).map(|flush| &flush.errand),
            Some(Errand::Store { .. } | Errand::Load { .. } | Errand::Renew { .. })
        )
    }

    /// Every leg that writes go to.
    pub(super) fn flushed_sides(&self) -> Sides {
        if self.copy_target().is_some() { Sides::all() } else { self.in_sync() }
    }

    pub(super) fn send_flush(&mut self, key: Key, ctx: &mut Ctx<'_>) {
        let sides = match self.flush_mut(key).map(|flush| &flush.errand) {
            Some(Errand::Store { .. }) if is_broken(Mutation::StateOnOneLeg) => Sides::only(Side::Own),
            Some(Errand::Store { .. } | Errand::Load { .. } | Errand::Renew { .. }) => self.state_sides(),
            Some(Errand::Flush(_)) | None => self.flushed_sides(),
        };
        for side in Side::BOTH {
            if sides.has(side) {
                self.flush_leg(key, side, ctx);
            }
        }
        if self.flush_mut(key).is_some_and(|flush| flush.waiting.is_empty()) {
            self.judge_flush(key, ctx);
        }
    }

    pub(super) fn flush_leg(&mut self, key: Key, side: Side, ctx: &mut Ctx<'_>) {
        let ours = side == Side::Own || self.is_peer_ours();
        let attempt = self.attempt;
        let Some(flush) = self.flush_mut(key) else { return };
        flush.stage = FlushStage::Flying;
        if !ours {
            flush.failed[side as usize] = Some(IoError::LinkDown);
            return;
        }
        if side == Side::Peer {
            flush.attempt = attempt;
        }
        flush.waiting |= Sides::only(side);
        flush.failed[side as usize] = None;
        match &flush.errand {
            Errand::Flush(_) => ctx.desk.flush(side, Purpose::Request(key)),
            Errand::Store { frame, .. } | Errand::Load { frame, .. } | Errand::Renew { frame } => {
                let (from, offset) = frame.clone().expect("sealed before it is sent");
                ctx.desk.write(side, offset, from, Durability::Durable, Purpose::Request(key));
            }
        }
    }

    pub(super) fn on_flush(&mut self, key: Key, side: Side, result: Result<(), IoError>, ctx: &mut Ctx<'_>) {
        let Some(flush) = self.flush_mut(key) else { return };
        flush.waiting -= Sides::only(side);
        flush.failed[side as usize] = result.err();
        let answered = flush.waiting.is_empty();
        if result.is_err() && !self.in_sync().has(side) {
            // A leg that comes back lacks what it failed: it gets the state anew.
            self.unit.forget_returning();
        }
        if let Err(error) = result
            && self.is_flush(key)
        {
            self.flush_lost(side, error, ctx);
        }
        if answered {
            self.judge_flush(key, ctx);
        }
    }

    /// How a leg failed it, if it did: with what, on which way to the peer's, and what that means now.
    fn judge_leg(
        &mut self,
        key: Key,
        side: Side,
        patience: Patience,
        ctx: &mut Ctx<'_>,
    ) -> Option<(IoError, u32, Judgement)> {
        let flush = self.flush_mut(key)?;
        let (error, attempt) = (flush.failed[side as usize]?, flush.attempt);
        Some((error, attempt, self.judge(side, error, attempt, patience, ctx)))
    }

    pub(super) fn judge_flush(&mut self, key: Key, ctx: &mut Ctx<'_>) {
        let mut reported = None;
        let patience = self.patience(key, ctx);
        let judged = [Side::Peer, Side::Own].map(|side| (side, self.judge_leg(key, side, patience, ctx)));
        for (side, judged) in judged {
            let Some((error, attempt, judgement)) = judged else { continue };
            match judgement {
                Judgement::Wait if self.is_back(side, attempt) => return self.send_again(key, side, ctx),
                Judgement::Wait if reported.is_some() => {}
                Judgement::Wait => return self.park(key),
                Judgement::Again => return self.park_for_a_moment(key, side, ctx),
                Judgement::Irrelevant => {}
                Judgement::Report => reported = Some(error),
            }
        }
        // What it has lost, a later flush does not bring back.
        if reported.is_none() && self.own_lost.is_some() && self.is_both() && self.is_flush(key) {
            return self.park(key);
        }
        let untold = self.flush_mut(key).and_then(|flush| flush.untold.take());
        let reported = reported.or(untold.filter(|_| self.is_flush(key)));
        if let (None, Some(Errand::Flush(ticket))) =
            (reported, self.flush_mut(key).map(|flush| &flush.errand))
        {
            let ticket = *ticket;
            self.flushed(ticket);
        }
        match reported {
            None if self.is_flush(key) => self.acknowledge(key, ctx),
            None => self.on_state_written(key, ctx),
            Some(error) => self.reply(key, Err(error), ctx),
        }
    }
}
