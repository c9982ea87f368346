//! Reading, writing, verifying, flushing (SBC-3).

use super::field::{DPO_FUA, no_protection, u16_at, u32_at, u64_at, usage};
use super::{ByteCheck, Command, Row, Transfer, row};
use crate::sense::Sense;

fn transfer6(cdb: &[u8; 16]) -> Transfer {
    let lba = u64::from(u32_at(cdb, 0) & 0x1f_ffff);
    let blocks = if cdb[4] == 0 { 256 } else { u32::from(cdb[4]) };
    Transfer { lba, blocks, fua: false }
}

fn fua(cdb: &[u8; 16]) -> bool {
    cdb[1] & 0x08 != 0
}

pub(super) fn transfer10(cdb: &[u8; 16]) -> Result<Transfer, Sense> {
    no_protection(cdb)?;
    Ok(Transfer { lba: u64::from(u32_at(cdb, 2)), blocks: u32::from(u16_at(cdb, 7)), fua: fua(cdb) })
}

pub(super) fn transfer12(cdb: &[u8; 16]) -> Result<Transfer, Sense> {
    no_protection(cdb)?;
    Ok(Transfer { lba: u64::from(u32_at(cdb, 2)), blocks: u32_at(cdb, 6), fua: fua(cdb) })
}

pub(super) fn transfer16(cdb: &[u8; 16]) -> Result<Transfer, Sense> {
    no_protection(cdb)?;
    Ok(Transfer { lba: u64_at(cdb, 2), blocks: u32_at(cdb, 10), fua: fua(cdb) })
}

fn byte_check(cdb: &[u8; 16]) -> Result<ByteCheck, Sense> {
    match cdb[1] >> 1 & 3 {
        0 => Ok(ByteCheck::Medium),
        1 => Ok(ByteCheck::Data),
        3 => Ok(ByteCheck::OneBlock),
        _ => Err(Sense::invalid_cdb_byte(1)),
    }
}

fn verify(transfer: Transfer, cdb: &[u8; 16]) -> Result<Command, Sense> {
    // Bit 3 of byte 1 is not FUA here.
    Ok(Command::Verify { transfer: Transfer { fua: false, ..transfer }, check: byte_check(cdb)? })
}

fn write_and_verify(transfer: Transfer, cdb: &[u8; 16]) -> Result<Command, Sense> {
    let check = byte_check(cdb)?;
    if check == ByteCheck::OneBlock {
        return Err(Sense::invalid_cdb_byte(1));
    }
    Ok(Command::WriteAndVerify { transfer: Transfer { fua: true, ..transfer }, check })
}

fn compare_and_write(cdb: &[u8; 16]) -> Result<Command, Sense> {
    let transfer = transfer16(cdb)?;
    Ok(Command::CompareAndWrite(Transfer { blocks: u32::from(cdb[13]), ..transfer }))
}

fn write_atomic(cdb: &[u8; 16]) -> Result<Command, Sense> {
    let transfer = transfer16(cdb)?;
    let transfer = Transfer { blocks: u32::from(u16_at(cdb, 12)), ..transfer };
    Ok(Command::WriteAtomic { transfer, boundary: u16_at(cdb, 10) })
}

/// The rows.
pub(super) const ROWS: &[Row] = &[
    row!(0x08, None, 6, usage::transfer6(0x08), "READ(6)", |cdb| Ok(Command::Read(transfer6(cdb)))),
    row!(0x0a, None, 6, usage::transfer6(0x0a), "WRITE(6)", |cdb| Ok(Command::Write(transfer6(cdb)))),
    row!(0x28, None, 10, usage::block(0x28, DPO_FUA, [(2, 6), (7, 9)]), "READ(10)", |cdb| {
        transfer10(cdb).map(Command::Read)
    }),
    row!(0x2a, None, 10, usage::block(0x2a, DPO_FUA, [(2, 6), (7, 9)]), "WRITE(10)", |cdb| {
        transfer10(cdb).map(Command::Write)
    }),
    row!(0x2e, None, 10, usage::block(0x2e, 0x16, [(2, 6), (7, 9)]), "WRITE AND VERIFY(10)", |cdb| {
        write_and_verify(transfer10(cdb)?, cdb)
    }),
    row!(0x2f, None, 10, usage::block(0x2f, 0x16, [(2, 6), (7, 9)]), "VERIFY(10)", |cdb| verify(
        transfer10(cdb)?,
        cdb
    )),
    row!(0x35, None, 10, usage::block(0x35, 0x02, [(2, 6), (7, 9)]), "SYNCHRONIZE CACHE(10)", |cdb| {
        Ok(Command::SynchronizeCache { lba: u64::from(u32_at(cdb, 2)), blocks: u32::from(u16_at(cdb, 7)) })
    }),
    row!(0x88, None, 16, usage::block(0x88, DPO_FUA, [(2, 14), (0, 0)]), "READ(16)", |cdb| transfer16(cdb)
        .map(Command::Read)),
    row!(0x8a, None, 16, usage::block(0x8a, DPO_FUA, [(2, 14), (0, 0)]), "WRITE(16)", |cdb| transfer16(cdb)
        .map(Command::Write)),
    row!(0x8e, None, 16, usage::block(0x8e, 0x16, [(2, 14), (0, 0)]), "WRITE AND VERIFY(16)", |cdb| {
        write_and_verify(transfer16(cdb)?, cdb)
    }),
    row!(0x8f, None, 16, usage::block(0x8f, 0x16, [(2, 14), (0, 0)]), "VERIFY(16)", |cdb| verify(
        transfer16(cdb)?,
        cdb
    )),
    row!(0x91, None, 16, usage::block(0x91, 0x02, [(2, 14), (0, 0)]), "SYNCHRONIZE CACHE(16)", |cdb| {
        Ok(Command::SynchronizeCache { lba: u64_at(cdb, 2), blocks: u32_at(cdb, 10) })
    }),
    row!(0xa8, None, 12, usage::block(0xa8, DPO_FUA, [(2, 10), (0, 0)]), "READ(12)", |cdb| transfer12(cdb)
        .map(Command::Read)),
    row!(0xaa, None, 12, usage::block(0xaa, DPO_FUA, [(2, 10), (0, 0)]), "WRITE(12)", |cdb| transfer12(cdb)
        .map(Command::Write)),
    row!(0xae, None, 12, usage::block(0xae, 0x16, [(2, 10), (0, 0)]), "WRITE AND VERIFY(12)", |cdb| {
        write_and_verify(transfer12(cdb)?, cdb)
    }),
    row!(0xaf, None, 12, usage::block(0xaf, 0x16, [(2, 10), (0, 0)]), "VERIFY(12)", |cdb| verify(
        transfer12(cdb)?,
        cdb
    )),
    row!(0x34, None, 10, usage::block(0x34, 0x02, [(2, 6), (7, 9)]), "PRE-FETCH(10)", |cdb| {
        Ok(Command::PreFetch { lba: u64::from(u32_at(cdb, 2)), blocks: u32::from(u16_at(cdb, 7)) })
    }),
    row!(
        0x89,
        None,
        16,
        usage::block(0x89, DPO_FUA, [(2, 10), (13, 14)]),
        "COMPARE AND WRITE",
        compare_and_write
    ),
    row!(0x8b, None, 16, usage::block(0x8b, DPO_FUA, [(2, 14), (0, 0)]), "ORWRITE(16)", |cdb| {
        transfer16(cdb).map(Command::OrWrite)
    }),
    row!(0x90, None, 16, usage::block(0x90, 0x02, [(2, 14), (0, 0)]), "PRE-FETCH(16)", |cdb| {
        Ok(Command::PreFetch { lba: u64_at(cdb, 2), blocks: u32_at(cdb, 10) })
    }),
    row!(0x9c, None, 16, usage::block(0x9c, DPO_FUA, [(2, 14), (0, 0)]), "WRITE ATOMIC(16)", write_atomic),
];
