//! Load on LUNs over iSCSI, with verification and percentiles.
//!
//! [`stamp`] says what a block holds, [`ledger`] what each block may hold, [`load`] keeps a queue of commands at work over one
//! or several paths.

pub mod ledger;
pub mod load;
pub mod stamp;

pub use ledger::{Ledger, Mismatch};
pub use load::{Load, LoadConfig, Mix, Report};
