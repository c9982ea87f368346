//! LOG SENSE, LOG SELECT, diagnostics and identifying information.

use std::collections::VecDeque;

use bdev::{Backing, BlockRange, BlockStatus, Capabilities};
use scsi::command::SelfTest;
use scsi::identifying::{self, Kind};
use scsi::log::{self, Counters, Request};
use scsi::{Command, Sense, Unit};

use super::step::After;
use super::{Context, Start, Step, Wish, steps};

/// The logical block provisioning page in the making: blocks that were found to be backed, and where to look next.
#[derive(Debug)]
pub(in crate::export) struct Usage {
    request: Request,
    allocation: usize,
    unit: Unit,
    at: u64,
    mapped: u64,
}

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
    if log::is_of_medium(request, unit)? {
        let (request, unit) = (*request, unit.clone());
        return steps([Step::Use(Box::new(Usage { request, allocation, unit, at: 0, mapped: 0 }))]);
    }
    let mut data = log::sense(request, &context.lun.stats.log.get(), unit)?;
    data.truncate(allocation);
    Ok(Start::Data(data))
}

/// The parameter list is in.
pub(super) fn collected(command: &Command, list: &[u8], unit: &Unit) -> Result<VecDeque<Step>, Sense> {
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
    Ok(VecDeque::new())
}

impl Usage {
    /// The blocks that have not been looked at.
    pub(super) fn range(&self) -> BlockRange {
        let blocks = u32::try_from(self.unit.blocks - self.at).unwrap_or(u32::MAX);
        BlockRange::new(self.at, blocks)
    }

    pub(super) fn on_found(mut self: Box<Self>, found: Option<BlockStatus>) -> After {
        let Some(found) = found.filter(|found| found.blocks > 0) else {
            return After::Fail(Sense::INTERNAL_FAILURE);
        };
        if found.backing == Backing::Allocated {
            self.mapped += u64::from(found.blocks);
        }
        self.at += u64::from(found.blocks);
        if self.at < self.unit.blocks {
            return After::Again(Step::Use(self));
        }
        match log::provisioning(&self.request, self.mapped, &self.unit) {
            Ok(mut data) => {
                data.truncate(self.allocation);
                After::Bytes(data)
            }
            Err(sense) => After::Fail(sense),
        }
    }
}

/// Whether the device knows which blocks are backed.
pub(in crate::export) fn accounts(capabilities: Capabilities) -> scsi::Accounting {
    if capabilities.contains(Capabilities::BLOCK_STATUS) {
        scsi::Accounting::Known
    } else {
        scsi::Accounting::Unknown
    }
}
