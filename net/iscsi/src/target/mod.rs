//! The target's end of one connection.
//!
//! ```text
//! Login --(granted, final response sent)--> FullFeature --(logout)--> LoggingOut --> closed
//!   \--(refused)--> closed                        \--(peer misbehaves, header digest)--> closed
//! ```
//!
//! The owner answers events: [`Event::LoginRequest`] with [`Connection::grant_login`] or [`Connection::refuse_login`],
//! [`Event::Command`] with data and one response, and so on. Error recovery level 0: a lost connection ends the session;
//! sequence errors inside a task fail the task.

mod login;
mod send;
mod task;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use crate::deframe::{Deframer, Sink, Step};
use crate::keys::{Preferences, SessionParameters};
use crate::pdu::{BHS_LEN, Header, NO_TAG, RejectReason, flag, opcode};
use crate::protocol::{Body, CloseReason, Protocol, TaskId, Transmit, Want};
use crate::serial;
use login::Login;
pub use login::{Grant, LoginRequest, LoginStatus, SessionType};
use task::{Outgoing, Task};

/// Immediate (unnumbered) commands that may be open beside the numbered ones.
const IMMEDIATE_MAX: usize = 16;
/// Longest data segment of a text or NOP PDU that is kept, in bytes.
const CONTROL_DATA_MAX: usize = 16 << 10;

/// How a target behaves.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// What to negotiate for.
    pub preferences: Preferences,
    /// Numbered commands that may be open at once.
    pub queue_depth: u32,
}

/// A SCSI command as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its name on this connection.
    pub task: TaskId,
    /// Raw logical unit number.
    pub lun: u64,
    /// Command descriptor block.
    pub cdb: [u8; 16],
    /// R: the initiator expects data.
    pub reads: bool,
    /// W: the initiator has data.
    pub writes: bool,
    /// Expected Data Transfer Length in bytes.
    pub expected_len: u32,
    /// Task attribute (SAM: 0 untagged, 1 simple, 2 ordered, 3 head of queue, 4 ACA).
    pub attribute: u8,
}

/// Task management functions (RFC 7143 section 11.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskFunction {
    /// ABORT TASK, of the referenced task.
    AbortTask(TaskId),
    /// ABORT TASK SET.
    AbortTaskSet,
    /// CLEAR ACA.
    ClearAca,
    /// CLEAR TASK SET.
    ClearTaskSet,
    /// LOGICAL UNIT RESET.
    LogicalUnitReset,
    /// TARGET WARM RESET.
    TargetWarmReset,
    /// TARGET COLD RESET.
    TargetColdReset,
    /// TASK REASSIGN.
    TaskReassign,
    /// A function that is not known.
    Unknown(u8),
}

/// Answers to task management (RFC 7143 section 11.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TaskResponse {
    /// Function complete.
    Complete = 0,
    /// The task does not exist.
    NoTask = 1,
    /// The LUN does not exist.
    NoLun = 2,
    /// Task reassignment is not supported.
    ReassignUnsupported = 4,
    /// The function is not supported.
    Unsupported = 5,
    /// The function was rejected.
    Rejected = 255,
}

/// What SendTargets asks for (RFC 7143 appendix C).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendTargets {
    /// All targets.
    All,
    /// The named one.
    Named(String),
    /// The session's own.
    Session,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants in: answer with [`Connection::grant_login`] or [`Connection::refuse_login`].
    LoginRequest(LoginRequest),
    /// The session is in full feature phase.
    LoggedIn,
    /// A command: provide a buffer, then [`Connection::solicit`] or answer it.
    Command(Command),
    /// All the data that was solicited is in the task's buffer.
    DataComplete(TaskId),
    /// The task's data were damaged or out of order: answer it with an error.
    DataLost(TaskId),
    /// A management request: end the tasks that it names, then [`Connection::respond_task_management`].
    TaskManagement {
        /// The request's own tag.
        request: TaskId,
        /// Which logical unit.
        lun: u64,
        /// What to do.
        function: TaskFunction,
    },
    /// Answer with [`Connection::respond_text`].
    SendTargets {
        /// The request's own tag.
        request: TaskId,
        /// Which targets.
        which: SendTargets,
    },
    /// A ping was answered.
    Pong,
    /// The initiator logs out: when every task has ended, call [`Connection::finish_logout`].
    LogoutRequest,
}

/// The end of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// SCSI status byte.
    pub status: u8,
    /// Sense data without its length prefix; empty for none.
    pub sense: Vec<u8>,
    /// How many bytes the command's own transfer length moves in the direction that it uses; the residual follows.
    pub transfer_len: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Login,
    FullFeature,
    LoggingOut { itt: u32 },
    Closed,
}

/// See the module.
#[derive(Debug)]
pub struct Connection {
    config: Config,
    phase: Phase,
    deframer: Deframer,
    login: Login,
    parameters: SessionParameters,
    session_type: SessionType,
    tasks: BTreeMap<TaskId, Task>,
    stat_sn: u32,
    exp_cmd_sn: u32,
    max_cmd_sn: u32,
    open_numbered: u32,
    next_ttt: u32,
    outgoing: VecDeque<Outgoing>,
    events: VecDeque<Event>,
    closed: Option<CloseReason>,
    text_rest: Option<(u32, Vec<u8>)>,
    ping: Option<u32>,
}

impl Connection {
    /// A connection that has just been accepted.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            phase: Phase::Login,
            deframer: Deframer::new(),
            login: Login::new(config.preferences),
            parameters: SessionParameters::default(),
            session_type: SessionType::Normal,
            tasks: BTreeMap::new(),
            stat_sn: 1,
            exp_cmd_sn: 0,
            max_cmd_sn: 0,
            open_numbered: 0,
            next_ttt: 1,
            outgoing: VecDeque::new(),
            events: VecDeque::new(),
            closed: None,
            text_rest: None,
            ping: None,
        }
    }

    /// What the login agreed on; defaults before.
    pub fn parameters(&self) -> &SessionParameters {
        &self.parameters
    }

    /// True between login and logout.
    pub fn is_full_feature(&self) -> bool {
        self.phase == Phase::FullFeature
    }

    /// Commands that have not been answered.
    pub fn open_tasks(&self) -> usize {
        self.tasks.len()
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Lets the initiator in.
    pub fn grant_login(&mut self, grant: Grant) {
        if self.phase == Phase::Login {
            self.login.grant(grant);
            self.run_login();
        }
    }

    /// Keeps the initiator out.
    pub fn refuse_login(&mut self, status: LoginStatus) {
        if self.phase == Phase::Login {
            self.fail_login(status);
        }
    }

    /// Asks for the rest of a write's data: `len` bytes in all, of which some may have arrived unsolicited. The task's
    /// buffer exists.
    pub fn solicit(&mut self, task: TaskId, len: u32) {
        let Some(open) = self.tasks.get_mut(&task) else { return };
        open.want(len.min(open.expected_len()));
        self.pump(task);
    }

    /// Answers a read: `available` bytes are in the task's buffer, of which at most the expected length is sent.
    pub fn send_data(&mut self, task: TaskId, available: u32, response: Response) {
        let Some(open) = self.tasks.get(&task) else { return };
        let len = available.min(open.expected_len());
        if len == 0 || !open.reads() {
            self.respond(task, response);
        } else {
            self.outgoing.push_back(Outgoing::Data { task, sent: 0, len, data_sn: 0, response });
        }
    }

    /// Answers a command without data.
    pub fn respond(&mut self, task: TaskId, response: Response) {
        if self.tasks.contains_key(&task) {
            self.outgoing.push_back(Outgoing::Response { task, data_sn: 0, response });
        }
    }

    /// Forgets a task: nothing more is sent for it, data that still comes is dropped.
    pub fn abort(&mut self, task: TaskId) {
        if self.close_task(task) {
            self.outgoing.retain(|outgoing| outgoing.task() != Some(task));
        }
    }

    /// Answers a management request.
    pub fn respond_task_management(&mut self, request: TaskId, response: TaskResponse) {
        let header = Header::new(opcode::TASK_MANAGEMENT_RESPONSE, flag::FINAL)
            .with_byte(2, response as u8)
            .with_itt(request.0);
        self.send(header, Body::None);
    }

    /// Answers SendTargets with the text of all pairs; long answers are continued over several PDUs.
    pub fn respond_text(&mut self, request: TaskId, text: Vec<u8>) {
        self.send_text(request.0, text);
    }

    /// Sends a ping unless one is on its way; the answer is [`Event::Pong`].
    pub fn ping(&mut self) {
        if self.phase != Phase::FullFeature || self.ping.is_some() {
            return;
        }
        let ttt = self.new_ttt();
        self.ping = Some(ttt);
        let header = Header::new(opcode::NOP_IN, flag::FINAL).with_itt(NO_TAG).with_ttt(ttt);
        self.outgoing.push_back(Outgoing::Unnumbered(header));
    }

    /// Asks the initiator to log out within `seconds` (asynchronous event 1).
    pub fn request_logout(&mut self, seconds: u16) {
        if self.phase == Phase::FullFeature {
            let header = Header::new(opcode::ASYNC, flag::FINAL)
                .with_itt(NO_TAG)
                .with_byte(36, 1)
                .with_u16(42, seconds);
            self.send(header, Body::None);
        }
    }

    /// Answers the logout; the connection is over once that is sent.
    pub fn finish_logout(&mut self) {
        if let Phase::LoggingOut { itt } = self.phase {
            let header = Header::new(opcode::LOGOUT_RESPONSE, flag::FINAL).with_itt(itt);
            self.send(header, Body::None);
            self.outgoing.push_back(Outgoing::Close(CloseReason::LoggedOut));
        }
    }

    /// Drops the connection.
    pub fn drop_connection(&mut self, why: &'static str) {
        self.close(CloseReason::Local(why));
    }

    fn close(&mut self, reason: CloseReason) {
        self.phase = Phase::Closed;
        self.outgoing.clear();
        self.closed.get_or_insert(reason);
    }

    fn misbehaved(&mut self, what: &'static str) {
        self.close(CloseReason::PeerMisbehaved(what));
    }

    // Receiving.

    fn on_step(&mut self, mut step: Step) {
        loop {
            step = match step {
                Step::More => return,
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
        let limit = match self.phase {
            Phase::Login => 8192,
            _ => self.parameters.max_recv_data_segment_length as usize,
        };
        if header.data_len() > limit {
            self.misbehaved("a data segment longer than MaxRecvDataSegmentLength");
            return None;
        }
        match (self.phase, header.opcode()) {
            (Phase::Login, opcode::LOGIN) => Some(Sink::Internal),
            (Phase::Login, _) => {
                self.misbehaved("a PDU other than Login before full feature phase");
                None
            }
            (_, opcode::SCSI_COMMAND) => Some(self.on_command_header(&header)),
            (_, opcode::DATA_OUT) => Some(self.on_data_out_header(&header)),
            (_, opcode::NOP_OUT | opcode::TEXT) if header.data_len() <= CONTROL_DATA_MAX => {
                Some(Sink::Internal)
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
            (_, opcode::SCSI_COMMAND | opcode::DATA_OUT) => self.on_data_end(&header),
            (_, opcode::NOP_OUT) => self.on_nop_out(&header),
            (_, opcode::TEXT) => self.on_text(&header),
            (_, opcode::TASK_MANAGEMENT) => self.on_task_management(&header),
            (_, opcode::LOGOUT) => self.on_logout(&header),
            (_, opcode::SNACK) => self.reject(&header, RejectReason::Snack),
            (_, opcode::LOGIN) => self.misbehaved("a Login PDU in full feature phase"),
            _ => self.reject(&header, RejectReason::NotSupported),
        }
    }

    fn on_data_digest_error(&mut self) {
        let header = self.deframer.header();
        self.reject(&header, RejectReason::DataDigest);
        match header.opcode() {
            opcode::SCSI_COMMAND | opcode::DATA_OUT => {
                let task = TaskId(header.itt());
                if let Some(open) = self.tasks.get_mut(&task)
                    && open.fail()
                {
                    self.events.push_back(Event::DataLost(task));
                }
            }
            // The request was not seen; a numbered one leaves a hole that only a new connection fills.
            _ if header.is_immediate() => {}
            _ => self.misbehaved("a numbered request was lost to a data digest error"),
        }
    }

    /// Takes a request's number. False: ignore the request.
    fn take_number(&mut self, header: &Header) -> bool {
        if header.is_immediate() {
            return true;
        }
        let number = header.cmd_sn();
        //= rfc7143#section-4.2.2.1: requests outside the window are silently ignored.
        if serial::before(number, self.exp_cmd_sn) || serial::before(self.max_cmd_sn, number) {
            return false;
        }
        if number != self.exp_cmd_sn {
            self.misbehaved("CmdSN skipped a number on a session of one connection");
            return false;
        }
        self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
        true
    }

    fn on_command_header(&mut self, header: &Header) -> Sink {
        if self.phase != Phase::FullFeature || self.session_type == SessionType::Discovery {
            self.reject(header, RejectReason::Protocol);
            return Sink::Discard;
        }
        if !self.take_number(header) {
            return Sink::Discard;
        }
        let task = TaskId(header.itt());
        if self.tasks.contains_key(&task) || header.itt() == NO_TAG {
            self.misbehaved("an Initiator Task Tag is used twice");
            return Sink::Discard;
        }
        let numbered = !header.is_immediate();
        if !numbered && self.tasks.values().filter(|open| !open.numbered()).count() >= IMMEDIATE_MAX {
            self.reject(header, RejectReason::ImmediateCommand);
            return Sink::Discard;
        }
        let Some(open) = Task::open(header, &self.parameters) else {
            self.reject(header, RejectReason::Protocol);
            return Sink::Discard;
        };
        self.tasks.insert(task, open);
        self.open_numbered += u32::from(numbered);
        self.update_window();
        self.events.push_back(Event::Command(Command {
            task,
            lun: header.lun(),
            cdb: header.cdb(),
            reads: header.has(flag::READ),
            writes: header.has(flag::WRITE),
            expected_len: header.edtl(),
            attribute: header.flags() & 7,
        }));
        Sink::Task(task, 0)
    }

    fn on_data_out_header(&mut self, header: &Header) -> Sink {
        let task = TaskId(header.itt());
        let Some(open) = self.tasks.get_mut(&task) else { return Sink::Discard };
        match open.on_data_out(header) {
            Ok(()) => Sink::Task(task, header.buffer_offset()),
            Err(()) => {
                if open.fail() {
                    self.events.push_back(Event::DataLost(task));
                }
                Sink::Discard
            }
        }
    }

    /// A command's immediate data or a Data-Out is complete.
    fn on_data_end(&mut self, header: &Header) {
        let task = TaskId(header.itt());
        let Some(open) = self.tasks.get_mut(&task) else { return };
        match open.on_data_end(header) {
            Ok(()) => self.pump(task),
            Err(()) if open.fail() => self.events.push_back(Event::DataLost(task)),
            Err(()) => {}
        }
    }

    /// Sends what R2Ts may be sent, and says when all is there.
    fn pump(&mut self, task: TaskId) {
        loop {
            let ttt = self.next_ttt;
            let Some(open) = self.tasks.get_mut(&task) else { return };
            if open.take_complete() {
                self.events.push_back(Event::DataComplete(task));
                return;
            }
            let Some(r2t) = open.next_r2t(ttt, &self.parameters) else { return };
            self.new_ttt();
            self.outgoing.push_back(Outgoing::R2t { task, header: r2t.with_itt(task.0) });
        }
    }

    fn on_nop_out(&mut self, header: &Header) {
        let data = self.deframer.take_data();
        if !self.take_number(header) {
            return;
        }
        if header.itt() != NO_TAG {
            let answer = Header::new(opcode::NOP_IN, flag::FINAL)
                .with_lun(header.lun())
                .with_itt(header.itt())
                .with_ttt(NO_TAG);
            let body = if data.is_empty() { Body::None } else { Body::Inline(data) };
            self.send(answer, body);
        } else if self.ping.is_some_and(|ttt| ttt == header.ttt()) {
            self.ping = None;
            self.events.push_back(Event::Pong);
        }
    }

    fn on_text(&mut self, header: &Header) {
        let data = self.deframer.take_data();
        if !self.take_number(header) {
            return;
        }
        if header.ttt() != NO_TAG {
            return self.continue_text(header);
        }
        if header.has(flag::CONTINUE) {
            return self.reject(header, RejectReason::NotSupported);
        }
        let Ok(pairs) = crate::text::parse(&data) else { return self.reject(header, RejectReason::Protocol) };
        let Some((_, value)) = pairs.iter().find(|(key, _)| key == "SendTargets") else {
            let mut text = Vec::new();
            for (key, _) in &pairs {
                crate::text::emit(&mut text, key, "NotUnderstood");
            }
            return self.send_text(header.itt(), text);
        };
        let which = match value.as_str() {
            "All" => SendTargets::All,
            "" => SendTargets::Session,
            name => SendTargets::Named(name.into()),
        };
        //= rfc7143#appendix-C: All is for discovery sessions.
        if which == SendTargets::All && self.session_type == SessionType::Normal {
            let mut text = Vec::new();
            crate::text::emit(&mut text, "SendTargets", "Reject");
            return self.send_text(header.itt(), text);
        }
        self.events.push_back(Event::SendTargets { request: TaskId(header.itt()), which });
    }

    fn continue_text(&mut self, header: &Header) {
        match self.text_rest.take() {
            Some((ttt, rest)) if ttt == header.ttt() => self.send_text(header.itt(), rest),
            _ => self.reject(header, RejectReason::Protocol),
        }
    }

    fn send_text(&mut self, itt: u32, mut text: Vec<u8>) {
        let limit = self.parameters.max_send_data_segment_length as usize;
        let mut header = Header::new(opcode::TEXT_RESPONSE, flag::FINAL).with_itt(itt).with_ttt(NO_TAG);
        if text.len() > limit {
            let rest = text.split_off(limit);
            let ttt = self.new_ttt();
            header = Header::new(opcode::TEXT_RESPONSE, flag::CONTINUE).with_itt(itt).with_ttt(ttt);
            self.text_rest = Some((ttt, rest));
        }
        self.send(header, Body::Inline(text));
    }

    fn on_task_management(&mut self, header: &Header) {
        if !self.take_number(header) {
            return;
        }
        if self.session_type == SessionType::Discovery {
            return self.reject(header, RejectReason::Protocol);
        }
        let function = match header.flags() & 0x7f {
            1 => TaskFunction::AbortTask(TaskId(header.ttt())),
            2 => TaskFunction::AbortTaskSet,
            3 => TaskFunction::ClearAca,
            4 => TaskFunction::ClearTaskSet,
            5 => TaskFunction::LogicalUnitReset,
            6 => TaskFunction::TargetWarmReset,
            7 => TaskFunction::TargetColdReset,
            8 => TaskFunction::TaskReassign,
            other => TaskFunction::Unknown(other),
        };
        self.events.push_back(Event::TaskManagement {
            request: TaskId(header.itt()),
            lun: header.lun(),
            function,
        });
    }

    fn on_logout(&mut self, header: &Header) {
        if !self.take_number(header) {
            return;
        }
        //= rfc7143#section-11.14.1: reason 2 is for recovery, which level 0 does not have.
        if header.flags() & 0x7f == 2 {
            let answer =
                Header::new(opcode::LOGOUT_RESPONSE, flag::FINAL).with_byte(2, 2).with_itt(header.itt());
            return self.send(answer, Body::None);
        }
        self.phase = Phase::LoggingOut { itt: header.itt() };
        self.events.push_back(Event::LogoutRequest);
    }

    fn reject(&mut self, header: &Header, reason: RejectReason) {
        let answer = Header::new(opcode::REJECT, flag::FINAL).with_byte(2, reason as u8).with_itt(NO_TAG);
        self.send(answer, Body::Inline(header.0[..BHS_LEN].to_vec()));
    }
}

impl Protocol for Connection {
    fn want(&self) -> Want {
        match self.phase {
            Phase::Closed => Want::Nothing,
            Phase::Login if self.login.is_waiting() || !self.outgoing.is_empty() => Want::Nothing,
            _ => self.deframer.want(),
        }
    }

    fn handle_bytes(&mut self, bytes: &[u8]) {
        if self.phase != Phase::Closed {
            let step = self.deframer.handle(bytes);
            self.on_step(step);
        }
    }

    fn handle_payload(&mut self, bytes: &[u8]) {
        self.handle_bytes(bytes);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        while let Some(outgoing) = self.outgoing.pop_front() {
            if let Some(transmit) = self.next_outgoing(outgoing) {
                return Some(transmit);
            }
        }
        None
    }

    fn closed(&self) -> Option<&CloseReason> {
        self.closed.as_ref()
    }
}
