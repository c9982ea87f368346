//! How good this node's way to the volume is, and the peer's, for the front ends of both.
//!
//! Nobody is told "transitioning" for longer than [`TRANSITION_MAX`]: a node that has no holder by then, for want of an
//! operator, an arbiter or its peer, says "unavailable" until it has. A holder whose I/O is frozen says that it serves: its
//! commands wait, and are answered when the arbiter is back.

use core::time::Duration;

use bdev::{Access, AccessState, NodeSide, Shared};
use engine::Instant;

use super::{Node, Role};
use crate::decide::HolderSession;
use crate::format::LegIndex;
use crate::holder::Phase;

/// How long a transition may take: less than the front ends say in REPORT TARGET PORT GROUPS (SPC-4 section 6.37, IMPLICIT
/// TRANSITION TIME).
pub const TRANSITION_MAX: Duration = Duration::from_secs(12);

/// Since when it is not clear who serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Transit {
    /// It is clear.
    #[default]
    Over,
    /// Since then.
    Since(Instant),
}

impl Transit {
    /// When a transition has taken too long.
    fn limit(self) -> Option<Instant> {
        match self {
            Self::Over => None,
            Self::Since(began) => Some(began + TRANSITION_MAX),
        }
    }

    /// When there is more to say to hosts, if nothing happens before.
    pub(super) fn next_deadline(self, now: Instant) -> Option<Instant> {
        self.limit().filter(|limit| *limit > now)
    }
}

impl Node {
    /// See the module.
    pub fn access(&self) -> Access {
        let (mut own, mut peer) = self.ways();
        if self.transit.limit().is_some_and(|limit| self.desk.now >= limit) {
            for way in [&mut own, &mut peer] {
                if *way == AccessState::Transitioning {
                    *way = AccessState::Unavailable;
                }
            }
        }
        Access::Shared(Shared { node: self.node_side(), own, peer, epoch: self.epoch() })
    }

    /// Notes since when it is not clear who serves.
    pub(super) fn watch_transit(&mut self) {
        self.transit = match (self.ways(), self.transit) {
            ((AccessState::Transitioning, _), Transit::Over) => Transit::Since(self.desk.now),
            ((AccessState::Transitioning, _), since) => since,
            _ => Transit::Over,
        };
    }

    /// The own way, and the peer's, however long that has been so.
    fn ways(&self) -> (AccessState, AccessState) {
        match &self.role {
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
        }
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
