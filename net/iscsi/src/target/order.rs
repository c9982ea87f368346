//! Requests that come before their turn: they wait, whole, until what is missing has come (RFC 7143 section 4.2.2.1).
//!
//! ```text
//! header --(its turn)--------------------------------------> handled
//!   \-----(not yet, the session may have gaps)--> Held --(its turn)--> handled
//!   \-----(outside the window)--> dropped
//! ```

use alloc::vec::Vec;

use super::numbers::{Gaps, Turn};
use super::task::{Task, Unfit};
use super::{Connection, DataFault, IMMEDIATE_MAX, Phase};
use crate::keys::SessionParameters;
use crate::pdu::{Header, RejectReason, opcode};
use crate::protocol::TaskId;
use crate::serial;

/// Bytes of data of requests that wait. Beyond that data are dropped, and asked for again, where the level allows that: what they wait
/// for may come by this connection yet, again or in place of one that broke off. At level 0 the connection is not read, unless what
/// they wait for is known to come by it.
const HELD_BYTES_MAX: usize = 4 << 20;

/// A request as it came, with its data.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) header: Header,
    pub(super) ahs: Vec<u8>,
    pub(super) data: Vec<u8>,
    /// The task that a command will be: it judges the data that come unasked meanwhile. `None` for what opens none.
    pub(super) open: Option<Task>,
    /// What is wrong with those data, where something is.
    pub(super) fault: DataFault,
}

impl Held {
    /// A request with its data segment.
    pub(super) fn new(header: Header, ahs: Vec<u8>, data: Vec<u8>, parameters: &SessionParameters) -> Self {
        let is_command = header.opcode() == opcode::SCSI_COMMAND;
        let mut open = is_command.then(|| Task::open(&header, parameters)).flatten();
        if let Some(open) = &mut open {
            open.on_immediate_end(&header);
        }
        Self { header, ahs, data, open, fault: DataFault::Unexpected }
    }

    fn is_command(&self, task: TaskId) -> bool {
        self.header.opcode() == opcode::SCSI_COMMAND && self.header.itt() == task.0
    }

    fn fail(&mut self, fault: DataFault) {
        if self.open.as_mut().is_some_and(Task::fail) {
            self.fault = fault;
            self.data = Vec::new();
        }
    }

    /// The task, where a Data-Out is what it waits for; what it is not fails it, as where a command has its turn.
    fn expecting(&mut self, header: &Header, parameters: &SessionParameters) -> Option<&mut Task> {
        let open = self.open.as_mut().filter(|open| !open.has_failed())?;
        match open.on_data_out(header, parameters) {
            Ok(()) => {}
            // It follows what was lost.
            Err(Unfit::Unasked) if parameters.error_recovery_level > 0 => return None,
            Err(unfit) => self.fail(unfit.fault()),
        }
        self.open.as_mut().filter(|open| !open.has_failed())
    }

    /// There is no room for the data that came with a command.
    fn lose_immediate(&mut self, parameters: &SessionParameters) {
        if parameters.error_recovery_level == 0 {
            return self.fail(DataFault::Damaged);
        }
        if let Some(open) = &mut self.open {
            open.lose_early();
            self.data = Vec::new();
        }
    }

    /// Takes unsolicited data of a command.
    fn take_data(&mut self, header: &Header, data: &[u8], parameters: &SessionParameters) {
        let Some(open) = self.expecting(header, parameters) else { return };
        //= rfc7143#section-11.4.7.2(b): too few are noticed as where a command has its turn.
        if open.on_data_end(header, parameters).is_err() {
            return self.fail(DataFault::Amount);
        }
        let from = header.buffer_offset() as usize;
        let end = from + data.len();
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data[from..end].copy_from_slice(data);
    }

    /// Unsolicited data of a command were damaged: where they can be, they are asked for when it has its turn.
    fn lose_data(&mut self, header: &Header, parameters: &SessionParameters) {
        let Some(open) = self.expecting(header, parameters) else { return };
        if parameters.error_recovery_level == 0 {
            self.fail(DataFault::Damaged);
        } else if open.on_data_lost(header, parameters).is_err() {
            self.fail(DataFault::Amount);
        }
    }
}

/// What becomes of a request that has just come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is handled as it comes.
    InTurn,
    /// It is handled when all of it is there and right.
    Whole,
    /// It waits.
    Early,
    /// It is dropped.
    Ignored,
}

/// What becomes of the data of a Data-Out, by its header: that may fit a task when they are in which it did not fit then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DataOut {
    /// A task takes them.
    Taken,
    /// A command that waits may.
    Early,
    /// Nobody does.
    Dropped,
}

/// Whether data of what waits are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// They are.
    Some,
    /// They will be: what is waited for comes on another connection.
    Later,
    /// They are dropped, and asked for again; at level 0 their commands fail.
    None,
}

impl Connection {
    /// What becomes of a request, by its header alone.
    pub(super) fn arrival(&self, header: &Header) -> Arrival {
        let numbers = self.numbers.get();
        let number = header.cmd_sn();
        if header.is_immediate() {
            //= rfc7143#section-4.2.3.3(b): a function that ends several tasks covers what was numbered before it.
            let covers =
                header.opcode() == opcode::TASK_MANAGEMENT && !matches!(header.flags() & 0x7f, 1 | 8 | 9);
            let waits = covers && numbers.gaps() == Gaps::Wait && numbers.is_missing(number);
            return match header.opcode() {
                _ if waits && number != numbers.expected() => Arrival::Early,
                opcode::SCSI_COMMAND if self.is_checked_first(header) => Arrival::Whole,
                _ => Arrival::InTurn,
            };
        }
        //= rfc7143#section-4.2.2.1(e): on whatever connection they come, requests have their turns by their numbers.
        match numbers.turn(number) {
            Turn::Never => Arrival::Ignored,
            Turn::Later => Arrival::Early,
            Turn::Now if self.is_checked_first(header) => Arrival::Whole,
            Turn::Now => Arrival::InTurn,
        }
    }

    /// True where damaged data have to leave no trace of the request that they came with: the initiator sends it again.
    fn is_checked_first(&self, header: &Header) -> bool {
        self.parameters.error_recovery_level > 0
            && !self.parameters.data_digest.is_empty()
            && header.data_len() > 0
    }

    /// Keeps a request until its turn; what cannot be there breaks the connection.
    pub(super) fn hold(&mut self, mut held: Held) {
        if self.numbers.get().gaps() == Gaps::Impossible {
            return self.misbehaved("CmdSN skipped a number on a session of one connection");
        }
        let number = held.header.cmd_sn();
        let immediate = held.header.is_immediate();
        let same =
            |other: &Held| !immediate && !other.header.is_immediate() && other.header.cmd_sn() == number;
        // The same request again: it was sent again because its answer is late.
        if self.held.iter().any(same) {
            return;
        }
        if immediate && self.held.iter().filter(|other| other.header.is_immediate()).count() >= IMMEDIATE_MAX
        {
            return self.reject(&held.header, RejectReason::ImmediateCommand);
        }
        if self.room() == Room::None && !held.data.is_empty() {
            // As if it had not come, where there is nothing to ask for again.
            if held.open.is_none() {
                return self.await_again(number);
            }
            held.lose_immediate(&self.parameters);
        }
        self.held_bytes += held.data.len();
        self.held.push_back(held);
    }

    /// A numbered request was rejected, and comes again by this connection, or never.
    pub(super) fn await_again(&mut self, number: u32) {
        let numbers = self.numbers.get();
        self.awaited.retain(|awaited| numbers.is_missing(*awaited));
        drop(numbers);
        if !self.awaited.contains(&number) {
            self.awaited.push(number);
        }
    }

    /// Room for the data of what waits.
    fn room(&self) -> Room {
        let awaits = || {
            let numbers = self.numbers.get();
            self.awaited.iter().any(|number| numbers.is_missing(*number))
        };
        match self.held_bytes > HELD_BYTES_MAX {
            false => Room::Some,
            true if self.recovers() || awaits() => Room::None,
            true => Room::Later,
        }
    }

    /// True while so much waits that no more is taken.
    pub(super) fn is_full_of_held(&self) -> bool {
        self.room() == Room::Later && !self.is_turn_of_held()
    }

    fn next_held(&self) -> Option<usize> {
        let numbers = self.numbers.get();
        if !numbers.is_told() {
            return None;
        }
        let expected = numbers.expected();
        self.held.iter().position(|held| {
            let number = held.header.cmd_sn();
            number == expected || serial::before(number, expected)
        })
    }

    pub(super) fn is_turn_of_held(&self) -> bool {
        self.next_held().is_some()
    }

    /// Handles the next request whose turn has come; false when there is none.
    pub(super) fn release_held(&mut self) -> bool {
        if self.held.is_empty() || self.phase == Phase::Closed {
            return false;
        }
        let Some(held) = self.next_held().and_then(|at| self.held.remove(at)) else { return false };
        self.held_bytes -= held.data.len();
        let late = !held.header.is_immediate() && self.numbers.get().turn(held.header.cmd_sn()) != Turn::Now;
        if !late {
            self.handle_whole(held);
        }
        true
    }

    /// The held command that is the task, given up.
    pub(super) fn drop_held(&mut self, task: TaskId) {
        if let Some(at) = self.held.iter().position(|held| held.is_command(task))
            && let Some(held) = self.held.remove(at)
        {
            self.held_bytes -= held.data.len();
        }
    }

    /// Unsolicited data of a command that waits: they wait with it. Those of no command are dropped.
    pub(super) fn hold_data(&mut self, header: &Header, data: &[u8]) {
        if self.room() == Room::None {
            return self.lose_held_data(header);
        }
        let task = TaskId(header.itt());
        self.with_held(task, |held, parameters| held.take_data(header, data, parameters));
    }

    /// Unsolicited data of a command that waits were damaged.
    pub(super) fn lose_held_data(&mut self, header: &Header) {
        let task = TaskId(header.itt());
        self.with_held(task, |held, parameters| held.lose_data(header, parameters));
    }

    /// Does something to a held command, and counts the bytes that wait.
    fn with_held(&mut self, task: TaskId, act: impl FnOnce(&mut Held, &SessionParameters)) {
        let Some(held) = self.held.iter_mut().find(|held| held.is_command(task)) else { return };
        self.held_bytes -= held.data.len();
        act(held, &self.parameters);
        self.held_bytes += held.data.len();
    }
}
