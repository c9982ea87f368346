//! The medium: capacity, defects, start and stop, removal (SBC-3, SPC-4 section 6.14).

use super::field::{u16_at, u32_at, usage};
use super::{Command, DefectList, Immediate, Removal, Row, StartStop, row};
use crate::sense::Sense;

fn start_stop(cdb: &[u8; 16]) -> Result<Command, Sense> {
    let immediate = if cdb[1] & 1 != 0 { Immediate::Yes } else { Immediate::No };
    let action = match (cdb[4] >> 4, cdb[4] & 3) {
        (0, 0) => StartStop::Stop,
        (0, 1) => StartStop::Start,
        (0, 2) => StartStop::Eject,
        (0, _) => StartStop::Load,
        // The other fields count only with START_VALID.
        _ => StartStop::Power,
    };
    Ok(Command::StartStopUnit { action, immediate })
}

/// No range of bytes.
const NOTHING: [(usize, usize); 2] = [(0, 0); 2];

/// The rows.
pub(super) const ROWS: &[Row] = &[
    row!(0x1b, None, 6, usage::with(usage::block(0x1b, 1, NOTHING), 4, 0xf3), "START STOP UNIT", start_stop),
    row!(
        0x1e,
        None,
        6,
        usage::with(usage::block(0x1e, 0, NOTHING), 4, 0x03),
        "PREVENT ALLOW MEDIUM REMOVAL",
        |cdb| {
            match cdb[4] & 3 {
                0 => Ok(Command::PreventAllow(Removal::Allowed)),
                1 => Ok(Command::PreventAllow(Removal::Prevented)),
                // Persistent prevention is of medium changers.
                _ => Err(Sense::invalid_cdb_byte(4)),
            }
        }
    ),
    row!(0x37, None, 10, usage::block(0x37, 0, [(2, 3), (7, 9)]), "READ DEFECT DATA(10)", |cdb| {
        let list = DefectList { request: cdb[2] & 0x1f, header: 4 };
        Ok(Command::ReadDefectData { list, allocation: u32::from(u16_at(cdb, 7)) })
    }),
    row!(0xb7, None, 12, usage::block(0xb7, 0x1f, [(2, 10), (0, 0)]), "READ DEFECT DATA(12)", |cdb| {
        let list = DefectList { request: cdb[1] & 0x1f, header: 8 };
        Ok(Command::ReadDefectData { list, allocation: u32_at(cdb, 6) })
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
