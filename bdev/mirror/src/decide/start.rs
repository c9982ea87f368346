//! What a node does when it starts (R8, R11): serve, stand by, or hold still until it knows more.

use thiserror::Error;
use uuid::Uuid;

use super::arbitrate::Standing;
use super::peer::{FullReason, PeerVerdict, Refusal, SyncPlan, is_set_back, on_peer};
use super::takeover::missed_a_return;
use crate::format::{
    ArbiterKind, Config, ConfigId, LegFlags, LegMask, LegState, Reason, RunState, Superblock,
};
use crate::mutation::{Mutation, is_broken};
use crate::probe::LegFound;

/// What is known of the peer's leg.
#[derive(Clone, Copy, Debug)]
pub enum PeerSight<'a> {
    /// Not reachable so far.
    Unseen,
    /// This was found there.
    Seen(&'a LegFound),
}

/// Whether to start without the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DegradedStart {
    /// Not yet: the policy says ask, or its time has not come.
    Withheld,
    /// The arbiter says that nobody else has gone on, and the peer does not show up.
    Arbitrated,
    /// By policy, after its time, or by the operator's command, who both accept what may be lost.
    Allowed,
}

/// What the own log and bitmap say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Differences {
    /// Both are empty.
    None,
    /// Something may differ.
    Possible,
}

/// What the arbiter's list of configs says of the own leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegAge {
    /// Nothing against it.
    AsWritten,
    /// It is an older copy of the leg.
    SetBack,
}

impl LegAge {
    /// Of the leg with this superblock, before it has heard of the list.
    pub fn of(own: &Superblock, standing: &Standing) -> Self {
        match standing {
            Standing::Behind(line) if missed_a_return(own, line) => Self::SetBack,
            _ => Self::AsWritten,
        }
    }
}

/// All that the decision looks at.
#[derive(Clone, Copy, Debug)]
pub struct StartFacts<'a> {
    /// The own superblock, as it would be had it heard of what counts.
    pub own: &'a Superblock,
    /// How old the own leg is.
    pub age: LegAge,
    /// The own boot id now.
    pub incarnation: Uuid,
    /// The own log and bitmap.
    pub differences: Differences,
    /// The peer's leg.
    pub peer: PeerSight<'a>,
    /// Policy or command.
    pub degraded: DegradedStart,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartVerdict {
    /// Take a new generation (R11) and serve.
    Serve(Starting),
    /// The peer serves or will: wait for it.
    Standby(StandbyReason),
    /// Consistent-hold: answer the front end "starting", look again when something is known.
    Hold(HoldReason),
}

/// How to begin serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Starting {
    /// Fence the peer's leg; both legs in sync from the start: nothing differs.
    Both,
    /// Fence the peer's leg; this leg alone in sync, then resync.
    Resync(SyncPlan),
    /// Fence the peer's leg; the peer's leg alone in sync. Before our own leg counts, copy *from* it what ours may
    /// miss, then flush both (R4): it kept its cache and we lost ours, or the config has us out.
    FromPeer(SyncPlan),
    /// This leg alone in sync, the peer's leg not touched.
    Alone,
}

/// Why this node stands by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StandbyReason {
    /// The config says that the peer holds.
    #[error("the peer holds the array")]
    PeerHolds,
    /// The peer went on without us.
    #[error("the peer went on in generation {}", .newer.generation())]
    PeerIsNewer {
        /// The peer's config.
        newer: Config,
    },
    /// The peer went on without us, from an older config than this leg has seen.
    #[error("the peer went another way, in generation {}: choose one side by hand", .newer.generation())]
    Diverged {
        /// The peer's config.
        newer: Config,
    },
    /// The operator or the cluster manager took the array away from this node.
    #[error("demoted: promote this node or the other one")]
    Demoted,
    /// It is to be promoted, and the arbiter is asked first.
    #[error("asking the arbiter whether this node may hold the array")]
    AskingArbiter,
    /// The cluster manager says who holds.
    #[error("waiting for the cluster manager to promote a node")]
    AwaitingPromotion,
    /// This leg has no data yet.
    #[error("this leg has not been brought in sync yet")]
    Joining,
}

/// Why this node holds still.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HoldReason {
    /// The peer's leg was in sync and might have gone on without us.
    #[error(
        "the peer cannot be reached and may have gone on without this node: start it, or start degraded by command"
    )]
    PeerUnseen,
    /// The same, with a leg there that proves nothing.
    #[error("{0}; start degraded by command to go on without it")]
    PeerRefused(Refusal),
    /// The arbiter would let this node serve, and its leg misses what was in its cache.
    #[error(
        "the power failed, and this node's cache held acknowledged writes that the peer's leg may have: start the peer, or start degraded by command and lose them"
    )]
    CacheLost,
    /// The own leg is an older copy of itself, and the peer's is out, or went another way.
    #[error(
        "this node's leg was set back to an older state, and the peer's is no copy of the newest: put that in its place; or start degraded by command, and choose one of the two by hand"
    )]
    SetBack,
    /// The own leg is an older copy of itself, by the arbiter's list of configs, and the peer's, which has what it lacks, is not there.
    #[error(
        "this node's leg was set back to an older state, and the peer's, which has what is missing here, cannot be seen or used: start the peer; or start degraded by command, and lose that"
    )]
    SetBackAlone,
    /// The peer's node has fenced it.
    #[error("the peer has locked this node out and seems to be on its way to become the holder")]
    PeerPromoting,
    /// The config has our own leg out, so the data is at the peer.
    #[error("this node's leg is not in sync and the peer's cannot be used: start the peer")]
    OwnLegExcluded,
    /// The arbiter has not answered yet.
    #[error("asking the arbiter")]
    ArbiterUnasked,
    /// It does not answer.
    #[error("the arbiter does not answer: {0}")]
    ArbiterUnreachable(String),
    /// It was restored from a backup.
    #[error(
        "the arbiter has an older config than this leg has seen: it was restored from a backup; restore a newer one"
    )]
    ArbiterOlder,
    /// It has lost its data.
    #[error("the arbiter does not know this array: it lost its data, or is another one than before")]
    ArbiterVacant,
    /// Diverged.
    #[error("the two legs have diverged: choose one side by hand")]
    Split {
        /// The newest config that both know.
        last_shared: Option<ConfigId>,
    },
}

/// True for a node that serves in the config that is there: the one that its old holder made for it, in which nobody has served.
/// Anything else is a restart, and takes a new generation (R11).
pub fn takes_up(starting: Starting, reason: Reason) -> bool {
    let given = (starting, reason) == (Starting::Both, Reason::SwitchedOver);
    given || (reason == Reason::Restarted && is_broken(Mutation::R11RestartKeepsGeneration))
}

/// Decides how to start.
pub fn on_start(facts: &StartFacts<'_>) -> StartVerdict {
    let own = facts.own;
    if own.config().generation() == 0 {
        return StartVerdict::Standby(StandbyReason::Joining);
    }
    if own.own().state == LegState::Split {
        return StartVerdict::Hold(HoldReason::Split { last_shared: None });
    }
    if own.config().holder != own.index {
        return StartVerdict::Standby(StandbyReason::PeerHolds);
    }
    let PeerSight::Seen(found) = facts.peer else { return alone_or(facts, HoldReason::PeerUnseen) };
    match on_peer(own, found) {
        PeerVerdict::StepDown { newer } => StartVerdict::Standby(StandbyReason::PeerIsNewer { newer }),
        PeerVerdict::Split { .. } if is_chosen(facts, found) => StartVerdict::Serve(Starting::Alone),
        PeerVerdict::Split { last_shared } => StartVerdict::Hold(HoldReason::Split { last_shared }),
        PeerVerdict::Refuse(refusal) => alone_or(facts, HoldReason::PeerRefused(refusal)),
        PeerVerdict::Resync(_) if !is_whole(own) => StartVerdict::Hold(HoldReason::OwnLegExcluded),
        // By command it serves what it has, and the peer's leg is left as it is.
        PeerVerdict::Resync(_) if is_older_copy(facts, found) => match facts.degraded {
            DegradedStart::Allowed => StartVerdict::Serve(Starting::Alone),
            DegradedStart::Withheld | DegradedStart::Arbitrated => StartVerdict::Hold(HoldReason::SetBack),
        },
        PeerVerdict::Resync(plan) => StartVerdict::Serve(Starting::Resync(plan)),
        PeerVerdict::Member => StartVerdict::Serve(with_member(facts, found)),
    }
}

/// Decides for a node that was the holder where the arbiter has gone on to `newer` without what this node's leg has: whoever holds in
/// that serves. Where it is this node itself, its leg is not the one that it went on with, and it does not serve from it (I11).
pub fn on_diverged(own: &Superblock, newer: &Config, last_shared: Option<ConfigId>) -> StartVerdict {
    if newer.holder == own.index {
        StartVerdict::Hold(HoldReason::Split { last_shared })
    } else {
        StartVerdict::Standby(StandbyReason::Diverged { newer: *newer })
    }
}

/// True when the config counts the own leg, and that is not being copied to, whatever the arbiter has heard last.
fn is_whole(own: &Superblock) -> bool {
    let copied_to = own.own().state == LegState::Syncing && !is_broken(Mutation::MixtureServes);
    own.is_in_sync() && !copied_to
}

/// True when the legs have diverged, and the arbiter has gone on with this one: its config is ours, counts this leg alone, and is
/// above whatever the other leg has. That is left as it is. A leg that the peer has fenced since may be copied to at this moment.
fn is_chosen(facts: &StartFacts<'_>, found: &LegFound) -> bool {
    let StartFacts { own, age, degraded, .. } = facts;
    let LegFound::Leg(theirs) = found else { return false };
    let newest = theirs.superblock.config().generation() < own.config().generation();
    let alone = is_whole(own) && own.config().in_sync == LegMask::only(own.index);
    let undisturbed = own.fence.node == own.index.number();
    let by_arbiter = own.arbiter == ArbiterKind::Etcd && *degraded >= DegradedStart::Arbitrated;
    by_arbiter && alone && newest && undisturbed && *age == LegAge::AsWritten
}

/// Alone in sync: nobody else can have gone on. Both in sync: the peer can.
fn alone_or(facts: &StartFacts<'_>, why: HoldReason) -> StartVerdict {
    if !is_whole(facts.own) {
        return StartVerdict::Hold(HoldReason::OwnLegExcluded);
    }
    let only_us = facts.own.config().in_sync == LegMask::only(facts.own.index);
    match facts.degraded {
        DegradedStart::Allowed => StartVerdict::Serve(Starting::Alone),
        _ if facts.age == LegAge::SetBack => StartVerdict::Hold(HoldReason::SetBackAlone),
        _ if only_us => StartVerdict::Serve(Starting::Alone),
        DegradedStart::Arbitrated if misses_acknowledged(facts.own, facts.incarnation) => {
            StartVerdict::Hold(HoldReason::CacheLost)
        }
        DegradedStart::Arbitrated => StartVerdict::Serve(Starting::Alone),
        DegradedStart::Withheld => StartVerdict::Hold(why),
    }
}

/// True when the node has lost a cache that was written to: what was in it is on the other leg, unless that lost it, too.
fn lost_its_cache(own: &Superblock, incarnation: Uuid) -> bool {
    let volatile = own.own().flags.contains(LegFlags::VOLATILE_CACHE);
    volatile && own.own().incarnation != incarnation && own.run_state != RunState::Clean
}

/// True when the leg, which the config counts, may miss acknowledged writes for a cache that was lost.
pub fn misses_acknowledged(own: &Superblock, incarnation: Uuid) -> bool {
    let counted_alone = own.config().in_sync == LegMask::only(own.index);
    let lost = lost_its_cache(own, incarnation) && own.run_state == RunState::Cached;
    lost && !counted_alone && !is_broken(Mutation::CacheLossUnseen)
}

/// True when the own leg is an older copy of itself, by the arbiter's list or by what the peer's leg has seen of it.
fn is_older_copy(facts: &StartFacts<'_>, found: &LegFound) -> bool {
    facts.age == LegAge::SetBack || is_set_back(facts.own, found)
}

/// The peer's leg carries every acknowledged write. Does ours?
fn with_member(facts: &StartFacts<'_>, found: &LegFound) -> Starting {
    let own = facts.own;
    if is_older_copy(facts, found) {
        return Starting::FromPeer(SyncPlan::Full(FullReason::Reverted));
    }
    if !is_whole(own) {
        return Starting::FromPeer(own_plan(own));
    }
    let LegFound::Leg(theirs) = found else { unreachable!("a member is a leg") };
    let theirs = &theirs.superblock;
    let clean = own.run_state == RunState::Clean && theirs.run_state == RunState::Clean;
    if clean && own.config() == theirs.config() && facts.differences == Differences::None {
        return Starting::Both;
    }
    // A member kept its cache, or it would not be one.
    if lost_its_cache(own, facts.incarnation) {
        return Starting::FromPeer(own_plan(own));
    }
    Starting::Resync(SyncPlan::Delta)
}

/// What our own leg may miss is in its own log and bitmap as long as they were kept. While a config has it out they are
/// not, because they are on the leg that failed.
fn own_plan(own: &Superblock) -> SyncPlan {
    let record = own.own();
    let kept = own.is_in_sync() || record.state == LegState::Syncing;
    if kept && record.tracked_since != 0 { SyncPlan::Delta } else { SyncPlan::Full(FullReason::NotTracked) }
}
