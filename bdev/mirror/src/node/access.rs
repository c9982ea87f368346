//! How good this node's way to the volume is, and the peer's, for the front ends of both.

use bdev::{Access, AccessState, NodeSide, Shared};

use super::{Node, Role};
use crate::decide::HolderSession;
use crate::format::LegIndex;
use crate::holder::Phase;

impl Node {
    /// See the module.
    pub fn access(&self) -> Access {
        let (own, peer) = match &self.role {
            Role::Holder(holder) => match holder.phase() {
                Phase::Serving => (AccessState::Optimized, self.peer_stands_by()),
                Phase::Opening(_) => (AccessState::Transitioning, self.peer_stands_by()),
                Phase::Closing(_) | Phase::Leaving(_) | Phase::Ended(_) => {
                    (AccessState::Transitioning, AccessState::Transitioning)
                }
            },
            Role::Standby(_) => match self.holder_session() {
                HolderSession::Alive => (AccessState::NonOptimized, AccessState::Optimized),
                HolderSession::Absent => (AccessState::Transitioning, AccessState::Transitioning),
            },
            Role::Booting(_) | Role::Holding(_) | Role::Promoting(_) => {
                (AccessState::Transitioning, AccessState::Transitioning)
            }
            Role::Ending(_) | Role::Stopped | Role::Failed(_) => {
                (AccessState::Unavailable, AccessState::Optimized)
            }
        };
        Access::Shared(Shared { node: self.node_side(), own, peer, epoch: self.epoch() })
    }

    fn node_side(&self) -> NodeSide {
        match self.setup.who {
            LegIndex::Zero => NodeSide::First,
            LegIndex::One => NodeSide::Second,
        }
    }

    /// The holder can be asked to serve for the peer while the link is there.
    fn peer_stands_by(&self) -> AccessState {
        if self.link.is_up() { AccessState::NonOptimized } else { AccessState::Unavailable }
    }

    /// The generation in which this node began to serve.
    fn epoch(&self) -> u64 {
        match &self.role {
            Role::Holder(holder) => holder.opened_in(),
            _ => 0,
        }
    }
}
