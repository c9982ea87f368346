//! Commands that change what the unit keeps, reservations apart: MODE SELECT, SET IDENTIFYING INFORMATION, SANITIZE.

use engine::Instant;
use iscsi::TaskId;
use scsi::Sense;
use scsi::sanitization::Sanitization;

use super::super::job::{Step, Wish};
use super::super::logical_unit::Alteration;
use super::super::reservations::Changing;
use super::{Request as Ask, Session};

impl Session {
    /// The next step of a job is such a change: waits while another one is under way.
    pub(super) fn alter(&mut self, task: TaskId, now: Instant) {
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        let (Some(Step::Alter(wish)), Some(place)) = (job.steps.front(), job.place.clone()) else { return };
        let unit = place.lun.unit.clone();
        if !unit.begin_change() {
            return;
        }
        let (modes, mut identifying) = (unit.modes(), unit.kept().identifying.clone());
        let changed = match &**wish {
            Wish::Modes(settings, save) => {
                let next = modes.after(*settings, *save);
                Ok((next != modes).then_some(Alteration::Modes(next)))
            }
            Wish::Identifying(kind, list) => {
                let before = identifying.clone();
                let set = identifying.set(*kind, list);
                set.map(|()| (identifying != before).then_some(Alteration::Identifying(identifying)))
            }
            Wish::Sanitize(wanted) => match unit.sanitize_refusal().filter(|_| unit.is_sanitizing()) {
                Some(sense) => Err(sense),
                None => Ok(Some(Alteration::Sanitization(Some(wanted.clone())))),
            },
            Wish::ExitFailureMode => {
                let kept = unit.kept().sanitization.clone();
                let exit = Sanitization::exit_failure(kept.as_ref(), unit.sanitize_progress());
                exit.map(|()| kept.is_some().then_some(Alteration::Sanitization(None)))
            }
        };
        let fits =
            |change: &Option<Alteration>| change.as_ref().is_none_or(|change| unit.has_room_for(change));
        match changed {
            Ok(change) if !fits(&change) => {
                unit.give_up_change();
                self.fail(task, Sense::INSUFFICIENT_RESOURCES);
            }
            Ok(Some(change)) => {
                job.steps.pop_front();
                job.in_flight = true;
                self.asks.push(Ask::Change(Changing { task, unit, change: Box::new(change) }));
            }
            Ok(None) => {
                unit.give_up_change();
                job.steps.pop_front();
                self.advance(task, now);
            }
            Err(sense) => {
                unit.give_up_change();
                self.fail(task, sense);
            }
        }
    }
}
