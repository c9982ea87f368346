//! What the holder does with the leg that it finds at its peer, at every (re)connect: identity and generation
//! are checked before a byte of it is believed.

use thiserror::Error;

use crate::format::layout::LayoutError;
use crate::format::{Access, Config, ConfigId, LegFlags, LegMask, LegRecord, Relation, Superblock, compare};
use crate::mutation::{Mutation, is_broken};
use crate::probe::{LegFound, ProbeError};

/// What to do with the peer's leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerVerdict {
    /// The config counts it in sync, it is the leg that we know, and it lost no cache: it carries every
    /// acknowledged write.
    Member,
    /// Fence it at a new generation, then bring it in sync.
    Resync(SyncPlan),
    /// The peer went on without us: stop, become standby, wait for its resync.
    StepDown {
        /// The peer's config.
        newer: Config,
    },
    /// Both went on without the other: report it, touch nothing (I11).
    Split {
        /// The newest config that both know.
        last_shared: Option<ConfigId>,
    },
    /// Not a leg that may be touched.
    Refuse(Refusal),
}

/// How to bring a leg in sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SyncPlan {
    /// Copy what is set in the union of our bitmap, our log, its bitmap and its log.
    Delta,
    /// Copy everything.
    Full(FullReason),
}

/// Why everything has to be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum FullReason {
    /// A new leg in a vacant place, and not both were zeroed when created.
    #[error("the leg is new")]
    NewLeg,
    /// Another leg than the one that was here.
    #[error("the leg replaces another one")]
    Replaced,
    /// The bitmap does not go back to when the leg was in sync.
    #[error("changes were not tracked since the leg was last in sync")]
    NotTracked,
    /// Its superblock is older than one that we have seen of it.
    #[error("the leg was set back to an older state")]
    Reverted,
    /// The operator wants it so.
    #[error("the operator asked for a copy of everything")]
    Ordered,
}

/// Why the peer's leg is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Nothing is there: its own node formats it.
    #[error("the peer's leg is blank: let its node join the array first")]
    Blank,
    /// Foreign, damaged, of another array, or unusable.
    #[error("the peer's leg: {0}")]
    Probe(ProbeError),
    /// A copy of our own leg, or our own leg itself over a loop.
    #[error("the peer's leg is a copy of ours: check what the peer exports")]
    Clone,
    /// Not the other place of the array.
    #[error(
        "the peer's leg takes the same place in the array as ours: one of the two nodes is configured wrongly"
    )]
    SamePlace,
    /// Data size, block size or log differ.
    #[error("the peer's leg has another geometry than the array")]
    Geometry,
    /// It cannot take all that the array writes.
    #[error("the peer's leg: {0}")]
    Blocks(LayoutError),
    /// Newer features: it may not be written.
    #[error("the peer's leg has features {ro_compat:#x} that this program may not write: use a newer one")]
    ReadOnly {
        /// The unknown features.
        ro_compat: u32,
    },
    /// History too short to tell behind from diverged.
    #[error(
        "the histories do not reach back far enough to prove that the peer's leg is merely old: replace it by hand"
    )]
    Unprovable,
    /// Neither side holds data.
    #[error("neither leg has ever been in sync")]
    NoData,
}

/// Decides, for the holder with superblock `ours`, on what was found at the peer.
pub fn on_peer(ours: &Superblock, found: &LegFound) -> PeerVerdict {
    let theirs = match found {
        LegFound::Blank => return PeerVerdict::Refuse(Refusal::Blank),
        LegFound::Refused(error) => return PeerVerdict::Refuse(Refusal::Probe(error.clone())),
        LegFound::Leg(leg) => leg,
    };
    if let Err(refusal) = identify(ours, &theirs.superblock, theirs.access) {
        return PeerVerdict::Refuse(refusal);
    }
    let (newest, theirs) = (theirs.newest, &theirs.superblock);
    match compare(&ours.history, &theirs.history) {
        Relation::TheyAreDescendant => PeerVerdict::StepDown { newer: *theirs.config() },
        Relation::Split { .. } if is_broken(Mutation::SplitUnseen) => {
            PeerVerdict::Resync(plan(ours, theirs, newest))
        }
        Relation::Split { last_shared } => PeerVerdict::Split { last_shared },
        Relation::Unprovable => PeerVerdict::Refuse(Refusal::Unprovable),
        Relation::Newcomer if ours.config().generation() == 0 => PeerVerdict::Refuse(Refusal::NoData),
        Relation::Newcomer => PeerVerdict::Resync(plan_for_newcomer(ours, theirs)),
        Relation::TheyAreAncestor { .. } if !counts_since(ours, theirs) => {
            PeerVerdict::Resync(plan(ours, theirs, newest))
        }
        Relation::TheyAreAncestor { .. } | Relation::Equal => on_counted(ours, theirs, newest),
    }
}

fn identify(ours: &Superblock, theirs: &Superblock, access: Access) -> Result<(), Refusal> {
    if theirs.array != ours.array {
        let (array, name, expected) = (theirs.array, theirs.name.as_str().to_owned(), ours.array);
        return Err(Refusal::Probe(ProbeError::OtherArray { array, name, expected }));
    }
    if theirs.leg == ours.leg {
        return Err(Refusal::Clone);
    }
    if theirs.index == ours.index {
        return Err(Refusal::SamePlace);
    }
    if !theirs.layout.same_array(&ours.layout) {
        return Err(Refusal::Geometry);
    }
    match access {
        Access::Full => Ok(()),
        Access::ReadOnly { ro_compat } => Err(Refusal::ReadOnly { ro_compat }),
        Access::Refused { incompat } => {
            Err(Refusal::Probe(ProbeError::Unusable(crate::format::SuperblockError::Incompatible {
                incompat,
            })))
        }
    }
}

/// True when their own config counts their leg, and so does every one that we made since: a start that they have not
/// heard of yet. Whatever was acknowledged since is on their leg.
fn counts_since(ours: &Superblock, theirs: &Superblock) -> bool {
    let known = theirs.config().generation();
    let newer = ours.history.entries().iter().take_while(|config| config.generation() > known);
    newer.chain([theirs.config()]).all(|config| config.in_sync.has(theirs.index))
}

/// True when the leg that was found remembers a newer superblock of ours than ours was when it last knew of it.
pub fn is_set_back(ours: &Superblock, found: &LegFound) -> bool {
    matches!(found, LegFound::Leg(theirs) if ours.was_set_back(&theirs.superblock))
}

fn on_counted(ours: &Superblock, theirs: &Superblock, newest: u64) -> PeerVerdict {
    let same_leg = ours.peer().uuid == theirs.leg && !is_reverted(ours.peer(), newest);
    // What the cache of the only leg that counts has lost, nobody has.
    let alone = ours.config().in_sync == LegMask::only(theirs.index);
    let whole = alone || kept_its_cache(ours.peer(), theirs);
    if ours.config().in_sync.has(theirs.index) && same_leg && whole {
        PeerVerdict::Member
    } else {
        PeerVerdict::Resync(plan(ours, theirs, newest))
    }
}

/// True when its superblock, which had at most the number `newest`, is older than one that we have seen of it.
fn is_reverted(record: &LegRecord, newest: u64) -> bool {
    newest < record.seen_seq && !is_broken(Mutation::RevertUnseen)
}

/// True unless the leg has a volatile cache and its node went through a restart since we last saw it.
fn kept_its_cache(record: &LegRecord, theirs: &Superblock) -> bool {
    is_broken(Mutation::CacheLossUnseen)
        || !theirs.own().flags.contains(LegFlags::VOLATILE_CACHE)
        || record.incarnation == theirs.own().incarnation
}

fn plan_for_newcomer(ours: &Superblock, theirs: &Superblock) -> SyncPlan {
    let record = ours.peer();
    if record.is_taken() && record.uuid != theirs.leg {
        return SyncPlan::Full(FullReason::Replaced);
    }
    let zeroed = ours.own().flags.contains(LegFlags::ZEROED) && theirs.own().flags.contains(LegFlags::ZEROED);
    if zeroed && record.tracked_since == 1 {
        // Everything written since creation is tracked, and before that both were zero.
        SyncPlan::Delta
    } else {
        SyncPlan::Full(FullReason::NewLeg)
    }
}

/// How a leg that has diverged since `last_shared` is made a copy of ours: both have to have written down everything since.
pub fn diverged_plan(ours: &Superblock, theirs: &Superblock, last_shared: Option<ConfigId>) -> SyncPlan {
    let Some(fork) = last_shared else { return SyncPlan::Full(FullReason::NotTracked) };
    let pair = [(ours, theirs), (theirs, ours)];
    if pair.iter().any(|(of, other)| of.peer().uuid != other.leg) {
        return SyncPlan::Full(FullReason::Replaced);
    }
    if pair.iter().any(|(of, other)| other.seq < of.peer().seen_seq || other.was_set_back(of)) {
        return SyncPlan::Full(FullReason::Reverted);
    }
    let tracks = |of: &Superblock| {
        let since = of.peer().tracked_since;
        since != 0 && since <= fork.generation
    };
    match pair.iter().all(|(of, _)| tracks(of)) {
        true => SyncPlan::Delta,
        false => SyncPlan::Full(FullReason::NotTracked),
    }
}

fn plan(ours: &Superblock, theirs: &Superblock, newest: u64) -> SyncPlan {
    let record = ours.peer();
    if record.uuid != theirs.leg {
        return SyncPlan::Full(FullReason::Replaced);
    }
    if is_reverted(record, newest) {
        return SyncPlan::Full(FullReason::Reverted);
    }
    match record.tracked_since {
        0 => SyncPlan::Full(FullReason::NotTracked),
        since if theirs.config().generation() < since && !is_broken(Mutation::RevertUnseen) => {
            SyncPlan::Full(FullReason::Reverted)
        }
        _ => SyncPlan::Delta,
    }
}
