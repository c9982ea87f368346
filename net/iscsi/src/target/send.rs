//! The sending half: numbers, window and residuals are put in when a PDU leaves, not when it is queued.

use alloc::vec::Vec;

use super::task::{self, Outgoing};
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

    pub(super) fn take_stat_sn(&mut self) -> u32 {
        let stat_sn = self.stat_sn;
        self.stat_sn = self.stat_sn.wrapping_add(1);
        stat_sn
    }

    pub(super) fn close_task(&mut self, task: TaskId) -> bool {
        let Some(open) = self.tasks.remove(&task) else { return false };
        if open.numbered() {
            self.numbers.get().close();
        }
        true
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

    pub(super) fn next_data_in(
        &mut self,
        task: TaskId,
        sent: u32,
        len: u32,
        data_sn: u32,
        response: Response,
    ) -> Option<Transmit> {
        let open = self.tasks.get(&task)?;
        let (offset, chunk) = task::data_in_chunk(sent, len, &self.parameters);
        let last = offset + chunk == len;
        let burst_ends = (offset + chunk) % self.parameters.max_burst_length == 0;
        let expected_len = open.expected_len();
        let lun = open.lun();
        let mut header = Header::new(opcode::DATA_IN, 0)
            .with_itt(task.0)
            .with_ttt(NO_TAG)
            .with_lun(lun)
            .with_data_sn(data_sn)
            .with_buffer_offset(offset);
        if last || burst_ends {
            header = header.with_flags(flag::FINAL);
        }
        let collapses = last && response.status == 0 && response.sense.is_empty();
        if collapses {
            // Phase collapse: a good status rides in the last Data-In.
            let residual = task::residual(expected_len, response.transfer_len);
            header = residual.apply(header.with_flags(flag::STATUS)).with_stat_sn(self.take_stat_sn());
            self.close_task(task);
        } else if last {
            self.outgoing.push_front(Outgoing::Response { task, data_sn: data_sn + 1, response });
        } else {
            let rest = Outgoing::Data { task, sent: offset + chunk, len, data_sn: data_sn + 1, response };
            self.outgoing.push_front(rest);
        }
        let header = self.window(header);
        let transmit = self.frame(&header, Body::Task { task, offset, len: chunk });
        Some(if collapses { transmit.ending(task) } else { transmit })
    }

    pub(super) fn next_response(
        &mut self,
        task: TaskId,
        data_sn: u32,
        response: &Response,
    ) -> Option<Transmit> {
        let expected_len = self.tasks.get(&task)?.expected_len();
        let exp_data_sn = data_sn.wrapping_add(self.tasks.get(&task)?.r2ts_sent());
        self.close_task(task);
        let header = Header::new(opcode::SCSI_RESPONSE, flag::FINAL)
            .with_byte(3, response.status)
            .with_itt(task.0)
            .with_stat_sn(self.take_stat_sn())
            .with_data_sn(exp_data_sn);
        let header = self.window(task::residual(expected_len, response.transfer_len).apply(header));
        let body = if response.sense.is_empty() {
            Body::None
        } else {
            let len = u16::try_from(response.sense.len()).unwrap_or(u16::MAX);
            let mut bytes = Vec::with_capacity(2 + response.sense.len());
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(&response.sense);
            Body::Inline(bytes)
        };
        Some(self.frame(&header, body).ending(task))
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
                Some(self.frame(&header, body))
            }
            // An unsolicited ping does not advance StatSN (RFC 7143 section 11.19).
            Outgoing::Unnumbered(header) => {
                Some(self.frame(&self.window(header.with_stat_sn(self.stat_sn)), Body::None))
            }
            Outgoing::R2t { task, header } => {
                self.tasks.get(&task)?;
                Some(self.frame(&self.window(header.with_stat_sn(self.stat_sn)), Body::None))
            }
            Outgoing::Data { task, sent, len, data_sn, response } => {
                self.next_data_in(task, sent, len, data_sn, response)
            }
            Outgoing::Response { task, data_sn, response } => self.next_response(task, data_sn, &response),
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
