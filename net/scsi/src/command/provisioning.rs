//! Logical block provisioning: UNMAP, WRITE SAME, GET LBA STATUS (SBC-3 section 4.7).

use super::block::{transfer10, transfer16};
use super::field::{u16_at, u32_at, u64_at, usage};
use super::{Command, Row, Transfer, row};
use crate::sense::Sense;

fn write_same(transfer: Transfer, cdb: &[u8; 16], no_data: bool) -> Result<Command, Sense> {
    // ANCHOR needs ANC_SUP, which is zero; PBDATA and LBDATA are obsolete.
    if cdb[1] & 0x16 != 0 {
        return Err(Sense::invalid_cdb_byte(1));
    }
    let transfer = Transfer { fua: false, ..transfer };
    Ok(Command::WriteSame { transfer, unmap: cdb[1] & 0x08 != 0, no_data })
}

/// The rows.
pub(super) const ROWS: &[Row] = &[
    row!(0x41, None, 10, usage::block(0x41, 0x08, [(2, 6), (7, 9)]), "WRITE SAME(10)", |cdb| {
        write_same(transfer10(cdb)?, cdb, false)
    }),
    row!(0x42, None, 10, usage::block(0x42, 0, [(7, 9), (0, 0)]), "UNMAP", |cdb| {
        // ANCHOR needs ANC_SUP, which is zero.
        if cdb[1] & 1 != 0 {
            Err(Sense::invalid_cdb_byte(1))
        } else {
            Ok(Command::Unmap { length: u32::from(u16_at(cdb, 7)) })
        }
    }),
    row!(0x93, None, 16, usage::block(0x93, 0x09, [(2, 14), (0, 0)]), "WRITE SAME(16)", |cdb| {
        write_same(transfer16(cdb)?, cdb, cdb[1] & 1 != 0)
    }),
    row!(0x9e, Some(0x12), 16, usage::block(0x9e, 0x12, [(2, 14), (0, 0)]), "GET LBA STATUS", |cdb| {
        Ok(Command::GetLbaStatus { lba: u64_at(cdb, 2), allocation: u32_at(cdb, 10) })
    }),
];
