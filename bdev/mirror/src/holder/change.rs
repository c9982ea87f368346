//! Changes of what the legs' superblocks say: one at a time, each step durable before the next (R8).
//!
//! ```text
//! begin --> first step durable: it is the truth now, and takes effect --> further steps --> over
//!             '--failed: own leg, tried again; peer's leg, the peer is lost
//! ```
//!
//! What happens when the peer dies with writes in flight: [`Holder::drive_change`] sees it lost for longer
//! than the grace time, writes a config without it, marks every extent that may differ, and only then are
//! the waiting writes judged again (R3).

use std::collections::VecDeque;

use bdev::IoError;
use core::time::Duration;

use super::{Ctx, Doubt, Ending, Freeze, Holder, Opening, Phase, Sides, Truth};
use crate::arbiter::{Answer, Ask};
use crate::decide::{Starting, SyncPlan};
use crate::desk::Side;
use crate::format::config::GenerationsExhausted;
use crate::format::{ArbiterKind, ConfigId, LegMask, Reason, RunState};
use crate::holder::membership::Membership;
use crate::leg_state::{LegEvent, after};
use crate::store::Stored;

/// How long to wait before the own leg is asked again for a superblock write.
const RETRY: Duration = Duration::from_millis(100);

/// Why the superblocks change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first config of this holder.
    Open(Starting),
    /// A config without a leg.
    Degrade { out: Side, reason: Reason },
    /// The own superblock says which generation the peer's leg is about to be fenced with.
    Arm,
    /// The peer's superblock says what the own one says.
    Enrol,
    /// The own superblock says that the bitmap tells all about the peer's leg from now on.
    Track,
    /// A config with both legs.
    Rejoin { back: Side },
    /// Stopped in order.
    Close,
}

/// Who learns of a change, one after the other (R8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The arbiter lets it happen.
    Arbiter,
    /// A leg's superblock says so.
    Leg(Side),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The next step is to be begun.
    Ready,
    /// It is on its way.
    Writing,
}

/// A change under way.
#[derive(Debug)]
pub(crate) struct Change {
    kind: Kind,
    next: Truth,
    steps: VecDeque<Step>,
    stage: Stage,
}

impl Holder {
    // --- Beginning ---

    /// The generation after everything that either leg has seen.
    fn next_generation(&self, ctx: &Ctx<'_>) -> u64 {
        let peer = self.peer.as_ref().map(|peer| peer.store.current());
        let seen = crate::decide::next_generation(ctx.own.current(), peer);
        seen.max(self.truth.fence.max(self.config().generation()) + 1)
    }

    /// The truth with a new config.
    fn with_config(
        &self,
        in_sync: Sides,
        reason: Reason,
        least: u64,
        ctx: &mut Ctx<'_>,
    ) -> Result<Truth, GenerationsExhausted> {
        let generation = self.next_generation(ctx).max(least);
        let nonce = Self::nonce(ctx);
        let config = self.config().successor(nonce, self.who, self.mask(in_sync), reason)?;
        let mut next = self.truth.clone();
        next.history.push(config.raised_to(generation));
        Ok(next)
    }

    pub(super) fn begin_change(&mut self, kind: Kind, next: Truth, steps: &[Side]) {
        debug_assert!(self.change.is_none(), "one change at a time");
        let mut steps: VecDeque<Step> = steps.iter().map(|side| Step::Leg(*side)).collect();
        if self.arbiter == ArbiterKind::Etcd && next.config().id != self.truth.config().id {
            steps.push_front(Step::Arbiter);
        }
        self.change = Some(Change { kind, next, steps, stage: Stage::Ready });
    }

    /// The first change: a new generation, and who is in sync in it (R11).
    pub(super) fn open(&mut self, starting: Starting, reason: Reason, generation: u64, ctx: &mut Ctx<'_>) {
        let in_sync = match starting {
            Starting::Both => Sides::all(),
            Starting::FromPeer => Sides::PEER,
            Starting::Alone | Starting::Resync(_) => Sides::OWN,
        };
        let tracked = self.config().generation();
        let was_both = self.config().in_sync == LegMask::both();
        let Ok(mut next) = self.with_config(in_sync, reason, generation, ctx) else {
            return self.exhausted(ctx);
        };
        let who = self.who;
        Self::record_mut(&mut next, who).incarnation = Self::incarnation(ctx);
        next.run_state = RunState::Running;
        next.fence = next.config().generation().max(next.fence);
        let peer = Self::record_mut(&mut next, who.other());
        if !in_sync.has(Side::Peer) && was_both {
            peer.tracked_since = tracked;
            peer.state = after(peer.state, LegEvent::of_exclusion(reason));
        }
        let own = Self::record_mut(&mut next, who);
        own.state =
            after(own.state, if in_sync.has(Side::Own) { LegEvent::SyncDone } else { LegEvent::SyncBegun });
        self.begin_change(Kind::Open(starting), next, &[Side::Own]);
        self.drive_change(ctx);
    }

    fn exhausted(&mut self, ctx: &mut Ctx<'_>) {
        ctx.note(GenerationsExhausted.to_string());
        self.freeze = Freeze::Frozen(Reason::Removed);
    }

    /// Starts a change that is due, and the next step of the one under way.
    pub(super) fn drive_change(&mut self, ctx: &mut Ctx<'_>) {
        if self.change.is_none() {
            self.degrade_if_due(ctx);
        }
        if self.retry_change_at.is_some_and(|at| ctx.now() < at) {
            return;
        }
        self.retry_change_at = None;
        let Some(change) = &mut self.change else { return };
        if change.stage == Stage::Writing {
            return self.poke_stores(ctx);
        }
        let side = match change.steps.front() {
            None => return,
            Some(Step::Arbiter) => {
                if ctx.ballot.is_free(ctx.desk.now) {
                    let ask = Ask::Swap { from: self.arbiter_has, next: *change.next.config() };
                    ctx.ballot.ask(ask, ctx.desk.now);
                    change.stage = Stage::Writing;
                }
                return;
            }
            Some(Step::Leg(side)) => *side,
        };
        let takes = self.membership.takes_superblocks();
        match (side, &mut self.peer) {
            (Side::Own, _) if ctx.own.is_busy() => return,
            (Side::Own, _) => {
                let next = change.next.on(ctx.own.current(), self.who);
                ctx.own.begin(next, ctx.desk);
            }
            (Side::Peer, Some(peer)) if takes => {
                let next = change.next.on(peer.store.current(), self.who);
                peer.store.begin(next, ctx.desk);
            }
            (Side::Peer, _) => return self.abandon_peer_step(ctx),
        }
        change.stage = Stage::Writing;
    }

    fn poke_stores(&mut self, ctx: &mut Ctx<'_>) {
        ctx.own.poke(ctx.desk);
        if let Some(peer) = &mut self.peer {
            peer.store.poke(ctx.desk);
        }
    }

    // --- Degrading ---

    /// A leg that the config counts is gone or broken for good: a config without it, if the policy lets us.
    fn degrade_if_due(&mut self, ctx: &mut Ctx<'_>) {
        if !self.is_both() || matches!(self.phase, Phase::Leaving(_) | Phase::Ended(_)) {
            return;
        }
        let Some((out, reason)) = self.leg_to_drop(ctx) else { return };
        // With an arbiter, it is the one that lets it happen or not.
        if matches!(self.arbiter, ArbiterKind::Biased | ArbiterKind::Etcd) {
            return self.degrade(out, reason, ctx);
        }
        if self.freeze == Freeze::Flowing {
            ctx.note(format!(
                "I/O is frozen: {}; the policy leaves the decision to the operator",
                reason.words()
            ));
            self.freeze = Freeze::Frozen(reason);
        }
    }

    fn leg_to_drop(&self, ctx: &Ctx<'_>) -> Option<(Side, Reason)> {
        // Somebody has locked us out, and we do not know who yet: never a reason to go on alone.
        if self.doubt == Doubt::Fenced && self.arbiter != ArbiterKind::Etcd {
            return None;
        }
        if let Some(reason) = self.membership_own_failure() {
            return self.is_joined().then_some((Side::Own, reason));
        }
        self.peer_to_drop(ctx).map(|reason| (Side::Peer, reason))
    }

    /// Makes a config without a leg.
    pub(super) fn degrade(&mut self, out: Side, reason: Reason, ctx: &mut Ctx<'_>) {
        let tracked = self.tracked_from();
        let left = Sides::all() - Sides::only(out);
        let Ok(mut next) = self.with_config(left, reason, 0, ctx) else { return self.exhausted(ctx) };
        let seen = self.peer.as_ref().map(|peer| peer.store.current().seq);
        let record = Self::record_mut(&mut next, self.leg(out));
        record.state = after(record.state, LegEvent::of_exclusion(reason));
        // Nothing tracks an own leg that is out: the log and the bitmap are on it.
        record.tracked_since = if out == Side::Own { 0 } else { tracked };
        if out == Side::Peer {
            record.seen_seq = seen.unwrap_or(record.seen_seq);
        }
        let steps: &[Side] = if out == Side::Own { &[Side::Peer, Side::Own] } else { &[Side::Own] };
        self.begin_change(Kind::Degrade { out, reason }, next, steps);
    }

    /// The config that the peer's leg may still have, such that everything since is in the log or the bitmap: ours,
    /// or an older one where the peer has not learned ours yet.
    fn tracked_from(&self) -> u64 {
        let ours = self.config().generation();
        let known = self.truth.legs[self.who.other().index()].uuid;
        let peer = self.peer.as_ref().map(|peer| peer.store.current()).filter(|peer| peer.leg == known);
        peer.map_or(ours, |peer| peer.config().generation().min(ours))
    }

    // --- Steps ---

    /// A superblock block came back.
    pub(super) fn on_superblock(
        &mut self,
        side: Side,
        attempt: u32,
        result: Result<(), IoError>,
        ctx: &mut Ctx<'_>,
    ) {
        let stored = match (side, &mut self.peer) {
            (Side::Own, _) => ctx.own.on_done(result, ctx.desk),
            (Side::Peer, Some(peer)) if attempt == self.attempt => peer.store.on_done(result, ctx.desk),
            (Side::Peer, _) => None,
        };
        match stored {
            None => {}
            Some(Stored::Durable) => self.on_step(ctx),
            Some(Stored::Failed(error)) => self.on_step_failed(side, error, ctx),
        }
    }

    fn on_step(&mut self, ctx: &mut Ctx<'_>) {
        let Some(change) = &mut self.change else { return };
        change.steps.pop_front();
        change.stage = Stage::Ready;
        let (kind, over) = (change.kind, change.steps.is_empty());
        let is_first = self.truth.history != change.next.history
            || self.truth.legs != change.next.legs
            || self.truth.run_state != change.next.run_state
            || self.truth.fence != change.next.fence;
        if is_first {
            self.truth = change.next.clone();
        }
        if over {
            self.change = None;
        }
        if is_first || over {
            self.take_effect(kind, if over { Extent::Whole } else { Extent::First }, ctx);
        }
    }

    /// The arbiter answered.
    pub(crate) fn on_arbiter(&mut self, answer: Answer, ctx: &mut Ctx<'_>) {
        let Some(change) = self.change.as_mut().filter(|change| change.steps.front() == Some(&Step::Arbiter))
        else {
            return;
        };
        change.stage = Stage::Ready;
        let next = *change.next.config();
        match answer {
            Answer::Swapped => self.on_arbitrated(next.id),
            Answer::Holds(Some(config)) if config.id == next.id => self.on_arbitrated(next.id),
            Answer::Holds(Some(config)) if config.generation() > self.config().generation() => {
                ctx.note(format!("the arbiter gave the array to node {}", config.holder.number()));
                return self.step_down(ctx);
            }
            Answer::Holds(holds) => {
                let what = if holds.is_some() { "an older config" } else { "no config" };
                ctx.note(format!(
                    "the arbiter has {what} of this array, and should have generation {}: restored from a backup?",
                    self.config().generation()
                ));
                ctx.ballot.pause(ctx.desk.now);
            }
            Answer::Unknown(why) => ctx.note(format!("the arbiter does not answer: {why}")),
        }
        self.settle(ctx);
    }

    fn on_arbitrated(&mut self, id: ConfigId) {
        self.arbiter_has = Some(id);
        if let Some(change) = &mut self.change {
            change.steps.pop_front();
        }
    }

    /// Waits for the arbiter.
    pub(super) fn is_arbitrating(&self) -> bool {
        self.change.as_ref().is_some_and(|change| change.steps.front() == Some(&Step::Arbiter))
    }

    fn on_step_failed(&mut self, side: Side, error: IoError, ctx: &mut Ctx<'_>) {
        let Some(change) = &mut self.change else { return };
        change.stage = Stage::Ready;
        match (side, change.kind) {
            // The config is durable on the leg that counts; this one is out, and need not know.
            (Side::Own, Kind::Degrade { out: Side::Own, .. }) => self.change = None,
            (Side::Own, _) => {
                ctx.note(format!("this leg's superblock cannot be written ({error}): trying again"));
                self.retry_change_at = Some(ctx.now() + RETRY);
            }
            (Side::Peer, _) => self.lose_peer(error, ctx),
        }
    }

    /// The peer went away before it took its step: what is durable stands, the rest is off.
    pub(super) fn abandon_peer_step(&mut self, ctx: &mut Ctx<'_>) {
        let Some(change) = self.change.take_if(|change| change.steps.front() == Some(&Step::Leg(Side::Peer)))
        else {
            return;
        };
        if change.kind == Kind::Close {
            self.take_effect(change.kind, Extent::Whole, ctx);
        }
    }

    // --- Effects ---

    fn take_effect(&mut self, kind: Kind, extent: Extent, ctx: &mut Ctx<'_>) {
        match kind {
            Kind::Open(starting) => self.opened(starting, ctx),
            Kind::Degrade { out, reason } => self.degraded(out, reason, ctx),
            Kind::Arm | Kind::Enrol | Kind::Track => self.membership_changed(kind, ctx),
            Kind::Rejoin { back } => self.rejoined(back, extent, ctx),
            Kind::Close => self.closed(extent, ctx),
        }
    }

    fn opened(&mut self, starting: Starting, ctx: &mut Ctx<'_>) {
        let generation = self.config().generation();
        ctx.note(format!("generation {generation}: {}", self.config().reason.words()));
        match starting {
            Starting::Alone => self.serve(ctx),
            Starting::Resync(plan) => {
                if let SyncPlan::Full(why) = plan {
                    ctx.note(format!("the peer's leg needs a full copy: {why}"));
                }
                self.serve(ctx);
            }
            Starting::Both => self.phase = Phase::Opening(Opening::Peer),
            Starting::FromPeer => self.phase = Phase::Opening(Opening::Recovery),
        }
        self.expect_peer(ctx);
    }

    fn degraded(&mut self, out: Side, reason: Reason, ctx: &mut Ctx<'_>) {
        if self.config().in_sync == LegMask::both() {
            return;
        }
        self.mark_exposed();
        self.freeze = Freeze::Flowing;
        let which = if out == Side::Own { "this node's leg" } else { "the peer's leg" };
        ctx.note(format!("generation {}: without {which}: {}", self.config().generation(), reason.words()));
        if out == Side::Peer {
            self.drop_member(ctx);
        } else {
            self.go_on_without_log(ctx);
        }
        self.unpark(ctx);
    }

    /// Every extent that may differ is out of sync from now on.
    pub(super) fn mark_exposed(&mut self) {
        for range in self.log.exposed() {
            self.bitmap.set(range);
        }
    }

    /// Writes that wait for the log of the leg that is out go to the other one.
    fn go_on_without_log(&mut self, ctx: &mut Ctx<'_>) {
        let waiting: Vec<_> = self.admitting.drain(..).chain(core::mem::take(&mut self.logging)).collect();
        for key in waiting {
            self.forget_permit(key);
            self.admit(key, ctx);
        }
    }

    /// All bits are clear and both legs are flushed: a config with both.
    pub(super) fn begin_rejoin(&mut self, back: Side, ctx: &mut Ctx<'_>) {
        let Ok(mut next) = self.with_config(Sides::all(), Reason::Rejoined, 0, ctx) else {
            return self.exhausted(ctx);
        };
        let (generation, who) = (next.config().generation(), self.who);
        for leg in &mut next.legs {
            leg.state = after(leg.state, LegEvent::SyncDone);
            leg.tracked_since = generation;
        }
        if let Some(peer) = &self.peer {
            let theirs = peer.store.current();
            let record = Self::record_mut(&mut next, who.other());
            (record.incarnation, record.seen_seq) = (theirs.own().incarnation, theirs.seq);
        }
        self.begin_change(Kind::Rejoin { back }, next, &[Side::Own, Side::Peer]);
    }

    fn rejoined(&mut self, back: Side, extent: Extent, ctx: &mut Ctx<'_>) {
        if extent == Extent::First {
            // Trouble in the meantime: the peer's superblock must not say that it is in sync.
            let sound = self.bitmap.is_clear()
                && matches!(self.membership, Membership::Rejoining | Membership::Joined);
            if !sound {
                self.change = None;
                // The config counts a leg that went away before it did: that is a loss like any other.
                self.expect_peer(ctx);
            }
            return;
        }
        let which = if back == Side::Own { "this node's leg" } else { "the peer's leg" };
        ctx.note(format!("generation {}: {which} is in sync", self.config().generation()));
        self.resync.finish(ctx.now());
        self.joined(ctx);
    }

    fn closed(&mut self, extent: Extent, ctx: &mut Ctx<'_>) {
        if extent == Extent::Whole {
            ctx.note("stopped in order");
            self.phase = Phase::Ended(Ending::Clean);
        }
    }

    /// The peer's leg is wanted back in the config that counts it: nothing to do while it does.
    pub(super) fn is_lost_member(&self) -> bool {
        self.in_sync().has(Side::Peer)
            && !matches!(self.membership, Membership::Joined | Membership::Rejoining)
    }
}

/// How much of a change is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// Its first step: it counts.
    First,
    /// All of it.
    Whole,
}
