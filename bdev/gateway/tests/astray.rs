//! Two nodes, one volume: commands that were passed to the node that serves over a way that is lost, or slow. Whoever is told that
//! such a command is over can rely on it.

mod host;
mod pair;
mod volume;

use std::time::Duration;

use bdev::fault::{Fault, FaultTarget};
use gateway::StandbyMode;
use host::Host;
use iscsi::TaskId;
use pair::{GOOD, NEXUS_LOSS, World, node_ip};

/// Answers to task management (RFC 7143 section 11.6.1).
const COMPLETE: u8 = 0;
const REJECTED: u8 = 255;
const ABORT_TASK_SET: u8 = 2;

/// A host at either node, and what each has written.
fn world() -> World {
    let mut world = World::new(StandbyMode::Forward, &[0, 1]);
    assert_eq!((world.write(0, 5, 0), world.write(1, 5, 1)), (GOOD, GOOD));
    world
}

/// Milliseconds of the world.
fn run(world: &mut World, milliseconds: u64) {
    world.run_for(Duration::from_millis(milliseconds));
}

/// What a management request is answered.
fn managed(world: &mut World, host: usize, request: TaskId) -> u8 {
    let mut answer = None;
    world.until("an answer", |world| {
        answer = world.hosts[host].take_managed(request);
        answer.is_some()
    });
    answer.expect("waited for")
}

/// Another write is acknowledged, and it stays.
fn overwrite(world: &mut World, later: u64) {
    assert_eq!((world.write(0, 5, 0xbb), world.read(0, 5)), (GOOD, 0xbb));
    run(world, later);
    assert_eq!(world.read(0, 5), 0xbb, "a write that was over came back");
}

/// The same initiator port logs in again, at the standby; gives the time that it took.
fn log_in_again(world: &mut World) -> Duration {
    let began = world.now;
    world.add_host_named(1, "iqn.2026-11.example:h1");
    let index = world.hosts.len() - 1;
    world.until("a login", |world| Host::is_in(&world.hosts[index]));
    world.now - began
}

/// The peer cannot be asked, and what is on its way arrives late: nobody says that the abort is complete.
#[test]
fn an_aborted_write_that_arrives_late_does_not_come_back() {
    for function in [1, ABORT_TASK_SET] {
        let mut world = world();
        world.network.slow_down(node_ip(1), node_ip(0), Duration::from_secs(4));
        let task = world.send_write(1, 5, 0xaa);
        run(&mut world, 50);
        let referenced = (function == 1).then_some(task);
        let abort = world.hosts[1].manage(function, 0, referenced);
        assert_eq!(managed(&mut world, 1, abort), REJECTED, "function {function}");
        assert_eq!(world.hosts[1].take(task), None, "an aborted command has no status");
        overwrite(&mut world, 5000);
    }
}

/// A host that repeats an abort that is not answered yet is not told that there is nothing to abort.
#[test]
fn an_abort_that_is_repeated_waits_for_the_write_as_well() {
    let mut world = world();
    world.network.slow_down(node_ip(1), node_ip(0), Duration::from_secs(1));
    let task = world.send_write(1, 5, 0xaa);
    run(&mut world, 50);
    let aborts = [(); 2].map(|()| {
        let abort = world.hosts[1].manage(1, 0, Some(task));
        run(&mut world, 50);
        abort
    });
    assert_eq!(aborts.map(|abort| world.hosts[1].take_managed(abort)), [None; 2], "the write is on its way");
    assert!(aborts.map(|abort| managed(&mut world, 1, abort)).iter().all(|answer| *answer != 1));
    overwrite(&mut world, 2000);
}

/// It is aborted when the way is lost already, and waits to be passed again.
#[test]
fn a_write_that_looks_for_another_way_is_aborted_behind_a_barrier() {
    let mut world = world();
    world.network.partition(node_ip(0), node_ip(1));
    let task = world.send_write(1, 5, 0xaa);
    run(&mut world, 2500);
    let abort = world.hosts[1].manage(1, 0, Some(task));
    run(&mut world, 500);
    assert!(!world.hosts[1].is_managed(abort), "nobody knows yet");
    world.network.heal(node_ip(0), node_ip(1));
    assert_eq!(managed(&mut world, 1, abort), COMPLETE, "the peer has let a new relay in");
    overwrite(&mut world, 2000);
    assert_eq!((world.write(1, 5, 3), world.write(1, 5, 3)), (NEXUS_LOSS, GOOD));
}

/// The barrier waits for what is at work at the peer.
#[test]
fn a_new_relay_is_a_barrier_only_when_the_old_one_is_at_rest() {
    let mut world = world();
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    let task = world.send_write(1, 5, 0xaa);
    run(&mut world, 50);
    world.network.reset(node_ip(0), node_ip(1));
    let abort = world.hosts[1].manage(1, 0, Some(task));
    run(&mut world, 1000);
    assert!(!world.hosts[1].is_managed(abort), "the write may still land");
    world.fault.plan().clear(FaultTarget::Write);
    assert_eq!(managed(&mut world, 1, abort), COMPLETE);
    overwrite(&mut world, 500);
}

/// When this node serves, the peer is locked out.
#[test]
fn a_write_that_went_astray_is_over_when_this_node_serves() {
    let mut world = world();
    world.network.partition(node_ip(0), node_ip(1));
    let task = world.send_write(1, 5, 0xaa);
    run(&mut world, 2500);
    let abort = world.hosts[1].manage(1, 0, Some(task));
    run(&mut world, 100);
    assert!(!world.hosts[1].is_managed(abort));
    world.serve(1, 2);
    run(&mut world, 10);
    assert_eq!(world.hosts[1].take_managed(abort), Some(COMPLETE));
}

/// Its session is reinstated while it is on its way.
#[test]
fn a_write_of_a_reinstated_session_does_not_come_back() {
    let mut world = world();
    world.network.slow_down(node_ip(1), node_ip(0), Duration::from_millis(400));
    let _ = world.send_write(1, 5, 0xaa);
    run(&mut world, 50);
    let took = log_in_again(&mut world);
    assert!(took < Duration::from_secs(2), "{took:?}: the peer was asked");
    overwrite(&mut world, 2000);
}

/// The same where the peer cannot be asked: the login is let in when the peer has given the old relay up by itself.
#[test]
fn a_session_that_left_something_astray_is_reinstated_in_bounded_time() {
    let mut world = world();
    world.network.slow_down(node_ip(1), node_ip(0), Duration::from_secs(7));
    let _ = world.send_write(1, 5, 0xaa);
    run(&mut world, 50);
    let took = log_in_again(&mut world);
    assert!((Duration::from_secs(4)..Duration::from_secs(9)).contains(&took), "{took:?}");
    overwrite(&mut world, 5000);
}

/// Nothing at the peer: nothing to wait for.
#[test]
fn a_session_that_has_nothing_at_the_peer_is_reinstated_at_once() {
    let mut world = world();
    world.network.partition(node_ip(0), node_ip(1));
    let took = log_in_again(&mut world);
    assert!(took < Duration::from_millis(20), "{took:?}");
}

/// A relay whose node is silent ends, and a quiet one does not.
#[test]
fn a_relay_that_says_nothing_is_given_up() {
    let mut world = world();
    let sessions = |world: &World| world.targets[0].as_ref().expect("lives").connections().len();
    let before = sessions(&world);
    run(&mut world, 5000);
    assert_eq!((sessions(&world), world.hosts[1].closed()), (before, None), "it is pinged");
    world.network.partition(node_ip(0), node_ip(1));
    run(&mut world, 3100);
    assert_eq!(sessions(&world), before - 1);
}
