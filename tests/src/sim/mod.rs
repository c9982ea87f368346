//! The deterministic simulator: two nodes, an arbiter and several initiators in one process, on virtual clocks, disks and
//! links.
//!
//! What runs is the production code: the mirror's driver, the import and its session, the target with its sessions, as one
//! reactor turns them. A [`Plan`] says everything about a run and comes from a seed; the same plan gives the same journal,
//! byte for byte.
//!
//! ```text
//! created --> safety: load and faults --> healed: must converge --> quiet: everything is read, legs are compared
//! ```
//!
//! What is checked, and where: front end linearizable per block (`history`), legs and stores (`checks`), two data sets (`apart`),
//! reservations (`orders`, after the model in `spc`), their record (`records`), that every change of state leaves an event (`told`), answers and the end (`world`).
//! `Plan::shrunk` of a failing seed becomes a test in `tests/sim/found.rs`.

mod acts;
mod apart;
mod arbiter;
mod checks;
mod claims;
mod clock;
mod commanded;
mod contender;
mod coverage;
mod disks;
mod elsewhere;
mod fault;
mod fork;
mod history;
mod host;
mod inflict;
mod initiator;
mod journal;
mod machine;
mod operator;
mod orders;
mod phases;
mod plan;
mod records;
mod reservations;
mod resolve;
mod runner;
mod setback;
mod shrink;
mod spc;
mod split;
mod swarm;
mod tally;
mod told;
mod world;

pub use coverage::{Coverage, Phase};
pub use elsewhere::SHOWN_ELSEWHERE;
pub use fault::{Event, Fault, Gone, Keeps, Point, Rot, Spoilt, Still, Upset, Way, Who};
pub use plan::{Load, Patience, Plan};
pub use runner::{Failure, Outcome, Runner};
pub use shrink::{Shrunk, shrink};
pub use tally::Tally;
