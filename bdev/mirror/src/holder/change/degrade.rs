//! A config without a leg that is gone or broken for good, where the policy lets the holder make one; hosts wait until then (R3).

use super::Kind;
use crate::decide::{Able, may_exclude};
use crate::desk::{OwnDisk, Side};
use crate::events::{EventKind, FreezeCause};
use crate::format::{ArbiterKind, LegMask, Reason};
use crate::holder::{Ctx, Freeze, Holder, Phase};
use crate::mutation::{Mutation, is_broken};

impl Holder {
    /// A leg that the config counts is gone or broken for good: a config without it, if the policy lets us.
    pub(super) fn degrade_if_due(&mut self, ctx: &mut Ctx<'_>) {
        let due = self.is_both() || self.own_leg_is_to_go();
        if !due || matches!(self.phase, Phase::Leaving(_) | Phase::Ended(_)) {
            return;
        }
        let Some((out, reason)) = self.leg_to_drop(ctx) else { return };
        // With an arbiter, it is the one that lets it happen or not.
        if matches!(self.arbiter, ArbiterKind::Biased | ArbiterKind::Etcd) {
            return self.degrade(out, reason, ctx);
        }
        self.freeze(FreezeCause::Policy(reason), ctx);
    }

    pub(super) fn leg_to_drop(&self, ctx: &Ctx<'_>) -> Option<(Side, Reason)> {
        if !may_exclude(self.arbiter, self.doubt) {
            return None;
        }
        // Without the peer the own leg is the last one, whatever is wrong with it.
        if let Some(reason) = self.own_failure.filter(|_| self.is_joined()) {
            return Some((Side::Own, reason));
        }
        // Nothing could be acknowledged alone while the own disk does not answer, and the change would stand in the way of one
        // without the own leg.
        let reason = self.peer_to_drop(ctx).filter(|_| self.is_both())?;
        let answers = ctx.desk.own_disk(ctx.setup.timing.disk_timeout / 4) == OwnDisk::Answers;
        answers.then_some((Side::Peer, reason))
    }

    /// Makes a config without a leg.
    pub(in crate::holder) fn degrade(&mut self, out: Side, reason: Reason, ctx: &mut Ctx<'_>) {
        let fresh = self.fresh(0, ctx);
        let peer = self.peer.as_ref().map(|peer| peer.store.current());
        let Ok(next) = self.known().degraded(self.who, self.leg(out), reason, peer, fresh) else {
            return self.exhausted(ctx);
        };
        self.begin_change(Kind::Degrade { out, reason }, next, Able::Both);
    }

    pub(super) fn degraded(&mut self, out: Side, ctx: &mut Ctx<'_>) {
        if self.config().in_sync == LegMask::both() {
            return;
        }
        if !is_broken(Mutation::DegradeWithoutMarks) {
            self.mark_exposed();
        }
        self.thaw(ctx);
        self.own_failure = None;
        if out == Side::Peer {
            self.drop_member(ctx);
        } else {
            self.leave_own_alone(ctx);
        }
        self.unpark(ctx);
    }

    /// Hosts wait until somebody decides.
    pub(super) fn freeze(&mut self, cause: FreezeCause, ctx: &mut Ctx<'_>) {
        if self.freeze != Freeze::Frozen(cause) {
            self.freeze = Freeze::Frozen(cause);
            ctx.note(EventKind::Frozen(cause));
        }
    }

    pub(in crate::holder) fn thaw(&mut self, ctx: &mut Ctx<'_>) {
        if self.freeze != Freeze::Flowing {
            self.freeze = Freeze::Flowing;
            ctx.note(EventKind::Thawed);
        }
    }

    /// Every extent that may differ is out of sync from now on.
    pub(in crate::holder) fn mark_exposed(&mut self) {
        for range in self.log.exposed() {
            self.bitmap.set(range);
        }
    }

    /// Writes that wait for the log of the leg that is out go to the other one.
    pub(in crate::holder) fn go_on_without_log(&mut self, ctx: &mut Ctx<'_>) {
        let waiting: Vec<_> = self.admitting.drain(..).chain(core::mem::take(&mut self.logging)).collect();
        for key in waiting {
            self.forget_permit(key);
            self.admit(key, ctx);
        }
    }
}
