//! Load on block devices: latency without coordinated omission, and loads that verify what they wrote.
//!
//! [`run`] measures: a [`workload`] says what to ask for and [`run::Loop`] when, [`target`] what is driven, [`cost`] what both
//! ends spend, [`report`] shows it; [`sweep`] and [`compare`] judge several runs, [`raw`] is what the machine can do without any
//! of this. [`ratchet`] counts instructions, so that no change makes an operation dearer unseen. [`load`] verifies: [`stamp`] says what a block holds, [`ledger`] what each block may hold, over one or several paths.

pub mod compare;
pub mod cost;
pub mod ledger;
pub mod load;
mod pair;
pub mod ratchet;
pub mod raw;
pub mod report;
pub mod run;
pub mod stamp;
pub mod sweep;
pub mod target;
pub mod workload;

pub use ledger::{Ledger, Mismatch};
pub use load::{Load, LoadConfig, Mix, Report};
