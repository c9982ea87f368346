//! The target's end of one connection.
//!
//! ```text
//! Login --(granted, final response sent)--> FullFeature --(logout)--> LoggingOut --> closed
//!   \--(refused)--> closed                        \--(peer misbehaves, header digest)--> closed
//! ```
//!
//! The owner answers events: [`Event::LoginRequest`] with [`Connection::admit_login`], [`Event::LoginComplete`] with
//! [`Connection::grant_login`], either with [`Connection::refuse_login`]; [`Event::Command`] with data and one response, and
//! so on. At error recovery level 0 sequence errors inside a task fail the task; what the others do is in `recovery` and
//! `reassign`.

mod ahs;
mod login;
mod management;
mod numbers;
mod order;
mod outgoing;
mod reassign;
mod receive;
mod recovery;
mod residual;
mod send;
mod task;
mod text;
mod types;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::deframe::Deframer;
use crate::keys::SessionParameters;
use crate::pdu::{Header, NO_TAG, flag, opcode};
pub use crate::protocol::Moved;
use crate::protocol::{CloseReason, Protocol, TaskId, Transmit, Want};
use crate::task_map::TaskMap;
use login::Login;
pub use login::{Admission, Grant, LoginRequest, LoginStatus, Membership, SessionType};
use numbers::Numbering;
use order::{Arrival, DataOut, Held};
use outgoing::{Layout, Outgoing, Queue};
pub use reassign::Orphan;
use recovery::Unacknowledged;
use task::Task;
use text::Exchange;
pub use types::{
    Command, Config, DataFault, Event, Logout, LogoutResponse, Response, SendTargets, TaskFunction,
    TaskResponse,
};

/// Immediate (unnumbered) commands that may be open beside the numbered ones.
const IMMEDIATE_MAX: usize = 16;
/// Longest data segment of a text request that is kept, in bytes.
const CONTROL_DATA_MAX: usize = 16 << 10;

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
    phase: Phase,
    deframer: Deframer,
    login: Login,
    parameters: SessionParameters,
    session_type: SessionType,
    tasks: TaskMap<Task>,
    stat_sn: u32,
    /// The highest ExpStatSN of the initiator.
    acknowledged: u32,
    numbers: Numbering,
    /// What becomes of the request at hand.
    arrival: Arrival,
    /// What becomes of the Data-Out at hand.
    data_out: DataOut,
    /// Requests that came before their turn.
    held: VecDeque<Held>,
    held_bytes: usize,
    /// Numbers of requests that were rejected here, and come again.
    awaited: Vec<u32>,
    /// Requests other than commands that the owner has not answered.
    requests: Vec<TaskId>,
    unacknowledged: Unacknowledged,
    next_ttt: u32,
    outgoing: Queue,
    events: VecDeque<Event>,
    closed: Option<CloseReason>,
    text: Exchange,
    /// Answers to what was asked beside SendTargets, until the targets are known.
    beside: Vec<(TaskId, Vec<u8>)>,
    /// MaxRecvDataSegmentLength, where the initiator was asked to negotiate and has not been told yet.
    declares: Option<u32>,
    /// Connection identifier, from the login.
    cid: u16,
    ping: Option<u32>,
}

impl Connection {
    /// A connection that has just been accepted.
    pub fn new(config: Config) -> Self {
        Self {
            phase: Phase::Login,
            deframer: Deframer::new(),
            login: Login::new(config.preferences),
            parameters: SessionParameters::default(),
            session_type: SessionType::Normal,
            tasks: TaskMap::default(),
            stat_sn: 1,
            acknowledged: 1,
            numbers: Numbering::new(config.queue_depth),
            arrival: Arrival::InTurn,
            data_out: DataOut::Dropped,
            held: VecDeque::new(),
            held_bytes: 0,
            awaited: Vec::new(),
            requests: Vec::new(),
            unacknowledged: Unacknowledged::default(),
            next_ttt: 1,
            outgoing: Queue::default(),
            events: VecDeque::new(),
            closed: None,
            text: Exchange::None,
            beside: Vec::new(),
            declares: None,
            cid: 0,
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

    /// Their names.
    pub fn tasks(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.tasks.keys().copied()
    }

    /// Connection identifier; zero before the login.
    pub fn cid(&self) -> u16 {
        self.cid
    }

    /// What another connection needs to join this one's session, see [`Admission::joins`].
    pub fn membership(&self) -> Membership {
        Membership { parameters: self.parameters.clone(), numbering: self.numbers.clone() }
    }

    /// True for a request other than a command that the owner has not answered.
    pub fn awaits(&self, request: TaskId) -> bool {
        self.requests.contains(&request)
    }

    /// What happened, oldest first. With several connections in a session, look at each of them after any has moved: requests
    /// come in the order of their numbers.
    pub fn poll_event(&mut self) -> Option<Event> {
        while self.events.is_empty() && self.deframer.is_between_pdus() && self.release_held() {}
        let event = self.events.pop_front();
        self.numbers.get().told(event.iter().filter(|event| event.is_request()).count());
        event
    }

    /// True when [`Connection::poll_event`] has something.
    pub fn has_event(&self) -> bool {
        let turn = || !self.held.is_empty() && self.deframer.is_between_pdus() && self.is_turn_of_held();
        !self.events.is_empty() || (self.phase != Phase::Closed && turn())
    }

    /// Asks for the rest of a write's data: `len` bytes in all, of which some may have arrived unsolicited. The task's
    /// buffer exists.
    pub fn solicit(&mut self, task: TaskId, len: u32) {
        let Some(open) = self.tasks.get_mut(&task) else { return };
        open.want(len.min(open.expected_len()));
        self.pump(task);
    }

    /// Asks for no more of a write's data, and has what still comes dropped: [`Event::DataOver`] says that nothing more does. Only then
    /// may the task be answered, because a target waits for the end of the sequence that it has asked for (RFC 7143 section
    /// 11.4.2). False when another event about the data says, or has said, how they came out.
    pub fn give_up_data(&mut self, task: TaskId) -> bool {
        let given_up = self.tasks.get_mut(&task).is_some_and(Task::give_up);
        self.pump(task);
        given_up
    }

    /// Data that came before the task had a buffer, for the beginning of it: to be put there before [`Connection::solicit`].
    pub fn take_early_data(&mut self, task: TaskId) -> Vec<u8> {
        self.tasks.get_mut(&task).map(Task::take_early).unwrap_or_default()
    }

    /// Answers a read: `available` bytes are in the task's buffer, of which at most the expected length is sent.
    pub fn send_data(&mut self, task: TaskId, available: u32, response: Response) {
        let Some(open) = self.tasks.get(&task) else { return };
        let len = available.min(open.expected_len());
        if len == 0 || !open.reads() {
            self.respond(task, response);
        } else {
            let layout = Layout::new(len, &self.parameters);
            self.outgoing.push_back(Outgoing::Data { task, sent: 0, layout, data_sn: 0, response });
        }
    }

    /// Answers a command without data.
    pub fn respond(&mut self, task: TaskId, response: Response) {
        if self.tasks.contains_key(&task) {
            self.outgoing.push_back(Outgoing::Response { task, data_sn: 0, layout: None, response });
        }
    }

    /// Forgets a task: nothing more is sent for it, data that still comes is dropped. One that is answered already, and whose status is
    /// kept, goes on nowhere else: there it would be answered without its data.
    pub fn abort(&mut self, task: TaskId) {
        if self.close_task(task) {
            self.outgoing.retain(|outgoing| outgoing.task() != Some(task));
        } else if self.forget_answered(task) {
            self.outgoing.retain(|outgoing| outgoing.task() != Some(task));
        }
    }

    /// Ends a task with this response in place of whatever was to be sent for it.
    pub fn terminate(&mut self, task: TaskId, response: Response) {
        let mut own = self.outgoing.iter().filter(|outgoing| outgoing.task() == Some(task));
        let data_sn = own.find_map(Outgoing::data_sn).unwrap_or(0);
        self.outgoing.retain(|outgoing| outgoing.task() != Some(task));
        if self.tasks.contains_key(&task) {
            self.outgoing.push_back(Outgoing::Response { task, data_sn, layout: None, response });
        }
    }

    /// Answers SendTargets with the text of all pairs; long answers are continued over several PDUs.
    pub fn respond_text(&mut self, request: TaskId, text: Vec<u8>) {
        self.answered(request);
        let mut whole = self.take_beside(request);
        whole.extend(text);
        self.send_text(request.0, whole);
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

    /// Drops the connection.
    pub fn drop_connection(&mut self, why: &'static str) {
        self.close(CloseReason::Local(why));
    }

    /// Tells the owner of a request.
    fn tell(&mut self, request: Event) {
        self.numbers.get().tell();
        self.events.push_back(request);
    }

    fn close(&mut self, reason: CloseReason) {
        self.phase = Phase::Closed;
        self.leave_outgoing();
        self.closed.get_or_insert(reason);
    }

    fn misbehaved(&mut self, what: &'static str) {
        self.close(CloseReason::PeerMisbehaved(what));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let untold = self.events.iter().filter(|event| event.is_request()).count();
        self.numbers.get().told(untold);
    }
}

impl Protocol for Connection {
    fn want(&self) -> Want {
        match self.phase {
            Phase::Closed => Want::Nothing,
            Phase::Login if self.login.is_waiting() || !self.outgoing.is_empty() => Want::Nothing,
            _ if self.is_full_of_held() || self.outgoing.is_full() => Want::Nothing,
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
        if self.phase == Phase::Closed {
            return None;
        }
        while let Some(outgoing) = self.outgoing.pop_front() {
            if let Some(transmit) = self.next_outgoing(outgoing) {
                return Some(transmit);
            }
        }
        self.next_window()
    }

    fn closed(&self) -> Option<&CloseReason> {
        self.closed.as_ref()
    }
}
