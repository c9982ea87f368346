//! One command at the initiator: its data bursts.

use alloc::vec::Vec;

use super::{Command, Completion, Direction};
use crate::coverage::Coverage;
use crate::keys::SessionParameters;
use crate::pdu::{Header, NO_TAG, flag, opcode};
use crate::protocol::{Body, TaskId};
use crate::serial;

/// A run of Data-Out PDUs: the unsolicited one or the answer to an R2T.
#[derive(Clone, Copy, Debug)]
pub(super) struct Burst {
    task: TaskId,
    lun: u64,
    ttt: u32,
    offset: u32,
    end: u32,
    data_sn: u32,
}

impl Burst {
    pub(super) fn next_data_out(&mut self, parameters: &SessionParameters) -> (Header, Body) {
        let len = (self.end - self.offset).min(parameters.max_send_data_segment_length);
        let last = self.offset + len == self.end;
        let header = Header::new(opcode::DATA_OUT, if last { flag::FINAL } else { 0 })
            .with_lun(self.lun)
            .with_itt(self.task.0)
            .with_ttt(self.ttt)
            .with_data_sn(self.data_sn)
            .with_buffer_offset(self.offset);
        let body = Body::Task { task: self.task, offset: self.offset, len };
        self.offset += len;
        self.data_sn = self.data_sn.wrapping_add(1);
        (header, body)
    }

    pub(super) fn is_sent(&self) -> bool {
        self.offset == self.end
    }
}

/// Something to send, in order.
#[derive(Debug)]
pub(super) enum Outgoing {
    Control { header: Header, body: Body },
    Command { task: TaskId, header: Header, immediate: u32 },
    Burst(Burst),
}

impl Outgoing {
    pub(super) fn task(&self) -> Option<TaskId> {
        match self {
            Self::Command { task, .. } => Some(*task),
            Self::Burst(burst) => Some(burst.task),
            Self::Control { .. } => None,
        }
    }
}

impl Outgoing {
    /// True for the answer to a ping.
    pub(super) fn is_echo(&self) -> bool {
        matches!(self, Self::Control { header, .. } if header.opcode() == opcode::NOP_OUT && header.ttt() != NO_TAG)
    }

    /// True for the answer to an R2T of a task.
    pub(super) fn is_asked_of(&self, of: TaskId) -> bool {
        matches!(self, Self::Burst(Burst { task, ttt, .. }) if *task == of && *ttt != NO_TAG)
    }
}

/// Data-In PDUs of one task that are asked for again at the most.
const REPAIRS_MAX: u32 = 256;

/// Why an R2T is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Beyond what the command or the session allows.
    Beyond,
    /// More than MaxOutstandingR2T.
    TooMany,
    /// One before it is missing, or it was there before.
    Number,
    /// It asks for data a second time.
    Twice,
}

impl Unfit {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Beyond => "an R2T beyond the expected length",
            Self::TooMany => "more R2Ts at once than were agreed on",
            Self::Number => "an R2T out of order",
            Self::Twice => "an R2T for data that were sent before",
        }
    }
}

/// What a Data-In is to its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// It is wanted.
    Wanted,
    /// It is there already.
    Repeated,
}

fn is_in_order(parameters: &SessionParameters) -> bool {
    parameters.data_pdu_in_order.is_yes() && parameters.data_sequence_in_order.is_yes()
}

#[derive(Debug)]
pub(super) struct Task {
    command: Command,
    cmd_sn: u32,
    arrived: Coverage,
    /// What the target has been told of: so much, in so many Data-In PDUs.
    acknowledged: (Coverage, u32),
    /// Where the next Data-In begins, where they come in order.
    next_offset: u32,
    next_data_sn: u32,
    /// Numbers of Data-In PDUs that were damaged on their way.
    damaged: Vec<u32>,
    repairs: u32,
    /// An acknowledgement that is due when nothing is damaged any more: the target's tag for it.
    owes: Option<u32>,
    /// The number of the next R2T.
    next_r2t_sn: u32,
    /// Write data that have been sent unasked or asked for.
    asked: Coverage,
    /// The answer with its status number, which waits for the data.
    pub(super) answer: Option<(u32, Completion)>,
}

impl Task {
    /// Opens a task; says what to send first.
    pub(super) fn open(
        task: TaskId,
        command: &Command,
        cmd_sn: u32,
        parameters: &SessionParameters,
    ) -> (Self, impl Iterator<Item = Outgoing> + use<>) {
        let writes = command.direction == Direction::Write;
        let first_burst = if writes { parameters.first_burst_length.min(command.len) } else { 0 };
        let immediate = match parameters.immediate_data.is_yes() {
            true => first_burst.min(parameters.max_send_data_segment_length),
            false => 0,
        };
        let unsolicited = writes && !parameters.initial_r2t.is_yes() && first_burst > immediate;
        let mut flags = command.attribute & 7;
        flags |= match command.direction {
            Direction::None => 0,
            Direction::Read => flag::READ,
            Direction::Write => flag::WRITE,
        };
        flags |= if unsolicited { 0 } else { flag::FINAL };
        let header = Header::new(opcode::SCSI_COMMAND, flags)
            .with_lun(command.lun)
            .with_itt(task.0)
            .with_edtl(command.len)
            .with_cmd_sn(cmd_sn)
            .with_cdb(command.cdb);
        let burst =
            Burst { task, lun: command.lun, ttt: NO_TAG, offset: immediate, end: first_burst, data_sn: 0 };
        let first = core::iter::once(Outgoing::Command { task, header, immediate })
            .chain(unsolicited.then_some(Outgoing::Burst(burst)));
        let mut asked = Coverage::from(0);
        asked.add(0, if unsolicited { first_burst } else { immediate });
        let open = Self {
            command: *command,
            cmd_sn,
            arrived: Coverage::from(0),
            acknowledged: (Coverage::from(0), 0),
            next_offset: 0,
            next_data_sn: 0,
            damaged: Vec::new(),
            repairs: 0,
            owes: None,
            next_r2t_sn: 0,
            asked,
            answer: None,
        };
        (open, first)
    }

    /// The same command from its beginning, with the number that it has.
    pub(super) fn again(
        &self,
        task: TaskId,
        parameters: &SessionParameters,
    ) -> (Self, impl Iterator<Item = Outgoing> + use<>) {
        let (open, first) = Self::open(task, &self.command, self.cmd_sn, parameters);
        (Self { repairs: self.repairs + 1, next_r2t_sn: self.next_r2t_sn, ..open }, first)
    }

    /// The connection is gone, with what was arriving by it. Says how many Data-In PDUs are there for good: what came behind a
    /// gap counts as not received, and where data come in any order, what the target has not been told of.
    pub(super) fn lose_connection(&mut self, arriving: Option<u32>, parameters: &SessionParameters) -> u32 {
        (self.answer, self.owes) = (None, None);
        let missing = self.damaged.drain(..).chain(arriving).min();
        match missing {
            None => {}
            Some(data_sn) if is_in_order(parameters) => {
                let there = self.arrived.front();
                self.arrived = Coverage::from(0);
                self.arrived.add(0, there);
                (self.next_offset, self.next_data_sn) = (there, data_sn);
            }
            //= rfc7143#section-11.5.6(c): what was not acknowledged is discarded.
            Some(_) => (self.arrived, self.next_data_sn) = self.acknowledged.clone(),
        }
        // ExpDataSN tells the target so.
        self.acknowledged = (self.arrived.clone(), self.next_data_sn);
        self.next_data_sn
    }

    pub(super) fn cmd_sn(&self) -> u32 {
        self.cmd_sn
    }

    pub(super) fn lun(&self) -> u64 {
        self.command.lun
    }

    /// Checks a Data-In header.
    pub(super) fn on_data_in(
        &mut self,
        header: &Header,
        parameters: &SessionParameters,
    ) -> Result<Piece, ()> {
        let len = u32::try_from(header.data_len()).map_err(|_| ())?;
        let offset = header.buffer_offset();
        let end = offset.checked_add(len).ok_or(())?;
        if self.command.direction != Direction::Read || end > self.command.len {
            return Err(());
        }
        let recovers = parameters.error_recovery_level > 0;
        if header.data_sn() != self.next_data_sn {
            let was_damaged = self.damaged.contains(&header.data_sn());
            return match recovers && serial::before(header.data_sn(), self.next_data_sn) {
                true if was_damaged && !self.arrived.overlaps(offset, end) => Ok(Piece::Wanted),
                true if !was_damaged => Ok(Piece::Repeated),
                _ => Err(()),
            };
        }
        let in_order = !is_in_order(parameters) || offset == self.next_offset;
        let fits = !self.arrived.overlaps(offset, end) && !self.arrived.is_scattered(self.command.len);
        if !in_order || !fits {
            return Err(());
        }
        self.next_offset = end;
        self.next_data_sn = self.next_data_sn.wrapping_add(1);
        Ok(Piece::Wanted)
    }

    /// The data of a Data-In that is wanted are in, and right.
    pub(super) fn on_data_in_end(&mut self, header: &Header) {
        let offset = header.buffer_offset();
        self.damaged.retain(|data_sn| *data_sn != header.data_sn());
        self.arrived.add(offset, offset + u32::try_from(header.data_len()).unwrap_or(0));
        //= rfc7143#section-11.7.2: what the target asks to have acknowledged is, once everything before it is here.
        if header.has(flag::ACKNOWLEDGE) {
            self.owes = Some(header.ttt());
        }
    }

    /// They are damaged. An error: that happens too often.
    pub(super) fn on_damaged(&mut self, header: &Header) -> Result<(), ()> {
        self.repairs += 1;
        if !self.damaged.contains(&header.data_sn()) {
            self.damaged.push(header.data_sn());
        }
        if self.repairs > REPAIRS_MAX { Err(()) } else { Ok(()) }
    }

    pub(super) fn repairs_left(&self) -> bool {
        self.repairs <= REPAIRS_MAX
    }

    /// The acknowledgement that is due: the target's tag for it, and how many Data-In PDUs are there.
    pub(super) fn take_acknowledgement(&mut self) -> Option<(u32, u32)> {
        let ttt = self.owes.take_if(|_| self.damaged.is_empty())?;
        self.acknowledged = (self.arrived.clone(), self.next_data_sn);
        Some((ttt, self.next_data_sn))
    }

    /// True while damaged data are awaited again.
    pub(super) fn is_damaged(&self) -> bool {
        !self.damaged.is_empty()
    }

    /// True when a command that ended well moved as much read data as its answer says.
    pub(super) fn is_whole(&self, underflow: u32) -> bool {
        let expected = self.command.len.saturating_sub(underflow);
        self.command.direction != Direction::Read
            || (self.arrived.len() == expected && self.arrived.gaps(expected).next().is_none())
    }

    /// The burst that answers an R2T; `outstanding` others of the task have not been sent whole.
    pub(super) fn on_r2t(
        &mut self,
        task: TaskId,
        header: &Header,
        outstanding: usize,
        parameters: &SessionParameters,
    ) -> Result<Outgoing, Unfit> {
        let len = header.residual();
        let end = header.buffer_offset().checked_add(len).ok_or(Unfit::Beyond)?;
        let writes = self.command.direction == Direction::Write;
        if !writes || len == 0 || end > self.command.len || len > parameters.max_burst_length {
            return Err(Unfit::Beyond);
        }
        //= rfc7143#section-13.17: there are never more than were agreed on.
        if outstanding >= parameters.max_outstanding_r2t as usize {
            return Err(Unfit::TooMany);
        }
        //= rfc7143#section-11.8: R2Ts are numbered from zero; where nothing is recovered, each comes once, and so do its data.
        let number = header.data_sn();
        let recovers = parameters.error_recovery_level > 0;
        if !recovers && number != self.next_r2t_sn {
            return Err(Unfit::Number);
        }
        if !recovers && self.asked.overlaps(header.buffer_offset(), end) {
            return Err(Unfit::Twice);
        }
        self.next_r2t_sn = number.wrapping_add(1);
        if !recovers {
            self.asked.add(header.buffer_offset(), end);
        }
        let lun = self.command.lun;
        Ok(Outgoing::Burst(Burst {
            task,
            lun,
            ttt: header.ttt(),
            offset: header.buffer_offset(),
            end,
            data_sn: 0,
        }))
    }
}

#[cfg(test)]
mod tests;
