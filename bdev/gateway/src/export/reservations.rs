//! Changes of reservations, as far as they reach beyond the session that made them: unit attentions for other nexuses, aborts
//! of their commands, and what goes with a nexus.

use std::collections::BTreeSet;
use std::rc::Rc;

use engine::Instant;
use iscsi::TaskId;
use scsi::Sense;
use scsi::reservation::Nexus;

use super::Target;
use super::logical_unit::LogicalUnit;

/// A change that has been put in force by a session.
pub(super) struct Announcement {
    pub(super) task: TaskId,
    pub(super) unit: Rc<LogicalUnit>,
    pub(super) attentions: Vec<(Nexus, Sense)>,
    pub(super) aborted: BTreeSet<Nexus>,
}

/// A PREEMPT AND ABORT that waits for the commands that it aborts.
pub(super) struct Preemption {
    by: u64,
    task: TaskId,
    unit: Rc<LogicalUnit>,
    aborted: BTreeSet<Nexus>,
}

impl Target {
    pub(super) fn on_announcement(&mut self, by: u64, announcement: Announcement, now: Instant) {
        let Announcement { task, unit, attentions, aborted } = announcement;
        for entry in self.sessions.values_mut() {
            let Some(nexus) = entry.session.nexus.clone() else { continue };
            for (_, sense) in attentions.iter().filter(|(told, _)| *told == *nexus) {
                entry.session.establish(&unit, *sense);
            }
            if aborted.contains(&*nexus) {
                entry.session.abort_all(&unit, now);
            }
        }
        if !aborted.is_empty() {
            self.preemptions.push(Preemption { by, task, unit, aborted });
        }
    }

    pub(super) fn finish_preemptions(&mut self, now: Instant) {
        let sessions = &mut self.sessions;
        self.preemptions.retain(|preemption| {
            let at_work = sessions.values().any(|entry| {
                let session = &entry.session;
                let named = session.nexus.as_ref().is_some_and(|nexus| preemption.aborted.contains(&**nexus));
                named && session.is_aborting(&preemption.unit)
            });
            if !at_work && let Some(entry) = sessions.get_mut(&preemption.by) {
                entry.session.finish_reserve_out(preemption.task, now);
            }
            at_work
        });
    }

    /// The older reservations of nexuses that are no more go with them.
    pub(super) fn release_lost(&self) {
        for entry in self.sessions.values().filter(|entry| entry.session.is_over()) {
            let (Some(nexus), Some(node)) = (&entry.session.nexus, &entry.session.node) else { continue };
            for lun in node.luns.borrow().values() {
                lun.unit.change_older(|table| table.forget_older(nexus));
            }
        }
    }
}
