//! What the copy manager can do: the third-party copy VPD page (SPC-4 section 7.8.17), and what tells the same of EXTENDED COPY alone.

use alloc::vec;
use alloc::vec::Vec;

use super::token::{
    BYTES_MAX, BYTES_OPTIMAL, CHANGE_VULNERABLE, RANGES_MAX, TIMEOUT_DEFAULT, TIMEOUT_MAX, ZERO,
};
use super::{
    BLOCK_TO_BLOCK, BLOCK_TO_BLOCK_OFFSET, CONCURRENT_MAX, CSCDS_MAX, DESCRIPTORS_LEN_MAX, IDENTIFICATION,
    SEGMENT_LEN_MAX, SEGMENTS_MAX,
};
use crate::unit::Unit;

/// Data of RECEIVE COPY RESULTS, OPERATING PARAMETERS.
pub fn operating_parameters() -> Vec<u8> {
    let mut data = vec![0; 44];
    // SNLID: lists without an identifier are taken.
    data[4] = 1;
    data[8..10].copy_from_slice(&(CSCDS_MAX as u16).to_be_bytes());
    data[10..12].copy_from_slice(&(SEGMENTS_MAX as u16).to_be_bytes());
    data[12..16].copy_from_slice(&(DESCRIPTORS_LEN_MAX as u32).to_be_bytes());
    data[16..20].copy_from_slice(&SEGMENT_LEN_MAX.to_be_bytes());
    data[35] = CONCURRENT_MAX;
    data[36] = CONCURRENT_MAX;
    // Data segment granularity: 512 bytes.
    data[37] = 9;
    let implemented = [BLOCK_TO_BLOCK, BLOCK_TO_BLOCK_OFFSET, IDENTIFICATION];
    data[43] = implemented.len() as u8;
    data.extend_from_slice(&implemented);
    let len = data.len() as u32 - 4;
    data[..4].copy_from_slice(&len.to_be_bytes());
    data
}

/// The payload of the third-party copy VPD page (SPC-4 section 7.8.17).
pub(crate) fn third_party_copy(unit: &Unit) -> Vec<u8> {
    let descriptor = |kind: u16, payload: &[u8]| {
        let mut data = kind.to_be_bytes().to_vec();
        let len = payload.len().next_multiple_of(4);
        data.extend_from_slice(&(len as u16).to_be_bytes());
        data.extend_from_slice(payload);
        data.resize(4 + len, 0);
        data
    };
    let limits = {
        let mut payload = vec![0; 28];
        payload[4..6].copy_from_slice(&(CSCDS_MAX as u16).to_be_bytes());
        payload[6..8].copy_from_slice(&(SEGMENTS_MAX as u16).to_be_bytes());
        payload[8..12].copy_from_slice(&(DESCRIPTORS_LEN_MAX as u32).to_be_bytes());
        payload
    };
    let implemented = [BLOCK_TO_BLOCK, BLOCK_TO_BLOCK_OFFSET, IDENTIFICATION];
    [
        descriptor(0x0000, &token_limits(unit)),
        // Supported commands: EXTENDED COPY(LID1 and LID4), POPULATE TOKEN, WRITE USING TOKEN, COPY OPERATION ABORT; RECEIVE COPY
        // STATUS(LID1), OPERATING PARAMETERS, STATUS(LID4), RECEIVE ROD TOKEN INFORMATION.
        descriptor(0x0001, &[13, 0x83, 5, 0x00, 0x01, 0x10, 0x11, 0x1c, 0x84, 4, 0x00, 0x03, 0x05, 0x07]),
        descriptor(0x0004, &limits),
        descriptor(0x0008, &[&[implemented.len() as u8][..], &implemented].concat()),
        // Supported CSCD descriptor IDs: the command's logical unit.
        descriptor(0x000c, &[0, 2, 0xff, 0xff]),
        descriptor(0x0106, &token_features()),
        descriptor(0x0108, &token_types()),
        // General copy operations: total and maximum concurrent copies, segment length in bytes, granularity.
        descriptor(0x8001, &{
            let mut payload = vec![0, 0, 0, CONCURRENT_MAX, 0, 0, 0, CONCURRENT_MAX];
            payload.extend_from_slice(&SEGMENT_LEN_MAX.to_be_bytes());
            payload.extend_from_slice(&[9, 9, 0, 0]);
            payload.resize(32, 0);
            payload
        }),
    ]
    .concat()
}

/// Block device ROD token limits (SBC-3 section 6.6.6.3).
fn token_limits(unit: &Unit) -> Vec<u8> {
    let blocks = |bytes: u64| (bytes / u64::from(unit.block_size)).to_be_bytes();
    let mut payload = vec![0; 6];
    payload.extend_from_slice(&(RANGES_MAX as u16).to_be_bytes());
    payload.extend_from_slice(&TIMEOUT_MAX.to_be_bytes());
    payload.extend_from_slice(&TIMEOUT_DEFAULT.to_be_bytes());
    payload.extend_from_slice(&blocks(BYTES_MAX));
    payload.extend_from_slice(&blocks(BYTES_OPTIMAL));
    payload
}

/// ROD token features (SPC-4 section 7.8.17.8): tokens of this copy manager alone, and what blocks ask for.
fn token_features() -> Vec<u8> {
    let mut payload = vec![0; 44];
    payload[12..16].copy_from_slice(&1u32.to_be_bytes());
    payload[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
    payload[20..24].copy_from_slice(&TIMEOUT_MAX.to_be_bytes());
    payload[43] = 48;
    let mut block = vec![0; 48];
    block[3] = 0x2c;
    block[8..16].copy_from_slice(&BYTES_MAX.to_be_bytes());
    block[16..24].copy_from_slice(&BYTES_OPTIMAL.to_be_bytes());
    block[24..32].copy_from_slice(&BYTES_MAX.to_be_bytes());
    block[32..40].copy_from_slice(&BYTES_OPTIMAL.to_be_bytes());
    payload.append(&mut block);
    payload
}

/// Supported ROD types (SPC-4 section 7.8.17.9): which POPULATE TOKEN makes (TOKEN_OUT), and WRITE USING TOKEN takes (TOKEN_IN).
fn token_types() -> Vec<u8> {
    let kind = |code: u32, use_: u8| {
        let mut descriptor = vec![0; 64];
        descriptor[..4].copy_from_slice(&code.to_be_bytes());
        descriptor[4] = use_;
        descriptor
    };
    let types = [kind(CHANGE_VULNERABLE, 3), kind(ZERO, 2)].concat();
    let len = u16::try_from(types.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[0, 0, len[0], len[1]][..], &types].concat()
}
