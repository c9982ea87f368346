//! Stopping in order (R12): drain, flush both legs, save the bitmap, free the log, CLEAN on both legs.
//!
//! ```text
//! Draining --(no request, no copy)--> Flushing --> Saving --(bitmap on disk)--> Freeing --(log empty)--> Marking
//! ```
//!
//! A leg that goes away meanwhile is degraded as ever, and the rest goes on without it.

use crate::desk::Side;

use super::change::Kind;
use super::journal::FlushFor;
use super::{Ctx, Ending, Holder, Phase, Sides};

/// How far the stop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// Requests and copies come to their end.
    Draining,
    /// Every leg in sync is flushed.
    Flushing,
    /// The bitmap goes to disk.
    Saving,
    /// The log's slots are freed.
    Freeing,
    /// The superblocks say CLEAN.
    Marking,
}

impl Holder {
    /// Begins to stop. Hosts are answered "not ready" from now on.
    pub(crate) fn close(&mut self, ctx: &mut Ctx<'_>) {
        if self.phase == Phase::Serving {
            ctx.note("stopping");
            self.phase = Phase::Closing(Closing::Draining);
        } else if matches!(self.phase, Phase::Opening(_)) {
            self.phase = Phase::Leaving(Ending::Superseded);
        }
        self.settle(ctx);
    }

    pub(super) fn drive_closing(&mut self, ctx: &mut Ctx<'_>) {
        let Phase::Closing(closing) = self.phase else { return };
        if self.is_lost_member() || self.change.is_some() {
            return;
        }
        match closing {
            Closing::Draining if self.requests.is_empty() && self.resync.is_idle() => {
                self.phase = Phase::Closing(Closing::Flushing);
                self.begin_own_flush(FlushFor::Close, ctx);
            }
            // Another flush was under way, or one failed and its leg is out by now.
            Closing::Flushing if !self.journal.is_flushing() => self.begin_own_flush(FlushFor::Close, ctx),
            Closing::Saving => self.save(ctx),
            Closing::Draining | Closing::Flushing | Closing::Freeing | Closing::Marking => {}
        }
    }

    pub(super) fn on_close_flushed(&mut self, ctx: &mut Ctx<'_>) {
        if self.phase == Phase::Closing(Closing::Flushing) {
            self.phase = Phase::Closing(Closing::Saving);
            self.drive_closing(ctx);
        }
    }

    fn save(&mut self, ctx: &mut Ctx<'_>) {
        if !self.in_sync().has(Side::Own) {
            return self.mark_clean();
        }
        if self.journal.has_pages_out() || !self.bitmap.is_saved() || !ctx.desk.has_block() {
            return;
        }
        let generation = self.config().generation();
        if let Ok(transaction) = self.log.close(generation, &self.bitmap) {
            self.phase = Phase::Closing(Closing::Freeing);
            let purpose = crate::desk::Purpose::Transaction { seq: transaction.seq };
            ctx.desk.write_block(Side::Own, &transaction.write, purpose);
        }
    }

    /// The transaction that frees all slots is durable.
    pub(super) fn on_freed(&mut self, _: &mut Ctx<'_>) {
        if self.phase == Phase::Closing(Closing::Freeing) && self.change.is_none() {
            self.mark_clean();
        }
    }

    fn mark_clean(&mut self) {
        self.phase = Phase::Closing(Closing::Marking);
        let next = self.truth.clean();
        let both = self.in_sync() == Sides::all() && self.is_joined();
        let steps: &[Side] = if both { &[Side::Own, Side::Peer] } else { &[Side::Own] };
        self.begin_change(Kind::Close, next, steps);
    }
}
