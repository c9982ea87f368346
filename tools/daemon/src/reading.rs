//! Reads of a device for the control plane, beside whoever else uses it: a stretch in pieces, one after the other, on a channel
//! of its own.
//!
//! Owner: the reactor. Whoever asked looks whether it is done.

use std::sync::Arc;

use bdev::{Bdev, BlockRange, Channel, Completions, Io, IoError, Op, OpenError, Tag};
use engine::{Core, Instant, Pool, Progress};

/// Bytes of one read.
const PIECE: u64 = 64 << 10;

/// How far a reading is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The next piece is to be asked for.
    Ready,
    /// It is on its way.
    Waiting,
    /// Over.
    Ended(Result<(), IoError>),
}

/// See the module.
pub struct Reading {
    channel: Box<dyn Channel>,
    pool: Pool,
    block_size: u64,
    /// First block of the next piece, and one past the last of all.
    next: u64,
    end: u64,
    bytes: Vec<u8>,
    state: State,
    done: Completions,
}

impl Reading {
    /// Begins to read `len` bytes at `offset`, both multiples of the device's block size.
    ///
    /// # Errors
    /// The device cannot be opened on this core.
    pub fn begin(bdev: Arc<dyn Bdev>, core: &Core, offset: u64, len: u64) -> Result<Self, OpenError> {
        let block_size = u64::from(bdev.geometry().block_size);
        let (next, end) = (offset / block_size, (offset + len) / block_size);
        let channel = bdev.open(core)?;
        Ok(Self {
            channel,
            pool: core.pool().clone(),
            block_size,
            next,
            end,
            bytes: Vec::new(),
            state: if next == end { State::Ended(Ok(())) } else { State::Ready },
            done: Completions::new(),
        })
    }

    /// One turn.
    pub fn poll(&mut self, now: Instant) -> Progress {
        let mut progress = self.channel.poll(now, &mut self.done);
        if self.state == State::Ready {
            self.ask(now);
        }
        while let Some(completed) = self.done.pop_front() {
            progress = Progress::Busy;
            let Op::Read { range, into } = completed.op else { continue };
            self.state = match completed.result {
                Err(error) => State::Ended(Err(error)),
                Ok(()) => {
                    self.bytes.extend_from_slice(&into);
                    self.next += u64::from(range.blocks);
                    if self.next == self.end { State::Ended(Ok(())) } else { State::Ready }
                }
            };
        }
        progress
    }

    fn ask(&mut self, now: Instant) {
        let blocks = (PIECE / self.block_size).max(1).min(self.end - self.next);
        let len = usize::try_from(blocks * self.block_size).expect("a piece is short");
        let Some(into) = self.pool.alloc(len) else { return };
        let range = BlockRange::new(self.next, u32::try_from(blocks).expect("a piece is short"));
        match self.channel.submit(Io::new(Op::Read { range, into }, Tag(0), now), now) {
            Ok(()) => self.state = State::Waiting,
            Err(refused) => {
                let why = refused.why;
                drop(refused.io.complete(Err(why), now));
                if why != IoError::Busy {
                    self.state = State::Ended(Err(why));
                }
            }
        }
    }

    /// When to poll next at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Ready => Some(Instant::EPOCH),
            State::Waiting => self.channel.next_deadline(),
            State::Ended(_) => None,
        }
    }

    /// True when nothing of it is on its way any more.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Ended(_))
    }

    /// What came of it.
    ///
    /// # Errors
    /// The device's.
    pub fn into_bytes(self) -> Result<Vec<u8>, IoError> {
        match self.state {
            State::Ended(Err(error)) => Err(error),
            State::Ended(Ok(())) | State::Ready | State::Waiting => Ok(self.bytes),
        }
    }
}
