//! Marks: what tells a leg from an older copy of itself, which a snapshot, a backup or a rolled back machine may put in its
//! place. The mark is the number of the leg's superblock, and the other leg's superblock remembers it.
//!
//! Owner: the holder. It marks a leg: when it begins, its own; when it has judged its peer's and before that joins or is
//! copied to; and some time after a write, both. Whatever a leg's own node writes, at a start or for a fence, adds less to
//! the number than a mark ([`Numbering`]).
//!
//! Invariants: nothing is sent to the peer's leg that no log or bitmap keeps for it before the own superblock remembers the
//! mark of this session; and a mark is remembered only once it is durable, so that no leg looks older than it is. A member
//! that joins while a change waits for the arbiter is known by its fence's number, in memory, until that change is over.
//!
//! So a copy from before the leg's last session, or from more than [`Timing::mark`] before its last write, has a lower number
//! than what is remembered. As the peer's it is no base for a delta, and is copied whole; a holder that starts with such a
//! copy of its own leg takes everything from its peer's.
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
use crate::decide::Able;
use crate::desk::Side;
use crate::events::EventKind;
use crate::format::Superblock;
use crate::format::copies::Numbering;
use crate::truth::Truth;

/// How long to wait before the own leg is asked again.
const RETRY: Duration = Duration::from_millis(100);

impl Holder {
    /// The truth, with the numbers that both superblocks have, the peer's with what the next write of it adds.
    pub(super) fn marked(&self, step: u64, ctx: &Ctx<'_>) -> Truth {
        let Some(peer) = &self.peer else { return self.truth.clone() };
        self.truth.marked(self.who, ctx.own.current().seq, peer.store.current().seq + step)
    }

    /// The peer's leg, which has everything, joins once its superblock says what we say, and ours remembers its number. An
    /// own leg that is out remembers nothing.
    pub(super) fn begin_enrolment(&mut self, ctx: &Ctx<'_>) {
        let able = if self.has_journal() { Able::Both } else { Able::Only(Side::Peer) };
        self.begin_change(Kind::Enrol, self.marked(Numbering::Mark.adds(), ctx), able);
    }

    /// The peer's leg joins while another change is under way, which may wait for long, for the arbiter. Its number is that of
    /// its fence; this holder knows it, and whatever it writes next remembers it.
    pub(super) fn join_unmarked(&mut self, theirs: &Superblock, ctx: &mut Ctx<'_>) {
        let (who, own) = (self.who, ctx.own.current().seq);
        self.truth = self.truth.marked(who, own, theirs.seq);
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
            self.begin_change(Kind::Mark, self.marked(Numbering::Mark.adds(), ctx), Able::Both);
            self.drive_change(ctx);
        }
    }

    /// Both are numbered anew, and the own one remembers the peer's. Only now is its own number worth remembering: a leg is
    /// never said to have had one that it may not have got.
    pub(super) fn marks_made(&mut self, ctx: &mut Ctx<'_>) {
        self.begin_change(Kind::Remember, self.marked(0, ctx), Able::Both);
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
