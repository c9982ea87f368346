//! One command at the target: its write data and what is to be sent for it.

mod burst;

use alloc::vec::Vec;

use super::DataFault;
use super::recovery::Receipt;
use crate::keys::SessionParameters;
use crate::pdu::{Header, NO_TAG, flag, opcode};
use burst::Burst;

/// Why a Data-Out is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Nobody asked for it, or not any more.
    Unasked,
    /// It is out of order, or beyond what was asked for.
    Wrong,
}

impl Unfit {
    /// What that is to the task.
    pub(super) fn fault(self) -> DataFault {
        match self {
            Self::Unasked => DataFault::Unexpected,
            Self::Wrong => DataFault::Amount,
        }
    }
}

/// Where a task's write data stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// The owner has not said how much it wants.
    Undecided,
    /// This many bytes are wanted in all.
    Wanted(u32),
    /// Nobody wants them any more: no more are asked for, and what still comes is dropped.
    GivenUp,
    /// All there, or given up and nothing more comes; the owner was told.
    Complete,
    /// Damaged; the owner was told.
    Failed,
}

/// What a task takes of the session's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// One place: it has a number.
    Numbered,
    /// None: it was sent for immediate delivery.
    Immediate,
    /// None any more: it was answered before.
    GivenBack,
}

/// Immediate data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Immediate {
    /// So many bytes are still coming.
    Coming(u32),
    /// Nothing more comes.
    Over,
}

#[derive(Debug)]
pub(super) struct Task {
    lun: u64,
    flags: u8,
    expected_len: u32,
    pub(super) place: Place,
    flow: Flow,
    immediate: Immediate,
    /// Bytes that arrived.
    received: u32,
    /// Bytes asked for by R2T or sent unsolicited.
    asked: u32,
    bursts: Vec<Burst>,
    r2t_sn: u32,
    pub(super) receipt: Receipt,
    /// Of the last R-Data SNACK; the answer shows it.
    pub(super) snack_tag: u32,
    /// Ranges that were lost on their way, to be asked for again: the last one next.
    lost: Vec<(u32, u32)>,
    /// Received before the owner had a buffer.
    early: Vec<u8>,
}

impl Task {
    /// Opens the task of a command header; `None` for data of a command that has none. A task whose data come unasked where they
    /// may not has failed already.
    pub(super) fn open(header: &Header, parameters: &SessionParameters) -> Option<Self> {
        let writes = header.has(flag::WRITE);
        let immediate = u32::try_from(header.data_len()).ok()?;
        let first_end = parameters.first_burst_length.min(header.edtl());
        //= rfc7143#section-11.3.6: data come with a command that writes, and with no other.
        if immediate > 0 && !writes {
            return None;
        }
        //= rfc7143#section-4.2.5.2: unsolicited data are those that were agreed on.
        let unsolicited_follows = writes && !header.has(flag::FINAL);
        let unasked = (immediate > 0 && !parameters.immediate_data.is_yes())
            || immediate > first_end
            || (unsolicited_follows && parameters.initial_r2t.is_yes());
        let mut bursts = Vec::new();
        let mut asked = immediate;
        if unsolicited_follows && first_end > immediate {
            bursts.push(Burst::new((NO_TAG, 0), immediate, first_end));
            asked = first_end;
        }
        Some(Self {
            lun: header.lun(),
            flags: header.flags(),
            expected_len: header.edtl(),
            place: if header.is_immediate() { Place::Immediate } else { Place::Numbered },
            immediate: if immediate > 0 { Immediate::Coming(immediate) } else { Immediate::Over },
            flow: if unasked { Flow::Failed } else { Flow::Undecided },
            received: 0,
            asked,
            bursts,
            r2t_sn: 0,
            snack_tag: 0,
            receipt: Receipt::default(),
            lost: Vec::new(),
            early: Vec::new(),
        })
    }

    /// Data that came, and were counted, before the owner heard of the task: from offset zero. What is missing among them comes yet.
    pub(super) fn keep_early(&mut self, data: Vec<u8>) {
        if self.flow == Flow::Undecided {
            self.early = data;
        }
    }

    /// There is no room for what came before the task had its turn: it is asked for again.
    pub(super) fn lose_early(&mut self) {
        if self.received > 0 {
            self.lose_ranges([(0, self.received)]);
            self.received = 0;
        }
    }

    /// What is to be asked for again, the first of it first.
    fn lose_ranges(&mut self, ranges: impl IntoIterator<Item = (u32, u32)>) {
        self.lost.extend(ranges);
        //= rfc7143#section-13.19(a): the offsets of sequences rise.
        self.lost.sort_unstable_by(|a, b| b.cmp(a));
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

    pub(super) fn writes(&self) -> bool {
        self.flags & flag::WRITE != 0
    }

    pub(super) fn expected_len(&self) -> u32 {
        self.expected_len
    }

    /// The owner wants `len` bytes in all.
    pub(super) fn want(&mut self, len: u32) {
        if self.flow == Flow::Undecided {
            self.flow = Flow::Wanted(len);
        }
    }

    /// Asks for no more. False when the owner has been told, or will be, how the data came out.
    pub(super) fn give_up(&mut self) -> bool {
        let open = matches!(self.flow, Flow::Undecided | Flow::Wanted(_));
        if open {
            self.flow = Flow::GivenUp;
            self.early = Vec::new();
        }
        open
    }

    /// True for data that nobody wants.
    pub(super) fn is_given_up(&self) -> bool {
        self.flow == Flow::GivenUp
    }

    /// What came of data that nobody wants makes no sense: nothing more is waited for.
    pub(super) fn stop_waiting(&mut self) {
        self.bursts.clear();
        self.immediate = Immediate::Over;
    }

    /// True once, when nothing more comes of data that nobody wants.
    pub(super) fn take_given_up(&mut self) -> bool {
        let over = self.is_given_up() && self.bursts.is_empty() && self.immediate == Immediate::Over;
        if over {
            self.flow = Flow::Complete;
        }
        over
    }

    /// True when the data are known to be wrong.
    pub(super) fn has_failed(&self) -> bool {
        self.flow == Flow::Failed
    }

    /// Marks the data damaged; true the first time.
    pub(super) fn fail(&mut self) -> bool {
        let first = self.flow != Flow::Failed && self.flow != Flow::Complete;
        self.flow = Flow::Failed;
        first
    }

    /// Checks a Data-Out header against the bursts that are open.
    pub(super) fn on_data_out(
        &mut self,
        header: &Header,
        parameters: &SessionParameters,
    ) -> Result<(), Unfit> {
        let len = u32::try_from(header.data_len()).map_err(|_| Unfit::Wrong)?;
        let offset = header.buffer_offset();
        //= rfc7143#section-11.7.4: the tag says which R2T is answered, or that none is.
        let burst = self.bursts.iter_mut().find(|burst| burst.ttt == header.ttt()).ok_or(Unfit::Unasked)?;
        let end = offset.checked_add(len).ok_or(Unfit::Wrong)?;
        //= rfc7143#section-7.9: a number that is skipped stands for data that were lost.
        //= rfc7143#section-4.2.2.4(a): DataSN counts from zero within a burst, offsets rise in order.
        let in_order = !parameters.data_pdu_in_order.is_yes() || offset == burst.next_offset;
        let inside = burst.has_room_for(offset, end);
        let scattered = burst.arrived.is_scattered(burst.end - burst.start);
        if header.data_sn() != burst.next_data_sn || !in_order || !inside || scattered {
            return Err(Unfit::Wrong);
        }
        burst.next_data_sn = burst.next_data_sn.wrapping_add(1);
        burst.next_offset = end;
        burst.reach = burst.reach.max(end);
        Ok(())
    }

    /// The data that came with the command are in, and right.
    pub(super) fn on_immediate_end(&mut self, header: &Header) {
        self.received = u32::try_from(header.data_len()).unwrap_or(0);
        self.immediate = Immediate::Over;
    }

    /// The data of a Data-Out are in, and right. An error: a burst ended before it brought what was asked for.
    pub(super) fn on_data_end(&mut self, header: &Header, parameters: &SessionParameters) -> Result<(), ()> {
        let (len, offset) = (u32::try_from(header.data_len()).unwrap_or(0), header.buffer_offset());
        let Some(at) = self.burst_of(header) else { return Ok(()) };
        let burst = &mut self.bursts[at];
        // It was looked at when its header came.
        let Some(end) = offset.checked_add(len).filter(|end| burst.has_room_for(offset, *end)) else {
            return Ok(());
        };
        self.received = self.received.saturating_add(len);
        burst.arrived.add(offset, end);
        let full = burst.arrived.len() == burst.end - burst.start;
        if header.has(flag::FINAL) || full { self.end_burst(at, parameters) } else { Ok(()) }
    }

    /// The data of a Data-Out that was checked were damaged: they are asked for again.
    pub(super) fn on_data_lost(&mut self, header: &Header, parameters: &SessionParameters) -> Result<(), ()> {
        let Some(at) = self.burst_of(header) else { return Ok(()) };
        if header.has(flag::FINAL) { self.end_burst(at, parameters) } else { Ok(()) }
    }

    /// The burst of a Data-Out that was found right; of a failed task nothing is.
    fn burst_of(&self, header: &Header) -> Option<usize> {
        let open = self.flow != Flow::Failed;
        self.bursts.iter().position(|burst| burst.ttt == header.ttt()).filter(|_| open)
    }

    /// A burst is over. What it left out is asked for again where data may be lost on their way.
    fn end_burst(&mut self, at: usize, parameters: &SessionParameters) -> Result<(), ()> {
        let burst = self.bursts.remove(at);
        //= rfc7143#section-11.8: the data of an R2T are sent whole.
        let end = if burst.ttt == NO_TAG {
            self.asked = burst.reach;
            //= rfc7143#section-11.4.7.2(b): FirstBurstLength, where there is more than that; else the rest is asked for.
            if self.asked < burst.end && self.expected_len > parameters.first_burst_length {
                return Err(());
            }
            self.asked
        } else {
            burst.end
        };
        self.lose_ranges(burst.arrived.gaps(end));
        if self.lost.is_empty() || parameters.error_recovery_level > 0 { Ok(()) } else { Err(()) }
    }

    /// The connection that it came by is gone: what was on its way is asked for again, at another one.
    pub(super) fn lose_connection(&mut self) {
        if let Immediate::Coming(len) = self.immediate {
            self.lose_ranges([(0, len)]);
            self.immediate = Immediate::Over;
        }
        for burst in core::mem::take(&mut self.bursts) {
            self.lose_ranges(burst.arrived.gaps(burst.end));
        }
        //= rfc7143#section-7.2.2: a SNACK tag goes with the connection.
        self.snack_tag = 0;
        self.receipt.ttt = None;
    }

    /// True once, when everything wanted has arrived.
    pub(super) fn take_complete(&mut self) -> bool {
        match self.flow {
            Flow::Wanted(len)
                if self.bursts.is_empty() && self.immediate == Immediate::Over && self.received >= len =>
            {
                self.lost.retain(|(from, _)| *from < len);
                let complete = self.lost.is_empty();
                if complete {
                    self.flow = Flow::Complete;
                }
                complete
            }
            _ => false,
        }
    }

    /// The next R2T that may be sent: for what was lost (a recovery R2T, RFC 7143 section 11.8), then for the rest.
    pub(super) fn next_r2t(&mut self, ttt: u32, parameters: &SessionParameters) -> Option<Header> {
        let Flow::Wanted(wanted) = self.flow else { return None };
        let unsolicited_open = self.bursts.iter().any(|burst| burst.ttt == NO_TAG);
        if unsolicited_open || self.bursts.len() >= parameters.max_outstanding_r2t as usize {
            return None;
        }
        let (from, to) = self.next_range(wanted, parameters)?;
        let burst = Burst::new((ttt, self.r2t_sn), from, to);
        let header = self.r2t(&burst);
        self.bursts.push(burst);
        self.r2t_sn = self.r2t_sn.wrapping_add(1);
        Some(header)
    }

    fn next_range(&mut self, wanted: u32, parameters: &SessionParameters) -> Option<(u32, u32)> {
        while let Some((from, to)) = self.lost.pop() {
            // What nobody wants is not asked for.
            let to = to.min(wanted);
            let until = to.min(from.saturating_add(parameters.max_burst_length));
            if until < to {
                self.lost.push((until, to));
            }
            if from < until {
                return Some((from, until));
            }
        }
        let from = self.asked;
        if from >= wanted {
            return None;
        }
        //= rfc7143#section-11.8.4: from one byte up to MaxBurstLength.
        self.asked = wanted.min(from + parameters.max_burst_length);
        Some((from, self.asked))
    }

    fn r2t(&self, burst: &Burst) -> Header {
        Header::new(opcode::R2T, flag::FINAL)
            .with_lun(self.lun)
            //= rfc7143#section-11.8.5: a tag of its own, and the LUN with it.
            .with_ttt(burst.ttt)
            //= rfc7143#section-4.2.2.4(c): R2Ts of a command are numbered from zero.
            .with_data_sn(burst.r2t_sn)
            .with_buffer_offset(burst.start)
            .with_residual(burst.end - burst.start)
    }

    /// R2Ts that are not answered yet, from one number on, so many or all (RFC 7143 section 11.16); `None` for numbers that no
    /// R2T had.
    pub(super) fn r2ts_again(&self, begin: u32, run: u32) -> Option<Vec<Header>> {
        let end = if run == 0 { self.r2t_sn } else { begin.checked_add(run)? };
        if begin >= self.r2t_sn || end > self.r2t_sn {
            return None;
        }
        let asked = |burst: &&Burst| {
            burst.ttt != NO_TAG && (begin..end).contains(&burst.r2t_sn) && burst.next_data_sn == 0
        };
        Some(self.bursts.iter().filter(asked).map(|burst| self.r2t(burst)).collect())
    }
}

#[cfg(test)]
mod tests;
