//! The receiving half: PDUs as they come in.

use alloc::vec::Vec;

use super::numbers::{Gaps, Turn};
use super::order::{Arrival, DataOut, Held};
use super::task::{Place, Task, Unfit};
use super::{
    CONTROL_DATA_MAX, Command, Connection, DataFault, Event, IMMEDIATE_MAX, LoginStatus, Outgoing, Phase,
    SessionType, login,
};
use crate::deframe::{Sink, Step};
use crate::pdu::{BHS_LEN, Header, NO_TAG, RejectReason, flag, opcode};
use crate::protocol::{Body, CloseReason, INLINE_MAX, TaskId};

/// The longest data segment that is kept of a request other than a command.
fn data_max(header: &Header) -> usize {
    match header.opcode() {
        opcode::NOP_OUT => INLINE_MAX,
        opcode::TEXT => CONTROL_DATA_MAX,
        _ => 0,
    }
}

impl Connection {
    pub(super) fn on_step(&mut self, mut step: Step) {
        loop {
            step = match step {
                // What is no iSCSI at all is not waited for.
                Step::More if self.phase == Phase::Login && self.deframer.awaits_ahs() => {
                    return self.misbehaved("a PDU other than Login before full feature phase");
                }
                Step::More => return,
                //= rfc7143#section-7.8(a): nothing of a header with a wrong digest can be believed.
                Step::HeaderDigestError => return self.close(CloseReason::HeaderDigest),
                Step::Header => match self.on_header() {
                    Some(sink) => self.deframer.accept(sink),
                    None => return,
                },
                Step::Pdu => return self.on_pdu(),
                Step::DataDigestError => return self.on_data_digest_error(),
            };
            if self.phase == Phase::Closed {
                return;
            }
        }
    }

    /// Looks at a header and says where its data goes; `None` when the connection is over.
    fn on_header(&mut self) -> Option<Sink> {
        let header = self.deframer.header();
        if header.ahs_len() > 0 && header.opcode() != opcode::SCSI_COMMAND {
            //= rfc7143#section-7.7: what is no PDU is an error of format.
            self.misbehaved("an additional header segment where there is none");
            return None;
        }
        let limit = match self.phase {
            Phase::Login => login::LOGIN_DATA_MAX,
            _ => self.parameters.max_recv_data_segment_length as usize,
        };
        if header.data_len() > limit {
            self.misbehaved("a data segment longer than MaxRecvDataSegmentLength");
            return None;
        }
        if self.phase != Phase::Login {
            self.acknowledge(header.exp_stat_sn());
        }
        match (self.phase, header.opcode()) {
            (Phase::Login, opcode::LOGIN) => Some(Sink::Internal),
            (Phase::Login, _) => {
                self.on_stray(&header);
                None
            }
            (_, opcode::SCSI_COMMAND) => Some(self.on_command_header(&header)),
            (_, opcode::DATA_OUT) => Some(self.on_data_out_header(&header)),
            (_, opcode::NOP_OUT | opcode::TEXT | opcode::TASK_MANAGEMENT | opcode::LOGOUT) => {
                self.arrival = self.arrival(&header);
                let keeps = header.data_len() <= data_max(&header) && self.arrival != Arrival::Ignored;
                Some(if keeps { Sink::Internal } else { Sink::Discard })
            }
            _ => Some(Sink::Discard),
        }
    }

    fn on_pdu(&mut self) {
        let header = self.deframer.header();
        match (self.phase, header.opcode()) {
            (Phase::Login, _) => {
                let data = self.deframer.take_data();
                self.on_login(&header, &data);
            }
            (_, opcode::DATA_OUT) => self.on_data_out_end(&header),
            (_, opcode::SCSI_COMMAND) if self.arrival == Arrival::InTurn => self.on_data_end(&header),
            (
                _,
                opcode::SCSI_COMMAND
                | opcode::NOP_OUT
                | opcode::TEXT
                | opcode::TASK_MANAGEMENT
                | opcode::LOGOUT,
            ) => self.on_request(&header),
            //= rfc7143#section-11.16(b): what was sent is sent again, where the level allows it.
            (_, opcode::SNACK) => self.on_snack(&header),
            (_, opcode::LOGIN) => self.misbehaved("a Login PDU in full feature phase"),
            //= rfc7143#section-11.2.1.2: opcodes that are not an initiator's are not taken.
            _ => self.reject(&header, RejectReason::NotSupported),
        }
    }

    /// A PDU other than Login before full feature phase.
    fn on_stray(&mut self, header: &Header) {
        //= rfc7143#section-4.2.4: before the login the connection is closed; during it the login is refused, too.
        if self.login.has_begun() && header.opcode() & 0x20 == 0 {
            self.fail_login(LoginStatus::InvalidDuringLogin);
        } else {
            self.misbehaved("a PDU other than Login before full feature phase");
        }
    }

    /// A request is there, whole.
    fn on_request(&mut self, header: &Header) {
        let ahs = self.deframer.ahs().to_vec();
        let whole = Held::new(*header, ahs, self.deframer.take_data(), &self.parameters);
        match self.arrival {
            Arrival::Ignored => {}
            Arrival::Early => self.hold(whole),
            Arrival::InTurn | Arrival::Whole => self.handle_whole(whole),
        }
    }

    /// Handles a request whose turn it is.
    pub(super) fn handle_whole(&mut self, whole: Held) {
        let Held { header, ahs, data, mut open, fault } = whole;
        if header.opcode() == opcode::SCSI_COMMAND {
            if self.may_command(&header) && self.is_turn_of(&header) {
                if let Some(open) = &mut open {
                    open.keep_early(data);
                }
                self.open_task(&header, &ahs, open, fault);
            }
            return;
        }
        if !self.take_number(&header) {
            return;
        }
        self.numbers.get().update_window();
        match header.opcode() {
            // An echo is kept until it is taken, and at some levels until it is acknowledged.
            opcode::NOP_OUT | opcode::TEXT if header.data_len() > data_max(&header) => {
                self.reject(&header, RejectReason::OutOfResources);
            }
            opcode::NOP_OUT => self.on_nop_out(&header, data),
            opcode::TEXT => self.on_text(&header, data),
            opcode::TASK_MANAGEMENT => self.on_task_management(&header),
            _ => self.on_logout(&header),
        }
    }

    fn on_data_digest_error(&mut self) {
        let header = self.deframer.header();
        self.deframer.take_data();
        //= rfc7143#section-7.8(b): damaged data are rejected and dropped.
        self.reject(&header, RejectReason::DataDigest);
        let recovers = self.recovers();
        match header.opcode() {
            opcode::DATA_OUT => self.on_data_lost(&header),
            opcode::SCSI_COMMAND if self.arrival == Arrival::InTurn => {
                self.lose(TaskId(header.itt()), DataFault::Damaged);
            }
            //= rfc7143#section-7.2.1: a request that was not seen fills its place when it comes again with its number.
            // The request was not seen; a numbered one leaves a hole, which it fills when it is sent again.
            _ if header.is_immediate() => {}
            _ if recovers || self.arrival != Arrival::InTurn => self.await_again(header.cmd_sn()),
            _ => self.misbehaved("a numbered request was lost to a data digest error"),
        }
    }

    fn lose(&mut self, task: TaskId, fault: DataFault) {
        let Some(open) = self.tasks.get_mut(&task) else { return };
        if open.is_given_up() {
            open.stop_waiting();
            self.pump(task);
        } else if open.fail() {
            self.events.push_back(Event::DataLost(task, fault));
        }
    }

    /// False for a request whose number was taken before: it is ignored.
    fn is_turn_of(&self, header: &Header) -> bool {
        header.is_immediate() || self.numbers.get().turn(header.cmd_sn()) == Turn::Now
    }

    /// Takes a request's number. False: ignore the request.
    fn take_number(&mut self, header: &Header) -> bool {
        let its_turn = self.is_turn_of(header);
        if its_turn && !header.is_immediate() {
            self.numbers.get().advance();
        }
        its_turn
    }

    /// True in full feature phase of a normal session; others are told.
    fn may_command(&mut self, header: &Header) -> bool {
        let may = self.phase == Phase::FullFeature && self.session_type == SessionType::Normal;
        if !may {
            self.reject(header, RejectReason::Protocol);
        }
        may
    }

    fn on_command_header(&mut self, header: &Header) -> Sink {
        self.arrival = Arrival::Ignored;
        if !self.may_command(header) {
            return Sink::Discard;
        }
        self.arrival = self.arrival(header);
        match self.arrival {
            Arrival::Ignored => return Sink::Discard,
            Arrival::Whole => return Sink::Internal,
            Arrival::Early if self.numbers.get().gaps() == Gaps::Impossible => {
                self.misbehaved("CmdSN skipped a number on a session of one connection");
                return Sink::Discard;
            }
            Arrival::Early => return Sink::Internal,
            Arrival::InTurn => {}
        }
        if !self.is_turn_of(header) {
            return Sink::Discard;
        }
        let ahs = self.deframer.take_ahs();
        let open = Task::open(header, &self.parameters);
        if self.open_task(header, &ahs, open, DataFault::Unexpected) {
            Sink::Task(TaskId(header.itt()), 0)
        } else {
            // Its data are nobody's, whatever else has its tag.
            self.arrival = Arrival::Ignored;
            Sink::Discard
        }
    }

    /// Opens the task of a command whose turn it is, with what is wrong with its data if something is; false when it was
    /// rejected.
    fn open_task(&mut self, header: &Header, ahs: &[u8], open: Option<Task>, fault: DataFault) -> bool {
        let task = TaskId(header.itt());
        let numbered = !header.is_immediate();
        let (reason, open) = (self.reason_to_reject(header, ahs), open.ok_or(RejectReason::Protocol));
        let open = match reason.map_or(open, Err) {
            Ok(open) => open,
            Err(reason) => {
                self.reject(header, reason);
                if numbered {
                    //= rfc7143#section-7.3(b): the number of a command that is rejected was not received: the initiator plugs the gap.
                    self.numbers.get().wait_for_gaps();
                    self.await_again(header.cmd_sn());
                }
                return false;
            }
        };
        self.take_number(header);
        let failed = open.has_failed();
        self.tasks.insert(task, open);
        if numbered {
            self.numbers.get().open();
        }
        //= rfc7144#section-5.1.1: a priority (PRI) is of commands that wait to be begun; none does here, so it changes nothing.
        self.tell(Event::Command(Command {
            task,
            lun: header.lun(),
            cdb: header.cdb(),
            reads: header.has(flag::READ),
            writes: header.has(flag::WRITE),
            expected_len: header.edtl(),
            attribute: header.flags() & 7,
        }));
        if failed {
            self.events.push_back(Event::DataLost(task, fault));
        }
        true
    }

    fn reason_to_reject(&self, header: &Header, ahs: &[u8]) -> Option<RejectReason> {
        let of_immediate = || self.tasks.values().filter(|open| open.place == Place::Immediate).count();
        if let Err(reason) = super::ahs::check(header, ahs) {
            return Some(reason);
        }
        match TaskId(header.itt()) {
            TaskId(NO_TAG) => Some(RejectReason::InvalidField),
            //= rfc7143#section-11.2.1.8: a tag names one task at a time.
            task if self.tasks.contains_key(&task) => Some(RejectReason::TaskInProgress),
            _ if header.is_immediate() && of_immediate() >= IMMEDIATE_MAX => {
                Some(RejectReason::ImmediateCommand)
            }
            _ => None,
        }
    }

    fn on_data_out_header(&mut self, header: &Header) -> Sink {
        let task = TaskId(header.itt());
        self.data_out = DataOut::Dropped;
        let Some(open) = self.tasks.get_mut(&task) else {
            //= rfc7143#section-4.2.3.3(c): data of no task are read and dropped.
            if self.held.is_empty() {
                return Sink::Discard;
            }
            self.data_out = DataOut::Early;
            return Sink::Internal;
        };
        match open.on_data_out(header, &self.parameters) {
            Ok(()) => {
                self.data_out = DataOut::Taken;
                Sink::Task(task, header.buffer_offset())
            }
            // An answer to what was lost and asked for again meanwhile.
            Err(Unfit::Unasked) if self.recovers() => Sink::Discard,
            Err(unfit) => {
                self.lose(task, unfit.fault());
                Sink::Discard
            }
        }
    }

    fn on_data_out_end(&mut self, header: &Header) {
        match self.data_out {
            DataOut::Taken => self.on_data_end(header),
            DataOut::Early => {
                let data = self.deframer.take_data();
                self.hold_data(header, &data);
            }
            DataOut::Dropped => {}
        }
    }

    /// A Data-Out came damaged.
    fn on_data_lost(&mut self, header: &Header) {
        let task = TaskId(header.itt());
        let recovers = self.recovers();
        match self.data_out {
            DataOut::Taken => {}
            DataOut::Early => return self.lose_held_data(header),
            DataOut::Dropped => return,
        }
        let Some(open) = self.tasks.get_mut(&task) else { return };
        if !recovers {
            return self.lose(task, DataFault::Damaged);
        }
        match open.on_data_lost(header, &self.parameters) {
            Ok(()) => self.pump(task),
            Err(()) => self.lose(task, DataFault::Amount),
        }
    }

    /// A command's immediate data or a Data-Out is complete.
    fn on_data_end(&mut self, header: &Header) {
        let task = TaskId(header.itt());
        let Some(open) = self.tasks.get_mut(&task) else { return };
        let whole = match header.opcode() {
            opcode::SCSI_COMMAND => {
                open.on_immediate_end(header);
                Ok(())
            }
            _ => open.on_data_end(header, &self.parameters),
        };
        match whole {
            Ok(()) => self.pump(task),
            Err(()) => self.lose(task, DataFault::Amount),
        }
    }

    /// Sends what R2Ts may be sent, and says when all is there.
    pub(super) fn pump(&mut self, task: TaskId) {
        loop {
            let ttt = self.next_ttt;
            let Some(open) = self.tasks.get_mut(&task) else { return };
            if open.take_complete() {
                self.events.push_back(Event::DataComplete(task));
                return;
            }
            if open.take_given_up() {
                self.events.push_back(Event::DataOver(task));
                return;
            }
            let Some(r2t) = open.next_r2t(ttt, &self.parameters) else { return };
            self.new_ttt();
            self.outgoing.push_back(Outgoing::R2t { task, header: r2t.with_itt(task.0) });
        }
    }

    fn on_nop_out(&mut self, header: &Header, mut data: Vec<u8>) {
        if header.itt() != NO_TAG && self.session_type == SessionType::Discovery {
            //= rfc7143#section-4.3: a discovery session takes SendTargets and the logout, and is alive by that.
            self.reject(header, RejectReason::Protocol);
        } else if header.itt() != NO_TAG {
            let answer = Header::new(opcode::NOP_IN, flag::FINAL)
                .with_lun(header.lun())
                //= rfc7143#section-11.18.1: by its tag the answer is known; without one there is none.
                .with_itt(header.itt())
                .with_ttt(NO_TAG);
            // The echo is cut at what the initiator takes.
            //= rfc7143#section-11.18.3: the data come back, as far as the initiator takes them.
            data.truncate(self.parameters.max_send_data_segment_length as usize);
            let body = if data.is_empty() { Body::None } else { Body::Inline(data) };
            self.send(answer, body);
        } else if self.ping.is_some_and(|ttt| ttt == header.ttt()) {
            //= rfc7143#section-11.18.2: by the target's tag its ping is answered.
            self.ping = None;
            self.events.push_back(Event::Pong);
        }
    }

    //= rfc7143#section-11.17.4: the header comes with it.
    //= rfc7143#section-7.13: what breaks the order of PDUs is answered so, or by a status.
    //= rfc7143#section-7.3(a): a reject says what is wrong with a PDU, and leaves the tasks alone.
    pub(super) fn reject(&mut self, header: &Header, reason: RejectReason) {
        let answer = Header::new(opcode::REJECT, flag::FINAL).with_byte(2, reason as u8).with_itt(NO_TAG);
        self.send(answer, Body::Inline(header.0[..BHS_LEN].to_vec()));
    }
}
