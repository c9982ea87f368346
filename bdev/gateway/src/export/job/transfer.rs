//! Reading, writing and verifying runs of blocks.

use bdev::{BlockRange, Capabilities, Durability};
use scsi::inquiry::COMPARE_AND_WRITE_BLOCKS_MAX;
use scsi::{ByteCheck, Command, Sense, Transfer, Unit};

use super::pieces::{OrWrite, Piece, Reading, Walk, frame_blocks, pieces_of};
use super::step::{CompareAndWrite, Comparer};
use super::{Context, LunMode, Start, Step, Steps, steps};
use crate::payload::{FRAME, PayloadMut};

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
            if *blocks > unit.transfer_optimal { Err(Sense::INVALID_FIELD_IN_CDB) } else { steps([]) }
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
    let (range, block_size) = (range_of(transfer), context.unit.block_size);
    let read = match transfer.blocks {
        0 => None,
        blocks if blocks <= frame_blocks(block_size) => Some(Step::Read(range)),
        _ => Some(Step::ReadLong(Reading::new(range, block_size))),
    };
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
    let walk = (transfer.blocks > 0).then(|| Walk::new(range_of(transfer), unit.block_size));
    steps(walk.map(Step::Examine))
}

pub(super) fn durability(transfer: &Transfer, mode: LunMode) -> Durability {
    if transfer.fua || mode == LunMode::SyncDurable { Durability::Durable } else { Durability::Accepted }
}

/// Bytes of the frame that a command which takes `len` bytes of data reads into while it has those.
pub(in crate::export) fn scratch_len(command: &Command, len: usize, block_size: u32) -> usize {
    match command {
        Command::OrWrite(_)
        | Command::WriteAndVerify { .. }
        | Command::Verify { check: ByteCheck::Data, .. } => len.min(FRAME),
        Command::Verify { transfer, check: ByteCheck::OneBlock } => {
            transfer.blocks.min(frame_blocks(block_size)) as usize * block_size as usize
        }
        Command::CompareAndWrite(_) => len / 2,
        _ => 0,
    }
}

/// The data are in.
pub(super) fn collected(command: &Command, context: &Context<'_>, data: PayloadMut) -> Result<Steps, Sense> {
    let block_size = context.unit.block_size;
    let blocks = u32::try_from(data.len()).expect("no longer than a command may") / block_size;
    let range = |transfer: &Transfer| BlockRange::new(transfer.lba, blocks.min(transfer.blocks));
    let durability = |transfer: &Transfer| durability(transfer, context.mode());
    let data = data.freeze();
    let each = |transfer: &Transfer| pieces_of(range(transfer), &data, block_size);
    // Of one that is never longer than a frame.
    let whole = || data.frames().next().cloned().ok_or(Sense::INTERNAL_FAILURE);
    Ok(match command {
        Command::Write(transfer) => each(transfer)
            .map(|Piece { range, data, .. }| Step::Write(range, data, durability(transfer)))
            .collect(),
        Command::WriteAtomic { transfer, .. } => {
            [Step::WriteAtomic(range(transfer), whole()?, durability(transfer))].into()
        }
        Command::OrWrite(transfer) => {
            let pieces = each(transfer).collect();
            [Step::Or(OrWrite::new(range(transfer), pieces, durability(transfer)))].into()
        }
        Command::CompareAndWrite(transfer) => {
            let native = context.can(Capabilities::COMPARE_AND_WRITE);
            let by = if native { Comparer::Device } else { Comparer::Lun };
            let (range, durability) = (range_of(transfer), durability(transfer));
            [Step::CompareAndWrite(CompareAndWrite { range, both: whole()?, durability, by })].into()
        }
        Command::WriteAndVerify { transfer, check } => {
            each(transfer).map(|piece| Step::WriteAndVerify(piece, *check)).collect()
        }
        Command::Verify { transfer, check: ByteCheck::OneBlock } => {
            [Step::CompareEach(Walk::new(range_of(transfer), block_size), whole()?)].into()
        }
        Command::Verify { transfer, .. } => each(transfer).map(Step::Compare).collect(),
        _ => return Err(Sense::INTERNAL_FAILURE),
    })
}

/// The answer to a comparison of data that begin at a byte of the command's.
pub(super) fn compare(read: &[u8], wanted: &[u8], from: u64) -> Result<(), Sense> {
    match read.iter().zip(wanted).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(offset) => Err(Sense::MISCOMPARE.with_information(from + offset as u64)),
    }
}

/// The answer to a comparison of each block with one.
pub(super) fn compare_each(read: &[u8], wanted: &[u8]) -> Result<(), Sense> {
    match read.iter().zip(wanted.iter().cycle()).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(offset) => Err(Sense::MISCOMPARE.with_information((offset % wanted.len()) as u64)),
    }
}

#[cfg(test)]
mod tests {
    use bdev::Geometry;
    use bdev::null::NullBdev;
    use scsi::Queries;
    use scsi::alua::Management;
    use scsi::mode::Modes;
    use uuid::Uuid;

    use super::super::super::lun::{LunConfig, Port};
    use super::*;

    #[test]
    fn a_verification_of_terabytes_is_one_step_at_a_time() {
        let geometry = Geometry { block_size: 512, physical_block_size: 512, blocks: 1 << 32 };
        let config = LunConfig::new(NullBdev::new("n0", Uuid::from_u128(1), geometry), LunMode::SyncDurable);
        let (management, queries) = (Management::Implicit, Queries::No);
        let port = Port { number: 1, name: String::new(), all: Vec::new(), management, queries };
        let unit = config.unit(port, Modes::default(), 8 << 20);
        let transfer = Transfer { lba: 1, blocks: u32::MAX, fua: false };
        let Ok(Start::Steps(mut steps)) = verify_medium(&transfer, &unit) else { panic!("inside") };
        let Some(Step::Examine(mut walk)) = steps.pop_front() else { panic!("a look") };
        assert!(steps.front().is_none(), "one step");
        let mut next = transfer.lba;
        loop {
            let piece = walk.piece();
            assert!(piece.lba == next && piece.blocks <= frame_blocks(512) && piece.blocks > 0);
            next = piece.end();
            let Some(rest) = walk.rest() else { break };
            walk = rest;
        }
        assert_eq!(next, 1 << 32, "all of it");
    }
}
