//! Rules that are broken on purpose: the simulator sees each of them. `make sim-bugs` finds these seeds anew.

use mirror::mutation::{Broken, Mutation};
use tests::sim::{Plan, Runner, SHOWN_ELSEWHERE, shrink};

/// For each rule a seed that is clean, and was not with the rule broken when it was last looked for.
const SHOWN: [(Mutation, u64); 24] = [
    (Mutation::R1DataBeforeLog, 30),
    (Mutation::R2WritesOverlap, 8),
    (Mutation::R3AckWithoutConfig, 4),
    (Mutation::R4LeaveUnflushed, 169),
    (Mutation::R5ClearBeforeCopy, 586),
    (Mutation::R5CopyUnlocked, 138),
    (Mutation::R6LeaveUnmarked, 29),
    (Mutation::R7PartClears, 20),
    (Mutation::R8ActFirst, 1),
    (Mutation::R9SameSlot, 12),
    (Mutation::R10FenceUndrained, 67),
    (Mutation::R11RestartKeepsGeneration, 21),
    (Mutation::R12CleanUnflushed, 3),
    (Mutation::DegradeWithoutMarks, 169),
    (Mutation::RejoinWithoutUnion, 6),
    (Mutation::LeaseNotWaitedOut, 49),
    (Mutation::ReadWithoutLease, 1),
    (Mutation::CacheLossUnseen, 26),
    (Mutation::RevertUnseen, 39),
    (Mutation::ForceTakesAll, 26),
    (Mutation::SplitUnseen, 26),
    (Mutation::LossUnseen, 162),
    (Mutation::StateOnOneLeg, 1),
    (Mutation::PreemptWithoutAbort, 239),
];

/// Whatever changes the time that anything takes changes what seeds show: then the first ones are tried.
const OTHERS: u64 = 300;

fn is_seen(runner: &Runner, rule: Mutation, seed: u64) -> bool {
    let run = |broken: Option<Mutation>| {
        let _broken = Broken::rule(broken);
        runner.run(&Plan::of(seed)).verdict
    };
    run(Some(rule)).is_err() && run(None).is_ok()
}

#[test]
fn every_broken_rule_is_seen() {
    let runner = Runner::new();
    let unseen = |(rule, seed): &(Mutation, u64)| {
        let mut seeds = core::iter::once(*seed).chain(1..=OTHERS);
        let shown = seeds.find(|seed| is_seen(&runner, *rule, *seed));
        if shown.is_some_and(|shown| shown != *seed) {
            println!("{rule:?} is seen by seed {shown:?}, and not by {seed} any more");
        }
        shown.is_none()
    };
    let unseen: Vec<_> = SHOWN.into_iter().filter(unseen).collect();
    assert!(unseen.is_empty(), "not in {OTHERS} seeds: `make sim-bugs` looks further: {unseen:?}");
}

#[test]
fn a_leg_that_counts_alone_unflushed_is_seen() {
    let runner = Runner::new();
    let _broken = Broken::rule(Mutation::LastCopyUnflushed);
    let mut plans = super::found::dark_when_alone();
    assert!(plans.any(|plan| runner.run(&plan).verdict.is_err()));
}

/// What fails is made small, and still fails; what is printed of it names a function that is there.
#[test]
fn a_failing_seed_shrinks_to_a_test() {
    let (rule, seed) = (Mutation::R3AckWithoutConfig, 4);
    let runner = Runner::new();
    let _broken = Broken::rule(rule);
    let shrunk = shrink(&runner, seed).expect("it fails");
    let whole = Plan::of(seed);
    assert!(shrunk.events.len() < whole.events.len() || shrunk.plan.load.ops < whole.load.ops, "{shrunk:?}");
    let again = runner.run(&Plan::of(seed).only(&shrunk.events, shrunk.plan.load.ops));
    assert_eq!(again.verdict.expect_err("as it was found").what, shrunk.what);
    let call = format!("clean(&Plan::of({seed}).only(&{:?}, {}))", shrunk.events, shrunk.plan.load.ops);
    assert!(shrunk.as_test().contains(&call), "{}", shrunk.as_test());
}

#[test]
fn every_rule_is_listed() {
    let shown = SHOWN.map(|(rule, _)| rule);
    let listed = |rule: &Mutation| shown.contains(rule) || SHOWN_ELSEWHERE.contains(rule);
    let without: Vec<_> = Mutation::ALL.into_iter().filter(|rule| !listed(rule)).collect();
    assert!(without.is_empty(), "{without:?}");
}
