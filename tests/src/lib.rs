//! Tests across crates: real processes, real initiators.

pub mod alone;
pub mod etcd;
pub mod host;
pub mod load;
pub mod net;
pub mod node;
pub mod pair;
pub mod pdu;
pub mod sim;
pub mod suite;
pub mod tgt;
pub mod wire;
