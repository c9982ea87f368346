//! Transfers of more than a frame holds: the device below moves a frame at a time.

use std::cell::RefCell;
use std::collections::VecDeque;

use bdev::{BlockRange, Durability, Op};
use engine::{Buf, BufMut};
use scsi::Sense;

use super::{After, Step};
use crate::payload::{FRAME, Payload, PayloadMut};

/// Blocks of a full frame.
pub(super) fn frame_blocks(block_size: u32) -> u32 {
    u32::try_from(FRAME).unwrap_or(u32::MAX) / block_size
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

/// Blocks of which some are looked at at a time: as many as a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::export) struct Walk {
    /// Those that are left.
    range: BlockRange,
    max: u32,
}

impl Walk {
    /// A frame at a time.
    pub(super) fn new(range: BlockRange, block_size: u32) -> Self {
        Self { range, max: frame_blocks(block_size) }
    }

    /// Blocks that fit in a frame.
    pub(in crate::export) fn short(range: BlockRange) -> Self {
        Self { range, max: range.blocks }
    }

    /// The blocks that are next.
    pub(super) fn piece(&self) -> BlockRange {
        BlockRange::new(self.range.lba, self.range.blocks.min(self.max))
    }

    /// What is left after those.
    pub(super) fn rest(self) -> Option<Self> {
        let piece = self.piece();
        let range = BlockRange::new(piece.end(), self.range.blocks - piece.blocks);
        (range.blocks > 0).then_some(Self { range, ..self })
    }
}

/// A frame of a command's data, and the blocks that it is about.
#[derive(Debug)]
pub(in crate::export) struct Piece {
    pub(super) range: BlockRange,
    pub(super) data: Buf,
    /// Which byte of the command's data is its first.
    pub(super) offset: u64,
}

/// A command's data, frame by frame.
pub(super) fn pieces_of(range: BlockRange, data: &Payload, block_size: u32) -> impl Iterator<Item = Piece> {
    let ranges = pieces(range, frame_blocks(block_size));
    ranges.zip(data.frames()).map(move |(piece, frame)| Piece {
        range: piece,
        data: frame.clone(),
        offset: (piece.lba - range.lba) * u64::from(block_size),
    })
}

/// READ: what was read so far.
#[derive(Debug)]
pub(in crate::export) struct Reading {
    range: BlockRange,
    block_size: u32,
    /// Frames to read into, the last one first.
    room: RefCell<Vec<BufMut>>,
    done: Vec<Buf>,
}

impl Reading {
    pub(super) fn new(range: BlockRange, block_size: u32) -> Box<Self> {
        Box::new(Self { range, block_size, room: RefCell::default(), done: Vec::new() })
    }

    pub(super) fn range(&self) -> BlockRange {
        self.range
    }

    /// Bytes in all.
    pub(in crate::export) fn len(&self) -> usize {
        self.range.blocks as usize * self.block_size as usize
    }

    /// True once it has its frames.
    pub(in crate::export) fn has_room(&self) -> bool {
        !self.done.is_empty() || !self.room.borrow().is_empty()
    }

    /// Frames for all of it.
    pub(in crate::export) fn take_room(&self, room: PayloadMut) {
        *self.room.borrow_mut() = room.into_frames().rev().collect();
    }

    pub(super) fn op(&self) -> Option<Op> {
        let range = pieces(self.range, frame_blocks(self.block_size)).nth(self.done.len())?;
        let into = self.room.borrow_mut().pop()?;
        Some(Op::Read { range, into })
    }

    pub(super) fn on_read(mut self: Box<Self>, frame: BufMut) -> After {
        self.done.push(frame.freeze());
        if !self.room.borrow().is_empty() {
            return After::Again(Step::ReadLong(self));
        }
        Payload::of(self.done).map_or(After::Fail(Sense::INTERNAL_FAILURE), After::Data)
    }
}

/// ORWRITE: alone at its blocks until the last of them is written.
#[derive(Debug)]
pub(in crate::export) struct OrWrite {
    range: BlockRange,
    /// What is still to be done.
    pieces: VecDeque<Piece>,
    /// Of the first of them.
    stage: OrStage,
    durability: Durability,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OrStage {
    Reading,
    /// The piece's data are what was read, with their own bits set.
    Writing,
}

impl OrWrite {
    pub(super) fn new(range: BlockRange, pieces: VecDeque<Piece>, durability: Durability) -> Box<Self> {
        Box::new(Self { range, pieces, stage: OrStage::Reading, durability })
    }

    pub(super) fn range(&self) -> BlockRange {
        self.range
    }

    pub(super) fn op(&self, frame: impl FnOnce(BlockRange) -> Option<BufMut>) -> Option<Op> {
        let Piece { range, data, .. } = self.pieces.front()?;
        Some(match self.stage {
            OrStage::Reading => Op::Read { range: *range, into: frame(*range)? },
            OrStage::Writing => Op::Write { range: *range, from: data.clone(), durability: self.durability },
        })
    }

    /// The blocks that its I/O changes.
    pub(super) fn changes(&self) -> Option<BlockRange> {
        let writes = self.stage == OrStage::Writing;
        self.pieces.front().filter(|_| writes).map(|piece| piece.range)
    }

    /// What was read goes into the command's own data, so that the frame is there for the next piece.
    pub(super) fn finish(mut self: Box<Self>, op: Op, scratch: &mut Option<BufMut>) -> After {
        let Some(piece) = self.pieces.pop_front() else { return After::Fail(Sense::INTERNAL_FAILURE) };
        self.stage = match op {
            Op::Read { into, .. } => {
                let Ok(mut data) = piece.data.try_unique() else {
                    return After::Fail(Sense::INTERNAL_FAILURE);
                };
                for (byte, bits) in data.iter_mut().zip(into.iter()) {
                    *byte |= bits;
                }
                *scratch = Some(into);
                self.pieces.push_front(Piece { data: data.freeze(), ..piece });
                OrStage::Writing
            }
            _ => OrStage::Reading,
        };
        if self.pieces.is_empty() { After::Done } else { After::Again(Step::Or(self)) }
    }
}
