//! Commands that wait in their unit's task set (SAM-5 section 8): nothing of them is looked at before they may be carried out, neither
//! unit attentions nor reservations, and no buffer is taken for their data. What comes unasked is parked, within the session's
//! bounds; a command whose data would not fit there is answered TASK SET FULL.

use engine::Instant;
use iscsi::{TaskId, target};
use scsi::task_set::Attribute;

use super::super::node::Place;
use super::super::state::{Dormant, Standing};
use super::Session;
use super::jobs::{Job, Stage};
use crate::wire::Buffers;

/// A command as it came.
pub(super) struct Arrival {
    pub(super) command: target::Command,
    /// Absent for commands that wait for nobody.
    pub(super) standing: Option<Standing>,
    /// Of one that waits for others.
    waiting: Option<Dormant>,
    /// Write data that came while it waited, from offset zero.
    pub(super) early: Vec<u8>,
    pub(super) at: Instant,
}

impl Arrival {
    pub(super) fn task(&self) -> TaskId {
        self.command.task
    }
}

/// Commands that may be carried out as if they were HEAD OF QUEUE commands (SPC-4 section 5.5).
fn is_implicit_head(command: &scsi::Command) -> bool {
    matches!(command, scsi::Command::Inquiry { .. } | scsi::Command::ReportLuns { .. })
}

impl Session {
    /// A command for a LUN that is there: begins it, or has it wait.
    pub(super) fn enter_task_set(
        &mut self,
        command: target::Command,
        parsed: scsi::Command,
        place: Place,
        now: Instant,
    ) {
        let attribute = match Attribute::from_code(command.attribute) {
            Ok(attribute) => attribute,
            Err(sense) => return self.refuse(command.task, sense, Some(&place)),
        };
        let standing = (!is_implicit_head(&parsed)).then(|| Standing::enter(&place.lun.unit, attribute));
        let enabled = standing.as_ref().is_none_or(Standing::is_enabled);
        let arrival = Arrival { command, standing, waiting: None, early: Vec::new(), at: now };
        match enabled {
            true => self.arrive(arrival, parsed, place, now),
            false => self.lay_down(arrival, parsed, place, now),
        }
    }

    /// Has a command wait.
    fn lay_down(&mut self, mut arrival: Arrival, parsed: scsi::Command, place: Place, now: Instant) {
        let task = arrival.task();
        let stage = match arrival.command.expected_len {
            len if arrival.command.writes && len > 0 => match self.room_to_park(len) {
                Some(parked) => Stage::Parked(parked),
                None => return self.turn_away(task),
            },
            _ => Stage::Working,
        };
        arrival.waiting = Some(Dormant::new(&place.lun.unit, self.id));
        let mut job = Job::new(Some(place), parsed, arrival.command.expected_len, stage, now);
        job.dormant = Some(Box::new(arrival));
        self.open_job(task, job);
        self.store_early_data(task);
        self.dormant.push_back(task);
    }

    /// Lays down what came before the command was a job, at once: what comes yet may be for gaps in it.
    pub(super) fn store_early_data(&mut self, task: TaskId) {
        let early = self.links.take_early_data(task);
        self.jobs.store(task, 0, &early);
    }

    /// Begins the commands that need not wait any more.
    pub(super) fn wake(&mut self, now: Instant) {
        if self.dormant.is_empty() {
            return;
        }
        for task in std::mem::take(&mut self.dormant) {
            let Some(arrival) = self.jobs.open.get(&task).and_then(|job| job.dormant.as_ref()) else {
                // It was ended meanwhile.
                continue;
            };
            let enabled = arrival.standing.as_ref().is_none_or(Standing::is_enabled);
            // One command at a time stands still for want of a frame.
            if enabled && self.stalled.is_none() {
                self.rouse(task, now);
            } else {
                self.dormant.push_back(task);
            }
        }
    }

    fn rouse(&mut self, task: TaskId, now: Instant) {
        let Some(mut job) = self.jobs.remove(task) else { return };
        job.leave();
        let (Some(mut arrival), Some(place)) = (job.dormant.take(), job.place.take()) else { return };
        if let Stage::Parked(parked) = job.stage {
            arrival.early = parked.into_bytes();
        }
        arrival.waiting = None;
        self.arrive(*arrival, job.command, place, now);
    }
}
