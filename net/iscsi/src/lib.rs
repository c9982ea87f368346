//! iSCSI (RFC 7143), both ends, without I/O: no socket, clock, thread or random source.
//!
//! [`target::Connection`] and [`initiator::Connection`] have the same contract, [`Protocol`]:
//!
//! 1. Ask [`Protocol::want`] and give the bytes: control bytes to [`Protocol::handle_bytes`]; payload is first copied into
//!    the task's buffer by the owner, straight from the stream, then shown to [`Protocol::handle_payload`].
//! 2. After each call drain `poll_event`, then [`Protocol::poll_transmit`] as far as there is room to send.
//!
//! Nothing from the peer can make either end panic; a peer that breaks the protocol gets a Reject or loses the connection.
#![no_std]

extern crate alloc;

pub mod chap;
mod coverage;
pub mod deframe;
pub mod digest;
pub mod initiator;
pub mod keys;
pub mod name;
pub mod pdu;
pub mod protocol;
#[cfg(test)]
mod roundtrip;
pub mod serial;
pub mod target;
pub mod task_map;
pub mod text;

pub use keys::{Preferences, SessionParameters};
pub use protocol::{Body, CloseReason, INLINE_MAX, Moved, OUTGOING_MAX, Protocol, TaskId, Transmit, Want};
pub use task_map::TaskMap;

/// The well-known port of iSCSI (RFC 7143 section 13).
pub const PORT: u16 = 3260;
