//! The two halves of a block device.

use core::fmt;
use std::collections::VecDeque;
use std::sync::Arc;

use engine::{Core, Instant, Progress};
use thiserror::Error;
use uuid::Uuid;

use crate::access::Access;
use crate::geometry::{Capabilities, Geometry, Space};
use crate::request::{Completed, Io, Refused};

/// Where a channel puts finished I/Os, oldest first.
pub type Completions = VecDeque<Completed>;

/// Why a channel could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The device is claimed by another user.
    #[error("bdev {name} is claimed by {by}")]
    Claimed {
        /// The device.
        name: String,
        /// Who has it.
        by: String,
    },
    /// The reactor has no room for another channel.
    #[error("bdev {name}: no room for another channel on core {core}")]
    NoRoom {
        /// The device.
        name: String,
        /// The reactor's core.
        core: u32,
    },
    /// The operating system's error number.
    #[error("bdev {name}: {}", std::io::Error::from_raw_os_error(*errno))]
    Os {
        /// The device.
        name: String,
        /// `errno`.
        errno: i32,
    },
}

/// Why a device's far end cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkDown {
    /// Not connected yet.
    Connecting,
    /// The connection ended, with its cause in words for the operator.
    Lost(String),
    /// The far end answers but will not have us (login refused, wrong target, no such LUN), in words for the operator.
    Refused(String),
    /// No sign of life for the keep-alive's limit.
    Silent,
}

impl fmt::Display for LinkDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting => f.write_str("not connected yet"),
            Self::Lost(why) => write!(f, "the connection ended: {why}"),
            Self::Refused(why) => write!(f, "it answers and refuses: {why}"),
            Self::Silent => f.write_str("it is silent"),
        }
    }
}

/// Whether a channel's far end is there. Local devices are always up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Reachable.
    Up {
        /// Rises with each new session, so that an owner sees a reconnect even when it missed the gap.
        session: u64,
        /// Size and block size that the far end reported in this session.
        geometry: Geometry,
        /// When the last keep-alive that was answered had been sent: the far end was alive at some instant after it.
        alive_at: Instant,
    },
    /// Not reachable; every I/O that was in flight has come back or will at the next poll.
    Down(LinkDown),
}

impl Link {
    /// A local device's link: always up.
    pub fn local(geometry: Geometry, now: Instant) -> Self {
        Self::Up { session: 0, geometry, alive_at: now }
    }

    /// True when the far end is there.
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up { .. })
    }
}

/// Control half of a device: shared, cheap to ask, never on the data path.
pub trait Bdev: Send + Sync {
    /// Unique name on this node.
    fn name(&self) -> &str;

    /// What kind of device it is, as SPDK's `product_name`.
    fn product(&self) -> &'static str;

    /// Identity that survives renaming.
    fn uuid(&self) -> Uuid;

    /// Size and block sizes, now: it may grow.
    fn geometry(&self) -> Geometry;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// How much storage it has and can still have, now; `None` where that is fixed, or not known.
    fn space(&self) -> Option<Space> {
        None
    }

    /// Who has a way to it, and how good this node's is, now.
    fn access(&self) -> Access;

    /// Opens a channel that lives on `core`'s reactor. A channel belongs to one user; I/Os of two channels are not ordered
    /// against each other.
    ///
    /// # Errors
    /// See [`OpenError`].
    fn open(self: Arc<Self>, core: &Core) -> Result<Box<dyn Channel>, OpenError>;
}

/// Data half of a device, owned by one reactor. Not `Send`.
///
/// Call order: any number of `submit`, then `poll` once a turn. Dropping a channel with I/Os in flight is allowed only after
/// every one came back.
pub trait Channel {
    /// Takes an I/O. The range has been checked by nobody: the channel answers [`crate::IoError::OutOfRange`].
    ///
    /// # Errors
    /// Gives the I/O back: [`crate::IoError::Busy`] when the queue is full, otherwise final.
    fn submit(&mut self, io: Io, now: Instant) -> Result<(), Refused>;

    /// Takes completions and drives what is in flight.
    fn poll(&mut self, now: Instant, done: &mut Completions) -> Progress;

    /// When `poll` must be called at the latest even if nothing else happens.
    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// Whether the far end is there.
    fn link(&self, now: Instant) -> Link;
}

impl core::fmt::Debug for dyn Bdev {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} ({})", self.name(), self.product())
    }
}
