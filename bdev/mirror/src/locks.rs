//! Range locks: overlapping writes end in the same order on both legs (R2, I21), a read never sees a write
//! that only one leg has (I12), and a copy never meets a write (R5).
//!
//! Owner: the holder. First come, first served: whoever conflicts with an earlier one, held or waiting, waits
//! behind it, so nobody starves. A copy does not hold up reads: it changes only the leg that is not read.

use std::collections::VecDeque;

use engine::Key;

use crate::mutation::{Mutation, is_broken};
use crate::range::ByteRange;

/// What the holder of a lock does to its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Reads it from a leg in sync.
    Read,
    /// Writes it.
    Write,
    /// Copies it from a leg in sync to the other one.
    Copy,
}

impl Mode {
    const fn conflicts_with(self, other: Self) -> bool {
        match (self, other) {
            (Self::Read, Self::Read | Self::Copy) | (Self::Copy, Self::Read) => false,
            (Self::Read | Self::Copy, Self::Write)
            | (Self::Write, Self::Read | Self::Write | Self::Copy)
            | (Self::Copy, Self::Copy) => true,
        }
    }
}

/// Who holds or waits: the holder's request or copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A request of the front end.
    Request(Key),
    /// A copy of the resync.
    Copy(Key),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Held,
}

#[derive(Debug)]
struct Lock {
    owner: Owner,
    range: ByteRange,
    mode: Mode,
    state: State,
}

impl Lock {
    fn conflicts_with(&self, other: &Self) -> bool {
        self.mode.conflicts_with(other.mode) && self.range.overlaps(other.range) && !self.is_waived(other)
    }

    /// A rule that is broken on purpose.
    fn is_waived(&self, other: &Self) -> bool {
        match (self.mode, other.mode) {
            (Mode::Write, Mode::Write) => is_broken(Mutation::R2WritesOverlap),
            (Mode::Write, Mode::Copy) | (Mode::Copy, Mode::Write) => is_broken(Mutation::R5CopyUnlocked),
            _ => false,
        }
    }
}

/// Whether a lock was granted at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// It is held.
    Now,
    /// [`RangeLocks::release`] of somebody else will name it.
    Later,
}

/// All locks, oldest first.
#[derive(Debug, Default)]
pub(crate) struct RangeLocks {
    locks: VecDeque<Lock>,
}

impl RangeLocks {
    /// Asks for a lock. An owner has one at a time.
    pub(crate) fn acquire(&mut self, owner: Owner, range: ByteRange, mode: Mode) -> Grant {
        let mut lock = Lock { owner, range, mode, state: State::Waiting };
        if !self.locks.iter().any(|earlier| lock.conflicts_with(earlier)) {
            lock.state = State::Held;
        }
        let grant = if lock.state == State::Held { Grant::Now } else { Grant::Later };
        self.locks.push_back(lock);
        grant
    }

    /// Gives a lock back, held or not; `granted` is called for everyone who got theirs by that.
    pub(crate) fn release(&mut self, owner: Owner, mut granted: impl FnMut(Owner)) {
        let Some(at) = self.locks.iter().position(|lock| lock.owner == owner) else { return };
        let Some(gone) = self.locks.remove(at) else { return };
        for at in at..self.locks.len() {
            let lock = &self.locks[at];
            let waited = lock.state == State::Waiting && lock.conflicts_with(&gone);
            if waited && !self.locks.iter().take(at).any(|earlier| lock.conflicts_with(earlier)) {
                let owner = lock.owner;
                self.locks[at].state = State::Held;
                granted(owner);
            }
        }
    }

    /// True when a write of the range would be granted at once.
    #[cfg(test)]
    fn is_free(&self, range: ByteRange) -> bool {
        !self.locks.iter().any(|lock| lock.range.overlaps(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(number: u64) -> Owner {
        Owner::Request(Key::from_bits(number))
    }

    fn range(start: u64, len: u64) -> ByteRange {
        ByteRange::new(start, len)
    }

    fn released(locks: &mut RangeLocks, number: u64) -> Vec<Owner> {
        let mut granted = Vec::new();
        locks.release(owner(number), |owner| granted.push(owner));
        granted
    }

    #[test]
    fn overlapping_writes_take_turns_and_others_pass() {
        let mut locks = RangeLocks::default();
        assert_eq!(locks.acquire(owner(1), range(0, 10), Mode::Write), Grant::Now);
        assert_eq!(locks.acquire(owner(2), range(5, 10), Mode::Write), Grant::Later);
        assert_eq!(
            locks.acquire(owner(3), range(12, 10), Mode::Write),
            Grant::Later,
            "behind the one that waits"
        );
        assert_eq!(locks.acquire(owner(4), range(30, 10), Mode::Write), Grant::Now);
        assert_eq!(released(&mut locks, 1), [owner(2)]);
        assert_eq!(released(&mut locks, 4), []);
        assert_eq!(released(&mut locks, 2), [owner(3)]);
        assert_eq!(released(&mut locks, 3), []);
        assert!(locks.is_free(range(0, 100)));
    }

    #[test]
    fn reads_share_and_wait_for_writes_both_ways() {
        let mut locks = RangeLocks::default();
        assert_eq!(locks.acquire(owner(1), range(0, 10), Mode::Read), Grant::Now);
        assert_eq!(locks.acquire(owner(2), range(0, 10), Mode::Read), Grant::Now);
        assert_eq!(locks.acquire(owner(3), range(0, 10), Mode::Write), Grant::Later);
        assert_eq!(locks.acquire(owner(4), range(0, 10), Mode::Read), Grant::Later, "no write starves");
        assert_eq!(released(&mut locks, 1), []);
        assert_eq!(released(&mut locks, 2), [owner(3)]);
        assert_eq!(released(&mut locks, 3), [owner(4)]);
    }

    #[test]
    fn a_copy_holds_up_writes_and_not_reads() {
        let mut locks = RangeLocks::default();
        assert_eq!(locks.acquire(owner(1), range(0, 100), Mode::Copy), Grant::Now);
        assert_eq!(locks.acquire(owner(2), range(50, 10), Mode::Read), Grant::Now);
        assert_eq!(locks.acquire(owner(3), range(90, 5), Mode::Write), Grant::Later);
        assert_eq!(released(&mut locks, 1), [owner(3)]);
    }

    #[test]
    fn one_who_gives_up_waiting_lets_the_next_in() {
        let mut locks = RangeLocks::default();
        assert_eq!(locks.acquire(owner(1), range(0, 10), Mode::Read), Grant::Now);
        assert_eq!(locks.acquire(owner(2), range(0, 10), Mode::Write), Grant::Later);
        assert_eq!(locks.acquire(owner(3), range(0, 10), Mode::Read), Grant::Later);
        assert_eq!(released(&mut locks, 2), [owner(3)]);
    }
}
