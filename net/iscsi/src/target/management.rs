//! Task management and logout.

use super::{Connection, Event, Logout, LogoutResponse, Phase, SessionType, TaskFunction, TaskResponse};
use crate::pdu::{Header, RejectReason, flag, opcode};
use crate::protocol::{Body, CloseReason, TaskId};

/// iSCSIProtocolLevel from which the functions of RFC 7144 may be used.
const LEVEL_OF_QUERIES: u32 = 2;

/// Requests other than commands that may be open at once: nothing else limits immediate ones.
const REQUESTS_MAX: usize = 64;

/// Why the initiator logs out (RFC 7143 section 11.14.1).
mod reason {
    /// Close the session.
    pub(super) const SESSION: u8 = 0;
    /// Close the connection.
    pub(super) const CONNECTION: u8 = 1;
    /// Remove the connection for recovery.
    pub(super) const RECOVERY: u8 = 2;
}

impl Connection {
    /// True while a task is open: no status has been sent for it.
    pub fn is_open(&self, task: TaskId) -> bool {
        self.tasks.contains_key(&task)
    }

    /// True where the functions of RFC 7144 are agreed on.
    pub fn has_queries(&self) -> bool {
        self.parameters.protocol_level >= LEVEL_OF_QUERIES
    }

    /// Answers a management request.
    pub fn respond_task_management(&mut self, request: TaskId, response: TaskResponse) {
        self.respond_query(request, response, [0; 3]);
    }

    /// The same, with additional response information.
    pub fn respond_query(&mut self, request: TaskId, response: TaskResponse, information: [u8; 3]) {
        self.answered(request);
        //= rfc7144#section-6.4.1: the answer's own code, and what QUERY ASYNCHRONOUS EVENT tells beside it.
        let mut header = Header::new(opcode::TASK_MANAGEMENT_RESPONSE, flag::FINAL)
            .with_byte(2, response as u8)
            .with_itt(request.0);
        for (at, byte) in (8..).zip(information) {
            header = header.with_byte(at, byte);
        }
        self.send(header, Body::None);
    }

    /// Asks the initiator to log out within `seconds` (asynchronous event 1, RFC 7143 section 11.9.1(a)).
    pub fn request_logout(&mut self, seconds: u16) {
        if self.phase == Phase::FullFeature {
            let header = Header::new(opcode::ASYNC, flag::FINAL).with_byte(36, 1).with_u16(42, seconds);
            self.send_unsolicited(header);
        }
    }

    /// Says that the session ends now and may come back after `seconds` (asynchronous event 3), and ends it once that is on
    /// its way, behind what was answered before.
    //= rfc7143#section-11.9.1(f): nothing is kept.
    pub fn dismiss(&mut self, seconds: u16, why: &'static str) {
        if self.phase == Phase::FullFeature {
            let header = Header::new(opcode::ASYNC, flag::FINAL).with_byte(36, 3).with_u16(40, seconds);
            self.send_unsolicited(header);
        }
        if self.phase != Phase::Closed {
            self.outgoing.push_back(super::Outgoing::Close(CloseReason::Local(why)));
        }
    }

    /// Says that this connection alone is dropped (asynchronous event 2), that its tasks end with it, and that it may come again after the
    /// session's Time2Wait; drops it once that is on its way, behind what was answered before.
    pub fn dismiss_connection(&mut self, why: &'static str) {
        if self.phase == Phase::FullFeature {
            //= rfc7143#section-11.9.1(b): Parameter1 is the connection, Parameter2 Time2Wait; a Parameter3 of zero keeps nothing.
            let header = Header::new(opcode::ASYNC, flag::FINAL)
                .with_byte(36, 2)
                .with_u16(38, self.cid)
                .with_u16(40, self.parameters.time2wait);
            self.send_unsolicited(header);
        }
        if self.phase != Phase::Closed {
            self.outgoing.push_back(super::Outgoing::Close(CloseReason::Local(why)));
        }
    }

    /// Asks the initiator to negotiate within `seconds` (asynchronous event 4): with its next text request it is told that data
    /// segments of this length, in bytes, are taken from now on. A longer one that was declared before is still taken.
    pub fn renegotiate(&mut self, seconds: u16, max_recv_data_segment_length: u32) {
        if self.phase == Phase::FullFeature {
            self.declares = Some(max_recv_data_segment_length);
            self.parameters.max_recv_data_segment_length =
                self.parameters.max_recv_data_segment_length.max(max_recv_data_segment_length);
            //= rfc7143#section-11.9.1(c): Parameter3 is the time that it has.
            let header = Header::new(opcode::ASYNC, flag::FINAL).with_byte(36, 4).with_u16(42, seconds);
            self.send_unsolicited(header);
        }
    }

    fn send_unsolicited(&mut self, header: Header) {
        self.send(header.with_itt(crate::pdu::NO_TAG), Body::None);
    }

    pub(super) fn answered(&mut self, request: TaskId) {
        self.requests.retain(|open| *open != request);
    }

    pub(super) fn on_task_management(&mut self, header: &Header) {
        if self.session_type == SessionType::Discovery {
            return self.reject(header, RejectReason::Protocol);
        }
        if self.requests.len() >= REQUESTS_MAX {
            return self.reject(header, RejectReason::ImmediateCommand);
        }
        let function = function(header);
        let request = TaskId(header.itt());
        match function {
            //= rfc7144#section-4.1: what was not agreed on is not used.
            _ if function.is_query() && !self.has_queries() => {
                self.respond_task_management(request, TaskResponse::Unsupported);
            }
            TaskFunction::AbortTask(task) if self.is_missing(task, header) => {
                //= rfc7143#section-7.11(a): whoever aborts what is late need not know whether it came.
                //= rfc7143#section-11.6.1(d): a command that never came counts as received, and as aborted.
                self.drop_held(task);
                self.numbers.get().give_up(header.max_cmd_sn());
                self.respond_task_management(request, TaskResponse::Complete);
            }
            _ => {
                self.requests.push(request);
                self.tell(Event::TaskManagement { request, lun: header.lun(), function });
            }
        }
    }

    /// True when a task to abort has a number that is still to come, below that of the request itself.
    fn is_missing(&self, task: TaskId, header: &Header) -> bool {
        let ref_cmd_sn = header.max_cmd_sn();
        !self.tasks.contains_key(&task)
            && self.numbers.get().is_missing(ref_cmd_sn)
            && crate::serial::before(ref_cmd_sn, header.cmd_sn())
    }

    pub(super) fn on_logout(&mut self, header: &Header) {
        let cid = header.u16_at(20);
        let request = TaskId(header.itt());
        let what = match header.flags() & 0x7f {
            reason::SESSION => Logout::Session,
            //= rfc7143#section-11.14.5: a connection is removed for recovery where its tasks can be reassigned.
            reason::RECOVERY if self.reassigns() => Logout::Recovery(cid),
            reason::RECOVERY if self.parameters.error_recovery_level < 2 => {
                return self.respond_logout(request, LogoutResponse::NoRecovery);
            }
            // Where nothing is retained, a connection that is removed for recovery is closed.
            reason::CONNECTION | reason::RECOVERY
                if cid == self.cid || self.parameters.max_connections > 1 =>
            {
                Logout::Connection(cid)
            }
            reason::CONNECTION | reason::RECOVERY => {
                return self.respond_logout(request, LogoutResponse::NoConnection);
            }
            _ => return self.reject(header, RejectReason::InvalidField),
        };
        if self.phase != Phase::FullFeature {
            return;
        }
        if matches!(what, Logout::Session) || cid == self.cid {
            self.phase = Phase::LoggingOut { itt: header.itt() };
        }
        self.requests.push(request);
        self.tell(Event::LogoutRequest { request, what });
    }

    /// Answers a logout; a connection that logged itself out is over once that is sent.
    pub fn respond_logout(&mut self, request: TaskId, response: LogoutResponse) {
        self.answered(request);
        let header = Header::new(opcode::LOGOUT_RESPONSE, flag::FINAL)
            .with_byte(2, response as u8)
            .with_itt(request.0)
            .with_u16(40, self.parameters.time2wait)
            .with_u16(42, self.parameters.time2retain);
        self.send(header, Body::None);
        if self.phase == (Phase::LoggingOut { itt: request.0 }) {
            self.outgoing.push_back(super::Outgoing::Close(CloseReason::LoggedOut));
        }
    }
}

fn function(header: &Header) -> TaskFunction {
    //= rfc7143#section-11.5.4: the tag of the task that it is about.
    let referenced = TaskId(header.ttt());
    match header.flags() & 0x7f {
        1 => TaskFunction::AbortTask(referenced),
        2 => TaskFunction::AbortTaskSet,
        3 => TaskFunction::ClearAca,
        4 => TaskFunction::ClearTaskSet,
        5 => TaskFunction::LogicalUnitReset,
        6 => TaskFunction::TargetWarmReset,
        7 => TaskFunction::TargetColdReset,
        8 => TaskFunction::TaskReassign { task: referenced, exp_data_sn: header.data_sn() },
        //= rfc7144#section-6.3(a)
        9 => TaskFunction::QueryTask(referenced),
        //= rfc7144#section-6.3(b)
        10 => TaskFunction::QueryTaskSet,
        //= rfc7144#section-6.3(c)
        11 => TaskFunction::NexusReset,
        //= rfc7144#section-6.3(d)
        12 => TaskFunction::QueryAsyncEvent,
        other => TaskFunction::Unknown(other),
    }
}
