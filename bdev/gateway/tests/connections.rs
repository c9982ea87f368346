//! Sessions of several connections at a whole target: joining, order, aborts across them, leaving, reinstatement.

mod host;

use std::time::Duration;

use bdev::fault::{Fault, FaultTarget};
use gateway::{Map, PortalGroup};
use host::{GOOD, Host, TARGET, World, attention, portal};
use iscsi::TaskId;
use iscsi::initiator::{Config, Event};

const REMOVED: Event = Event::Removed { response: 0, time2wait: 2, time2retain: 0 };
const NOT_THERE: Event = Event::Removed { response: 1, time2wait: 2, time2retain: 0 };

fn several(config: &mut Config) {
    config.preferences.max_connections = 3;
}

/// A session of so many connections.
fn session(connections: u16) -> World {
    let mut world = World::empty();
    world.add(0, several);
    world.until("a login", |world| world.hosts[0].is_in());
    for cid in 1..connections {
        world.join(0, cid, portal(3260), several);
        world.until("a login", |world| world.hosts.iter().all(Host::is_in));
    }
    world
}

/// A write on a connection that the medium keeps until the fault is cleared.
fn held_write(world: &mut World, host: usize) -> TaskId {
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    let before = world.target.luns()[0].active;
    let held = world.write(host);
    world.until("the write is under way", |world| world.target.luns()[0].active == before + 1);
    held
}

#[test]
fn one_session_of_three_connections_is_one_nexus() {
    let mut world = session(3);
    let connections = world.target.connections();
    assert_eq!(connections.len(), 3);
    assert!(connections.iter().all(|connection| connection.tsih == connections[0].tsih));
    assert_eq!(connections.iter().map(|connection| connection.cid).collect::<Vec<_>>(), [0, 1, 2]);
    // RESERVE(6) on one connection keeps another session out, not the other connections.
    assert_eq!(world.run(1, &[0x16, 0, 0, 0, 0, 0], &[]), GOOD);
    let stranger = world.add(7, |_| {});
    world.until("a login", |world| world.hosts[stranger].is_in());
    assert_eq!(world.ready(stranger).0, scsi::status::RESERVATION_CONFLICT);
    assert_eq!((world.ready(2), world.run(0, &[0x17, 0, 0, 0, 0, 0], &[])), (GOOD, GOOD));
    assert_eq!(world.ready(stranger), GOOD);
    assert_eq!(world.managed(stranger, 5, 0, None), 0);
    assert_eq!(world.ready(1), attention(0x2903), "one unit attention for all");
    assert_eq!((world.ready(0), world.ready(1), world.ready(2)), (GOOD, GOOD, GOOD));
}

#[test]
fn a_task_is_aborted_and_found_from_another_connection() {
    let mut world = session(2);
    assert_eq!(world.ready(1), GOOD);
    let held = held_write(&mut world, 1);
    assert_eq!(world.managed(0, 9, 0, Some(held)), 7, "QUERY TASK: it is there");
    let [first, second] = &mut world.hosts[..] else { panic!("two connections") };
    let request = first.abort_of(held, second);
    world.run_for(Duration::from_millis(50));
    assert!(world.hosts[0].take_managed(request).is_none(), "the write is at work");
    world.fault.plan().clear(FaultTarget::Write);
    world.until("the abort", |world| world.hosts[0].take_managed(request) == Some(0));
    assert!(world.hosts[1].take(held).is_none(), "no status after an abort");
    assert_eq!((world.ready(0), world.ready(1)), (GOOD, GOOD));
}

#[test]
fn a_connection_that_dies_takes_its_tasks_along_and_may_come_again() {
    let mut world = session(2);
    assert_eq!(world.ready(0), GOOD);
    let _held = held_write(&mut world, 1);
    world.hosts[1].hang_up();
    world.run_for(Duration::from_millis(20));
    assert_eq!(world.ready(0), attention(0x477f), "the others go on, and hear of it");
    assert_eq!(world.ready(0), GOOD);
    assert_eq!(world.target.connections().len(), 1);
    // The same identifier again: let in when the old write has ended.
    let again = world.join(0, 1, portal(3260), several);
    world.run_for(Duration::from_millis(50));
    assert!(!world.hosts[again].is_in());
    world.fault.plan().clear(FaultTarget::Write);
    world.until("a login", |world| world.hosts[again].is_in());
    assert_eq!((world.ready(again), world.ready(0)), (GOOD, GOOD));
    assert_eq!(world.target.luns()[0].active, 0);
}

#[test]
fn a_login_with_a_known_identifier_replaces_the_connection() {
    let mut world = session(2);
    assert_eq!(world.ready(0), GOOD);
    let again = world.join(0, 1, portal(3260), several);
    world.until("a login", |world| world.hosts[again].is_in());
    world.until("the end of the old", |world| world.hosts[1].closed().is_some());
    assert_eq!((world.ready(again), world.ready(0)), (GOOD, GOOD));
    assert_eq!(world.target.connections().len(), 2);
}

#[test]
fn a_connection_logs_out_itself_or_another_and_the_last_one_the_session() {
    let mut world = session(3);
    assert_eq!(world.ready(0), GOOD);
    world.hosts[1].connection().leave();
    world.until("a logout", |world| world.hosts[1].closed().is_some());
    assert_eq!(world.hosts[1].closed().as_deref(), Some("logged out"));
    // What is open at the other connection ends before the logout is answered.
    held_write(&mut world, 2);
    world.hosts[0].connection().remove(2);
    world.run_for(Duration::from_millis(50));
    assert!(!world.hosts[0].events.contains(&REMOVED));
    world.fault.plan().clear(FaultTarget::Write);
    world.until("an answer", |world| world.hosts[0].events.contains(&REMOVED));
    world.hosts[0].connection().remove(9);
    world.until("an answer", |world| world.hosts[0].events.contains(&NOT_THERE));
    assert_eq!(world.ready(0), attention(0x477f), "the write ended with its connection");
    assert_eq!(world.ready(0), GOOD);
    world.hosts[0].connection().log_out();
    world.until("the end", |world| world.target.connections().is_empty());
}

#[test]
fn what_breaks_the_protocol_on_one_connection_ends_the_session() {
    let mut world = session(3);
    // A data segment beyond every limit.
    let mut header = [0; 48];
    header[5..8].fill(0xff);
    world.hosts[1].send_raw(&header);
    world.until("the end", |world| world.target.connections().is_empty());
}

#[test]
fn who_may_not_join_is_told_why() {
    let mut world = session(3);
    let refused = |world: &mut World, index: usize, why: &str| {
        let mut text = String::new();
        world.until("a refusal", |world| {
            text = world.hosts[index].closed().unwrap_or_default();
            !text.is_empty()
        });
        assert!(text.contains(why), "{text}");
    };
    let fourth = world.join(0, 9, portal(3260), several);
    refused(&mut world, fourth, "too many connections");
    let other_isid = world.join(0, 9, portal(3260), |config| config.isid[5] = 77);
    refused(&mut world, other_isid, "the session does not exist");
    let other_name = world.join(0, 9, portal(3260), |config| config.initiator.push('x'));
    refused(&mut world, other_name, "the session does not exist");
    // Connections of a session come through one portal group.
    world.target.add_portal_group(&PortalGroup::new(2, [portal(3261)])).expect("listening");
    world.target.add_map(TARGET, Map::new(2, 1)).expect("new");
    let other_group = world.join(0, 2, portal(3261), several);
    refused(&mut world, other_group, "the session does not exist");
    assert_eq!(world.target.connections().len(), 3);
    assert_eq!(world.ready(0), GOOD);
}

/// One portal group, two portals: one session.
#[test]
fn a_session_has_connections_at_every_portal_of_its_group() {
    let mut world = World::empty();
    world.target.add_portal_group(&PortalGroup::new(3, [portal(3262), portal(3263)])).expect("listening");
    world.target.add_map(TARGET, Map::new(3, 1)).expect("new");
    world.add_at(portal(3262), 0, several);
    world.until("a login", |world| world.hosts[0].is_in());
    world.join(0, 1, portal(3263), several);
    world.until("a login", |world| world.hosts[1].is_in());
    let shown = world.target.connections();
    assert!(shown.iter().all(|connection| connection.tsih == shown[0].tsih), "{shown:?}");
    assert_eq!((world.run(0, &[0x16, 0, 0, 0, 0, 0], &[]), world.ready(1)), (GOOD, GOOD), "one nexus");
    // A portal of another group is none of the session's, nor where the session began.
    let other_group = world.join(0, 2, portal(3260), several);
    world.until("a refusal", |world| world.hosts[other_group].closed().is_some());
    assert!(world.hosts[other_group].closed().is_some_and(|why| why.contains("the session does not exist")));
    assert_eq!((world.ready(0), world.ready(1), world.target.connections().len()), (GOOD, GOOD, 2));
}

/// A status of before a reset does not come behind its answer, by whatever connection it comes.
#[test]
fn a_reset_is_answered_behind_the_statuses_of_the_other_connections() {
    for function in [2, 4, 5, 6, 11] {
        let mut world = session(2);
        assert_eq!((world.ready(0), world.ready(1)), (GOOD, GOOD));
        let before = world.hosts[1].send(&[0; 6], &[], 0);
        world.step();
        world.hosts[1].sleep();
        world.run_for(Duration::from_millis(20));
        let request = world.hosts[0].manage(function, 0, None);
        world.run_for(Duration::from_millis(300));
        assert_eq!(world.hosts[0].take_managed(request), None, "function {function}");
        world.hosts[1].wake();
        world.until(&format!("the answer to {function}"), |world| {
            world.hosts[0].take_managed(request) == Some(0)
        });
        assert!(world.hosts[1].take(before).is_some(), "function {function}");
    }
    // A connection that dies is not waited for.
    let mut world = session(2);
    let _ = world.hosts[1].send(&[0; 6], &[], 0);
    world.step();
    world.hosts[1].sleep();
    world.run_for(Duration::from_millis(20));
    let request = world.hosts[0].manage(5, 0, None);
    world.run_for(Duration::from_millis(20));
    assert_eq!(world.hosts[0].take_managed(request), None);
    world.hosts[1].hang_up();
    world.hosts[1].wake();
    world.until("the end", |world| world.hosts[0].take_managed(request) == Some(0));
}
