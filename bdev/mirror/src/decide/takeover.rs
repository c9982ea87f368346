//! What a standby that could take over does with the arbiter's word.

use super::arbitrate::{Standing, having_heard, standing};
use super::promote::PromoteMode;
use crate::format::{Config, History, LegMask, LegState, Reason, Superblock};

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakeoverVerdict {
    /// The arbiter is older than one of the legs: it was restored from a backup. Nothing happens.
    Older,
    /// The arbiter's config was made without what this leg has: the operator chooses (I11).
    Diverged {
        /// What the arbiter holds.
        newer: Config,
    },
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
pub fn on_word(own: &Superblock, line: &History, peer: Option<u64>, mode: PromoteMode) -> TakeoverVerdict {
    let (standing, holds) = (standing(own, Some(line)), line.current());
    // By force the operator says that what the arbiter has from a backup does not count, nor what it says of this leg.
    if mode == PromoteMode::Forced {
        return TakeoverVerdict::Promote(standing);
    }
    if standing == Standing::Older || peer.is_some_and(|peer| peer > holds.generation()) {
        return TakeoverVerdict::Older;
    }
    if let Standing::Diverged { .. } = standing {
        return TakeoverVerdict::Diverged { newer: *holds };
    }
    if holds.holder == own.index && holds.in_sync.has(own.index) {
        return TakeoverVerdict::Ours;
    }
    if !is_counted(own, line) {
        return TakeoverVerdict::NotCounted { newer: *holds };
    }
    TakeoverVerdict::Promote(standing)
}

/// True when the leg is the one that the arbiter's config counts, and all of those that it has not heard of, with everything that was
/// acknowledged in it.
pub(super) fn is_counted(own: &Superblock, line: &History) -> bool {
    let whole = having_heard(own, line).own().state == LegState::InSync;
    line.current().in_sync.has(own.index) && !missed_a_return(own, line) && whole
}

/// True when a leg came back in sync without this superblock having heard that one was out: whichever leg it was, this one
/// was told before a byte was copied.
pub(super) fn missed_a_return(own: &Superblock, line: &History) -> bool {
    let unheard = line.since(own.config());
    own.config().in_sync == LegMask::both() && unheard.iter().any(|config| config.reason == Reason::Rejoined)
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
        let word = |holds: &[Config], peer| on_word(&own, &line(holds), peer, PromoteMode::Ordinary);
        assert_eq!(word(&[both], None), TakeoverVerdict::Promote(Standing::Current));
        assert_eq!(word(&[both], Some(1)), TakeoverVerdict::Promote(Standing::Current));
        assert_eq!(word(&[both], Some(2)), TakeoverVerdict::Older);
        let without = next(LegMask::ZERO, LegIndex::Zero);
        assert_eq!(word(&[without, both], None), TakeoverVerdict::NotCounted { newer: without });
        let back = Config { reason: Reason::Rejoined, ..next(LegMask::both(), LegIndex::Zero) };
        let unheard = TakeoverVerdict::NotCounted { newer: back };
        assert_eq!(word(&[back, both], None), unheard, "it never heard that it was out");
        let behind = Standing::Behind(Box::new(line(&[without, both])));
        let forced = on_word(&own, &line(&[without, both]), None, PromoteMode::Forced);
        assert_eq!(forced, TakeoverVerdict::Promote(behind));
        let named = next(LegMask::both(), LegIndex::One);
        assert_eq!(word(&[named, both], None), TakeoverVerdict::Ours);
        own.history.push(without);
        assert_eq!(on_word(&own, &line(&[both]), None, PromoteMode::Ordinary), TakeoverVerdict::Older);
        let forced = on_word(&own, &line(&[both]), None, PromoteMode::Forced);
        assert_eq!(forced, TakeoverVerdict::Promote(Standing::Older));
    }

    fn line(newest_first: &[Config]) -> History {
        History::from_stored(newest_first, true).expect("falling generations")
    }

    /// What its superblock has not heard of is known from the arbiter's list alone.
    #[test]
    fn a_leg_is_counted_by_every_config_that_it_has_not_heard_of() {
        let mut own = example_create(LegIndex::One).joiner();
        let both = Config::first(1, LegIndex::Zero, LegMask::both());
        own.history = History::new(both);
        own.legs[own.index.index()].state = LegState::InSync;
        let next = |of: &Config, in_sync, reason| {
            of.successor(of.id.nonce + 1, LegIndex::Zero, in_sync, reason).expect("some left")
        };
        let word = |holds: &History| on_word(&own, holds, None, PromoteMode::Ordinary);
        let counted = next(&both, LegMask::both(), Reason::Restarted);
        let again = next(&counted, LegMask::both(), Reason::Restarted);
        let all = line(&[again, counted, both]);
        assert_eq!(word(&all), TakeoverVerdict::Promote(Standing::Behind(Box::new(all))));
        let out = next(&both, LegMask::ZERO, Reason::LinkLost);
        let back = next(&out, LegMask::both(), Reason::Rejoined);
        let restarted = next(&back, LegMask::both(), Reason::Restarted);
        let not_counted = TakeoverVerdict::NotCounted { newer: restarted };
        assert_eq!(word(&line(&[restarted, back, out, both])), not_counted, "it was set back");
        let unknown = History::of_unknown_past(restarted);
        assert_eq!(word(&unknown), TakeoverVerdict::Promote(Standing::Behind(Box::new(unknown))));
    }

    #[test]
    fn a_leg_that_the_arbiters_config_does_not_follow_is_the_operators() {
        let mut own = example_create(LegIndex::One).joiner();
        let both = Config::first(1, LegIndex::Zero, LegMask::both());
        let next = |nonce, holder, reason| both.successor(nonce, holder, LegMask::both(), reason);
        let unknown = next(2, LegIndex::Zero, Reason::Restarted).expect("some left");
        own.history = History::new(both);
        own.history.push(unknown);
        own.legs[own.index.index()].state = LegState::InSync;
        for holder in LegIndex::BOTH {
            let forced = next(3, holder, Reason::ForcePromoted).expect("some left");
            let holds = line(&[forced, both]);
            let verdict = on_word(&own, &holds, None, PromoteMode::Ordinary);
            assert_eq!(verdict, TakeoverVerdict::Diverged { newer: forced });
            let (line, last_shared) = (Box::new(holds), Some(both.id));
            let verdict = on_word(&own, &holds, None, PromoteMode::Forced);
            assert_eq!(verdict, TakeoverVerdict::Promote(Standing::Diverged { line, last_shared }));
        }
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
            let verdict = on_word(&own, &line(&[both, alone]), None, PromoteMode::Ordinary);
            assert_eq!(verdict, TakeoverVerdict::NotCounted { newer: both }, "{state:?}");
        }
    }
}
