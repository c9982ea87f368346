//! One I/O on its way through the ring: which operation comes next, and what its owner gets back.

use std::io;

use engine::{Buf, BufMut, File, Operation, RangeMode, WriteMode};

use crate::error::IoError;
use crate::geometry::BlockRange;
use crate::request::{Durability, IoShell, Op};

const EIO: i32 = 5;
const EBUSY: i32 = 16;
const EINVAL: i32 = 22;
const EFBIG: i32 = 27;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EOPNOTSUPP: i32 = 95;
const EDQUOT: i32 = 122;

/// A run of bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) offset: u64,
    pub(super) len: u64,
}

impl Span {
    pub(super) fn new(range: BlockRange, block_size: u32) -> Self {
        let block_size = u64::from(block_size);
        Self { offset: range.lba * block_size, len: u64::from(range.blocks) * block_size }
    }

    /// What is left after `count` bytes.
    pub(super) fn advanced(self, count: u64) -> Self {
        Self { offset: self.offset + count, len: self.len.saturating_sub(count) }
    }
}

/// What the ring does for the I/O now.
#[derive(Debug)]
pub(super) enum Step {
    /// A read; `into` is with the ring once it started.
    Read { span: Span, into: Option<BufMut> },
    /// `from` is not written yet, starting at `span`.
    Write { span: Span, from: Buf, mode: WriteMode },
    /// A hole is being punched.
    Punch { span: Span },
    /// Zeroes are being written, because there can be no hole.
    Zero { span: Span },
    /// `fdatasync`.
    Sync,
}

/// How it goes on after a completion.
pub(super) enum Next {
    /// One more operation.
    Continue(Step),
    /// It is over.
    Finish(Result<(), IoError>),
}

pub(super) struct Flight {
    pub(super) shell: IoShell,
    /// The owner's operation; for a read a stand-in, because the ring has the buffer.
    pub(super) op: Op,
    pub(super) range: BlockRange,
    pub(super) block_size: u32,
    pub(super) step: Step,
}

impl Flight {
    /// What follows when the current step moved `moved` bytes or failed.
    pub(super) fn next(&self, result: Result<u32, &io::Error>) -> Next {
        let moved = match (result, &self.step) {
            (Ok(moved), _) => u64::from(moved),
            (Err(error), Step::Punch { span }) if has_no_holes(error) => {
                return Next::Continue(Step::Zero { span: *span });
            }
            (Err(error), _) => return Next::Finish(Err(self.translate(error))),
        };
        match &self.step {
            // The file ends too early: somebody shortened it.
            Step::Read { span, .. } if moved < span.len => Next::Finish(Err(self.medium_error(moved))),
            Step::Read { .. } | Step::Sync => Next::Finish(Ok(())),
            Step::Write { span, from, mode } => self.after_write(*span, from, *mode, moved),
            Step::Punch { .. } => self.when_done(),
            Step::Zero { span } if moved < span.len => match self.whole_blocks(moved) {
                0 => Next::Finish(Err(self.medium_error(0))),
                whole => Next::Continue(Step::Zero { span: span.advanced(whole) }),
            },
            Step::Zero { .. } => self.when_done(),
        }
    }

    /// A write that ended early goes on: the system then says what is wrong, or nothing was.
    fn after_write(&self, span: Span, from: &Buf, mode: WriteMode, moved: u64) -> Next {
        if moved >= span.len {
            return Next::Finish(Ok(()));
        }
        let whole = self.whole_blocks(moved);
        if whole == 0 {
            return Next::Finish(Err(self.medium_error(0)));
        }
        let start = usize::try_from(whole).expect("within a frame");
        let from = from.slice(start..from.len());
        Next::Continue(Step::Write { span: span.advanced(whole), from, mode })
    }

    /// After zeroing: a durable one must also reach stable storage.
    fn when_done(&self) -> Next {
        match self.op {
            Op::WriteZeroes { durability: Durability::Durable, .. } => Next::Continue(Step::Sync),
            _ => Next::Finish(Ok(())),
        }
    }

    fn whole_blocks(&self, bytes: u64) -> u64 {
        bytes - bytes % u64::from(self.block_size)
    }

    fn medium_error(&self, moved: u64) -> IoError {
        IoError::Medium { lba: self.range.lba + moved / u64::from(self.block_size) }
    }

    fn translate(&self, error: &io::Error) -> IoError {
        match error.raw_os_error() {
            Some(EIO) => self.medium_error(0),
            Some(ENOSPC | EDQUOT | EFBIG) => IoError::NoSpace,
            Some(EOPNOTSUPP) => IoError::Unsupported,
            Some(EROFS) => IoError::ReadOnly,
            Some(EBUSY) => IoError::Busy,
            Some(errno) => IoError::Os(errno),
            None => IoError::Os(EIO),
        }
    }

    /// The ring's operation for the current step. `zeroes` is what zeroes are written from.
    pub(super) fn operation(&mut self, file: File, zeroes: Option<&Buf>) -> Result<Operation, IoError> {
        Ok(match &mut self.step {
            Step::Read { span, into } => {
                let into = into.take().expect("a read starts once");
                Operation::Read { file, offset: span.offset, into }
            }
            Step::Write { span, from, mode } => {
                Operation::Write { file, offset: span.offset, from: from.clone(), mode: *mode }
            }
            Step::Punch { span } => {
                Operation::Range { file, offset: span.offset, len: span.len, mode: RangeMode::PunchHole }
            }
            Step::Zero { span } => {
                let zeroes = zeroes.ok_or(IoError::Busy)?;
                let len = zeroes.len().min(usize::try_from(span.len).unwrap_or(usize::MAX));
                let from = zeroes.slice(0..len);
                Operation::Write { file, offset: span.offset, from, mode: WriteMode::Accepted }
            }
            Step::Sync => Operation::Sync { file },
        })
    }
}

/// The file system or device cannot do it at all, or not with this alignment.
fn has_no_holes(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EOPNOTSUPP | EINVAL))
}

pub(super) fn write_mode(durability: Durability) -> WriteMode {
    match durability {
        Durability::Accepted => WriteMode::Accepted,
        Durability::Durable => WriteMode::Durable,
    }
}
