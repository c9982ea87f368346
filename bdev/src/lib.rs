//! Block devices: the `Bdev` and `Channel` traits and the devices behind them.
//!
//! A device has two halves. The control half, [`Bdev`], is shared: identity, geometry, capabilities. The data half,
//! [`Channel`], is opened for one reactor and owned by it. An I/O is one value, [`Io`], that moves into a channel and
//! comes back exactly once as a [`Completed`].

mod access;
pub mod channel;
pub mod crypto;
pub mod error;
pub mod fault;
pub mod geometry;
pub mod hop;
pub mod malloc;
pub mod meter;
pub mod null;
pub mod request;
pub mod sim;
pub mod uring;

pub use access::{Access, AccessState, NodeSide, Shared};
pub use channel::{Bdev, Channel, Completions, Link, LinkDown, OpenError};
pub use error::{IoError, NotReady};
pub use geometry::{ATOMIC_WRITE_MAX, Backing, BlockRange, BlockStatus, Capabilities, Geometry, Space};
pub use request::{
    Completed, Durability, FenceKey, Io, IoShell, Op, Power, Refused, Stamps, StateFound, StateHealth, Tag,
};
