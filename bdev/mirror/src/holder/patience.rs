//! What waits because a leg failed it: for a config without the leg, for the leg's return, or for a moment.
//!
//! ```text
//! failed --(both legs count)------------> parked until a config, or the leg, is there (R3)
//!    |----(the last leg, out of reach)--> parked until it is back, or the host has waited long enough
//!    '----(the own leg is busy)---------> asked again in a moment; busy for too long, it has failed
//! ```

use bdev::IoError;
use core::time::Duration;
use engine::{Instant, Key};

use super::request::{FlushStage, ReadStage, Work};
use super::write::WriteStage;
use super::{Ctx, Holder, Phase};
use crate::decide::{FailureVerdict, Judgement, Patience, is_passing, judge, matured, on_write_failure};
use crate::desk::Side;
use crate::setup::Setup;

/// How long to leave a busy leg alone.
const MOMENT: Duration = Duration::from_millis(10);

/// Requests that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// For a config, or for a leg.
    parked: Vec<Key>,
    /// For a moment, to be sent to that leg again.
    again: Vec<(Instant, Key, Side)>,
}

impl Waiting {
    pub(super) fn clear(&mut self) {
        self.parked.clear();
        self.again.clear();
    }
}

impl Holder {
    /// How long the request may still wait, from its first failure on.
    pub(super) fn patience(&mut self, key: Key, ctx: &Ctx<'_>) -> Patience {
        let now = ctx.now();
        let Some(request) = self.requests.get_mut(key) else { return Patience::Over };
        let first = *request.failing_since.get_or_insert(now);
        Patience::since(first, ctx.setup.timing.stall, now)
    }

    /// What failed is done, or begins anew.
    pub(super) fn has_progress(&mut self, key: Key) {
        if let Some(request) = self.requests.get_mut(key) {
            request.failing_since = None;
        }
    }

    fn set_parked(&mut self, key: Key) {
        match self.requests.get_mut(key).map(|request| &mut request.work) {
            Some(Work::Write(write)) => write.go(WriteStage::Parked),
            Some(Work::Flush(flush)) => flush.stage = FlushStage::Parked,
            Some(Work::Read(read)) => read.stage = ReadStage::Parked,
            Some(Work::Status(..)) | None => {}
        }
    }

    /// Waits for a config or a leg.
    pub(super) fn park(&mut self, key: Key) {
        self.set_parked(key);
        self.waiting.parked.push(key);
    }

    /// Waits until a busy leg may be asked again.
    pub(super) fn park_for_a_moment(&mut self, key: Key, side: Side, ctx: &Ctx<'_>) {
        self.set_parked(key);
        self.waiting.again.push((ctx.now() + MOMENT, key, side));
    }

    /// Asks busy legs again, and ends what has waited too long for the last leg.
    pub(super) fn drive_patience(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now();
        let due: Vec<_> = self.waiting.again.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, key, side) in due {
            self.send_again(key, side, ctx);
        }
        if self.is_both() {
            return;
        }
        for key in core::mem::take(&mut self.waiting.parked) {
            if self.patience(key, ctx) == Patience::Over {
                self.judge_again(key, ctx);
            } else {
                self.waiting.parked.push(key);
            }
        }
    }

    /// When a request has waited long enough.
    pub(super) fn patience_deadline(&self, setup: &Setup) -> Option<Instant> {
        let again = self.waiting.again.iter().map(|(at, ..)| *at).min();
        let ends = |key: &Key| Some(self.requests.get(*key)?.failing_since? + setup.timing.stall);
        let over = self.waiting.parked.iter().filter(|_| !self.is_both()).filter_map(ends).min();
        let uncached = self.uncached.iter().filter(|_| self.change.is_none()).filter_map(ends).min();
        Instant::earliest(again, Instant::earliest(over, uncached))
    }

    /// What a failed write or flush of a leg means now, and sets that in motion. A failure on an older way to the
    /// peer's leg says nothing about the one that is there now.
    pub(super) fn judge(
        &mut self,
        side: Side,
        error: IoError,
        attempt: u32,
        patience: Patience,
        ctx: &mut Ctx<'_>,
    ) -> Judgement {
        if matches!(self.phase, Phase::Leaving(_)) {
            return Judgement::Report;
        }
        if side == Side::Own || attempt == self.attempt {
            self.react(side, matured(self.who, self.leg(side), error, patience), ctx);
        }
        judge(self.arbiter, &self.binding(side), self.who, self.leg(side), error, patience)
    }

    /// The leg failed; the last one in sync stays what it is, though the way to it may have to be made anew.
    fn react(&mut self, side: Side, error: IoError, ctx: &mut Ctx<'_>) {
        match on_write_failure(self.arbiter, &self.binding(side), self.leg(side), error) {
            FailureVerdict::Report if side == Side::Own || !is_passing(error) => {}
            // Not the leg's fault, and it is asked again.
            FailureVerdict::Retry if side == Side::Own => {}
            _ => self.leg_failed(side, error, ctx),
        }
    }

    /// A config was made, or a leg came back: what is parked is judged again, or sent again to a leg that is
    /// there and still counts.
    pub(super) fn unpark(&mut self, ctx: &mut Ctx<'_>) {
        for key in core::mem::take(&mut self.waiting.parked) {
            let failed = match self.requests.get(key).map(|request| &request.work) {
                Some(Work::Write(write)) => write.failed,
                Some(Work::Flush(flush)) => flush.failed,
                Some(Work::Read(_)) => [None; 2],
                Some(Work::Status(..)) | None => continue,
            };
            let again = |side: Side| failed[side as usize].is_some() && self.takes_again(side);
            let again: Vec<Side> = Side::BOTH.into_iter().filter(|&side| again(side)).collect();
            if again.is_empty() {
                self.judge_again(key, ctx);
            }
            for side in again {
                self.send_again(key, side, ctx);
            }
        }
    }

    fn judge_again(&mut self, key: Key, ctx: &mut Ctx<'_>) {
        match self.requests.get(key).map(|request| &request.work) {
            Some(Work::Write(_)) => self.judge_write(key, ctx),
            Some(Work::Flush(_)) => self.judge_flush(key, ctx),
            Some(Work::Read(_)) => self.route_read(key, ctx),
            Some(Work::Status(..)) | None => {}
        }
    }

    pub(super) fn send_again(&mut self, key: Key, side: Side, ctx: &mut Ctx<'_>) {
        match self.requests.get_mut(key).map(|request| &mut request.work) {
            Some(Work::Write(write)) => {
                write.go(WriteStage::Flying);
                self.send_to(key, side, ctx);
            }
            Some(Work::Flush(_)) => self.flush_leg(key, side, ctx),
            Some(Work::Read(_)) => self.route_read(key, ctx),
            Some(Work::Status(..)) | None => {}
        }
    }

    /// The peer's leg failed us on an older way, and is in sync again on a new one.
    pub(super) fn is_back(&self, side: Side, attempt: u32) -> bool {
        side == Side::Peer && attempt != self.attempt && self.takes_again(side)
    }

    /// Whether a leg that counts can be asked again: it is there.
    fn takes_again(&self, side: Side) -> bool {
        self.in_sync().has(side) && (side == Side::Own || self.is_joined())
    }
}
