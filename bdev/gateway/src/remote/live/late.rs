//! The session's part in what is done about late I/Os: it sends what the ladder asks for, and takes what comes of it.

use bdev::LinkDown;
use engine::Instant;
use iscsi::TaskId;

use super::super::channel::Phase;
use super::super::flights::Lateness;
use super::Live;
use super::ladder::{ABORT_TASK, Answered, LOGICAL_UNIT_RESET, Rung, RungTimes};

impl Live {
    /// True when something is late that the session ends for.
    pub(super) fn is_out_of_time(&self, now: Instant) -> bool {
        let ends = |lateness| lateness == Lateness::Ends || !matches!(self.phase, Phase::Up(_));
        self.flights.open.values().any(|flight| now >= flight.deadline && ends(flight.lateness))
    }

    /// Does what is to be done about late I/Os. A cause: nothing helped.
    pub(super) fn climb(&mut self, now: Instant, times: RungTimes) -> Option<LinkDown> {
        if !self.ladder.is_resetting() {
            for task in self.late(now) {
                let request = self.send_abort(task);
                self.ladder.abort(task, request, now + times.abort);
            }
        }
        match self.ladder.stuck(now)? {
            Rung::AbortTask => {
                if let Some(request) = self.send_reset() {
                    let tasks = self.flights.open.keys().copied().collect();
                    self.ladder.reset(request, tasks, now + times.reset);
                    return None;
                }
            }
            Rung::LogicalUnitReset | Rung::SessionDrop => {}
        }
        self.ladder.tell(Rung::SessionDrop);
        let why = "an I/O had no answer in its time, and neither an abort nor a reset helped";
        Some(LinkDown::Lost(why.to_owned()))
    }

    /// Late I/Os that nothing has been done about.
    fn late(&self, now: Instant) -> Vec<TaskId> {
        let late = self.flights.open.iter().filter(|(_, flight)| now >= flight.deadline);
        late.map(|(task, _)| *task).filter(|task| !self.ladder.has_abort(*task)).collect()
    }

    /// An abort goes by the connection that its task belongs to, so that the answer comes behind all that came for the task.
    fn send_abort(&mut self, task: TaskId) -> Option<(u16, TaskId)> {
        let has = |member: &&mut super::Member| member.serves() && member.connection.has_task(task);
        let member = self.members.iter_mut().find(has)?;
        let lun = self.flights.open.get(&task)?.lun;
        Some((member.cid, member.connection.manage(ABORT_TASK, lun, Some(task))))
    }

    fn send_reset(&mut self) -> Option<(u16, TaskId)> {
        // All of a session's I/Os are of one LUN.
        let lun = self.flights.open.values().next()?.lun;
        let member = self.server()?;
        Some((member.cid, member.connection.manage(LOGICAL_UNIT_RESET, lun, None)))
    }

    /// A management request was answered. Gives the tasks that are over for it: nothing of them is sent or stored any more.
    pub(in super::super) fn on_managed(
        &mut self,
        cid: u16,
        request: TaskId,
        response: u8,
        now: Instant,
    ) -> Vec<TaskId> {
        let Answered::Over(mut tasks) = self.ladder.on_answer((cid, request), response, now) else {
            return Vec::new();
        };
        tasks.retain(|task| self.flights.open.contains_key(task));
        for task in &tasks {
            let members = self.members.iter_mut().map(|member| &mut member.connection);
            let lost = self.losses.iter_mut().map(|loss| &mut loss.connection);
            members.chain(lost).for_each(|connection| {
                connection.abandon(*task);
            });
        }
        tasks
    }
}
