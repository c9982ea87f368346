//! Whether this node may become the holder by the operator's hand (I10).

use thiserror::Error;

use super::arbitrate::{Standing, informed};
use super::takeover::is_counted;
use crate::format::config::{FORCED_JUMP, GENERATION_MAX};
use crate::format::{Config, History, LegState, Reason, Superblock};
use crate::mutation::{Mutation, is_broken};

/// How the operator asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PromoteMode {
    /// Only if nothing acknowledged can be missing.
    Ordinary,
    /// Even if acknowledged writes are missing: the other side will be `split`.
    Forced,
}

/// The old holder's session on our leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HolderSession {
    /// It is there and answers.
    Alive,
    /// There is none, or it does not answer.
    Absent,
}

/// What the operator says about the old holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HolderState {
    /// Nothing.
    Unknown,
    /// It is down.
    ConfirmedDown,
}

/// How old the data is that the new holder serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DataAge {
    /// Every acknowledged write is there.
    #[default]
    Current,
    /// As far as this node can tell: nobody who would know has been asked.
    Unproven,
    /// A moment in the past: later acknowledged writes are missing.
    Past,
    /// A mixture of old and new, from a copy that was cut off: file systems on it need a check.
    Mixed,
}

/// A promotion that may go ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Promotion {
    /// The new generation: fence the own leg with it first.
    pub generation: u64,
    /// What is served.
    pub data: DataAge,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum PromoteRefusal {
    /// Nothing to do.
    #[error("this node is the holder already")]
    AlreadyHolder,
    /// The old holder is at work.
    #[error("the holder is alive and connected to this node: stop it first, or confirm that it is down")]
    HolderAlive,
    /// The leg may miss acknowledged writes.
    #[error(
        "this node's leg is not in sync and may miss acknowledged writes: start the other node, or use force and lose them"
    )]
    NotInSync,
    /// The leg has never held the array's data.
    #[error("this node's leg has never held the array's data")]
    NoData,
    /// The leg's history diverged.
    #[error("the two legs have diverged: choose one side by hand")]
    Split,
    /// No generation left.
    #[error("the array has used up its generations: copy the data to a new array")]
    GenerationsExhausted,
}

/// Decides on a promotion of the node with superblock `own`, with the arbiter's word.
///
/// # Errors
/// The first reason against it.
pub fn may_promote(
    own: &Superblock,
    standing: &Standing,
    mode: PromoteMode,
    session: HolderSession,
    holder: HolderState,
) -> Result<Promotion, PromoteRefusal> {
    let own = &informed(own, standing);
    let config = own.config();
    let elsewhere = if let Standing::Diverged { line, .. } = standing { Some(line.current()) } else { None };
    if config.generation() == 0 || matches!(own.own().state, LegState::Spare | LegState::Joining) {
        return Err(PromoteRefusal::NoData);
    }
    let named = config.holder == own.index && own.is_in_sync() && elsewhere.is_none();
    if named && mode == PromoteMode::Ordinary {
        return Err(PromoteRefusal::AlreadyHolder);
    }
    if session == HolderSession::Alive && holder == HolderState::Unknown {
        return Err(PromoteRefusal::HolderAlive);
    }
    let data = data_age(own).max(elsewhere.map_or(DataAge::Current, |_| DataAge::Past));
    let split = own.own().state == LegState::Split || elsewhere.is_some();
    if mode == PromoteMode::Ordinary && split {
        return Err(PromoteRefusal::Split);
    }
    if mode == PromoteMode::Ordinary && data != DataAge::Current {
        return Err(PromoteRefusal::NotInSync);
    }
    let jump = if mode == PromoteMode::Forced { FORCED_JUMP } else { 1 };
    let seen = config.generation().max(elsewhere.map_or(0, Config::generation));
    let generation = seen.max(own.fence.generation) + jump;
    if generation > GENERATION_MAX {
        return Err(PromoteRefusal::GenerationsExhausted);
    }
    Ok(Promotion { generation, data })
}

/// What the superblock says from which a holder begins that comes by this reason, with the arbiter's word.
///
/// By force a node goes on without what was acknowledged in configs that have its leg out, or count it as it is not: those
/// are none of its history, whoever told it of them, so that the two lines are seen to have diverged, and nothing is
/// overwritten (I11).
#[must_use]
pub fn begins_from(own: &Superblock, standing: &Standing, reason: Reason) -> Superblock {
    if reason != Reason::ForcePromoted || is_broken(Mutation::ForceTakesAll) {
        return informed(own, standing);
    }
    let mut line = match standing {
        Standing::Behind(line) if is_counted(own, line) => informed(own, standing),
        _ => own.clone(),
    };
    // A leg that its config counts, and that is not what was counted, may be of any age.
    let lacks = line.is_in_sync() && !matches!(own.own().state, LegState::InSync | LegState::Split);
    line.history = line.history.counting(own.index).filter(|_| !lacks).unwrap_or_else(|| {
        line.legs.iter_mut().for_each(|leg| leg.tracked_since = 0);
        History::new(Config::joining(own.index))
    });
    line
}

fn data_age(own: &Superblock) -> DataAge {
    match own.own().state {
        LegState::Syncing => DataAge::Mixed,
        LegState::InSync if own.is_in_sync() => DataAge::Current,
        _ => DataAge::Past,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tests::example_create;
    use crate::format::{LegIndex, LegMask};

    /// Configs of node 0: both, then itself alone, then both again.
    fn configs() -> [Config; 3] {
        let both = Config::first(1, LegIndex::Zero, LegMask::both());
        let next = |of: &Config, in_sync, reason| {
            of.successor(of.id.nonce + 1, LegIndex::Zero, in_sync, reason).expect("some left")
        };
        let alone = next(&both, LegMask::ZERO, Reason::LinkLost);
        [both, alone, next(&alone, LegMask::both(), Reason::Rejoined)]
    }

    /// The superblock of leg 1, in this state, that has heard of so many of them.
    fn one(heard: usize, state: LegState) -> Superblock {
        let mut own = example_create(LegIndex::One).joiner();
        own.history = History::new(configs()[0]);
        configs()[1..heard].iter().for_each(|config| own.history.push(*config));
        own.legs[1].state = state;
        own
    }

    #[test]
    fn by_force_nothing_is_history_that_the_leg_did_not_take_part_in() {
        let [both, alone, again] = configs();
        let tip = |own: &Superblock, standing| *begins_from(own, &standing, Reason::ForcePromoted).config();
        let behind = |newest_first: &[Config]| Standing::Behind(Box::new(line(newest_first)));
        for state in [LegState::Syncing, LegState::Stale, LegState::Missing, LegState::Faulty] {
            assert_eq!(tip(&one(2, state), Standing::Current), both, "its own superblock heard of it");
            // The arbiter was told first (R8): the holder may have gone on alone all the same.
            assert_eq!(tip(&one(2, state), behind(&[again, alone, both])), both);
            let lost = begins_from(&one(1, state), &Standing::Current, Reason::ForcePromoted);
            assert_eq!(lost.config().generation(), 0, "it is of any age");
            assert_eq!(lost.legs.map(|leg| leg.tracked_since), [0; 2]);
        }
        assert_eq!(tip(&one(1, LegState::InSync), Standing::Current), both);
        assert_eq!(tip(&one(1, LegState::InSync), behind(&[alone, both])), both);
        assert_eq!(tip(&one(1, LegState::InSync), behind(&[again, alone, both])), both, "it was set back");
        assert_eq!(tip(&one(3, LegState::InSync), Standing::Current), again);
        let restarted = both.successor(9, LegIndex::Zero, LegMask::both(), Reason::Restarted);
        let restarted = restarted.expect("some left");
        assert_eq!(tip(&one(1, LegState::InSync), behind(&[restarted, both])), restarted);
        let elsewhere = Standing::Diverged { line: Box::new(line(&[alone])), last_shared: None };
        assert_eq!(tip(&one(3, LegState::InSync), elsewhere), again, "that is none of its history");
    }

    fn line(newest_first: &[Config]) -> History {
        History::from_stored(newest_first, true).expect("falling generations")
    }

    /// A second promotion by force is above the first, whose line it does not take part in.
    #[test]
    fn a_node_that_has_diverged_is_promoted_by_force_alone_and_above_what_the_arbiter_has() {
        let [both, ..] = configs();
        let own = one(3, LegState::InSync);
        let forced = both.successor(5, LegIndex::Zero, LegMask::ZERO, Reason::ForcePromoted).expect("left");
        let elsewhere =
            Standing::Diverged { line: Box::new(line(&[forced, both])), last_shared: Some(both.id) };
        let asked =
            |mode| may_promote(&own, &elsewhere, mode, HolderSession::Absent, HolderState::ConfirmedDown);
        assert_eq!(asked(PromoteMode::Ordinary), Err(PromoteRefusal::Split));
        let promotion = asked(PromoteMode::Forced).expect("the operator said so");
        assert_eq!(promotion.generation, forced.generation() + FORCED_JUMP);
        assert_eq!(promotion.data, DataAge::Past);
    }

    #[test]
    fn otherwise_the_arbiters_word_is_history() {
        let [both, alone, _] = configs();
        for reason in Reason::ALL.into_iter().filter(|reason| *reason != Reason::ForcePromoted) {
            let own = one(1, LegState::InSync);
            let behind = Standing::Behind(Box::new(line(&[alone, both])));
            assert_eq!(*begins_from(&own, &behind, reason).config(), alone);
            assert_eq!(begins_from(&own, &Standing::Current, reason), own);
        }
    }
}
