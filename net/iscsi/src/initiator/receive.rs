//! The receiving half: PDUs as they come in.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::login::Stage;
use super::recovery::{self, Receipt};
use super::task::{Piece, Task};
use super::{CONTROL_DATA_MAX, Completion, Connection, ECHOES_MAX, Event, Outgoing, Topic};
use crate::deframe::{Sink, Step};
use crate::pdu::{Header, NO_TAG, flag, opcode};
use crate::protocol::{Body, CloseReason, TaskId};
use crate::serial;

impl Connection {
    pub(super) fn on_step(&mut self, mut step: Step) {
        loop {
            step = match step {
                Step::More => return,
                Step::HeaderDigestError => return self.close(CloseReason::HeaderDigest),
                Step::DataDigestError => return self.on_damaged(),
                Step::Header => match self.on_header() {
                    Some(sink) => self.deframer.accept(sink),
                    None => return,
                },
                Step::Pdu => return self.on_pdu(),
            };
            if self.stage == Stage::Closed {
                return;
            }
        }
    }

    fn on_header(&mut self) -> Option<Sink> {
        let header = self.deframer.header();
        let limit = match self.stage {
            Stage::Security | Stage::Operational => 8192.max(CONTROL_DATA_MAX),
            _ => self.parameters.max_recv_data_segment_length as usize,
        };
        if header.data_len() > limit {
            self.misbehaved("a data segment longer than MaxRecvDataSegmentLength");
            return None;
        }
        if header.opcode() == opcode::DATA_IN {
            return self.on_data_in_header(&header);
        }
        Some(if header.data_len() <= CONTROL_DATA_MAX { Sink::Internal } else { Sink::Discard })
    }

    fn on_data_in_header(&mut self, header: &Header) -> Option<Sink> {
        let task = TaskId(header.itt());
        let Some(open) = self.tasks.get_mut(&task) else {
            if self.abandoned.has(task) {
                self.piece = Piece::Repeated;
                return Some(Sink::Discard);
            }
            self.misbehaved("data for a task that does not exist");
            return None;
        };
        let Ok(piece) = open.on_data_in(header, &self.parameters) else {
            self.misbehaved("read data out of order or beyond the expected length");
            return None;
        };
        self.piece = piece;
        Some(match piece {
            Piece::Wanted => {
                self.arriving = Some(*header);
                Sink::Task(task, header.buffer_offset())
            }
            Piece::Repeated => Sink::Discard,
        })
    }

    fn on_pdu(&mut self) {
        self.arriving = None;
        let header = self.deframer.header();
        let data = self.deframer.take_data();
        if matches!(self.stage, Stage::Security | Stage::Operational) {
            return self.on_login_response(&header, &data);
        }
        if !self.on_numbers(&header) {
            return;
        }
        match header.opcode() {
            opcode::SCSI_RESPONSE => self.on_response(&header, &data),
            opcode::DATA_IN => self.on_data_in_end(&header),
            opcode::R2T => self.on_r2t(&header),
            opcode::NOP_IN => self.on_nop_in(&header, data),
            opcode::TEXT_RESPONSE => self.on_text(&header, &data),
            opcode::TASK_MANAGEMENT_RESPONSE => self.on_managed(TaskId(header.itt()), header.byte(2)),
            opcode::LOGOUT_RESPONSE if self.logout == Some(header.itt()) => {
                self.close(CloseReason::LoggedOut);
            }
            opcode::LOGOUT_RESPONSE => self.events.push_back(Event::Removed {
                response: header.byte(2),
                time2wait: header.u16_at(40),
                time2retain: header.u16_at(42),
            }),
            opcode::ASYNC => self.on_async(&header),
            opcode::REJECT => self.on_reject(header.byte(2), &data),
            _ => self.misbehaved("a PDU that a target does not send"),
        }
    }

    /// ExpStatSN and MaxCmdSN from any PDU of the full feature phase. False: it was there before.
    fn on_numbers(&mut self, header: &Header) -> bool {
        //= rfc7143#section-4.2.2.1: an older window is ignored.
        self.numbers.open_to(header.max_cmd_sn());
        self.numbers.acknowledge(header.exp_cmd_sn());
        if !recovery::is_numbered(header) {
            return true;
        }
        if self.recovers() {
            if self.statuses.is_too_far_ahead(header.stat_sn()) {
                self.misbehaved("a status number far beyond those that are missing");
                return false;
            }
            let damaged = self.tasks.get(&TaskId(header.itt())).is_some_and(Task::is_damaged);
            return self.statuses.take(header.stat_sn(), if damaged { Receipt::Later } else { Receipt::Now });
        }
        //= rfc7143#section-4.2.2.2: at level 0 the order of the connection is that of the numbers.
        let next = header.stat_sn().wrapping_add(1);
        if serial::before(self.statuses.expected, next) {
            self.statuses.expected = next;
        }
        true
    }

    fn on_response(&mut self, header: &Header, data: &[u8]) {
        let sense_len = data.get(..2).map_or(0, |len| usize::from(u16::from_be_bytes([len[0], len[1]])));
        let sense = data.get(2..).map_or(&[][..], |rest| &rest[..sense_len.min(rest.len())]).to_vec();
        self.complete(header, header.byte(2), sense);
    }

    fn on_data_in_end(&mut self, header: &Header) {
        let task = TaskId(header.itt());
        if self.piece == Piece::Wanted
            && let Some(open) = self.tasks.get_mut(&task)
        {
            open.on_data_in_end(header);
        }
        if header.has(flag::STATUS) {
            return self.complete(header, 0, Vec::new());
        }
        if self.recovers() {
            self.acknowledge_data(task);
            self.finish(task);
        }
    }

    fn complete(&mut self, header: &Header, response: u8, sense: Vec<u8>) {
        let task = TaskId(header.itt());
        let count = |bit| if header.has(bit) { header.residual() } else { 0 };
        let completion = Completion {
            status: header.byte(3),
            sense,
            response,
            underflow: count(flag::UNDERFLOW),
            overflow: count(flag::OVERFLOW),
        };
        match self.tasks.get_mut(&task) {
            None if self.abandoned.has(task) => {}
            None => self.misbehaved("an answer for a task that does not exist"),
            Some(open) => {
                open.answer = Some((header.stat_sn(), completion));
                self.finish(task);
            }
        }
    }

    /// Ends a task that is answered and has all that is on its way.
    fn finish(&mut self, task: TaskId) {
        let Some(open) = self.tasks.get_mut(&task).filter(|open| !open.is_damaged()) else { return };
        let Some((stat_sn, completion)) = open.answer.take() else { return };
        let good = completion.response == 0 && completion.status == 0;
        //= rfc7143#section-11.4.5: what is expected less the underflow has arrived.
        if good && !open.is_whole(completion.underflow) {
            return self.misbehaved("a good answer without all of its data");
        }
        if self.recovers() {
            self.statuses.release(stat_sn);
        }
        self.tasks.remove(&task);
        self.outgoing.retain(|outgoing| outgoing.task() != Some(task));
        self.events.push_back(Event::Completed(task, completion));
    }

    fn on_r2t(&mut self, header: &Header) {
        let task = TaskId(header.itt());
        let Some(open) = self.tasks.get_mut(&task) else {
            if self.abandoned.has(task) {
                return;
            }
            return self.misbehaved("an R2T for a task that does not exist");
        };
        let is_its = |outgoing: &&Outgoing| outgoing.is_asked_of(task);
        let outstanding = self.outgoing.iter().filter(is_its).count();
        match open.on_r2t(task, header, outstanding, &self.parameters) {
            Ok(burst) => self.outgoing.push_back(burst),
            Err(why) => self.misbehaved(why.words()),
        }
    }

    fn on_nop_in(&mut self, header: &Header, data: Vec<u8>) {
        if header.itt() != NO_TAG {
            return self.events.push_back(Event::Pong);
        }
        //= rfc7143#section-11.18: a ping is answered with its tag and its LUN.
        if header.ttt() != NO_TAG {
            // Each has up to `CONTROL_DATA_MAX` bytes of the target's.
            if self.outgoing.iter().filter(|outgoing| outgoing.is_echo()).count() >= ECHOES_MAX {
                return self.misbehaved("more pings than it takes answers to");
            }
            let answer = Header::new(opcode::NOP_OUT, flag::FINAL)
                .with_immediate()
                .with_lun(header.lun())
                .with_itt(NO_TAG)
                .with_ttt(header.ttt())
                .with_cmd_sn(self.numbers.next());
            let body = if data.is_empty() { Body::None } else { Body::Inline(data) };
            self.outgoing.push_back(Outgoing::Control { header: answer, body });
        }
    }

    fn on_text(&mut self, header: &Header, data: &[u8]) {
        if self.text.len() + data.len() > 16 * CONTROL_DATA_MAX {
            return self.misbehaved("an endless text answer");
        }
        let Some(topic) = self.text_request.as_ref().map(|request| request.topic) else {
            return self.misbehaved("a text answer that was not asked for");
        };
        self.text.extend_from_slice(data);
        if header.has(flag::CONTINUE) || !header.has(flag::FINAL) {
            //= rfc7143#section-11.11.4: the rest is asked for with the tag that came.
            let request =
                Header::new(opcode::TEXT, flag::FINAL).with_ttt(header.ttt()).with_lun(header.lun());
            return self.send_text(topic, request, Body::None);
        }
        self.text_request = None;
        let text = core::mem::take(&mut self.text);
        match topic {
            Topic::Targets => self.events.push_back(Event::Text(text)),
            Topic::Negotiation => self.conclude_negotiation(&text),
        }
    }

    /// What the target declares takes effect with what is sent from now on.
    fn conclude_negotiation(&mut self, text: &[u8]) {
        let pairs = crate::text::parse(text).unwrap_or_default();
        let lengths = pairs.iter().filter(|(key, _)| key == "MaxRecvDataSegmentLength");
        for (_, value) in lengths {
            if !self.parameters.redeclare(value) {
                return self.misbehaved("a segment length that is none");
            }
        }
    }

    /// The target wants to negotiate (RFC 7143 section 11.9.1(g), event 4): what may still change is said again.
    fn renegotiate(&mut self) {
        //= rfc7143#section-11.10: there is one text request at a time; the target hears with it, or asks again.
        if self.text_request.is_some() || self.logout.is_some() {
            return;
        }
        let mut text = Vec::new();
        let length = self.parameters.max_recv_data_segment_length;
        crate::text::emit(&mut text, "MaxRecvDataSegmentLength", &length.to_string());
        let header = Header::new(opcode::TEXT, flag::FINAL).with_ttt(NO_TAG);
        self.send_text(Topic::Negotiation, header, Body::Inline(text));
    }

    fn on_async(&mut self, header: &Header) {
        match header.byte(36) {
            1 => self.events.push_back(Event::LogoutRequested { seconds: header.u16_at(42) }),
            //= rfc7143#section-11.9.1(h): Parameter1 names the connection.
            2 if header.u16_at(38) != self.login.cid() => {}
            2 | 3 => self.close(CloseReason::Local("the target announced that it drops the connection")),
            4 => self.renegotiate(),
            //= rfc7143#section-11.9.1(i): a vendor's own event (248 to 255) and its data mean nothing here, like events of fancy; its number counts.
            _ => {}
        }
    }
}
