//! Commands about reservations, in a session.

use std::rc::Rc;

use bdev::{BlockRange, IoError};
use engine::Instant;
use iscsi::TaskId;
use iscsi::target::Response;
use scsi::reservation::{self, PowerLoss, Refusal, Request};
use scsi::{Sense, status};

use super::super::job::{ReserveOut, Step, Walk};
use super::super::logical_unit::{Alteration, LogicalUnit};
use super::super::node::{Lun, Place};
use super::super::reservations::Changing;
use super::dormant::Arrival;
use super::jobs::{Job, Stage};
use super::management::{Aborter, Hears, Presence};
use super::{Request as Ask, Session};

/// How a command ends that somebody else's reservation keeps out.
pub(super) fn conflict() -> Response {
    Response { status: status::RESERVATION_CONFLICT, ..Response::default() }
}

/// What comes before an answer out of the unit's table of reservations: where the table is the array's, a read, which only a node
/// that still serves ends well.
fn look_first(unit: &LogicalUnit) -> Option<Step> {
    let is_shared = unit.capabilities().power_loss == PowerLoss::Persists;
    is_shared.then(|| Step::Examine(Walk::short(BlockRange::new(0, 1))))
}

impl Session {
    /// What keeps a command out, if anything does: a reservation of somebody else.
    pub(super) fn kept_out(&self, cdb: &[u8; 16], lun: &Lun) -> Option<Refusal> {
        let nexus = self.nexus.as_ref()?;
        lun.unit.admit(nexus, reservation::demand(cdb)).err()
    }

    /// Refuses a command that has no job yet.
    pub(super) fn bar_arrival(
        &mut self,
        arrival: Arrival,
        command: scsi::Command,
        place: &Place,
        refusal: Refusal,
        now: Instant,
    ) {
        let task = arrival.task();
        self.open_job(task, Job::of(arrival, place.clone(), command, Stage::Working));
        self.bar(task, refusal, now);
    }

    /// Refuses a job. A holder that has been succeeded without knowing it must not tell of the past, and cluster software acts on a
    /// conflict: where reservations are the array's, a read finds that out before the conflict is told.
    pub(super) fn bar(&mut self, task: TaskId, refusal: Refusal, now: Instant) {
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        match refusal {
            Refusal::Check(sense) => self.fail(task, sense),
            Refusal::Conflict => {
                job.steps.clear();
                job.steps.extend(job.place.as_ref().and_then(|place| look_first(&place.lun.unit)));
                job.steps.push_back(Step::Conflict);
                self.advance(task, now);
            }
        }
    }

    /// Answers what needs no parameter list; gives back what does.
    pub(super) fn on_reservation(
        &mut self,
        arrival: Arrival,
        request: Request,
        place: &Place,
        now: Instant,
    ) -> Option<Arrival> {
        let Some(nexus) = self.nexus.clone() else { return Some(arrival) };
        let task = arrival.task();
        let command = scsi::Command::Reservation(request);
        let unit = &place.lun.unit;
        let done = match request {
            Request::Out { .. } => return Some(arrival),
            Request::In { report, allocation } => {
                let mut job = Job::of(arrival, place.clone(), command, Stage::Working);
                job.steps.extend(look_first(unit));
                job.steps.push_back(Step::Report(report, allocation));
                self.open_job(task, job);
                self.advance(task, now);
                return None;
            }
            Request::Reserve => unit.change_older(|table| table.reserve(&nexus)),
            Request::Release => unit.change_older(|table| table.release(&nexus)),
        };
        match done {
            Ok(()) => self.links.respond(task, Response::default()),
            Err(refusal) => self.bar_arrival(arrival, command, place, refusal, now),
        }
        None
    }

    /// The next step of a job is PERSISTENT RESERVE OUT: waits while another one is under way.
    pub(super) fn reserve_out(&mut self, task: TaskId, now: Instant) {
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        let (Some(Step::Reserve(out)), Some(place), Some(nexus)) =
            (job.steps.front(), job.place.clone(), self.nexus.clone())
        else {
            return;
        };
        let ReserveOut { action, scope_type, parameters } = &**out;
        let unit = place.lun.unit.clone();
        if !unit.begin_change() {
            return;
        }
        let keeps = unit.capabilities().power_loss == PowerLoss::Persists;
        let asked = parameters.power_loss() == PowerLoss::Persists;
        let ports = self.node.as_ref().map(|node| node.ports()).unwrap_or_default();
        let changed = if asked && !keeps {
            Err(Refusal::Check(parameters.power_loss_unsupported()))
        } else {
            unit.reservations().change(&nexus, *action, *scope_type, parameters, &ports)
        };
        match changed {
            Ok(change) => {
                job.steps.clear();
                job.in_flight = true;
                let change = Box::new(Alteration::Reservations(change));
                self.asks.push(Ask::Change(Changing { task, unit, change }));
            }
            Err(refusal) => {
                unit.give_up_change();
                self.bar(task, refusal, now);
            }
        }
    }

    /// The next step of a job is an answer of PERSISTENT RESERVE IN: waits while the pool has no frame.
    pub(super) fn report_reservations(&mut self, task: TaskId) {
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        let (Some(Step::Report(report, allocation)), Some(place)) = (job.steps.front(), &job.place) else {
            return;
        };
        let unit = &place.lun.unit;
        let mut data = unit.reservations().report(*report, unit.capabilities());
        data.truncate(usize::from(*allocation));
        let response = Response { transfer_len: data.len() as u64, ..Response::default() };
        let frame = if data.is_empty() { None } else { self.core.pool().alloc(data.len()) };
        let Some(mut frame) = frame else {
            if data.is_empty() {
                self.respond(task, response);
            }
            return;
        };
        frame.copy_from_slice(&data);
        job.steps.clear();
        job.answer(Some(frame.freeze().into()));
        self.links.send_data(task, u32::try_from(data.len()).expect("bounded"), response);
    }

    /// A change is in force, and every command that it aborts has ended; or it failed.
    pub(in crate::export) fn finish_change(
        &mut self,
        task: TaskId,
        result: Result<(), IoError>,
        now: Instant,
    ) {
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        job.in_flight = false;
        match result {
            _ if job.aborted => self.close_job(task, now),
            Ok(()) => self.advance(task, now),
            Err(error) => self.fail_io(task, error),
        }
    }

    /// A unit attention for this nexus, at every LUN that is the unit.
    pub(in crate::export) fn establish(&mut self, unit: &Rc<LogicalUnit>, sense: Sense) {
        let Some(node) = &self.node else { return };
        for lun in node.luns.borrow().values().filter(|lun| Rc::ptr_eq(&lun.unit, unit)) {
            lun.state.nexuses.borrow_mut().tell(self.id, sense);
        }
    }

    /// Aborts the nexus's commands at the unit; gives those that were open. What has been aborted already another nexus does not abort
    /// again.
    pub(in crate::export) fn abort_all(
        &mut self,
        unit: &Rc<LogicalUnit>,
        by: Aborter,
        now: Instant,
    ) -> Vec<TaskId> {
        let at = |place: &Place| Rc::ptr_eq(&place.lun.unit, unit);
        let open = self.jobs.open.iter();
        // An answer that nobody has acknowledged yet is no command any more.
        let ends = |task: TaskId, job: &Job| {
            let is_ended = job.aborted && by == Aborter::Another;
            job.place.as_ref().is_some_and(at) && !is_ended && self.presence(task) != Presence::Gone
        };
        let mut tasks: Vec<TaskId> =
            open.filter(|(task, job)| ends(**task, job)).map(|(task, _)| *task).collect();
        for task in &tasks {
            self.abort(*task, by, now);
        }
        self.abort_background(unit);
        if let Some(stalled) = self.stalled.take_if(|stalled| at(&stalled.place)) {
            self.silence(stalled.task(), Hears::of(by, unit, self.origin));
            tasks.push(stalled.task());
        }
        tasks
    }

    /// True while the nexus has a command open at the unit.
    pub(super) fn is_busy_at(&self, unit: &Rc<LogicalUnit>) -> bool {
        let at = |place: &Place| Rc::ptr_eq(&place.lun.unit, unit);
        let mut open = self.jobs.open.iter().filter(|(task, _)| self.presence(**task) == Presence::Open);
        open.any(|(_, job)| job.place.as_ref().is_some_and(at))
            || self.stalled.as_ref().is_some_and(|stalled| at(&stalled.place))
    }

    /// True while an aborted command of the nexus, or a copy that was ended, is still at work at the unit.
    pub(in crate::export) fn is_aborting(&self, unit: &Rc<LogicalUnit>) -> bool {
        let at = |place: &Place| Rc::ptr_eq(&place.lun.unit, unit);
        self.jobs.open.values().any(|job| job.is_ending_at(&at)) || self.is_aborting_background(unit)
    }
}
