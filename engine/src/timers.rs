//! The deadlines of one component, in one table.

use std::collections::{BTreeMap, BTreeSet};

use crate::Instant;

/// At most one deadline for each timer `K`. All timers of a component are visible as the variants of one enum.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    by_timer: BTreeMap<K, Instant>,
    by_deadline: BTreeSet<(Instant, K)>,
}

impl<K: Copy + Ord> Timers<K> {
    /// No timer runs.
    pub fn new() -> Self {
        Self { by_timer: BTreeMap::new(), by_deadline: BTreeSet::new() }
    }

    /// Starts or moves a timer.
    pub fn set(&mut self, timer: K, deadline: Instant) {
        self.cancel(timer);
        self.by_timer.insert(timer, deadline);
        self.by_deadline.insert((deadline, timer));
    }

    /// Stops a timer; one that does not run is no mistake.
    pub fn cancel(&mut self, timer: K) {
        if let Some(deadline) = self.by_timer.remove(&timer) {
            self.by_deadline.remove(&(deadline, timer));
        }
    }

    /// When this timer fires.
    pub fn deadline(&self, timer: K) -> Option<Instant> {
        self.by_timer.get(&timer).copied()
    }

    /// Takes the earliest timer that is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (deadline, timer) = *self.by_deadline.first()?;
        if deadline > now {
            return None;
        }
        self.cancel(timer);
        Some(timer)
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }
}

impl<K: Copy + Ord> Default for Timers<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_once_in_order_of_their_deadlines() {
        let at = Instant::from_nanos;
        let mut timers = Timers::new();
        timers.set('a', at(30));
        timers.set('b', at(20));
        timers.set('a', at(10));
        timers.set('c', at(15));
        timers.cancel('c');
        assert_eq!(timers.next_deadline(), Some(at(10)));
        assert_eq!(timers.pop_due(at(9)), None);
        assert_eq!(timers.pop_due(at(25)), Some('a'));
        assert_eq!(timers.pop_due(at(25)), Some('b'));
        assert_eq!(timers.pop_due(at(99)), None);
    }
}
