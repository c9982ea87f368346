//! LOG SENSE and LOG SELECT (SPC-4 sections 6.7 and 6.8).

use super::field::{u16_at, usage};
use super::{Command, Row, row};
use crate::log::{Request, Values};
use crate::sense::Sense;

fn log_sense(cdb: &[u8; 16]) -> Result<Command, Sense> {
    // SP asks to save; PPC is obsolete.
    if cdb[1] & 0x03 != 0 {
        return Err(Sense::invalid_cdb_byte(1));
    }
    let request = Request {
        page: cdb[2] & 0x3f,
        subpage: cdb[3],
        values: Values::from_page_control(cdb[2] >> 6),
        first_parameter: u16_at(cdb, 5),
    };
    Ok(Command::LogSense { request, allocation: u32::from(u16_at(cdb, 7)) })
}

fn log_select(cdb: &[u8; 16]) -> Result<Command, Sense> {
    let length = u32::from(u16_at(cdb, 7));
    // SP asks to save, and nothing is. What all parameters are reset by has no list (SPC-4 section 6.7).
    match (cdb[1] & 0x03, length) {
        (0x02, 0) => Ok(Command::LogReset),
        (0x02, _) => Err(Sense::invalid_cdb_byte(7)),
        (0x00, 0) if Values::from_page_control(cdb[2] >> 6) == Values::DefaultCumulative => {
            Ok(Command::LogReset)
        }
        (0x00, length) => Ok(Command::LogSelect { page: cdb[2] & 0x3f, subpage: cdb[3], length }),
        _ => Err(Sense::invalid_cdb_byte(1)),
    }
}

/// The rows.
pub(super) const ROWS: &[Row] = &[
    row!(0x4c, None, 10, usage::block(0x4c, 0x02, [(2, 4), (7, 9)]), "LOG SELECT", log_select),
    row!(0x4d, None, 10, usage::block(0x4d, 0x00, [(2, 4), (5, 9)]), "LOG SENSE", log_sense),
];
