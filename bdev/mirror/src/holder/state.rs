//! What the holder is in: its life, and what holds it up. Also what it counted.

use bitflags::bitflags;
use engine::{Buf, Instant};

use super::stop;
use crate::desk::Side;
use crate::events::FreezeCause;

bitflags! {
    /// A set of sides.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Sides: u8 {
        const OWN = 1;
        const PEER = 2;
    }
}

impl Sides {
    pub(crate) const fn only(side: Side) -> Self {
        match side {
            Side::Own => Self::OWN,
            Side::Peer => Self::PEER,
        }
    }

    pub(crate) const fn has(self, side: Side) -> bool {
        self.contains(Self::only(side))
    }
}

/// The holder's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not serving yet.
    Opening(Opening),
    /// Serving the front end.
    Serving,
    /// Stopping in order (R12).
    Closing(stop::Closing),
    /// A newer generation is at work: nothing is acknowledged any more; I/Os in flight come back.
    Leaving(Ending),
    /// Over.
    Ended(Ending),
}

/// What the holder stops for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// The node ends.
    Stop,
    /// Somebody else is to be promoted, or this node again.
    Demote,
    /// The peer takes the array, and has until then to be ready for it.
    HandOver {
        /// The time after which it is off.
        until: Instant,
    },
}

/// What serving waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// The first config on the own leg.
    Config,
    /// The peer's leg joined, or a config without it.
    Peer,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Stopped in order.
    Clean,
    /// The operator or the cluster manager took the array away.
    Demoted,
    /// The peer's superblock says that the peer holds, or may say so.
    HandedOver,
    /// A newer generation.
    Superseded,
    /// Nobody knows whether this node still holds, or has the data: hold again.
    Orphaned,
}

/// Whether I/O stands still until somebody decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freeze {
    /// It flows.
    Flowing,
    /// It stands still.
    Frozen(FreezeCause),
}

/// Figures since the holder began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Reads answered.
    pub reads: u64,
    /// Writes answered, write-zeroes and discards among them.
    pub writes: u64,
    /// Flushes answered.
    pub flushes: u64,
    /// Requests that the host got an error for.
    pub errors: u64,
    /// Bytes read by hosts.
    pub read_bytes: u64,
    /// Bytes written by hosts.
    pub written_bytes: u64,
    /// Blocks of a leg rewritten from the other after a medium error.
    pub mended: u64,
}

/// The whole blocks of a write's body.
#[derive(Debug)]
pub(crate) enum Body {
    /// Bytes of the host.
    Data(Buf),
    /// Zeroes; discarded blocks read as zeroes on both legs, so that they are equal (I22).
    Zeroes,
    /// Zeroes for a discard.
    Discard,
}
