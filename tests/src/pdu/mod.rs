//! A conformance suite of our own at PDU level (RFC 7143): what libiscsi's suite, which speaks through a library, cannot ask.
//!
//! Each case is a row of a table with the section that it holds the target to, and speaks bytes of its own making ([`wire`]).
//! The end-to-end tests run it against a node and, so that the suite itself is checked, against tgt.

/// Ends a case with a reason unless this holds.
macro_rules! ensure {
    ($holds:expr, $($reason:tt)+) => {
        if !$holds {
            return Err(format!($($reason)+));
        }
    };
}

/// Builds a table of cases: the function's name is the case's.
macro_rules! table {
    ($($section:literal $name:ident)+) => {
        &[$($crate::pdu::Case { name: stringify!($name), section: $section, run: $name }),+]
    };
}

mod attributes;
mod chap;
mod data;
mod digest;
mod disorder;
mod faults;
mod features;
pub mod io;
mod login;
mod negotiation;
mod nexus;
mod numbers;
pub mod random;
mod recovery;
pub mod session;
mod tasks;
mod text;
pub mod wire;

use std::net::SocketAddr;
use std::time::Duration;

pub use session::{Login, Session};

/// The target under test: one LUN of 512-byte blocks, of which the first 2 MiB are overwritten.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Where it listens.
    pub portal: SocketAddr,
    /// The target's name.
    pub target: String,
    /// The LUN, below 256.
    pub lun: u8,
    /// How long to wait for what must come.
    pub patience: Duration,
}

/// CHAP as a target that asks for it expects it ([`chap_cases`]).
#[derive(Clone, Copy, Debug)]
pub struct Secrets {
    /// The initiator's name and secret.
    pub initiator: [&'static str; 2],
    /// The target's name and secret.
    pub target: [&'static str; 2],
}

/// The secrets of [`chap_cases`].
pub const SECRETS: Secrets =
    Secrets { initiator: ["host", "secret-of-the-host"], target: ["node", "secret-of-the-node"] };

/// Why a target does not conform.
pub type Outcome = Result<(), String>;

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// The section of RFC 7143 that it holds the target to; of another one, behind that one's number and a colon.
    pub section: &'static str,
    /// Runs it.
    pub run: fn(&Subject) -> Outcome,
}

/// The cases for a target that asks for no authentication, without digests.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    let tables = [
        login::CASES,
        negotiation::CASES,
        numbers::CASES,
        data::CASES,
        tasks::CASES,
        nexus::CASES,
        attributes::CASES,
        text::CASES,
        faults::CASES,
    ];
    tables.into_iter().flatten()
}

/// The cases for a target that agrees to digests.
pub fn digest_cases() -> impl Iterator<Item = &'static Case> {
    digest::CASES.iter()
}

/// The cases for a target that agrees to error recovery level 2.
pub fn recovery_cases() -> impl Iterator<Item = &'static Case> {
    recovery::CASES.iter()
}

/// The cases for a target that agrees to iSCSIProtocolLevel 2 (RFC 7144).
pub fn feature_cases() -> impl Iterator<Item = &'static Case> {
    features::CASES.iter()
}

/// The cases for a target that agrees to data in any order (RFC 7143 sections 13.18 and 13.19).
pub fn disorder_cases() -> impl Iterator<Item = &'static Case> {
    disorder::CASES.iter()
}

/// The cases for a target that asks for CHAP with [`SECRETS`].
pub fn chap_cases() -> impl Iterator<Item = &'static Case> {
    chap::CASES.iter()
}

/// All cases, whatever each asks of its target.
pub fn all_cases() -> impl Iterator<Item = &'static Case> {
    cases()
        .chain(digest_cases())
        .chain(recovery_cases())
        .chain(feature_cases())
        .chain(disorder_cases())
        .chain(chap_cases())
}

/// Runs cases; gives the names and reasons of those that fail.
pub fn run<'a>(subject: &Subject, cases: impl Iterator<Item = &'a Case>) -> Vec<(&'a Case, String)> {
    cases.filter_map(|case| (case.run)(subject).err().map(|reason| (case, reason))).collect()
}
