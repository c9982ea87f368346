//! The record of reservations rots on a leg, on both, in one copy or both: it comes back, or hosts are kept out until the operator
//! gives it up.

use mirror::format::ArbiterKind;
use tests::sim::{Fault, Plan, Rot, Runner, Who};

use super::found::{at, ms, plan};

/// It rots while both legs are in sync; then everybody starts anew.
fn rots(seed: u64, policy: ArbiterKind, rot: Fault) -> Plan {
    let again = at(1500, None, Fault::Kill(Who::Both, ms(300)));
    let mut plan = plan(seed, policy, &[at(1000, None, rot), again]);
    // The load is over by then: nobody writes the record anew.
    (plan.load.ops, plan.load.register_percent, plan.load.gap) = (100, 20, ms(2));
    plan
}

fn journal(plan: &Plan) -> String {
    let outcome = Runner::new().tell(plan);
    assert_eq!(outcome.verdict, Ok(()), "{plan:?}");
    assert!(!outcome.journal.contains(", 0 keys kept") || outcome.journal.contains("gives up"), "{plan:?}");
    outcome.journal
}

#[test]
fn a_record_that_one_leg_has_lost_comes_back() {
    for (seed, policy) in (1..).zip([ArbiterKind::Etcd, ArbiterKind::Biased]) {
        for who in [Who::Holder, Who::Peer] {
            for rot in [Fault::Rot(who, Rot::UnitStates), Fault::Misdirect(who, Rot::UnitStates)] {
                let journal = journal(&rots(seed, policy, rot));
                assert!(journal.contains("is whole again"), "{who:?} {policy:?}");
                assert!(!journal.contains("gives up the unit's record"), "{who:?} {policy:?}");
            }
        }
    }
}

#[test]
fn one_copy_is_enough() {
    for (seed, who) in (11..).zip([Who::Holder, Who::Peer, Who::Both]) {
        let journal = journal(&rots(seed, ArbiterKind::Biased, Fault::Rot(who, Rot::UnitState)));
        assert!(!journal.contains("cannot read the unit's record"), "{who:?}");
    }
}

#[test]
fn a_record_that_nobody_has_keeps_hosts_out_until_it_is_given_up() {
    for (seed, policy) in (21..).zip([ArbiterKind::Etcd, ArbiterKind::Biased]) {
        let journal = journal(&rots(seed, policy, Fault::Rot(Who::Both, Rot::UnitStates)));
        for said in ["cannot read the unit's record", "gives up the unit's record"] {
            assert!(journal.contains(said), "{policy:?}: {said}");
        }
    }
}
