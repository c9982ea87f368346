//! What rows share: fields of a command descriptor block and bits of usage maps.

use crate::sense::Sense;

pub(super) fn u16_at(cdb: &[u8; 16], at: usize) -> u16 {
    u16::from_be_bytes([cdb[at], cdb[at + 1]])
}

pub(super) fn u32_at(cdb: &[u8; 16], at: usize) -> u32 {
    u32::from_be_bytes([cdb[at], cdb[at + 1], cdb[at + 2], cdb[at + 3]])
}

pub(super) fn u64_at(cdb: &[u8; 16], at: usize) -> u64 {
    u64::from(u32_at(cdb, at)) << 32 | u64::from(u32_at(cdb, at + 4))
}

/// Protection is not supported: RDPROTECT, WRPROTECT and VRPROTECT must be zero.
pub(super) fn no_protection(cdb: &[u8; 16]) -> Result<(), Sense> {
    if cdb[1] & 0xe0 == 0 { Ok(()) } else { Err(Sense::invalid_cdb_byte(1)) }
}

/// Usage bits of byte 1 of a command with DPO and FUA.
pub(super) const DPO_FUA: u8 = 0x18;

/// Usage bits that several rows share.
pub(super) mod usage {
    const NONE: u8 = 0;
    const ALL: u8 = 0xff;

    /// A six-byte read or write.
    pub(in crate::command) const fn transfer6(opcode: u8) -> [u8; 16] {
        let mut map = [NONE; 16];
        map[0] = opcode;
        map[1] = 0x1f;
        fill(map, 2, 5)
    }

    /// LBA and length between `from` and `to`, byte 1 as given, group number where the length has one.
    pub(in crate::command) const fn block(opcode: u8, byte1: u8, ranges: [(usize, usize); 2]) -> [u8; 16] {
        let mut map = [NONE; 16];
        map[0] = opcode;
        map[1] = byte1;
        fill(fill(map, ranges[0].0, ranges[0].1), ranges[1].0, ranges[1].1)
    }

    /// A map of which a byte has these bits.
    pub(in crate::command) const fn with(mut map: [u8; 16], at: usize, bits: u8) -> [u8; 16] {
        map[at] = bits;
        map
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
