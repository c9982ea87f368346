//! What a step has before its I/O begins: its frames first, then its place at the blocks (`state/ranges.rs`).
//!
//! The order is what keeps commands from waiting for each other in a circle. Whoever has a place waits for nothing but its device, so it
//! gives the place back; whoever has frames waits for a place at the most, so it gives the frames back. For the same reason a command
//! that reads while it has data of its own takes the frame for that, `scratch`, together with the frames of its data.

use bdev::Op;
use engine::{BufMut, Pool};

use super::super::job::Step;
use super::super::node::Lun;
use super::super::state::Hold;

/// See the module.
#[derive(Default)]
pub(super) struct Footing {
    /// The I/O, with its frames.
    op: Option<Op>,
    /// The place at the blocks.
    hold: Option<Hold>,
    /// A frame to read into.
    pub(super) scratch: Option<BufMut>,
}

impl Footing {
    /// A frame to read into, and nothing else.
    pub(super) fn with(scratch: Option<BufMut>) -> Self {
        Self { scratch, ..Self::default() }
    }

    /// Takes what is still missing for a step's I/O; true when nothing is.
    pub(super) fn is_complete(&mut self, step: &Step, lun: &Lun, pool: &Pool) -> bool {
        if self.op.is_none() && step.does_io() {
            self.op = step.op(pool, &mut self.scratch, lun.config.bdev.geometry().block_size);
            if self.op.is_none() {
                return false;
            }
        }
        if self.hold.is_none() {
            self.hold = step.hold().map(|(span, mode)| Hold::new(&lun.unit, span, mode));
        }
        self.hold.as_ref().is_none_or(Hold::is_granted)
    }

    /// True once it has the frames for its I/O.
    pub(super) fn has_frames(&self) -> bool {
        self.op.is_some()
    }

    /// The I/O that was made ready.
    pub(super) fn take_op(&mut self) -> Option<Op> {
        self.op.take()
    }

    /// The same, when the device did not take it yet.
    pub(super) fn put_back(&mut self, op: Op) {
        self.op = Some(op);
    }

    /// Nobody waits for the end of the step's I/O any more, which may yet change its blocks: others wait for it there. Its place is held
    /// by an I/O that has begun, so they wait for nothing but the device.
    pub(super) fn shield(&mut self, step: &Step) {
        if let Some(hold) = self.hold.as_ref().filter(|_| step.changes().is_some()) {
            hold.exclude();
        }
    }

    /// The next I/O is at other blocks.
    pub(super) fn leave(&mut self) {
        self.hold = None;
    }
}
