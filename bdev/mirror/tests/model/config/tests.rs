//! The searches: whole state spaces with the rules as they are, and a violation for each rule that is broken.

use mirror::format::ArbiterKind;
use mirror::mutation::Mutation;

use super::{Records, Scope, search};

const fn scope(policy: ArbiterKind, writes: u8, crashes: u8, cuts: u8) -> Scope {
    let generations = 7;
    let records = Records::Whole;
    Scope {
        policy,
        records,
        writes,
        crashes,
        cuts,
        switchovers: 0,
        forces: 0,
        failures: 0,
        restores: 0,
        generations,
    }
}

/// Under an arbiter whose records tell of no past.
const fn bare(scope: Scope) -> Scope {
    Scope { records: Records::Bare, ..scope }
}

const fn arbitrated(writes: u8, crashes: u8, cuts: u8) -> Scope {
    scope(ArbiterKind::Etcd, writes, crashes, cuts)
}

const fn biased(writes: u8, crashes: u8, cuts: u8) -> Scope {
    scope(ArbiterKind::Biased, writes, crashes, cuts)
}

/// A node dies and a line is cut, at any two moments: until the leg that was out is back.
const CRASH_AND_CUT: Scope = Scope { generations: 5, ..arbitrated(1, 1, 1) };
/// The operator gives the array to the peer; a crash or a cut comes between.
const SWITCHOVER: Scope = Scope { switchovers: 1, ..arbitrated(1, 0, 0) };
const SWITCHOVER_WORLD: Scope = Scope { switchovers: 1, generations: 4, ..arbitrated(0, 1, 1) };
const SWITCHOVER_BIASED: Scope = Scope { switchovers: 1, ..biased(1, 1, 1) };
/// The same before a node dies: the peer and the arbiter know configs that its superblock has not heard of.
const UNHEARD: Scope = Scope { switchovers: 1, generations: 5, ..arbitrated(0, 1, 0) };
/// The operator promotes a node by force.
const FORCE: Scope = Scope { forces: 1, generations: 6, ..arbitrated(1, 0, 0) };
const FORCE_BARE: Scope = bare(FORCE);
const FORCE_BIASED: Scope = Scope { forces: 1, generations: 5, ..biased(1, 1, 0) };
/// The holder's medium breaks, and is sound again: hosts are served through the peer's leg meanwhile.
const OWN_LEG: Scope = Scope { failures: 1, ..arbitrated(1, 0, 0) };
const OWN_LEG_CUT: Scope = Scope { failures: 1, generations: 5, ..arbitrated(1, 0, 1) };
const OWN_LEG_BIASED: Scope = Scope { failures: 1, ..biased(2, 1, 0) };
/// The arbiter is restored from a backup, and a node dies: its peer has taken over, or goes on without it.
const RESTORED: Scope = Scope { restores: 1, ..arbitrated(0, 1, 0) };
const RESTORED_CUT: Scope = Scope { restores: 1, ..arbitrated(0, 0, 1) };

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
    holds(biased(2, 1, 0), &["is promoted", "crashes", "rejoins", "copies", "acknowledges"]);
}

#[test]
fn a_node_crashes_and_a_line_is_cut() {
    let both = ["crashes", "the link is cut", "the way to the arbiter changes", "starts to serve"];
    let states = holds(CRASH_AND_CUT, &[&EVENTS[..], &both].concat());
    assert!(states > 400_000, "the search has lost its scope: {states} states");
}

#[test]
fn the_operator_gives_the_array_to_the_peer() {
    let events = [
        "names the peer",
        "waits for the old holder no longer",
        "gives the switchover up",
        "starts to serve",
    ];
    holds(SWITCHOVER, &[&events[..], &["a late swap happens", "acknowledges"]].concat());
    holds(SWITCHOVER_WORLD, &[&events[..], &["crashes", "the link is cut"]].concat());
    holds(
        SWITCHOVER_BIASED,
        &[&events[..], &["crashes", "the link is cut", "claims the peer's leg"]].concat(),
    );
}

#[test]
fn a_node_is_promoted_by_force() {
    let events = ["is promoted by force", "acknowledges", "arms", "copies", "rejoins"];
    holds(FORCE, &[&events[..], &["a late swap happens", "looks at its own log"]].concat());
    holds(FORCE_BIASED, &[&events[..], &["crashes", "claims the peer's leg"]].concat());
}

/// A node dies with its config at the arbiter alone, and its superblock had not heard of the one before either: what the
/// arbiter says of that one is history.
#[test]
fn a_config_that_only_the_arbiter_tells_of_is_history() {
    holds(UNHEARD, &["names the peer", "crashes", "starts to serve", "a late swap happens"]);
}

/// Nodes that were upgraded find a record that tells of nothing else: what was safe with it is.
#[test]
fn a_record_that_tells_of_no_past_is_as_good_as_it_was() {
    holds(bare(arbitrated(1, 1, 0)), &["starts", "starts to serve", "a late swap happens"]);
    holds(bare(CRASH_AND_CUT), &["crashes", "the link is cut", "starts to serve"]);
    holds(FORCE_BARE, &["is promoted by force", "a late swap happens", "looks at its own log"]);
    let unheard = search(bare(UNHEARD), None).err().expect("nothing tells of what the leg has not heard");
    assert!(unheard.contains("the legs have diverged"), "nothing is overwritten: {unheard}");
}

/// By its own leg alone a node knows that its peer held a newer config: it fenced that leg.
#[test]
fn an_arbiter_that_is_older_than_a_fence_is_not_believed() {
    let events = ["is backed up", "is restored", "stores a fence", "looks at its own log"];
    holds(RESTORED, &[&events[..], &["crashes", "starts"]].concat());
    holds(RESTORED_CUT, &[&events[..], &["the link is cut"]].concat());
}

#[test]
fn a_holder_serves_through_its_peers_leg() {
    let events = [
        "its leg fails the write",
        "cannot write its log",
        "cannot write its superblock",
        "tries its own leg again",
        "copies to its own leg",
        "rejoins",
        "acknowledges",
        "reads",
    ];
    holds(OWN_LEG, &events);
    holds(OWN_LEG_CUT, &[&events[..], &["the link is cut"]].concat());
    holds(OWN_LEG_BIASED, &[&events[..], &["crashes", "is orphaned"]].concat());
}

/// More of everything: minutes, and part of `make links`.
#[test]
fn deeper() {
    if std::env::var_os("GEMEL_DEEP").is_none() {
        return println!("skipped: GEMEL_DEEP is not set (see make links)");
    }
    for (writes, crashes, cuts) in [(2, 1, 0), (1, 2, 0), (1, 0, 2), (1, 1, 1)] {
        holds(arbitrated(writes, crashes, cuts), &EVENTS);
    }
    for base in [arbitrated(1, 1, 0), arbitrated(1, 0, 1), bare(arbitrated(1, 1, 0)), biased(1, 1, 1)] {
        holds(Scope { forces: 1, generations: 5, ..base }, &["is promoted by force"]);
    }
    for base in [arbitrated(1, 1, 0), arbitrated(0, 1, 1), FORCE, UNHEARD] {
        holds(Scope { restores: 1, generations: 5, ..base }, &["is restored"]);
    }
    for base in [arbitrated(1, 1, 0), arbitrated(1, 0, 1), biased(1, 1, 1)] {
        for (scope, event) in unusual(base) {
            holds(scope, &[event]);
        }
    }
}

/// A switchover, and a medium that breaks: each with what it has to lead to.
fn unusual(base: Scope) -> [(Scope, &'static str); 2] {
    let base = Scope { generations: 6, ..base };
    let [switchover, failure] = [Scope { switchovers: 1, ..base }, Scope { failures: 1, ..base }];
    [(switchover, "names the peer"), (failure, "copies to its own leg")]
}

/// A broken rule is found in a small scope, by what it leads to.
fn breaks(rule: Mutation, scope: Scope, violation: &str) {
    let found = search(scope, Some(rule)).err().unwrap_or_else(|| panic!("{rule:?} goes unnoticed"));
    println!("{rule:?}: {}", found.lines().next().unwrap_or_default());
    assert!(found.contains(violation), "{rule:?}: {found}");
}

/// Each broken rule is found where a crash and a cut come together, too.
#[test]
fn every_break_is_found_beside_a_crash_and_a_cut() {
    let rules = [
        Mutation::R1DataBeforeLog,
        Mutation::R3AckWithoutConfig,
        Mutation::R6LeaveUnmarked,
        Mutation::R8ActFirst,
        Mutation::R8ArbiterLast,
        Mutation::R8ActBeforeSuperblock,
        Mutation::R8TargetFirst,
        Mutation::R10FenceUndrained,
        Mutation::R11OldSessionsWrite,
        Mutation::R11RestartKeepsGeneration,
        Mutation::RejoinWithoutUnion,
        Mutation::LeaseNotWaitedOut,
        Mutation::ReadWithoutLease,
    ];
    for rule in rules {
        // Without an arbiter the scope is small; where a rule needs one, or more configs, the other shows it.
        let scopes = [biased(1, 1, 1), CRASH_AND_CUT];
        let found =
            scopes.into_iter().find_map(|scope| search(scope, Some(rule)).err().map(|why| (scope, why)));
        let (scope, why) = found.unwrap_or_else(|| panic!("{rule:?} goes unnoticed"));
        println!("{rule:?}, {:?}: {}", scope.policy, why.lines().next().unwrap_or_default());
    }
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
fn r8_the_arbiter_last() {
    breaks(Mutation::R8ArbiterLast, arbitrated(1, 0, 0), "");
}

#[test]
fn r8_an_effect_before_the_superblock() {
    breaks(Mutation::R8ActBeforeSuperblock, biased(1, 1, 1), "(I2)");
    breaks(Mutation::R8ActBeforeSuperblock, OWN_LEG_BIASED, "a panic");
}

#[test]
fn r8_the_leg_that_comes_back_first() {
    breaks(Mutation::R8TargetFirst, arbitrated(2, 0, 1), "");
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
fn r11_a_restart_that_keeps_its_generation() {
    breaks(Mutation::R11RestartKeepsGeneration, arbitrated(1, 1, 0), "");
}

#[test]
fn force_that_takes_every_config_for_its_history() {
    breaks(Mutation::ForceTakesAll, FORCE, "(I11)");
}

#[test]
fn a_half_copied_leg_that_serves() {
    breaks(Mutation::MixtureServes, FORCE_BARE, "");
}

#[test]
fn a_fence_that_says_nothing_of_the_arbiter() {
    for scope in [RESTORED, RESTORED_CUT] {
        breaks(Mutation::FenceUnheard, scope, "older than the fence of a holder");
    }
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
