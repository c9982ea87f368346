//! Formats a blank leg: the steps of [`crate::format::create`], one after the other.

use std::collections::VecDeque;

use bdev::{Durability, IoError};

use crate::desk::{Desk, Purpose, Side};
use crate::format::{Step, Superblock};
use crate::range::ByteRange;

/// Most bytes zeroed in one operation.
const ZERO_MAX: u64 = 1 << 20;

/// A format under way.
#[derive(Debug)]
pub(crate) struct Formatter {
    superblock: Superblock,
    steps: VecDeque<Step>,
    sent: Sent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Nothing,
    One,
}

impl Formatter {
    /// Puts this first superblock on the own leg.
    pub(crate) fn new(superblock: Superblock) -> Self {
        let steps = superblock.format_steps().into_iter().flat_map(in_pieces).collect();
        Self { superblock, steps, sent: Sent::Nothing }
    }

    /// Sends the next step, if a frame is there.
    pub(crate) fn poke(&mut self, desk: &mut Desk) {
        if self.sent == Sent::One {
            return;
        }
        match self.steps.front() {
            None => return,
            Some(Step::Zero { offset, len }) => {
                desk.zero(Side::Own, ByteRange::new(*offset, *len), Durability::Accepted, Purpose::Format);
            }
            Some(Step::Write(write)) => {
                if !desk.has_block() {
                    return;
                }
                desk.write_block(Side::Own, write, Purpose::Format);
            }
            Some(Step::Flush) => desk.flush(Side::Own, Purpose::Format),
        }
        self.steps.pop_front();
        self.sent = Sent::One;
    }

    /// A step ended. The superblock once the leg has it.
    pub(crate) fn on_done(
        &mut self,
        result: Result<(), IoError>,
        desk: &mut Desk,
    ) -> Result<Option<Superblock>, IoError> {
        result?;
        self.sent = Sent::Nothing;
        if self.steps.is_empty() {
            return Ok(Some(self.superblock.clone()));
        }
        self.poke(desk);
        Ok(None)
    }
}

fn in_pieces(step: Step) -> Vec<Step> {
    let Step::Zero { offset, len } = step else { return vec![step] };
    let piece = |start| Step::Zero { offset: start, len: ZERO_MAX.min(offset + len - start) };
    (offset..offset + len).step_by(usize::try_from(ZERO_MAX).expect("fits")).map(piece).collect()
}
