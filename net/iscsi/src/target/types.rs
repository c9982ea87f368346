//! What a connection tells its owner, and what the owner answers.

use alloc::string::String;
use alloc::vec::Vec;

use super::login::LoginRequest;
use crate::keys::Preferences;
use crate::protocol::TaskId;

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
    /// TASK REASSIGN, of the referenced task (see [`super::Connection::adopt`]).
    TaskReassign {
        /// Which.
        task: TaskId,
        /// ExpDataSN (RFC 7143 section 11.5.6): Data-In PDUs that the initiator has.
        exp_data_sn: u32,
    },
    /// QUERY TASK, of the referenced task (RFC 7144).
    QueryTask(TaskId),
    /// QUERY TASK SET (RFC 7144).
    QueryTaskSet,
    /// I_T NEXUS RESET (RFC 7144).
    NexusReset,
    /// QUERY ASYNCHRONOUS EVENT (RFC 7144).
    QueryAsyncEvent,
    /// A function that is not known.
    Unknown(u8),
}

impl TaskFunction {
    /// True for the functions of RFC 7144, which need iSCSIProtocolLevel 2.
    pub(super) fn is_query(self) -> bool {
        matches!(self, Self::QueryTask(_) | Self::QueryTaskSet | Self::NexusReset | Self::QueryAsyncEvent)
    }
}

/// Answers to task management (RFC 7143 section 11.6.1, RFC 7144).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TaskResponse {
    /// Function complete.
    Complete = 0,
    /// The task does not exist.
    NoTask = 1,
    /// The LUN does not exist.
    NoLun = 2,
    /// The task belongs to a connection that was not removed for recovery.
    StillAllegiant = 3,
    /// Task reassignment is not supported.
    ReassignUnsupported = 4,
    /// The function is not supported.
    Unsupported = 5,
    /// The initiator may not have that done.
    NotAuthorized = 6,
    /// The answer to a query is yes (RFC 7144).
    Succeeded = 7,
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
    /// Somebody wants in: answer with [`super::Connection::admit_login`], [`super::Connection::redirect_login`] or
    /// [`super::Connection::refuse_login`].
    LoginRequest(LoginRequest),
    /// The initiator is authenticated and all is negotiated: answer with [`super::Connection::grant_login`] or
    /// [`super::Connection::refuse_login`].
    LoginComplete,
    /// The session is in full feature phase.
    LoggedIn,
    /// A command: provide a buffer, then [`super::Connection::solicit`] or answer it.
    Command(Command),
    /// All the data that was solicited is in the task's buffer.
    DataComplete(TaskId),
    /// Nothing more comes of the data that were given up ([`super::Connection::give_up_data`]): answer the task.
    DataOver(TaskId),
    /// The task's data are not what they should be: answer it with an error.
    DataLost(TaskId, DataFault),
    /// A management request: end the tasks that it names, then [`super::Connection::respond_task_management`].
    TaskManagement {
        /// The request's own tag.
        request: TaskId,
        /// Which logical unit.
        lun: u64,
        /// What to do.
        function: TaskFunction,
    },
    /// Answer with [`super::Connection::respond_text`].
    SendTargets {
        /// The request's own tag.
        request: TaskId,
        /// Which targets.
        which: SendTargets,
    },
    /// At error recovery level 1: the initiator has the task's status, and its buffer is needed no more.
    Ended(TaskId),
    /// A ping was answered.
    Pong,
    /// The initiator logs out: end what it names, then [`super::Connection::respond_logout`].
    LogoutRequest {
        /// The request's own tag.
        request: TaskId,
        /// What ends.
        what: Logout,
    },
}

impl Event {
    /// True for requests, which come in the order of their numbers.
    pub(super) fn is_request(&self) -> bool {
        matches!(
            self,
            Self::Command(_)
                | Self::TaskManagement { .. }
                | Self::SendTargets { .. }
                | Self::LogoutRequest { .. }
        )
    }
}

/// What is wrong with a task's data (RFC 7143 section 11.4.7.2(a)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataFault {
    /// They were damaged on their way.
    Damaged,
    /// Nobody had asked for them, and they may not come unasked.
    Unexpected,
    /// They are out of order, too many, or too few.
    Amount,
}

/// What a logout ends (RFC 7143 section 11.14.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logout {
    /// The session, with all its connections.
    Session,
    /// The connection with this identifier, this one or another of the session.
    Connection(u16),
    /// The same, and its tasks wait to go on at another one: at error recovery level 2.
    Recovery(u16),
}

/// Answers to a logout (RFC 7143 section 11.15.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LogoutResponse {
    /// Closed.
    Closed = 0,
    /// The session has no such connection.
    NoConnection = 1,
    /// Connections cannot be recovered.
    NoRecovery = 2,
    /// It could not be cleaned up.
    CleanupFailed = 3,
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
