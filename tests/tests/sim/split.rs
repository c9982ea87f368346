//! Promotions by force that lose something: two data sets, told of and kept until the operator keeps one.

use mirror::format::ArbiterKind;
use tests::sim::{Fault, Gone, Keeps, Plan, Runner, Upset, Who};

use super::found::{at, ms, plan};

fn forced(seed: u64, policy: ArbiterKind, gone: Gone, keeps: Keeps, upset: Upset) -> Plan {
    let mut plan = plan(seed, policy, &[at(800, None, Fault::ForceBehind(gone, keeps, upset))]);
    plan.length = ms(14_000);
    plan.load.gap = ms(180);
    plan.load.register_percent = 4;
    plan
}

/// The run is clean, and what it was made for came about: the data sets differed, and one is left.
fn ends_in_one(plan: &Plan, keeps: usize) {
    let outcome = Runner::new().tell(plan);
    assert_eq!(outcome.verdict, Ok(()), "{plan:?}");
    let chosen = format!("keeps the data set of node {keeps}: ");
    let line = outcome.journal.lines().find_map(|line| Some(line.split_once(&chosen)?.1));
    let differing: Option<u64> = line.and_then(|line| line.split(' ').next()?.parse().ok());
    assert!(differing.is_some_and(|blocks| blocks > 0), "{differing:?} of {plan:?}");
    assert!(outcome.journal.contains("one data set is left"), "{plan:?}");
}

const POLICIES: [ArbiterKind; 4] =
    [ArbiterKind::Etcd, ArbiterKind::Manual, ArbiterKind::ClusterManager, ArbiterKind::Biased];

#[test]
fn either_data_set_can_be_kept_under_every_policy() {
    for (policy, seed) in POLICIES.into_iter().zip((1..).step_by(10)) {
        for (gone, seed) in [Gone::Down, Gone::CutOff].into_iter().zip(seed..) {
            ends_in_one(&forced(seed, policy, gone, Keeps::Promoted, Upset::None), 1);
            ends_in_one(&forced(seed, policy, gone, Keeps::Old, Upset::None), 0);
        }
    }
}

#[test]
fn a_node_may_die_or_stand_still_while_one_is_overwritten() {
    for (policy, seed) in POLICIES.into_iter().zip((101..).step_by(10)) {
        for (who, seed) in [Who::Holder, Who::Peer, Who::Both].into_iter().zip(seed..) {
            let (gone, upset) = if seed % 2 == 0 {
                (Gone::Down, Upset::Kill(who))
            } else {
                (Gone::CutOff, Upset::Pause(who))
            };
            ends_in_one(&forced(seed, policy, gone, Keeps::Promoted, upset), 1);
            ends_in_one(&forced(seed + 5, policy, gone, Keeps::Old, upset), 0);
        }
    }
}
