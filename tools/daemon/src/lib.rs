//! gemeld, the node: one shard on its reactor, a control socket beside it.
//!
//! The control threads parse JSON-RPC and send each call as a message to the reactor, which owns every object; the reactor
//! answers through the call's reply channel. Nothing of the control plane is on the data path.

pub mod methods;
pub mod node;
pub mod params;
pub mod server;

pub use node::{Call, Message, Node};
