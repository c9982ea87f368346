//! Error recovery level 2 at the initiator: the tasks of a connection that is gone go on at another one of the session
//! (RFC 7143 sections 7.2.2 and 11.5).
//!
//! ```text
//! lost --(logout for recovery answered, or its identifier logged in again)--> Time2Wait --> taken over:
//!   the target has the command   --> TASK REASSIGN, from the data on that are missing
//!   the target has not           --> the command again, with its number
//! ```

use alloc::vec::Vec;

use super::task::{Outgoing, Task};
use super::{Connection, Event, Text};
use crate::pdu::{Header, flag, opcode};
use crate::protocol::{Body, TaskId};

/// TASK REASSIGN (RFC 7143 section 11.5.1).
const TASK_REASSIGN: u8 = 8;

impl Connection {
    /// True where the tasks of a connection outlive it.
    pub fn reassigns(&self) -> bool {
        self.parameters.error_recovery_level >= 2 && self.parameters.time2retain > 0
    }

    /// Takes the tasks of a connection of the same session that is over: one that was removed for recovery, or whose identifier
    /// this one has. They keep their names; buffers stay where they are. What is not continued comes as
    /// [`Event::NotReassigned`].
    pub fn take_over(&mut self, lost: &mut Self) {
        lost.outgoing.clear();
        let arriving = lost.arriving.take();
        let (arrived, missed) = core::mem::take(&mut lost.tasks)
            .into_iter()
            .partition::<Vec<(TaskId, Task)>, _>(|(_, open)| self.numbers.has_arrived(open.cmd_sn()));
        self.send_missed(missed);
        self.send_missed_text(lost.text_request.take());
        for (task, mut open) in arrived {
            let arriving = arriving.filter(|header| header.itt() == task.0).map(|header| header.data_sn());
            let exp_data_sn = open.lose_connection(arriving, &self.parameters);
            self.reassign(task, open, exp_data_sn);
        }
    }

    /// True while a command of this connection has not come to the target: those with later numbers have no turn there.
    pub fn has_missed(&self) -> bool {
        self.tasks.values().any(|open| !self.numbers.has_arrived(open.cmd_sn()))
    }

    /// Commands that the target has never seen: they come with the numbers that they have, in order.
    fn send_missed(&mut self, mut missed: Vec<(TaskId, Task)>) {
        //= rfc7143#section-7.2.1: a command that is not acknowledged is sent again: its connection was logged out.
        let next = self.numbers.next();
        missed.sort_by_key(|(_, open)| core::cmp::Reverse(next.wrapping_sub(open.cmd_sn())));
        for (task, open) in missed {
            let (open, first) = open.again(task, &self.parameters);
            self.outgoing.extend(first);
            self.tasks.insert(task, open);
        }
    }

    fn send_missed_text(&mut self, text: Option<Text>) {
        if let Some(text) = text.filter(|text| !self.numbers.has_arrived(text.header.cmd_sn())) {
            self.outgoing.push_back(Outgoing::Control { header: text.header, body: text.body.clone() });
            self.text_request = Some(text);
        }
    }

    fn reassign(&mut self, task: TaskId, open: Task, exp_data_sn: u32) {
        let request = TaskId(self.numbers.new_tag());
        let header = Header::new(opcode::TASK_MANAGEMENT, flag::FINAL | TASK_REASSIGN)
            .with_immediate()
            .with_lun(open.lun())
            .with_itt(request.0)
            .with_ttt(task.0)
            .with_cmd_sn(self.numbers.next())
            .with_max_cmd_sn(open.cmd_sn())
            .with_data_sn(exp_data_sn);
        self.outgoing.push_back(Outgoing::Control { header, body: Body::None });
        self.reassigning.push((request, task));
        self.tasks.insert(task, open);
    }

    pub(super) fn on_managed(&mut self, request: TaskId, response: u8) {
        let Some(at) = self.reassigning.iter().position(|(other, _)| *other == request) else {
            return self.events.push_back(Event::TaskManagementDone(request, response));
        };
        let (_, task) = self.reassigning.swap_remove(at);
        if response != 0 && self.tasks.remove(&task).is_some() {
            self.events.push_back(Event::NotReassigned(task, response));
        }
    }
}
