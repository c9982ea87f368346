//! Blocks that commands of a logical unit are at, so that an atomic command has its blocks to itself.
//!
//! Commands that share may overlap each other; one that is exclusive waits for every overlapping one that came before it, and
//! those that come after wait for it: first come, first served.

use std::rc::Rc;

use bdev::BlockRange;

use super::super::logical_unit::LogicalUnit;

/// A run of blocks of any length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::export) struct Span {
    pub(in crate::export) lba: u64,
    pub(in crate::export) blocks: u64,
}

impl From<BlockRange> for Span {
    fn from(range: BlockRange) -> Self {
        Self { lba: range.lba, blocks: u64::from(range.blocks) }
    }
}

impl Span {
    pub(in crate::export) fn overlaps(self, other: Self) -> bool {
        self.lba < other.lba.saturating_add(other.blocks) && other.lba < self.lba.saturating_add(self.blocks)
    }
}

/// How a command is at its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::export) enum Mode {
    /// Beside others.
    Shared,
    /// Alone.
    Exclusive,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    span: Span,
    mode: Mode,
}

impl Entry {
    fn excludes(&self, other: &Self) -> bool {
        (self.mode == Mode::Exclusive || other.mode == Mode::Exclusive) && self.span.overlaps(other.span)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(in crate::export) struct Ranges {
    entries: Vec<Entry>,
    next: u64,
    exclusive: usize,
}

impl Ranges {
    fn enter(&mut self, span: Span, mode: Mode) -> u64 {
        self.next += 1;
        self.exclusive += usize::from(mode == Mode::Exclusive);
        self.entries.push(Entry { number: self.next, span, mode });
        self.next
    }

    /// True when nobody who came before stands in the way.
    fn is_granted(&self, number: u64) -> bool {
        if self.exclusive == 0 {
            return true;
        }
        let Some(own) = self.entries.iter().find(|entry| entry.number == number) else { return true };
        !self.entries.iter().any(|other| other.number < number && other.excludes(own))
    }

    /// From now on one is alone: those that came before it go on.
    fn exclude(&mut self, number: u64) {
        let Some(own) = self.entries.iter_mut().find(|entry| entry.number == number) else { return };
        self.exclusive += usize::from(own.mode == Mode::Shared);
        own.mode = Mode::Exclusive;
    }

    fn leave(&mut self, number: u64) {
        let Some(at) = self.entries.iter().position(|entry| entry.number == number) else { return };
        let gone = self.entries.swap_remove(at);
        self.exclusive -= usize::from(gone.mode == Mode::Exclusive);
    }
}

/// A command's place at its blocks, given back when dropped.
pub(in crate::export) struct Hold {
    unit: Rc<LogicalUnit>,
    number: u64,
}

impl Hold {
    pub(in crate::export) fn new(unit: &Rc<LogicalUnit>, span: Span, mode: Mode) -> Self {
        let number = unit.ranges.borrow_mut().enter(span, mode);
        Self { unit: unit.clone(), number }
    }

    /// True when the blocks may be touched.
    pub(in crate::export) fn is_granted(&self) -> bool {
        self.unit.ranges.borrow().is_granted(self.number)
    }

    /// Whoever overlaps it and comes later waits from now on.
    pub(in crate::export) fn exclude(&self) {
        self.unit.ranges.borrow_mut().exclude(self.number);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.unit.ranges.borrow_mut().leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(lba: u64, blocks: u64) -> Span {
        Span { lba, blocks }
    }

    #[test]
    fn an_exclusive_one_waits_for_those_before_it_and_holds_up_those_after() {
        let mut ranges = Ranges::default();
        let write = ranges.enter(span(0, 8), Mode::Shared);
        let other = ranges.enter(span(4, 8), Mode::Shared);
        assert!(ranges.is_granted(write) && ranges.is_granted(other));
        let atomic = ranges.enter(span(6, 1), Mode::Exclusive);
        let late = ranges.enter(span(6, 4), Mode::Shared);
        let aside = ranges.enter(span(7, 4), Mode::Shared);
        assert!(!ranges.is_granted(atomic) && !ranges.is_granted(late) && ranges.is_granted(aside));
        ranges.leave(write);
        assert!(!ranges.is_granted(atomic));
        ranges.leave(other);
        assert!(ranges.is_granted(atomic) && !ranges.is_granted(late));
        ranges.leave(atomic);
        assert!(ranges.is_granted(late));
        assert_eq!(ranges.exclusive, 0);
    }

    #[test]
    fn one_that_becomes_exclusive_holds_up_those_after_and_waits_for_nobody_new() {
        let mut ranges = Ranges::default();
        let before = ranges.enter(span(0, 8), Mode::Shared);
        let aborted = ranges.enter(span(4, 8), Mode::Shared);
        let after = ranges.enter(span(6, 1), Mode::Shared);
        assert!(ranges.is_granted(after));
        ranges.exclude(aborted);
        ranges.exclude(aborted);
        assert!(ranges.is_granted(before) && !ranges.is_granted(after));
        let aside = ranges.enter(span(12, 4), Mode::Shared);
        assert!(ranges.is_granted(aside));
        ranges.leave(aborted);
        assert!(ranges.is_granted(after));
        assert_eq!(ranges.exclusive, 0);
    }
}
