//! Identifying information and diagnostics (SPC-4 sections 6.19, 6.32, 6.39 and 6.43).

use super::field::{u16_at, u32_at, usage};
use super::{Command, Row, SelfTest, row};
use crate::identifying::Kind;
use crate::sense::Sense;

/// Which type of information: bits 7 to 1 of byte 10.
fn kind(cdb: &[u8; 16]) -> Result<Kind, Sense> {
    Kind::from_code(cdb[10] >> 1).ok_or(Sense::invalid_cdb_byte(10))
}

fn send_diagnostic(cdb: &[u8; 16]) -> Result<Command, Sense> {
    let length = u32::from(u16_at(cdb, 3));
    // SELF-TEST CODE, and SELFTEST, which asks for the default one. DEVOFFL and UNITOFFL allow what this test does not need.
    let test = match (cdb[1] >> 5, cdb[1] & 0x04) {
        (0, 0) => SelfTest::None,
        (0, _) => SelfTest::Foreground,
        (5, 0) => SelfTest::Foreground,
        // No background tests, so no self-test results either; and no extended one.
        _ => return Err(Sense::invalid_cdb_byte(1)),
    };
    match (test, length) {
        (SelfTest::Foreground, 1..) => Err(Sense::invalid_cdb_byte(3)),
        // Pages come in the standard's format.
        (SelfTest::None, 1..) if cdb[1] & 0x10 == 0 => Err(Sense::invalid_cdb_byte(1)),
        _ => Ok(Command::SendDiagnostic { test, length }),
    }
}

/// The rows.
pub(super) const ROWS: &[Row] = &[
    row!(0x1c, None, 6, usage::block(0x1c, 0x01, [(2, 5), (0, 0)]), "RECEIVE DIAGNOSTIC RESULTS", |cdb| {
        // PCV: without it the page is the one that SEND DIAGNOSTIC asked for, and there is one alone.
        let page = if cdb[1] & 1 != 0 { cdb[2] } else { 0 };
        Ok(Command::ReceiveDiagnostic { page, allocation: u32::from(u16_at(cdb, 3)) })
    }),
    row!(0x1d, None, 6, usage::block(0x1d, 0xf7, [(3, 5), (0, 0)]), "SEND DIAGNOSTIC", send_diagnostic),
    row!(
        0xa3,
        Some(0x05),
        12,
        usage::block(0xa3, 0x1f, [(6, 10), (10, 11)]),
        "REPORT IDENTIFYING INFORMATION",
        |cdb| {
            let kind = if cdb[10] >> 1 == 0x7f { None } else { Some(kind(cdb)?) };
            Ok(Command::ReportIdentifying { kind, allocation: u32_at(cdb, 6) })
        }
    ),
    row!(
        0xa4,
        Some(0x06),
        12,
        usage::block(0xa4, 0x1f, [(6, 10), (10, 11)]),
        "SET IDENTIFYING INFORMATION",
        |cdb| {
            let (kind, length) = (kind(cdb)?, u32_at(cdb, 6));
            if length > kind.len_max() {
                return Err(Sense::invalid_cdb_byte(6));
            }
            Ok(Command::SetIdentifying { kind, length })
        }
    ),
];
