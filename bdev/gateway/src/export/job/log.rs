//! LOG SENSE, LOG SELECT, diagnostics and identifying information.

use bdev::BlockRange;
use scsi::command::SelfTest;
use scsi::identifying::{self, Kind};
use scsi::log::{self, Counters, Request};
use scsi::{Command, Sense, Unit};

use super::{Context, Start, Step, Steps, Wish, steps};

pub(super) fn begin(command: &Command, context: &Context<'_>) -> Result<Start, Sense> {
    let unit = context.unit;
    match command {
        Command::LogSense { request, allocation } => sense(request, *allocation, context),
        Command::LogSelect { length: 0, .. }
        | Command::SendDiagnostic { test: SelfTest::None, length: 0 } => steps([]),
        Command::LogSelect { length, .. } | Command::SendDiagnostic { test: SelfTest::None, length } => {
            Ok(Start::Collect(*length))
        }
        Command::LogReset => {
            context.lun.stats.log.set(Counters::default());
            context.lun.state.nexuses.borrow_mut().tell_others(context.nexus, Sense::LOG_CHANGED);
            steps([])
        }
        // The first and the last block are read.
        Command::SendDiagnostic { .. } => {
            let last = unit.blocks.saturating_sub(1);
            steps([0, last].map(|lba| Step::Test(BlockRange::new(lba, 1))))
        }
        Command::ReportIdentifying { kind, allocation } => {
            let mut data = identifying::report(*kind, &context.lun.unit.kept().identifying);
            data.truncate(*allocation as usize);
            Ok(Start::Data(data))
        }
        Command::SetIdentifying { kind, length: 0 } => steps([set(*kind, &[])]),
        Command::SetIdentifying { length, .. } => Ok(Start::Collect(*length)),
        _ => Err(Sense::INVALID_OPCODE),
    }
}

fn set(kind: Kind, list: &[u8]) -> Step {
    Step::Alter(Box::new(Wish::Identifying(kind, list.to_vec())))
}

fn sense(request: &Request, allocation: u32, context: &Context<'_>) -> Result<Start, Sense> {
    let (unit, allocation) = (context.unit, allocation as usize);
    let mut data = match log::is_of_medium(request, unit)? {
        true => log::provisioning(request, context.lun.config.resources().unwrap_or_default(), unit)?,
        false => log::sense(request, &context.lun.stats.log.get(), unit)?,
    };
    data.truncate(allocation);
    Ok(Start::Data(data))
}

/// The parameter list is in.
pub(super) fn collected(command: &Command, list: &[u8], unit: &Unit) -> Result<Steps, Sense> {
    match command {
        Command::LogSelect { page, subpage, .. } => log::select(*page, *subpage, list, unit)?,
        // The supported pages page asks for itself, and has no more bytes.
        Command::SendDiagnostic { .. } if list.len() < 4 => return Err(Sense::PARAMETER_LENGTH),
        Command::SendDiagnostic { .. } => {
            if let Some(at) = list.iter().position(|byte| *byte != 0) {
                return Err(Sense::invalid_parameter_byte(u16::try_from(at).unwrap_or(u16::MAX)));
            }
        }
        Command::SetIdentifying { kind, .. } => return Ok([set(*kind, list)].into()),
        _ => return Err(Sense::INTERNAL_FAILURE),
    }
    Ok(Steps::default())
}
