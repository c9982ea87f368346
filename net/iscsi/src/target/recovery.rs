//! Error recovery level 1: what was sent is kept until the initiator says that it has it, and sent again when it asks for that
//! (RFC 7143 sections 7.1.4 and 11.16).
//!
//! At level 0 nothing is kept, and a task is over when its status leaves. At level 1 it is over when the status is acknowledged:
//! [`Event::Ended`].

use alloc::collections::VecDeque;

use super::outgoing::{Layout, Outgoing};
use super::task::{Place, Task};
use super::{Connection, Event, Phase, Response};
use crate::pdu::{Header, NO_TAG, RejectReason};
use crate::protocol::{Body, TaskId};
use crate::serial;

/// Answers that are kept without an acknowledgement; the oldest go.
const KEPT_MAX: usize = 1024;
/// Bytes of their data segments.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// Kinds of SNACK (RFC 7143 section 11.16.1).
pub(crate) mod kind {
    /// Data-In or R2T PDUs are wanted again.
    pub(crate) const DATA: u8 = 0;
    /// Answers are wanted again.
    pub(crate) const STATUS: u8 = 1;
    /// Data-In PDUs have arrived.
    pub(crate) const DATA_ACK: u8 = 2;
    /// Data-In PDUs are wanted again, in segments of another length.
    pub(crate) const R_DATA: u8 = 3;
}

/// A task whose status was sent.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) task: TaskId,
    /// What it was; its place in the window is given back.
    pub(super) open: Task,
    /// Of what it read, as long as the owner has it.
    pub(super) layout: Option<Layout>,
    pub(super) response: Response,
}

/// What the initiator says that it has of the data that it reads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Receipt {
    /// The tag by which it is asked.
    pub(super) ttt: Option<u32>,
    /// How many Data-In PDUs it has.
    pub(super) data_sn: u32,
}

/// An answer that has not been acknowledged.
#[derive(Debug)]
struct Kept {
    stat_sn: u32,
    header: Header,
    body: Body,
    answered: Option<Answered>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Unacknowledged {
    answers: VecDeque<Kept>,
    /// Of their data segments.
    bytes: usize,
}

impl Kept {
    fn is_of(&self, task: TaskId) -> bool {
        self.answered.as_ref().is_some_and(|answered| answered.task == task)
    }
}

impl Unacknowledged {
    /// Takes an answered task out; its answer is kept no more.
    pub(super) fn take(&mut self, task: TaskId) -> Option<Answered> {
        let at = self.answers.iter().position(|kept| kept.is_of(task))?;
        self.remove(at)?.answered
    }

    fn remove(&mut self, at: usize) -> Option<Kept> {
        let kept = self.answers.remove(at)?;
        self.bytes -= kept.body.held_len();
        Some(kept)
    }

    fn push(&mut self, kept: Kept) {
        self.bytes += kept.body.held_len();
        self.answers.push_back(kept);
    }

    /// True when one with such a body makes them too many.
    fn is_full_for(&self, body: &Body) -> bool {
        let is_too_long = self.bytes + body.held_len() > KEPT_BYTES_MAX;
        self.answers.len() >= KEPT_MAX || (is_too_long && !self.answers.is_empty())
    }

    fn find(&self, task: TaskId) -> Option<&Answered> {
        self.answers.iter().filter_map(|kept| kept.answered.as_ref()).find(|answered| answered.task == task)
    }
}

impl Connection {
    pub(super) fn recovers(&self) -> bool {
        self.parameters.error_recovery_level > 0
    }

    /// True for a task that is open, or answered and not acknowledged: its buffer may be needed.
    pub fn keeps(&self, task: TaskId) -> bool {
        self.is_open(task) || self.unacknowledged.find(task).is_some()
    }

    /// All of those.
    pub fn kept_tasks(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.kept().map(|(task, _)| task)
    }

    //= rfc7143#section-7.14(b): an immediate command does not outlive its connection.
    /// Of them, those that no other connection may take.
    pub fn immediate_tasks(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.kept().filter(|(_, open)| open.place == Place::Immediate).map(|(task, _)| task)
    }

    fn kept(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        let answered = self.unacknowledged.answers.iter().filter_map(|kept| kept.answered.as_ref());
        let open = self.tasks.iter().map(|(task, open)| (*task, open));
        open.chain(answered.map(|answered| (answered.task, &answered.open)))
    }

    /// Keeps an answer that is about to leave.
    pub(super) fn keep(&mut self, header: &Header, body: &Body, answered: Option<Answered>) {
        if !self.recovers() || self.phase == Phase::Login {
            return;
        }
        while self.unacknowledged.is_full_for(body) {
            self.forget_oldest();
        }
        let kept = Kept { stat_sn: header.stat_sn(), header: *header, body: body.clone(), answered };
        self.unacknowledged.push(kept);
    }

    fn forget_oldest(&mut self) {
        let kept = self.unacknowledged.remove(0);
        if let Some(answered) = kept.and_then(|kept| kept.answered) {
            self.outgoing.retain(|outgoing| outgoing.task() != Some(answered.task));
            self.events.push_back(Event::Ended(answered.task));
        }
    }

    /// The task's name is given to another one, or its data are gone: its answer is sent again, but without data. False: it was not
    /// answered here.
    pub fn forget_answered(&mut self, task: TaskId) -> bool {
        let kept = self.unacknowledged.answers.iter_mut().find(|kept| kept.is_of(task));
        kept.and_then(|kept| kept.answered.take()).is_some()
    }

    /// Where the statuses end that are out by now, or on their way: see [`Connection::is_past`].
    pub fn fence(&self) -> u32 {
        let waiting = self.outgoing.iter().filter(|outgoing| outgoing.is_numbered()).count();
        self.stat_sn.wrapping_add(u32::try_from(waiting).unwrap_or(0))
    }

    /// Whether the initiator has acknowledged every status up to a fence (RFC 7143 section 4.2.2.3.4), or all that there are: some
    /// that were on their way may have been taken back.
    pub fn is_past(&self, fence: u32) -> bool {
        let all = self.acknowledged == self.stat_sn && !self.outgoing.iter().any(Outgoing::is_numbered);
        all || serial::before_or_at(fence, self.acknowledged)
    }

    /// What the initiator has received, as each of its PDUs says.
    pub(super) fn acknowledge(&mut self, exp_stat_sn: u32) {
        //= rfc7143#section-4.2.2.2(b): what is beyond every number that was sent acknowledges nothing.
        if !serial::before_or_at(exp_stat_sn, self.stat_sn) {
            return;
        }
        if serial::before(self.acknowledged, exp_stat_sn) {
            self.acknowledged = exp_stat_sn;
        }
        // Empty where nothing is kept.
        while self
            .unacknowledged
            .answers
            .front()
            .is_some_and(|kept| serial::before(kept.stat_sn, exp_stat_sn))
        {
            self.forget_oldest();
        }
    }

    pub(super) fn on_snack(&mut self, header: &Header) {
        let done = match header.flags() & 0x0f {
            //= rfc7143#section-11.16(a): SNACK is for error recovery levels above zero.
            _ if !self.recovers() => None,
            kind::DATA => self.send_again(header),
            kind::STATUS => self.answer_again(header),
            kind::DATA_ACK => return self.on_data_ack(header),
            kind::R_DATA => self.send_resegmented(header),
            _ => None,
        };
        if done.is_none() {
            self.reject(header, RejectReason::Snack);
        }
    }

    /// The initiator has so many Data-In PDUs of a task: it does not ask for them again.
    fn on_data_ack(&mut self, header: &Header) {
        let open = self.tasks.values_mut().map(|open| &mut open.receipt);
        let answered = self.unacknowledged.answers.iter_mut().filter_map(|kept| kept.answered.as_mut());
        let mut receipts = open.chain(answered.map(|answered| &mut answered.open.receipt));
        // Of a task that is over nobody cares.
        if let Some(receipt) = receipts.find(|receipt| receipt.ttt == Some(header.ttt())) {
            receipt.data_sn = receipt.data_sn.max(header.buffer_offset());
        }
    }

    /// Data-In or R2T PDUs again; `None` for what was not sent, or is not there any more.
    fn send_again(&mut self, header: &Header) -> Option<()> {
        let task = TaskId(header.itt());
        let (begin, run) = (header.buffer_offset(), header.residual());
        //= rfc7143#section-7.1.4.1: R2Ts and data that were lost are sent again within the command.
        if let Some(r2ts) =
            self.tasks.get(&task).filter(|open| open.writes()).map(|open| open.r2ts_again(begin, run))
        {
            let again =
                r2ts?.into_iter().map(|header| Outgoing::R2t { task, header: header.with_itt(task.0) });
            self.outgoing.extend(again);
            return Some(());
        }
        let (lun, layout, sent) = self.read_of(task)?;
        let receipt = match self.tasks.get(&task) {
            Some(open) => open.receipt,
            None => self.unacknowledged.find(task)?.open.receipt,
        };
        if begin < receipt.data_sn {
            return None;
        }
        let until = if run == 0 { sent } else { begin.checked_add(run)?.min(sent) };
        let offset = layout.offset_of(begin).filter(|_| begin < until)?;
        self.outgoing.push_back(Outgoing::DataAgain { task, lun, layout, offset, data_sn: begin, until });
        Some(())
    }

    /// All Data-In PDUs that are not acknowledged again, in segments of the length that holds now, and an answer that shows the
    /// SNACK's tag; `None` for what was not sent, or is not there any more.
    fn send_resegmented(&mut self, header: &Header) -> Option<()> {
        //= rfc7143#section-11.16.3(b): where the initiator takes segments of another length, numbers name others than before.
        let task = TaskId(header.itt());
        if matches!(header.ttt(), 0 | NO_TAG) {
            return None;
        }
        if let Some(open) = self.tasks.get_mut(&task) {
            let acknowledged = open.receipt.data_sn;
            let is = |outgoing: &Outgoing| {
                outgoing.task() == Some(task)
                    && matches!(outgoing, Outgoing::Data { .. } | Outgoing::Response { layout: Some(_), .. })
            };
            let at = self.outgoing.iter().position(is)?;
            let (Outgoing::Data { layout, .. } | Outgoing::Response { layout: Some(layout), .. }) =
                &self.outgoing[at]
            else {
                return None;
            };
            let layout = layout.again_from(acknowledged, &self.parameters)?;
            open.snack_tag = header.ttt();
            let old = self.outgoing.remove(at)?;
            let (Outgoing::Data { response, .. } | Outgoing::Response { response, .. }) = old else {
                return None;
            };
            // What was asked for again before is among it.
            self.outgoing.retain(|outgoing| outgoing.task() != Some(task));
            self.outgoing.push_back(Outgoing::rest(task, layout, response));
            return Some(());
        }
        let parameters = &self.parameters;
        let kept = self.unacknowledged.answers.iter_mut().find(|kept| kept.is_of(task))?;
        let answered = kept.answered.as_mut()?;
        let layout = answered.layout?.again_from(answered.open.receipt.data_sn, parameters)?;
        answered.layout = Some(layout);
        kept.header = kept.header.with_ttt(header.ttt()).with_data_sn(layout.count());
        let (data_sn, offset) = layout.begin();
        let lun = answered.open.lun();
        let again = Outgoing::DataAgain { task, lun, layout, offset, data_sn, until: u32::MAX };
        self.outgoing.retain(|outgoing| outgoing.task() != Some(task));
        self.outgoing.extend((offset < layout.len).then_some(again));
        self.outgoing.push_back(Outgoing::Again { header: kept.header, body: kept.body.clone() });
        Some(())
    }

    /// Where a task that reads is, its layout, and how many Data-In PDUs were sent for it.
    fn read_of(&self, task: TaskId) -> Option<(u64, Layout, u32)> {
        if let Some(answered) = self.unacknowledged.find(task) {
            return Some((answered.open.lun(), answered.layout?, u32::MAX));
        }
        let lun = self.tasks.get(&task)?.lun();
        self.outgoing.iter().find_map(|outgoing| match outgoing {
            Outgoing::Data { task: of, layout, data_sn, .. } if *of == task => Some((lun, *layout, *data_sn)),
            Outgoing::Response { task: of, layout, .. } if *of == task => Some((lun, (*layout)?, u32::MAX)),
            _ => None,
        })
    }

    /// Answers again; `None` when one of them was acknowledged, or never sent.
    fn answer_again(&mut self, header: &Header) -> Option<()> {
        let (begin, run) = (header.buffer_offset(), header.residual());
        if header.itt() != NO_TAG {
            return None;
        }
        let end = if run == 0 { self.stat_sn } else { begin.wrapping_add(run) };
        let wanted =
            |kept: &&Kept| serial::before_or_at(begin, kept.stat_sn) && serial::before(kept.stat_sn, end);
        //= rfc7143#section-7.1.4.2: a status that was lost is sent again on the same connection.
        let again: alloc::vec::Vec<Outgoing> = self
            .unacknowledged
            .answers
            .iter()
            .filter(wanted)
            .map(|kept| Outgoing::Again { header: kept.header, body: kept.body.clone() })
            .collect();
        let whole = !again.is_empty() && again.len() == end.wrapping_sub(begin) as usize;
        whole.then(|| self.outgoing.extend(again))
    }
}
