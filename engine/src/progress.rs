//! What a poll achieved.

use ::core::ops::{BitOr, BitOrAssign};

/// Whether a poll found work. A reactor whose turn was all `Idle` may yield or sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// Nothing happened.
    Idle,
    /// At least one thing happened.
    Busy,
}

impl Progress {
    /// `Busy` when `count` is not zero.
    pub fn from_count(count: usize) -> Self {
        if count == 0 { Self::Idle } else { Self::Busy }
    }

    /// True when something happened.
    pub fn is_busy(self) -> bool {
        self == Self::Busy
    }
}

impl BitOr for Progress {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        if self.is_busy() || other.is_busy() { Self::Busy } else { Self::Idle }
    }
}

impl BitOrAssign for Progress {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}
