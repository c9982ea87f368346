//! UNMAP, WRITE SAME and GET LBA STATUS.

use std::collections::VecDeque;

use bdev::{BlockRange, Capabilities};
use scsi::parameter::{self, LbaStatus, ProvisioningStatus, lba_status};
use scsi::{Command, Provisioning, Sense, Transfer, Unit, ZeroCount};

use super::step::LookUp;
use super::transfer::{durability, pieces};
use super::{Context, Start, Step, steps};
use crate::export::LunMode;

/// Runs that one GET LBA STATUS looks up.
const RUNS_MAX: u32 = 64;

/// The blocks of a WRITE SAME. Where WSNZ is zero, a count of zero means "to the end", within MAXIMUM WRITE SAME LENGTH.
fn same_range(transfer: &Transfer, unit: &Unit) -> Result<BlockRange, Sense> {
    unit.check_range(transfer.lba, transfer.blocks)?;
    if transfer.blocks == 0 && unit.write_same_zero == ZeroCount::Refused {
        return Err(Sense::INVALID_FIELD_IN_CDB);
    }
    let blocks = if transfer.blocks == 0 { unit.blocks - transfer.lba } else { u64::from(transfer.blocks) };
    match u32::try_from(blocks) {
        Ok(blocks) if blocks <= scsi::inquiry::WRITE_SAME_BLOCKS_MAX => {
            Ok(BlockRange::new(transfer.lba, blocks))
        }
        _ => Err(Sense::INVALID_FIELD_IN_CDB),
    }
}

pub(super) fn begin(command: &Command, context: &Context<'_>) -> Result<Start, Sense> {
    match command {
        Command::WriteSame { transfer, unmap, no_data } => write_same(transfer, context, *no_data, *unmap),
        Command::GetLbaStatus { lba, allocation } => status(*lba, *allocation, context),
        _ => Err(Sense::INVALID_OPCODE),
    }
}

fn write_same(
    transfer: &Transfer,
    context: &Context<'_>,
    no_data: bool,
    unmap: bool,
) -> Result<Start, Sense> {
    let range = same_range(transfer, context.unit)?;
    if unmap && context.unit.provisioning == scsi::Provisioning::Full {
        return Err(Sense::invalid_cdb_byte(1));
    }
    if !no_data {
        return Ok(Start::Collect(context.unit.block_size));
    }
    steps([Step::Zero(range, durability(transfer, context.mode()))])
}

/// GET LBA STATUS: a device that does not know says that everything is mapped.
fn status(lba: u64, allocation: u32, context: &Context<'_>) -> Result<Start, Sense> {
    let end = context.unit.blocks;
    if lba >= end {
        return Err(Sense::LBA_OUT_OF_RANGE);
    }
    let known = context.unit.provisioning == Provisioning::Thin && context.can(Capabilities::BLOCK_STATUS);
    let room = (allocation.saturating_sub(8) / 16).clamp(1, RUNS_MAX) as usize;
    if known {
        return steps([Step::Status(LookUp {
            at: lba,
            end,
            runs: Vec::new(),
            room,
            allocation: allocation as usize,
        })]);
    }
    let blocks = u32::try_from(end - lba).unwrap_or(u32::MAX);
    let mut data = lba_status(&[LbaStatus { lba, blocks, status: ProvisioningStatus::Mapped }]);
    data.truncate(allocation as usize);
    Ok(Start::Data(data))
}

/// The ranges of an UNMAP parameter list. Where writes are durable when they are answered, so is this: no flush follows.
pub(super) fn unmap(list: &[u8], unit: &Unit, mode: LunMode) -> Result<VecDeque<Step>, Sense> {
    let mut discards = VecDeque::new();
    for (lba, blocks) in parameter::unmap_ranges(list)? {
        unit.check_range(lba, blocks)?;
        if blocks > 0 {
            discards.push_back(Step::Discard(BlockRange::new(lba, blocks)));
        }
    }
    if mode == LunMode::SyncDurable && !discards.is_empty() {
        discards.push_back(Step::Flush);
    }
    Ok(discards)
}

/// The block of a WRITE SAME is in.
pub(super) fn same(
    transfer: &Transfer,
    context: &Context<'_>,
    pattern: &[u8],
) -> Result<VecDeque<Step>, Sense> {
    let range = same_range(transfer, context.unit)?;
    let durability = durability(transfer, context.mode());
    if pattern.iter().all(|byte| *byte == 0) {
        return Ok([Step::Zero(range, durability)].into());
    }
    let piece = range.blocks.min(128);
    let mut frame = context.pool.alloc(piece as usize * pattern.len()).ok_or(Sense::INTERNAL_FAILURE)?;
    for block in frame.chunks_mut(pattern.len()) {
        block.copy_from_slice(pattern);
    }
    let frame = frame.freeze();
    let part = |range: BlockRange| frame.slice(0..range.blocks as usize * pattern.len());
    Ok(pieces(range, piece).map(|range| Step::Write(range, part(range), durability)).collect())
}
