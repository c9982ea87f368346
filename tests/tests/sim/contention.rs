//! Hosts that contend for the unit by reservations: runs that once failed.

use mirror::format::ArbiterKind;
use tests::sim::{Fault, Phase, Plan};

use super::clean;
use super::found::{at, ms, plan};

/// Two that contend, beside one that does not.
fn contended(seed: u64, event: tests::sim::Event) -> Plan {
    let mut plan = Plan { contenders: 2, ..plan(seed, ArbiterKind::Etcd, &[event]) };
    (plan.load.hosts, plan.load.granules, plan.load.ops) = (1, 2, 600);
    plan
}

/// A session was lost while its change of reservations was being stored, and the host came again by another one, which was let in:
/// then the change took effect, behind what the host did next.
#[test]
fn a_change_of_a_lost_session_is_over_when_its_host_is_let_in_again() {
    for seed in 0..12 {
        let alone = at(600 + seed * 50, Some(Phase::ReservationChange), Fault::Isolate(ms(1000)));
        clean(&contended(seed, alone));
    }
}
