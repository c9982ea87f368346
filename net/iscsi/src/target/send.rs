//! The sending half: numbers, window and residuals are put in when a PDU leaves, not when it is queued.

use alloc::vec::Vec;

use super::outgoing::{Layout, Outgoing};
use super::recovery::Answered;
use super::residual::residual;
use super::task::{Place, Task};
use super::{Connection, Event, Phase, Response};
use crate::digest::Digest;
use crate::pdu::{Header, NO_TAG, flag, opcode};
use crate::protocol::{Body, TaskId, Transmit};

impl Connection {
    pub(super) fn send(&mut self, header: Header, body: Body) {
        self.outgoing.push_back(Outgoing::Control { header, body });
    }

    pub(super) fn new_ttt(&mut self) -> u32 {
        let ttt = self.next_ttt;
        self.next_ttt = self.next_ttt.wrapping_add(1);
        if self.next_ttt == NO_TAG {
            self.next_ttt = 1;
        }
        ttt
    }

    //= rfc7143#section-4.2.2.2(a): each status takes a number.
    pub(super) fn take_stat_sn(&mut self) -> u32 {
        let stat_sn = self.stat_sn;
        self.stat_sn = self.stat_sn.wrapping_add(1);
        stat_sn
    }

    pub(super) fn close_task(&mut self, task: TaskId) -> bool {
        let Some(open) = self.tasks.remove(&task) else { return false };
        self.give_back(&open);
        true
    }

    fn give_back(&mut self, open: &Task) {
        if open.place == Place::Numbered {
            self.numbers.get().close();
        }
    }

    pub(super) fn window(&self, header: Header) -> Header {
        self.numbers.window(header)
    }

    pub(super) fn frame(&self, header: &Header, body: Body) -> Transmit {
        let (header_digest, data_digest) = match self.phase {
            Phase::Login => (Digest::None, Digest::None),
            _ => (self.parameters.header_digest, self.parameters.data_digest),
        };
        Transmit::new(header, body, header_digest, data_digest)
    }

    fn data_in(task: TaskId, lun: u64, layout: Layout, (offset, data_sn): (u32, u32)) -> (Header, u32) {
        let end = offset + layout.segment(offset);
        //= rfc7143#section-11.7.1(a): F ends each burst and the last one.
        let header = Header::new(opcode::DATA_IN, if layout.ends_at(end) { flag::FINAL } else { 0 })
            .with_itt(task.0)
            .with_ttt(NO_TAG)
            .with_lun(lun)
            //= rfc7143#section-4.2.2.4(b): DataSN counts the PDUs of a command from zero.
            .with_data_sn(data_sn)
            //= rfc7143#section-11.7.6: and the offsets follow each other.
            .with_buffer_offset(offset);
        (header, end)
    }

    fn next_data_in(
        &mut self,
        task: TaskId,
        offset: u32,
        layout: Layout,
        data_sn: u32,
        response: Response,
    ) -> Option<Transmit> {
        let open = self.tasks.get(&task)?;
        let expected_len = open.expected_len();
        let (mut header, end) = Self::data_in(task, open.lun(), layout, (offset, data_sn));
        let last = end == layout.len;
        //= rfc7143#section-11.7.3: a status rides in the last PDU of the data, and only a good one without sense.
        let collapses = last && response.status == 0 && response.sense.is_empty() && !self.recovers();
        if collapses {
            // Phase collapse: a good status rides in the last Data-In.
            let residual = residual(expected_len, response.transfer_len);
            header = residual.apply(header.with_flags(flag::STATUS)).with_stat_sn(self.take_stat_sn());
            self.close_task(task);
        } else if last {
            let layout = Some(layout);
            self.outgoing.push_front(Outgoing::Response { task, data_sn: data_sn + 1, layout, response });
        } else {
            let rest = Outgoing::Data { task, sent: end, layout, data_sn: data_sn + 1, response };
            self.outgoing.push_front(rest);
            if self.recovers() && layout.ends_at(end) {
                // A: the initiator says what it has.
                //= rfc7143#section-11.7.2: A is set at level 1 and above, at the end of a burst.
                header = header.with_flags(flag::ACKNOWLEDGE).with_ttt(self.receipt_ttt(task));
            }
        }
        let header = self.window(header);
        let transmit = self.frame(&header, Body::Task { task, offset, len: end - offset });
        Some(if collapses { transmit.ending(task) } else { transmit })
    }

    /// The tag of a task's receipts: one for all.
    fn receipt_ttt(&mut self, task: TaskId) -> u32 {
        let known = self.tasks.get(&task).and_then(|open| open.receipt.ttt);
        let ttt = known.unwrap_or_else(|| self.new_ttt());
        if let Some(open) = self.tasks.get_mut(&task) {
            open.receipt.ttt = Some(ttt);
        }
        ttt
    }

    fn next_data_again(
        &mut self,
        task: TaskId,
        lun: u64,
        layout: Layout,
        (offset, data_sn): (u32, u32),
        until: u32,
    ) -> Transmit {
        let (header, end) = Self::data_in(task, lun, layout, (offset, data_sn));
        let data_sn = data_sn + 1;
        if data_sn < until && end < layout.len {
            let rest = Outgoing::DataAgain { task, lun, layout, offset: end, data_sn, until };
            self.outgoing.push_front(rest);
        }
        self.frame(&self.window(header), Body::Task { task, offset, len: end - offset })
    }

    fn next_response(
        &mut self,
        task: TaskId,
        data_sn: u32,
        layout: Option<Layout>,
        response: Response,
    ) -> Option<Transmit> {
        let mut open = self.tasks.remove(&task)?;
        self.give_back(&open);
        let expected_len = open.expected_len();
        //= rfc7144#section-5.2.1: the status qualifier stays zero: nothing more is said of a status than the status.
        let header = Header::new(opcode::SCSI_RESPONSE, flag::FINAL)
            //= rfc7143#section-11.4.2: the status of a command that was carried out; the response code (11.4.3) says that it was.
            .with_byte(3, response.status)
            .with_itt(task.0)
            //= rfc7143#section-11.4.4: zero, or the tag of the R-Data SNACK.
            .with_ttt(open.snack_tag)
            .with_stat_sn(self.take_stat_sn())
            //= rfc7143#section-11.4.8: ExpDataSN is how many Data-In PDUs there were; R2Ts are none.
            .with_data_sn(data_sn);
        let header = self.window(residual(expected_len, response.transfer_len).apply(header));
        let body = if response.sense.is_empty() {
            Body::None
        } else {
            //= rfc7143#section-11.4.7: the length first, then the sense data.
            //= rfc7144#section-5.2.2: of either format.
            let len = u16::try_from(response.sense.len()).unwrap_or(u16::MAX);
            let mut bytes = Vec::with_capacity(2 + response.sense.len());
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(&response.sense);
            Body::Inline(bytes)
        };
        if self.recovers() {
            open.place = Place::GivenBack;
            self.keep(&header, &body, Some(Answered { task, open, layout, response }));
        }
        let transmit = self.frame(&header, body);
        Some(if self.recovers() { transmit } else { transmit.ending(task) })
    }

    /// The window, where nothing else is to be sent that shows it.
    pub(super) fn next_window(&self) -> Option<Transmit> {
        let is_idle = self.phase == Phase::FullFeature && self.requests.is_empty();
        if !is_idle || !self.numbers.get().has_opened() {
            return None;
        }
        //= rfc7143#section-11.4.11: a MaxCmdSN that changed goes by NOP-In when no other PDU carries it.
        let header = Header::new(opcode::NOP_IN, flag::FINAL).with_itt(NO_TAG).with_ttt(NO_TAG);
        Some(self.frame(&self.window(header.with_stat_sn(self.stat_sn)), Body::None))
    }

    pub(super) fn next_outgoing(&mut self, outgoing: Outgoing) -> Option<Transmit> {
        match outgoing {
            Outgoing::Control { header, body } => {
                let header = if header.opcode() == opcode::LOGIN_RESPONSE && header.byte(36) != 0 {
                    header
                } else {
                    let stat_sn = self.take_stat_sn();
                    header.with_stat_sn(stat_sn)
                };
                let header = self.window(header);
                self.keep(&header, &body, None);
                Some(self.frame(&header, body))
            }
            Outgoing::Again { header, body } => Some(self.frame(&self.window(header), body)),
            // An unsolicited ping does not advance StatSN (RFC 7143 section 11.19.2).
            Outgoing::Unnumbered(header) => {
                Some(self.frame(&self.window(header.with_stat_sn(self.stat_sn)), Body::None))
            }
            Outgoing::R2t { task, header } => {
                //= rfc7143#section-11.8.3: the next StatSN is shown, and not taken.
                self.tasks.get(&task)?;
                Some(self.frame(&self.window(header.with_stat_sn(self.stat_sn)), Body::None))
            }
            Outgoing::Data { task, sent, layout, data_sn, response } => {
                self.next_data_in(task, sent, layout, data_sn, response)
            }
            Outgoing::DataAgain { task, lun, layout, offset, data_sn, until } => {
                Some(self.next_data_again(task, lun, layout, (offset, data_sn), until))
            }
            Outgoing::Response { task, data_sn, layout, response } => {
                self.next_response(task, data_sn, layout, response)
            }
            Outgoing::EnterFullFeature => {
                self.phase = Phase::FullFeature;
                self.deframer.set_digests(self.parameters.header_digest, self.parameters.data_digest);
                self.events.push_back(Event::LoggedIn);
                None
            }
            Outgoing::Close(reason) => {
                self.close(reason);
                None
            }
        }
    }
}
