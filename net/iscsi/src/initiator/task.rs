//! One command at the initiator: its data bursts.

use super::{Command, Direction};
use crate::keys::SessionParameters;
use crate::pdu::{Header, NO_TAG, flag, opcode};
use crate::protocol::{Body, TaskId};

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

#[derive(Debug)]
pub(super) struct Task {
    command: Command,
    cmd_sn: u32,
    received: u32,
    next_data_sn: u32,
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
        let mut flags = 1; // SIMPLE
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
        (Self { command: *command, cmd_sn, received: 0, next_data_sn: 0 }, first)
    }

    pub(super) fn cmd_sn(&self) -> u32 {
        self.cmd_sn
    }

    /// Checks a Data-In header.
    pub(super) fn on_data_in(&mut self, header: &Header) -> Result<(), ()> {
        let len = u32::try_from(header.data_len()).map_err(|_| ())?;
        let end = header.buffer_offset().checked_add(len).ok_or(())?;
        let right = self.command.direction == Direction::Read
            && end <= self.command.len
            && header.buffer_offset() == self.received
            && header.data_sn() == self.next_data_sn;
        self.received = end;
        self.next_data_sn = self.next_data_sn.wrapping_add(1);
        if right { Ok(()) } else { Err(()) }
    }

    /// True when a command that ended well moved as much read data as its answer says.
    pub(super) fn is_whole(&self, underflow: u32) -> bool {
        self.command.direction != Direction::Read
            || self.received == self.command.len.saturating_sub(underflow)
    }

    /// The burst that answers an R2T.
    pub(super) fn on_r2t(
        &mut self,
        task: TaskId,
        header: &Header,
        parameters: &SessionParameters,
    ) -> Result<Outgoing, ()> {
        let len = header.residual();
        let end = header.buffer_offset().checked_add(len).ok_or(())?;
        let writes = self.command.direction == Direction::Write;
        if !writes || len == 0 || end > self.command.len || len > parameters.max_burst_length {
            return Err(());
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
