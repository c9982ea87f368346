//! What a change does once it is the truth, and once everybody knows.

use bdev::IoError;

use super::{Extent, Kind};
use crate::decide::{Able, Starting, SyncPlan};
use crate::desk::Side;
use crate::events::EventKind;
use crate::format::Reason;
use crate::holder::membership::Membership;
use crate::holder::own_leg::OwnLeg;
use crate::holder::{Ctx, Ending, Farewell, Holder, Opening, Phase};

impl Holder {
    pub(super) fn take_effect(&mut self, kind: Kind, extent: Extent, ctx: &mut Ctx<'_>) {
        match kind {
            Kind::Open(starting) => self.opened(starting, ctx),
            Kind::Degrade { out, .. } => self.degraded(out, ctx),
            Kind::Enrol if extent == Extent::First => {}
            Kind::Arm | Kind::Enrol | Kind::Track => self.membership_changed(kind, ctx),
            Kind::Rejoin { back } => self.rejoined(back, extent, ctx),
            // Whoever waits for it looks at the truth.
            Kind::Cache | Kind::Remember => {}
            Kind::Mark if extent == Extent::First => {}
            Kind::Mark => self.marks_made(ctx),
            Kind::Close => self.closed(extent),
            Kind::HandOver => self.handed_over(extent),
            Kind::Outrank { theirs, how } => self.outranked(theirs, how, ctx),
        }
    }

    pub(super) fn opened(&mut self, starting: Starting, ctx: &mut Ctx<'_>) {
        match starting {
            Starting::Alone => self.serve(ctx),
            Starting::Resync(plan) => {
                if let SyncPlan::Full(why) = plan {
                    ctx.note(EventKind::FullCopy(why));
                }
                self.serve(ctx);
            }
            Starting::Both => self.phase = Phase::Opening(Opening::Peer),
            Starting::FromPeer(_) => {
                self.own_leg = OwnLeg::Copying;
                self.phase = Phase::Opening(Opening::Peer);
            }
        }
        self.expect_peer(ctx);
    }

    /// All bits are clear and both legs are flushed: a config with both.
    pub(in crate::holder) fn begin_rejoin(&mut self, back: Side, ctx: &mut Ctx<'_>) {
        let fresh = self.fresh(0, ctx);
        let theirs = self.peer.as_ref().map(|peer| peer.store.current());
        let Ok(next) = self.known().rejoined(self.who, theirs, fresh) else {
            return self.exhausted(ctx);
        };
        self.begin_change(Kind::Rejoin { back }, next, Able::Both);
    }

    pub(super) fn rejoined(&mut self, back: Side, extent: Extent, ctx: &mut Ctx<'_>) {
        self.own_leg = OwnLeg::Counted;
        if extent == Extent::First {
            // Trouble in the meantime: the peer's superblock must not say that it is in sync.
            let sound = self.bitmap.is_clear()
                && matches!(self.membership, Membership::Rejoining | Membership::Joined);
            if !sound {
                self.change = None;
                if matches!(self.membership, Membership::Rejoining) {
                    self.go_away(Reason::LinkLost, ctx);
                }
                // The config counts a leg that went away before it did: that is a loss like any other.
                self.expect_peer(ctx);
                if back == Side::Own && !self.bitmap.is_clear() {
                    self.own_leg_failed(Reason::IoError, IoError::Aborted, ctx);
                }
            }
            return;
        }
        ctx.note(EventKind::InSync { side: back, generation: self.config().generation() });
        self.resync.finish(ctx.now());
        self.joined(ctx);
    }

    pub(super) fn closed(&mut self, extent: Extent) {
        if extent == Extent::Whole {
            let demoted = self.farewell == Farewell::Demote;
            self.phase = Phase::Ended(if demoted { Ending::Demoted } else { Ending::Clean });
        }
    }

    /// The peer knows; once this node's superblock does too, there is nothing left to do here.
    pub(super) fn handed_over(&mut self, extent: Extent) {
        if extent == Extent::Whole {
            self.phase = Phase::Ended(Ending::HandedOver);
        }
    }

    /// The peer's leg is wanted back in the config that counts it: nothing to do while it does.
    pub(in crate::holder) fn is_lost_member(&self) -> bool {
        self.in_sync().has(Side::Peer)
            && !matches!(self.membership, Membership::Joined | Membership::Rejoining)
    }
}
