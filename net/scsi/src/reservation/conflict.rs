//! Which commands a reservation of somebody else keeps out (SPC-4 table 66, SBC-3 table 13, SPC-2 table 9).

use super::Kind;

/// What a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Nothing that anybody could reserve.
    Nothing,
    /// No older reservation: a persistent one does not matter, or is looked at by the command itself.
    Unreserved,
    /// To read.
    Read,
    /// To change something.
    Write,
}

impl Demand {
    pub(super) fn passes(self, kind: Kind) -> bool {
        match self {
            Self::Nothing | Self::Unreserved => true,
            Self::Read => kind.admits_readers(),
            Self::Write => false,
        }
    }

    pub(super) fn passes_older(self) -> bool {
        self == Self::Nothing
    }
}

/// What a command needs. One that is not listed counts as a change: the safe side.
pub fn demand(cdb: &[u8; 16]) -> Demand {
    let action = cdb[1] & 0x1f;
    match (cdb[0], action) {
        // REQUEST SENSE, INQUIRY, RELEASE, LOG SENSE, RELEASE(10), REPORT LUNS, and REPORT of what the target can do:
        // target port groups, operation codes, task management functions, priority, timestamp, identifying information.
        (0x03 | 0x12 | 0x17 | 0x4d | 0x57 | 0xa0, _) | (0xa3, 0x05 | 0x0a | 0x0c..=0x0f) => Demand::Nothing,
        // TEST UNIT READY, RESERVE, RESERVE(10), PERSISTENT RESERVE IN and OUT; READ CAPACITY, REPORT REFERRALS.
        (0x00 | 0x16 | 0x56 | 0x5e | 0x5f | 0x25, _) | (0x9e, 0x10 | 0x13) => Demand::Unreserved,
        // START STOP UNIT that starts, without a power condition; PREVENT ALLOW that allows.
        (0x1b, _) if cdb[4] & 0xf1 == 1 => Demand::Unreserved,
        (0x1e, _) if cdb[4] & 3 == 0 => Demand::Nothing,
        // READ, VERIFY, PRE-FETCH, READ DEFECT DATA, READ BUFFER; MODE SENSE, RECEIVE DIAGNOSTIC RESULTS; GET LBA STATUS;
        // RECEIVE COPY RESULTS.
        (0x08 | 0x28 | 0xa8 | 0x88 | 0x2f | 0xaf | 0x8f | 0x34 | 0x90 | 0x37 | 0xb7 | 0x3c, _)
        | (0x1a | 0x5a | 0x1c | 0x84, _)
        | (0x9e, 0x12) => Demand::Read,
        _ => Demand::Write,
    }
}
