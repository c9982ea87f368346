//! Commands whose data do not come while another session's commands wait for them in the unit's task set.
//!
//! A task set is the unit's, of all nexuses, and a command is in it before its data are there. One that is ORDERED or HEAD OF QUEUE,
//! or before an ORDERED one, holds up whoever comes, and its host may have died, or be busy with other commands. As with room (`turns.rs`), a host that sends none of
//! what it was asked for in [`STALL`](super::turns::STALL) while others wait is not asked any more: its command ends with BUSY behind
//! what it still owes, and is out of the task set at once. So does one whose data have not all come in [`HELD_UP_MAX`].

use core::time::Duration;

use engine::{Instant, Progress};
use iscsi::TaskId;

use super::super::state::NexusId;
use super::Session;
use super::jobs::{Job, Stage};
use super::turns::LOOK;

/// How long a command whose data are on their way may hold others up: less than hosts wait for an answer.
const HELD_UP_MAX: Duration = Duration::from_secs(20);

impl Job {
    /// True while its data are awaited and another session's command may wait for it.
    fn withholds(&self, own: NexusId) -> bool {
        let passed = || self.passage.as_ref().and_then(|passage| passage.standing());
        matches!(self.stage, Stage::Collecting(_))
            && self.standing.as_ref().or_else(passed).is_some_and(|standing| standing.holds_up_others(own))
    }
}

impl Session {
    /// Ends the commands whose data have not come for too long.
    pub(super) fn watch_withheld(&mut self, now: Instant) -> Progress {
        if now < self.withheld_looked_at + LOOK {
            return Progress::Idle;
        }
        self.withheld_looked_at = now;
        let (id, arrived, links) = (self.id, self.jobs.arrived, &self.links);
        let withheld = self.jobs.open.iter_mut().filter(|(_, job)| job.withholds(id));
        let stalled = withheld.filter_map(|(task, job)| {
            let taken = links.taken_by_owner(*task);
            let late = now >= job.asked_at + HELD_UP_MAX;
            (late || job.pace.brings_nothing(arrived, taken, now)).then_some(*task)
        });
        let stalled: Vec<TaskId> = stalled.collect();
        for task in &stalled {
            self.give_up(*task);
        }
        Progress::from_count(stalled.len())
    }

    /// When to look next: never, while nobody else waits.
    pub(super) fn withheld_deadline(&self) -> Option<Instant> {
        let waits = !self.is_over() && self.jobs.open.values().any(|job| job.withholds(self.id));
        waits.then(|| self.withheld_looked_at + LOOK)
    }
}
