//! Transfers of more than a frame holds: the device below moves a frame at a time.

use std::cell::RefCell;
use std::collections::VecDeque;

use bdev::{BlockRange, Durability, Op};
use engine::{Buf, BufMut, Pool};
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

    /// A frame whose read has not begun.
    pub(super) fn put_back(&self, frame: BufMut) {
        self.room.borrow_mut().push(frame);
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
    /// What is to be written of the first of them, once it was read.
    merged: Option<Buf>,
    durability: Durability,
}

impl OrWrite {
    pub(super) fn new(range: BlockRange, pieces: VecDeque<Piece>, durability: Durability) -> Box<Self> {
        Box::new(Self { range, pieces, merged: None, durability })
    }

    pub(super) fn range(&self) -> BlockRange {
        self.range
    }

    pub(super) fn op(&self, pool: &Pool) -> Option<Op> {
        let Piece { range, data, .. } = self.pieces.front()?;
        match &self.merged {
            Some(merged) => {
                Some(Op::Write { range: *range, from: merged.clone(), durability: self.durability })
            }
            None => Some(Op::Read { range: *range, into: pool.alloc(data.len())? }),
        }
    }

    /// The blocks that its I/O changes.
    pub(super) fn changes(&self) -> Option<BlockRange> {
        self.merged.as_ref().and(self.pieces.front()).map(|piece| piece.range)
    }

    pub(super) fn finish(mut self: Box<Self>, op: Op) -> After {
        match (op, self.pieces.front()) {
            (Op::Read { mut into, .. }, Some(piece)) => {
                for (byte, bits) in into.iter_mut().zip(piece.data.iter()) {
                    *byte |= bits;
                }
                self.merged = Some(into.freeze());
            }
            _ => {
                self.merged = None;
                self.pieces.pop_front();
            }
        }
        if self.pieces.is_empty() { After::Done } else { After::Again(Step::Or(self)) }
    }
}
