//! Third-party copy (SPC-4 sections 6.4 and 6.24).

use super::field::{u32_at, usage};
use super::{Command, Row, row};

/// The rows.
pub(super) const ROWS: &[Row] = &[
    row!(0x83, Some(0x00), 16, usage::block(0x83, 0, [(10, 14), (0, 0)]), "EXTENDED COPY(LID1)", |cdb| {
        Ok(Command::ExtendedCopy { length: u32_at(cdb, 10) })
    }),
    row!(
        0x84,
        Some(0x00),
        16,
        usage::block(0x84, 0, [(2, 3), (10, 14)]),
        "RECEIVE COPY RESULTS, COPY STATUS",
        |cdb| Ok(Command::ReceiveCopyStatus { list: cdb[2], allocation: u32_at(cdb, 10) })
    ),
    row!(
        0x84,
        Some(0x03),
        16,
        usage::block(0x84, 0x03, [(10, 14), (0, 0)]),
        "RECEIVE COPY RESULTS, OPERATING PARAMETERS",
        |cdb| Ok(Command::ReceiveCopyParameters { allocation: u32_at(cdb, 10) })
    ),
];
