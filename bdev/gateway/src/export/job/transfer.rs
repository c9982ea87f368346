//! Reading, writing and verifying runs of blocks.

use std::collections::VecDeque;

use bdev::{BlockRange, Durability};
use engine::BufMut;
use scsi::{ByteCheck, Command, Sense, Transfer, Unit};

use super::{LunMode, Start, Step, steps};

pub(super) fn begin(command: &Command, unit: &Unit, mode: LunMode) -> Result<Start, Sense> {
    match command {
        Command::Read(transfer) => {
            check(unit, transfer)?;
            steps((transfer.blocks > 0).then(|| Step::Read(range_of(transfer))))
        }
        Command::Verify { transfer, check: ByteCheck::Medium } => verify_medium(transfer, unit),
        Command::Write(transfer)
        | Command::WriteAndVerify(transfer)
        | Command::Verify { transfer, check: ByteCheck::Data } => {
            check(unit, transfer)?;
            collect(transfer, unit)
        }
        Command::SynchronizeCache { lba, blocks } => {
            unit.check_range(*lba, *blocks)?;
            steps((mode == LunMode::SyncCached).then_some(Step::Flush))
        }
        _ => Err(Sense::INVALID_OPCODE),
    }
}

fn range_of(transfer: &Transfer) -> BlockRange {
    BlockRange::new(transfer.lba, transfer.blocks)
}

fn check(unit: &Unit, transfer: &Transfer) -> Result<(), Sense> {
    unit.check_range(transfer.lba, transfer.blocks)?;
    // More than MAXIMUM TRANSFER LENGTH (SBC-3 section 6.6.4).
    if transfer.blocks > unit.transfer_max { Err(Sense::INVALID_FIELD_IN_CDB) } else { Ok(()) }
}

fn collect(transfer: &Transfer, unit: &Unit) -> Result<Start, Sense> {
    match transfer.blocks {
        0 => steps([]),
        blocks => Ok(Start::Collect(blocks * unit.block_size)),
    }
}

fn verify_medium(transfer: &Transfer, unit: &Unit) -> Result<Start, Sense> {
    unit.check_range(transfer.lba, transfer.blocks)?;
    let whole = BlockRange::new(transfer.lba, transfer.blocks);
    steps(pieces(whole, unit.transfer_max).map(Step::Read))
}

/// A range in pieces of at most `max` blocks.
pub(super) fn pieces(range: BlockRange, max: u32) -> impl Iterator<Item = BlockRange> {
    let end = range.end();
    let step = max as usize;
    (range.lba..end).step_by(step).map(move |lba| {
        let blocks = (end - lba).min(u64::from(max));
        BlockRange::new(lba, u32::try_from(blocks).expect("at most max"))
    })
}

pub(super) fn durability(transfer: &Transfer, mode: LunMode) -> Durability {
    if transfer.fua || mode == LunMode::SyncDurable { Durability::Durable } else { Durability::Accepted }
}

/// The data are in.
pub(super) fn collected(command: &Command, unit: &Unit, mode: LunMode, data: BufMut) -> VecDeque<Step> {
    let blocks = u32::try_from(data.len()).expect("a frame is short") / unit.block_size;
    let range = |transfer: &Transfer| BlockRange::new(transfer.lba, blocks.min(transfer.blocks));
    let data = data.freeze();
    match command {
        Command::Write(transfer) => [Step::Write(range(transfer), data, durability(transfer, mode))].into(),
        Command::WriteAndVerify(transfer) => [
            Step::Write(range(transfer), data.clone(), Durability::Durable),
            Step::Compare(range(transfer), data),
        ]
        .into(),
        Command::Verify { transfer, .. } => [Step::Compare(range(transfer), data)].into(),
        _ => VecDeque::new(),
    }
}

/// The answer to a comparison.
pub(in crate::export) fn compare(read: &[u8], wanted: &[u8]) -> Result<(), Sense> {
    match read.iter().zip(wanted).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(offset) => Err(Sense::MISCOMPARE.with_information(offset as u64)),
    }
}
