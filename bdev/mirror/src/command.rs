//! What the operator may ask of a node, and the answers that say no.

use thiserror::Error;

use crate::decide::{HolderState, PromoteMode, PromoteRefusal};
use crate::format::ConfigId;
use crate::holder::resync::Throttle;

/// An operator's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Become the holder.
    Promote {
        /// Only if nothing can be missing, or by force.
        mode: PromoteMode,
        /// What the operator says about the old holder.
        holder: HolderState,
    },
    /// Stop being the holder, and stand by until promoted.
    Demote(Demotion),
    /// Give the array to the peer, with both legs in sync.
    Switchover,
    /// Start without the peer.
    StartDegraded,
    /// Go on without the peer, where the policy leaves that to the operator.
    Degrade,
    /// Let the resync run, or not.
    Resync(Throttle),
    /// The legs have diverged: this node's data set stays, that of the peer's leg goes.
    ResolveSplit {
        /// The config that the peer's leg had when the operator looked at it.
        theirs: ConfigId,
        /// How much of it.
        how: Overwrite,
    },
}

/// How a leg that has diverged is overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// Where the two legs' logs and bitmaps say that they may differ, if they reach back to the fork; else everything.
    Tracked,
    /// Everything.
    Everything,
}

/// How to stop being the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demotion {
    /// Everything that hosts sent is answered, and both legs are marked clean.
    Orderly,
    /// Nothing more is acknowledged from now on; what is on its way comes back with an error.
    AtOnce,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// See [`PromoteRefusal`].
    #[error(transparent)]
    Promote(#[from] PromoteRefusal),
    /// Only the holder can do that.
    #[error("this node is not the holder: ask the other one")]
    NotHolder,
    /// The node serves already, or stands by.
    #[error("this node does not wait for its peer: there is nothing to start")]
    NotHolding,
    /// Both legs are there.
    #[error("the peer's leg is there and in sync: nothing to go on without")]
    PeerInSync,
    /// Only an array with two legs in sync has somebody to go to.
    #[error("the peer's leg is not in sync: wait for the resync, or for the peer")]
    PeerNotInSync,
    /// One leg already.
    #[error("the array goes on with one leg already")]
    Degraded,
    /// R10: never a reason to go on alone.
    #[error(
        "the peer's leg has locked this node out, and it cannot be seen for whom: somebody may have promoted the other node; look there"
    )]
    LockedOut,
    /// Nothing to resolve.
    #[error("the peer's leg has not diverged, or cannot be seen now: see this node's status")]
    NotSplit,
    /// What the operator looked at is not what is there.
    #[error(
        "the peer's leg is not as it was when it was looked at: its node has gone on; look again (gemel split diff)"
    )]
    PeerMoved,
    /// Reading its own leg, or in the middle of something.
    #[error("this node is busy with something else: ask again")]
    Busy,
    /// It would be the holder, and cannot be sure of it.
    #[error(
        "this node was the holder and does not serve yet: it waits until it is sure of being the newest. Start the other \
         node or, if that never comes back, start this one degraded (gemel start-degraded)"
    )]
    Waiting,
    /// It waits for the arbiter.
    #[error(
        "this node waits for the arbiter, which does not answer, or has lost what it knew: see its status. Bring that back or, if \
         it is gone for good, promote one node by force (gemel promote --force)"
    )]
    ArbiterFirst,
    /// Its leg does not count.
    #[error(
        "this node's leg is not in sync, and the array's data is at the peer: start that or, if it never comes back, promote this \
         node by force (gemel promote --force) and lose what is missing here"
    )]
    OwnLegOut,
    /// Both data sets are there.
    #[error(
        "the two legs have diverged, and nothing is overwritten: promote the node whose data are to go on by force (gemel promote \
         --force), and give the other's up there (gemel split)"
    )]
    Split,
    /// The own leg cannot be used.
    #[error("this node's leg cannot be used: see its status")]
    NoLeg,
}
