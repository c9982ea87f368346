//! What an operator sees of a node.

use bdev::AccessState;
use engine::Instant;

use crate::events::Event;
use crate::format::{ArbiterKind, Config, ConfigId, LegRecord};
use crate::holder::Counters;
use crate::holder::resync::{Progress, Throttle};
use crate::intent_log::LogUsage;

/// What a node is to its array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleKind {
    /// Reads or formats its own leg.
    Starting,
    /// Waits for its peer or its operator.
    Holding,
    /// The peer serves, or would.
    Standby,
    /// On its way to becoming the holder.
    Promoting,
    /// About to serve, when its first config is durable.
    Opening,
    /// Serves.
    Holder,
    /// I/O is frozen until the operator decides.
    Frozen,
    /// Gives the array to the peer.
    SwitchingOver,
    /// Stops being the holder.
    Demoting,
    /// Stops.
    Stopping,
    /// Stopped.
    Stopped,
    /// Its own leg cannot be used.
    Failed,
}

impl RoleKind {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Holding => "consistent-hold",
            Self::Standby => "standby",
            Self::Promoting => "promoting",
            Self::Opening => "opening",
            Self::Holder => "holder",
            Self::Frozen => "frozen",
            Self::SwitchingOver => "switching-over",
            Self::Demoting => "demoting",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// How far the peer's leg is from being part of the mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerSight {
    /// There is no session to it.
    Unreachable,
    /// It is looked at: whose leg it is, and of which generation.
    Probing,
    /// It is not taken; the cause says why.
    Refused,
    /// It is fenced, and what differs is gathered.
    Joining,
    /// It is written, and brought in sync.
    Resync,
    /// It is a part.
    Joined,
}

impl PeerSight {
    /// As `mirror_get_status` has it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Probing => "probing",
            Self::Refused => "refused",
            Self::Joining => "joining",
            Self::Resync => "resync",
            Self::Joined => "joined",
        }
    }
}

/// How a holder sees its peer's leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// How far it is from being part of the mirror.
    pub sight: PeerSight,
    /// Why, where something is wrong.
    pub cause: Option<String>,
    /// The config that it has, if it has diverged.
    pub diverged: Option<ConfigId>,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Status {
    /// What the node is.
    pub role: RoleKind,
    /// Why, where that needs a reason.
    pub reason: Option<String>,
    /// How good hosts' way to the volume through this node is.
    pub access: AccessState,
    /// The config, once a leg is known.
    pub config: Option<Config>,
    /// The records of leg 0 and leg 1.
    pub legs: Option<[LegRecord; 2]>,
    /// Who orders the array's generations, once a leg is known.
    pub arbiter: Option<ArbiterKind>,
    /// Which leg is this node's, 0 or 1.
    pub own: usize,
    /// Bytes of the data area.
    pub data_size: u64,
    /// Where the data begin on the own leg, in bytes.
    pub data_offset: u64,
    /// Of the holder: its peer's leg.
    pub peer: Option<PeerStatus>,
    /// Of the holder: the intent log.
    pub log: Option<LogUsage>,
    /// Of the holder: bytes out of sync.
    pub dirty_bytes: u64,
    /// Of the holder: a resync under way.
    pub resync: Option<Progress>,
    /// Of the holder: the last resync that came to its end.
    pub last_resync: Option<Progress>,
    /// Whether the operator lets it run.
    pub throttle: Throttle,
    /// Figures since the holder began.
    pub counters: Counters,
    /// The last events, oldest first.
    pub events: Vec<Event>,
    /// Now, on the clock of the events.
    pub now: Instant,
}
