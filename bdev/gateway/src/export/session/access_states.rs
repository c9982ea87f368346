//! What a session is told about the states of the ways to a LUN (SPC-4 section 5.15.2).
//!
//! A change is a unit attention, ASYMMETRIC ACCESS STATE CHANGED. The nexus whose SET TARGET PORT GROUPS command made it is not told
//! of it: every other one is. That an asker is not told ends with the state that it asked for, or with the time that a transition
//! may take: a change after that is somebody else's.

use std::collections::BTreeMap;

use bdev::AccessState;
use core::time::Duration;
use engine::Instant;

use super::paths::TRANSITION_SECONDS;

/// What a nexus asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    /// This node's state when it is done.
    state: AccessState,
    until: Instant,
}

/// Whether a nexus is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing changed, or it is what the nexus asked for.
    None,
    /// It is a change that others made.
    Changed,
}

/// See the module. Each LUN by its number.
#[derive(Debug, Default)]
pub(super) struct AccessStates {
    seen: BTreeMap<u16, AccessState>,
    asked: BTreeMap<u16, Asked>,
}

impl AccessStates {
    /// This node's state, as it is when a command comes.
    pub(super) fn see(&mut self, number: u16, state: AccessState, now: Instant) -> News {
        if self.seen.insert(number, state).is_none_or(|seen| seen == state) {
            return News::None;
        }
        let asked = self.asked.get(&number).copied().filter(|asked| now < asked.until);
        match asked {
            Some(_) if state == AccessState::Transitioning => News::None,
            Some(asked) if state == asked.state => {
                self.asked.remove(&number);
                News::None
            }
            _ => {
                self.asked.remove(&number);
                News::Changed
            }
        }
    }

    /// True when a command came for the LUN before.
    pub(super) fn has_seen(&self, number: u16) -> bool {
        self.seen.contains_key(&number)
    }

    /// The nexus asks that this node's state become this one.
    pub(super) fn ask(&mut self, number: u16, state: AccessState, now: Instant) {
        let until = now + Duration::from_secs(u64::from(TRANSITION_SECONDS));
        self.asked.insert(number, Asked { state, until });
    }

    /// The LUN is gone.
    pub(super) fn forget(&mut self, number: u16) {
        self.seen.remove(&number);
        self.asked.remove(&number);
    }

    /// What it asked for is refused.
    pub(super) fn refuse(&mut self, number: u16) {
        self.asked.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::EPOCH;

    #[test]
    fn only_what_was_not_asked_for_is_told() {
        use AccessState::{NonOptimized, Optimized, Transitioning, Unavailable};
        let late = NOW + Duration::from_secs(u64::from(TRANSITION_SECONDS));
        let cases = [
            (NOW, [Transitioning, NonOptimized], [News::None, News::None]),
            (NOW, [NonOptimized, Optimized], [News::None, News::Changed]),
            // It did not come to that: the way back is no wish of the asker's.
            (NOW, [Transitioning, Optimized], [News::None, News::Changed]),
            (NOW, [Unavailable, NonOptimized], [News::Changed, News::Changed]),
            (late, [NonOptimized, NonOptimized], [News::Changed, News::None]),
        ];
        for (now, states, news) in cases {
            let mut access = AccessStates::default();
            assert_eq!(access.see(0, Optimized, NOW), News::None, "the first look");
            access.ask(0, NonOptimized, NOW);
            assert_eq!(states.map(|state| access.see(0, state, now)), news, "{states:?}");
        }
    }

    #[test]
    fn a_refused_wish_hides_nothing() {
        let mut access = AccessStates::default();
        access.see(0, AccessState::Optimized, NOW);
        access.ask(0, AccessState::NonOptimized, NOW);
        access.refuse(0);
        assert_eq!(access.see(0, AccessState::NonOptimized, NOW), News::Changed);
    }
}
