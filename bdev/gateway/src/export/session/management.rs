//! Task management: aborts and resets, answered when what they end has ended.

use iscsi::TaskId;
use iscsi::target::{TaskFunction, TaskResponse};
use scsi::Sense;

use super::commands::Stalled;
use super::{Request, Session};
use engine::Instant;

/// A management request that waits for the tasks that it ends.
pub(super) struct Management {
    request: TaskId,
    waits_for: Vec<TaskId>,
    response: TaskResponse,
}

impl Session {
    pub(super) fn on_management(
        &mut self,
        request: TaskId,
        lun: u64,
        function: TaskFunction,
        now: Instant,
        requests: &mut Vec<Request>,
    ) {
        let number = scsi::lun::decode(lun);
        let exists =
            number.is_some_and(|number| self.node.as_ref().is_some_and(|node| node.lun(number).is_some()));
        let (waits_for, response) = match function {
            TaskFunction::AbortTask(task) if self.jobs.open.contains_key(&task) => {
                (vec![task], TaskResponse::Complete)
            }
            TaskFunction::AbortTask(task) if self.is_stalled(task) => (Vec::new(), TaskResponse::Complete),
            TaskFunction::AbortTask(_) => (Vec::new(), TaskResponse::NoTask),
            TaskFunction::TargetWarmReset | TaskFunction::TargetColdReset => {
                return requests.push(Request::Reset { request, lun: None });
            }
            _ if !exists => (Vec::new(), TaskResponse::NoLun),
            TaskFunction::AbortTaskSet => (self.tasks_of(number), TaskResponse::Complete),
            TaskFunction::LogicalUnitReset | TaskFunction::ClearTaskSet => {
                return requests.push(Request::Reset { request, lun: number });
            }
            TaskFunction::TaskReassign => (Vec::new(), TaskResponse::ReassignUnsupported),
            TaskFunction::ClearAca | TaskFunction::Unknown(_) => (Vec::new(), TaskResponse::Unsupported),
        };
        if let TaskFunction::AbortTask(task) = function {
            // A command that waits for a frame is no job yet.
            self.stalled.take_if(|stalled| stalled.command.task == task);
            self.connection.abort(task);
        }
        for task in &waits_for {
            self.abort(*task, now);
        }
        self.management.push(Management { request, waits_for, response });
    }

    pub(super) fn is_stalled(&self, task: TaskId) -> bool {
        self.stalled.as_ref().is_some_and(|stalled| stalled.command.task == task)
    }

    pub(super) fn tasks_of(&self, number: Option<u16>) -> Vec<TaskId> {
        self.jobs.open.iter().filter(|(_, job)| job.is_at(number)).map(|(task, _)| *task).collect()
    }

    /// No status is sent for the task any more; an I/O under way is waited for.
    pub(super) fn abort(&mut self, task: TaskId, now: Instant) {
        self.connection.abort(task);
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        if job.in_flight {
            job.aborted = true;
        } else {
            self.close_job(task, now);
        }
    }

    /// Ends the tasks at a LUN, or at all; which leaves a unit attention at every nexus, the asking one too (SAM-5 section 5.14).
    pub(in crate::export) fn reset(&mut self, number: Option<u16>, attention: Sense, now: Instant) {
        for task in self.tasks_of(number) {
            self.abort(task, now);
        }
        let hit = |stalled: &mut Stalled| number.is_none_or(|number| stalled.place.number == number);
        if let Some(stalled) = self.stalled.take_if(hit) {
            self.connection.abort(stalled.command.task);
        }
        let Some(node) = &self.node else { return };
        let luns = node.luns.borrow();
        for (_, lun) in luns.iter().filter(|(at, _)| number.is_none_or(|number| number == **at)) {
            lun.state.nexuses.borrow_mut().tell(self.id, attention);
        }
    }

    /// True when no aborted task at the LUN is still at work.
    pub(in crate::export) fn is_reset(&self, number: Option<u16>) -> bool {
        !self.jobs.open.values().any(|job| job.aborted && job.is_at(number))
    }

    pub(super) fn finish_management(&mut self) {
        let open = &self.jobs.open;
        let ended =
            |management: &mut Management| management.waits_for.iter().all(|task| !open.contains_key(task));
        for management in self.management.extract_if(.., ended) {
            self.connection.respond_task_management(management.request, management.response);
        }
    }
}
