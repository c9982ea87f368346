//! Error recovery level 2: the tasks of a connection that is gone go on at another one (RFC 7143 sections 7.2.2 and 11.5).
//!
//! ```text
//! allegiant --(its connection ends)--> waiting --(TASK REASSIGN)--> allegiant to another
//!                                         \--(Time2Wait and Time2Retain are over)--> aborted by the owner
//! ```
//!
//! A connection that is over keeps its tasks, and what was to be sent for them, and takes the owner's answers. The owner asks
//! it for each task that is reassigned ([`Connection::release`]) and gives that to the connection that asked
//! ([`Connection::adopt`]). Requests other than commands, and those that waited for their turn, are not kept: the initiator
//! sends them again.

use super::outgoing::{Layout, Outgoing};
use super::recovery::Answered;
use super::task::Task;
use super::{Connection, Response};
use crate::protocol::TaskId;

/// A task on its way from a connection that is over to another one of the session.
#[derive(Debug)]
pub struct Orphan {
    task: TaskId,
    open: Task,
    answer: Answer,
}

/// How far a task is answered.
#[derive(Debug)]
enum Answer {
    /// The owner has not answered it.
    None,
    /// It is, and perhaps sent: so many Data-In PDUs of its data, where it has some.
    Given { data: Option<(Layout, u32)>, response: Response },
}

impl Connection {
    /// True where the tasks of a connection outlive it.
    pub fn reassigns(&self) -> bool {
        //= rfc7143#section-13.16: with a Time2Retain of zero nothing is kept.
        self.parameters.error_recovery_level >= 2 && self.parameters.time2retain > 0
    }

    /// What is left to send when the connection is over: nothing, or what goes on at another one.
    pub(super) fn leave_outgoing(&mut self) {
        let reassigns = self.reassigns();
        //= rfc7143#section-7.1.4.3: below level 2, or with a Time2Retain of zero, nothing is left of a connection.
        self.outgoing.retain(|outgoing| {
            reassigns && matches!(outgoing, Outgoing::Data { .. } | Outgoing::Response { .. })
        });
        self.held.clear();
        self.held_bytes = 0;
    }

    /// Takes a task out of a connection that is over; `None` for one that it has not, or not any more.
    pub fn release(&mut self, task: TaskId) -> Option<Orphan> {
        let at = self.outgoing.iter().position(|outgoing| outgoing.task() == Some(task));
        let answer = match at.and_then(|at| self.outgoing.remove(at)) {
            Some(Outgoing::Data { layout, data_sn, response, .. }) => {
                Answer::Given { data: Some((layout, data_sn)), response }
            }
            Some(Outgoing::Response { layout, data_sn, response, .. }) => {
                Answer::Given { data: layout.map(|layout| (layout, data_sn)), response }
            }
            _ => Answer::None,
        };
        if let Some(open) = self.tasks.remove(&task) {
            return Some(Orphan { task, open, answer });
        }
        let Answered { open, layout, response, .. } = self.unacknowledged.take(task)?;
        let data = layout.map(|layout| (layout, layout.count()));
        Some(Orphan { task, open, answer: Answer::Given { data, response } })
    }

    /// Goes on with a task of a connection that is over, behind what is to be sent already: the answer to the TASK REASSIGN,
    /// first of all. Data that were on their way to the target are asked for again; data that the initiator reads are sent again
    /// from `exp_data_sn` on, or from what it acknowledged before where that makes no sense; and so is the status.
    pub fn adopt(&mut self, orphan: Orphan, exp_data_sn: u32) {
        let Orphan { task, mut open, answer } = orphan;
        open.lose_connection();
        let mut outgoing = None;
        if let Answer::Given { data, response } = answer {
            let data = data.and_then(|(layout, sent)| {
                //= rfc7143#section-11.5.6(a): ExpDataSN is between what was acknowledged and what was sent, or is ignored.
                let known = open.receipt.data_sn..=sent;
                let from = if known.contains(&exp_data_sn) { exp_data_sn } else { open.receipt.data_sn };
                open.receipt.data_sn = from;
                //= rfc7143#section-11.5.6(b): in segments as this connection has them.
                layout.again_from(from, &self.parameters)
            });
            outgoing = Some(match data {
                Some(layout) => Outgoing::rest(task, layout, response),
                None => Outgoing::Response { task, data_sn: 0, layout: None, response },
            });
        }
        //= rfc7143#section-7.2.2(a): it goes on here, with its data or with its status.
        self.tasks.insert(task, open);
        self.outgoing.extend(outgoing);
        self.pump(task);
    }
}
