use super::super::spc::Kind;
use super::*;

const A: Nexus = Nexus { host: 0, node: 0 };
const B: Nexus = Nexus { host: 1, node: 0 };
const NOW: Instant = Instant::EPOCH;

fn good(orders: &mut Orders, nexus: Nexus, ask: Ask) {
    let number = orders.begin(nexus, ask);
    orders.answered(number, &Answer::Good, NOW).expect("it is in order");
}

/// Both are registered, and A has it for itself.
fn reserved() -> Orders {
    let mut orders = Orders::default();
    good(&mut orders, A, Ask::Ignore(A.key(1)));
    good(&mut orders, B, Ask::Ignore(B.key(1)));
    good(&mut orders, A, Ask::Reserve(A.key(1), Kind::WriteExclusive));
    orders
}

#[test]
fn what_a_reservation_forbids_must_not_pass_nor_what_it_allows_be_refused() {
    let mut orders = reserved();
    let [write, own, read] = [(B, Demand::Write), (A, Demand::Write), (B, Demand::Read)]
        .map(|(nexus, demand)| orders.watch(nexus, demand));
    assert!(orders.passed(write).is_err());
    orders.kept_out(write).expect("as it should be");
    assert!(orders.kept_out(own).is_err() && orders.kept_out(read).is_err());
    assert!(orders.passed(own).is_ok() && orders.passed(read).is_ok());
}

#[test]
fn while_a_command_is_under_way_either_may_be() {
    let mut orders = reserved();
    let write = orders.watch(B, Demand::Write);
    let release = orders.begin(A, Ask::Release(A.key(1), Kind::WriteExclusive));
    let later = orders.watch(B, Demand::Write);
    orders.passed(later).expect("released already");
    assert!(orders.answered(release, &Answer::Conflict, NOW).is_err());
    orders.answered(release, &Answer::Good, NOW).expect("now it is told");
    orders.kept_out(write).expect("it came before");
    let late = orders.watch(B, Demand::Write);
    assert!(orders.kept_out(late).is_err(), "it is over");
}

#[test]
fn what_was_lost_may_happen_until_it_is_over() {
    let mut orders = reserved();
    let clear = orders.begin(B, Ask::Clear(B.key(1)));
    orders.lost(clear);
    let keys = orders.begin(A, Ask::ReadKeys);
    let both = Answer::Keys(vec![A.key(1), B.key(1)]);
    orders.answered(keys, &both, NOW).expect("not yet");
    assert!(!orders.is_free() && orders.may_be(&Table::default()));
    orders.over(clear).expect("few orders");
    let keys = orders.begin(B, Ask::ReadKeys);
    orders.answered(keys, &Answer::Keys(Vec::new()), NOW).expect("it was");
    assert!(orders.is_free());
    let keys = orders.begin(A, Ask::ReadKeys);
    assert!(orders.answered(keys, &both, NOW).is_err(), "it comes back");
}

#[test]
fn two_cannot_both_have_it() {
    let mut orders = Orders::default();
    for nexus in [A, B] {
        good(&mut orders, nexus, Ask::Ignore(nexus.key(1)));
    }
    let asks = [A, B].map(|it| orders.begin(it, Ask::Reserve(it.key(1), Kind::ExclusiveAccess)));
    orders.answered(asks[1], &Answer::Good, NOW).expect("one of them");
    assert!(orders.answered(asks[0], &Answer::Good, NOW).is_err());
    orders.answered(asks[0], &Answer::Conflict, NOW).expect("the other one");
}

#[test]
fn who_was_preempted_with_his_commands_is_barred_until_somebody_may_let_him_in() {
    let mut orders = reserved();
    let preempt = Ask::Preempt(B.key(1), A.key(1), Kind::WriteExclusive, Running::Aborted);
    let number = orders.begin(B, preempt);
    assert_eq!(orders.barred().get(&A), None);
    orders.answered(number, &Answer::Good, NOW).expect("it may");
    assert_eq!(orders.barred().get(&A), Some(&NOW));
    good(&mut orders, A, Ask::Ignore(A.key(2)));
    assert_eq!(orders.barred().get(&A), Some(&NOW), "registered alone does not let in");
    let _ = orders.begin(B, Ask::Release(B.key(1), Kind::WriteExclusive));
    assert_eq!(orders.barred().get(&A), None);
}
