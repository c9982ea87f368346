//! One command from its CDB to its status: what data it needs, which I/Os it takes, what it answers.
//!
//! ```text
//! Collecting (write data) --> Working (steps, one I/O at a time) --> Answering (data and status on their way out)
//! ```

use std::collections::VecDeque;

use bdev::{BlockRange, Capabilities, Durability, FenceKey, IoError, Op};
use engine::{Buf, BufMut, Pool};
use iscsi::target::Response;
use scsi::{ByteCheck, Command, Sense, Transfer, Unit, parameter, status};

use super::lun::LunMode;
use crate::translate::{self, Outcome, Writing};

/// One I/O that a command takes.
#[derive(Debug)]
pub(super) enum Step {
    Read(BlockRange),
    Write(BlockRange, Buf, Durability),
    /// Read and compare with this.
    Compare(BlockRange, Buf),
    Zero(BlockRange, Durability),
    Discard(BlockRange),
    Flush,
    Fence(FenceKey),
}

impl Step {
    /// The I/O; `None` when the pool has no frame now.
    pub(super) fn op(&self, pool: &Pool, block_size: u32) -> Option<Op> {
        let read = |range: BlockRange| {
            let into = pool.alloc(range.blocks as usize * block_size as usize)?;
            Some(Op::Read { range, into })
        };
        match self {
            Self::Read(range) | Self::Compare(range, _) => read(*range),
            Self::Write(range, from, durability) => {
                Some(Op::Write { range: *range, from: from.clone(), durability: *durability })
            }
            Self::Zero(range, durability) => Some(Op::WriteZeroes { range: *range, durability: *durability }),
            Self::Discard(range) => Some(Op::Discard { range: *range }),
            Self::Flush => Some(Op::Flush),
            Self::Fence(key) => Some(Op::Fence { key: *key }),
        }
    }

    pub(super) fn writing(&self) -> Writing {
        match self {
            Self::Read(_) | Self::Compare(..) => Writing::No,
            _ => Writing::Yes,
        }
    }
}

/// What to do first with a command.
#[derive(Debug)]
pub(super) enum Start {
    /// Answer with these bytes.
    Data(Vec<u8>),
    /// Do this, then answer.
    Steps(VecDeque<Step>),
    /// First take this many bytes from the initiator.
    Collect(u32),
    /// End it.
    Fail(Sense),
}

/// Whether the device below can lock old generations out: a leg can, and takes the registration of a key as `Op::Fence`.
/// Persistent reservations of ordinary LUNs are not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fencing {
    Possible,
    Impossible,
}

impl Fencing {
    pub(super) fn of(capabilities: Capabilities) -> Self {
        if capabilities.contains(Capabilities::FENCE) { Self::Possible } else { Self::Impossible }
    }
}

/// Looks at a command that has been parsed. Commands about the target's LUNs are not for here.
pub(super) fn start(command: &Command, unit: &Unit, mode: LunMode, fencing: Fencing) -> Start {
    if let Some(answer) = scsi::answer(command, unit) {
        return answer.map_or_else(Start::Fail, Start::Data);
    }
    begin(command, unit, mode, fencing).unwrap_or_else(Start::Fail)
}

fn steps(steps: impl IntoIterator<Item = Step>) -> Result<Start, Sense> {
    Ok(Start::Steps(steps.into_iter().collect()))
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

fn begin(command: &Command, unit: &Unit, mode: LunMode, fencing: Fencing) -> Result<Start, Sense> {
    match command {
        Command::TestUnitReady => steps([Step::Read(BlockRange::new(0, 1))]),
        Command::StartStopUnit | Command::PreventAllow => steps([]),
        Command::Read(transfer) => {
            check(unit, transfer)?;
            steps((transfer.blocks > 0).then(|| Step::Read(range_of(transfer))))
        }
        Command::Write(transfer) | Command::WriteAndVerify(transfer) => {
            check(unit, transfer)?;
            collect(transfer, unit)
        }
        Command::Verify { transfer, check: ByteCheck::Medium } => verify_medium(transfer, unit),
        Command::Verify { transfer, check: ByteCheck::Data } => {
            check(unit, transfer)?;
            collect(transfer, unit)
        }
        Command::SynchronizeCache { lba, blocks } => {
            unit.check_range(*lba, *blocks)?;
            steps((mode == LunMode::SyncCached).then_some(Step::Flush))
        }
        Command::WriteSame { transfer, no_data, unmap } => write_same(transfer, unit, mode, *no_data, *unmap),
        Command::Unmap { length: 0 } => steps([]),
        Command::ModeSelect { length: 0, .. } => steps([]),
        Command::Unmap { length } | Command::ModeSelect { length, .. } => Ok(Start::Collect(*length)),
        Command::PersistentReserveOut { .. } if fencing == Fencing::Impossible => Err(Sense::INVALID_OPCODE),
        Command::PersistentReserveOut { length: 24, .. } => Ok(Start::Collect(24)),
        Command::PersistentReserveOut { .. } => Err(Sense::PARAMETER_LENGTH),
        _ => Err(Sense::INVALID_OPCODE),
    }
}

fn verify_medium(transfer: &Transfer, unit: &Unit) -> Result<Start, Sense> {
    unit.check_range(transfer.lba, transfer.blocks)?;
    let whole = BlockRange::new(transfer.lba, transfer.blocks);
    steps(pieces(whole, unit.transfer_max).map(Step::Read))
}

/// A range in pieces of at most `max` blocks.
fn pieces(range: BlockRange, max: u32) -> impl Iterator<Item = BlockRange> {
    let end = range.end();
    let step = max as usize;
    (range.lba..end).step_by(step).map(move |lba| {
        let blocks = (end - lba).min(u64::from(max));
        BlockRange::new(lba, u32::try_from(blocks).expect("at most max"))
    })
}

fn durability(transfer: &Transfer, mode: LunMode) -> Durability {
    if transfer.fua || mode == LunMode::SyncDurable { Durability::Durable } else { Durability::Accepted }
}

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

fn write_same(
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

/// The data of a command are in: what to do with them.
pub(super) fn collected(
    command: &Command,
    unit: &Unit,
    mode: LunMode,
    data: BufMut,
    pool: &Pool,
) -> Result<VecDeque<Step>, Sense> {
    let blocks = u32::try_from(data.len()).expect("a frame is short") / unit.block_size;
    let mut list = VecDeque::new();
    match command {
        Command::Write(transfer) => {
            let range = BlockRange::new(transfer.lba, blocks.min(transfer.blocks));
            list.push_back(Step::Write(range, data.freeze(), durability(transfer, mode)));
        }
        Command::WriteAndVerify(transfer) => {
            let range = BlockRange::new(transfer.lba, blocks.min(transfer.blocks));
            let data = data.freeze();
            list.push_back(Step::Write(range, data.clone(), Durability::Durable));
            list.push_back(Step::Compare(range, data));
        }
        Command::Verify { transfer, .. } => {
            let range = BlockRange::new(transfer.lba, blocks.min(transfer.blocks));
            list.push_back(Step::Compare(range, data.freeze()));
        }
        Command::Unmap { .. } => {
            for (lba, blocks) in parameter::unmap_ranges(&data)? {
                unit.check_range(lba, blocks)?;
                if blocks > 0 {
                    list.push_back(Step::Discard(BlockRange::new(lba, blocks)));
                }
            }
        }
        Command::WriteSame { transfer, .. } => return same(transfer, unit, mode, &data, pool),
        Command::ModeSelect { long, .. } => scsi::mode::select(*long, &data, unit)?,
        Command::PersistentReserveOut { .. } => {
            let key = FenceKey::from_reservation_key(parameter::reserve_out_key(&data)?);
            list.push_back(Step::Fence(key.ok_or(Sense::invalid_parameter_byte(8))?));
        }
        _ => return Err(Sense::INTERNAL_FAILURE),
    }
    Ok(list)
}

fn same(
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

/// The answer to a comparison.
pub(super) fn compare(read: &[u8], wanted: &[u8]) -> Result<(), Sense> {
    match read.iter().zip(wanted).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(offset) => Err(Sense::MISCOMPARE.with_information(offset as u64)),
    }
}

/// CHECK CONDITION with this sense.
pub(super) fn failure(sense: Sense, unit_format: scsi::SenseFormat) -> Response {
    Response { status: status::CHECK_CONDITION, sense: sense.encode(unit_format), transfer_len: 0 }
}

/// The end of a command whose I/O failed.
pub(super) fn io_failure(error: IoError, writing: Writing, format: scsi::SenseFormat) -> Response {
    match translate::to_scsi(error, writing) {
        Outcome::Check(sense) => failure(sense, format),
        Outcome::Status(status) => Response { status, ..Response::default() },
    }
}

/// Bytes that the command itself moves.
pub(super) fn transfer_len(command: &Command, block_size: u64) -> u64 {
    match command {
        Command::Read(transfer) | Command::Write(transfer) | Command::WriteAndVerify(transfer) => {
            u64::from(transfer.blocks) * block_size
        }
        Command::Verify { transfer, check: ByteCheck::Data } => u64::from(transfer.blocks) * block_size,
        Command::WriteSame { no_data: false, .. } => block_size,
        Command::Unmap { length } | Command::ModeSelect { length, .. } => u64::from(*length),
        Command::PersistentReserveOut { length, .. } => u64::from(*length),
        _ => 0,
    }
}
