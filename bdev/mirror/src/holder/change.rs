//! Changes of what the legs' superblocks say: one at a time, each step durable before the next (R8).
//!
//! ```text
//! begin --> first step durable: it is the truth now, and takes effect --> further steps --> over
//!             '--failed: own leg, tried again; peer's leg, the peer is lost
//!                        '--> suspended, where the peer or the arbiter may have it: its config is part of the
//!                             history of the next one (I3), or goes on when the peer comes back with it
//! ```
//!
//! Where acknowledged data may be in caches, a config that counts the own leg alone begins with a flush of it (`caching.rs`).
//!
//! What happens when the peer dies with writes in flight: [`Holder::drive_change`] sees it lost for longer
//! than the grace time, writes a config without it, marks every extent that may differ, and only then are
//! the waiting writes judged again (R3).

use bdev::IoError;
use core::time::Duration;

use super::caching::{Flushed, Flushing};
use super::own_leg::OwnLeg;
use super::{Ctx, Doubt, Ending, Farewell, Freeze, Holder, Opening, Phase, Truth};
use crate::arbiter::{Answer, Ask};
use crate::command::Overwrite;
use crate::decide::{
    Able, Novelty, Starting, Step, Steps, SwapVerdict, SyncPlan, on_refused_swap, steps, takes_up,
};
use crate::desk::Side;
use crate::events::{EventKind, FreezeCause};
use crate::format::copies::Numbering;
use crate::format::{ArbiterKind, ConfigId, LegMask, Reason, Superblock};
use crate::holder::membership::Membership;
use crate::mutation::{Mutation, is_broken};
use crate::probe::LegFound;
use crate::store::Stored;
use crate::truth::Fresh;

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
    /// The peer's superblock says what the own one says, and the own one which number it has.
    Enrol,
    /// Both superblocks are numbered anew, so that an older copy of a leg is told from it.
    Mark,
    /// The peer's superblock remembers the own one's new number, too.
    Remember,
    /// The own superblock says that the bitmap tells all about the peer's leg from now on.
    Track,
    /// A config with both legs.
    Rejoin { back: Side },
    /// The superblocks say that acknowledged data may be in caches from now on.
    Cache,
    /// Stopped in order.
    Close,
    /// A config that names the peer as the holder.
    HandOver,
    /// A config above that of a leg that has diverged and is to be overwritten.
    Outrank { theirs: ConfigId, how: Overwrite },
}

impl Kind {
    /// Where it stands in the order of changes.
    const fn novelty(self) -> Novelty {
        match self {
            Self::Open(_) => Novelty::Open,
            Self::Degrade { out, .. } => Novelty::Degrade { out },
            Self::Arm => Novelty::Arm,
            Self::Enrol => Novelty::Enrol,
            Self::Mark => Novelty::Mark,
            Self::Remember => Novelty::Remember,
            Self::Track => Novelty::Track,
            Self::Rejoin { .. } => Novelty::Rejoin,
            Self::Cache => Novelty::Cache,
            Self::Close => Novelty::Close,
            Self::HandOver => Novelty::HandOver,
            Self::Outrank { .. } => Novelty::Outrank,
        }
    }
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
    steps: Steps,
    stage: Stage,
    flushing: Flushing,
}

impl Change {
    /// What the superblocks are to say.
    pub(super) const fn next(&self) -> &Truth {
        &self.next
    }

    /// Its first step is on its way.
    pub(super) fn flush(&mut self, ctx: &mut Ctx<'_>) {
        self.flushing.begin(ctx);
        self.stage = Stage::Writing;
    }
}

impl Holder {
    // --- Beginning ---

    /// What a new config needs: a generation above everything that either leg has seen, and not below `least`.
    pub(super) fn fresh(&self, least: u64, ctx: &mut Ctx<'_>) -> Fresh {
        let peer = self.peer.as_ref().map(|peer| peer.store.current());
        let generation = self.known().next_generation(ctx.own.current(), peer).max(least);
        Fresh { generation, nonce: ctx.prng.next_u64() }
    }

    /// As [`Holder::fresh`], and above everything that another superblock has seen.
    pub(super) fn fresh_above(&self, theirs: &Superblock, ctx: &mut Ctx<'_>) -> Fresh {
        let generation = self.known().next_generation(ctx.own.current(), Some(theirs));
        Fresh { generation, nonce: ctx.prng.next_u64() }
    }

    /// The truth, with a config in its history that somebody else may have heard of.
    pub(super) fn known(&self) -> Truth {
        let mut known = self.truth.clone();
        if let Some(suspended) = &self.suspended {
            known.history.push(*suspended.next.config());
        }
        known
    }

    /// What we say about the array to a leg that was found: where it has the suspended config, that one.
    pub(super) fn says(&self, found: &LegFound, own: &Superblock) -> Superblock {
        let suspended = self.suspended.as_ref().filter(
            |change| matches!(found, LegFound::Leg(leg) if leg.superblock.config() == change.next.config()),
        );
        suspended.map_or(&self.truth, |change| &change.next).on(own, self.who)
    }

    /// The peer has come back with the suspended config: it counts, and goes on.
    pub(super) fn resume(&mut self, theirs: &Superblock, ctx: &mut Ctx<'_>) {
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

    pub(super) fn begin_change(&mut self, kind: Kind, next: Truth, able: Able) {
        debug_assert!(self.change.is_none(), "one change at a time");
        let configs = (self.truth.config(), next.config());
        let steps = steps(kind.novelty(), able, self.arbiter, configs, self.last_copy(&next));
        self.change = Some(Change { kind, next, steps, stage: Stage::Ready, flushing: Flushing::default() });
    }

    /// The first change: a new generation, and who is in sync in it (R11); or the one that the old holder made for us.
    pub(super) fn open(&mut self, starting: Starting, reason: Reason, generation: u64, ctx: &mut Ctx<'_>) {
        if takes_up(starting, reason) {
            let next = self.truth.taken_up(self.who, ctx.setup.incarnation);
            self.begin_change(Kind::Open(starting), next, Able::Both);
            return self.drive_change(ctx);
        }
        let fresh = self.fresh(generation, ctx);
        let incarnation = ctx.setup.incarnation;
        let Ok(next) = self.truth.opened(self.who, starting, reason, incarnation, fresh) else {
            return self.exhausted(ctx);
        };
        self.begin_change(Kind::Open(starting), next, Able::Both);
        self.drive_change(ctx);
    }

    pub(super) fn exhausted(&mut self, ctx: &mut Ctx<'_>) {
        self.freeze(FreezeCause::GenerationsExhausted, ctx);
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
        let side = match change.steps.next() {
            None => return,
            Some(Step::Act) => return self.advance(ctx),
            Some(Step::Flush) => return self.begin_change_flush(ctx),
            Some(Step::Arbiter) => {
                if ctx.ballot.is_free(ctx.desk.now) {
                    let ask = Ask::Swap { from: self.arbiter_has, next: *change.next.config() };
                    ctx.ballot.ask(ask, ctx.desk.now);
                    change.stage = Stage::Writing;
                }
                return;
            }
            Some(Step::Leg(side)) => side,
        };
        let takes = self.membership.takes_superblocks();
        match (side, &mut self.peer) {
            (Side::Own, _) if ctx.own.is_busy() => return,
            (Side::Own, _) => {
                let next = change.next.on(ctx.own.current(), self.who);
                ctx.own.begin(numbering(change.kind), next, ctx.desk);
            }
            (Side::Peer, Some(peer)) if takes => {
                let next = change.next.on(peer.store.current(), self.who);
                peer.store.begin(numbering(change.kind), next, ctx.desk);
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

    /// Hosts wait until somebody decides.
    fn freeze(&mut self, cause: FreezeCause, ctx: &mut Ctx<'_>) {
        if self.freeze != Freeze::Frozen(cause) {
            self.freeze = Freeze::Frozen(cause);
            ctx.note(EventKind::Frozen(cause));
        }
    }

    pub(super) fn thaw(&mut self, ctx: &mut Ctx<'_>) {
        if self.freeze != Freeze::Flowing {
            self.freeze = Freeze::Flowing;
            ctx.note(EventKind::Thawed);
        }
    }

    fn leg_to_drop(&self, ctx: &Ctx<'_>) -> Option<(Side, Reason)> {
        // Somebody has locked us out, and we do not know who yet: never a reason to go on alone.
        if self.doubt == Doubt::Fenced && self.arbiter != ArbiterKind::Etcd {
            return None;
        }
        // Without the peer the own leg is the last one, whatever is wrong with it.
        if let Some(reason) = self.own_failure.filter(|_| self.is_joined()) {
            return Some((Side::Own, reason));
        }
        self.peer_to_drop(ctx).filter(|_| self.is_both()).map(|reason| (Side::Peer, reason))
    }

    /// Makes a config without a leg.
    pub(super) fn degrade(&mut self, out: Side, reason: Reason, ctx: &mut Ctx<'_>) {
        let fresh = self.fresh(0, ctx);
        let peer = self.peer.as_ref().map(|peer| peer.store.current());
        let Ok(next) = self.known().degraded(self.who, self.leg(out), reason, peer, fresh) else {
            return self.exhausted(ctx);
        };
        self.begin_change(Kind::Degrade { out, reason }, next, Able::Both);
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
        if let Some(change) = &mut self.change {
            change.steps.done();
        }
        self.advance(ctx);
    }

    /// What was under way of the change is done: it takes effect where that is due, and is over where nothing is left.
    fn advance(&mut self, ctx: &mut Ctx<'_>) {
        let Some(change) = &mut self.change else { return };
        change.stage = Stage::Ready;
        let acts = change.steps.next() == Some(Step::Act);
        if acts {
            change.steps.done();
        }
        let (kind, over) = (change.kind, change.steps.next().is_none());
        if acts || over {
            let new_config = self.truth.config().id != change.next.config().id;
            self.truth = change.next.clone();
            self.suspended
                .take_if(|suspended| suspended.next.config().generation() < self.truth.config().generation());
            if new_config {
                ctx.note(EventKind::ConfigChanged(*self.config()));
            }
        }
        if over {
            self.change = None;
        }
        if acts || over {
            self.take_effect(kind, if over { Extent::Whole } else { Extent::First }, ctx);
        }
    }

    /// The own leg was flushed before a config that counts it alone, or was not.
    pub(super) fn on_change_flushed(&mut self, attempt: u32, result: Result<(), IoError>, ctx: &mut Ctx<'_>) {
        let is_due = |change: &&mut Change| change.steps.next() == Some(Step::Flush);
        let Some(change) = self.change.as_mut().filter(is_due) else { return };
        match change.flushing.ended(attempt, result) {
            Flushed::Stale => return,
            Flushed::Over => change.steps.done(),
            Flushed::Again => self.retry_change_at = Some(ctx.now() + RETRY),
        }
        change.stage = Stage::Ready;
        if let Err(error) = result {
            ctx.note(EventKind::OwnLegFailed(error));
        }
    }

    /// The arbiter answered.
    pub(crate) fn on_arbiter(&mut self, answer: Answer, ctx: &mut Ctx<'_>) {
        let Some(change) = self.change.as_mut().filter(|change| change.steps.next() == Some(Step::Arbiter))
        else {
            return;
        };
        change.stage = Stage::Ready;
        let next = *change.next.config();
        let now = *self.truth.config();
        match answer {
            Answer::Swapped => self.on_arbitrated(next.id, ctx),
            Answer::Holds(holds) => match on_refused_swap(&now, &next, holds.as_ref()) {
                SwapVerdict::Done => self.on_arbitrated(next.id, ctx),
                SwapVerdict::Lost(config) => {
                    let (holder, generation) = (config.holder, config.generation());
                    ctx.note(EventKind::ArbiterDecided { holder, generation });
                    return self.step_down(ctx);
                }
                SwapVerdict::Older => {
                    let expected = now.generation();
                    ctx.note(match holds {
                        Some(_) => EventKind::ArbiterOlder { expected },
                        None => EventKind::ArbiterVacant,
                    });
                    ctx.ballot.pause(ctx.desk.now);
                    self.freeze_for_arbiter(ctx);
                }
            },
            Answer::Unknown(why) => {
                ctx.note(EventKind::ArbiterSilent(why));
                self.freeze_for_arbiter(ctx);
            }
        }
        self.settle(ctx);
    }

    /// A leg is gone, and nobody says that this node may go on without it: nobody guesses.
    fn freeze_for_arbiter(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(Kind::Degrade { reason, .. }) = self.change.as_ref().map(|change| change.kind) {
            self.freeze(FreezeCause::Arbiter(reason), ctx);
        }
    }

    fn on_arbitrated(&mut self, id: ConfigId, ctx: &mut Ctx<'_>) {
        self.arbiter_has = Some(id);
        self.on_step(ctx);
    }

    /// What a change under way says is what `amend` makes of it, where it is not being written yet.
    pub(super) fn amend_change(&mut self, amend: impl FnOnce(&Truth) -> Truth) {
        if let Some(change) = self.change.as_mut().filter(|change| {
            change.stage == Stage::Ready || !matches!(change.steps.next(), Some(Step::Leg(_)))
        }) {
            change.next = amend(&change.next);
        }
    }

    /// What is under way.
    pub(super) fn change_kind(&self) -> Option<Kind> {
        self.change.as_ref().map(|change| change.kind)
    }

    /// Waits for the arbiter.
    pub(super) fn is_arbitrating(&self) -> bool {
        self.change.as_ref().is_some_and(|change| change.steps.next() == Some(Step::Arbiter))
    }

    fn on_step_failed(&mut self, side: Side, error: IoError, ctx: &mut Ctx<'_>) {
        let counted = self.in_sync().has(Side::Own);
        let Some(change) = &mut self.change else { return };
        if side == Side::Own {
            change.stage = Stage::Ready;
        }
        match (side, change.kind) {
            // The config is durable on the leg that counts; this one is out, and need not know.
            (Side::Own, Kind::Degrade { out: Side::Own, .. }) => self.change = None,
            (Side::Own, Kind::Close) if !counted => {
                self.change = None;
                self.take_effect(Kind::Close, Extent::Whole, ctx);
            }
            (Side::Own, Kind::Enrol | Kind::Mark) => {
                let change = self.change.take().expect("it is under way");
                self.mark_failed(change.kind, change.next, error, ctx);
            }
            (Side::Own, Kind::Cache) => {
                self.change = None;
                self.caching_failed(error, ctx);
            }
            // The arbiter may count it already, and it was to be counted: a config without it, as for one that is.
            (Side::Own, Kind::Rejoin { back: Side::Own }) => {
                self.truth = change.next.clone();
                self.change = None;
                self.own_leg = OwnLeg::Counted;
                self.own_leg_failed(Reason::IoError, error, ctx);
            }
            (Side::Own, _) => {
                ctx.note(EventKind::OwnSuperblockFailed(error));
                self.retry_change_at = Some(ctx.now() + RETRY);
            }
            (Side::Peer, _) => self.lose_peer(error, ctx),
        }
    }

    /// The peer went away before it took its step: what is durable stands, the rest is off.
    pub(super) fn abandon_peer_step(&mut self, ctx: &mut Ctx<'_>) {
        let Some(change) = self.change.take_if(|change| change.steps.next() == Some(Step::Leg(Side::Peer)))
        else {
            return;
        };
        match change.kind {
            Kind::Close => self.take_effect(change.kind, Extent::Whole, ctx),
            Kind::HandOver => self.hand_over_cut_off(ctx),
            // The peer may have it, and the arbiter has it.
            Kind::Degrade { .. } if change.stage == Stage::Writing || self.arbiter == ArbiterKind::Etcd => {
                self.suspended = Some(change);
            }
            _ => {}
        }
    }

    // --- Effects ---

    fn take_effect(&mut self, kind: Kind, extent: Extent, ctx: &mut Ctx<'_>) {
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
            Kind::Close => self.closed(extent, ctx),
            Kind::HandOver => self.handed_over(extent),
            Kind::Outrank { theirs, how } => self.outranked(theirs, how, ctx),
        }
    }

    fn opened(&mut self, starting: Starting, ctx: &mut Ctx<'_>) {
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

    fn degraded(&mut self, out: Side, ctx: &mut Ctx<'_>) {
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

    /// Every extent that may differ is out of sync from now on.
    pub(super) fn mark_exposed(&mut self) {
        for range in self.log.exposed() {
            self.bitmap.set(range);
        }
    }

    /// Writes that wait for the log of the leg that is out go to the other one.
    pub(super) fn go_on_without_log(&mut self, ctx: &mut Ctx<'_>) {
        let waiting: Vec<_> = self.admitting.drain(..).chain(core::mem::take(&mut self.logging)).collect();
        for key in waiting {
            self.forget_permit(key);
            self.admit(key, ctx);
        }
    }

    /// All bits are clear and both legs are flushed: a config with both.
    pub(super) fn begin_rejoin(&mut self, back: Side, ctx: &mut Ctx<'_>) {
        let fresh = self.fresh(0, ctx);
        let theirs = self.peer.as_ref().map(|peer| peer.store.current());
        let Ok(next) = self.known().rejoined(self.who, theirs, fresh) else {
            return self.exhausted(ctx);
        };
        self.begin_change(Kind::Rejoin { back }, next, Able::Both);
    }

    fn rejoined(&mut self, back: Side, extent: Extent, ctx: &mut Ctx<'_>) {
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

    fn closed(&mut self, extent: Extent, ctx: &mut Ctx<'_>) {
        if extent == Extent::Whole {
            let demoted = self.farewell == Farewell::Demote;
            if !demoted {
                ctx.note(EventKind::Stopped);
            }
            self.phase = Phase::Ended(if demoted { Ending::Demoted } else { Ending::Clean });
        }
    }

    /// The peer knows; once this node's superblock does too, there is nothing left to do here.
    fn handed_over(&mut self, extent: Extent) {
        if extent == Extent::Whole {
            self.phase = Phase::Ended(Ending::HandedOver);
        }
    }

    /// The peer's leg is wanted back in the config that counts it: nothing to do while it does.
    pub(super) fn is_lost_member(&self) -> bool {
        self.in_sync().has(Side::Peer)
            && !matches!(self.membership, Membership::Joined | Membership::Rejoining)
    }
}

/// A holder marks a leg when it has judged it, and after a while anew.
const fn numbering(kind: Kind) -> Numbering {
    match kind {
        Kind::Open(_) | Kind::Enrol | Kind::Mark => Numbering::Mark,
        _ => Numbering::Write,
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
