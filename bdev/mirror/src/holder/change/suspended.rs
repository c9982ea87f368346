//! A change that the peer, or the arbiter, may have heard of though it never took effect here: its config is part of the history
//! of the next one (I3), or it goes on when the peer comes back with it.

use bdev::IoError;

use super::{Change, Extent, Kind, Stage};
use crate::decide::{FailureVerdict, Step, on_write_failure};
use crate::desk::Side;
use crate::format::{ArbiterKind, Superblock};
use crate::holder::{Ctx, Holder, Truth};
use crate::probe::LegFound;

impl Holder {
    /// The truth, with a config in its history that somebody else may have heard of.
    pub(in crate::holder) fn known(&self) -> Truth {
        let mut known = self.truth.clone();
        if let Some(suspended) = &self.suspended {
            known.history.push(*suspended.next.config());
        }
        known
    }

    /// What we say about the array to a leg that was found: where it has the suspended config, that one.
    pub(in crate::holder) fn says(&self, found: &LegFound, own: &Superblock) -> Superblock {
        let suspended = self.suspended.as_ref().filter(
            |change| matches!(found, LegFound::Leg(leg) if leg.superblock.config() == change.next.config()),
        );
        suspended.map_or(&self.truth, |change| &change.next).on(own, self.who)
    }

    /// The peer has come back with the suspended config: it counts, and goes on.
    pub(in crate::holder) fn resume(&mut self, theirs: &Superblock, ctx: &mut Ctx<'_>) {
        let is_theirs = |change: &mut Change| change.next.config() == theirs.config();
        let Some(mut change) = self.suspended.take_if(is_theirs) else { return };
        change.next = change.next.marked(self.who, ctx.own.current().seq, theirs.seq);
        change.steps = change.steps.resumed();
        change.stage = Stage::Ready;
        self.truth = change.next.clone();
        let kind = change.kind;
        self.change = Some(change);
        self.joined(ctx);
        self.take_effect(kind, Extent::First, ctx);
    }

    /// The peer is there again, and nobody has heard of a config without it: there is none. The flush that it begins with may never
    /// end, on a disk that hangs.
    pub(super) fn drop_unheard(&mut self) {
        let joined = self.is_joined();
        self.change.take_if(|change| {
            let without_peer = matches!(change.kind, Kind::Degrade { out: Side::Peer, .. });
            joined && without_peer && change.steps.next() == Some(Step::Flush(Side::Own))
        });
    }

    /// The own leg does not take a config without the peer, which is there again and has everything: there is to be one without
    /// the own leg. Only where the arbiter's word counts at the next start: what a disk says that it has not written it may have,
    /// and by its own superblock this node would serve alone then.
    pub(super) fn gives_way(&self, error: IoError) -> bool {
        let verdict = on_write_failure(self.arbiter, self.config(), self.who, error);
        self.is_joined()
            && self.is_both()
            && matches!(verdict, FailureVerdict::AskArbiter(_))
            && self.arbiter == ArbiterKind::Etcd
    }

    /// The peer went away before it took its step: what is durable stands, the rest is off.
    pub(in crate::holder) fn abandon_peer_step(&mut self, ctx: &mut Ctx<'_>) {
        let is_peers = |change: &mut Change| {
            matches!(change.steps.next(), Some(Step::Leg(Side::Peer) | Step::Flush(Side::Peer)))
        };
        let Some(change) = self.change.take_if(is_peers) else {
            return;
        };
        match change.kind {
            Kind::Close => self.take_effect(change.kind, Extent::Whole, ctx),
            Kind::HandOver => self.hand_over_cut_off(ctx),
            // Nobody has heard of it.
            _ if change.steps.next() == Some(Step::Flush(Side::Peer)) => {}
            // The peer may have it, and the arbiter has it.
            Kind::Degrade { .. } if change.stage == Stage::Writing || self.arbiter == ArbiterKind::Etcd => {
                self.suspended = Some(change);
            }
            _ => {}
        }
    }
}
