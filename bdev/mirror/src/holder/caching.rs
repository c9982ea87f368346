//! Before the first write is acknowledged that may be in the legs' caches alone, every superblock says so: a node that
//! loses its cache knows then whether its leg may miss acknowledged data, and does not go on with it unasked. An array
//! whose hosts write durably never says it, and starts again from either leg.
//!
//! ```text
//! Running --(the first write that need not be durable: it waits)--> every leg in sync says Cached --> it goes on
//! ```
//!
//! A clean stop flushes, and ends it (R12).
//!
//! A write that two caches hold is lost only if both lose power. A config that leaves the peer's leg out would make one copy
//! of the two, and the next power cut, of this node alone, the end of it; one that leaves the own leg out does the same to the
//! peer's. So the leg that stays is flushed before anybody can hear of such a config: what was acknowledged by two legs outlives
//! either, and what one leg alone acknowledges from then on is in one cache until hosts flush it, as with any disk. The flush
//! begins once that leg has answered everything that it may cache, and until the config is there its writes are durable: the
//! peer may be back while the arbiter is asked, and what both acknowledge then has no other flush.

use bdev::{Durability, IoError};
use engine::Key;

use super::change::{Change, Kind};
use super::request::{Request, Work};
use super::{Ctx, Holder, Phase, Truth};
use crate::decide::{Able, FailureVerdict, LastCopy, Patience, on_write_failure};
use crate::desk::{Purpose, Side};
use crate::format::{LegMask, RunState};
use crate::mutation::{Mutation, is_broken};

/// The flush that a change begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flushing {
    /// The one on its way.
    attempt: u32,
    /// How many have failed.
    failed: u32,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// It was another one.
    Stale,
    /// The change goes on: the cache is empty, or cannot be emptied, and the leg is the last one all the same.
    Over,
    /// It is tried again.
    Again,
}

/// How often a flush that fails is tried: for about a second.
const TRIES: u32 = 10;

impl Flushing {
    pub(super) fn begin(&mut self, side: Side, ctx: &mut Ctx<'_>) {
        self.attempt = ctx.desk.new_attempt();
        ctx.desk.flush(side, Purpose::ChangeFlush { attempt: self.attempt });
    }

    pub(super) fn ended(&mut self, attempt: u32, result: Result<(), IoError>) -> Flushed {
        if attempt != self.attempt {
            return Flushed::Stale;
        }
        self.failed += u32::from(result.is_err());
        if result.is_ok() || self.failed >= TRIES { Flushed::Over } else { Flushed::Again }
    }
}

impl Holder {
    /// Whether a config makes a leg the only one with what both have acknowledged, perhaps in its cache.
    pub(super) fn last_copy(&self, next: &Truth) -> LastCopy {
        let was_both = self.config().in_sync == LegMask::both();
        let cached = self.truth.run_state == RunState::Cached;
        let alone = |side: &Side| next.config().in_sync == LegMask::only(self.leg(*side));
        // A peer's leg that is not a member yet is told, and flushed, when it becomes one.
        let there = |side: &Side| *side == Side::Own || self.is_joined();
        match Side::BOTH.into_iter().find(alone).filter(there) {
            Some(side) if was_both && cached && !is_broken(Mutation::LastCopyUnflushed) => {
                LastCopy::Cached(side)
            }
            _ => LastCopy::No,
        }
    }

    /// How a leg is asked for a write that its host wants like this.
    pub(super) fn on_leg_durability(&self, side: Side, wanted: Durability) -> Durability {
        let is_last = |change: &Change| self.last_copy(change.next()) == LastCopy::Cached(side);
        if self.change.as_ref().is_some_and(is_last) { Durability::Durable } else { wanted }
    }

    /// Begins the flush, unless the leg still has a write that it may put into its cache behind it: a host's, or what was given
    /// up on a disk that hangs.
    pub(super) fn begin_change_flush(&mut self, side: Side, ctx: &mut Ctx<'_>) {
        if side == Side::Peer && !self.is_peer_ours() {
            return self.abandon_peer_step(ctx);
        }
        let is_cached =
            |request: &Request| matches!(&request.work, Work::Write(write) if write.may_reach_cache(side));
        let unsettled = side == Side::Own && ctx.desk.is_own_unsettled();
        if unsettled || self.requests.iter().any(|(_, request)| is_cached(request)) {
            return;
        }
        if let Some(change) = &mut self.change {
            change.flush(side, ctx);
        }
    }

    fn may_cache(&self) -> bool {
        self.truth.run_state == RunState::Cached && self.change_kind() != Some(Kind::Cache)
    }

    /// True when this write may not be sent yet.
    pub(super) fn waits_for_caching(&mut self, key: Key) -> bool {
        let caches = self.write_mut(key).is_some_and(|write| write.durability == Durability::Accepted);
        caches && !self.may_cache()
    }

    /// Tells the superblocks, and lets those go that wait for it.
    pub(super) fn drive_caching(&mut self, ctx: &mut Ctx<'_>) {
        if self.uncached.is_empty() {
            return;
        }
        if self.may_cache() {
            for key in core::mem::take(&mut self.uncached) {
                self.has_progress(key);
                self.admit(key, ctx);
            }
            return;
        }
        let ended = matches!(self.phase, Phase::Leaving(_) | Phase::Ended(_));
        if ended || self.change_kind().is_some() {
            return;
        }
        let takes = |side| match side {
            Side::Own => self.has_journal(),
            Side::Peer => self.is_peer_ours(),
        };
        let able = match Side::BOTH.map(takes) {
            [true, true] => Able::Both,
            [true, false] => Able::Only(Side::Own),
            [false, true] => Able::Only(Side::Peer),
            [false, false] => return self.fail_uncached_in_time(ctx),
        };
        self.begin_change(Kind::Cache, self.truth.cached(), able);
        self.drive_change(ctx);
    }

    /// Nobody can be told: who has waited for as long as hosts may be kept waiting hears of it.
    fn fail_uncached_in_time(&mut self, ctx: &mut Ctx<'_>) {
        for key in core::mem::take(&mut self.uncached) {
            match self.patience(key, ctx) {
                Patience::Left => self.uncached.push(key),
                Patience::Over => self.reply(key, Err(IoError::LinkDown), ctx),
            }
        }
    }

    /// The own superblock does not take it: a leg that fails like any other.
    pub(super) fn caching_failed(&mut self, error: IoError, ctx: &mut Ctx<'_>) {
        match on_write_failure(self.arbiter, &self.binding(Side::Own), self.who, error) {
            FailureVerdict::Report => {
                for key in core::mem::take(&mut self.uncached) {
                    let error = self.in_blocks(key, error);
                    self.reply(key, Err(error), ctx);
                }
            }
            FailureVerdict::Retry => {}
            _ => self.leg_failed(Side::Own, error, ctx),
        }
    }
}
