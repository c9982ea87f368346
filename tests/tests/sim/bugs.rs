//! Rules that are broken on purpose: the simulator sees each of them. `make sim-bugs` finds these seeds anew.

use mirror::mutation::{Broken, Mutation};
use tests::sim::{Plan, Runner};

/// For each rule a seed that is clean, and is not with the rule broken.
const SHOWN: [(Mutation, u64); 14] = [
    (Mutation::R1DataBeforeLog, 300),
    (Mutation::R2WritesOverlap, 4),
    (Mutation::R3AckWithoutConfig, 1),
    (Mutation::R4LeaveUnflushed, 10),
    (Mutation::R5ClearBeforeCopy, 31),
    (Mutation::R5CopyUnlocked, 47),
    (Mutation::R6LeaveUnmarked, 14),
    (Mutation::R7PartClears, 4),
    (Mutation::R8ActFirst, 253),
    (Mutation::R9SameSlot, 201),
    (Mutation::R12CleanUnflushed, 89),
    (Mutation::DegradeWithoutMarks, 188),
    (Mutation::RejoinWithoutUnion, 7),
    (Mutation::RevertUnseen, 55),
];

/// Rules for which no seed is known yet. The first four are broken and seen in `bdev/mirror/tests/model`.
const ELSEWHERE: [Mutation; 5] = [
    Mutation::R10FenceUndrained,
    Mutation::R11OldSessionsWrite,
    Mutation::LeaseNotWaitedOut,
    Mutation::ReadWithoutLease,
    Mutation::CacheLossUnseen,
];

#[test]
fn every_broken_rule_is_seen() {
    let runner = Runner::new();
    let unseen = |(rule, seed): &(Mutation, u64)| {
        let _broken = Broken::rule(*rule);
        runner.run(&Plan::of(*seed)).verdict.is_ok()
    };
    let unseen: Vec<_> = SHOWN.into_iter().filter(unseen).collect();
    assert!(unseen.is_empty(), "`make sim-bugs` finds other seeds, or there are none: {unseen:?}");
}

#[test]
fn every_rule_is_listed() {
    let shown = SHOWN.map(|(rule, _)| rule);
    let listed = |rule: &Mutation| shown.contains(rule) || ELSEWHERE.contains(rule);
    let without: Vec<_> = Mutation::ALL.into_iter().filter(|rule| !listed(rule)).collect();
    assert!(without.is_empty(), "{without:?}");
}
