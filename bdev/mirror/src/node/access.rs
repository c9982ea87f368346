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
use crate::events::EventKind;
use crate::format::LegIndex;
use crate::holder::Phase;

/// How long a transition may take: less than the front ends say in REPORT TARGET PORT GROUPS (SPC-4 section 6.37, IMPLICIT
/// TRANSITION TIME).
pub const TRANSITION_MAX: Duration = Duration::from_secs(12);

/// How long it has not been clear who serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Transit {
    /// It is clear.
    #[default]
    Over,
    /// It will have been too long then.
    Until(Instant),
    /// For too long.
    TooLong,
}

/// What this node has told of the ways to the volume.
#[derive(Debug, Default)]
pub(super) struct Ways {
    transit: Transit,
    /// Of a standby: whether its holder is at work.
    session: Option<HolderSession>,
}

impl Ways {
    /// When there is more to say to hosts, if nothing happens before.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if let Transit::Until(limit) = self.transit { Some(limit) } else { None }
    }
}

impl Node {
    /// See the module.
    pub fn access(&self) -> Access {
        let (mut own, mut peer) = self.ways();
        if self.told.transit == Transit::TooLong {
            for way in [&mut own, &mut peer] {
                if *way == AccessState::Transitioning {
                    *way = AccessState::Unavailable;
                }
            }
        }
        Access::Shared(Shared { node: self.node_side(), own, peer, epoch: self.epoch() })
    }

    /// Tells what has become of the ways.
    pub(super) fn watch_ways(&mut self) {
        self.watch_holder();
        let now = self.desk.now;
        self.told.transit = match (self.ways().0, self.told.transit) {
            (AccessState::Transitioning, Transit::Over) => Transit::Until(now + TRANSITION_MAX),
            (AccessState::Transitioning, Transit::Until(limit)) if now >= limit => {
                self.note(EventKind::NobodyServes);
                Transit::TooLong
            }
            (AccessState::Transitioning, transit) => transit,
            _ => Transit::Over,
        };
    }

    /// Of a standby: its holder is at work, or is so no more.
    fn watch_holder(&mut self) {
        let stands_by = matches!(self.role, Role::Standby(_));
        let session = stands_by.then(|| self.holder_session());
        match (self.told.session, session) {
            (Some(HolderSession::Alive), Some(HolderSession::Absent)) => self.note(EventKind::HolderSilent),
            (Some(HolderSession::Absent), Some(HolderSession::Alive)) => self.note(EventKind::HolderHeard),
            _ => {}
        }
        self.told.session = session;
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
