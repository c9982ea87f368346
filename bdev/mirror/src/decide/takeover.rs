//! What a standby that could take over does with the arbiter's word.

use super::arbitrate::{Standing, standing};
use super::promote::PromoteMode;
use crate::format::{Config, LegMask, LegState, Reason, Superblock};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeoverVerdict {
    /// The arbiter is older than one of the legs: it was restored from a backup. Nothing happens.
    Older,
    /// The array is this node's: it served, and looks at its own log before it does again.
    Ours,
    /// The config counts this leg out, or what it was before it was set back, or its own superblock does not say that
    /// it is in sync again: it may miss acknowledged writes.
    NotCounted {
        /// What the arbiter holds.
        newer: Config,
    },
    /// Promote from this config: fence the own leg, then ask for the next one.
    Promote(Standing),
}

/// Decides for the node with superblock `own`; `peer` is the generation of the config that was seen on the peer's leg.
pub fn on_word(own: &Superblock, holds: &Config, peer: Option<u64>, mode: PromoteMode) -> TakeoverVerdict {
    let standing = standing(own, Some(holds));
    // By force the operator says that what the arbiter has from a backup does not count, nor what it says of this leg.
    if mode == PromoteMode::Forced {
        return TakeoverVerdict::Promote(standing);
    }
    if standing == Standing::Older || peer.is_some_and(|peer| peer > holds.generation()) {
        return TakeoverVerdict::Older;
    }
    if holds.holder == own.index && holds.in_sync.has(own.index) {
        return TakeoverVerdict::Ours;
    }
    if !is_counted(own, holds) {
        return TakeoverVerdict::NotCounted { newer: *holds };
    }
    TakeoverVerdict::Promote(standing)
}

/// True when the leg is the one that the arbiter's config counts, with everything that was acknowledged in it.
pub(super) fn is_counted(own: &Superblock, holds: &Config) -> bool {
    holds.in_sync.has(own.index) && !is_set_back(own, holds) && own.own().state == LegState::InSync
}

/// True when a leg came back in sync without this superblock having heard that one was out: whichever leg it was, this one
/// was told before a byte was copied.
fn is_set_back(own: &Superblock, holds: &Config) -> bool {
    let behind = own.config().generation() < holds.generation();
    behind && holds.reason == Reason::Rejoined && own.config().in_sync == LegMask::both()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tests::example_create;
    use crate::format::{History, LegIndex};

    #[test]
    fn every_word_has_one_answer() {
        let mut own = example_create(LegIndex::One).joiner();
        let both = Config::first(1, LegIndex::Zero, LegMask::both());
        own.history = History::new(both);
        own.legs[own.index.index()].state = LegState::InSync;
        let next = |in_sync, holder| both.successor(2, holder, in_sync, Reason::LinkLost).expect("some left");
        let word = |holds: &Config, peer| on_word(&own, holds, peer, PromoteMode::Ordinary);
        assert_eq!(word(&both, None), TakeoverVerdict::Promote(Standing::Current));
        assert_eq!(word(&both, Some(1)), TakeoverVerdict::Promote(Standing::Current));
        assert_eq!(word(&both, Some(2)), TakeoverVerdict::Older);
        let without = next(LegMask::ZERO, LegIndex::Zero);
        assert_eq!(word(&without, None), TakeoverVerdict::NotCounted { newer: without });
        let back = Config { reason: Reason::Rejoined, ..next(LegMask::both(), LegIndex::Zero) };
        assert_eq!(
            word(&back, None),
            TakeoverVerdict::NotCounted { newer: back },
            "it never heard that it was out"
        );
        let forced = on_word(&own, &without, None, PromoteMode::Forced);
        assert_eq!(forced, TakeoverVerdict::Promote(Standing::Behind(without)));
        assert_eq!(word(&next(LegMask::both(), LegIndex::One), None), TakeoverVerdict::Ours);
        own.history.push(without);
        assert_eq!(on_word(&own, &both, None, PromoteMode::Ordinary), TakeoverVerdict::Older);
        let forced = on_word(&own, &both, None, PromoteMode::Forced);
        assert_eq!(forced, TakeoverVerdict::Promote(Standing::Older));
    }

    /// The arbiter was told first (R8), and the holder died before either leg was: its leg counted alone until then, and
    /// may have what this one failed to take meanwhile.
    #[test]
    fn a_leg_that_has_not_heard_that_it_is_in_sync_does_not_take_over() {
        let mut own = example_create(LegIndex::One).joiner();
        let alone = Config::first(1, LegIndex::Zero, LegMask::ZERO);
        own.history = History::new(alone);
        let both = alone.successor(2, LegIndex::Zero, LegMask::both(), Reason::Rejoined).expect("some left");
        for state in [LegState::Syncing, LegState::Stale, LegState::Missing, LegState::Faulty] {
            own.legs[own.index.index()].state = state;
            let verdict = on_word(&own, &both, None, PromoteMode::Ordinary);
            assert_eq!(verdict, TakeoverVerdict::NotCounted { newer: both }, "{state:?}");
        }
    }
}
