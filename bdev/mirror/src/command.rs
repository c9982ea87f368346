//! What the operator may ask of a node, and the answers that say no.

use thiserror::Error;

use crate::decide::{HolderState, PromoteMode, PromoteRefusal};
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
    /// Start without the peer.
    StartDegraded,
    /// Go on without the peer, where the policy leaves that to the operator.
    Degrade,
    /// Let the resync run, or not.
    Resync(Throttle),
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
    /// One leg already.
    #[error("the array goes on with one leg already")]
    Degraded,
    /// Reading its own leg, or in the middle of something.
    #[error("this node is busy with something else: ask again")]
    Busy,
    /// The own leg cannot be used.
    #[error("this node's leg cannot be used: see its status")]
    NoLeg,
}
