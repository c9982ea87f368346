//! The medium: capacity, start and stop, removal (SBC-3, SPC-4 section 6.14).

use super::field::{u32_at, usage};
use super::{Command, Row, row};
use crate::sense::Sense;

/// The rows.
pub(super) const ROWS: &[Row] = &[
    row!(0x1b, None, 6, usage::block(0x1b, 1, [(4, 5), (0, 0)]), "START STOP UNIT", |_| Ok(
        Command::StartStopUnit
    )),
    row!(0x1e, None, 6, usage::block(0x1e, 0, [(4, 5), (0, 0)]), "PREVENT ALLOW MEDIUM REMOVAL", |_| {
        Ok(Command::PreventAllow)
    }),
    row!(0x25, None, 10, usage::block(0x25, 0, [(2, 6), (8, 9)]), "READ CAPACITY(10)", |cdb| {
        // Without PMI the address must be zero (SBC-2; obsolete since, still asked for by hosts).
        if cdb[8] & 1 == 0 && u32_at(cdb, 2) != 0 {
            Err(Sense::invalid_cdb_byte(2))
        } else {
            Ok(Command::ReadCapacity10)
        }
    }),
    row!(0x9e, Some(0x10), 16, usage::block(0x9e, 0x1f, [(10, 14), (0, 0)]), "READ CAPACITY(16)", |cdb| {
        Ok(Command::ReadCapacity16 { allocation: u32_at(cdb, 10) })
    }),
];
