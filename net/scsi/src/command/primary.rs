//! Commands of every device type (SPC-4).

use super::field::{u16_at, u32_at, usage};
use super::{Command, Priorities, Row, row};
use crate::alua;
use crate::mode::Save;
use crate::sense::Sense;

fn inquiry(cdb: &[u8; 16]) -> Result<Command, Sense> {
    let page = match (cdb[1] & 1, cdb[2]) {
        (1, page) => Some(page),
        (_, 0) => None,
        _ => return Err(Sense::invalid_cdb_byte(2)),
    };
    Ok(Command::Inquiry { page, allocation: u32::from(u16_at(cdb, 3)) })
}

fn mode_sense(cdb: &[u8; 16], long: bool, allocation: u32) -> Command {
    Command::ModeSense {
        long,
        page_control: cdb[2] >> 6,
        page: cdb[2] & 0x3f,
        subpage: cdb[3],
        no_block_descriptor: cdb[1] & 8 != 0,
        allocation,
    }
}

fn mode_select(cdb: &[u8; 16], long: bool, length: u32) -> Result<Command, Sense> {
    // PF must be one.
    match cdb[1] & 0x11 {
        0x10 => Ok(Command::ModeSelect { long, save: Save::No, length }),
        0x11 => Ok(Command::ModeSelect { long, save: Save::Yes, length }),
        _ => Err(Sense::invalid_cdb_byte(1)),
    }
}

fn report_target_port_groups(cdb: &[u8; 16]) -> Result<Command, Sense> {
    let header = match cdb[1] >> 5 {
        0 => alua::Header::Length,
        1 => alua::Header::Extended,
        _ => return Err(Sense::invalid_cdb_byte(1)),
    };
    Ok(Command::ReportTargetPortGroups { header, allocation: u32_at(cdb, 6) })
}

/// The rows.
pub(super) const ROWS: &[Row] = &[
    row!(0x00, None, 6, usage::block(0x00, 0, [(0, 0), (0, 0)]), "TEST UNIT READY", |_| Ok(
        Command::TestUnitReady
    )),
    row!(0x03, None, 6, usage::block(0x03, 1, [(4, 5), (0, 0)]), "REQUEST SENSE", |cdb| {
        Ok(Command::RequestSense { descriptor: cdb[1] & 1 != 0, allocation: u32::from(cdb[4]) })
    }),
    row!(0x12, None, 6, usage::block(0x12, 1, [(2, 5), (0, 0)]), "INQUIRY", inquiry),
    row!(0x15, None, 6, usage::block(0x15, 0x11, [(4, 5), (0, 0)]), "MODE SELECT(6)", |cdb| {
        mode_select(cdb, false, u32::from(cdb[4]))
    }),
    row!(0x1a, None, 6, usage::block(0x1a, 8, [(2, 5), (0, 0)]), "MODE SENSE(6)", |cdb| {
        Ok(mode_sense(cdb, false, u32::from(cdb[4])))
    }),
    row!(0x55, None, 10, usage::block(0x55, 0x11, [(7, 9), (0, 0)]), "MODE SELECT(10)", |cdb| {
        mode_select(cdb, true, u32::from(u16_at(cdb, 7)))
    }),
    row!(0x5a, None, 10, usage::block(0x5a, 8, [(2, 4), (7, 9)]), "MODE SENSE(10)", |cdb| {
        Ok(mode_sense(cdb, true, u32::from(u16_at(cdb, 7))))
    }),
    row!(0xa0, None, 12, usage::block(0xa0, 0, [(2, 3), (6, 10)]), "REPORT LUNS", |cdb| {
        Ok(Command::ReportLuns { select: cdb[2], allocation: u32_at(cdb, 6) })
    }),
    row!(
        0xa3,
        Some(0x0a),
        12,
        usage::block(0xa3, 0xff, [(6, 10), (0, 0)]),
        "REPORT TARGET PORT GROUPS",
        report_target_port_groups
    ),
    row!(
        0xa4,
        Some(0x0a),
        12,
        usage::block(0xa4, 0x1f, [(6, 10), (0, 0)]),
        "SET TARGET PORT GROUPS",
        |cdb| { Ok(Command::SetTargetPortGroups { length: u32_at(cdb, 6) }) }
    ),
    row!(
        0xa3,
        Some(0x0c),
        12,
        usage::block(0xa3, 0x1f, [(2, 10), (0, 0)]),
        "REPORT SUPPORTED OPERATION CODES",
        |cdb| {
            Ok(Command::ReportSupportedOpcodes {
                option: cdb[2] & 7,
                opcode: cdb[3],
                service_action: u16_at(cdb, 4),
                timeouts: cdb[2] & 0x80 != 0,
                allocation: u32_at(cdb, 6),
            })
        }
    ),
    row!(
        0xa3,
        Some(0x0d),
        12,
        usage::block(0xa3, 0x0d, [(2, 3), (6, 10)]),
        "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
        |cdb| {
            Ok(Command::ReportSupportedTaskManagement {
                extended: cdb[2] & 0x80 != 0,
                allocation: u32_at(cdb, 6),
            })
        }
    ),
    row!(0xa3, Some(0x0e), 12, usage::block(0xa3, 0x1f, [(2, 3), (6, 10)]), "REPORT PRIORITY", |cdb| {
        let which = match cdb[2] >> 6 {
            0 => Priorities::Own,
            1 => Priorities::Set,
            _ => return Err(Sense::invalid_cdb_byte(2)),
        };
        Ok(Command::ReportPriority { which, allocation: u32_at(cdb, 6) })
    }),
    row!(0xa3, Some(0x0f), 12, usage::block(0xa3, 0x1f, [(6, 10), (0, 0)]), "REPORT TIMESTAMP", |cdb| {
        Ok(Command::ReportTimestamp { allocation: u32_at(cdb, 6) })
    }),
];
