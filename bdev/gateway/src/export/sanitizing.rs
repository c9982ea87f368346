//! What becomes of a unit's sanitize operation (SBC-3 section 4.11). It is kept beside the unit's data from before its first write until
//! after its last, so whoever serves the unit goes on with it, from the first block; where nothing can be kept it ends with the node.
//!
//! ```text
//! Idle --(kept as begun, and this node serves)--> Running --(over)--> Over --> Recording --(kept as failed, or not any more)--> Idle
//!                                                    '--(another node has served meanwhile)--> Idle
//! ```
//!
//! Owner: the logical unit. Other commands are refused as long as it is kept; those that were at work when it began are waited for.

use std::rc::Rc;

use bdev::IoError;
use engine::{Core, Instant, Progress};
use scsi::Sense;
use scsi::sanitization::{Sanitization, Stage};

use super::logical_unit::{Alteration, LogicalUnit};
use super::state::{Running, Turn};

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Failed,
}

/// See the module.
#[derive(Default)]
pub(super) enum Sanitizing {
    #[default]
    Idle,
    Running {
        /// The epoch in which it began.
        epoch: Option<u64>,
        at_work: Box<Running>,
    },
    Over(Outcome),
    Recording(Outcome),
}

impl LogicalUnit {
    /// Why other commands are refused.
    pub(super) fn sanitize_refusal(&self) -> Option<Sense> {
        let stage = self.kept().sanitization.as_ref()?.stage;
        match stage {
            _ if !self.is_ready() => None,
            Stage::Begun => Some(Sense::SANITIZE_IN_PROGRESS.with_progress(self.sanitize_progress())),
            Stage::Failed => Some(Sense::SANITIZE_FAILED),
        }
    }

    /// How far it is, in 65,536ths.
    pub(super) fn sanitize_progress(&self) -> u16 {
        match &*self.sanitizing.borrow() {
            Sanitizing::Idle => 0,
            Sanitizing::Running { at_work, .. } => at_work.progress(),
            Sanitizing::Over(_) | Sanitizing::Recording(_) => u16::MAX,
        }
    }

    /// True while one goes on.
    pub(super) fn is_sanitizing(&self) -> bool {
        self.kept().sanitization.as_ref().is_some_and(|kept| kept.stage == Stage::Begun)
    }

    /// When to poll next at the latest.
    pub(super) fn sanitize_deadline(&self) -> Option<Instant> {
        match &*self.sanitizing.borrow() {
            Sanitizing::Running { at_work, .. } => at_work.next_deadline(),
            _ => None,
        }
    }

    /// One turn.
    pub(super) fn poll_sanitize(self: &Rc<Self>, core: &Core, now: Instant) -> Progress {
        let kept = self.kept().sanitization.clone().filter(|kept| kept.stage == Stage::Begun);
        let kept = kept.filter(|_| self.is_ready());
        let mut sanitizing = self.sanitizing.borrow_mut();
        let (next, progress) = match (std::mem::take(&mut *sanitizing), kept) {
            (Sanitizing::Idle, None) => return Progress::Idle,
            (Sanitizing::Idle, Some(kept)) => (self.begin(kept), Progress::Busy),
            (Sanitizing::Running { epoch, mut at_work }, kept) if kept.is_none() || epoch != self.epoch() => {
                let progress = at_work.wind_up(now);
                match at_work.is_at_rest() {
                    true => (Sanitizing::Idle, Progress::Busy),
                    false => (Sanitizing::Running { epoch, at_work }, progress),
                }
            }
            (Sanitizing::Running { epoch, mut at_work }, _) => match at_work.poll(core, now) {
                Ok(Turn::More(progress)) => (Sanitizing::Running { epoch, at_work }, progress),
                Ok(Turn::End) => (Sanitizing::Over(Outcome::Done), Progress::Busy),
                // Whoever serves begins anew.
                Err(IoError::NotReady(_) | IoError::Fenced) => (Sanitizing::Idle, Progress::Busy),
                Err(_) => (Sanitizing::Over(Outcome::Failed), Progress::Busy),
            },
            (Sanitizing::Over(_), None) => (Sanitizing::Idle, Progress::Busy),
            (Sanitizing::Over(outcome), Some(kept)) => self.record(outcome, kept),
            (Sanitizing::Recording(outcome), _) if self.is_recording() => {
                (Sanitizing::Recording(outcome), Progress::Idle)
            }
            // What could not be stored is stored again.
            (Sanitizing::Recording(outcome), Some(_)) => (Sanitizing::Over(outcome), Progress::Busy),
            (Sanitizing::Recording(_), None) => (Sanitizing::Idle, Progress::Busy),
        };
        *sanitizing = next;
        progress
    }

    fn begin(self: &Rc<Self>, kept: Sanitization) -> Sanitizing {
        let running = Running::new(self, self.bdev.clone(), kept.order);
        Sanitizing::Running { epoch: self.epoch(), at_work: Box::new(running) }
    }

    fn record(&self, outcome: Outcome, kept: Sanitization) -> (Sanitizing, Progress) {
        if !self.begin_change() {
            return (Sanitizing::Over(outcome), Progress::Idle);
        }
        let next = (outcome == Outcome::Failed).then(|| kept.failed());
        self.change(None, Box::new(Alteration::Sanitization(next)));
        (Sanitizing::Recording(outcome), Progress::Busy)
    }
}
