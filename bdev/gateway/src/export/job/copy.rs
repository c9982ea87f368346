//! Copies: bytes from one LUN of the target to another, a piece at a time, for EXTENDED COPY and WRITE USING TOKEN.
//!
//! ```text
//! Reading --(whole blocks)--> Writing --(more)--> Reading
//!    '------(parts of blocks)--> Merging --> Writing
//! ```
//!
//! A piece that begins or ends inside a block of the destination is merged with what is there, alone at those blocks. Zeroes are
//! written without a read, and to a thick LUN as data.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use bdev::{BlockRange, Completed, Durability, Op};
use engine::{Buf, BufMut, Pool};
use scsi::copy::token::{self, Token};
use scsi::copy::{
    self, Amount, CopyList, CopyState, CopyStatus, Origin, Results, SEGMENT_LEN_MAX, Segment, THIS_UNIT,
};
use scsi::reservation::Nexus;
use scsi::{Command, Immediate, Sense, SenseFormat, reservation};

use super::super::lun::LunMode;
use super::super::node::{Node, Place};
use super::super::state::{Mode, Shared, Span};
use super::super::tokens::{Tokens, Watched};
use super::{After, Context, Start, Step, Steps, steps};
use crate::access::LunMask;

/// Bytes of a piece.
const PIECE: u64 = 256 << 10;
/// READ(16),
const READ: u8 = 0x88;
/// and WRITE(16): what an initiator would have to send itself.
const WRITE: u8 = 0x8a;

pub(super) fn begin(command: &Command, context: &Context<'_>) -> Result<Start, Sense> {
    match command {
        Command::ExtendedCopy { length: 0 } | Command::ExtendedCopyLid4 { length: 0 } => steps([]),
        Command::ExtendedCopy { length } | Command::ExtendedCopyLid4 { length } => {
            if *length > 4 * copy::LIST_LEN_MAX {
                return Err(Sense::PARAMETER_LENGTH);
            }
            Ok(Start::Collect(*length))
        }
        Command::CopyOperationAbort { list } => {
            let known = context.lun.unit.copies.borrow().terminate(context.nexus, *list);
            if known { steps([]) } else { Err(Sense::invalid_cdb_byte(2)) }
        }
        Command::ReceiveCopyStatus { list, allocation } => {
            answer(u32::from(*list), *allocation, context, |status, _| status.lid1())
        }
        Command::ReceiveCopyStatusLid4 { list, allocation } => {
            answer(*list, *allocation, context, CopyStatus::lid4)
        }
        Command::ReceiveTokenInformation { list, allocation } => {
            answer(*list, *allocation, context, CopyStatus::token_information)
        }
        _ => Err(Sense::INVALID_OPCODE),
    }
}

/// What is known of a copy, as `encode` says it.
fn answer(
    list: u32,
    allocation: u32,
    context: &Context<'_>,
    encode: impl FnOnce(&CopyStatus, SenseFormat) -> Vec<u8>,
) -> Result<Start, Sense> {
    let status = context.lun.unit.copies.borrow().status(context.nexus, list);
    let mut data = encode(&status.ok_or(Sense::invalid_cdb_byte(2))?, context.unit.sense_format());
    data.truncate(allocation as usize);
    Ok(Start::Data(data))
}

pub(super) fn collected(command: &Command, list: &[u8], context: &Context<'_>) -> Result<Steps, Sense> {
    let (parsed, origin) = match command {
        Command::ExtendedCopyLid4 { .. } => (copy::parse_lid4(list)?, Origin::Lid4),
        _ => (copy::parse(list)?, Origin::Lid1),
    };
    let CopyList { results, immediate, cscds, segments } = parsed;
    let places: Vec<Option<Place>> =
        cscds.iter().map(|cscd| context.node.place_of(cscd, context.mask)).collect();
    let runs = segments.iter().map(|segment| run(segment, &places, context));
    let runs = runs.collect::<Result<VecDeque<Run>, Sense>>()?;
    let record = Record::new(origin, immediate, context.unit.block_size);
    if let Results::Kept(list) = results {
        record.keep(list, context)?;
    }
    Ok(Copying::begin(runs, record, CopyState::Done.into()).into_iter().collect())
}

/// Looks at a copy that another node is to carry out, which does not know what the initiator may see: every unit that it is between
/// must show here, and the one that a token of its own stands for.
///
/// # Errors
/// One does not, or the list cannot be read.
pub(in crate::export) fn check_shown(
    command: &Command,
    list: &[u8],
    node: &Node,
    (initiator, mask): (Option<&Nexus>, &LunMask),
) -> Result<(), Sense> {
    let CopyList { cscds, segments, .. } = match command {
        // No list, nothing to copy.
        Command::ExtendedCopy { length: 0 } | Command::ExtendedCopyLid4 { length: 0 } => return Ok(()),
        Command::ExtendedCopy { .. } => copy::parse(list)?,
        Command::ExtendedCopyLid4 { .. } => copy::parse_lid4(list)?,
        Command::WriteUsingToken { .. } => {
            let named = token::named(list).filter(|token| is_own(token, initiator));
            let shown = named.is_none_or(|token| node.shows(mask, |unit| token.is_of(unit)));
            return if shown { Ok(()) } else { Err(Sense::TOKEN_REVOKED) };
        }
        _ => return Ok(()),
    };
    let shows = |index: usize| {
        index == THIS_UNIT || cscds.get(index).is_some_and(|cscd| node.place_of(cscd, mask).is_some())
    };
    let all = segments.iter().all(|segment| shows(segment.source.cscd) && shows(segment.destination.cscd));
    if all { Ok(()) } else { Err(Sense::COPY_TARGET_UNREACHABLE) }
}

/// Whether an initiator has asked for a token itself. One that it was handed is the right to read.
fn is_own(token: &Token, initiator: Option<&Nexus>) -> bool {
    initiator.is_some_and(|nexus| token.is_made_by(nexus.initiator.name()))
}

/// Bytes that follow each other in a source and in a destination.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) source: Source,
    /// Byte of the source.
    pub(super) from: u64,
    pub(super) destination: Place,
    /// Byte of the destination.
    pub(super) to: u64,
    /// Bytes to go.
    pub(super) left: u64,
}

/// Where bytes come from.
#[derive(Clone)]
pub(super) enum Source {
    Place(Place),
    /// A place, as long as nobody writes there.
    Watched(Place, Rc<Watched>),
    Zeroes,
}

impl Source {
    fn place(&self) -> Option<&Place> {
        match self {
            Self::Place(place) | Self::Watched(place, _) => Some(place),
            Self::Zeroes => None,
        }
    }

    fn check(&self) -> Result<(), Sense> {
        if let Self::Watched(_, watched) = self { watched.check() } else { Ok(()) }
    }
}

/// A segment between places that serve this initiator.
fn run(segment: &Segment, places: &[Option<Place>], context: &Context<'_>) -> Result<Run, Sense> {
    let place = |index: usize| {
        let this = || Place { number: context.number, lun: context.lun.clone() };
        let named = places.get(index).and_then(Option::as_ref).cloned();
        named.or_else(|| (index == THIS_UNIT).then(this)).ok_or(Sense::COPY_TARGET_UNREACHABLE)
    };
    let (source, destination) = (place(segment.source.cscd)?, place(segment.destination.cscd)?);
    let size = |place: &Place| u64::from(place.lun.config.bdev.geometry().block_size);
    let byte = |place: &Place, start: copy::Start| {
        start.lba.checked_mul(size(place)).and_then(|at| at.checked_add(u64::from(start.offset)))
    };
    let left = match segment.amount {
        Amount::SourceBlocks(blocks) => u64::from(blocks) * size(&source),
        Amount::DestinationBlocks(blocks) => u64::from(blocks) * size(&destination),
        Amount::Bytes(bytes) => u64::from(bytes),
    };
    if left > u64::from(SEGMENT_LEN_MAX) {
        return Err(Sense::COPY_OUT_OF_RANGE);
    }
    let fits = |place: &Place, start: copy::Start| {
        byte(place, start)
            .filter(|at| {
                at.checked_add(left).is_some_and(|end| end <= place.lun.config.bdev.geometry().bytes())
            })
            .ok_or(Sense::COPY_OUT_OF_RANGE)
    };
    let (from, to) = (fits(&source, segment.source)?, fits(&destination, segment.destination)?);
    may(&source, READ, context.reserver)?;
    may(&destination, WRITE, context.reserver)?;
    Ok(Run { source: Source::Place(source), from, destination, to, left })
}

/// Whether the initiator might send the place this read or write itself.
fn may(place: &Place, opcode: u8, initiator: Option<&Nexus>) -> Result<(), Sense> {
    let lun = &place.lun;
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    let demand = reservation::demand(&cdb);
    let reserved = initiator.is_some_and(|nexus| lun.unit.admit(nexus, demand).is_err());
    let protected = opcode == WRITE && lun.is_write_protected();
    if reserved || protected || lun.unit.medium.get().refusal().is_some() {
        return Err(Sense::COPY_TARGET_UNREACHABLE);
    }
    Ok(())
}

/// What is known of a copy, shared with whoever asks; a copy that is dropped before its end was terminated.
pub(super) struct Record(Shared);

impl Record {
    pub(super) fn new(origin: Origin, immediate: Immediate, block_size: u32) -> Self {
        let state = if immediate == Immediate::Yes { CopyState::Background } else { CopyState::Foreground };
        Self(Rc::new(RefCell::new(CopyStatus::new(origin, state, block_size))))
    }

    /// Remembers it for the nexus, under its list identifier.
    pub(super) fn keep(&self, list: u32, context: &Context<'_>) -> Result<(), Sense> {
        context.lun.unit.copies.borrow_mut().keep(context.nexus, list, self.0.clone())
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut CopyStatus)) {
        change(&mut self.0.borrow_mut());
    }

    fn state(&self) -> CopyState {
        self.0.borrow().state
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.change(|status| {
            if status.state.is_in_progress() {
                status.state = CopyState::Terminated;
            }
        });
    }
}

/// How a copy ends if all goes well.
pub(super) struct Ending {
    pub(super) state: CopyState,
    /// A token that is not needed any more then (DEL_TKN): one whose copy was not made is there for another try.
    pub(super) spent: Option<(Rc<RefCell<Tokens>>, Token)>,
}

impl From<CopyState> for Ending {
    fn from(state: CopyState) -> Self {
        Self { state, spent: None }
    }
}

enum Stage {
    Reading,
    /// The piece's bytes, read, and what is around them at the destination is not yet.
    Merging(Piece),
    Writing(Buf),
}

/// A piece that was read: a frame, and where the piece is in it.
struct Piece {
    frame: BufMut,
    start: usize,
    len: usize,
}

/// See the module.
pub(in crate::export) struct Copying {
    runs: VecDeque<Run>,
    record: Record,
    stage: Stage,
    /// What is around the piece goes there: taken with the frame of the piece, and not while that is held.
    around: RefCell<Option<BufMut>>,
    end: Ending,
}

impl core::fmt::Debug for Copying {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "a copy of {} runs", self.runs.len())
    }
}

/// The blocks around `len` bytes.
fn around(place: &Place, at: u64, len: u64) -> BlockRange {
    let size = u64::from(place.lun.config.bdev.geometry().block_size);
    let (first, end) = (at / size, (at + len).div_ceil(size));
    BlockRange::new(first, u32::try_from(end - first).expect("a piece is short"))
}

impl Run {
    fn piece(&self) -> u64 {
        self.left.min(PIECE)
    }

    fn source_range(&self) -> Option<BlockRange> {
        Some(around(self.source.place()?, self.from, self.piece()))
    }

    fn destination_range(&self) -> BlockRange {
        around(&self.destination, self.to, self.piece())
    }

    /// Whether the piece is whole blocks of the destination.
    fn is_whole(&self) -> bool {
        let size = u64::from(self.destination.lun.config.bdev.geometry().block_size);
        self.to.is_multiple_of(size) && self.piece().is_multiple_of(size)
    }

    fn size(place: &Place) -> usize {
        place.lun.config.bdev.geometry().block_size as usize
    }
}

impl Copying {
    /// The first step, or `None` and a record of the end.
    pub(super) fn begin(runs: VecDeque<Run>, record: Record, end: Ending) -> Option<Step> {
        Box::new(Self { runs, record, stage: Stage::Reading, around: RefCell::default(), end }).next()
    }

    /// Whether its command does not wait for it.
    pub(in crate::export) fn is_in_background(&self) -> bool {
        self.record.state() == CopyState::Background
    }

    /// The next step, or `None` and a record of the end.
    fn next(mut self: Box<Self>) -> Option<Step> {
        while self.runs.front().is_some_and(|run| run.left == 0) {
            self.runs.pop_front();
            self.record.change(|status| status.segments = status.segments.saturating_add(1));
        }
        if self.runs.is_empty() {
            let Ending { state, spent } = self.end;
            self.record.change(|status| status.state = state);
            if let Some((tokens, token)) = spent {
                tokens.borrow_mut().delete(&token);
            }
            return None;
        }
        self.stage = Stage::Reading;
        Some(Step::Copy(self))
    }

    /// Where its I/O goes.
    pub(super) fn place(&self) -> Option<&Place> {
        let run = self.runs.front()?;
        Some(match self.stage {
            Stage::Reading => run.source.place().unwrap_or(&run.destination),
            Stage::Merging(_) | Stage::Writing(_) => &run.destination,
        })
    }

    /// Whether it has a piece in its hands.
    pub(super) fn has_piece(&self) -> bool {
        matches!(self.stage, Stage::Merging(_) | Stage::Writing(_))
    }

    /// Whether any of what it has yet to copy is from such a place, or to one.
    pub(super) fn touches(&self, at: &dyn Fn(&Place) -> bool) -> bool {
        self.runs.iter().any(|run| at(&run.destination) || run.source.place().is_some_and(at))
    }

    /// Whether its initiator might do its next I/O itself: since the last one somebody may have reserved the unit, or protected it. What
    /// a token stands for is read for whoever has it.
    ///
    /// # Errors
    /// It might not: that is the end.
    pub(in crate::export) fn check(&self, initiator: Option<&Nexus>) -> Result<(), Sense> {
        let Some(run) = self.runs.front() else { return Ok(()) };
        let allowed = match (&self.stage, &run.source) {
            (Stage::Reading, Source::Place(place)) => may(place, READ, initiator),
            (Stage::Reading, Source::Watched(..)) => Ok(()),
            _ => may(&run.destination, WRITE, initiator),
        };
        allowed.inspect_err(|sense| self.record.change(|status| status.state = CopyState::Failed(*sense)))
    }

    pub(super) fn hold(&self) -> Option<(Span, Mode)> {
        let run = self.runs.front()?;
        Some(match self.stage {
            Stage::Reading => (run.source_range().unwrap_or(run.destination_range()).into(), Mode::Shared),
            Stage::Merging(_) => (run.destination_range().into(), Mode::Exclusive),
            Stage::Writing(_) => (run.destination_range().into(), Mode::Shared),
        })
    }

    /// The blocks of [`Copying::place`] that its I/O changes.
    pub(super) fn changes(&self) -> Option<BlockRange> {
        let run = self.runs.front()?;
        match (&self.stage, &run.source) {
            (Stage::Writing(_), _) | (Stage::Reading, Source::Zeroes) => Some(run.destination_range()),
            (Stage::Reading | Stage::Merging(_), _) => None,
        }
    }

    pub(super) fn op(&self, pool: &Pool) -> Option<Op> {
        let run = self.runs.front()?;
        let frame = |range: BlockRange, place: &Place| pool.alloc(range.blocks as usize * Run::size(place));
        let durability = match run.destination.lun.mode() {
            LunMode::SyncDurable => Durability::Durable,
            LunMode::SyncCached => Durability::Accepted,
        };
        match &self.stage {
            Stage::Reading => match (run.source.place(), run.source_range()) {
                (Some(place), Some(range)) => {
                    let into = frame(range, place)?;
                    if !run.is_whole() {
                        *self.around.borrow_mut() = Some(frame(run.destination_range(), &run.destination)?);
                    }
                    Some(Op::Read { range, into })
                }
                // What a thick LUN has zeroed by its device may lose its storage.
                _ if run.destination.lun.config.keeps_storage() => {
                    let range = run.destination_range();
                    let bytes = range.blocks as usize * Run::size(&run.destination);
                    Some(Op::Write { range, from: pool.alloc_zeroed(bytes)?.freeze(), durability })
                }
                _ => Some(Op::WriteZeroes { range: run.destination_range(), durability }),
            },
            Stage::Merging(_) => Some(Op::Read { range: run.destination_range(), into: self.around.take()? }),
            Stage::Writing(from) => {
                Some(Op::Write { range: run.destination_range(), from: from.clone(), durability })
            }
        }
    }

    /// The end, by an error.
    fn fail(&self, sense: Sense) -> After {
        self.record.change(|status| status.state = CopyState::Failed(sense));
        After::Fail(sense)
    }

    pub(super) fn finish(mut self: Box<Self>, completed: Completed) -> After {
        self.record.change(|status| status.operations = status.operations.wrapping_add(1));
        if completed.result.is_err() {
            return self.fail(Sense::COPY_DEVICE_FAILURE);
        }
        if !self.record.state().is_in_progress() {
            return After::Fail(Sense::TERMINATED);
        }
        let unchanged = self.runs.front().map_or(Ok(()), |run| run.source.check());
        if let (Stage::Reading, Err(sense)) = (&self.stage, unchanged) {
            return self.fail(sense);
        }
        let Some(run) = self.runs.front_mut() else { return After::Fail(Sense::INTERNAL_FAILURE) };
        let piece = run.piece();
        match (std::mem::replace(&mut self.stage, Stage::Reading), completed.op) {
            (Stage::Reading, Op::Read { into, .. }) => {
                let Some(place) = run.source.place() else { return After::Fail(Sense::INTERNAL_FAILURE) };
                let start = usize::try_from(run.from).unwrap_or(0) % Run::size(place);
                let len = usize::try_from(piece).expect("a piece is short");
                self.stage = if run.is_whole() {
                    Stage::Writing(into.freeze().slice(start..start + len))
                } else {
                    Stage::Merging(Piece { frame: into, start, len })
                };
                After::Next(Step::Copy(self))
            }
            (Stage::Merging(Piece { frame, start, len }), Op::Read { mut into, .. }) => {
                let at = usize::try_from(run.to).unwrap_or(0) % Run::size(&run.destination);
                into[at..at + len].copy_from_slice(&frame[start..start + len]);
                self.stage = Stage::Writing(into.freeze());
                After::Again(Step::Copy(self))
            }
            (Stage::Writing(_), _) | (Stage::Reading, Op::WriteZeroes { .. } | Op::Write { .. }) => {
                run.from += piece;
                run.to += piece;
                run.left -= piece;
                self.record.change(|status| status.bytes += piece);
                self.next().map_or(After::Done, After::Next)
            }
            _ => After::Fail(Sense::INTERNAL_FAILURE),
        }
    }
}
