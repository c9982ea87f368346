//! Parameter lists and data of commands that have their own.

use alloc::vec::Vec;
use core::time::Duration;

use crate::inquiry::{UNMAP_BLOCKS_MAX, UNMAP_DESCRIPTORS_MAX};
use crate::reservation::Nexus;
use crate::sense::Sense;

/// The block ranges of an UNMAP parameter list (SBC-3 section 5.28.2), empty ones left out.
///
/// # Errors
/// A list that contradicts itself, or more than the advertised limits.
pub fn unmap_ranges(list: &[u8]) -> Result<Vec<(u64, u32)>, Sense> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let header = list.get(..8).ok_or(Sense::PARAMETER_LENGTH)?;
    let claimed = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let descriptors = &list[8..list.len().min(8 + claimed - claimed % 16)];
    if descriptors.len() / 16 > UNMAP_DESCRIPTORS_MAX as usize {
        return Err(Sense::invalid_parameter_byte(2));
    }
    let mut total = 0u64;
    let mut ranges = Vec::new();
    for descriptor in descriptors.chunks_exact(16) {
        let lba = u64::from_be_bytes(descriptor[..8].try_into().expect("eight bytes"));
        let blocks = u32::from_be_bytes(descriptor[8..12].try_into().expect("four bytes"));
        total += u64::from(blocks);
        ranges.push((lba, blocks));
    }
    if total > u64::from(UNMAP_BLOCKS_MAX) {
        return Err(Sense::INVALID_FIELD_IN_PARAMETERS);
    }
    Ok(ranges)
}

/// A run of blocks and whether it is provisioned (SBC-3 section 5.7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LbaStatus {
    /// First block.
    pub lba: u64,
    /// Blocks.
    pub blocks: u32,
    /// Whether they are backed.
    pub status: ProvisioningStatus,
}

/// PROVISIONING STATUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ProvisioningStatus {
    /// Mapped.
    Mapped = 0,
    /// Deallocated.
    Deallocated = 1,
}

/// Data of GET LBA STATUS.
pub fn lba_status(runs: &[LbaStatus]) -> Vec<u8> {
    let len = u32::try_from(4 + runs.len() * 16).unwrap_or(u32::MAX);
    let mut data = [len.to_be_bytes(), [0; 4]].concat();
    for run in runs {
        data.extend_from_slice(&run.lba.to_be_bytes());
        data.extend_from_slice(&run.blocks.to_be_bytes());
        data.extend_from_slice(&[run.status as u8, 0, 0, 0]);
    }
    data
}

/// What a SANITIZE overwrite writes (SBC-3 section 5.24.2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overwrite {
    /// Passes, 1 to 31.
    pub passes: u8,
    /// Whether the pattern is inverted from pass to pass.
    pub inversion: Inversion,
    /// The initialization pattern: at most a block, repeated.
    pub pattern: Vec<u8>,
}

/// INVERT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inversion {
    /// Every pass writes the same.
    None,
    /// Every pass writes the complement of what the one before wrote.
    EachPass,
}

/// The parameter list of a SANITIZE overwrite.
///
/// # Errors
/// The byte that is not understood.
pub fn overwrite(list: &[u8], block_size: u32) -> Result<Overwrite, Sense> {
    let [flags, _, high, low, pattern @ ..] = list else { return Err(Sense::PARAMETER_LENGTH) };
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    let passes = flags & 0x1f;
    // TEST asks for a vendor's test of the medium.
    if flags & 0x60 != 0 || passes == 0 {
        return Err(Sense::invalid_parameter_byte(0));
    }
    if len == 0 || len > block_size as usize {
        return Err(Sense::invalid_parameter_byte(2));
    }
    let pattern = pattern.get(..len).ok_or(Sense::PARAMETER_LENGTH)?.to_vec();
    let inversion = if flags & 0x80 != 0 { Inversion::EachPass } else { Inversion::None };
    Ok(Overwrite { passes, inversion, pattern })
}

/// Data of REPORT PRIORITY (SPC-4 section 6.34): the priority of a nexus, which is the initial one, because none can be set.
pub fn priority(nexus: Option<&Nexus>) -> Vec<u8> {
    let mut list = Vec::new();
    if let Some(Nexus { initiator, port }) = nexus {
        let (id, port) = (initiator.transport_id(), port.to_be_bytes());
        let len = u16::try_from(id.len()).unwrap_or(u16::MAX).to_be_bytes();
        list.extend_from_slice(&[0, 0, port[0], port[1], 0, 0, len[0], len[1]]);
        list.extend_from_slice(&id);
    }
    let len = u32::try_from(list.len()).unwrap_or(u32::MAX);
    [&len.to_be_bytes()[..], &list].concat()
}

/// Data of REPORT TIMESTAMP (SPC-4 section 6.37), from the time since the device was switched on: TIMESTAMP ORIGIN is zero.
pub fn timestamp(since_power_on: Duration) -> Vec<u8> {
    let millis = u64::try_from(since_power_on.as_millis()).unwrap_or(u64::MAX).to_be_bytes();
    [&[0, 10, 0, 0][..], &millis[2..], &[0, 0]].concat()
}

/// Data of REPORT LUNS, from the raw LUNs.
pub fn report_luns(luns: &[u64]) -> Vec<u8> {
    let len = u32::try_from(luns.len() * 8).unwrap_or(u32::MAX);
    let mut data = [len.to_be_bytes(), [0; 4]].concat();
    for lun in luns {
        data.extend_from_slice(&lun.to_be_bytes());
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::initiator;
    use crate::reservation::InitiatorPort;

    #[test]
    fn priority_and_timestamp_have_their_shape() {
        assert_eq!(priority(None), [0, 0, 0, 0]);
        let initiator = InitiatorPort::new("iqn.a", [1; 6]).expect("short");
        let data = priority(Some(&Nexus { initiator: initiator.clone(), port: 0x8001 }));
        assert_eq!(usize::from(data[3]), data.len() - 4);
        assert_eq!((data[4], &data[6..8], usize::from(data[11])), (0, &[0x80, 1][..], data.len() - 12));
        assert_eq!(data[12..], initiator.transport_id());
        let data = timestamp(Duration::from_millis(0x0102_0304_0506));
        assert_eq!(data, [0, 10, 0, 0, 1, 2, 3, 4, 5, 6, 0, 0]);
    }

    #[test]
    fn unmap_lists_are_parsed_as_they_are_built() {
        let list = initiator::unmap_list(1 << 33, 77);
        assert_eq!(unmap_ranges(&list), Ok(alloc::vec![(1 << 33, 77)]));
        assert_eq!(unmap_ranges(&list[..7]), Err(Sense::PARAMETER_LENGTH));
        assert_eq!(unmap_ranges(&[0; 8]), Ok(Vec::new()));
        let huge = initiator::unmap_list(0, u32::MAX);
        assert_eq!(unmap_ranges(&huge), Err(Sense::INVALID_FIELD_IN_PARAMETERS));
    }
}
