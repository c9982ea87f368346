//! Changes of what the legs' superblocks say: one at a time, each step durable before the next (R8).
//!
//! ```text
//! begin --> what makes it true is durable: it takes effect --> further steps (`decide/order.rs`) --> over
//!             '--failed: own leg, tried again; peer's leg, the peer is lost
//!                        '--> suspended, where the peer or the arbiter may have it: its config is part of the
//!                             history of the next one (I3), or goes on when the peer comes back with it
//! ```
//!
//! Where acknowledged data may be in caches, a config that counts one leg alone begins with a flush of it (`caching.rs`).
//!
//! What happens when the peer dies with writes in flight: [`Holder::drive_change`] sees it lost for longer
//! than the grace time, writes a config without it, marks every extent that may differ, and only then are
//! the waiting writes judged again (R3).

mod arbitrate;
mod degrade;
mod effect;
mod suspended;

use bdev::IoError;
use core::time::Duration;

use super::caching::{Flushed, Flushing};
use super::own_leg::OwnLeg;
use super::{Ctx, Holder, Truth};
use crate::arbiter::{Ask, Asker};
use crate::command::Overwrite;
use crate::decide::{Able, Novelty, Starting, Step, Steps, steps, takes_up};
use crate::desk::Side;
use crate::events::{EventKind, FreezeCause};
use crate::format::copies::Numbering;
use crate::format::{ConfigId, Reason, Superblock};
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
    pub(in crate::holder) const fn next(&self) -> &Truth {
        &self.next
    }

    /// Its first step is on its way.
    pub(in crate::holder) fn flush(&mut self, side: Side, ctx: &mut Ctx<'_>) {
        self.flushing.begin(side, ctx);
        self.stage = Stage::Writing;
    }
}

impl Holder {
    // --- Beginning ---

    /// What a new config needs: a generation above everything that either leg has seen, and not below `least`.
    pub(in crate::holder) fn fresh(&self, least: u64, ctx: &mut Ctx<'_>) -> Fresh {
        let peer = self.peer.as_ref().map(|peer| peer.store.current());
        let generation = self.known().next_generation(ctx.own.current(), peer).max(least);
        Fresh { generation, nonce: ctx.prng.next_u64() }
    }

    /// As [`Holder::fresh`], and above everything that another superblock has seen.
    pub(in crate::holder) fn fresh_above(&self, theirs: &Superblock, ctx: &mut Ctx<'_>) -> Fresh {
        let generation = self.known().next_generation(ctx.own.current(), Some(theirs));
        Fresh { generation, nonce: ctx.prng.next_u64() }
    }

    pub(in crate::holder) fn begin_change(&mut self, kind: Kind, next: Truth, able: Able) {
        debug_assert!(self.change.is_none(), "one change at a time");
        let configs = (self.truth.config(), next.config());
        let steps = steps(kind.novelty(), able, self.arbiter, configs, self.last_copy(&next));
        self.change = Some(Change { kind, next, steps, stage: Stage::Ready, flushing: Flushing::default() });
    }

    /// The first change: a new generation, and who is in sync in it (R11); or the one that the old holder made for us.
    pub(in crate::holder) fn open(
        &mut self,
        starting: Starting,
        reason: Reason,
        generation: u64,
        ctx: &mut Ctx<'_>,
    ) {
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

    pub(in crate::holder) fn exhausted(&mut self, ctx: &mut Ctx<'_>) {
        self.freeze(FreezeCause::GenerationsExhausted, ctx);
    }

    /// Starts a change that is due, and the next step of the one under way.
    pub(in crate::holder) fn drive_change(&mut self, ctx: &mut Ctx<'_>) {
        self.drop_unheard();
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
            Some(Step::Flush(side)) => return self.begin_change_flush(side, ctx),
            Some(Step::Arbiter) => {
                if ctx.ballot.is_free(ctx.desk.now) {
                    let next = Box::new(change.next.history);
                    let asker = Asker::Change(next.current().id);
                    ctx.ballot.ask(asker, Ask::Swap { from: self.arbiter_has, next }, ctx.desk.now);
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

    // --- Steps ---

    /// A superblock block came back.
    pub(in crate::holder) fn on_superblock(
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
            self.own_leg_is_last();
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

    /// A leg was flushed before a config that counts it alone, or was not.
    pub(in crate::holder) fn on_change_flushed(
        &mut self,
        side: Side,
        attempt: u32,
        result: Result<(), IoError>,
        ctx: &mut Ctx<'_>,
    ) {
        if let Err(error) = result {
            self.unasked_flush_failed(side, error, ctx);
        }
        let is_due = |change: &&mut Change| change.steps.next() == Some(Step::Flush(side));
        let Some(change) = self.change.as_mut().filter(is_due) else { return };
        match change.flushing.ended(attempt, result) {
            Flushed::Stale => return,
            Flushed::Over => change.steps.done(),
            Flushed::Again => self.retry_change_at = Some(ctx.now() + RETRY),
        }
        change.stage = Stage::Ready;
        if let (Side::Peer, Err(error)) = (side, result) {
            self.owe_flush_error(error);
            ctx.note(EventKind::PeerFailed(error));
        }
    }

    /// What a change under way says is what `amend` makes of it, where it is not being written yet.
    pub(in crate::holder) fn amend_change(&mut self, amend: impl FnOnce(&Truth) -> Truth) {
        if let Some(change) = self.change.as_mut().filter(|change| {
            change.stage == Stage::Ready || !matches!(change.steps.next(), Some(Step::Leg(_)))
        }) {
            change.next = amend(&change.next);
        }
    }

    /// What is under way.
    pub(in crate::holder) fn change_kind(&self) -> Option<Kind> {
        self.change.as_ref().map(|change| change.kind)
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
            (Side::Own, Kind::Degrade { out: Side::Peer, .. }) if self.gives_way(error) => {
                self.suspended = self.change.take();
                self.own_leg_failed(Reason::IoError, error, ctx);
            }
            (Side::Own, _) => {
                ctx.note(EventKind::OwnSuperblockFailed(error));
                self.retry_change_at = Some(ctx.now() + RETRY);
            }
            (Side::Peer, _) => self.lose_peer(error, ctx),
        }
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
