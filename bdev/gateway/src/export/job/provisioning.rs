//! UNMAP and WRITE SAME.

use std::collections::VecDeque;

use bdev::BlockRange;
use engine::Pool;
use scsi::{Sense, Transfer, Unit, parameter};

use super::transfer::{durability, pieces};
use super::{LunMode, Start, Step, steps};

/// The blocks of a WRITE SAME. WSNZ is zero: a count of zero means "to the end", within MAXIMUM WRITE SAME LENGTH.
fn same_range(transfer: &Transfer, unit: &Unit) -> Result<BlockRange, Sense> {
    unit.check_range(transfer.lba, transfer.blocks)?;
    let blocks = if transfer.blocks == 0 { unit.blocks - transfer.lba } else { u64::from(transfer.blocks) };
    match u32::try_from(blocks) {
        Ok(blocks) if blocks <= scsi::inquiry::WRITE_SAME_BLOCKS_MAX => {
            Ok(BlockRange::new(transfer.lba, blocks))
        }
        _ => Err(Sense::INVALID_FIELD_IN_CDB),
    }
}

pub(super) fn write_same(
    transfer: &Transfer,
    unit: &Unit,
    mode: LunMode,
    no_data: bool,
    unmap: bool,
) -> Result<Start, Sense> {
    let range = same_range(transfer, unit)?;
    if unmap && unit.provisioning == scsi::Provisioning::Full {
        return Err(Sense::invalid_cdb_byte(1));
    }
    if !no_data {
        return Ok(Start::Collect(unit.block_size));
    }
    steps([Step::Zero(range, durability(transfer, mode))])
}

/// The ranges of an UNMAP parameter list.
pub(super) fn unmap(list: &[u8], unit: &Unit) -> Result<VecDeque<Step>, Sense> {
    let mut discards = VecDeque::new();
    for (lba, blocks) in parameter::unmap_ranges(list)? {
        unit.check_range(lba, blocks)?;
        if blocks > 0 {
            discards.push_back(Step::Discard(BlockRange::new(lba, blocks)));
        }
    }
    Ok(discards)
}

/// The block of a WRITE SAME is in.
pub(super) fn same(
    transfer: &Transfer,
    unit: &Unit,
    mode: LunMode,
    pattern: &[u8],
    pool: &Pool,
) -> Result<VecDeque<Step>, Sense> {
    let range = same_range(transfer, unit)?;
    let durability = durability(transfer, mode);
    if pattern.iter().all(|byte| *byte == 0) {
        return Ok([Step::Zero(range, durability)].into());
    }
    let piece = range.blocks.min(128);
    let mut frame = pool.alloc(piece as usize * pattern.len()).ok_or(Sense::INTERNAL_FAILURE)?;
    for block in frame.chunks_mut(pattern.len()) {
        block.copy_from_slice(pattern);
    }
    let frame = frame.freeze();
    let part = |range: BlockRange| frame.slice(0..range.blocks as usize * pattern.len());
    Ok(pieces(range, piece).map(|range| Step::Write(range, part(range), durability)).collect())
}
