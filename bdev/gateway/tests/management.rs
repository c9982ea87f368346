//! Task management through a whole target: what is aborted stays aborted, and the others are told.

mod host;

use std::time::Duration;

use bdev::fault::{Fault, FaultTarget};
use host::{GOOD, World, attention};
use iscsi::initiator::Event;
use iscsi::{Preferences, TaskId};

const ABORT_TASK: u8 = 1;
const ABORT_TASK_SET: u8 = 2;
const CLEAR_ACA: u8 = 3;
const CLEAR_TASK_SET: u8 = 4;
const LOGICAL_UNIT_RESET: u8 = 5;
const TARGET_WARM_RESET: u8 = 6;
const TARGET_COLD_RESET: u8 = 7;
const TASK_REASSIGN: u8 = 8;
const QUERY_TASK: u8 = 9;
const QUERY_TASK_SET: u8 = 10;
const NEXUS_RESET: u8 = 11;
const QUERY_ASYNC_EVENT: u8 = 12;

const COMPLETE: u8 = 0;
const NO_TASK: u8 = 1;
const NO_LUN: u8 = 2;
const REASSIGN_UNSUPPORTED: u8 = 4;
const UNSUPPORTED: u8 = 5;
const SUCCEEDED: u8 = 7;

/// A write of a host that the medium keeps until the fault is cleared.
fn held_write(world: &mut World, host: usize) -> TaskId {
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    let before = world.target.luns()[0].active;
    let held = world.write(host);
    world.until("the write is under way", |world| world.target.luns()[0].active == before + 1);
    held
}

/// True when nobody has answered a while later.
fn still_waits(world: &mut World, host: usize, request: TaskId) -> bool {
    world.run_for(Duration::from_millis(200));
    world.hosts[host].take_managed(request).is_none()
}

fn answered(world: &mut World, host: usize, request: TaskId) -> u8 {
    let mut answer = None;
    world.until("the answer", |world| {
        answer = world.hosts[host].take_managed(request);
        answer.is_some()
    });
    answer.expect("waited for")
}

#[test]
fn an_abort_waits_for_its_write_and_no_status_comes() {
    for function in [ABORT_TASK, ABORT_TASK_SET, CLEAR_TASK_SET, LOGICAL_UNIT_RESET, TARGET_WARM_RESET] {
        let mut world = World::new(1);
        let held = held_write(&mut world, 0);
        let request = world.hosts[0].manage(function, 0, (function == ABORT_TASK).then_some(held));
        assert!(still_waits(&mut world, 0, request), "{function}: the write may still land");
        world.fault.plan().clear(FaultTarget::Write);
        assert_eq!(answered(&mut world, 0, request), COMPLETE, "{function}");
        let landed = world.first_byte();
        world.run_for(Duration::from_millis(200));
        assert_eq!(world.hosts[0].take(held), None, "{function}: an aborted command has no status");
        assert_eq!(world.first_byte(), landed, "{function}: nothing lands after the answer");
        if matches!(function, LOGICAL_UNIT_RESET | TARGET_WARM_RESET) {
            let code = if function == LOGICAL_UNIT_RESET { 0x2903 } else { 0x2902 };
            assert_eq!(world.ready(0), attention(code));
        }
        assert_eq!(world.ready(0), GOOD, "{function}: the session goes on");
    }
}

#[test]
fn what_is_not_there_cannot_be_managed() {
    let mut world = World::new(1);
    let done = world.write(0);
    assert_eq!(world.end(0, done), GOOD);
    assert_eq!(world.managed(0, ABORT_TASK, 0, Some(done)), NO_TASK);
    assert_eq!(world.managed(0, ABORT_TASK, 0, Some(TaskId(0x1234_5678))), NO_TASK);
    let absent = scsi::lun::encode(9);
    for function in [ABORT_TASK_SET, CLEAR_TASK_SET, LOGICAL_UNIT_RESET] {
        assert_eq!(world.managed(0, function, absent, None), NO_LUN);
    }
    assert_eq!(world.managed(0, CLEAR_ACA, 0, None), UNSUPPORTED);
    assert_eq!(world.managed(0, TASK_REASSIGN, 0, Some(done)), REASSIGN_UNSUPPORTED);
    assert_eq!(world.managed(0, 99, 0, None), UNSUPPORTED);
}

#[test]
fn the_other_nexuses_are_told_what_was_done_to_them() {
    let mut world = World::new(3);
    // Only host 1 has a command there.
    held_write(&mut world, 1);
    let request = world.hosts[0].manage(CLEAR_TASK_SET, 0, None);
    assert!(still_waits(&mut world, 0, request));
    world.fault.plan().clear(FaultTarget::Write);
    assert_eq!(answered(&mut world, 0, request), COMPLETE);
    assert_eq!((world.ready(1), world.ready(1)), (attention(0x2f00), GOOD));
    assert_eq!((world.ready(0), world.ready(2)), (GOOD, GOOD));
    // An abort of one's own is nobody else's business.
    held_write(&mut world, 0);
    let request = world.hosts[0].manage(ABORT_TASK_SET, 0, None);
    world.run_for(Duration::from_millis(10));
    world.fault.plan().clear(FaultTarget::Write);
    assert_eq!(answered(&mut world, 0, request), COMPLETE);
    assert_eq!([world.ready(0), world.ready(1), world.ready(2)], [GOOD; 3]);
    // A reset is everybody's, at that unit alone.
    assert_eq!(world.managed(2, LOGICAL_UNIT_RESET, 0, None), COMPLETE);
    for host in 0..3 {
        let other = world.hosts[host].send_to(1, &[0; 6], &[], 0);
        assert_eq!(world.end(host, other), GOOD);
        assert_eq!((world.ready(host), world.ready(host)), (attention(0x2903), GOOD));
    }
}

/// MODE SELECT of the control mode page with TAS.
fn set_task_aborted(world: &mut World, host: usize, bit: u8) {
    let list = [0, 0, 0, 0, 0x0a, 10, 0, 0x10, 0, bit, 0, 0, 0, 0, 0, 0];
    assert_eq!(world.run(host, &[0x15, 0x10, 0, 0, 16, 0], &list), GOOD);
}

/// With TAS, who had a command there has its status, when the command is over, and no unit attention besides.
#[test]
fn a_command_that_another_nexus_ends_has_a_status_where_that_was_asked_for() {
    const TASK_ABORTED: (u8, u16) = (0x40, 0);
    for function in [CLEAR_TASK_SET, LOGICAL_UNIT_RESET] {
        let mut world = World::new(2);
        set_task_aborted(&mut world, 0, 0x40);
        assert_eq!((world.ready(1), world.ready(1)), (attention(0x2a01), GOOD));
        let held = held_write(&mut world, 1);
        let request = world.hosts[0].manage(function, 0, None);
        assert!(still_waits(&mut world, 0, request), "{function}");
        assert_eq!(world.hosts[1].take(held), None, "{function}: the write may still land");
        world.fault.plan().clear(FaultTarget::Write);
        assert_eq!(world.end(1, held), TASK_ABORTED, "{function}");
        assert_eq!(answered(&mut world, 0, request), COMPLETE, "{function}");
        match function {
            CLEAR_TASK_SET => assert_eq!(world.ready(1), GOOD),
            _ => assert_eq!((world.ready(1), world.ready(1)), (attention(0x2903), GOOD)),
        }
        // The reset has taken back what was not saved.
        let held = held_write(&mut world, 1);
        let request = world.hosts[0].manage(CLEAR_TASK_SET, 0, None);
        world.run_for(Duration::from_millis(5));
        world.fault.plan().clear(FaultTarget::Write);
        assert_eq!(answered(&mut world, 0, request), COMPLETE);
        if function == CLEAR_TASK_SET {
            assert_eq!(world.end(1, held), TASK_ABORTED);
        } else {
            world.run_for(Duration::from_millis(50));
            assert_eq!(world.hosts[1].take(held), None);
        }
    }
    // What a nexus ends of its own has none, and neither has what waits for data and is ended by it.
    let mut world = World::new(2);
    set_task_aborted(&mut world, 0, 0x40);
    assert_eq!(world.ready(1), attention(0x2a01));
    let held = held_write(&mut world, 0);
    let request = world.hosts[0].manage(ABORT_TASK_SET, 0, None);
    world.run_for(Duration::from_millis(5));
    world.fault.plan().clear(FaultTarget::Write);
    assert_eq!(answered(&mut world, 0, request), COMPLETE);
    world.run_for(Duration::from_millis(50));
    assert_eq!(world.hosts[0].take(held), None);
    assert_eq!(world.ready(1), GOOD);
}

/// Ended by another nexus, and then by its own: nobody waits for a status.
#[test]
fn an_abort_of_ones_own_takes_back_the_status() {
    let mut world = World::new(2);
    set_task_aborted(&mut world, 0, 0x40);
    assert_eq!(world.ready(1), attention(0x2a01));
    let held = held_write(&mut world, 1);
    let cleared = world.hosts[0].manage(CLEAR_TASK_SET, 0, None);
    world.run_for(Duration::from_millis(5));
    let aborted = world.hosts[1].manage(ABORT_TASK, 0, Some(held));
    world.run_for(Duration::from_millis(5));
    world.fault.plan().clear(FaultTarget::Write);
    assert_eq!((answered(&mut world, 0, cleared), answered(&mut world, 1, aborted)), (COMPLETE, COMPLETE));
    world.run_for(Duration::from_millis(50));
    assert_eq!(world.hosts[1].take(held), None);
}

/// What its own nexus has ended, another one does not end again: nobody is told of that, and no status comes.
#[test]
fn what_has_ended_is_not_ended_again() {
    for status in [0, 0x40] {
        let mut world = World::new(2);
        set_task_aborted(&mut world, 0, status);
        world.run_for(Duration::from_millis(5));
        let _ = world.ready(1);
        let held = held_write(&mut world, 1);
        let aborted = world.hosts[1].manage(ABORT_TASK, 0, Some(held));
        world.run_for(Duration::from_millis(5));
        let cleared = world.hosts[0].manage(CLEAR_TASK_SET, 0, None);
        world.run_for(Duration::from_millis(5));
        world.fault.plan().clear(FaultTarget::Write);
        assert_eq!(
            (answered(&mut world, 0, cleared), answered(&mut world, 1, aborted)),
            (COMPLETE, COMPLETE)
        );
        world.run_for(Duration::from_millis(50));
        assert_eq!(world.hosts[1].take(held), None);
        assert_eq!(world.ready(1), GOOD, "TAS {status}");
    }
}

/// A host that repeats its abort, or whose task somebody else has ended before, waits like the first one.
#[test]
fn a_task_that_was_ended_and_is_still_at_work_is_not_gone() {
    let mut world = World::new(2);
    let held = held_write(&mut world, 1);
    let aborts = [(); 2].map(|()| world.hosts[1].manage(ABORT_TASK, 0, Some(held)));
    assert!(still_waits(&mut world, 1, aborts[0]) && still_waits(&mut world, 1, aborts[1]));
    world.fault.plan().clear(FaultTarget::Write);
    assert_eq!(aborts.map(|abort| answered(&mut world, 1, abort)), [COMPLETE; 2]);
    assert_eq!(world.managed(1, ABORT_TASK, 0, Some(held)), NO_TASK);

    let held = held_write(&mut world, 1);
    let cleared = world.hosts[0].manage(CLEAR_TASK_SET, 0, None);
    assert!(still_waits(&mut world, 0, cleared));
    let abort = world.hosts[1].manage(ABORT_TASK, 0, Some(held));
    assert!(still_waits(&mut world, 1, abort), "the write may still land");
    world.fault.plan().clear(FaultTarget::Write);
    assert_eq!((answered(&mut world, 0, cleared), answered(&mut world, 1, abort)), (COMPLETE, COMPLETE));
}

/// A write of a host that reaches the medium so much later; those that come after it do at once.
fn late_write(world: &mut World, host: usize, cdb: &[u8], later: Duration) -> TaskId {
    world.fault.plan().set_latency(FaultTarget::Write, later);
    let late = world.hosts[host].send(cdb, &[7; 512], 0);
    world.until("the write is under way", |world| world.target.luns()[0].active == 1);
    world.run_for(Duration::from_millis(1));
    world.fault.plan().set_latency(FaultTarget::Write, Duration::ZERO);
    late
}

/// WRITE(10) of one block.
fn write_to(lba: u8) -> [u8; 10] {
    [0x2a, 0, 0, 0, 0, lba, 0, 0, 1, 0]
}

/// A unit attention says that a write is over while it is still on its way to the medium: what is written there next comes behind it.
#[test]
fn what_is_written_after_an_abort_comes_behind_what_was_aborted() {
    for function in [CLEAR_TASK_SET, LOGICAL_UNIT_RESET, TARGET_WARM_RESET] {
        let mut world = World::new(2);
        late_write(&mut world, 1, &write_to(0), Duration::from_millis(500));
        let reset = world.hosts[0].manage(function, 0, None);
        assert!(still_waits(&mut world, 0, reset), "{function}");
        assert_eq!(world.ready(1).0, scsi::status::CHECK_CONDITION, "{function}: the attention");
        assert_eq!(world.ready(1), GOOD, "{function}: the unit is ready all the same");
        let next = world.hosts[1].send(&write_to(0), &[9; 512], 0);
        assert_eq!(world.run(1, &write_to(1), &[9; 512]), GOOD, "{function}: other blocks are nobody's");
        assert_eq!(world.hosts[1].take(next), None, "{function}: the aborted write may still land");
        assert_eq!((answered(&mut world, 0, reset), world.end(1, next)), (COMPLETE, GOOD), "{function}");
        world.run_for(Duration::from_millis(500));
        assert_eq!(world.first_byte(), 9, "{function}");
    }
}

/// The same of a session that ends: its host goes on by another path.
#[test]
fn what_is_written_by_another_path_comes_behind_what_a_dead_session_wrote() {
    let mut world = World::new(1);
    let other = world.add(0, |config| config.isid[5] = 2);
    world.until("a login", |world| world.hosts[other].is_in());
    // WRITE SAME of more than a piece: it ends with the one that it is at.
    let same = [0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0];
    late_write(&mut world, 0, &same, Duration::from_millis(500));
    world.hosts[0].hang_up();
    world.run_for(Duration::from_millis(5));
    let next = world.hosts[other].send(&write_to(0), &[9; 512], 0);
    world.run_for(Duration::from_millis(200));
    assert_eq!(world.hosts[other].take(next), None, "the first write may still land");
    assert_eq!(world.end(other, next), GOOD);
    world.run_for(Duration::from_millis(500));
    let medium = |lba| world.medium.snapshot(bdev::BlockRange::new(lba, 1))[0];
    assert_eq!([0, 1, 0xfff].map(medium), [9, 7, 0]);
    assert_eq!(world.target.luns()[0].active, 0);
}

#[test]
fn a_reset_ends_what_came_before_it_and_nothing_that_came_after() {
    let mut world = World::new(1);
    let before = held_write(&mut world, 0);
    // Both leave in one segment.
    let request = world.hosts[0].manage(LOGICAL_UNIT_RESET, 0, None);
    let after = world.write(0);
    world.run_for(Duration::from_millis(10));
    world.fault.plan().clear(FaultTarget::Write);
    assert_eq!(answered(&mut world, 0, request), COMPLETE);
    assert_eq!(world.end(0, after), attention(0x2903), "it came after, and is told");
    assert_eq!(world.hosts[0].take(before), None);
}

#[test]
fn a_cold_reset_ends_the_sessions_of_all() {
    let mut world = World::new(2);
    let held = held_write(&mut world, 1);
    let request = world.hosts[0].manage(TARGET_COLD_RESET, 0, None);
    assert!(still_waits(&mut world, 0, request));
    world.fault.plan().clear(FaultTarget::Write);
    assert_eq!(answered(&mut world, 0, request), COMPLETE);
    world.until("the end of both", |world| world.target.connections().is_empty());
    world.run_for(Duration::from_millis(10));
    for host in 0..2 {
        let closed = world.hosts[host].closed().expect("over");
        assert!(closed.contains("announced"), "{closed}");
    }
    assert_eq!(world.hosts[1].take(held), None);
    let again = world.add(0, |_| {});
    world.until("a login", |world| world.hosts[again].is_in());
    assert_eq!(world.ready(again), GOOD);
}

#[test]
fn queries_need_their_protocol_level() {
    let level = |level| {
        move |config: &mut iscsi::initiator::Config| {
            config.preferences = Preferences { protocol_level: level, ..Preferences::default() };
        }
    };
    let mut world = World::empty();
    world.add(0, level(1));
    world.until("a login", |world| world.hosts[0].is_in());
    for function in [QUERY_TASK, QUERY_TASK_SET, NEXUS_RESET, QUERY_ASYNC_EVENT] {
        assert_eq!(world.managed(0, function, 0, None), UNSUPPORTED);
    }
    let mut world = World::empty();
    world.add(0, level(2));
    world.add(1, |_| {});
    world.until("logins", |world| world.hosts.iter().all(host::Host::is_in));
    assert_eq!(world.managed(0, QUERY_TASK_SET, 0, None), COMPLETE);
    let held = held_write(&mut world, 0);
    assert_eq!(world.managed(0, QUERY_TASK, 0, Some(held)), SUCCEEDED);
    assert_eq!(world.managed(0, QUERY_TASK, 0, Some(TaskId(77_777))), COMPLETE);
    assert_eq!(world.managed(0, QUERY_TASK_SET, 0, None), SUCCEEDED);
    assert_eq!(world.managed(0, QUERY_TASK_SET, scsi::lun::encode(1), None), COMPLETE);
    assert_eq!(world.managed(0, QUERY_ASYNC_EVENT, 0, None), COMPLETE);
    let request = world.hosts[0].manage(NEXUS_RESET, 0, None);
    assert!(still_waits(&mut world, 0, request));
    world.fault.plan().clear(FaultTarget::Write);
    assert_eq!(answered(&mut world, 0, request), COMPLETE);
    assert_eq!(world.hosts[0].take(held), None);
    // Behind the answer the session ends, and the nexus that comes again is told.
    world.until("the end of the session", |world| world.hosts[0].closed().is_some());
    let again = world.add(0, level(2));
    world.hosts[again].leave_attentions();
    world.until("a new session", |world| world.hosts[again].is_in());
    assert_eq!(world.managed(again, QUERY_ASYNC_EVENT, 0, None), SUCCEEDED);
    assert_eq!((world.ready(again), world.ready(again), world.ready(1)), (attention(0x2907), GOOD, GOOD));
}

#[test]
fn a_node_that_ends_asks_for_logouts_first() {
    let mut world = World::new(2);
    world.target.shut_down();
    let asked = |host: &host::Host| {
        host.events.iter().any(|event| matches!(event, Event::LogoutRequested { seconds: 1 }))
    };
    world.until("the requests", |world| world.hosts.iter().all(asked));
    world.hosts[0].connection().log_out();
    world.until("one logout", |world| world.hosts[0].closed().is_some());
    assert_eq!(world.hosts[0].closed().as_deref(), Some("logged out"));
    assert!(world.hosts[1].closed().is_none());
    world.until("the end of the other", |world| world.hosts[1].closed().is_some());
    assert!(world.target.is_idle());
}
