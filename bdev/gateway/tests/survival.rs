//! Error recovery level 2 at a whole target: tasks that outlive their connection, and for how long (RFC 7143 section 7.2).

mod host;

use std::time::Duration;

use bdev::fault::{Fault, FaultTarget};
use engine::Progress;
use host::{GOOD, World, attention, portal};
use iscsi::TaskId;
use iscsi::initiator::{Config, Event};

/// Function TASK REASSIGN.
const REASSIGN: u8 = 8;

fn surviving(config: &mut Config) {
    config.preferences.max_connections = 3;
    config.preferences.error_recovery_level = 2;
    config.preferences.default_time2wait = 0;
    config.preferences.default_time2retain = 1;
}

/// A session of so many connections. Time2Wait is the target's two seconds, Time2Retain one.
fn session(connections: u16) -> World {
    let mut world = World::empty();
    let mut config = world.target.config();
    config.preferences.default_time2wait = 2;
    world.target.set_config(config);
    world.add(0, surviving);
    world.until("a login", |world| world.hosts[0].is_in());
    for cid in 1..connections {
        join(&mut world, cid);
    }
    world
}

fn join(world: &mut World, cid: u16) -> usize {
    let index = world.join(0, cid, portal(3260), surviving);
    world.until("a login", |world| world.hosts[index].is_in());
    index
}

/// Has the target hear that all answers have arrived.
fn acknowledge(world: &mut World, host: usize) {
    world.hosts[host].connection().ping();
    world.run_for(Duration::from_millis(5));
}

/// A write on a connection that the medium keeps until the fault is cleared.
fn held_write(world: &mut World, host: usize) -> TaskId {
    acknowledge(world, host);
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    let before = world.target.luns()[0].active;
    let held = world.write(host);
    world.until("the write is under way", |world| world.target.luns()[0].active == before + 1);
    held
}

fn hang_up(world: &mut World, host: usize) {
    world.hosts[host].hang_up();
    world.run_for(Duration::from_millis(20));
}

/// Removes the connection with this identifier for recovery.
fn remove(world: &mut World, by: usize, cid: u16) -> u8 {
    world.hosts[by].events.clear();
    world.hosts[by].connection().recover(cid);
    let mut answer = None;
    world.until("an answer", |world| {
        answer = world.hosts[by].events.iter().find_map(|event| match event {
            Event::Removed { response, time2wait, time2retain } => {
                assert_eq!((*time2wait, *time2retain), (2, 1));
                Some(*response)
            }
            _ => None,
        });
        answer.is_some()
    });
    answer.expect("waited for")
}

fn take_over(world: &mut World, by: usize, of: usize) {
    let [by, of] = world.hosts.get_disjoint_mut([by, of]).expect("two hosts");
    by.take_over(of);
}

#[test]
fn a_write_at_work_goes_on_at_another_connection() {
    let mut world = session(2);
    assert_eq!(world.ready(0), GOOD);
    let held = held_write(&mut world, 1);
    hang_up(&mut world, 1);
    assert_eq!(world.ready(0), GOOD, "nothing was aborted");
    assert_eq!(remove(&mut world, 0, 1), 0);
    take_over(&mut world, 0, 1);
    world.run_for(Duration::from_millis(50));
    assert!(world.hosts[0].take(held).is_none(), "the medium is at it");
    world.fault.plan().clear(FaultTarget::Write);
    assert_eq!(world.end(0, held), GOOD);
    assert_eq!((world.first_byte(), world.ready(0)), (7, GOOD));
    acknowledge(&mut world, 0);
    assert_eq!(world.target.luns()[0].active, 0);
}

#[test]
fn an_answer_that_came_while_nobody_listened_is_told_after_a_reinstatement() {
    let mut world = session(1);
    assert_eq!(world.ready(0), GOOD);
    let held = held_write(&mut world, 0);
    hang_up(&mut world, 0);
    world.fault.plan().clear(FaultTarget::Write);
    world.run_for(Duration::from_millis(50));
    assert!(world.target.connections().is_empty());
    // The session is still there, and the same identifier logs in to it.
    let again = join(&mut world, 0);
    take_over(&mut world, again, 0);
    assert_eq!(world.end(again, held), GOOD);
    assert_eq!((world.first_byte(), world.ready(again)), (7, GOOD));
    assert_eq!(world.target.connections().len(), 1);
}

#[test]
fn the_only_connection_is_replaced_by_a_login_with_its_identifier() {
    let mut world = session(1);
    assert_eq!(world.ready(0), GOOD);
    let held = held_write(&mut world, 0);
    let again = join(&mut world, 0);
    world.until("the end of the old", |world| world.hosts[0].closed().is_some());
    take_over(&mut world, again, 0);
    world.fault.plan().clear(FaultTarget::Write);
    assert_eq!(world.end(again, held), GOOD);
    assert_eq!(world.target.connections().len(), 1);
}

#[test]
fn what_nobody_takes_is_aborted_when_its_time_is_over() {
    let mut world = session(2);
    assert_eq!(world.ready(0), GOOD);
    let _held = held_write(&mut world, 1);
    hang_up(&mut world, 1);
    world.run_for(Duration::from_millis(2800));
    assert_eq!(world.ready(0), GOOD);
    acknowledge(&mut world, 0);
    assert_eq!(world.target.luns()[0].active, 1);
    world.run_for(Duration::from_millis(300));
    assert_eq!(world.ready(0), attention(0x477f), "commands were cleared by the protocol");
    assert_eq!(remove(&mut world, 0, 1), 1, "no such connection any more");
    world.fault.plan().clear(FaultTarget::Write);
    acknowledge(&mut world, 0);
    world.until("the end of the write", |world| world.target.luns()[0].active == 0);
}

#[test]
fn a_session_without_connections_ends_when_its_time_is_over() {
    let mut world = session(2);
    hang_up(&mut world, 0);
    hang_up(&mut world, 1);
    world.run_for(Duration::from_millis(3100));
    let late = world.join(0, 0, portal(3260), surviving);
    world.until("a refusal", |world| world.hosts[late].closed().is_some());
    assert!(world.hosts[late].closed().is_some_and(|why| why.contains("the session does not exist")));
}

#[test]
fn a_login_without_a_handle_ends_what_is_kept() {
    let mut world = session(1);
    assert_eq!(world.ready(0), GOOD);
    held_write(&mut world, 0);
    hang_up(&mut world, 0);
    let new = world.add(0, surviving);
    world.run_for(Duration::from_millis(50));
    assert!(!world.hosts[new].is_in(), "the old write is waited for");
    world.fault.plan().clear(FaultTarget::Write);
    world.until("a login", |world| world.hosts[new].is_in());
    assert_eq!(world.target.connections().len(), 1);
}

#[test]
fn a_reassignment_is_refused_for_its_reason() {
    let mut world = session(3);
    assert_eq!(world.ready(0), GOOD);
    let held = held_write(&mut world, 1);
    let reassign = |world: &mut World, lun: u64, task: TaskId| world.managed(0, REASSIGN, lun, Some(task));
    assert_eq!(reassign(&mut world, 0, held), 3, "its connection lives");
    hang_up(&mut world, 1);
    assert_eq!(reassign(&mut world, 0, held), 3, "its connection was not removed");
    assert_eq!(reassign(&mut world, 0, TaskId(0x7777)), 1, "no such task");
    assert_eq!(reassign(&mut world, 9 << 48, held), 3, "the LUN is reserved");
    assert_eq!(remove(&mut world, 2, 9), 1, "no such connection");
    assert_eq!(remove(&mut world, 2, 1), 0);
    assert_eq!(reassign(&mut world, 0, held), 0);
    assert_eq!(reassign(&mut world, 0, held), 3, "it is taken");
    // An abort finds it where it is now.
    world.fault.plan().clear(FaultTarget::Write);
    let mut below = World::new(1);
    assert_eq!(below.ready(0), GOOD);
    assert_eq!(below.managed(0, REASSIGN, 0, Some(held)), 4, "not at this recovery level");
}

#[test]
fn an_orphan_is_found_and_aborted() {
    let mut world = session(2);
    assert_eq!(world.ready(0), GOOD);
    let held = held_write(&mut world, 1);
    hang_up(&mut world, 1);
    assert_eq!(world.managed(0, 9, 0, Some(held)), 7, "QUERY TASK: it is there");
    let [first, second] = &mut world.hosts[..] else { panic!("two connections") };
    let request = first.abort_of(held, second);
    world.fault.plan().clear(FaultTarget::Write);
    world.until("the abort", |world| world.hosts[0].take_managed(request) == Some(0));
    assert_eq!(remove(&mut world, 0, 1), 0);
    assert_eq!(world.managed(0, REASSIGN, 0, Some(held)), 1, "it is no more");
}

#[test]
fn a_logout_of_the_session_or_of_the_connection_leaves_nothing_to_take() {
    let mut world = session(3);
    assert_eq!(world.ready(0), GOOD);
    held_write(&mut world, 1);
    hang_up(&mut world, 1);
    world.hosts[0].connection().remove(1);
    world.fault.plan().clear(FaultTarget::Write);
    world.until("an answer", |world| {
        world.hosts[0].events.iter().any(|event| matches!(event, Event::Removed { response: 0, .. }))
    });
    assert_eq!(world.ready(0), attention(0x477f));
    held_write(&mut world, 2);
    hang_up(&mut world, 2);
    world.hosts[0].connection().log_out();
    world.fault.plan().clear(FaultTarget::Write);
    world.until("a logout", |world| world.hosts[0].closed().as_deref() == Some("logged out"));
    world.until("the end", |world| world.target.connections().is_empty());
    let late = world.join(0, 0, portal(3260), surviving);
    world.until("a refusal", |world| world.hosts[late].closed().is_some());
}

#[test]
fn a_connection_removes_itself_for_recovery() {
    let mut world = session(2);
    assert_eq!(world.ready(0), GOOD);
    let held = held_write(&mut world, 1);
    world.hosts[1].connection().recover(1);
    world.until("a logout", |world| world.hosts[1].closed().as_deref() == Some("logged out"));
    world.run_for(Duration::from_millis(5));
    take_over(&mut world, 0, 1);
    world.fault.plan().clear(FaultTarget::Write);
    assert_eq!(world.end(0, held), GOOD);
}

#[test]
fn what_is_kept_has_bounds() {
    let mut world = session(2);
    assert_eq!(world.ready(0), GOOD);
    // No more losses are kept than the session may have connections: the oldest goes.
    let mut victim = 1;
    for _ in 0..3 {
        held_write(&mut world, victim);
        hang_up(&mut world, victim);
        assert_eq!(world.ready(0), GOOD);
        victim = join(&mut world, 1);
    }
    held_write(&mut world, victim);
    hang_up(&mut world, victim);
    assert_eq!(world.ready(0), attention(0x477f));
    world.fault.plan().clear(FaultTarget::Write);
    acknowledge(&mut world, 0);
    assert_eq!(world.target.luns()[0].active, 3);
}

#[test]
fn what_is_kept_has_a_bound_in_bytes() {
    for (reads, verdict) in [(7, GOOD), (9, attention(0x477f))] {
        let mut world = session(2);
        assert_eq!(world.ready(0), GOOD);
        world.fault.plan().arm(FaultTarget::Read, Fault::Silence, reads);
        for _ in 0..reads {
            // A MiB each, of eight.
            world.hosts[1].send(&[0x28, 0, 0, 0, 0, 0, 0, 8, 0, 0], &[], 1 << 20);
        }
        world.run_for(Duration::from_millis(20));
        hang_up(&mut world, 1);
        let write = world.write(0);
        assert_eq!(world.end(0, write), verdict, "{reads} reads");
        world.fault.plan().clear(FaultTarget::Read);
    }
}

/// What waited for a session to be gone looks again at once: the turn that buries it says that something happened.
#[test]
fn a_burial_is_progress() {
    let mut world = World::new(1);
    world.hosts[0].sleep();
    let mut progress = Progress::Idle;
    while !world.target.is_idle() {
        world.now += Duration::from_millis(100);
        let _ = world.network.advance(world.now);
        progress = world.target.poll(world.now);
    }
    assert_eq!(progress, Progress::Busy);
}
