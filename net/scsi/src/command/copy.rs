//! Third-party copy (SPC-4 sections 6.3, 6.4 and 6.20 to 6.26, SBC-3 sections 5.12, 5.25 and 5.59).

use super::field::{u32_at, usage};
use super::{Command, Row, row};

/// The rows.
pub(super) const ROWS: &[Row] = &[
    row!(0x83, Some(0x01), 16, usage::block(0x83, 0x1f, [(10, 14), (0, 0)]), "EXTENDED COPY(LID4)", |cdb| {
        Ok(Command::ExtendedCopyLid4 { length: u32_at(cdb, 10) })
    }),
    row!(0x83, Some(0x10), 16, usage::block(0x83, 0x1f, [(6, 15), (0, 0)]), "POPULATE TOKEN", |cdb| {
        Ok(Command::PopulateToken { list: u32_at(cdb, 6), length: u32_at(cdb, 10) })
    }),
    row!(0x83, Some(0x11), 16, usage::block(0x83, 0x1f, [(6, 15), (0, 0)]), "WRITE USING TOKEN", |cdb| {
        Ok(Command::WriteUsingToken { list: u32_at(cdb, 6), length: u32_at(cdb, 10) })
    }),
    row!(0x83, Some(0x1c), 16, usage::block(0x83, 0x1f, [(2, 6), (0, 0)]), "COPY OPERATION ABORT", |cdb| {
        Ok(Command::CopyOperationAbort { list: u32_at(cdb, 2) })
    }),
    row!(
        0x84,
        Some(0x05),
        16,
        usage::block(0x84, 0x1f, [(2, 6), (10, 14)]),
        "RECEIVE COPY RESULTS, COPY STATUS(LID4)",
        |cdb| Ok(Command::ReceiveCopyStatusLid4 { list: u32_at(cdb, 2), allocation: u32_at(cdb, 10) })
    ),
    row!(
        0x84,
        Some(0x07),
        16,
        usage::block(0x84, 0x1f, [(2, 6), (10, 14)]),
        "RECEIVE ROD TOKEN INFORMATION",
        |cdb| Ok(Command::ReceiveTokenInformation { list: u32_at(cdb, 2), allocation: u32_at(cdb, 10) })
    ),
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
