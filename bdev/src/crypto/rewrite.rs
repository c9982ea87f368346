//! A new header takes the place of an old one. Pure: it says what to write next, and is told when that is done.
//!
//! ```text
//! first slot written -> stable (from here on the new header counts) -> second slot written -> stable (the old one is nowhere)
//! ```
//!
//! A crash on the way leaves the old header or the new one. Whoever opens the device then goes on with the second slot.

use super::header::{Header, SLOT_LEN, Slot};

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Write the header to a slot.
    Write(Slot),
    /// Make what was written stable.
    Flush,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    WritingFirst,
    SettlingFirst,
    WritingSecond,
    SettlingSecond,
    Over,
}

/// See the module.
pub(super) struct Rewrite {
    header: Header,
    first: Slot,
    stage: Stage,
}

impl Rewrite {
    /// Puts `header` into both slots, `first` before the other.
    pub(super) fn both(header: Header, first: Slot) -> Self {
        Self { header, first, stage: Stage::WritingFirst }
    }

    /// Puts `header` beside itself; that it is stable where it lies is seen to first.
    pub(super) fn beside(header: Header, lies: Slot) -> Self {
        Self { header, first: lies, stage: Stage::SettlingFirst }
    }

    /// What comes next; `None` when it is over.
    pub(super) fn step(&self) -> Option<Step> {
        match self.stage {
            Stage::WritingFirst => Some(Step::Write(self.first)),
            Stage::WritingSecond => Some(Step::Write(self.first.other())),
            Stage::SettlingFirst | Stage::SettlingSecond => Some(Step::Flush),
            Stage::Over => None,
        }
    }

    /// The step is done.
    pub(super) fn on_done(&mut self) {
        self.stage = match self.stage {
            Stage::WritingFirst => Stage::SettlingFirst,
            Stage::SettlingFirst => Stage::WritingSecond,
            Stage::WritingSecond => Stage::SettlingSecond,
            Stage::SettlingSecond | Stage::Over => Stage::Over,
        };
    }

    /// Whether the new header counts, whatever happens now.
    pub(super) fn counts(&self) -> bool {
        !matches!(self.stage, Stage::WritingFirst | Stage::SettlingFirst)
    }

    pub(super) fn first(&self) -> Slot {
        self.first
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn image(&self, slot: Slot) -> [u8; SLOT_LEN] {
        self.header.encode(slot)
    }
}
