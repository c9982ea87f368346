//! What an initiator of this project sends, and how it reads the answers.

use alloc::vec::Vec;

/// A command descriptor block padded to sixteen bytes.
pub type Cdb = [u8; 16];

fn cdb(opcode: u8, byte1: u8) -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[1] = byte1;
    cdb
}

fn block16(opcode: u8, byte1: u8, lba: u64, blocks: u32) -> Cdb {
    let mut cdb = cdb(opcode, byte1);
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

/// TEST UNIT READY.
pub fn test_unit_ready() -> Cdb {
    cdb(0x00, 0)
}

/// READ(16).
pub fn read16(lba: u64, blocks: u32) -> Cdb {
    block16(0x88, 0, lba, blocks)
}

/// WRITE(16), stable before its status.
pub fn write16_fua(lba: u64, blocks: u32) -> Cdb {
    block16(0x8a, 0x08, lba, blocks)
}

/// WRITE(16).
pub fn write16(lba: u64, blocks: u32) -> Cdb {
    block16(0x8a, 0, lba, blocks)
}

/// COMPARE AND WRITE of at most 255 blocks.
pub fn compare_and_write(lba: u64, blocks: u32, durable: bool) -> Cdb {
    let mut cdb = block16(0x89, if durable { 0x08 } else { 0 }, lba, 0);
    cdb[13] = u8::try_from(blocks).unwrap_or(u8::MAX);
    cdb
}

/// SYNCHRONIZE CACHE(16) of the whole unit.
pub fn synchronize_cache() -> Cdb {
    block16(0x91, 0, 0, 0)
}

/// WRITE SAME(16) of zeroes, without data.
pub fn write_zeroes(lba: u64, blocks: u32) -> Cdb {
    block16(0x93, 0x01, lba, blocks)
}

/// READ CAPACITY(16).
pub fn read_capacity() -> Cdb {
    let mut cdb = cdb(0x9e, 0x10);
    cdb[13] = 32;
    cdb
}

/// UNMAP with a list of [`unmap_list`]'s length.
pub fn unmap() -> Cdb {
    let mut cdb = cdb(0x42, 0);
    cdb[8] = 24;
    cdb
}

/// An UNMAP parameter list of one range.
pub fn unmap_list(lba: u64, blocks: u32) -> Vec<u8> {
    let mut list = alloc::vec![0, 22, 0, 16, 0, 0, 0, 0];
    list.extend_from_slice(&lba.to_be_bytes());
    list.extend_from_slice(&blocks.to_be_bytes());
    list.extend_from_slice(&[0; 4]);
    list
}

/// PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY, with a list of [`register_list`]'s length.
pub fn register() -> Cdb {
    let mut cdb = cdb(0x5f, 0x06);
    cdb[8] = 24;
    cdb
}

/// The parameter list that registers `key`, with APTPL: what a fence locks out stays out when the power fails. A LUN that is
/// no leg keeps nothing through that, and refuses.
pub fn register_list(key: u64) -> Vec<u8> {
    let mut list = alloc::vec![0; 24];
    list[8..16].copy_from_slice(&key.to_be_bytes());
    list[20] = 1;
    list
}

/// What READ CAPACITY(16) tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Number of logical blocks.
    pub blocks: u64,
    /// Logical block size in bytes.
    pub block_size: u32,
    /// Physical block size in bytes.
    pub physical_block_size: u32,
    /// LBPME: blocks can be unmapped.
    pub thin: bool,
}

/// Capacities from here on are senseless: byte addresses are positive in 64 bits everywhere.
const BYTES_END: u128 = 1 << 63;

/// Reads READ CAPACITY(16) data; `None` when it is too short or senseless.
pub fn capacity(data: &[u8]) -> Option<Capacity> {
    let last = u64::from_be_bytes(data.get(..8)?.try_into().ok()?);
    let block_size = u32::from_be_bytes(data.get(8..12)?.try_into().ok()?);
    let exponent = data.get(13)? & 0x0f;
    let legal = block_size.is_power_of_two() && (512..=4096).contains(&block_size);
    let blocks = last.checked_add(1)?;
    let bytes = u128::from(blocks) * u128::from(block_size);
    Some(Capacity {
        blocks,
        block_size,
        physical_block_size: block_size.checked_shl(u32::from(exponent))?,
        thin: data.get(14)? & 0x80 != 0,
    })
    .filter(|_| legal && bytes < BYTES_END)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(last: u64, block_size: u32) -> Vec<u8> {
        [&last.to_be_bytes()[..], &block_size.to_be_bytes()[..], &[0; 20]].concat()
    }

    #[test]
    fn capacities_that_bytes_cannot_count_are_senseless() {
        assert_eq!(capacity(&data(7, 512)).map(|capacity| capacity.blocks), Some(8));
        assert!(capacity(&data((1 << 54) - 2, 512)).is_some());
        for (last, block_size) in [(u64::MAX, 512), (1 << 56, 512), ((1 << 54) - 1, 512), (7, 513), (7, 0)] {
            assert_eq!(capacity(&data(last, block_size)), None, "{last} {block_size}");
        }
        assert_eq!(capacity(&data(7, 512)[..12]), None, "too short");
    }
}
