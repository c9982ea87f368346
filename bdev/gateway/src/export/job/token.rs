//! POPULATE TOKEN and WRITE USING TOKEN.

use std::collections::VecDeque;

use scsi::copy::token::{self, Delete, Populate, Range, Source, WriteUsing};
use scsi::copy::{CopyState, Origin};
use scsi::reservation::Nexus;
use scsi::{Command, Sense};

use super::super::node::{Node, Place};
use super::super::state::Span;
use super::copy::{self, Copying, Ending, Record, Run};
use super::{Context, Start, Step, Steps, steps};
use crate::auth;

pub(super) fn begin(command: &Command) -> Result<Start, Sense> {
    match command {
        Command::PopulateToken { length: 0, .. } | Command::WriteUsingToken { length: 0, .. } => steps([]),
        Command::PopulateToken { length, .. } | Command::WriteUsingToken { length, .. } => {
            if *length > 4 * token::LIST_LEN_MAX {
                return Err(Sense::PARAMETER_LENGTH);
            }
            Ok(Start::Collect(*length))
        }
        _ => Err(Sense::INVALID_OPCODE),
    }
}

pub(super) fn collected(command: &Command, list: &[u8], context: &Context<'_>) -> Result<Steps, Sense> {
    match command {
        Command::PopulateToken { list: id, .. } => {
            let populate = token::populate(list, context.unit)?;
            let record = Record::new(Origin::PopulateToken, populate.immediate, context.unit.block_size);
            record.keep(*id, context)?;
            Ok([Step::Populate(Box::new(Populating { populate, record }))].into())
        }
        Command::WriteUsingToken { list: id, .. } => {
            let write = token::write_using(list, context.unit)?;
            write_using(*id, &write, context)
        }
        _ => Err(Sense::INTERNAL_FAILURE),
    }
}

/// A token in the making: it is made when nobody writes its blocks.
pub(in crate::export) struct Populating {
    populate: Populate,
    record: Record,
}

impl core::fmt::Debug for Populating {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?}", self.populate)
    }
}

impl Populating {
    /// What is to be quiet: from the first block to the last.
    pub(super) fn span(&self) -> Span {
        let ranges = || self.populate.ranges.iter().filter(|range| range.blocks > 0);
        let first = ranges().map(|range| range.lba).min().unwrap_or(0);
        let end = ranges().map(|range| range.lba + u64::from(range.blocks)).max().unwrap_or(first);
        Span { lba: first, blocks: end - first }
    }

    /// Makes the token.
    ///
    /// # Errors
    /// The system has no random source.
    pub(in crate::export) fn make(
        &self,
        node: &Node,
        (place, maker): (&Place, Option<&Nexus>),
        now: engine::Instant,
    ) -> Result<(), Sense> {
        let secret = auth::secret().map_err(|_| Sense::INTERNAL_FAILURE)?;
        let token = node.tokens.borrow_mut().create((place, maker), &self.populate, &secret, now);
        let blocks: u64 = self.populate.ranges.iter().map(|range| u64::from(range.blocks)).sum();
        self.record.change(|status| {
            status.bytes = blocks * u64::from(status.block_size);
            status.token = Some(token);
            status.state = CopyState::Done;
        });
        Ok(())
    }
}

/// Bytes that follow each other.
#[derive(Clone, Copy)]
struct Extent {
    at: u64,
    len: u64,
}

fn extents(ranges: &[Range], block_size: u32) -> VecDeque<Extent> {
    let size = u64::from(block_size);
    let one = |range: &Range| Extent { at: range.lba * size, len: u64::from(range.blocks) * size };
    ranges.iter().filter(|range| range.blocks > 0).map(one).collect()
}

/// Leaves bytes out at the beginning; false when there are no more than those.
fn skip(extents: &mut VecDeque<Extent>, mut bytes: u64) -> bool {
    while let Some(first) = extents.front_mut() {
        if bytes < first.len {
            first.at += bytes;
            first.len -= bytes;
            return true;
        }
        bytes -= first.len;
        extents.pop_front();
    }
    false
}

fn write_using(id: u32, write: &WriteUsing, context: &Context<'_>) -> Result<Steps, Sense> {
    let size = context.unit.block_size;
    let destination = Place { number: context.number, lun: context.lun.clone() };
    let wanted = extents(&write.ranges, size);
    let (runs, end) = match &write.source {
        Source::Zeroes => {
            let zeroes = |extent: &Extent| Run {
                source: copy::Source::Zeroes,
                from: 0,
                destination: destination.clone(),
                to: extent.at,
                left: extent.len,
            };
            (wanted.iter().map(zeroes).collect(), CopyState::Done.into())
        }
        Source::Token(token) => {
            let meaning = context.node.tokens.borrow_mut().find(token, context.now)?;
            // It is the same LUN as it was, and its medium is there.
            if !context.node.has(&meaning.place) || !meaning.may_be_read(context.reserver, context.mask) {
                return Err(Sense::TOKEN_REVOKED);
            }
            if meaning.place.lun.unit.medium.get().refusal().is_some() {
                return Err(Sense::COPY_TARGET_UNREACHABLE);
            }
            let source_size = meaning.place.lun.config.bdev.geometry().block_size;
            let mut available = extents(&meaning.ranges, source_size);
            let offset = write.offset.saturating_mul(u64::from(size));
            if !skip(&mut available, offset) {
                return Err(Sense::invalid_parameter_byte(8));
            }
            let source = copy::Source::Watched(meaning.place, meaning.watched);
            let (runs, state) = pair(&source, available, &destination, wanted, u64::from(size));
            let spent = (write.delete == Delete::Yes).then(|| (context.node.tokens.clone(), token.clone()));
            (runs, Ending { state, spent })
        }
    };
    let record = Record::new(Origin::WriteUsingToken, write.immediate, size);
    record.keep(id, context)?;
    Ok(Copying::begin(runs, record, end).into_iter().collect())
}

/// What goes where: as much as there is. A block of the destination that the source does not fill ends with zeroes.
fn pair(
    source: &copy::Source,
    mut available: VecDeque<Extent>,
    destination: &Place,
    mut wanted: VecDeque<Extent>,
    size: u64,
) -> (VecDeque<Run>, CopyState) {
    let mut runs = VecDeque::new();
    let run = |source: &copy::Source, from: u64, to: u64, left: u64| Run {
        source: source.clone(),
        from,
        destination: destination.clone(),
        to,
        left,
    };
    let mut to = None;
    while let (Some(from), Some(into)) = (available.front_mut(), wanted.front_mut()) {
        let len = from.len.min(into.len);
        runs.push_back(run(source, from.at, into.at, len));
        to = Some(into.at + len);
        (from.at, from.len) = (from.at + len, from.len - len);
        (into.at, into.len) = (into.at + len, into.len - len);
        let (spent, filled) = (from.len == 0, into.len == 0);
        if spent {
            available.pop_front();
        }
        if filled {
            wanted.pop_front();
        }
    }
    if let Some(end) = to.filter(|end| !end.is_multiple_of(size)) {
        let block = end - end % size;
        runs.push_front(run(&copy::Source::Zeroes, 0, block, size));
    }
    (runs, if wanted.is_empty() { CopyState::Done } else { CopyState::Partial })
}
