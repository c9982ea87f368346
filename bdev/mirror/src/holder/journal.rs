//! Keeps the intent log and the bitmap on the own leg: transactions, pages, and the flushes that let extents
//! leave (R1, R4, R6).

use bdev::IoError;
use core::time::Duration;
use engine::Instant;

use super::stop::Closing;
use super::{Ctx, Holder, Phase, Sides};
use crate::bitmap::Urgency;
use crate::decide::{FailureVerdict, Judgement, Patience, matured, on_write_failure};
use crate::desk::{Purpose, Side};
use crate::intent_log::FlushTicket;

/// Bitmap pages on their way at a time.
const PAGES_MAX: u32 = 8;
/// How often cleared bits are written down while a resync runs: its checkpoint.
const CHECKPOINT: Duration = Duration::from_millis(500);
/// How long to wait after a failed write of the journal.
const RETRY: Duration = Duration::from_millis(50);

/// Why the holder flushes on its own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlushFor {
    /// Extents wait for it.
    Log,
    /// A leg is about to be counted in sync.
    Rejoin,
    /// The array stops.
    Close,
}

#[derive(Debug)]
struct OwnFlush {
    ticket: FlushTicket,
    purpose: FlushFor,
    waiting: Sides,
    failed: [Option<IoError>; 2],
    /// The way to the peer's leg that it took.
    attempt: u32,
}

/// What is on its way.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pages: u32,
    flush: Option<OwnFlush>,
    checkpoint_at: Instant,
    /// After a failure: when to try again, and since when nothing succeeded.
    not_before: Option<Instant>,
    failing_since: Option<Instant>,
    /// The same for flushes of the last leg in sync alone.
    unflushed_since: Option<Instant>,
}

impl Journal {
    pub(super) fn is_flushing(&self) -> bool {
        self.flush.is_some()
    }

    pub(super) fn has_pages_out(&self) -> bool {
        self.pages != 0
    }

    /// Every leg in sync has flushed.
    pub(super) fn has_flushed(&mut self) {
        self.unflushed_since = None;
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.not_before
    }
}

impl Holder {
    pub(super) fn drive_journal(&mut self, ctx: &mut Ctx<'_>) {
        let ended = matches!(self.phase, Phase::Leaving(_) | Phase::Ended(_));
        if ended || !self.has_journal() || self.journal.not_before.is_some_and(|at| ctx.now() < at) {
            return;
        }
        self.journal.not_before = None;
        self.drive_admissions(ctx);
        self.send_pages(ctx);
        self.send_transaction(ctx);
        let relief = self.log.relief(&self.bitmap);
        if relief.want_flush != 0 {
            self.begin_own_flush(FlushFor::Log, ctx);
        }
    }

    fn generation(&self) -> u64 {
        self.config().generation()
    }

    fn send_transaction(&mut self, ctx: &mut Ctx<'_>) {
        if !ctx.desk.has_block() {
            return;
        }
        if let Some(transaction) = self.log.next_transaction(self.generation(), &self.bitmap) {
            ctx.desk.write_block(
                Side::Own,
                &transaction.write,
                Purpose::Transaction { seq: transaction.seq },
            );
        }
    }

    pub(super) fn on_transaction(&mut self, seq: u64, result: Result<(), IoError>, ctx: &mut Ctx<'_>) {
        match result {
            Ok(()) => {
                self.journal.failing_since = None;
                self.log.on_durable(seq);
                self.drive_logged(ctx);
            }
            Err(error) => {
                self.log.on_failed();
                self.journal_failed(error, ctx);
            }
        }
    }

    /// Something failed: again in a while, and not for ever.
    fn journal_patience(&mut self, ctx: &Ctx<'_>) -> Patience {
        let now = ctx.now();
        self.journal.not_before = Some(now + RETRY);
        let first = *self.journal.failing_since.get_or_insert(now);
        Patience::since(first, ctx.setup.timing.stall, now)
    }

    /// The own leg does not take its journal: out with it if the peer's is in sync, else the hosts are told.
    fn journal_failed(&mut self, error: IoError, ctx: &mut Ctx<'_>) {
        let patience = self.journal_patience(ctx);
        let error = matured(self.who, self.who, error, patience);
        match on_write_failure(self.arbiter, &self.binding(Side::Own), self.who, error) {
            FailureVerdict::Report => self.fail_unlogged(error, ctx),
            FailureVerdict::Retry => {}
            _ => self.leg_failed(Side::Own, error, ctx),
        }
    }

    /// Marks first; cleared bits now and then.
    fn send_pages(&mut self, ctx: &mut Ctx<'_>) {
        let closing = matches!(self.phase, Phase::Closing(Closing::Saving));
        let due = self.resync.is_at_work() && ctx.now() >= self.journal.checkpoint_at;
        let urgency = if due || closing { Urgency::Everything } else { Urgency::Marks };
        if !self.wants_pages() && urgency == Urgency::Marks {
            return;
        }
        if due {
            self.journal.checkpoint_at = ctx.now() + CHECKPOINT;
        }
        while self.journal.pages < PAGES_MAX && ctx.desk.has_block() {
            let Some(page) = self.bitmap.next_page(urgency, self.generation()) else { return };
            ctx.desk.write_block(Side::Own, &page.write, Purpose::Page { page: page.page });
            self.journal.pages += 1;
        }
    }

    /// Whether somebody waits for marks on disk.
    fn wants_pages(&self) -> bool {
        self.log.relief(&self.bitmap).want_marks != 0
            || self.membership_waits_for_marks()
            || matches!(self.phase, Phase::Closing(_))
    }

    pub(super) fn on_page(&mut self, page: u32, result: Result<(), IoError>, ctx: &mut Ctx<'_>) {
        self.journal.pages -= 1;
        match result {
            Ok(()) => {
                self.journal.failing_since = None;
                self.bitmap.on_durable(page);
            }
            Err(error) => {
                self.bitmap.on_failed(page);
                self.journal_failed(error, ctx);
            }
        }
    }

    // --- Flushes of the holder's own ---

    /// Flushes every leg that writes go to, unless that is under way.
    pub(super) fn begin_own_flush(&mut self, purpose: FlushFor, ctx: &mut Ctx<'_>) {
        if self.journal.flush.is_some() {
            return;
        }
        let sides = if purpose == FlushFor::Rejoin { Sides::all() } else { self.flushed_sides() };
        if sides.has(Side::Peer) && !self.is_peer_ours() {
            return;
        }
        let ticket = self.log.begin_flush();
        self.journal.flush =
            Some(OwnFlush { ticket, purpose, waiting: sides, failed: [None; 2], attempt: self.attempt });
        for side in Side::BOTH {
            if sides.has(side) {
                ctx.desk.flush(side, Purpose::Flush);
            }
        }
    }

    pub(super) fn on_flushed(&mut self, side: Side, result: Result<(), IoError>, ctx: &mut Ctx<'_>) {
        let Some(flush) = &mut self.journal.flush else { return };
        flush.waiting -= Sides::only(side);
        flush.failed[side as usize] = result.err();
        let answered = flush.waiting.is_empty();
        if let Err(error) = result {
            self.unasked_flush_failed(side, error, ctx);
        }
        if !answered {
            return;
        }
        let Some(OwnFlush { ticket, purpose, failed, attempt, .. }) = self.journal.flush.take() else {
            return;
        };
        if failed != [None; 2] {
            return self.own_flush_failed(failed, attempt, ctx);
        }
        if self.own_lost.is_some() {
            self.journal.not_before = Some(ctx.now() + RETRY);
            return;
        }
        self.flushed(ticket);
        match purpose {
            FlushFor::Log => {}
            FlushFor::Rejoin => self.on_rejoin_flushed(ctx),
            FlushFor::Close => self.on_close_flushed(ctx),
        }
    }

    /// Without a flush no extent leaves the log: where that is full, and the leg is the last one, writes wait for it no longer
    /// than they may.
    fn own_flush_failed(&mut self, failed: [Option<IoError>; 2], attempt: u32, ctx: &mut Ctx<'_>) {
        let now = ctx.now();
        self.journal.not_before = Some(now + RETRY);
        let first = self.journal.unflushed_since.unwrap_or(now);
        let patience = Patience::since(first, ctx.setup.timing.stall, now);
        for side in Side::BOTH {
            let Some(error) = failed[side as usize] else { continue };
            let judgement = self.judge(side, error, attempt, patience, ctx);
            if self.in_sync() == Sides::only(side) {
                self.journal.unflushed_since = Some(first);
            }
            if judgement == Judgement::Report && patience == Patience::Over {
                self.fail_unadmitted(error, ctx);
            }
        }
    }
}
