//! The initiator's end of one connection, which is one session, or one of several in a session.
//!
//! ```text
//! Security -> Operational -> FullFeature --(logout answered)--> closed
//!     \------------\-------------\--(refused, peer misbehaves, digest)--> closed
//! ```
//!
//! Error recovery level 0 and 1 (`recovery`): when the connection is lost the owner makes a new one with the same ISID, which reinstates the
//! session, and repeats what had not been answered. At level 2 its tasks go on at another connection of the session (`reassign`).

mod abandoned;
mod login;
mod numbers;
mod reassign;
mod receive;
mod recovery;
mod task;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use crate::chap::Proving;
use crate::deframe::Deframer;
use crate::digest::Digest;
use crate::keys::{Preferences, SessionParameters};
use crate::pdu::{Header, NO_TAG, flag, opcode};
use crate::protocol::{Body, CloseReason, OUTGOING_MAX, Protocol, TaskId, Transmit, Want};
use crate::task_map::TaskMap;
use abandoned::Abandoned;
use login::{Login, Membership, Stage};
use numbers::Numbering;
use recovery::Statuses;
use task::{Outgoing, Piece, Task};

/// Longest data segment of a control PDU that is kept, in bytes.
const CONTROL_DATA_MAX: usize = 64 << 10;
/// Answers to pings that wait to be sent at the most.
const ECHOES_MAX: usize = 16;

/// Who logs in, to what.
#[derive(Clone, Debug)]
pub struct Config {
    /// InitiatorName.
    pub initiator: String,
    /// InitiatorAlias, if any.
    pub alias: Option<String>,
    /// TargetName; `None` for a discovery session.
    pub target: Option<String>,
    /// ISID: the same at each reconnection, so that the target replaces the old session.
    pub isid: [u8; 6],
    /// What to negotiate for.
    pub preferences: Preferences,
    /// How to authenticate; `None` to go without.
    pub credentials: Option<Proving>,
}

/// Which way a command moves data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Neither.
    None,
    /// From the target.
    Read,
    /// To the target.
    Write,
}

/// A SCSI command to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// Raw logical unit number.
    pub lun: u64,
    /// Command descriptor block.
    pub cdb: [u8; 16],
    /// Which way its data go.
    pub direction: Direction,
    /// How many bytes, which the task's buffer has.
    pub len: u32,
    /// Task attribute, as in the PDU (RFC 7143 section 11.3.1).
    pub attribute: u8,
}

impl Command {
    /// The simple task attribute.
    pub const SIMPLE: u8 = 1;
}

/// What a logout ends (RFC 7143 section 11.14.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Ends {
    Session = 0,
    Connection = 1,
    /// The connection, whose tasks go on at another one.
    Recovery = 2,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// SCSI status byte.
    pub status: u8,
    /// Sense data; empty for none.
    pub sense: Vec<u8>,
    /// iSCSI response code: zero is "command completed at target".
    pub response: u8,
    /// Bytes that the target did not move although they were expected.
    pub underflow: u32,
    /// Bytes that the target would have moved beyond the expected.
    pub overflow: u32,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The session is in full feature phase.
    LoggedIn,
    /// A command ended; its buffer is the owner's again.
    Completed(TaskId, Completion),
    /// A ping was answered.
    Pong,
    /// A management request was answered with this response code.
    TaskManagementDone(TaskId, u8),
    /// The logout of another connection was answered (RFC 7143 section 11.15).
    Removed {
        /// Response code: zero is "closed successfully".
        response: u8,
        /// Seconds to wait before tasks are reassigned.
        time2wait: u16,
        /// Seconds that they last from then on.
        time2retain: u16,
    },
    /// A task that was taken over is not continued by the target: the response code of its TASK REASSIGN. Whether it was carried
    /// out is not known.
    NotReassigned(TaskId, u8),
    /// The whole answer to SendTargets, as text.
    Text(Vec<u8>),
    /// The target wants the session to be logged out within these seconds (asynchronous events 1 to 3).
    LogoutRequested {
        /// Seconds to wait before reconnecting.
        seconds: u16,
    },
}

/// Why a command cannot be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// Not logged in, or over.
    NotLoggedIn,
    /// The target's command window is closed: wait for an answer.
    WindowClosed,
}

/// What a text request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topic {
    /// Targets: the answer is the owner's.
    Targets,
    /// What may still be negotiated, at the target's wish.
    Negotiation,
}

/// A text request as it was sent.
#[derive(Debug)]
struct Text {
    topic: Topic,
    header: Header,
    body: Body,
}

/// See the module.
#[derive(Debug)]
pub struct Connection {
    config: Config,
    stage: Stage,
    deframer: Deframer,
    login: Login,
    parameters: SessionParameters,
    tasks: TaskMap<Task>,
    abandoned: Abandoned,
    numbers: Numbering,
    statuses: Statuses,
    /// What the Data-In at hand is to its task.
    piece: Piece,
    /// Its header, until all of it is there.
    arriving: Option<Header>,
    /// TASK REASSIGN requests on their way, and the tasks that they are about.
    reassigning: Vec<(TaskId, TaskId)>,
    outgoing: VecDeque<Outgoing>,
    events: VecDeque<Event>,
    closed: Option<CloseReason>,
    text: Vec<u8>,
    /// The text request that is on its way.
    text_request: Option<Text>,
    /// The tag of a logout that is on its way.
    logout: Option<u32>,
}

impl Connection {
    /// A connection on a stream that is open or about to be; the first login request waits in `poll_transmit`.
    pub fn new(config: Config) -> Self {
        Self::with(config, Numbering::new(), None)
    }

    /// One more connection of the session of `leading`, which is in full feature phase and allows more than one. Look at each
    /// of a session's connections after any has moved.
    pub fn joining(config: Config, leading: &Self, cid: u16) -> Self {
        let membership = Membership {
            tsih: leading.login.tsih(),
            cid,
            portal_group: leading.login.portal_group(),
            parameters: leading.parameters.clone(),
        };
        Self::with(config, leading.numbers.clone(), Some(membership))
    }

    fn with(config: Config, numbers: Numbering, joins: Option<Membership>) -> Self {
        let login = Login::new(config.preferences, config.credentials.clone(), joins);
        let mut connection = Self {
            config,
            stage: Stage::Security,
            deframer: Deframer::new(),
            login,
            parameters: SessionParameters::default(),
            tasks: TaskMap::default(),
            abandoned: Abandoned::default(),
            numbers,
            statuses: Statuses::default(),
            piece: Piece::Wanted,
            arriving: None,
            reassigning: Vec::new(),
            outgoing: VecDeque::new(),
            events: VecDeque::new(),
            closed: None,
            text: Vec::new(),
            text_request: None,
            logout: None,
        };
        connection.send_login();
        connection
    }

    /// What the login agreed on; defaults before.
    pub fn parameters(&self) -> &SessionParameters {
        &self.parameters
    }

    /// Connection identifier.
    pub fn cid(&self) -> u16 {
        self.login.cid()
    }

    /// True between login and logout.
    pub fn is_full_feature(&self) -> bool {
        self.stage == Stage::FullFeature
    }

    /// Commands without an answer.
    pub fn open_tasks(&self) -> usize {
        self.tasks.len()
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether a command can be sent now.
    ///
    /// # Errors
    /// See [`NotSent`].
    pub fn may_submit(&self) -> Result<(), NotSent> {
        if self.stage != Stage::FullFeature || self.logout.is_some() {
            return Err(NotSent::NotLoggedIn);
        }
        if !self.numbers.is_open() {
            return Err(NotSent::WindowClosed);
        }
        Ok(())
    }

    /// Sends a command. Its buffer must hold the data of a write until the command completed.
    ///
    /// # Errors
    /// See [`NotSent`]; nothing was sent.
    pub fn submit(&mut self, command: Command) -> Result<TaskId, NotSent> {
        self.may_submit()?;
        let task = TaskId(self.numbers.new_tag());
        let cmd_sn = self.numbers.take();
        let (open, first) = Task::open(task, &command, cmd_sn, &self.parameters);
        self.tasks.insert(task, open);
        self.outgoing.extend(first);
        Ok(task)
    }

    /// Sends an immediate ping; the answer is [`Event::Pong`].
    pub fn ping(&mut self) {
        if self.stage == Stage::FullFeature {
            let header = Header::new(opcode::NOP_OUT, flag::FINAL)
                .with_immediate()
                .with_itt(self.numbers.new_tag())
                .with_ttt(NO_TAG)
                .with_cmd_sn(self.numbers.next());
            self.outgoing.push_back(Outgoing::Control { header, body: Body::None });
        }
    }

    /// Asks for the targets that `which` names ("All", a target's name, or nothing for the session's own).
    pub fn send_targets(&mut self, which: &str) {
        let mut text = Vec::new();
        crate::text::emit(&mut text, "SendTargets", which);
        let header = Header::new(opcode::TEXT, flag::FINAL).with_ttt(NO_TAG);
        self.send_text(Topic::Targets, header, Body::Inline(text));
    }

    fn send_text(&mut self, topic: Topic, header: Header, body: Body) {
        let header = header.with_itt(self.numbers.new_tag());
        let header = header.with_cmd_sn(self.numbers.take());
        self.text_request = Some(Text { topic, header, body: body.clone() });
        self.outgoing.push_back(Outgoing::Control { header, body });
    }

    /// Asks the target to abort a task (function 1), or to reset the logical unit (function 5); the answer is
    /// [`Event::TaskManagementDone`] with the returned name.
    pub fn manage(&mut self, function: u8, lun: u64, referenced: Option<TaskId>) -> TaskId {
        let ref_cmd_sn = referenced.and_then(|task| self.tasks.get(&task)).map_or(0, Task::cmd_sn);
        self.send_management(function, lun, referenced, ref_cmd_sn)
    }

    /// The same for a task of another connection of the session.
    pub fn manage_as(&mut self, function: u8, lun: u64, referenced: TaskId, of: &Self) -> TaskId {
        let ref_cmd_sn = of.tasks.get(&referenced).map_or(0, Task::cmd_sn);
        self.send_management(function, lun, Some(referenced), ref_cmd_sn)
    }

    fn send_management(
        &mut self,
        function: u8,
        lun: u64,
        referenced: Option<TaskId>,
        ref_cmd_sn: u32,
    ) -> TaskId {
        let request = TaskId(self.numbers.new_tag());
        let header = Header::new(opcode::TASK_MANAGEMENT, flag::FINAL | function)
            .with_immediate()
            .with_lun(lun)
            .with_itt(request.0)
            .with_ttt(referenced.map_or(NO_TAG, |task| task.0))
            .with_cmd_sn(self.numbers.next())
            .with_max_cmd_sn(ref_cmd_sn);
        self.outgoing.push_back(Outgoing::Control { header, body: Body::None });
        request
    }

    /// Logs out; the connection is over once the target answered.
    pub fn log_out(&mut self) {
        self.send_logout(Ends::Session, self.login.cid());
    }

    /// Logs this connection out; the others of its session go on.
    pub fn leave(&mut self) {
        self.send_logout(Ends::Connection, self.login.cid());
    }

    /// Logs another connection of the session out; the answer is [`Event::Removed`].
    pub fn remove(&mut self, cid: u16) {
        self.send_logout(Ends::Connection, cid);
    }

    /// Removes another connection of the session for recovery, whatever became of it; the answer is [`Event::Removed`].
    pub fn recover(&mut self, cid: u16) {
        self.send_logout(Ends::Recovery, cid);
    }

    fn send_logout(&mut self, ends: Ends, cid: u16) {
        if self.stage == Stage::FullFeature && self.logout.is_none() {
            let itt = self.numbers.new_tag();
            self.logout = (ends == Ends::Session || cid == self.login.cid()).then_some(itt);
            let header = Header::new(opcode::LOGOUT, flag::FINAL | ends as u8)
                .with_immediate()
                .with_u16(20, cid)
                .with_itt(itt)
                .with_cmd_sn(self.numbers.next());
            self.outgoing.push_back(Outgoing::Control { header, body: Body::None });
        }
    }

    /// Drops the connection.
    pub fn drop_connection(&mut self, why: &'static str) {
        self.close(CloseReason::Local(why));
    }

    fn close(&mut self, reason: CloseReason) {
        self.stage = Stage::Closed;
        self.outgoing.clear();
        self.closed.get_or_insert(reason);
    }

    fn misbehaved(&mut self, what: &'static str) {
        self.close(CloseReason::PeerMisbehaved(what));
    }

    // Sending.

    fn frame(&self, header: &Header, body: Body) -> Transmit {
        let (header_digest, data_digest) = match self.stage {
            Stage::Security | Stage::Operational => (Digest::None, Digest::None),
            _ => (self.parameters.header_digest, self.parameters.data_digest),
        };
        Transmit::new(&header.with_exp_stat_sn(self.statuses.expected), body, header_digest, data_digest)
    }
}

impl Protocol for Connection {
    fn want(&self) -> Want {
        match self.stage {
            Stage::Closed => Want::Nothing,
            _ if self.outgoing.len() >= OUTGOING_MAX => Want::Nothing,
            _ => self.deframer.want(),
        }
    }

    fn handle_bytes(&mut self, bytes: &[u8]) {
        if self.stage != Stage::Closed {
            let step = self.deframer.handle(bytes);
            self.on_step(step);
        }
    }

    fn handle_payload(&mut self, bytes: &[u8]) {
        self.handle_bytes(bytes);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let outgoing = self.outgoing.pop_front()?;
        match outgoing {
            Outgoing::Control { header, body } => Some(self.frame(&header, body)),
            Outgoing::Command { task, header, immediate } => {
                let body =
                    if immediate > 0 { Body::Task { task, offset: 0, len: immediate } } else { Body::None };
                Some(self.frame(&header, body))
            }
            Outgoing::Burst(mut burst) => {
                let (header, body) = burst.next_data_out(&self.parameters);
                let transmit = self.frame(&header, body);
                if !burst.is_sent() {
                    self.outgoing.push_front(Outgoing::Burst(burst));
                }
                Some(transmit)
            }
        }
    }

    fn closed(&self) -> Option<&CloseReason> {
        self.closed.as_ref()
    }
}
