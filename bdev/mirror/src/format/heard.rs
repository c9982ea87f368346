//! When a leg heard of each config: the number that its superblock had before. What the other leg remembers of this one's number tells
//! by that, at any time later, whether this leg had been set back when it went on without the other.

use super::config::Config;
use super::history::{HISTORY_LEN, History};

/// Numbers beside the configs of a history; 0: not known, as for a config that the leg began with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard([u64; HISTORY_LEN]);

impl Heard {
    /// As stored.
    pub(super) fn from_stored(numbers: [u64; HISTORY_LEN]) -> Self {
        Self(numbers)
    }

    /// One for each config that is kept, newest first.
    pub(super) fn numbers(&self) -> &[u64; HISTORY_LEN] {
        &self.0
    }

    /// The superblock that had the history `before`, and the number `now`, has the history `after` from now on. A config that is
    /// dropped leaves its number to the next one: that is the first since then that somebody else may not have heard of.
    #[must_use]
    pub fn on(&self, before: &History, after: &History, now: u64) -> Self {
        let mut numbers = [0; HISTORY_LEN];
        let mut last = None;
        let old = before.entries().iter().zip(&self.0).map(|(config, number)| (config, Some(*number)));
        let new = after.entries().iter().take_while(|config| !before.entries().contains(config));
        let all: Vec<(&Config, Option<u64>)> = new.map(|config| (config, None)).chain(old).collect();
        for (config, number) in all.into_iter().rev() {
            let number = number.unwrap_or(now);
            match after.entries().iter().position(|kept| kept == config) {
                Some(at) => numbers[at] = last.take().unwrap_or(number),
                None => last = Some(last.unwrap_or(number)),
            }
        }
        Self(numbers)
    }

    /// The number from before the first config of `ours` that a leg whose newest config is `theirs` has not heard of. `None`: there is none,
    /// or it is not known.
    pub fn beyond(&self, ours: &History, theirs: &Config) -> Option<u64> {
        let unheard = ours.entries().iter().zip(&self.0);
        let unheard = unheard.take_while(|(config, _)| config.generation() > theirs.generation());
        unheard.last().map(|(_, number)| *number).filter(|number| *number != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{LegIndex, LegMask, Reason};

    fn next(history: &mut History, in_sync: LegMask) {
        let config = history.current().successor(7, LegIndex::Zero, in_sync, Reason::Restarted);
        history.push(config.expect("generations left"));
    }

    #[test]
    fn each_config_has_the_number_from_before_it() {
        let first = History::new(Config::first(1, LegIndex::Zero, LegMask::both()));
        let (mut history, mut heard) = (first, Heard::default());
        for number in [10, 20] {
            let before = history;
            next(&mut history, LegMask::ZERO);
            heard = heard.on(&before, &history, number);
        }
        assert_eq!(heard.numbers()[..3], [20, 10, 0]);
        assert_eq!(heard.on(&history, &history, 30), heard, "nothing new");
        assert_eq!(heard.beyond(&history, first.current()), Some(10));
        assert_eq!(heard.beyond(&history, history.current()), None);
        // Two at once, as from the arbiter's word.
        let before = history;
        next(&mut history, LegMask::ZERO);
        next(&mut history, LegMask::ZERO);
        assert_eq!(heard.on(&before, &history, 30).numbers()[..4], [30, 30, 20, 10]);
    }

    #[test]
    fn what_is_dropped_leaves_its_number() {
        let first = History::new(Config::first(1, LegIndex::Zero, LegMask::both()));
        let (mut history, mut heard) = (first, Heard::default());
        for number in 1..100 {
            let before = history;
            next(&mut history, LegMask::ZERO);
            heard = heard.on(&before, &history, number * 10);
        }
        assert_eq!(heard.beyond(&history, first.current()), Some(10), "{heard:?}");
    }
}
