//! Reservations: persistent ones (SPC-4 sections 6.15 and 6.16), and RESERVE and RELEASE (SPC-2 sections 7.16 to 7.22).

use super::field::{u16_at, u32_at, usage};
use super::{Command, Row, row};
use crate::reservation::{Action, Report, Request, ScopeType};
use crate::sense::Sense;

/// Reservations of the whole unit for whoever asks: no extents, no third parties.
fn whole_unit(cdb: &[u8; 16], request: Request) -> Result<Command, Sense> {
    let others = if cdb[0] & 0xe0 == 0 { 0x1f } else { 0x13 };
    if cdb[1] & others == 0 { Ok(Command::Reservation(request)) } else { Err(Sense::invalid_cdb_byte(1)) }
}

fn report(cdb: &[u8; 16], report: Report) -> Command {
    Command::Reservation(Request::In { report, allocation: u16_at(cdb, 7) })
}

fn out(cdb: &[u8; 16], action: Action) -> Command {
    let (scope_type, length) = (ScopeType(cdb[2]), u32_at(cdb, 5));
    Command::Reservation(Request::Out { action, scope_type, length })
}

macro_rules! reserve_in {
    ($report:expr, $name:expr) => {
        row!(
            0x5e,
            Some($report as u16),
            10,
            usage::block(0x5e, 0x1f, [(7, 9), (0, 0)]),
            concat!("PERSISTENT RESERVE IN, ", $name),
            |cdb| Ok(report(cdb, $report))
        )
    };
}

macro_rules! reserve_out {
    ($action:expr, $name:expr) => {
        row!(
            0x5f,
            Some($action as u16),
            10,
            usage::block(0x5f, 0x1f, [(2, 3), (5, 9)]),
            concat!("PERSISTENT RESERVE OUT, ", $name),
            |cdb| Ok(out(cdb, $action))
        )
    };
}

macro_rules! older {
    ($opcode:expr, $length:expr, $request:expr, $name:expr) => {
        row!($opcode, None, $length, usage::block($opcode, 0, [(0, 0), (0, 0)]), $name, |cdb| whole_unit(
            cdb, $request
        ))
    };
}

/// The rows.
pub(super) const ROWS: &[Row] = &[
    older!(0x16, 6, Request::Reserve, "RESERVE(6)"),
    older!(0x17, 6, Request::Release, "RELEASE(6)"),
    older!(0x56, 10, Request::Reserve, "RESERVE(10)"),
    older!(0x57, 10, Request::Release, "RELEASE(10)"),
    reserve_in!(Report::Keys, "READ KEYS"),
    reserve_in!(Report::Reservation, "READ RESERVATION"),
    reserve_in!(Report::Capabilities, "REPORT CAPABILITIES"),
    reserve_in!(Report::FullStatus, "READ FULL STATUS"),
    reserve_out!(Action::Register, "REGISTER"),
    reserve_out!(Action::Reserve, "RESERVE"),
    reserve_out!(Action::Release, "RELEASE"),
    reserve_out!(Action::Clear, "CLEAR"),
    reserve_out!(Action::Preempt, "PREEMPT"),
    reserve_out!(Action::PreemptAndAbort, "PREEMPT AND ABORT"),
    reserve_out!(Action::RegisterAndIgnore, "REGISTER AND IGNORE EXISTING KEY"),
    reserve_out!(Action::RegisterAndMove, "REGISTER AND MOVE"),
];
