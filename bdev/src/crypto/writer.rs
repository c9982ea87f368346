//! Carries a [`Rewrite`] out on a channel that somebody else has: one operation at a time.

use engine::Pool;

use super::header::SLOT_LEN;
use super::rewrite::{Rewrite, Step};
use crate::error::IoError;
use crate::geometry::{BlockRange, Capabilities};
use crate::request::{Durability, Op};

/// Whether an operation is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Waiting,
}

/// See the module.
pub(super) struct Writer {
    rewrite: Rewrite,
    state: State,
    /// Of the device below.
    capabilities: Capabilities,
    block_size: u32,
    pool: Pool,
}

impl Writer {
    pub(super) fn new(rewrite: Rewrite, capabilities: Capabilities, block_size: u32, pool: Pool) -> Self {
        Self { rewrite, state: State::Ready, capabilities, block_size, pool }
    }

    pub(super) fn rewrite(&self) -> &Rewrite {
        &self.rewrite
    }

    /// The operation to send now, if there is one and a frame for it.
    pub(super) fn next_op(&mut self) -> Option<Op> {
        if self.state == State::Waiting {
            return None;
        }
        let op = match self.rewrite.step()? {
            // What is written is stable at once where there is nothing to flush.
            Step::Flush if !self.capabilities.contains(Capabilities::FLUSH) => {
                self.rewrite.on_done();
                return self.next_op();
            }
            Step::Flush => Op::Flush,
            Step::Write(slot) => {
                let mut frame = self.pool.alloc(SLOT_LEN)?;
                frame.copy_from_slice(&self.rewrite.image(slot));
                let blocks = u32::try_from(SLOT_LEN).expect("short") / self.block_size;
                let range = BlockRange::new(slot.offset() / u64::from(self.block_size), blocks);
                let durable = self.capabilities.contains(Capabilities::FUA);
                let durability = if durable { Durability::Durable } else { Durability::Accepted };
                Op::Write { range, from: frame.freeze(), durability }
            }
        };
        self.state = State::Waiting;
        Some(op)
    }

    /// The operation came back, or was not taken.
    ///
    /// # Errors
    /// It failed, and not for want of room.
    pub(super) fn on_done(&mut self, result: Result<(), IoError>) -> Result<(), IoError> {
        self.state = State::Ready;
        match result {
            // It is sent again.
            Err(IoError::Busy) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                self.rewrite.on_done();
                Ok(())
            }
        }
    }

    /// True when something is to be sent.
    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Ready && !self.is_over()
    }

    pub(super) fn is_over(&self) -> bool {
        self.rewrite.step().is_none()
    }
}
