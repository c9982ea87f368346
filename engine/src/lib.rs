//! Reactors, mailboxes, clocks, buffers and statistics.
//!
//! One reactor thread for each configured core runs a [`Shard`] through `turn(now)`. Nothing below a shard reads a clock:
//! time comes in as [`Instant`].

pub mod clock;
pub mod core;
pub mod idle;
pub mod mailbox;
pub mod mutation;
pub mod prng;
pub mod progress;
pub mod reactor;
mod slices;
pub mod slots;
pub mod stats;
pub mod topology;

pub use crate::core::Core;
pub use clock::{Clock, Instant, MonotonicClock};
pub use engine_sys::{
    Access, BUF_LEN_MAX, Buf, BufMut, Caching, ClassStats, Completion, Extent, File, FileKind, Operation,
    PageBacking, Pages, Pool, PoolConfig, RangeMode, Registered, RingCapabilities, RingClient, RingConfig,
    RingHandle, RingMode, Segment, Socket, UnknownRingMode, Waker, WriteMode,
};
pub use engine_sys::{allocations, packet, process};
pub use idle::IdlePolicy;
pub use mailbox::{Receiver, Sender, mailbox};
pub use prng::Prng;
pub use progress::Progress;
pub use reactor::{Reactor, Shard};
pub use slots::{Key, Slots};
pub use stats::{LatencyHistogram, LatencySummary, ReactorSnapshot, ReactorStats};
pub use topology::{CoreList, Pinning, ReactorConfig, ReactorThread, spawn};
