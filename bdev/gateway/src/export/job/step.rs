//! What a command does one after the other: one I/O at a time, and what its end means.

use bdev::{BlockRange, BlockStatus, Completed, Durability, FenceKey, IoError, Op};
use engine::{Buf, BufMut, Pool};
use scsi::parameter::{LbaStatus, ProvisioningStatus, lba_status};
use scsi::reservation::{Nexus, Report};
use scsi::{ByteCheck, Sense};

use super::super::node::Place;
use super::super::state::{Mode, Span};
use super::Wish;
use super::copy::Copying;
use super::pieces::{OrWrite, Piece, Reading, Walk};
use super::provisioning::Same;
use super::reservation::ReserveOut;
use super::token::Populating;
use super::transfer::{compare, compare_each};
use crate::payload::Payload;
use crate::translate::Writing;

/// Something that a command does.
#[derive(Debug)]
pub(in crate::export) enum Step {
    /// Read for the initiator.
    Read(BlockRange),
    /// The same of more than a frame holds.
    ReadLong(Box<Reading>),
    /// Read to see whether the medium can.
    Examine(Walk),
    /// The same, as a self-test.
    Test(BlockRange),
    Write(BlockRange, Buf, Durability),
    /// Write, and read again: to compare with what was written, or to see whether the medium can.
    WriteAndVerify(Piece, ByteCheck),
    /// Write a block again and again.
    Same(Same),
    /// Write so that nobody sees a part of it.
    WriteAtomic(BlockRange, Buf, Durability),
    /// Read and compare with this.
    Compare(Piece),
    /// Read and compare each block with this one.
    CompareEach(Walk, Buf),
    CompareAndWrite(CompareAndWrite),
    /// Read, set these bits, and write.
    Or(Box<OrWrite>),
    Zero(BlockRange, Durability),
    Discard(BlockRange),
    Flush,
    Fence(FenceKey),
    /// Let the other node serve.
    HandOver,
    /// No I/O: PERSISTENT RESERVE OUT, which the session carries out.
    Reserve(Box<ReserveOut>),
    /// No I/O: another change of what the unit keeps, which the session carries out.
    Alter(Box<Wish>),
    /// No I/O: the data of PERSISTENT RESERVE IN, cut at the allocation length.
    Report(Report, u16),
    /// No I/O: the end, by somebody else's reservation.
    Conflict,
    /// Look what is behind the blocks.
    Status(LookUp),
    /// A piece of a copy, at LUNs of its own.
    Copy(Box<Copying>),
    /// No I/O: a token is made when nobody writes its blocks.
    Populate(Box<Populating>),
    /// Wait for the end of the sanitize operation.
    Sanitized,
}

/// COMPARE AND WRITE.
#[derive(Debug)]
pub(in crate::export) struct CompareAndWrite {
    pub(super) range: BlockRange,
    /// What the blocks must hold, and what to write.
    pub(super) both: Buf,
    pub(super) durability: Durability,
    pub(super) by: Comparer,
}

/// Who keeps a COMPARE AND WRITE atomic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::export) enum Comparer {
    /// The device.
    Device,
    /// The LUN: nobody else is at its blocks meanwhile.
    Lun,
}

/// GET LBA STATUS: runs found so far, and where to look next.
#[derive(Debug)]
pub(in crate::export) struct LookUp {
    pub(super) at: u64,
    pub(super) end: u64,
    pub(super) runs: Vec<LbaStatus>,
    /// Runs that the initiator has room for,
    pub(super) room: usize,
    /// and bytes.
    pub(super) allocation: usize,
}

/// What follows a step's I/O.
pub(in crate::export) enum After {
    /// The next step.
    Done,
    /// This one, at the same blocks.
    Again(Step),
    /// This one, at other blocks.
    Next(Step),
    /// The answer, from the medium.
    Data(Payload),
    /// The answer, in bytes.
    Bytes(Vec<u8>),
    /// The end.
    Fail(Sense),
    /// The end, by the device.
    FailIo(IoError, Writing),
}

impl Step {
    /// False for what the session does itself.
    pub(in crate::export) fn does_io(&self) -> bool {
        !matches!(
            self,
            Self::Reserve(_)
                | Self::Alter(_)
                | Self::Report(..)
                | Self::Conflict
                | Self::Populate(_)
                | Self::Sanitized
        )
    }

    /// The I/O; `None` when the pool has no frame now. What it reads goes to `scratch`, where there is one.
    pub(in crate::export) fn op(
        &self,
        pool: &Pool,
        scratch: &mut Option<BufMut>,
        block_size: u32,
    ) -> Option<Op> {
        let mut frame = |range: BlockRange| {
            let len = range.blocks as usize * block_size as usize;
            let mut frame = match scratch.take_if(|frame| frame.len() >= len) {
                Some(frame) => frame,
                None => pool.alloc(len)?,
            };
            frame.truncate(len);
            Some(frame)
        };
        let mut read = |range: BlockRange| Some(Op::Read { range, into: frame(range)? });
        match self {
            Self::Read(range) | Self::Test(range) | Self::Compare(Piece { range, .. }) => read(*range),
            Self::Examine(walk) | Self::CompareEach(walk, _) => read(walk.piece()),
            Self::ReadLong(reading) => reading.op(),
            Self::Or(or_write) => or_write.op(frame),
            Self::Write(range, from, durability) | Self::WriteAtomic(range, from, durability) => {
                Some(Op::Write { range: *range, from: from.clone(), durability: *durability })
            }
            Self::WriteAndVerify(Piece { range, data, .. }, _) => {
                Some(Op::Write { range: *range, from: data.clone(), durability: Durability::Durable })
            }
            Self::Same(same) => same.op(pool),
            Self::CompareAndWrite(CompareAndWrite { range, by: Comparer::Lun, .. }) => read(*range),
            Self::CompareAndWrite(CompareAndWrite { range, both, durability, .. }) => {
                Some(Op::CompareAndWrite { range: *range, both: both.clone(), durability: *durability })
            }
            Self::Zero(range, durability) => Some(Op::WriteZeroes { range: *range, durability: *durability }),
            Self::Discard(range) => Some(Op::Discard { range: *range }),
            Self::Flush => Some(Op::Flush),
            Self::Fence(key) => Some(Op::Fence { key: *key }),
            Self::HandOver => Some(Op::HandOver),
            Self::Status(LookUp { at, end, .. }) => {
                let blocks = u32::try_from(end - at).unwrap_or(u32::MAX);
                Some(Op::BlockStatus { range: BlockRange::new(*at, blocks), found: None })
            }
            Self::Copy(copying) => copying.op(pool),
            Self::Reserve(_)
            | Self::Alter(_)
            | Self::Report(..)
            | Self::Conflict
            | Self::Populate(_)
            | Self::Sanitized => None,
        }
    }

    /// Where its I/O goes, if not to the job's own LUN.
    pub(in crate::export) fn place(&self) -> Option<&Place> {
        if let Self::Copy(copying) = self { copying.place() } else { None }
    }

    /// Whether it is a copy whose frames were taken by the step before it.
    pub(in crate::export) fn goes_on(&self) -> bool {
        if let Self::Copy(copying) = self { copying.has_piece() } else { false }
    }

    /// Whether it copies from such a place, or to one, now or later.
    pub(in crate::export) fn touches(&self, at: &dyn Fn(&Place) -> bool) -> bool {
        if let Self::Copy(copying) = self { copying.touches(at) } else { false }
    }

    /// Whether the initiator may still have it done: see [`Copying::check`].
    ///
    /// # Errors
    /// It may not.
    pub(in crate::export) fn check(&self, initiator: Option<&Nexus>) -> Result<(), Sense> {
        if let Self::Copy(copying) = self { copying.check(initiator) } else { Ok(()) }
    }

    /// The blocks that it is at, and whether alone.
    pub(in crate::export) fn hold(&self) -> Option<(Span, Mode)> {
        let shared = |range: &BlockRange| Some((Span::from(*range), Mode::Shared));
        let exclusive = |range: &BlockRange| Some((Span::from(*range), Mode::Exclusive));
        match self {
            Self::CompareEach(walk, _) => shared(&walk.piece()),
            Self::Read(range)
            | Self::Test(range)
            | Self::Write(range, ..)
            | Self::Compare(Piece { range, .. })
            | Self::Zero(range, _)
            | Self::Discard(range)
            | Self::WriteAndVerify(Piece { range, .. }, ByteCheck::Medium)
            | Self::CompareAndWrite(CompareAndWrite { range, by: Comparer::Device, .. }) => shared(range),
            Self::Same(same) => shared(&same.piece()),
            Self::ReadLong(reading) => shared(&reading.range()),
            Self::Or(or_write) => exclusive(&or_write.range()),
            // Nobody else writes between its write and its comparison.
            Self::WriteAndVerify(Piece { range, .. }, _)
            | Self::WriteAtomic(range, ..)
            | Self::CompareAndWrite(CompareAndWrite { range, .. }) => exclusive(range),
            Self::Copy(copying) => copying.hold(),
            Self::Populate(populating) => Some((populating.span(), Mode::Exclusive)),
            // Nobody sees what it reads: a unit is ready, whoever is at its blocks.
            Self::Examine(_)
            | Self::Flush
            | Self::Fence(_)
            | Self::HandOver
            | Self::Reserve(_)
            | Self::Alter(_)
            | Self::Report(..)
            | Self::Conflict
            | Self::Status(_)
            | Self::Sanitized => None,
        }
    }

    /// The blocks that its I/O changes.
    pub(in crate::export) fn changes(&self) -> Option<BlockRange> {
        match self {
            Self::Write(range, ..)
            | Self::WriteAtomic(range, ..)
            | Self::WriteAndVerify(Piece { range, .. }, _)
            | Self::Zero(range, _)
            | Self::Discard(range)
            | Self::CompareAndWrite(CompareAndWrite { range, by: Comparer::Device, .. }) => Some(*range),
            Self::Same(same) => Some(same.piece()),
            Self::Or(or_write) => or_write.changes(),
            Self::Copy(copying) => copying.changes(),
            _ => None,
        }
    }

    fn writing(&self) -> Writing {
        match self {
            Self::Read(_)
            | Self::ReadLong(_)
            | Self::Examine(_)
            | Self::Test(_)
            | Self::Compare(..)
            | Self::CompareEach(..)
            | Self::Status(_)
            | Self::Report(..)
            | Self::Conflict
            | Self::Sanitized => Writing::No,
            _ => Writing::Yes,
        }
    }

    /// What the end of its I/O means. A frame that is needed no more is `scratch` again.
    pub(in crate::export) fn finish(self, completed: Completed, scratch: &mut Option<BufMut>) -> After {
        if let Self::Copy(copying) = self {
            return copying.finish(completed);
        }
        if let Err(error) = completed.result {
            if matches!(self, Self::HandOver) {
                return After::Fail(Sense::SET_TARGET_PORT_GROUPS_FAILED);
            }
            if matches!((&self, error), (Self::Test(_), IoError::Medium { .. } | IoError::Os(_))) {
                return After::Fail(Sense::SELF_TEST_FAILED);
            }
            return After::FailIo(error, self.writing());
        }
        match (self, completed.op) {
            (Self::Read(_), Op::Read { into, .. }) => After::Data(into.freeze().into()),
            (Self::ReadLong(reading), Op::Read { into, .. }) => reading.on_read(into),
            (Self::WriteAndVerify(piece, ByteCheck::Data), _) => After::Again(Self::Compare(piece)),
            (Self::WriteAndVerify(piece, _), _) => After::Again(Self::Examine(Walk::short(piece.range))),
            (Self::Examine(walk), Op::Read { into, .. }) => {
                *scratch = Some(into);
                walk.rest().map_or(After::Done, |rest| After::Next(Self::Examine(rest)))
            }
            (Self::Same(same), _) => same.rest().map_or(After::Done, |rest| After::Next(Self::Same(rest))),
            (Self::Compare(Piece { data, offset, .. }), Op::Read { into, .. }) => {
                let result = compare(&into, &data, offset);
                *scratch = Some(into);
                result.map_or_else(After::Fail, |()| After::Done)
            }
            (Self::CompareEach(walk, wanted), Op::Read { into, .. }) => {
                let result = compare_each(&into, &wanted);
                *scratch = Some(into);
                let rest = || walk.rest().map(|rest| Self::CompareEach(rest, wanted));
                result.map_or_else(After::Fail, |()| rest().map_or(After::Done, After::Next))
            }
            (Self::CompareAndWrite(command), Op::Read { into, .. }) => match compare(&into, &command.both, 0)
            {
                Ok(()) => {
                    let from = command.both.slice(into.len()..command.both.len());
                    After::Again(Self::Write(command.range, from, command.durability))
                }
                Err(sense) => After::Fail(sense),
            },
            (Self::Or(or_write), op) => or_write.finish(op, scratch),
            (Self::Status(look_up), Op::BlockStatus { found, .. }) => look_up.on_found(found),
            _ => After::Done,
        }
    }
}

impl LookUp {
    fn on_found(mut self, found: Option<BlockStatus>) -> After {
        let Some(found) = found.filter(|found| found.blocks > 0) else {
            return After::Fail(Sense::INTERNAL_FAILURE);
        };
        let status = match found.backing {
            bdev::Backing::Allocated => ProvisioningStatus::Mapped,
            bdev::Backing::Hole => ProvisioningStatus::Deallocated,
        };
        match self.runs.last_mut() {
            Some(last) if last.status == status && last.blocks.checked_add(found.blocks).is_some() => {
                last.blocks += found.blocks;
            }
            _ => self.runs.push(LbaStatus { lba: self.at, blocks: found.blocks, status }),
        }
        self.at += u64::from(found.blocks);
        // One run more than there is room for ends the last that is shown.
        if self.at >= self.end || self.runs.len() > self.room {
            self.runs.truncate(self.room);
            let mut data = lba_status(&self.runs);
            data.truncate(self.allocation);
            return After::Bytes(data);
        }
        After::Again(Step::Status(self))
    }
}
