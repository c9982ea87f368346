//! Reactors, mailboxes, timers, buffers and statistics.
//!
//! One reactor thread for each configured core runs a shard through `turn(now)`. Nothing below a shard reads a clock:
//! time comes in as [`Instant`].

pub mod clock;
pub mod core;
pub mod progress;

pub use crate::core::Core;
pub use clock::{Clock, Instant, MonotonicClock};
pub use engine_sys::{BUF_LEN_MAX, Buf, BufMut, Pages, Pool, PoolConfig};
pub use progress::Progress;
