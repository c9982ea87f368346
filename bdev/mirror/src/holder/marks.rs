//! Marks: what tells a leg from an older copy of itself, which a snapshot, a backup or a rolled back machine may put in its
//! place. The mark is the number of the leg's superblock, and the other leg's superblock remembers it.
//!
//! Owner: the holder. The peer's leg is numbered anew by every fence, so by every session with it, and some time after a
//! write. Invariant: nothing is sent to the peer's leg that no log or bitmap keeps for it before the own superblock
//! remembers the number of this session. So a copy from before the session, or from more than [`Timing::mark`] before its
//! last write, has a lower number than what is remembered: it is no base for a delta, and is copied whole.
//!
//! A younger copy cannot be told: it misses what was written in that time, and nothing on the leg says so. No mark helps
//! there, short of one with every write.
//!
//! [`Timing::mark`]: crate::setup::Timing::mark

use bdev::IoError;
use core::time::Duration;
use engine::Instant;

use super::change::Kind;
use super::membership::Membership;
use super::{Ctx, Holder, Phase};
use crate::desk::Side;
use crate::events::EventKind;
use crate::format::Superblock;
use crate::truth::Truth;

/// How long to wait before the own leg is asked again.
const RETRY: Duration = Duration::from_millis(100);

/// What the superblock of the peer's leg, which is about to join, has to learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Enrolment {
    /// Nothing: its number is that of the fence.
    Knows,
    /// Our config: that gives it the next number.
    IsTold,
}

impl Holder {
    /// The truth, with the numbers that both superblocks have, or are about to have.
    pub(super) fn marked(&self, enrolment: Enrolment, ctx: &Ctx<'_>) -> Truth {
        let Some(peer) = &self.peer else { return self.truth.clone() };
        let theirs = peer.store.current().seq + u64::from(enrolment == Enrolment::IsTold);
        self.truth.marked(self.who, ctx.own.current().seq, theirs)
    }

    /// The peer's leg, which has everything, joins once its superblock says what we say and ours remembers its number. An
    /// own leg that is out remembers nothing.
    pub(super) fn begin_enrolment(&mut self, enrolment: Enrolment, ctx: &mut Ctx<'_>) {
        let steps: &[Side] = match (enrolment, self.has_journal()) {
            (Enrolment::Knows, true) => &[Side::Own],
            (Enrolment::Knows, false) => return self.joined(ctx),
            (Enrolment::IsTold, true) => &[Side::Peer, Side::Own],
            (Enrolment::IsTold, false) => &[Side::Peer],
        };
        self.begin_change(Kind::Enrol, self.marked(enrolment, ctx), steps);
    }

    /// The peer's leg joins while another change is under way, which may wait for long: that one remembers its number, or
    /// the next one does.
    pub(super) fn join_unmarked(&mut self, theirs: &Superblock, ctx: &mut Ctx<'_>) {
        let (who, own) = (self.who, ctx.own.current().seq);
        self.amend_change(|next| next.marked(who, own, theirs.seq));
        self.mark_soon(ctx);
        self.joined(ctx);
    }

    pub(super) fn mark_soon(&mut self, ctx: &Ctx<'_>) {
        self.mark_at = Some(ctx.now());
    }

    /// Something goes to the peer's leg: after a while a copy of it from before that is to be told from it.
    pub(super) fn owe_mark(&mut self, ctx: &Ctx<'_>) {
        self.mark_at.get_or_insert(ctx.now() + ctx.setup.timing.mark);
    }

    fn may_mark(&self) -> bool {
        let copying = matches!(self.membership, Membership::Copying) && !self.bitmap.is_clear();
        let sound = self.in_sync().has(Side::Own) && self.own_failure.is_none();
        self.phase == Phase::Serving && sound && (self.is_joined() || copying) && self.change_kind().is_none()
    }

    /// When marks are due.
    pub(super) fn mark_deadline(&self) -> Option<Instant> {
        self.mark_at.filter(|_| self.may_mark())
    }

    pub(super) fn drive_marks(&mut self, ctx: &mut Ctx<'_>) {
        if self.mark_deadline().is_some_and(|at| ctx.now() >= at) {
            self.mark_at = None;
            self.begin_change(Kind::Mark, self.marked(Enrolment::IsTold, ctx), &[Side::Peer, Side::Own]);
            self.drive_change(ctx);
        }
    }

    /// The own superblock does not take it: no reason to do without the peer. It is tried again.
    pub(super) fn mark_failed(&mut self, kind: Kind, next: Truth, error: IoError, ctx: &mut Ctx<'_>) {
        ctx.note(EventKind::OwnSuperblockFailed(error));
        self.truth = next;
        self.mark_at = Some(ctx.now() + RETRY);
        if kind == Kind::Enrol {
            self.membership_changed(kind, ctx);
        }
    }
}
