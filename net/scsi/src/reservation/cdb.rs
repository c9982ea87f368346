//! The commands, as their CDBs say.

use super::Kind;
use crate::sense::Sense;

/// PERSISTENT RESERVE IN service actions (SPC-4 section 6.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Report {
    /// READ KEYS.
    Keys = 0,
    /// READ RESERVATION.
    Reservation = 1,
    /// REPORT CAPABILITIES.
    Capabilities = 2,
    /// READ FULL STATUS.
    FullStatus = 3,
}

/// PERSISTENT RESERVE OUT service actions (SPC-4 section 6.16.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// REGISTER.
    Register = 0,
    /// RESERVE.
    Reserve = 1,
    /// RELEASE.
    Release = 2,
    /// CLEAR.
    Clear = 3,
    /// PREEMPT.
    Preempt = 4,
    /// PREEMPT AND ABORT.
    PreemptAndAbort = 5,
    /// REGISTER AND IGNORE EXISTING KEY.
    RegisterAndIgnore = 6,
    /// REGISTER AND MOVE.
    RegisterAndMove = 7,
}

/// SCOPE and TYPE, byte 2 of PERSISTENT RESERVE OUT: looked at only where the service action uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeType(pub u8);

impl ScopeType {
    /// The type of a reservation of the whole logical unit.
    ///
    /// # Errors
    /// Another scope, or no type.
    pub fn kind(self) -> Result<Kind, Sense> {
        match (self.0 >> 4, Kind::from_code(self.0 & 15)) {
            (0, Some(kind)) => Ok(kind),
            _ => Err(Sense::invalid_cdb_byte(2)),
        }
    }
}

/// A command about reservations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// PERSISTENT RESERVE IN.
    In {
        /// What is asked.
        report: Report,
        /// Allocation length.
        allocation: u16,
    },
    /// PERSISTENT RESERVE OUT.
    Out {
        /// What to do.
        action: Action,
        /// SCOPE and TYPE.
        scope_type: ScopeType,
        /// Parameter list length.
        length: u32,
    },
    /// RESERVE(6) or RESERVE(10).
    Reserve,
    /// RELEASE(6) or RELEASE(10).
    Release,
}
