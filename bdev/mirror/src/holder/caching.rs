//! Before the first write is acknowledged that may be in the legs' caches alone, every superblock says so: a node that
//! loses its cache knows then whether its leg may miss acknowledged data, and does not go on with it unasked. An array
//! whose hosts write durably never says it, and starts again from either leg.
//!
//! ```text
//! Running --(the first write that need not be durable: it waits)--> every leg in sync says Cached --> it goes on
//! ```
//!
//! A clean stop flushes, and ends it (R12).

use bdev::{Durability, IoError};
use engine::Key;

use super::change::Kind;
use super::{Ctx, Holder, Phase};
use crate::decide::{FailureVerdict, on_write_failure};
use crate::desk::Side;
use crate::format::RunState;

impl Holder {
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
        let steps: Vec<Side> = Side::BOTH.into_iter().filter(|&side| takes(side)).collect();
        if !steps.is_empty() {
            self.begin_change(Kind::Cache, self.truth.cached(), &steps);
            self.drive_change(ctx);
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
