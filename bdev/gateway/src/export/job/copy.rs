//! EXTENDED COPY: bytes from one LUN of the target to another, a piece at a time.
//!
//! ```text
//! Reading --(whole blocks)--> Writing --(more)--> Reading
//!    '------(parts of blocks)--> Merging --> Writing
//! ```
//!
//! A piece that begins or ends inside a block of the destination is merged with what is there, alone at those blocks.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use bdev::{BlockRange, Completed, Durability, Op};
use engine::{Buf, BufMut, Pool};
use scsi::copy::{self, Amount, CopyList, CopyState, CopyStatus, Results, SEGMENT_LEN_MAX, Segment};
use scsi::{Command, Sense, reservation};

use super::super::lun::LunMode;
use super::super::node::Place;
use super::super::state::{Mode, Span};
use super::{After, Context, Start, Step, steps};

/// Bytes of a piece.
const PIECE: u64 = 256 << 10;

pub(super) fn begin(command: &Command, context: &Context<'_>) -> Result<Start, Sense> {
    match command {
        Command::ExtendedCopy { length: 0 } => steps([]),
        Command::ExtendedCopy { length } if *length > 4 * copy::LIST_LEN_MAX => Err(Sense::PARAMETER_LENGTH),
        Command::ExtendedCopy { length } => Ok(Start::Collect(*length)),
        Command::ReceiveCopyStatus { list, allocation } => {
            let status = context.lun.state.copies.borrow().status(context.nexus, *list);
            let mut data = copy::status(status.ok_or(Sense::invalid_cdb_byte(2))?);
            data.truncate(*allocation as usize);
            Ok(Start::Data(data))
        }
        _ => Err(Sense::INVALID_OPCODE),
    }
}

pub(super) fn collected(list: &[u8], context: &Context<'_>) -> Result<VecDeque<Step>, Sense> {
    let CopyList { results, cscds, segments } = copy::parse(list)?;
    let places: Vec<Option<Place>> = cscds.iter().map(|cscd| context.node.place_of(cscd)).collect();
    let runs = segments.iter().map(|segment| run(segment, &places, context));
    let runs = runs.collect::<Result<VecDeque<Run>, Sense>>()?;
    let record = Record::new();
    if let Results::Kept(list) = results {
        context.lun.state.copies.borrow_mut().keep(context.nexus, list, record.0.clone());
    }
    let copying = Box::new(Copying { runs, record, stage: Stage::Reading });
    Ok(copying.next().into_iter().collect())
}

/// Bytes that follow each other in a source and in a destination.
#[derive(Clone)]
struct Run {
    source: Place,
    from: u64,
    destination: Place,
    to: u64,
    left: u64,
}

/// A segment between places that serve this initiator.
fn run(segment: &Segment, places: &[Option<Place>], context: &Context<'_>) -> Result<Run, Sense> {
    let place = |index: usize| {
        places.get(index).and_then(Option::as_ref).cloned().ok_or(Sense::COPY_TARGET_UNREACHABLE)
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
    may(&source, 0x88, context)?;
    may(&destination, 0x8a, context)?;
    Ok(Run { source, from, destination, to, left })
}

/// Whether the initiator might send the place this read or write itself.
fn may(place: &Place, opcode: u8, context: &Context<'_>) -> Result<(), Sense> {
    let lun = &place.lun;
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    let demand = reservation::demand(&cdb);
    let reserved = context.reserver.is_some_and(|nexus| lun.unit.admit(nexus, demand).is_err());
    let protected = opcode == 0x8a && lun.is_write_protected();
    if reserved || protected || lun.state.medium.get().refusal().is_some() {
        return Err(Sense::COPY_TARGET_UNREACHABLE);
    }
    Ok(())
}

/// What is known of a copy, shared with whoever asks; a copy that is dropped before its end has failed.
struct Record(Rc<Cell<CopyStatus>>);

impl Record {
    fn new() -> Self {
        let status = CopyStatus { state: CopyState::InProgress, segments: 0, bytes: 0 };
        Self(Rc::new(Cell::new(status)))
    }

    fn change(&self, change: impl FnOnce(&mut CopyStatus)) {
        let mut status = self.0.get();
        change(&mut status);
        self.0.set(status);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.change(|status| {
            if status.state == CopyState::InProgress {
                status.state = CopyState::Failed;
            }
        });
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

    fn source_range(&self) -> BlockRange {
        around(&self.source, self.from, self.piece())
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
    /// The next step, or `None` and a record of the end.
    fn next(mut self: Box<Self>) -> Option<Step> {
        while self.runs.front().is_some_and(|run| run.left == 0) {
            self.runs.pop_front();
            self.record.change(|status| status.segments = status.segments.saturating_add(1));
        }
        if self.runs.is_empty() {
            self.record.change(|status| status.state = CopyState::Done);
            return None;
        }
        self.stage = Stage::Reading;
        Some(Step::Copy(self))
    }

    /// Where its I/O goes.
    pub(super) fn place(&self) -> Option<&Place> {
        let run = self.runs.front()?;
        Some(match self.stage {
            Stage::Reading => &run.source,
            Stage::Merging(_) | Stage::Writing(_) => &run.destination,
        })
    }

    pub(super) fn hold(&self) -> Option<(Span, Mode)> {
        let run = self.runs.front()?;
        Some(match self.stage {
            Stage::Reading => (run.source_range().into(), Mode::Shared),
            Stage::Merging(_) => (run.destination_range().into(), Mode::Exclusive),
            Stage::Writing(_) => (run.destination_range().into(), Mode::Shared),
        })
    }

    pub(super) fn op(&self, pool: &Pool) -> Option<Op> {
        let run = self.runs.front()?;
        let read = |range: BlockRange, size: usize| {
            Some(Op::Read { range, into: pool.alloc(range.blocks as usize * size)? })
        };
        match &self.stage {
            Stage::Reading => read(run.source_range(), Run::size(&run.source)),
            Stage::Merging(_) => read(run.destination_range(), Run::size(&run.destination)),
            Stage::Writing(from) => {
                let durability = match run.destination.lun.config.mode {
                    LunMode::SyncDurable => Durability::Durable,
                    LunMode::SyncCached => Durability::Accepted,
                };
                Some(Op::Write { range: run.destination_range(), from: from.clone(), durability })
            }
        }
    }

    pub(super) fn finish(mut self: Box<Self>, completed: Completed) -> After {
        if completed.result.is_err() {
            return After::Fail(Sense::COPY_DEVICE_FAILURE);
        }
        let Some(run) = self.runs.front_mut() else { return After::Fail(Sense::INTERNAL_FAILURE) };
        let piece = run.piece();
        match (std::mem::replace(&mut self.stage, Stage::Reading), completed.op) {
            (Stage::Reading, Op::Read { into, .. }) => {
                let start = usize::try_from(run.from).unwrap_or(0) % Run::size(&run.source);
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
            (Stage::Writing(_), _) => {
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
