//! Requests that come before their turn: they wait, whole, until what is missing has come (RFC 7143 section 4.2.2.1).
//!
//! ```text
//! header --(its turn)--------------------------------------> handled
//!   \-----(not yet, the session may have gaps)--> Held --(its turn)--> handled
//!   \-----(outside the window)--> dropped
//! ```

use alloc::vec::Vec;

use super::numbers::{Gaps, Turn};
use super::{Connection, Phase};
use crate::pdu::{Header, NO_TAG, flag, opcode};
use crate::protocol::TaskId;
use crate::serial;

/// Bytes of data of requests that wait; beyond that the connection is not read.
const HELD_BYTES_MAX: usize = 4 << 20;

/// A request as it came, with its data.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) header: Header,
    pub(super) ahs: Vec<u8>,
    pub(super) data: Vec<u8>,
    /// Data-Out PDUs whose data wait with it.
    pub(super) data_outs: u32,
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
    pub(super) fn hold(&mut self, held: Held) {
        if self.numbers.get().gaps() == Gaps::Impossible {
            return self.misbehaved("CmdSN skipped a number on a session of one connection");
        }
        let number = held.header.cmd_sn();
        let immediate = held.header.is_immediate();
        let same =
            |other: &Held| !immediate && !other.header.is_immediate() && other.header.cmd_sn() == number;
        // The same request again: it was sent again because its answer is late.
        if !self.held.iter().any(same) {
            self.held_bytes += held.data.len();
            self.held.push_back(held);
        }
    }

    /// True while so much waits that no more is taken.
    pub(super) fn is_full_of_held(&self) -> bool {
        self.held_bytes > HELD_BYTES_MAX && !self.is_turn_of_held()
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
        let is = |held: &Held| held.header.opcode() == opcode::SCSI_COMMAND && held.header.itt() == task.0;
        if let Some(at) = self.held.iter().position(is)
            && let Some(held) = self.held.remove(at)
        {
            self.held_bytes -= held.data.len();
        }
    }

    /// Unsolicited data of a command that waits: they wait with it. Those of no command are dropped.
    pub(super) fn hold_data(&mut self, header: &Header, data: &[u8]) {
        let limit = (self.parameters.first_burst_length as usize).min(self.limit_of(header));
        let is = |held: &&mut Held| {
            held.header.opcode() == opcode::SCSI_COMMAND && held.header.itt() == header.itt()
        };
        let Some(held) = self.held.iter_mut().find(is) else { return };
        if held.header.has(flag::FINAL) && self.parameters.error_recovery_level > 0 {
            // It follows what was lost.
            return;
        }
        let first_burst = self.parameters.first_burst_length as usize;
        let len = held.data.len() + data.len();
        //= rfc7143#section-11.4.7.2(b): as where a command has its turn.
        let ends_short =
            header.has(flag::FINAL) && len < first_burst && held.header.edtl() as usize > first_burst;
        let right = !ends_short
            && !held.header.has(flag::FINAL)
            && header.ttt() == NO_TAG
            && header.data_sn() == held.data_outs
            && header.buffer_offset() as usize == held.data.len()
            && len <= limit;
        if !right {
            return self.misbehaved("unsolicited data out of order");
        }
        held.data.extend_from_slice(data);
        held.data_outs += 1;
        if header.has(flag::FINAL) {
            held.header = held.header.with_flags(flag::FINAL);
        }
        self.held_bytes += data.len();
    }

    /// Unsolicited data of a command that waits were damaged: what comes from there on is asked for when it has its turn.
    pub(super) fn lose_held_data(&mut self, header: &Header) {
        let is = |held: &&mut Held| held.header.itt() == header.itt();
        if let Some(held) = self.held.iter_mut().find(is) {
            held.header = held.header.with_flags(flag::FINAL);
        }
    }

    /// Bytes that the held command of a Data-Out moves.
    fn limit_of(&self, header: &Header) -> usize {
        let of = |held: &&Held| held.header.itt() == header.itt();
        self.held.iter().find(of).map_or(0, |held| held.header.edtl() as usize)
    }
}
