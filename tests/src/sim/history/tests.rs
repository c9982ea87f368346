use super::*;

const A: Service = (0, 1);
const B: Service = (1, 1);

fn at(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

fn written(history: &mut History, from: u64, to: u64) -> Value {
    let value = history.invoke_write(7..8, 0, A, at(from));
    history.acknowledge(7..8, value, at(to));
    value
}

fn read(history: &mut History, value: Value, from: u64, to: u64) -> Result<(), String> {
    // As a read that does not look at once.
    history.read(7, value, (at(from), at(to)), None)
}

#[test]
fn reads_of_the_last_write_or_of_one_under_way_are_in_order() {
    let mut history = History::new(StandbyMode::Refuse);
    assert_eq!(history.check(), Ok(()));
    read(&mut history, 0, 1, 2).expect("never written");
    let first = written(&mut history, 3, 10);
    read(&mut history, 0, 4, 5).expect("not yet");
    read(&mut history, first, 5, 6).expect("already");
    read(&mut history, first, 11, 12).expect("still");
    assert_eq!(history.check(), Ok(()));
    read(&mut history, 0, 7, 8).expect("looked at later");
    assert!(history.check().is_err(), "the old value after the new one");
}

#[test]
fn a_lost_write_shows_at_once_and_at_the_end() {
    let mut history = History::new(StandbyMode::Refuse);
    let first = written(&mut history, 1, 2);
    let second = written(&mut history, 3, 4);
    let before = history.acknowledged(7);
    assert!(history.read(7, first, (at(5), at(6)), before).is_err());
    assert!(history.check_leg(7, first).is_err() && history.check_leg(7, second).is_ok());
    read(&mut history, first, 5, 6).expect("looked at later");
    assert!(history.check().is_err());
    assert!(read(&mut history, 99, 5, 6).is_err(), "never written");
}

#[test]
fn an_unknown_write_happens_before_the_next_service_or_never() {
    let mut history = History::new(StandbyMode::Refuse);
    let lost = history.invoke_write(7..8, 0, A, at(1));
    history.give_up(lost, Outcome::Unknown, at(5));
    history.answered(B, at(9), at(10));
    read(&mut history, 0, 11, 12).expect("it never happened");
    assert_eq!(history.check(), Ok(()));
    read(&mut history, lost, 13, 14).expect("looked at later");
    assert!(history.check().is_err(), "it landed after the other node had answered");
}

#[test]
fn an_unknown_write_happens_before_its_host_is_let_in_again() {
    let mut history = History::new(StandbyMode::Refuse);
    let lost = history.invoke_write(7..8, 0, A, at(1));
    history.give_up(lost, Outcome::Unknown, at(5));
    read(&mut history, 0, 6, 7).expect("not yet");
    read(&mut history, lost, 8, 9).expect("now");
    assert_eq!(history.check(), Ok(()));
    let again = history.invoke_write(7..8, 0, A, at(10));
    history.give_up(again, Outcome::Unknown, at(11));
    history.logged_in(0, 0, at(12));
    read(&mut history, lost, 13, 14).expect("it never happened");
    read(&mut history, again, 15, 16).expect("looked at later");
    assert!(history.check().is_err(), "it landed after the login");
}

#[test]
fn an_aborted_write_happens_before_the_abort_is_answered_or_never() {
    for standby in [StandbyMode::Refuse, StandbyMode::Forward] {
        let mut history = History::new(standby);
        let aborted = history.invoke_write(7..8, 0, A, at(1));
        history.give_up(aborted, Outcome::Ended, at(5));
        read(&mut history, 0, 6, 7).expect("it never happened");
        assert_eq!(history.check(), Ok(()));
        read(&mut history, aborted, 8, 9).expect("looked at later");
        assert!(history.check().is_err(), "it landed after its abort had been answered");
        let newer = written(&mut history, 10, 11);
        assert_eq!(history.overwritten(&history.lines[&7], aborted, history.acknowledged(7)), Some(newer));
    }
}
