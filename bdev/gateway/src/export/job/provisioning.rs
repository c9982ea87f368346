//! UNMAP, WRITE SAME and GET LBA STATUS.

use std::cell::OnceCell;

use bdev::{BlockRange, Capabilities, Durability, Op};
use engine::{Buf, Pool};
use scsi::parameter::{self, LbaStatus, ProvisioningStatus, lba_status};
use scsi::{Command, Provisioning, Sense, Transfer, Unit, ZeroCount};

use super::step::LookUp;
use super::transfer::durability;
use super::{Context, Start, Step, Steps, steps};
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
    steps([zeroes(range, durability(transfer, context.mode()), context)])
}

/// Zeroes for a range. A thick LUN has them written, because what is zeroed by the device may lose its storage.
fn zeroes(range: BlockRange, durability: Durability, context: &Context<'_>) -> Step {
    if context.lun.config.keeps_storage() {
        return Step::Same(Same::new(range, &vec![0; context.unit.block_size as usize], durability));
    }
    Step::Zero(range, durability)
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
pub(super) fn unmap(list: &[u8], unit: &Unit, mode: LunMode) -> Result<Steps, Sense> {
    let mut discards = Steps::default();
    for (lba, blocks) in parameter::unmap_ranges(list)? {
        unit.check_range(lba, blocks)?;
        if blocks > 0 {
            discards.push_back(Step::Discard(BlockRange::new(lba, blocks)));
        }
    }
    if mode == LunMode::SyncDurable && discards.front().is_some() {
        discards.push_back(Step::Flush);
    }
    Ok(discards)
}

/// The block of a WRITE SAME is in.
pub(super) fn same(transfer: &Transfer, context: &Context<'_>, pattern: &[u8]) -> Result<Steps, Sense> {
    let range = same_range(transfer, context.unit)?;
    let durability = durability(transfer, context.mode());
    if pattern.iter().all(|byte| *byte == 0) {
        return Ok([zeroes(range, durability, context)].into());
    }
    Ok([Step::Same(Same::new(range, pattern, durability))].into())
}

/// Most blocks that are written at once.
const PIECE: u32 = 128;

/// A block that is written again and again, piece by piece. It waits for a frame like any write.
#[derive(Debug)]
pub(in crate::export) struct Same {
    /// What is to be written still.
    range: BlockRange,
    pattern: Box<[u8]>,
    durability: Durability,
    /// A piece, once there was a frame for it.
    frame: OnceCell<Buf>,
}

impl Same {
    fn new(range: BlockRange, pattern: &[u8], durability: Durability) -> Self {
        Self { range, pattern: pattern.into(), durability, frame: OnceCell::new() }
    }

    /// The blocks that are written next.
    pub(super) fn piece(&self) -> BlockRange {
        BlockRange::new(self.range.lba, self.range.blocks.min(PIECE))
    }

    /// The next write; `None` when the pool has no frame now.
    pub(super) fn op(&self, pool: &Pool) -> Option<Op> {
        let range = self.piece();
        let len = range.blocks as usize * self.pattern.len();
        if self.frame.get().is_none() {
            let mut frame = pool.alloc(len)?;
            for block in frame.chunks_mut(self.pattern.len()) {
                block.copy_from_slice(&self.pattern);
            }
            let _ = self.frame.set(frame.freeze());
        }
        let from = self.frame.get()?.slice(0..len);
        Some(Op::Write { range, from, durability: self.durability })
    }

    /// What is left after a piece.
    pub(super) fn rest(self) -> Option<Self> {
        let piece = self.piece();
        let range = BlockRange::new(piece.end(), self.range.blocks - piece.blocks);
        (range.blocks > 0).then_some(Self { range, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_is_written_again_and_again_waits_for_a_frame() {
        let pool = Pool::for_tests();
        let held: Vec<_> = std::iter::from_fn(|| pool.alloc(PIECE as usize * 512)).collect();
        let mut same = Same::new(BlockRange::new(100, 300), &[7; 512], Durability::Durable);
        assert!(same.op(&pool).is_none(), "there is none now");
        drop(held);
        let mut written = Vec::new();
        loop {
            let Some(Op::Write { range, from, .. }) = same.op(&pool) else { panic!("there are frames") };
            assert!(from.len() == range.blocks as usize * 512 && from.iter().all(|byte| *byte == 7));
            written.push((range.lba, range.blocks));
            let Some(rest) = same.rest() else { break };
            same = rest;
        }
        assert_eq!(written, [(100, 128), (228, 128), (356, 44)]);
    }
}
