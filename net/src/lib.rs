//! Byte streams: kernel TCP on io_uring, smoltcp on an interface of its own, simulated links.
//!
//! Everything above speaks to [`stream::Stream`], [`stream::Listener`] and [`stream::Network`]; which transport is behind
//! them is chosen once, at start.

pub mod route;
pub mod sim;
pub mod smol;
mod stillborn;
pub mod stream;
pub mod tcp;

pub use route::Routes;
pub use stream::{CloseReason, Listener, Network, Segment, Stream, StreamStatus};
