//! What happened to an array, as one node saw it: each change with a code for machines and words for people.
//!
//! Owner: the node. The last are kept for the status; all of them go out once (`Events::next_out`) to whoever keeps
//! the log. Both queues are bounded: a node that nobody listens to forgets the oldest.

mod codes;
mod kind;
mod words;

use std::collections::VecDeque;

use engine::Instant;

pub use codes::Codes;
pub use kind::{ArbiterTrouble, BarCause, EventKind, FreezeCause, Severity, SwitchoverTrouble};

/// Events kept for the status.
const KEPT: usize = 64;
/// Events that wait for whoever keeps the log.
const OUT_MAX: usize = 1024;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, on the node's own clock.
    pub at: Instant,
    /// What.
    pub kind: EventKind,
}

/// The last events, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Events {
    kept: VecDeque<Event>,
    out: VecDeque<Event>,
}

impl Events {
    /// Notes one; the same twice in a row is one.
    pub(crate) fn note(&mut self, at: Instant, kind: EventKind) {
        if self.kept.back().is_some_and(|last| last.kind == kind) {
            return;
        }
        let event = Event { at, kind };
        for (queue, most) in [(&mut self.kept, KEPT), (&mut self.out, OUT_MAX)] {
            if queue.len() == most {
                queue.pop_front();
            }
            queue.push_back(event.clone());
        }
    }

    /// The next event for the log.
    pub(crate) fn next_out(&mut self) -> Option<Event> {
        self.out.pop_front()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Event> {
        self.kept.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_twice_is_one_and_the_oldest_are_forgotten() {
        let mut events = Events::default();
        let now = Instant::EPOCH;
        events.note(now, EventKind::Stopping);
        events.note(now, EventKind::Stopping);
        assert_eq!(events.all().count(), 1);
        for generation in 0..2000 {
            events.note(now, EventKind::Serving { generation });
        }
        assert_eq!(events.all().count(), KEPT);
        assert_eq!(std::iter::from_fn(|| events.next_out()).count(), OUT_MAX);
        assert_eq!(
            events.all().last().map(|last| &last.kind),
            Some(&EventKind::Serving { generation: 1999 })
        );
    }
}
