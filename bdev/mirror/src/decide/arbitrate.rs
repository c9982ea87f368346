//! The arbiter's config: when it has to be asked, and what its word says to a node with this superblock.

use super::peer::{PeerVerdict, on_peer};
use crate::format::{ArbiterKind, Config, LegMask, Reason, Superblock};
use crate::leg_state::{LegEvent, after};
use crate::mutation::{Mutation, is_broken};
use crate::probe::LegFound;

/// How the node's own superblock stands to what the arbiter holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They agree.
    Current,
    /// The arbiter has gone on: this is what counts.
    Behind(Config),
    /// A new array that the arbiter has not heard of yet.
    Vacant,
    /// The arbiter does not know the array, and should: it has lost its data, or it is another one.
    Unknown,
    /// The arbiter's config is older than one that this superblock has seen: it was restored from a backup.
    Older,
}

/// Decides on what the arbiter holds.
pub fn standing(own: &Superblock, holds: Option<&Config>) -> Standing {
    let ours = own.config();
    match holds {
        None if ours.generation() <= 1 && ours.reason == Reason::Created => Standing::Vacant,
        None => Standing::Unknown,
        Some(config) if config.id == ours.id => Standing::Current,
        Some(config) if config.generation() > ours.generation() => Standing::Behind(*config),
        Some(_) => Standing::Older,
    }
}

/// What the peer's leg says to a node that is the holder and has no arbiter: the holder took its own failed leg out, and
/// could tell its peer's alone (R8). Nothing else that a peer knows makes a leg of ours count.
pub fn peers_word(own: &Superblock, found: &LegFound) -> Standing {
    match on_peer(own, found) {
        PeerVerdict::StepDown { newer }
            if newer.holder == own.index && newer.in_sync == LegMask::only(own.index.other()) =>
        {
            Standing::Behind(newer)
        }
        _ => Standing::Current,
    }
}

/// The superblock as it would be had it heard of that config. One that has this leg out was made because the leg failed:
/// it says nothing any more about what it misses. One that brings this leg back says that it was about to be whole: what it
/// is only its own superblock would say.
#[must_use]
pub fn informed(own: &Superblock, standing: Standing) -> Superblock {
    let Standing::Behind(config) = standing else { return own.clone() };
    // It may have heard of it since: the holder writes it too.
    if config.generation() <= own.config().generation() {
        return own.clone();
    }
    let mut history = own.history;
    history.push(config);
    let mut informed = own.hearing(&history);
    if !config.in_sync.has(own.index) {
        informed.legs.iter_mut().for_each(|leg| leg.tracked_since = 0);
        let record = &mut informed.legs[own.index.index()];
        record.state = after(record.state, LegEvent::of_exclusion(config.reason));
    } else if !own.is_in_sync() {
        let record = &mut informed.legs[own.index.index()];
        record.state = after(record.state, LegEvent::SyncBegun);
    }
    informed
}

/// Whether a change of what the superblocks say begins at the arbiter (R8): every new config does, where there is one
/// to ask.
pub fn asks_arbiter(arbiter: ArbiterKind, now: &Config, next: &Config) -> bool {
    arbiter == ArbiterKind::Etcd && next.id != now.id && !is_broken(Mutation::R8ActFirst)
}

/// What a swap has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapVerdict {
    /// It has happened.
    Done,
    /// Somebody else went on: this node has lost the array.
    Lost(Config),
    /// The arbiter has an older config than ours, or none: it was restored from a backup. Ask again later.
    Older,
}

/// Decides on the answer to a swap from `now` to `next` that has not happened as asked: `holds` is there.
pub fn on_refused_swap(now: &Config, next: &Config, holds: Option<&Config>) -> SwapVerdict {
    match holds {
        // An earlier answer was lost.
        Some(config) if config.id == next.id => SwapVerdict::Done,
        Some(config) if config.generation() > now.generation() => SwapVerdict::Lost(*config),
        Some(_) | None => SwapVerdict::Older,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tests::example_create;
    use crate::format::{Copy, LegIndex, LegMask, LegState};
    use crate::probe::FoundLeg;

    #[test]
    fn a_config_that_has_the_own_leg_out_leaves_nothing_tracked() {
        let mut own = example_create(LegIndex::Zero).founder(1);
        let first = *own.config();
        let both = first.successor(2, LegIndex::Zero, LegMask::both(), Reason::Rejoined).expect("some left");
        own.history.push(both);
        own.legs.iter_mut().for_each(|leg| leg.tracked_since = 2);
        let next = |holder, in_sync| both.successor(3, holder, in_sync, Reason::IoError).expect("some left");
        for (holder, in_sync) in [LegIndex::Zero, LegIndex::One]
            .into_iter()
            .flat_map(|holder| [LegMask::ZERO, LegMask::ONE, LegMask::both()].map(|mask| (holder, mask)))
        {
            let config = next(holder, in_sync);
            let informed = informed(&own, Standing::Behind(config));
            assert_eq!(*informed.config(), config);
            let tracked = if in_sync.has(LegIndex::Zero) { 2 } else { 0 };
            assert_eq!(informed.legs.map(|leg| leg.tracked_since), [tracked; 2]);
            assert_eq!(informed.own().state == LegState::Faulty, !in_sync.has(LegIndex::Zero));
            let mut theirs = example_create(LegIndex::One).joiner();
            theirs.history = informed.history;
            let (access, newest) = (theirs.features.access(), theirs.seq);
            let leg = FoundLeg { access, superblock: theirs, from: Copy::Slot0, newest };
            let believed = holder == LegIndex::Zero && in_sync == LegMask::ONE;
            let wanted = if believed { Standing::Behind(config) } else { Standing::Current };
            assert_eq!(peers_word(&own, &LegFound::Leg(Box::new(leg))), wanted, "{config:?}");
        }
        assert_eq!(peers_word(&own, &LegFound::Blank), Standing::Current);
    }

    #[test]
    fn a_leg_that_is_out_is_not_whole_because_somebody_counts_it() {
        let mut own = example_create(LegIndex::Zero).founder(1);
        let next =
            |of: &Config, in_sync| of.successor(4, LegIndex::One, in_sync, Reason::Rejoined).expect("left");
        let out = next(own.config(), LegMask::ONE);
        own.history.push(out);
        for state in LegState::ALL.into_iter().filter(|state| *state != LegState::Split) {
            own.legs[0].state = state;
            for in_sync in [LegMask::ZERO, LegMask::both()] {
                let informed = informed(&own, Standing::Behind(next(&out, in_sync)));
                assert_eq!(informed.own().state, LegState::Syncing, "{state:?}");
            }
        }
    }

    /// A node that asks for the array hears of a config from the arbiter and, late, from the holder itself.
    #[test]
    fn a_config_that_is_heard_of_twice_is_one() {
        let own = example_create(LegIndex::One).founder(1);
        let next = own.config().successor(2, LegIndex::Zero, LegMask::both(), Reason::Rejoined);
        let once = informed(&own, Standing::Behind(next.expect("some left")));
        assert_eq!(once.config(), &next.expect("some left"));
        assert_eq!(informed(&once, Standing::Behind(next.expect("some left"))), once);
        assert_eq!(informed(&own, Standing::Current), own);
    }

    #[test]
    fn a_refused_swap_is_done_lost_or_too_old() {
        let older = Config::first(1, LegIndex::Zero, LegMask::both());
        let next = |nonce, from: &Config| {
            from.successor(nonce, LegIndex::Zero, LegMask::ZERO, Reason::LinkLost).expect("some left")
        };
        let now = next(2, &older);
        let (ours, other) = (next(3, &now), next(4, &now));
        assert_eq!(on_refused_swap(&now, &ours, Some(&ours)), SwapVerdict::Done);
        assert_eq!(on_refused_swap(&now, &ours, Some(&other)), SwapVerdict::Lost(other));
        for holds in [None, Some(&older), Some(&now)] {
            assert_eq!(on_refused_swap(&now, &ours, holds), SwapVerdict::Older);
        }
    }

    #[test]
    fn only_new_configs_ask_and_only_where_somebody_answers() {
        let now = Config::first(1, LegIndex::Zero, LegMask::both());
        let next = now.successor(2, LegIndex::Zero, LegMask::ZERO, Reason::LinkLost).expect("some left");
        assert!(asks_arbiter(ArbiterKind::Etcd, &now, &next));
        assert!(!asks_arbiter(ArbiterKind::Etcd, &now, &now));
        for arbiter in [ArbiterKind::Biased, ArbiterKind::Manual] {
            assert!(!asks_arbiter(arbiter, &now, &next));
        }
    }

    #[test]
    fn every_combination_has_one_answer() {
        let mut own = example_create(LegIndex::Zero).founder(1);
        assert_eq!(standing(&own, None), Standing::Vacant);
        assert_eq!(standing(&own, Some(own.config())), Standing::Current);
        let first = *own.config();
        let next = first.successor(7, LegIndex::Zero, LegMask::both(), Reason::Restarted).expect("some left");
        assert_eq!(standing(&own, Some(&next)), Standing::Behind(next));
        own.history.push(next);
        assert_eq!(standing(&own, Some(&first)), Standing::Older);
        assert_eq!(standing(&own, None), Standing::Unknown, "it knew the array once");
        let twin = Config { id: crate::format::ConfigId { nonce: 8, ..next.id }, ..next };
        assert_eq!(standing(&own, Some(&twin)), Standing::Older, "not the one that this superblock has seen");
    }
}
