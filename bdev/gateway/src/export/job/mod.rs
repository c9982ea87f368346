//! One command from its CDB to its status: what data it needs, which I/Os it takes, what it answers.
//!
//! ```text
//! Collecting (write data) --> Working (steps, one I/O at a time) --> Answering (data and status on their way out)
//! ```
//!
//! What a family of commands does is in its own file; this one chooses between them.

mod alua;
mod copy;
mod log;
mod pieces;
mod provisioning;
mod reservation;
mod step;
mod steps;
mod token;
mod transfer;
mod unit;

use std::rc::Rc;

use bdev::{BlockRange, Capabilities, IoError};
use engine::Instant;
use iscsi::target::Response;
use scsi::command::Priorities;
use scsi::identifying::Kind;
use scsi::mode::{Save, Settings};
use scsi::reservation::{Nexus, Request};
use scsi::sanitization::Sanitization;
use scsi::{ByteCheck, Command, Sense, Unit, parameter, status};

use super::lun::LunMode;
use super::node::{Lun, Node};
use super::state::NexusId;
use crate::access::LunMask;
use crate::payload::PayloadMut;
use crate::translate::{self, Outcome, Writing};
pub(super) use copy::check_shown;
pub(super) use pieces::Walk;
pub(super) use reservation::ReserveOut;
pub(super) use step::{After, Step};
pub(super) use steps::Steps;
pub(super) use transfer::scratch_len;

/// A change that a command wants of what the unit keeps, reservations apart.
#[derive(Debug)]
pub(super) enum Wish {
    /// MODE SELECT.
    Modes(Settings, Save),
    /// SET IDENTIFYING INFORMATION.
    Identifying(Kind, Vec<u8>),
    /// SANITIZE.
    Sanitize(Sanitization),
    /// SANITIZE, EXIT FAILURE MODE.
    ExitFailureMode,
}

/// What to do first with a command.
#[derive(Debug)]
pub(super) enum Start {
    /// Answer with these bytes.
    Data(Vec<u8>),
    /// Do this, then answer.
    Steps(Steps),
    /// First take this many bytes from the initiator.
    Collect(u32),
    /// End it.
    Fail(Sense),
}

/// Where a command is to be done.
pub(super) struct Context<'a> {
    pub(super) unit: &'a Unit,
    pub(super) lun: &'a Rc<Lun>,
    /// Who asks.
    pub(super) nexus: NexusId,
    /// The target, whose LUNs a copy may be between.
    pub(super) node: &'a Node,
    /// Who asks, as reservations know it.
    pub(super) reserver: Option<&'a Nexus>,
    /// Number of the LUN.
    pub(super) number: u16,
    /// Which of the target's LUNs show.
    pub(super) mask: &'a LunMask,
    pub(super) now: Instant,
}

impl Context<'_> {
    fn mode(&self) -> LunMode {
        self.lun.mode()
    }

    /// A flush, where there may be writes in a cache: of now, or of before a host left it.
    fn flush(&self) -> Option<Step> {
        (self.lun.config.mode == LunMode::SyncCached).then_some(Step::Flush)
    }

    fn can(&self, powers: Capabilities) -> bool {
        self.lun.config.bdev.capabilities().contains(powers)
    }
}

/// Looks at a command that has been parsed. Commands about the target's LUNs are not for here.
pub(super) fn start(command: &Command, context: &Context<'_>) -> Start {
    if let Some(answer) = scsi::answer(command, context.unit) {
        return answer.map_or_else(Start::Fail, Start::Data);
    }
    begin(command, context).unwrap_or_else(Start::Fail)
}

/// Data, cut at the allocation length.
fn cut(mut data: Vec<u8>, allocation: u32) -> Start {
    data.truncate(allocation as usize);
    Start::Data(data)
}

fn steps(steps: impl IntoIterator<Item = Step>) -> Result<Start, Sense> {
    Ok(Start::Steps(steps.into_iter().collect()))
}

fn begin(command: &Command, context: &Context<'_>) -> Result<Start, Sense> {
    match command {
        Command::TestUnitReady => steps([Step::Examine(Walk::short(BlockRange::new(0, 1)))]),
        Command::RequestSense { descriptor, allocation } => {
            Ok(Start::Data(unit::request_sense(*descriptor, *allocation, context)))
        }
        Command::ReportPriority { which, allocation } => {
            let own = context.reserver.filter(|_| *which == Priorities::Own);
            Ok(cut(parameter::priority(own), *allocation))
        }
        Command::ReportTimestamp { allocation } => {
            Ok(cut(parameter::timestamp(context.now.since_epoch()), *allocation))
        }
        Command::StartStopUnit { action, .. } => unit::start_stop(*action, context),
        Command::PreventAllow(removal) => unit::prevent_allow(*removal, context),
        Command::Sanitize(sanitize) => unit::sanitize(sanitize),
        Command::ExtendedCopy { .. }
        | Command::ExtendedCopyLid4 { .. }
        | Command::CopyOperationAbort { .. }
        | Command::ReceiveCopyStatus { .. }
        | Command::ReceiveCopyStatusLid4 { .. }
        | Command::ReceiveTokenInformation { .. } => copy::begin(command, context),
        Command::PopulateToken { .. } | Command::WriteUsingToken { .. } => token::begin(command),
        Command::WriteSame { .. } | Command::GetLbaStatus { .. } => provisioning::begin(command, context),
        Command::LogSense { .. }
        | Command::LogSelect { .. }
        | Command::LogReset
        | Command::SendDiagnostic { .. }
        | Command::ReportIdentifying { .. }
        | Command::SetIdentifying { .. } => log::begin(command, context),
        Command::ModeSelect { save: Save::Yes, .. } if context.unit.saved_settings.is_none() => {
            Err(Sense::invalid_cdb_byte(1))
        }
        Command::Unmap { length: 0 }
        | Command::ModeSelect { length: 0, .. }
        | Command::SetTargetPortGroups { length: 0 } => steps([]),
        Command::SetTargetPortGroups { length } if *length > PORT_GROUPS_MAX => Err(Sense::PARAMETER_LENGTH),
        Command::Unmap { length }
        | Command::ModeSelect { length, .. }
        | Command::SetTargetPortGroups { length } => Ok(Start::Collect(*length)),
        Command::Reservation(request) => reservation::begin(*request, context),
        _ => transfer::begin(command, context),
    }
}

/// Longest list of SET TARGET PORT GROUPS, in bytes: far more groups than there are.
const PORT_GROUPS_MAX: u32 = 4096;

/// The data of a command are in: what to do with them.
pub(super) fn collected(command: &Command, context: &Context<'_>, data: PayloadMut) -> Result<Steps, Sense> {
    match command {
        Command::Unmap { .. } => provisioning::unmap(data.list(), context.unit, context.mode()),
        Command::WriteSame { transfer, .. } => provisioning::same(transfer, context, data.list()),
        Command::ModeSelect { long, save, .. } => unit::mode_select(*long, *save, data.list(), context),
        Command::SetTargetPortGroups { .. } => alua::set(data.list(), context),
        Command::LogSelect { .. } | Command::SendDiagnostic { .. } | Command::SetIdentifying { .. } => {
            log::collected(command, data.list(), context.unit)
        }
        Command::Sanitize(sanitize) => unit::overwrite(sanitize, data.list(), context),
        Command::ExtendedCopy { .. } | Command::ExtendedCopyLid4 { .. } => {
            copy::collected(command, data.list(), context)
        }
        Command::PopulateToken { .. } | Command::WriteUsingToken { .. } => {
            token::collected(command, data.list(), context)
        }
        Command::Reservation(request) => Ok([reservation::collected(*request, data.list(), context)?].into()),
        _ => transfer::collected(command, context, data),
    }
}

/// What is wrong with the length of data that must be exact; `expected` bytes come.
pub(super) fn wrong_length(command: &Command, expected: u32, block_size: u32) -> Option<Sense> {
    let exact = |len: u64| (u64::from(expected) != len).then_some(Sense::INVALID_FIELD_IN_CDB);
    match command {
        // The data-out buffer of WRITE SAME is one block (SBC-3 section 5.43), that of COMPARE AND WRITE twice the blocks.
        Command::WriteSame { .. } => exact(u64::from(block_size)),
        Command::CompareAndWrite(transfer) => exact(2 * u64::from(transfer.blocks) * u64::from(block_size)),
        _ => list_len(command).filter(|length| expected < *length).map(|_| Sense::PARAMETER_LENGTH),
    }
}

/// Bytes of the parameter list of a command that has one instead of blocks.
pub(super) fn list_len(command: &Command) -> Option<u32> {
    match command {
        Command::Unmap { length }
        | Command::ModeSelect { length, .. }
        | Command::LogSelect { length, .. }
        | Command::SendDiagnostic { length, .. }
        | Command::SetIdentifying { length, .. }
        | Command::SetTargetPortGroups { length }
        | Command::Reservation(Request::Out { length, .. }) => Some(*length),
        Command::Sanitize(sanitize) => Some(sanitize.length),
        Command::ExtendedCopy { length }
        | Command::ExtendedCopyLid4 { length }
        | Command::PopulateToken { length, .. }
        | Command::WriteUsingToken { length, .. } => Some(*length),
        _ => None,
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
        Command::Read(transfer)
        | Command::Write(transfer)
        | Command::WriteAndVerify { transfer, .. }
        | Command::OrWrite(transfer)
        | Command::WriteAtomic { transfer, .. }
        | Command::Verify { transfer, check: ByteCheck::Data } => u64::from(transfer.blocks) * block_size,
        Command::CompareAndWrite(transfer) => 2 * u64::from(transfer.blocks) * block_size,
        Command::Verify { check: ByteCheck::OneBlock, .. } | Command::WriteSame { no_data: false, .. } => {
            block_size
        }
        _ => list_len(command).map_or(0, u64::from),
    }
}
