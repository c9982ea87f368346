//! Tasks that the target has ended without a status: aborted, or swept away by a reset (RFC 7143 section 11.5.1(b), RFC 7143 section 11.6).
//!
//! What the target had sent for them before, on this connection or another one, may still come. It belongs to nobody: it is
//! numbered and dropped, and no buffer is touched.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::{Connection, Outgoing};
use crate::protocol::TaskId;

/// Tasks that are remembered. A session has at most as many under way as its command window allows; what comes for one that is
/// forgotten is taken for an error of the target.
const KEPT: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Abandoned(VecDeque<TaskId>);

impl Abandoned {
    fn add(&mut self, task: TaskId) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(task);
    }

    pub(super) fn has(&self, task: TaskId) -> bool {
        self.0.contains(&task)
    }
}

impl Connection {
    /// True while a command of this name has no answer here.
    pub fn has_task(&self, task: TaskId) -> bool {
        self.tasks.contains_key(&task)
    }

    /// Gives a task up that the target has ended, as the answer to a management request says: nothing more is sent for it, and
    /// what still comes for it is dropped. Its buffer is the owner's again. False: there is no such task.
    ///
    /// Before that answer a task must not be given up: its data may be on their way, and R2Ts for it are to be answered.
    pub fn abandon(&mut self, task: TaskId) -> bool {
        //= rfc7143#section-4.2.3.3: until then R2Ts of the task are answered as any others.
        //= rfc7143#section-11.6: after the answer the target neither sends for the task nor takes data for it.
        let Some(open) = self.tasks.remove(&task) else { return false };
        self.outgoing.retain(|outgoing: &Outgoing| outgoing.task() != Some(task));
        self.reassigning.retain(|(_, other)| *other != task);
        // Its status was there, and waited for data that nobody wants any more.
        if let Some((stat_sn, _)) = open.answer.filter(|_| self.parameters.error_recovery_level > 0) {
            self.statuses.release(stat_sn);
        }
        self.abandoned.add(task);
        true
    }

    /// Gives up every task, of a connection that logs out.
    pub fn abandon_all(&mut self) {
        //= rfc7143#section-11.14: no answers are expected for what a logout ends.
        let tasks: Vec<TaskId> = self.tasks.keys().copied().collect();
        tasks.into_iter().for_each(|task| {
            self.abandon(task);
        });
    }
}
