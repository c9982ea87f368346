//! The last configs of an array, and what two histories say about each other.
//!
//! Configs form a total order with one holder each; a node that was away knows an older record of the same
//! line. Two nodes that each made a record the other has not seen have diverged: `split`, and nothing is
//! overwritten (I11).

use super::config::{Config, ConfigFlags, ConfigId, LegIndex, LegMask};

/// Records kept, the current one included.
pub const HISTORY_LEN: usize = 16;
/// Of them, the newest that are always kept.
const RECENT: usize = HISTORY_LEN / 2;

/// The last configs, newest first. Never empty: entry 0 is the current config.
///
/// When it is full, the oldest record *of a single leg* beyond the newest eight goes first: the absent leg
/// has never carried one of those, so a holder that restarts many times alone still recognises its peer.
#[derive(Clone, Copy)]
pub struct History {
    entries: [Config; HISTORY_LEN],
    len: usize,
    forgot: Forgot,
}

/// Whether records have been dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forgot {
    Nothing,
    Some,
}

/// What the other side's history is to ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The same current config.
    Equal,
    /// They stopped at `at`, a config that we had too: they are behind us.
    TheyAreAncestor {
        /// Their current config.
        at: ConfigId,
    },
    /// They went on from our current config: we are behind them.
    TheyAreDescendant,
    /// They have never been in a config of this array.
    Newcomer,
    /// Both made a config that the other does not know.
    Split {
        /// The newest config that both know.
        last_shared: Option<ConfigId>,
    },
    /// One side's record is older than everything the other remembers: nobody can tell behind from diverged.
    Unprovable,
}

impl History {
    /// A history of one record.
    pub const fn new(first: Config) -> Self {
        Self { entries: [first; HISTORY_LEN], len: 1, forgot: Forgot::Nothing }
    }

    /// A config of which nobody knows what it follows.
    pub fn of_unknown_past(config: Config) -> Self {
        Self { forgot: Forgot::Some, ..Self::new(config) }
    }

    /// From stored records, newest first, that are all since the array's creation, or not; `None` when empty, too long, or not
    /// falling in generation.
    pub fn from_stored(entries: &[Config], complete: bool) -> Option<Self> {
        let falling = entries.windows(2).all(|pair| pair[0].generation() > pair[1].generation());
        if !falling || entries.len() > HISTORY_LEN {
            return None;
        }
        let mut history = Self::new(*entries.first()?);
        history.entries[..entries.len()].copy_from_slice(entries);
        history.len = entries.len();
        history.forgot = if complete { Forgot::Nothing } else { Forgot::Some };
        Some(history)
    }

    /// The current config.
    pub fn current(&self) -> &Config {
        &self.entries[0]
    }

    /// All records, newest first.
    pub fn entries(&self) -> &[Config] {
        &self.entries[..self.len]
    }

    /// The records that came after `config`, newest first.
    pub fn since(&self, config: &Config) -> &[Config] {
        let newer = self.entries().partition_point(|entry| entry.generation() > config.generation());
        &self.entries()[..newer]
    }

    /// True while every record since the array's creation is kept.
    pub fn is_complete(&self) -> bool {
        self.forgot == Forgot::Nothing
    }

    /// Adds a new current config.
    ///
    /// # Panics
    /// When its generation is not larger than the current one: generations rise in every store (I3).
    pub fn push(&mut self, config: Config) {
        assert!(config.generation() > self.current().generation(), "generations rise in every store");
        if self.len == HISTORY_LEN {
            let dropped = self.entries().iter().rposition(is_single).filter(|&at| at >= RECENT);
            let dropped = dropped.unwrap_or(HISTORY_LEN - 1);
            self.entries.copy_within(dropped + 1.., dropped);
            self.len -= 1;
            self.forgot = Forgot::Some;
        }
        self.entries.copy_within(..self.len, 1);
        self.entries[0] = config;
        self.len += 1;
    }

    /// With the newer records of `line`, which goes on from this one. A record of an unknown past is taken for the next one.
    #[must_use]
    pub fn followed_by(&self, line: &Self) -> Self {
        let mut all = *self;
        line.since(self.current()).iter().rev().for_each(|config| all.push(*config));
        if line.len > 1 && line.forgets(self.current()) {
            all.forgot = Forgot::Some;
        }
        all
    }

    /// What the data of `leg` go back to: all but the newest records that leave it out. `None`: all do.
    pub fn counting(&self, leg: LegIndex) -> Option<Self> {
        let at = self.entries().iter().position(|config| config.in_sync.has(leg))?;
        if at == 0 { Some(*self) } else { Self::from_stored(&self.entries()[at..], self.is_complete()) }
    }

    fn find(&self, wanted: &Config) -> Option<&Config> {
        self.entries().iter().find(|entry| *entry == wanted)
    }

    /// True when a record of this age may have been dropped.
    fn forgets(&self, config: &Config) -> bool {
        let whole_since = self.entries().get(RECENT - 1).unwrap_or(self.current());
        self.forgot == Forgot::Some && config.generation() < whole_since.generation()
    }
}

impl PartialEq for History {
    fn eq(&self, other: &Self) -> bool {
        self.entries() == other.entries() && self.forgot == other.forgot
    }
}

impl Eq for History {}

impl core::fmt::Debug for History {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.entries()).finish()
    }
}

fn is_single(config: &Config) -> bool {
    config.in_sync != LegMask::both() && !config.flags.contains(ConfigFlags::FORCED)
}

/// What `theirs` is to `ours`. Both are of the same array (the caller has compared uuids).
pub fn compare(ours: &History, theirs: &History) -> Relation {
    let (we, they) = (ours.current(), theirs.current());
    if they.generation() == 0 {
        return Relation::Newcomer;
    }
    if we == they {
        return Relation::Equal;
    }
    if we.generation() == 0 {
        return Relation::TheyAreDescendant;
    }
    if ours.find(they).is_some() {
        return Relation::TheyAreAncestor { at: they.id };
    }
    if theirs.find(we).is_some() {
        return Relation::TheyAreDescendant;
    }
    if ours.forgets(they) || theirs.forgets(we) {
        return Relation::Unprovable;
    }
    let last_shared = ours.entries().iter().find_map(|entry| theirs.find(entry)).map(|entry| entry.id);
    Relation::Split { last_shared }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{LegIndex, Reason};

    fn grown(mut history: History, steps: &[(u64, LegMask, Reason)]) -> History {
        for &(nonce, mask, reason) in steps {
            let next = history.current().successor(nonce, LegIndex::Zero, mask, reason);
            history.push(next.expect("generations left"));
        }
        history
    }

    fn start() -> History {
        History::new(Config::first(1, LegIndex::Zero, LegMask::both()))
    }

    #[test]
    fn a_line_is_equal_ancestor_descendant() {
        let old = start();
        let new = grown(old, &[(2, LegMask::ZERO, Reason::LinkLost)]);
        assert_eq!(compare(&old, &old), Relation::Equal);
        assert_eq!(compare(&new, &old), Relation::TheyAreAncestor { at: old.current().id });
        assert_eq!(compare(&old, &new), Relation::TheyAreDescendant);
    }

    #[test]
    fn two_lines_are_split_at_the_last_shared_config() {
        let shared = start();
        let a = grown(shared, &[(2, LegMask::ZERO, Reason::LinkLost)]);
        let b = grown(shared, &[(3, LegMask::ONE, Reason::Promoted)]);
        let split = Relation::Split { last_shared: Some(shared.current().id) };
        assert_eq!((compare(&a, &b), compare(&b, &a)), (split, split));
        let forced = grown(shared, &[(4, LegMask::ONE, Reason::ForcePromoted)]);
        assert_eq!(compare(&a, &forced), split);
        assert!(forced.current().flags.contains(ConfigFlags::FORCED));
        assert!(forced.current().generation() > super::super::config::FORCED_JUMP);
    }

    #[test]
    fn same_generation_with_another_nonce_is_split() {
        let a = grown(start(), &[(2, LegMask::ZERO, Reason::LinkLost)]);
        let b = grown(start(), &[(9, LegMask::ZERO, Reason::LinkLost)]);
        assert!(matches!(compare(&a, &b), Relation::Split { .. }));
    }

    #[test]
    fn newcomers_have_generation_zero() {
        let new = History::new(Config::joining(LegIndex::Zero));
        assert_eq!(compare(&start(), &new), Relation::Newcomer);
        assert_eq!(compare(&new, &start()), Relation::TheyAreDescendant);
        assert_eq!(compare(&new, &new), Relation::Newcomer);
    }

    #[test]
    fn a_peer_is_recognised_after_a_hundred_restarts_alone() {
        let shared = start();
        let steps: Vec<_> = (0..100).map(|i| (i + 2, LegMask::ZERO, Reason::Restarted)).collect();
        let alone = grown(shared, &steps);
        assert_eq!(alone.entries().len(), HISTORY_LEN);
        assert_eq!(compare(&alone, &shared), Relation::TheyAreAncestor { at: shared.current().id });
        assert_eq!(compare(&shared, &alone), Relation::TheyAreDescendant);
    }

    #[test]
    fn what_was_forgotten_is_unprovable_not_split() {
        let shared = start();
        let steps: Vec<_> = (0..40).map(|i| (i + 2, LegMask::both(), Reason::Rejoined)).collect();
        let far = grown(shared, &steps);
        assert_eq!(compare(&far, &shared), Relation::Unprovable);
        assert_eq!(compare(&shared, &far), Relation::Unprovable);
        // What is newer than everything kept for good cannot have been forgotten.
        let b = grown(far, &[(900, LegMask::ONE, Reason::Promoted)]);
        let a = grown(far, &[(901, LegMask::ZERO, Reason::LinkLost)]);
        assert_eq!(compare(&a, &b), Relation::Split { last_shared: Some(far.current().id) });
    }

    #[test]
    fn a_history_goes_on_with_what_another_knows() {
        let old = start();
        let near =
            grown(old, &[(2, LegMask::both(), Reason::Restarted), (3, LegMask::ZERO, Reason::LinkLost)]);
        assert_eq!(near.since(old.current()), &near.entries()[..2]);
        assert_eq!((old.followed_by(&near), near.followed_by(&old)), (near, near));
        let unknown = History::of_unknown_past(*near.current());
        assert_eq!(compare(&old, &unknown), Relation::Unprovable);
        let next = old.followed_by(&unknown);
        assert_eq!((next.entries().len(), next.is_complete()), (2, true), "as if it were the next one");
    }

    #[test]
    fn what_a_cut_list_may_have_lost_is_not_known_to_whoever_goes_on_with_it() {
        let alone = |steps: core::ops::Range<u64>, history| {
            grown(history, &steps.map(|i| (i, LegMask::ZERO, Reason::Restarted)).collect::<Vec<_>>())
        };
        let behind = alone(2..6, start());
        let far = alone(6..100, behind);
        assert!(!far.entries().contains(behind.current()), "dropped: of a single leg");
        let heard = behind.followed_by(&far);
        assert_eq!(heard.current(), far.current());
        assert!(!heard.is_complete());
        let recent = alone(100..103, far);
        assert_eq!(far.followed_by(&recent), recent);
    }

    #[test]
    #[should_panic(expected = "generations rise")]
    fn a_generation_never_falls() {
        let mut history = start();
        history.push(Config::first(7, LegIndex::One, LegMask::both()));
    }
}
