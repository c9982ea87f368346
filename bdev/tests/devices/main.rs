//! Tests of all devices: the common contract, and what is particular to each.

mod common;
mod contract;
mod crypto;
mod fault;
mod hop;
mod meter;
mod sim;
mod space;
mod uring;
