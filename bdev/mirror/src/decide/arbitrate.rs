//! The arbiter's config: when it has to be asked, and what its word says to a node with this superblock.

use bdev::FenceKey;

use super::peer::{PeerVerdict, on_peer};
use crate::format::config::FORCED_JUMP;
use crate::format::{ArbiterKind, Config, ConfigId, History, LegMask, Reason, Relation, Superblock, compare};
use crate::leg_state::{LegEvent, after};
use crate::mutation::{Mutation, is_broken};
use crate::probe::LegFound;

/// How the node's own superblock stands to what the arbiter holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They agree.
    Current,
    /// The arbiter has gone on from it, as far as anybody can tell: this is what counts, and what it follows.
    Behind(Box<History>),
    /// The arbiter has gone on, and not from it: its config was made without those that this superblock has seen.
    Diverged {
        /// What the arbiter holds.
        line: Box<History>,
        /// The newest config that both know.
        last_shared: Option<ConfigId>,
    },
    /// A new array that the arbiter has not heard of yet.
    Vacant,
    /// The arbiter does not know the array, and should: it has lost its data, or it is another one.
    Unknown,
    /// The arbiter's config is older than one that this superblock has seen, or than one whose holder has fenced this leg: it was
    /// restored from a backup.
    Older,
}

/// Decides on what the arbiter holds.
pub fn standing(own: &Superblock, holds: Option<&History>) -> Standing {
    let ours = own.config();
    let Some(line) = holds else {
        let is_new = ours.generation() <= 1 && ours.reason == Reason::Created;
        return if is_new { Standing::Vacant } else { Standing::Unknown };
    };
    let config = line.current();
    if is_older_than_fence(own, config) {
        return Standing::Older;
    }
    if config.id == ours.id {
        return Standing::Current;
    }
    if config.generation() <= ours.generation() {
        return Standing::Older;
    }
    match compare(&own.history, line) {
        Relation::Split { last_shared } => Standing::Diverged { line: Box::new(*line), last_shared },
        _ => Standing::Behind(Box::new(*line)),
    }
}

/// True when the peer has fenced this leg as the holder of a newer config than this one, which counts the leg.
///
/// A holder fences its peer's leg when the arbiter has its config (R8): a member's at the generation of that config, and one that
/// is out at a newer one, below the next config that counts it. So nothing that counts this leg is older than the fence, while the
/// arbiter has all that it was told. But a promotion of this node by force outranks a holder that has yet to hear of it and fences the
/// leg meanwhile: that one has no generation so far up.
fn is_older_than_fence(own: &Superblock, config: &Config) -> bool {
    let by_force = config.holder == own.index && config.reason == Reason::ForcePromoted;
    let above = if by_force { FORCED_JUMP } else { 1 };
    let older = peers_fence(own) >= config.generation().saturating_add(above);
    older && config.in_sync.has(own.index) && !is_broken(Mutation::FenceUnheard)
}

/// The generation in which the peer has fenced this leg, if it was the last one to do so.
fn peers_fence(own: &Superblock) -> u64 {
    let FenceKey { node, generation } = own.fence;
    if node == own.index.other().number() { generation } else { 0 }
}

/// The newest generation that this leg knows to be the holder's: an arbiter that is older was restored from a backup.
pub fn seen_by(own: &Superblock) -> u64 {
    own.config().generation().max(peers_fence(own))
}

/// What the peer's leg says to a node that is the holder and has no arbiter: the holder took its own failed leg out, and
/// could tell its peer's alone (R8). Nothing else that a peer knows makes a leg of ours count.
pub fn peers_word(own: &Superblock, found: &LegFound) -> Standing {
    let LegFound::Leg(leg) = found else { return Standing::Current };
    match on_peer(own, found) {
        PeerVerdict::StepDown { newer }
            if newer.holder == own.index && newer.in_sync == LegMask::only(own.index.other()) =>
        {
            Standing::Behind(Box::new(leg.superblock.history))
        }
        _ => Standing::Current,
    }
}

/// The superblock as it would be had it heard of what counts.
#[must_use]
pub fn informed(own: &Superblock, standing: &Standing) -> Superblock {
    match standing {
        Standing::Behind(line) => having_heard(own, line),
        Standing::Current
        | Standing::Diverged { .. }
        | Standing::Vacant
        | Standing::Unknown
        | Standing::Older => own.clone(),
    }
}

/// The superblock as it would be had it heard of each config of that line, one after the other; of some it may have heard since: the
/// holder writes it too. One that has this leg out was made because the leg failed: it says nothing any more about what it
/// misses. One that brings this leg back says that it was about to be whole: what it is only its own superblock would say.
///
/// A leg comes back by a config that says so. Where the next one counts it for another reason, the one without it never took effect:
/// its holder lost the peer before anybody went by it, and gave the peer up in its place.
pub(super) fn having_heard(own: &Superblock, line: &History) -> Superblock {
    let mut informed = own.hearing(&own.history.followed_by(line));
    let mut counted = own.is_in_sync();
    let mut before = None;
    for config in line.since(own.config()).iter().rev() {
        let counts = config.in_sync.has(own.index);
        if counts
            && !counted
            && config.reason != Reason::Rejoined
            && let Some(legs) = before.take()
        {
            informed.legs = legs;
            counted = true;
        }
        if counted && !counts {
            before = Some(informed.legs);
        }
        if !counts {
            informed.legs.iter_mut().for_each(|leg| leg.tracked_since = 0);
        }
        let record = &mut informed.legs[own.index.index()];
        record.state = match (counted, counts) {
            (_, false) => after(record.state, LegEvent::of_exclusion(config.reason)),
            (false, true) => after(record.state, LegEvent::SyncBegun),
            (true, true) => record.state,
        };
        counted = counts;
    }
    informed
}

/// Whether a change of what the superblocks say begins at the arbiter (R8): every new config does, where there is one
/// to ask.
pub fn asks_arbiter(arbiter: ArbiterKind, now: &Config, next: &Config) -> bool {
    let leaves_out = next.in_sync != now.in_sync && now.in_sync.contains(next.in_sync);
    let unasked = leaves_out && is_broken(Mutation::R8ActFirst);
    arbiter == ArbiterKind::Etcd && next.id != now.id && !unasked
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
            let informed = informed(&own, &behind(&own, &[config]));
            assert_eq!(*informed.config(), config);
            let tracked = if in_sync.has(LegIndex::Zero) { 2 } else { 0 };
            assert_eq!(informed.legs.map(|leg| leg.tracked_since), [tracked; 2]);
            assert_eq!(informed.own().state == LegState::Faulty, !in_sync.has(LegIndex::Zero));
            let mut theirs = example_create(LegIndex::One).joiner();
            theirs.history = informed.history;
            let (access, newest) = (theirs.features.access(), theirs.seq);
            let leg = FoundLeg { access, superblock: theirs, from: Copy::Slot0, newest };
            let believed = holder == LegIndex::Zero && in_sync == LegMask::ONE;
            let wanted = if believed { behind(&own, &[config]) } else { Standing::Current };
            assert_eq!(peers_word(&own, &LegFound::Leg(Box::new(leg))), wanted, "{config:?}");
        }
        assert_eq!(peers_word(&own, &LegFound::Blank), Standing::Current);
    }

    /// The arbiter has gone on with these, the oldest first.
    fn behind(own: &Superblock, configs: &[Config]) -> Standing {
        let mut line = own.history;
        configs.iter().for_each(|config| line.push(*config));
        Standing::Behind(Box::new(line))
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
                let informed = informed(&own, &behind(&own, &[next(&out, in_sync)]));
                assert_eq!(informed.own().state, LegState::Syncing, "{state:?}");
            }
        }
    }

    /// The holder's superblock, while both legs are in sync and each says what the other one may lack.
    fn whole_and_tracked() -> Superblock {
        let mut own = example_create(LegIndex::Zero).founder(1);
        own.legs.iter_mut().for_each(|leg| (leg.state, leg.tracked_since) = (LegState::InSync, 1));
        own
    }

    /// The holder's next config.
    fn followed(of: &Config, in_sync: LegMask, reason: Reason) -> Config {
        of.successor(of.id.nonce + 1, LegIndex::Zero, in_sync, reason).expect("some left")
    }

    /// It is told of its being out, and of its coming back, at once: what it lacks it has not written down.
    #[test]
    fn a_leg_that_was_out_without_hearing_of_it_is_not_whole() {
        let mut own = whole_and_tracked();
        let both = followed(own.config(), LegMask::both(), Reason::Rejoined);
        own.history.push(both);
        let out = followed(&both, LegMask::ONE, Reason::IoError);
        let back = followed(&out, LegMask::both(), Reason::Rejoined);
        let informed = informed(&own, &behind(&own, &[out, back]));
        assert_eq!(informed.history.entries(), [back, out, both, own.history.entries()[1]]);
        assert_eq!((informed.own().state, informed.own().tracked_since), (LegState::Syncing, 0));
    }

    /// The holder's leg failed, the peer was lost before it was told, and was given up in its place: nobody went by the first of the two.
    #[test]
    fn a_config_that_never_took_effect_takes_nothing_from_a_leg() {
        let mut own = whole_and_tracked();
        own.history.push(followed(own.config(), LegMask::both(), Reason::Rejoined));
        let out = followed(own.config(), LegMask::ONE, Reason::IoError);
        let alone = followed(&out, LegMask::ZERO, Reason::LinkLost);
        let informed = informed(&own, &behind(&own, &[out, alone]));
        assert_eq!(
            (informed.own().state, informed.legs.map(|leg| leg.tracked_since)),
            (LegState::InSync, [1; 2])
        );
    }

    /// A node that asks for the array hears of a config from the arbiter and, late, from the holder itself.
    #[test]
    fn a_config_that_is_heard_of_twice_is_one() {
        let own = example_create(LegIndex::One).founder(1);
        let next = own.config().successor(2, LegIndex::Zero, LegMask::both(), Reason::Rejoined);
        let behind = behind(&own, &[next.expect("some left")]);
        let once = informed(&own, &behind);
        assert_eq!(once.config(), &next.expect("some left"));
        assert_eq!(informed(&once, &behind), once);
        assert_eq!(informed(&own, &Standing::Current), own);
    }

    /// The peer has fenced this leg, and the arbiter's config counts it: in the generation of a newer one, or by the way of one.
    #[test]
    fn an_arbiter_that_counts_a_leg_is_not_older_than_the_peers_fence_on_it() {
        let base = whole_and_tracked();
        let newer = |in_sync, reason| followed(base.config(), in_sync, reason);
        let word = |node: LegIndex, generation, config: Config| {
            let mut own = base.clone();
            own.fence = FenceKey { node: node.number(), generation };
            let mut line = own.history;
            line.push(config);
            standing(&own, Some(&line))
        };
        let rejoined = newer(LegMask::both(), Reason::Rejoined);
        let at = rejoined.generation();
        for (node, generation, older) in [
            (LegIndex::One, at, false),
            (LegIndex::One, at + 1, true),
            (LegIndex::One, FenceKey::GENERATION_MAX, true),
            (LegIndex::Zero, at + 1, false),
        ] {
            assert_eq!(word(node, generation, rejoined) == Standing::Older, older, "{node:?} {generation}");
        }
        let without = newer(LegMask::ONE, Reason::IoError);
        assert_ne!(word(LegIndex::One, at + 1, without), Standing::Older, "it says so itself");
        let alone = newer(LegMask::ZERO, Reason::LinkLost);
        assert_eq!(word(LegIndex::One, at + 1, alone), Standing::Older);
        let forced = newer(LegMask::ZERO, Reason::ForcePromoted);
        let at = forced.generation();
        assert_ne!(word(LegIndex::One, at + 1, forced), Standing::Older, "that one had yet to hear of it");
        assert_eq!(word(LegIndex::One, at + FORCED_JUMP, forced), Standing::Older, "by force as well");
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
        let first = own.history;
        assert_eq!(standing(&own, None), Standing::Vacant);
        assert_eq!(standing(&own, Some(&first)), Standing::Current);
        let next = |nonce, of: &History, reason| {
            let next = of.current().successor(nonce, LegIndex::Zero, LegMask::both(), reason);
            let mut line = *of;
            line.push(next.expect("some left"));
            line
        };
        let second = next(7, &first, Reason::Restarted);
        let third = next(9, &second, Reason::Restarted);
        for line in [second, third, History::of_unknown_past(*third.current())] {
            assert_eq!(standing(&own, Some(&line)), Standing::Behind(Box::new(line)));
        }
        own.history = second;
        assert_eq!(standing(&own, Some(&first)), Standing::Older);
        assert_eq!(standing(&own, None), Standing::Unknown, "it knew the array once");
        let twin = next(8, &first, Reason::Restarted);
        assert_eq!(standing(&own, Some(&twin)), Standing::Older, "not the one that this superblock has seen");
        for line in [next(9, &twin, Reason::Restarted), next(9, &first, Reason::ForcePromoted)] {
            let last_shared = Some(first.current().id);
            assert_eq!(standing(&own, Some(&line)), Standing::Diverged { line: Box::new(line), last_shared });
        }
        own.history = History::new(Config::joining(LegIndex::One));
        assert_eq!(standing(&own, Some(&third)), Standing::Behind(Box::new(third)), "it is new");
    }

    /// So many configs later nobody knows whether it followed: as long as the arbiter's list reaches back, it does not matter.
    #[test]
    fn a_list_that_is_cut_says_nothing_of_what_is_older() {
        let mut own = example_create(LegIndex::One).founder(1);
        let mut line = own.history;
        for nonce in 2..40 {
            let next = line.current().successor(nonce, LegIndex::Zero, LegMask::both(), Reason::Restarted);
            line.push(next.expect("some left"));
        }
        assert!(!line.is_complete());
        assert_eq!(standing(&own, Some(&line)), Standing::Behind(Box::new(line)));
        let known = Config { id: ConfigId { generation: 35, nonce: 99 }, ..*line.current() };
        own.history = History::new(known);
        assert!(
            matches!(standing(&own, Some(&line)), Standing::Diverged { .. }),
            "that one is not forgotten"
        );
    }
}
