//! What the operator asks of a holder, and what he sees of it.

use super::resync::{Progress, Throttle};
use super::{Ctx, Doubt, Farewell, Freeze, Holder, Phase};
use crate::command::Refusal;
use crate::decide::may_exclude;
use crate::desk::Side;
use crate::events::EventKind;
use crate::status::{PeerStatus, RoleKind, Status};

impl Holder {
    /// Lets the resync run, or not.
    pub(crate) fn throttle(&mut self, throttle: Throttle, ctx: &mut Ctx<'_>) {
        if self.resync.throttle != throttle {
            ctx.note(match throttle {
                Throttle::Paused => EventKind::ResyncPaused,
                Throttle::Running => EventKind::ResyncResumed,
            });
        }
        self.resync.throttle = throttle;
        self.settle(ctx);
    }

    /// Goes on without the peer by the operator's command.
    pub(crate) fn degrade_by_hand(&mut self, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        if !self.is_both() {
            return Err(Refusal::Degraded);
        }
        if self.is_joined() && self.own_failure.is_none() {
            return Err(Refusal::PeerInSync);
        }
        if self.change.is_some() {
            return Err(Refusal::Busy);
        }
        if !may_exclude(self.arbiter, self.doubt) {
            return Err(Refusal::LockedOut);
        }
        let (out, reason) = match self.own_failure.filter(|_| self.is_joined()) {
            Some(reason) => (Side::Own, reason),
            None => (Side::Peer, self.lost_reason),
        };
        self.degrade(out, reason, ctx);
        self.settle(ctx);
        Ok(())
    }

    /// Fills in what only a holder knows.
    pub(crate) fn report(&self, status: &mut Status) {
        status.role = match (self.phase, self.freeze) {
            (Phase::Serving, Freeze::Frozen(_)) => RoleKind::Frozen,
            (Phase::Serving, Freeze::Flowing) => RoleKind::Holder,
            (Phase::Opening(_), _) => RoleKind::Opening,
            (Phase::Closing(_), _) => match self.farewell {
                Farewell::Stop => RoleKind::Stopping,
                Farewell::Demote => RoleKind::Demoting,
                Farewell::HandOver { .. } => RoleKind::SwitchingOver,
            },
            (Phase::Leaving(_) | Phase::Ended(_), _) => RoleKind::Standby,
        };
        if let Freeze::Frozen(cause) = self.freeze {
            status.reason = Some(cause.to_string());
        } else if self.is_arbitrating() {
            status.reason = Some("waiting for the arbiter".to_owned());
        } else if self.doubt == Doubt::Fenced {
            status.reason =
                Some("the peer's guard has locked this node out: looking for the reason".to_owned());
        }
        status.config = Some(*self.config());
        status.legs = Some(self.truth.legs);
        let (sight, cause) = self.membership.in_words();
        status.peer = Some(PeerStatus { sight, cause, diverged: self.diverged() });
        status.log = Some(self.log.usage());
        status.dirty_bytes = self.bitmap.set_bytes();
        status.resync = self.resync.progress.map(|progress| Progress { until: status.now, ..progress });
        status.last_resync = self.resync.last;
        status.throttle = self.resync.throttle;
        status.counters = self.counters;
    }
}
