//! Error recovery level 1 at the initiator: what was damaged on its way is asked for again, or sent again (RFC 7143 sections
//! 7.1.4, 7.8 and 11.16).

use alloc::vec::Vec;

use super::task::Outgoing;
use super::{Connection, Text};
use crate::pdu::{BHS_LEN, Header, NO_TAG, flag, opcode};
use crate::protocol::{Body, TaskId};
use crate::serial;

/// Kinds of SNACK (RFC 7143 section 11.16.1).
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const STATUS: u8 = 1;
    pub(super) const DATA_ACK: u8 = 2;
}

/// Reason of a Reject: the data digest was wrong.
const DATA_DIGEST: u8 = 2;
/// Answers of one connection that are asked for again at the most, without one that arrives.
const REPAIRS_MAX: u32 = 256;
/// How far beyond the next in order a status number may be, while that is missing: as much as a target keeps.
const AHEAD_MAX: u32 = 1024;

/// When an answer is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receipt {
    /// With the next PDU.
    Now,
    /// When the data that it is about are there.
    Later,
}

/// Status numbers as they come in.
#[derive(Debug, Default)]
pub(super) struct Statuses {
    /// The next in order.
    pub(super) expected: u32,
    /// Those that came beyond that.
    ahead: Vec<u32>,
    /// Those of answers whose data have not all arrived: to acknowledge them would tell the target that they have.
    withheld: Vec<u32>,
    repairs: u32,
}

impl Statuses {
    /// True for a number that is further ahead than a target may be of what it has no acknowledgement for.
    pub(super) fn is_too_far_ahead(&self, stat_sn: u32) -> bool {
        !serial::before(stat_sn, self.expected.wrapping_add(AHEAD_MAX))
    }

    /// Takes a number; false when it was taken before.
    pub(super) fn take(&mut self, stat_sn: u32, receipt: Receipt) -> bool {
        if serial::before(stat_sn, self.expected) || self.ahead.contains(&stat_sn) {
            return false;
        }
        self.repairs = 0;
        if receipt == Receipt::Later {
            self.withheld.push(stat_sn);
        }
        self.ahead.push(stat_sn);
        self.catch_up();
        true
    }

    /// Acknowledges a number that was withheld.
    pub(super) fn release(&mut self, stat_sn: u32) {
        self.withheld.retain(|withheld| *withheld != stat_sn);
        self.catch_up();
    }

    fn catch_up(&mut self) {
        while let Some(at) = self.ahead.iter().position(|ahead| *ahead == self.expected)
            && !self.withheld.contains(&self.expected)
        {
            self.ahead.swap_remove(at);
            self.expected = self.expected.wrapping_add(1);
        }
    }
}

/// True for PDUs that take a status number.
pub(super) fn is_numbered(header: &Header) -> bool {
    match header.opcode() {
        opcode::DATA_IN => header.has(flag::STATUS),
        opcode::R2T => false,
        opcode::NOP_IN => header.itt() != NO_TAG,
        _ => true,
    }
}

impl Connection {
    pub(super) fn recovers(&self) -> bool {
        self.parameters.error_recovery_level > 0
    }

    /// A PDU with damaged data: it counts as not received (RFC 7143 section 7.8).
    //= rfc7143#section-7.9: what is missing for it is asked for as what is damaged.
    pub(super) fn on_damaged(&mut self) {
        if !self.recovers() {
            return self.misbehaved("a data digest is wrong");
        }
        self.arriving = None;
        let header = self.deframer.header();
        self.deframer.take_data();
        if header.opcode() == opcode::DATA_IN {
            return self.on_damaged_data(&header);
        }
        // One without a number asks for nothing that a later one does not ask for again.
        if !is_numbered(&header) || serial::before(header.stat_sn(), self.statuses.expected) {
            return;
        }
        self.statuses.repairs += 1;
        if self.statuses.repairs > REPAIRS_MAX {
            return self.misbehaved("its answers are damaged again and again");
        }
        self.snack(kind::STATUS, (0, NO_TAG, NO_TAG), header.stat_sn(), 1);
    }

    fn on_damaged_data(&mut self, header: &Header) {
        let task = TaskId(header.itt());
        // Repeated data that nobody needs.
        if self.piece != super::task::Piece::Wanted {
            return;
        }
        let Some(open) = self.tasks.get_mut(&task) else { return };
        let lun = open.lun();
        match open.on_damaged(header) {
            Ok(()) => self.snack(kind::DATA, (lun, task.0, NO_TAG), header.data_sn(), 1),
            Err(()) => self.misbehaved("its data are damaged again and again"),
        }
    }

    fn snack(&mut self, kind: u8, (lun, itt, ttt): (u64, u32, u32), begin: u32, run: u32) {
        let header = Header::new(opcode::SNACK, flag::FINAL | kind)
            .with_lun(lun)
            .with_itt(itt)
            .with_ttt(ttt)
            .with_buffer_offset(begin)
            .with_residual(run);
        self.outgoing.push_back(Outgoing::Control { header, body: Body::None });
    }

    /// Tells the target what has arrived, where it wants to know.
    pub(super) fn acknowledge_data(&mut self, task: TaskId) {
        let Some(open) = self.tasks.get_mut(&task) else { return };
        let lun = open.lun();
        if let Some((ttt, has)) = open.take_acknowledgement() {
            self.snack(kind::DATA_ACK, (lun, NO_TAG, ttt), has, 0);
        }
    }

    /// A Reject: what was damaged on its way to the target is sent again.
    pub(super) fn on_reject(&mut self, reason: u8, rejected: &[u8]) {
        let rejected = rejected.get(..BHS_LEN).and_then(|bytes| bytes.try_into().ok()).map(Header);
        let Some(rejected) = rejected.filter(|_| self.recovers() && reason == DATA_DIGEST) else {
            return self.misbehaved("the target rejected a PDU");
        };
        match rejected.opcode() {
            // The target asks for them.
            opcode::DATA_OUT => {}
            opcode::SCSI_COMMAND => self.send_command_again(TaskId(rejected.itt())),
            opcode::TEXT => self.send_text_again(rejected.itt()),
            opcode::NOP_OUT => {}
            _ => self.misbehaved("the target rejected a PDU without data for its data"),
        }
    }

    fn send_command_again(&mut self, task: TaskId) {
        let Some(open) = self.tasks.get(&task) else { return };
        if !open.repairs_left() {
            return self.misbehaved("a command is damaged again and again");
        }
        let (open, first) = open.again(task, &self.parameters);
        self.outgoing.retain(|outgoing| outgoing.task() != Some(task));
        self.outgoing.extend(first);
        self.tasks.insert(task, open);
    }

    fn send_text_again(&mut self, itt: u32) {
        if let Some(Text { header, body, .. }) = &self.text_request
            && header.itt() == itt
        {
            let again = Outgoing::Control { header: *header, body: body.clone() };
            self.outgoing.push_back(again);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_beyond_a_missing_one_are_kept_within_bounds() {
        let mut statuses = Statuses { expected: u32::MAX - 2, ..Statuses::default() };
        for ahead in 1..AHEAD_MAX {
            let number = statuses.expected.wrapping_add(ahead);
            assert!(!statuses.is_too_far_ahead(number) && statuses.take(number, Receipt::Now));
        }
        assert!(statuses.is_too_far_ahead(statuses.expected.wrapping_add(AHEAD_MAX)));
        assert!(!statuses.is_too_far_ahead(statuses.expected.wrapping_sub(1)), "one that came before");
        assert!(statuses.take(u32::MAX - 2, Receipt::Now));
        assert_eq!((statuses.expected, statuses.ahead.len()), (AHEAD_MAX - 3, 0));
    }
}
