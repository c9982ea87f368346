//! gemeld, the node: reactors, and a control plane beside them.
//!
//! The control plane's threads parse JSON-RPC and keep the tables of what was made ([`node`]). What runs lives on reactors
//! ([`reactor`]); the control plane sends them orders and gets copies back. Nothing of it is on the data path.

pub mod access;
mod capture;
pub mod errands;
pub mod etcd;
pub mod events;
pub mod keep;
pub mod log;
pub mod methods;
pub mod node;
pub mod notify;
pub mod params;
pub mod pollers;
pub mod reactor;
mod reading;
pub mod secret;
pub mod server;

pub use node::Node;
