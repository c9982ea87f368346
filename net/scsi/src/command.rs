//! Command descriptor blocks: one table, one parser.

use crate::sense::Sense;

/// A run of blocks on the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// First logical block address.
    pub lba: u64,
    /// Number of blocks.
    pub blocks: u32,
    /// FUA: stable before the status, or read from the medium.
    pub fua: bool,
}

/// What VERIFY compares with (SBC-3 section 5.33).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteCheck {
    /// Only that the medium reads.
    Medium,
    /// Each block with the data-out buffer.
    Data,
}

/// A parsed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields carry the names that the standards give them")]
pub enum Command {
    TestUnitReady,
    RequestSense {
        descriptor: bool,
        allocation: u32,
    },
    Inquiry {
        page: Option<u8>,
        allocation: u32,
    },
    ReportLuns {
        select: u8,
        allocation: u32,
    },
    ModeSense {
        long: bool,
        page_control: u8,
        page: u8,
        subpage: u8,
        no_block_descriptor: bool,
        allocation: u32,
    },
    ModeSelect {
        long: bool,
        length: u32,
    },
    ReadCapacity10,
    ReadCapacity16 {
        allocation: u32,
    },
    Read(Transfer),
    Write(Transfer),
    WriteAndVerify(Transfer),
    Verify {
        transfer: Transfer,
        check: ByteCheck,
    },
    SynchronizeCache {
        lba: u64,
        blocks: u32,
    },
    StartStopUnit,
    PreventAllow,
    Unmap {
        length: u32,
    },
    WriteSame {
        transfer: Transfer,
        unmap: bool,
        no_data: bool,
    },
    ReportSupportedOpcodes {
        option: u8,
        opcode: u8,
        service_action: u16,
        timeouts: bool,
        allocation: u32,
    },
    PersistentReserveOut {
        service_action: u8,
        length: u32,
    },
}

/// The shape of a command descriptor block: how a row's bytes become a [`Command`].
type Parse = fn(&[u8; 16]) -> Result<Command, Sense>;

/// One command.
pub struct Row {
    /// Operation code.
    pub opcode: u8,
    /// Service action, where the operation code has them.
    pub service_action: Option<u16>,
    /// Bytes of the CDB.
    pub length: u8,
    /// CDB usage map: the bits that the device server looks at (SPC-4 section 6.35.3).
    pub usage: [u8; 16],
    /// Its name in the standard.
    pub name: &'static str,
    parse: Parse,
}

fn u16_at(cdb: &[u8; 16], at: usize) -> u16 {
    u16::from_be_bytes([cdb[at], cdb[at + 1]])
}

fn u32_at(cdb: &[u8; 16], at: usize) -> u32 {
    u32::from_be_bytes([cdb[at], cdb[at + 1], cdb[at + 2], cdb[at + 3]])
}

fn u64_at(cdb: &[u8; 16], at: usize) -> u64 {
    u64::from(u32_at(cdb, at)) << 32 | u64::from(u32_at(cdb, at + 4))
}

/// Protection is not supported: RDPROTECT, WRPROTECT and VRPROTECT must be zero.
fn no_protection(cdb: &[u8; 16]) -> Result<(), Sense> {
    if cdb[1] & 0xe0 == 0 { Ok(()) } else { Err(Sense::invalid_cdb_byte(1)) }
}

fn transfer6(cdb: &[u8; 16]) -> Transfer {
    let lba = u64::from(u32_at(cdb, 0) & 0x1f_ffff);
    let blocks = if cdb[4] == 0 { 256 } else { u32::from(cdb[4]) };
    Transfer { lba, blocks, fua: false }
}

fn fua(cdb: &[u8; 16]) -> bool {
    cdb[1] & 0x08 != 0
}

fn transfer10(cdb: &[u8; 16]) -> Result<Transfer, Sense> {
    no_protection(cdb)?;
    Ok(Transfer { lba: u64::from(u32_at(cdb, 2)), blocks: u32::from(u16_at(cdb, 7)), fua: fua(cdb) })
}

fn transfer12(cdb: &[u8; 16]) -> Result<Transfer, Sense> {
    no_protection(cdb)?;
    Ok(Transfer { lba: u64::from(u32_at(cdb, 2)), blocks: u32_at(cdb, 6), fua: fua(cdb) })
}

fn transfer16(cdb: &[u8; 16]) -> Result<Transfer, Sense> {
    no_protection(cdb)?;
    Ok(Transfer { lba: u64_at(cdb, 2), blocks: u32_at(cdb, 10), fua: fua(cdb) })
}

fn byte_check(cdb: &[u8; 16]) -> Result<ByteCheck, Sense> {
    match cdb[1] >> 1 & 3 {
        0 => Ok(ByteCheck::Medium),
        1 => Ok(ByteCheck::Data),
        _ => Err(Sense::invalid_cdb_byte(1)),
    }
}

fn verify(transfer: Transfer, cdb: &[u8; 16]) -> Result<Command, Sense> {
    // Bit 3 of byte 1 is not FUA here.
    Ok(Command::Verify { transfer: Transfer { fua: false, ..transfer }, check: byte_check(cdb)? })
}

fn write_and_verify(transfer: Transfer, cdb: &[u8; 16]) -> Result<Command, Sense> {
    byte_check(cdb)?;
    Ok(Command::WriteAndVerify(Transfer { fua: true, ..transfer }))
}

fn write_same(transfer: Transfer, cdb: &[u8; 16], no_data: bool) -> Result<Command, Sense> {
    // ANCHOR needs ANC_SUP, which is zero.
    if cdb[1] & 0x10 != 0 {
        return Err(Sense::invalid_cdb_byte(1));
    }
    let transfer = Transfer { fua: false, ..transfer };
    Ok(Command::WriteSame { transfer, unmap: cdb[1] & 0x08 != 0, no_data })
}

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
    // PF must be one; SP (save) must be zero: nothing is saved.
    match cdb[1] & 0x11 {
        0x10 => Ok(Command::ModeSelect { long, length }),
        _ => Err(Sense::invalid_cdb_byte(1)),
    }
}

/// Usage bits that several rows share.
mod usage {
    const NONE: u8 = 0;
    const ALL: u8 = 0xff;

    /// A six-byte read or write.
    pub(super) const fn transfer6(opcode: u8) -> [u8; 16] {
        let mut map = [NONE; 16];
        map[0] = opcode;
        map[1] = 0x1f;
        fill(map, 2, 5)
    }

    /// LBA and length between `from` and `to`, byte 1 as given, group number where the length has one.
    pub(super) const fn block(opcode: u8, byte1: u8, ranges: [(usize, usize); 2]) -> [u8; 16] {
        let mut map = [NONE; 16];
        map[0] = opcode;
        map[1] = byte1;
        fill(fill(map, ranges[0].0, ranges[0].1), ranges[1].0, ranges[1].1)
    }

    const fn fill(mut map: [u8; 16], from: usize, to: usize) -> [u8; 16] {
        let mut at = from;
        while at < to {
            map[at] = ALL;
            at += 1;
        }
        map
    }
}

const DPO_FUA: u8 = 0x18;

macro_rules! row {
    ($opcode:expr, $sa:expr, $length:expr, $usage:expr, $name:expr, $parse:expr) => {
        Row {
            opcode: $opcode,
            service_action: $sa,
            length: $length,
            usage: $usage,
            name: $name,
            parse: $parse,
        }
    };
}

/// Every command that is supported, by operation code and service action.
pub const TABLE: [Row; 33] = [
    row!(0x00, None, 6, usage::block(0x00, 0, [(0, 0), (0, 0)]), "TEST UNIT READY", |_| Ok(
        Command::TestUnitReady
    )),
    row!(0x03, None, 6, usage::block(0x03, 1, [(4, 5), (0, 0)]), "REQUEST SENSE", |cdb| {
        Ok(Command::RequestSense { descriptor: cdb[1] & 1 != 0, allocation: u32::from(cdb[4]) })
    }),
    row!(0x08, None, 6, usage::transfer6(0x08), "READ(6)", |cdb| Ok(Command::Read(transfer6(cdb)))),
    row!(0x0a, None, 6, usage::transfer6(0x0a), "WRITE(6)", |cdb| Ok(Command::Write(transfer6(cdb)))),
    row!(0x12, None, 6, usage::block(0x12, 1, [(2, 5), (0, 0)]), "INQUIRY", inquiry),
    row!(0x15, None, 6, usage::block(0x15, 0x11, [(4, 5), (0, 0)]), "MODE SELECT(6)", |cdb| {
        mode_select(cdb, false, u32::from(cdb[4]))
    }),
    row!(0x1a, None, 6, usage::block(0x1a, 8, [(2, 5), (0, 0)]), "MODE SENSE(6)", |cdb| {
        Ok(mode_sense(cdb, false, u32::from(cdb[4])))
    }),
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
    row!(0x55, None, 10, usage::block(0x55, 0x11, [(7, 9), (0, 0)]), "MODE SELECT(10)", |cdb| {
        mode_select(cdb, true, u32::from(u16_at(cdb, 7)))
    }),
    row!(0x5a, None, 10, usage::block(0x5a, 8, [(2, 4), (7, 9)]), "MODE SENSE(10)", |cdb| {
        Ok(mode_sense(cdb, true, u32::from(u16_at(cdb, 7))))
    }),
    row!(
        0x5f,
        Some(6),
        10,
        usage::block(0x5f, 0x1f, [(5, 9), (0, 0)]),
        "PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY",
        |cdb| { Ok(Command::PersistentReserveOut { service_action: cdb[1] & 0x1f, length: u32_at(cdb, 5) }) }
    ),
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
    row!(0x93, None, 16, usage::block(0x93, 0x09, [(2, 14), (0, 0)]), "WRITE SAME(16)", |cdb| {
        write_same(transfer16(cdb)?, cdb, cdb[1] & 1 != 0)
    }),
    row!(0x9e, Some(0x10), 16, usage::block(0x9e, 0x1f, [(10, 14), (0, 0)]), "READ CAPACITY(16)", |cdb| {
        Ok(Command::ReadCapacity16 { allocation: u32_at(cdb, 10) })
    }),
    row!(0xa0, None, 12, usage::block(0xa0, 0, [(2, 3), (6, 10)]), "REPORT LUNS", |cdb| {
        Ok(Command::ReportLuns { select: cdb[2], allocation: u32_at(cdb, 6) })
    }),
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
];

/// The service action of a CDB whose operation code has them.
fn service_action_of(cdb: &[u8; 16]) -> u16 {
    u16::from(cdb[1] & 0x1f)
}

/// Looks a command up and parses it.
///
/// # Errors
/// Invalid operation code, or an invalid field with its byte.
pub fn parse(cdb: &[u8; 16]) -> Result<Command, Sense> {
    let mut known = false;
    for row in TABLE.iter().filter(|row| row.opcode == cdb[0]) {
        known = true;
        if row.service_action.is_none_or(|action| action == service_action_of(cdb)) {
            return (row.parse)(cdb);
        }
    }
    Err(if known { Sense::invalid_cdb_byte(1) } else { Sense::INVALID_OPCODE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_each_usage_map_names_its_opcode() {
        let keys: alloc::vec::Vec<_> = TABLE.iter().map(|row| (row.opcode, row.service_action)).collect();
        assert!(keys.is_sorted());
        for row in &TABLE {
            assert_eq!(row.usage[0], row.opcode, "{}", row.name);
            assert!(row.usage[usize::from(row.length)..].iter().all(|bits| *bits == 0), "{}", row.name);
            let long = match row.opcode >> 5 {
                0 => 6,
                1 | 2 => 10,
                4 => 16,
                _ => 12,
            };
            assert_eq!(row.length, long, "{}", row.name);
        }
    }

    #[test]
    fn any_sixteen_bytes_parse_or_are_refused() {
        let mut state = 1u64;
        for _ in 0..200_000 {
            let mut cdb = [0; 16];
            for byte in &mut cdb {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
            let _ = parse(&cdb);
        }
    }

    #[test]
    fn reads_of_every_length_say_the_same() {
        let transfer = Transfer { lba: 0x12345, blocks: 8, fua: false };
        assert_eq!(
            parse(&[8, 1, 0x23, 0x45, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            Ok(Command::Read(transfer))
        );
        assert_eq!(
            parse(&[0x28, 0, 0, 1, 0x23, 0x45, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0]),
            Ok(Command::Read(transfer))
        );
        assert_eq!(
            parse(&[0xa8, 0, 0, 1, 0x23, 0x45, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0]),
            Ok(Command::Read(transfer))
        );
        let fua = Transfer { fua: true, ..transfer };
        let cdb = [0x88, 8, 0, 0, 0, 0, 0, 1, 0x23, 0x45, 0, 0, 0, 8, 0, 0];
        assert_eq!(parse(&cdb), Ok(Command::Read(fua)));
    }

    #[test]
    fn refusals_point_at_the_byte() {
        assert_eq!(parse(&[0xff; 16]), Err(Sense::INVALID_OPCODE));
        assert_eq!(
            parse(&[0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]),
            Err(Sense::invalid_cdb_byte(1))
        );
        assert_eq!(
            parse(&[0x12, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            Err(Sense::invalid_cdb_byte(2))
        );
        assert_eq!(
            parse(&[0x9e, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            Err(Sense::invalid_cdb_byte(1))
        );
    }
}
