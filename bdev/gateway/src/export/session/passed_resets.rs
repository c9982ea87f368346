//! Resets of units that the other node serves: passed on to it, and answered when it has carried them out.
//!
//! ```text
//! Waiting --(the relay is up)--> Passed --(answered)--> gone
//!    ^                             |
//!    '------(the way is lost)------'      Waiting --(this node serves)--> carried out here
//!                                         Waiting --(too long, or nobody can be asked)--> rejected
//! ```
//!
//! Never answered "complete" when nobody has done it: an initiator that is refused goes on to the next rung of its ladder.

use std::rc::Rc;

use engine::Instant;
use iscsi::TaskId;
use iscsi::target::TaskResponse;

use super::super::node::{Node, Place};
use super::super::relay::{Ends, Relay};
use super::super::resets::ResetKind;
use super::paths::{HELD_MAX, PAUSE, Route};
use super::{Request, Session};

/// Codes of the functions that are passed on (RFC 7143 section 11.5.1, RFC 7144 section 6.3).
const CLEAR_TASK_SET: u8 = 4;
const LOGICAL_UNIT_RESET: u8 = 5;

/// How far a reset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// For a way to the node that serves.
    Waiting,
    /// That node is at it.
    Passed,
}

/// A reset of one unit.
pub(super) struct PassedReset {
    request: TaskId,
    number: u16,
    kind: ResetKind,
    since: Instant,
    stage: Stage,
    look_at: Instant,
}

impl Session {
    /// Whether a reset of a LUN is not to be carried out here, or not yet.
    pub(super) fn is_reset_elsewhere(&self, number: u16, now: Instant) -> bool {
        self.lun(number).is_some_and(|lun| !matches!(self.route(&lun, now, now), Route::Here))
    }

    /// Takes a reset of a LUN that is not to be carried out here, or not yet; false when it is.
    pub(super) fn pass_reset(&mut self, request: TaskId, number: u16, kind: ResetKind, now: Instant) -> bool {
        if !self.is_reset_elsewhere(number, now) {
            return false;
        }
        // What came before it and has not left yet never will.
        let at = |place: &Place| place.number == number;
        let open = self.jobs.open.iter();
        let tasks: Vec<TaskId> = open
            .filter(|(_, job)| !job.in_flight && job.place.as_ref().is_some_and(at))
            .map(|(task, _)| *task)
            .collect();
        for task in tasks {
            self.forget(task, now);
        }
        let reset = PassedReset { request, number, kind, since: now, stage: Stage::Waiting, look_at: now };
        let kept = self.move_reset(reset, now);
        self.passed_resets.extend(kept);
        true
    }

    /// Looks again at resets that wait.
    pub(super) fn move_resets(&mut self, now: Instant) {
        if self.passed_resets.is_empty() {
            return;
        }
        let all = std::mem::take(&mut self.passed_resets);
        let kept = all.into_iter().filter_map(|reset| self.move_reset(reset, now)).collect();
        self.passed_resets = kept;
    }

    /// Gives back one that is not over.
    fn move_reset(&mut self, reset: PassedReset, now: Instant) -> Option<PassedReset> {
        let PassedReset { request, number, kind, since, stage, .. } = reset;
        let look_at = now + PAUSE;
        if stage == Stage::Passed {
            return Some(reset);
        }
        let Some(lun) = self.lun(number) else {
            self.end_reset(request, TaskResponse::NoLun);
            return None;
        };
        match self.route(&lun, since, now) {
            Route::Here => {
                self.asks.push(Request::Reset { request, units: vec![lun.unit.clone()], kind });
                None
            }
            Route::Refuse(_) => self.reject_reset(request),
            Route::Hold | Route::Peer if now >= since + HELD_MAX => self.reject_reset(request),
            Route::Hold => Some(PassedReset { look_at, ..reset }),
            Route::Peer => {
                let passed = self.send_reset(request, number, kind, now);
                if passed {
                    self.forget_passed(number, now);
                }
                let stage = if passed { Stage::Passed } else { Stage::Waiting };
                Some(PassedReset { stage, look_at, ..reset })
            }
        }
    }

    fn reject_reset(&mut self, request: TaskId) -> Option<PassedReset> {
        self.end_reset(request, TaskResponse::Rejected);
        None
    }

    fn send_reset(&mut self, request: TaskId, number: u16, kind: ResetKind, now: Instant) -> bool {
        let function = if kind == ResetKind::ClearTaskSet { CLEAR_TASK_SET } else { LOGICAL_UNIT_RESET };
        let Some(relay) = self.wanted_relay(now) else { return false };
        relay.manage(request, function, Ends::AtLun(scsi::lun::encode(number)))
    }

    /// The relay, which is made and dialled if need be.
    pub(super) fn wanted_relay(&mut self, now: Instant) -> Option<&mut Relay> {
        let (nexus, node): (_, &Rc<Node>) = (self.nexus.as_ref()?, self.node.as_ref()?);
        let relay = self.relay.get_or_insert_with(|| Relay::new((**nexus).clone(), node.name()));
        if relay.wants_stream(now) {
            self.asks.push(Request::Dial);
        }
        Some(relay)
    }

    /// The peer ends what this nexus has under way there.
    fn forget_passed(&mut self, number: u16, now: Instant) {
        let at = |place: &Place| place.number == number;
        let open = self.jobs.open.iter();
        let tasks: Vec<TaskId> = open
            .filter(|(_, job)| job.in_flight && job.place.as_ref().is_some_and(at))
            .map(|(task, _)| *task)
            .collect();
        for task in tasks {
            self.forget(task, now);
        }
    }

    /// A reset that was passed on has been answered.
    pub(super) fn on_managed(&mut self, request: TaskId, lun: u64, code: u8) {
        let is_it = |reset: &PassedReset| {
            (reset.request, scsi::lun::encode(reset.number), reset.stage) == (request, lun, Stage::Passed)
        };
        let Some(at) = self.passed_resets.iter().position(is_it) else { return };
        self.passed_resets.remove(at);
        let response = if code == 0 { TaskResponse::Complete } else { TaskResponse::Rejected };
        self.end_reset(request, response);
    }

    /// Nobody knows whether resets that were passed on have been carried out: they are passed on again.
    pub(super) fn on_resets_lost(&mut self) {
        for reset in &mut self.passed_resets {
            reset.stage = Stage::Waiting;
        }
    }

    /// When a reset that waits has to be looked at again.
    pub(super) fn resets_deadline(&self) -> Option<Instant> {
        let waiting = self.passed_resets.iter().filter(|reset| reset.stage == Stage::Waiting);
        waiting.map(|reset| reset.look_at).min()
    }
}
