//! Resets that reach across sessions (SAM-5 sections 6.3 and 7): whose commands end, who is told, and when it is answered.

use std::rc::Rc;

use engine::Instant;
use iscsi::TaskId;
use iscsi::target::TaskResponse;
use scsi::Sense;
use scsi::mode::TaskAborted;

use super::Target;
use super::logical_unit::LogicalUnit;
use super::node::Node;
use super::session::Aborter;

/// What a management function resets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResetKind {
    /// CLEAR TASK SET: every nexus's commands at the unit, and nothing else.
    ClearTaskSet,
    /// LOGICAL UNIT RESET.
    LogicalUnit,
    /// TARGET WARM RESET: every unit that the initiator sees.
    WarmTarget,
    /// TARGET COLD RESET: as warm, and every session ends.
    ColdTarget,
}

impl ResetKind {
    /// What a nexus is told; only one whose commands were aborted is told of a cleared task set, and where their status says
    /// so none is.
    fn attention(self, issuer: Aborter, aborted: usize, told: TaskAborted) -> Option<Sense> {
        match self {
            Self::ClearTaskSet
                if issuer == Aborter::Another && aborted > 0 && told == TaskAborted::Attention =>
            {
                Some(Sense::COMMANDS_CLEARED)
            }
            Self::ClearTaskSet => None,
            Self::LogicalUnit => Some(Sense::LUN_RESET),
            Self::WarmTarget | Self::ColdTarget => Some(Sense::TARGET_RESET),
        }
    }
}

/// A reset that waits for the tasks that it ends.
pub(super) struct Reset {
    by: u64,
    request: TaskId,
    units: Vec<Rc<LogicalUnit>>,
}

/// Seconds before an initiator should log in again after a cold reset.
const COLD_RESET_WAIT: u16 = 1;

impl Target {
    pub(super) fn on_reset(
        &mut self,
        by: u64,
        request: TaskId,
        units: Vec<Rc<LogicalUnit>>,
        kind: ResetKind,
        now: Instant,
    ) {
        for unit in &units {
            let told = unit.settings().task_aborted;
            for (id, entry) in &mut self.sessions {
                let issuer = if *id == by { Aborter::Itself } else { Aborter::Another };
                let aborted = entry.session.abort_all(unit, issuer, now).len();
                if let Some(sense) = kind.attention(issuer, aborted, told) {
                    entry.session.establish(unit, sense);
                }
            }
            if kind != ResetKind::ClearTaskSet {
                self.sessions.values_mut().for_each(|entry| entry.session.end_copies(unit));
                unit.reset();
                unit.forget_all();
            }
        }
        self.resets.push(Reset { by, request, units });
    }

    pub(super) fn finish_resets(&mut self) {
        let sessions = &mut self.sessions;
        let at_work = |reset: &Reset| {
            let aborting = |unit| sessions.values().any(|entry| entry.session.is_aborting(unit));
            reset.units.iter().any(aborting)
        };
        let ended: Vec<Reset> = self.resets.extract_if(.., |reset| !at_work(reset)).collect();
        for Reset { by, request, .. } in ended {
            if let Some(entry) = self.sessions.get_mut(&by) {
                entry.session.end_reset(request, TaskResponse::Complete);
            }
        }
    }

    //= rfc7143#section-11.5.1: a cold reset ends every session of the target.
    pub(super) fn on_cold_reset(&mut self, by: u64) {
        if let Some(node) = self.sessions.get(&by).and_then(|entry| entry.session.node.clone()) {
            self.dismiss_sessions(&node, COLD_RESET_WAIT, "the target was reset");
        }
    }

    /// Ends every session of a node behind what it was answered.
    pub(super) fn dismiss_sessions(&mut self, node: &Rc<Node>, seconds: u16, why: &'static str) {
        for entry in self.sessions.values_mut() {
            if entry.session.node.as_ref().is_some_and(|of| Rc::ptr_eq(of, node)) {
                entry.session.dismiss(seconds, why);
            }
        }
    }
}
