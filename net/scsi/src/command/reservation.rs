//! Persistent reservations (SPC-4 sections 6.15 and 6.16).

use super::field::{u32_at, usage};
use super::{Command, Row, row};

/// The rows.
pub(super) const ROWS: &[Row] = &[row!(
    0x5f,
    Some(6),
    10,
    usage::block(0x5f, 0x1f, [(5, 9), (0, 0)]),
    "PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY",
    |cdb| { Ok(Command::PersistentReserveOut { service_action: cdb[1] & 0x1f, length: u32_at(cdb, 5) }) }
)];
