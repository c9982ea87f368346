//! Byte streams: kernel TCP on io_uring, simulated links.
//!
//! Everything above speaks to [`stream::Stream`], [`stream::Listener`] and [`stream::Network`]; which transport is behind
//! them is chosen once, at start.

pub mod sim;
pub mod stream;
pub mod tcp;

pub use stream::{CloseReason, Listener, Network, Segment, Stream, StreamStatus};
