//! One command from its CDB to its status: what data it needs, which I/Os it takes, what it answers.
//!
//! ```text
//! Collecting (write data) --> Working (steps, one I/O at a time) --> Answering (data and status on their way out)
//! ```
//!
//! What a family of commands does is in its own file; this one chooses between them.

mod provisioning;
mod reservation;
mod transfer;

use std::collections::VecDeque;

use bdev::{BlockRange, Durability, FenceKey, IoError, Op};
use engine::{Buf, BufMut, Pool};
use iscsi::target::Response;
use scsi::reservation::Request;
use scsi::{ByteCheck, Command, Sense, Unit, status};

use super::lun::LunMode;
use crate::translate::{self, Outcome, Writing};
pub(super) use reservation::{Fencing, ReserveOut};
pub(super) use transfer::compare;

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
    /// No I/O: PERSISTENT RESERVE OUT, which the session carries out.
    Reserve(Box<ReserveOut>),
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
            Self::Reserve(_) => None,
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

fn begin(command: &Command, unit: &Unit, mode: LunMode, fencing: Fencing) -> Result<Start, Sense> {
    match command {
        Command::TestUnitReady => steps([Step::Read(BlockRange::new(0, 1))]),
        Command::StartStopUnit | Command::PreventAllow => steps([]),
        Command::WriteSame { transfer, no_data, unmap } => {
            provisioning::write_same(transfer, unit, mode, *no_data, *unmap)
        }
        Command::Unmap { length: 0 } | Command::ModeSelect { length: 0, .. } => steps([]),
        Command::Unmap { length } | Command::ModeSelect { length, .. } => Ok(Start::Collect(*length)),
        Command::Reservation(request) => reservation::begin(*request, fencing),
        _ => transfer::begin(command, unit, mode),
    }
}

/// The data of a command are in: what to do with them.
pub(super) fn collected(
    command: &Command,
    unit: &Unit,
    mode: LunMode,
    fencing: Fencing,
    data: BufMut,
    pool: &Pool,
) -> Result<VecDeque<Step>, Sense> {
    match command {
        Command::Unmap { .. } => provisioning::unmap(&data, unit),
        Command::WriteSame { transfer, .. } => provisioning::same(transfer, unit, mode, &data, pool),
        Command::ModeSelect { long, .. } => scsi::mode::select(*long, &data, unit).map(|()| VecDeque::new()),
        Command::Reservation(request) => Ok([reservation::collected(*request, &data, fencing)?].into()),
        _ => Ok(transfer::collected(command, unit, mode, data)),
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
        Command::Reservation(Request::Out { length, .. }) => u64::from(*length),
        _ => 0,
    }
}
