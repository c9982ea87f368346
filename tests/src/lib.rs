//! Tests across crates: real processes, real initiators.

pub mod alone;
pub mod compliance;
pub mod etcd;
#[path = "../fuzz/src/lib.rs"]
pub mod fuzz;
pub mod guest;
pub mod host;
pub mod load;
pub mod net;
pub mod node;
pub mod pacemaker;
pub mod pair;
pub mod pdu;
pub mod registrants;
pub mod sim;
pub mod suite;
pub mod tgt;
pub mod wire;
