//! One command at the target: its write data and what is to be sent for it.

use alloc::vec::Vec;

use super::Response;
use crate::keys::SessionParameters;
use crate::pdu::{Header, NO_TAG, flag, opcode};
use crate::protocol::{Body, CloseReason, TaskId};

/// Something to send, in order.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A PDU that takes a StatSN.
    Control {
        header: Header,
        body: Body,
    },
    /// A PDU that shows the next StatSN and does not take it.
    Unnumbered(Header),
    R2t {
        task: TaskId,
        header: Header,
    },
    /// Read data from `sent` on, then the response.
    Data {
        task: TaskId,
        sent: u32,
        len: u32,
        data_sn: u32,
        response: Response,
    },
    Response {
        task: TaskId,
        data_sn: u32,
        response: Response,
    },
    /// The final login response is out: digests begin.
    EnterFullFeature,
    Close(CloseReason),
}

impl Outgoing {
    pub(super) fn task(&self) -> Option<TaskId> {
        match self {
            Self::R2t { task, .. } | Self::Data { task, .. } | Self::Response { task, .. } => Some(*task),
            _ => None,
        }
    }
}

/// A burst that the initiator sends: the unsolicited one or an R2T's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Burst {
    ttt: u32,
    next_offset: u32,
    end: u32,
    next_data_sn: u32,
}

/// Where a task's write data stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// The owner has not said how much it wants.
    Undecided,
    /// This many bytes are wanted in all.
    Wanted(u32),
    /// All there; the owner was told.
    Complete,
    /// Damaged; the owner was told.
    Failed,
}

/// Data that came with a command that had to wait.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// From offset zero.
    pub(super) data: Vec<u8>,
    /// Unsolicited Data-Out PDUs among them.
    pub(super) data_outs: u32,
}

#[derive(Debug)]
pub(super) struct Task {
    lun: u64,
    flags: u8,
    expected_len: u32,
    numbered: bool,
    flow: Flow,
    /// Bytes that arrived, in order from zero.
    received: u32,
    /// Bytes asked for by R2T or sent unsolicited.
    asked: u32,
    bursts: Vec<Burst>,
    r2t_sn: u32,
    /// Received before the owner had a buffer.
    early: Vec<u8>,
}

impl Task {
    /// Opens the task of a command header; `None` when the header contradicts the session's parameters.
    pub(super) fn open(header: &Header, early: Early, parameters: &SessionParameters) -> Option<Self> {
        let writes = header.has(flag::WRITE);
        let immediate = u32::try_from(header.data_len()).ok()?;
        let may_carry = writes && parameters.immediate_data.is_yes();
        if immediate > 0 && (!may_carry || immediate > parameters.first_burst_length.min(header.edtl())) {
            return None;
        }
        let unsolicited_follows = writes && !header.has(flag::FINAL);
        if unsolicited_follows && parameters.initial_r2t.is_yes() {
            return None;
        }
        let first_end = parameters.first_burst_length.min(header.edtl());
        let Early { data, data_outs } = early;
        let there = u32::try_from(data.len()).ok()?;
        let begun = immediate.max(there);
        let mut bursts = Vec::new();
        let mut asked = begun;
        if unsolicited_follows && first_end > begun {
            bursts.push(Burst { ttt: NO_TAG, next_offset: begun, end: first_end, next_data_sn: data_outs });
            asked = first_end;
        }
        Some(Self {
            lun: header.lun(),
            flags: header.flags(),
            expected_len: header.edtl(),
            numbered: !header.is_immediate(),
            flow: Flow::Undecided,
            received: there,
            asked,
            bursts,
            r2t_sn: 0,
            early: data,
        })
    }

    pub(super) fn take_early(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.early)
    }

    pub(super) fn lun(&self) -> u64 {
        self.lun
    }

    pub(super) fn reads(&self) -> bool {
        self.flags & flag::READ != 0
    }

    pub(super) fn expected_len(&self) -> u32 {
        self.expected_len
    }

    pub(super) fn numbered(&self) -> bool {
        self.numbered
    }

    pub(super) fn r2ts_sent(&self) -> u32 {
        self.r2t_sn
    }

    /// The owner wants `len` bytes in all.
    pub(super) fn want(&mut self, len: u32) {
        if self.flow == Flow::Undecided {
            self.flow = Flow::Wanted(len);
        }
    }

    /// Marks the data damaged; true the first time.
    pub(super) fn fail(&mut self) -> bool {
        let first = self.flow != Flow::Failed && self.flow != Flow::Complete;
        self.flow = Flow::Failed;
        first
    }

    /// Checks a Data-Out header against the bursts that are open.
    pub(super) fn on_data_out(&mut self, header: &Header) -> Result<(), ()> {
        let len = u32::try_from(header.data_len()).map_err(|_| ())?;
        let burst = self.bursts.iter_mut().find(|burst| burst.ttt == header.ttt()).ok_or(())?;
        let end = header.buffer_offset().checked_add(len).ok_or(())?;
        //= rfc7143#section-11.7.5: DataSN counts from zero within a burst, offsets rise in order.
        if header.data_sn() != burst.next_data_sn
            || header.buffer_offset() != burst.next_offset
            || end > burst.end
        {
            return Err(());
        }
        burst.next_data_sn = burst.next_data_sn.wrapping_add(1);
        burst.next_offset = end;
        Ok(())
    }

    /// The data of a command or Data-Out header is in. An error: a burst ended before it brought what was asked for.
    pub(super) fn on_data_end(&mut self, header: &Header) -> Result<(), ()> {
        let len = u32::try_from(header.data_len()).unwrap_or(0);
        if header.opcode() == opcode::SCSI_COMMAND {
            self.received = len;
            return Ok(());
        }
        let Some(at) = self.bursts.iter().position(|burst| burst.ttt == header.ttt()) else { return Ok(()) };
        self.received = self.received.saturating_add(len);
        let burst = self.bursts[at];
        if header.has(flag::FINAL) || burst.next_offset == burst.end {
            self.bursts.remove(at);
            if burst.next_offset < burst.end {
                // A first burst may be shorter than allowed: the rest is asked for. A solicited one may not.
                //= rfc7143#section-11.8.4: the data of an R2T are sent whole.
                if burst.ttt != NO_TAG {
                    return Err(());
                }
                self.asked = burst.next_offset;
            }
        }
        Ok(())
    }

    /// True once, when everything wanted has arrived.
    pub(super) fn take_complete(&mut self) -> bool {
        match self.flow {
            Flow::Wanted(len) if self.received >= len && self.bursts.is_empty() => {
                self.flow = Flow::Complete;
                true
            }
            _ => false,
        }
    }

    /// The next R2T that may be sent.
    pub(super) fn next_r2t(&mut self, ttt: u32, parameters: &SessionParameters) -> Option<Header> {
        let Flow::Wanted(wanted) = self.flow else { return None };
        let unsolicited_open = self.bursts.iter().any(|burst| burst.ttt == NO_TAG);
        if unsolicited_open
            || self.asked >= wanted
            || self.bursts.len() >= parameters.max_outstanding_r2t as usize
        {
            return None;
        }
        let len = (wanted - self.asked).min(parameters.max_burst_length);
        let header = Header::new(opcode::R2T, flag::FINAL)
            .with_lun(self.lun)
            .with_ttt(ttt)
            .with_data_sn(self.r2t_sn)
            .with_buffer_offset(self.asked)
            .with_residual(len);
        self.bursts.push(Burst { ttt, next_offset: self.asked, end: self.asked + len, next_data_sn: 0 });
        self.asked += len;
        self.r2t_sn = self.r2t_sn.wrapping_add(1);
        Some(header)
    }
}

/// The next piece of read data: at most the peer's segment length, never across the end of a burst.
pub(super) fn data_in_chunk(sent: u32, len: u32, parameters: &SessionParameters) -> (u32, u32) {
    let burst_left = parameters.max_burst_length - sent % parameters.max_burst_length;
    (sent, (len - sent).min(parameters.max_send_data_segment_length).min(burst_left))
}

/// How far the expected and the actual transfer length are apart (RFC 7143 section 11.4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Residual {
    None,
    Overflow(u32),
    Underflow(u32),
}

pub(super) fn residual(expected: u32, actual: u64) -> Residual {
    let wide = u64::from(expected);
    match actual.cmp(&wide) {
        core::cmp::Ordering::Equal => Residual::None,
        core::cmp::Ordering::Greater => Residual::Overflow(u32::try_from(actual - wide).unwrap_or(u32::MAX)),
        core::cmp::Ordering::Less => Residual::Underflow(u32::try_from(wide - actual).unwrap_or(u32::MAX)),
    }
}

impl Residual {
    pub(super) fn apply(self, header: Header) -> Header {
        match self {
            Self::None => header,
            Self::Overflow(count) => header.with_flags(flag::OVERFLOW).with_residual(count),
            Self::Underflow(count) => header.with_flags(flag::UNDERFLOW).with_residual(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_out(ttt: u32, data_sn: u32, offset: u32, len: usize, flags: u8) -> Header {
        Header::new(opcode::DATA_OUT, flags)
            .with_ttt(ttt)
            .with_data_sn(data_sn)
            .with_buffer_offset(offset)
            .with_data_len(len)
    }

    #[test]
    fn a_solicited_burst_that_ends_short_fails_whatever_the_others_brought() {
        let parameters = SessionParameters {
            max_burst_length: 512,
            max_outstanding_r2t: 2,
            ..SessionParameters::default()
        };
        let command = Header::new(opcode::SCSI_COMMAND, flag::WRITE | flag::FINAL).with_edtl(1024);
        let mut task = Task::open(&command, Early::default(), &parameters).expect("a write");
        task.on_data_end(&command).expect("no immediate data");
        task.want(1024);
        for ttt in [1, 2] {
            task.next_r2t(ttt, &parameters).expect("two bursts are open at once");
        }
        let second = data_out(2, 0, 512, 512, flag::FINAL);
        task.on_data_out(&second).expect("in order");
        task.on_data_end(&second).expect("whole");
        let first = data_out(1, 0, 0, 256, flag::FINAL);
        task.on_data_out(&first).expect("in order");
        task.on_data_end(&first).expect_err("256 bytes never come");
        assert!(task.fail());
        assert!(!task.take_complete() && task.next_r2t(3, &parameters).is_none());
    }
}
