//! The searches: whole state spaces with the rules as they are, and a violation for each rule that is broken.

use mirror::format::ArbiterKind;
use mirror::mutation::Mutation;

use super::{Scope, search};

const fn scope(policy: ArbiterKind, writes: u8, crashes: u8, cuts: u8) -> Scope {
    Scope { policy, writes, crashes, cuts, generations: 7 }
}

const fn arbitrated(writes: u8, crashes: u8, cuts: u8) -> Scope {
    scope(ArbiterKind::Etcd, writes, crashes, cuts)
}

/// What a scope has to reach to be worth its name.
const EVENTS: [&str; 23] = [
    "acknowledges",
    "reads",
    "sends the write",
    "frees its log",
    "writes its marks",
    "degrades",
    "is promoted",
    "fences its own leg",
    "asks for the array",
    "makes way",
    "stores a fence",
    "lets the peer in",
    "is locked out",
    "arms",
    "enrols the peer",
    "empties the peer's log",
    "copies",
    "rejoins",
    "renews its lease",
    "a message arrives",
    "a message lands",
    "loses the arbiter's answer",
    "gets the arbiter's no",
];

fn holds(scope: Scope, events: &[&str]) -> usize {
    let found = search(scope, None).unwrap_or_else(|why| panic!("{scope:?}: {why}"));
    println!("{scope:?}: {} states, no violation", found.states);
    for event in events {
        assert!(found.events.contains(event), "{scope:?} has lost its scope: no {event:?}");
    }
    found.states
}

#[test]
fn a_node_crashes_at_any_moment() {
    let restarts = ["crashes", "starts", "starts to serve", "fences a member", "a late swap happens"];
    let states = holds(arbitrated(1, 1, 0), &[&EVENTS[..], &restarts].concat());
    assert!(states > 100_000, "the search has lost its scope: {states} states");
}

#[test]
fn a_line_is_cut_at_any_moment() {
    let states = holds(arbitrated(2, 0, 1), &EVENTS);
    assert!(states > 100_000, "the search has lost its scope: {states} states");
}

/// Without an arbiter the operator promotes, when the holder is down.
#[test]
fn the_operator_promotes_a_node_whose_peer_is_down() {
    holds(
        scope(ArbiterKind::Biased, 2, 1, 0),
        &["is promoted", "crashes", "rejoins", "copies", "acknowledges"],
    );
}

/// More of everything: minutes, and part of `make links`.
#[test]
fn deeper() {
    if std::env::var_os("GEMEL_DEEP").is_none() {
        return println!("skipped: GEMEL_DEEP is not set (see make links)");
    }
    for (writes, crashes, cuts) in [(2, 1, 0), (1, 0, 2), (1, 1, 1), (1, 2, 0)] {
        holds(arbitrated(writes, crashes, cuts), &EVENTS);
    }
}

/// A broken rule is found in a small scope, by what it leads to.
fn breaks(rule: Mutation, scope: Scope, violation: &str) {
    let found = search(scope, Some(rule)).err().unwrap_or_else(|| panic!("{rule:?} goes unnoticed"));
    println!("{rule:?}: {}", found.lines().next().unwrap_or_default());
    assert!(found.contains(violation), "{rule:?}: {found}");
}

#[test]
fn r1_data_before_the_log() {
    breaks(Mutation::R1DataBeforeLog, arbitrated(1, 0, 0), "(I5)");
}

#[test]
fn r3_an_acknowledgement_without_a_config() {
    breaks(Mutation::R3AckWithoutConfig, arbitrated(1, 0, 0), "(I2)");
}

#[test]
fn r6_an_extent_leaves_before_its_marks() {
    breaks(Mutation::R6LeaveUnmarked, arbitrated(1, 0, 0), "(I5)");
}

#[test]
fn r8_a_config_without_the_arbiter() {
    breaks(Mutation::R8ActFirst, arbitrated(1, 0, 0), "(I2)");
}

#[test]
fn r10_a_fence_that_does_not_wait() {
    breaks(Mutation::R10FenceUndrained, arbitrated(1, 0, 0), "(I5)");
}

#[test]
fn r11_a_former_incarnations_session() {
    breaks(Mutation::R11OldSessionsWrite, arbitrated(1, 1, 0), "(I5)");
}

#[test]
fn a_rejoin_without_the_union() {
    breaks(Mutation::RejoinWithoutUnion, arbitrated(1, 0, 0), "(I5)");
}

#[test]
fn a_lease_that_is_not_waited_out() {
    breaks(Mutation::LeaseNotWaitedOut, arbitrated(1, 0, 0), "(I12, I19)");
}

#[test]
fn a_read_without_a_lease() {
    breaks(Mutation::ReadWithoutLease, arbitrated(1, 0, 0), "(I12, I19)");
}
