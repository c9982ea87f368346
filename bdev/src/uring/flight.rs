//! One I/O on its way through the ring: which operation comes next, and what its owner gets back.

use std::io;

use engine::{Buf, BufMut, File, Operation, RangeMode, WriteMode};

use super::{FileOptions, Holes};
use crate::error::IoError;
use crate::geometry::BlockRange;
use crate::request::{Durability, IoShell, Op};

const EINTR: i32 = 4;
const EIO: i32 = 5;
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
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

impl Step {
    /// The first step, and the operation as it is kept until the end. A write comes with its data as the file takes them.
    pub(super) fn first(op: Op, aligned: Option<Buf>, options: &FileOptions) -> (Self, Op) {
        let span = op.range().map(|range| Span::new(range, options.block_size));
        match (op, span, aligned) {
            (Op::Read { into, .. }, Some(span), _) => (Self::Read { span, into: Some(into) }, Op::Flush),
            (op @ Op::Write { durability, .. }, Some(span), Some(from)) => {
                (Self::Write { span, from, mode: write_mode(durability) }, op)
            }
            (op, Some(span), _) => match options.holes {
                Holes::Punched => (Self::Punch { span }, op),
                Holes::None => (Self::Zero { span }, op),
            },
            (op, None, _) => (Self::Sync, op),
        }
    }
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
            // Nothing is wrong with the medium: the same again may well work.
            Some(EBUSY | EAGAIN | EINTR | ENOMEM) => IoError::Busy,
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

fn write_mode(durability: Durability) -> WriteMode {
    match durability {
        Durability::Accepted => WriteMode::Accepted,
        Durability::Durable => WriteMode::Durable,
    }
}

#[cfg(test)]
mod tests {
    use engine::{Instant, Pool};

    use super::*;
    use crate::request::{Io, Tag};

    const BLOCK_SIZE: u32 = 512;
    const RANGE: BlockRange = BlockRange::new(10, 4);
    const SPAN: Span = Span { offset: 5120, len: 2048 };

    fn flight(op: Op, step: Step) -> Flight {
        let (shell, op) = Io::new(op, Tag(0), Instant::EPOCH).detach();
        Flight { shell, op, range: RANGE, block_size: BLOCK_SIZE, step }
    }

    fn zeroing(step: Step, durability: Durability) -> Flight {
        flight(Op::WriteZeroes { range: RANGE, durability }, step)
    }

    fn writing(from: &Buf) -> Flight {
        let (from, durability) = (from.clone(), Durability::Durable);
        let step = Step::Write { span: SPAN, from: from.clone(), mode: WriteMode::Durable };
        flight(Op::Write { range: RANGE, from, durability }, step)
    }

    fn errno(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    #[test]
    fn a_write_that_ends_early_goes_on_with_whole_blocks() {
        let from = Pool::for_tests().alloc_zeroed(2048).expect("a frame").freeze();
        let flight = writing(&from);
        assert!(matches!(flight.next(Ok(2048)), Next::Finish(Ok(()))));
        let Next::Continue(Step::Write { span, from, mode }) = flight.next(Ok(1100)) else {
            panic!("there is more to write");
        };
        assert_eq!((span, mode), (Span { offset: 6144, len: 1024 }, WriteMode::Durable));
        assert_eq!(from.len(), 1024);
        assert!(matches!(flight.next(Ok(511)), Next::Finish(Err(IoError::Medium { lba: 10 }))));
    }

    /// What a LUN's FUA and SYNCHRONIZE CACHE come to.
    #[test]
    fn a_durable_write_is_one_with_dsync_and_a_flush_is_a_sync() {
        let from = Pool::for_tests().alloc_zeroed(2048).expect("a frame").freeze();
        let temp = tempfile::NamedTempFile::new().expect("a file");
        temp.as_file().set_len(1 << 20).expect("a size");
        let file = File::open(temp.path(), engine::Access::ReadWrite, BLOCK_SIZE).expect("opened");
        let first = |op: Op| {
            let aligned = matches!(op, Op::Write { .. }).then(|| from.clone());
            let (step, op) = Step::first(op, aligned, &FileOptions::new(BLOCK_SIZE));
            let operation = flight(op, step).operation(file.clone(), None).expect("an operation");
            match operation {
                Operation::Write { mode, offset, .. } => (Some(mode), offset),
                Operation::Sync { .. } => (None, 0),
                other => panic!("{other:?}"),
            }
        };
        let write = |durability| Op::Write { range: RANGE, from: from.clone(), durability };
        assert_eq!(first(write(Durability::Accepted)), (Some(WriteMode::Accepted), 5120));
        assert_eq!(first(write(Durability::Durable)), (Some(WriteMode::Durable), 5120));
        assert_eq!(first(Op::Flush), (None, 0));
    }

    #[test]
    fn errors_name_their_culprit() {
        let from = Pool::for_tests().alloc_zeroed(2048).expect("a frame").freeze();
        let expected = [
            (EIO, IoError::Medium { lba: 10 }),
            (ENOSPC, IoError::NoSpace),
            (EDQUOT, IoError::NoSpace),
            (EFBIG, IoError::NoSpace),
            (EROFS, IoError::ReadOnly),
            (EOPNOTSUPP, IoError::Unsupported),
            (EBUSY, IoError::Busy),
            (EAGAIN, IoError::Busy),
            (EINTR, IoError::Busy),
            (ENOMEM, IoError::Busy),
            (EINVAL, IoError::Os(EINVAL)),
        ];
        for (number, error) in expected {
            let Next::Finish(result) = writing(&from).next(Err(&errno(number))) else {
                panic!("errno {number} ends a write");
            };
            assert_eq!(result, Err(error));
        }
    }

    #[test]
    fn where_there_can_be_no_hole_zeroes_are_written() {
        for number in [EOPNOTSUPP, EINVAL] {
            let punch = zeroing(Step::Punch { span: SPAN }, Durability::Durable);
            let Next::Continue(step) = punch.next(Err(&errno(number))) else { panic!("zeroes follow") };
            assert!(matches!(step, Step::Zero { span: SPAN }));
        }
        let punch = zeroing(Step::Punch { span: SPAN }, Durability::Durable);
        assert!(matches!(punch.next(Err(&errno(EIO))), Next::Finish(Err(IoError::Medium { lba: 10 }))));
    }

    #[test]
    fn zeroes_are_written_piece_by_piece_and_made_stable_when_asked() {
        let mut flight = zeroing(Step::Zero { span: SPAN }, Durability::Durable);
        let mut offsets = Vec::new();
        while let Step::Zero { span } = flight.step {
            offsets.push(span.offset);
            let Next::Continue(step) = flight.next(Ok(1024)) else { panic!("it ends with a sync") };
            flight.step = step;
        }
        assert_eq!(offsets, [5120, 6144]);
        assert!(matches!(flight.step, Step::Sync));
        assert!(matches!(flight.next(Ok(0)), Next::Finish(Ok(()))));
        for step in [Step::Zero { span: SPAN }, Step::Punch { span: SPAN }] {
            let accepted = zeroing(step, Durability::Accepted);
            assert!(matches!(accepted.next(Ok(2048)), Next::Finish(Ok(()))));
        }
        let stuck = zeroing(Step::Zero { span: SPAN }, Durability::Accepted);
        assert!(matches!(stuck.next(Ok(0)), Next::Finish(Err(IoError::Medium { lba: 10 }))));
    }

    #[test]
    fn without_a_frame_of_zeroes_zeroing_is_busy() {
        let path = tempfile::NamedTempFile::new().expect("temporary file");
        path.as_file().set_len(8192).expect("size");
        let file = File::open(path.path(), engine::Access::ReadWrite, BLOCK_SIZE).expect("open");
        let mut flight = zeroing(Step::Zero { span: SPAN }, Durability::Accepted);
        assert!(matches!(flight.operation(file.clone(), None), Err(IoError::Busy)));
        let zeroes = Pool::for_tests().alloc_zeroed(4096).expect("a frame").freeze();
        let operation = flight.operation(file, Some(&zeroes)).expect("a write");
        assert!(matches!(operation, Operation::Write { offset: 5120, from, .. } if from.len() == 2048));
    }
}
