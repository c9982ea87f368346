//! Reading, writing and verifying runs of blocks.

use std::collections::VecDeque;

use bdev::{BlockRange, Capabilities, Durability};
use engine::BufMut;
use scsi::inquiry::COMPARE_AND_WRITE_BLOCKS_MAX;
use scsi::{ByteCheck, Command, Sense, Transfer, Unit};

use super::step::{CompareAndWrite, Comparer};
use super::{Context, LunMode, Start, Step, steps};

pub(super) fn begin(command: &Command, context: &Context<'_>) -> Result<Start, Sense> {
    let unit = context.unit;
    match command {
        Command::Read(transfer) => {
            check(unit, transfer)?;
            read(transfer, context)
        }
        Command::Verify { transfer, check: ByteCheck::Medium } => verify_medium(transfer, unit),
        Command::Verify { transfer, check: ByteCheck::OneBlock } => {
            unit.check_range(transfer.lba, transfer.blocks)?;
            if transfer.blocks == 0 { steps([]) } else { Ok(Start::Collect(unit.block_size)) }
        }
        Command::Write(transfer)
        | Command::WriteAndVerify { transfer, .. }
        | Command::OrWrite(transfer)
        | Command::Verify { transfer, check: ByteCheck::Data } => {
            check(unit, transfer)?;
            collect(transfer, unit)
        }
        Command::CompareAndWrite(transfer) => compare_and_write(transfer, unit),
        Command::WriteAtomic { transfer, boundary } => write_atomic(transfer, *boundary, unit),
        // Nothing is kept in a cache of its own, so nothing can be fetched into it: GOOD says that not all blocks are there.
        Command::PreFetch { lba, blocks } => {
            unit.check_range(*lba, *blocks)?;
            // MAXIMUM PREFETCH LENGTH; a count of zero means "to the end", whatever that is.
            if *blocks > unit.transfer_max { Err(Sense::INVALID_FIELD_IN_CDB) } else { steps([]) }
        }
        Command::SynchronizeCache { lba, blocks } => {
            unit.check_range(*lba, *blocks)?;
            steps(context.flush())
        }
        _ => Err(Sense::INVALID_OPCODE),
    }
}

/// FUA: what is read is on the medium.
fn read(transfer: &Transfer, context: &Context<'_>) -> Result<Start, Sense> {
    let settle = context.flush().filter(|_| transfer.fua);
    let read = (transfer.blocks > 0).then(|| Step::Read(range_of(transfer)));
    steps(settle.into_iter().chain(read))
}

fn compare_and_write(transfer: &Transfer, unit: &Unit) -> Result<Start, Sense> {
    if transfer.blocks > COMPARE_AND_WRITE_BLOCKS_MAX {
        return Err(Sense::invalid_cdb_byte(13));
    }
    unit.check_range(transfer.lba, transfer.blocks)?;
    collect(&Transfer { blocks: 2 * transfer.blocks, ..*transfer }, unit)
}

/// There is no atomic boundary, so none may be asked for (SBC-4 section 4.29).
fn write_atomic(transfer: &Transfer, boundary: u16, unit: &Unit) -> Result<Start, Sense> {
    if boundary != 0 {
        return Err(Sense::invalid_cdb_byte(10));
    }
    let granularity = unit.physical_block_size / unit.block_size;
    if transfer.blocks > unit.atomic_max || !transfer.blocks.is_multiple_of(granularity) {
        return Err(Sense::invalid_cdb_byte(12));
    }
    if !transfer.lba.is_multiple_of(u64::from(granularity)) {
        return Err(Sense::invalid_cdb_byte(2));
    }
    check(unit, transfer)?;
    collect(transfer, unit)
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
    steps(pieces(whole, unit.transfer_max).map(Step::Examine))
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
pub(super) fn collected(
    command: &Command,
    context: &Context<'_>,
    data: BufMut,
) -> Result<VecDeque<Step>, Sense> {
    let blocks = u32::try_from(data.len()).expect("a frame is short") / context.unit.block_size;
    let range = |transfer: &Transfer| BlockRange::new(transfer.lba, blocks.min(transfer.blocks));
    let durability = |transfer: &Transfer| durability(transfer, context.mode());
    let data = data.freeze();
    Ok(match command {
        Command::Write(transfer) => [Step::Write(range(transfer), data, durability(transfer))].into(),
        Command::WriteAtomic { transfer, .. } => {
            [Step::WriteAtomic(range(transfer), data, durability(transfer))].into()
        }
        Command::OrWrite(transfer) => [Step::Or(range(transfer), data, durability(transfer))].into(),
        Command::CompareAndWrite(transfer) => {
            let native = context.can(Capabilities::COMPARE_AND_WRITE);
            let by = if native { Comparer::Device } else { Comparer::Lun };
            let (range, durability) = (range_of(transfer), durability(transfer));
            [Step::CompareAndWrite(CompareAndWrite { range, both: data, durability, by })].into()
        }
        Command::WriteAndVerify { transfer, check } => {
            [Step::WriteAndVerify(range(transfer), data, *check)].into()
        }
        Command::Verify { transfer, check: ByteCheck::OneBlock } => {
            let pieces = pieces(range_of(transfer), context.unit.transfer_max);
            pieces.map(|range| Step::CompareEach(range, data.clone())).collect()
        }
        Command::Verify { transfer, .. } => [Step::Compare(range(transfer), data)].into(),
        _ => return Err(Sense::INTERNAL_FAILURE),
    })
}

/// The answer to a comparison.
pub(super) fn compare(read: &[u8], wanted: &[u8]) -> Result<(), Sense> {
    match read.iter().zip(wanted).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(offset) => Err(Sense::MISCOMPARE.with_information(offset as u64)),
    }
}

/// The answer to a comparison of each block with one.
pub(super) fn compare_each(read: &[u8], wanted: &[u8]) -> Result<(), Sense> {
    match read.iter().zip(wanted.iter().cycle()).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(offset) => Err(Sense::MISCOMPARE.with_information((offset % wanted.len()) as u64)),
    }
}
