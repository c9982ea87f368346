//! Stopping in order, with trouble on the way.

use bdev::sim::SimFault;
use core::time::Duration;

use super::world::World;
use super::{SECOND, millis, pair, settle};

fn stop(world: &mut World, index: usize) {
    let now = world.now;
    world.nodes[index].as_mut().expect("runs").driver.stop(now);
}

fn is_stopped(world: &World, index: usize) -> bool {
    world.nodes[index].as_ref().is_some_and(|node| node.driver.is_stopped())
}

/// Both are told at the same moment: the standby stays until its holder has marked its leg.
#[test]
fn two_nodes_that_stop_at_once_need_no_copy() {
    for (first, second) in [(0, 1), (1, 0)] {
        let mut world = pair(700);
        world.load(0, millis(100));
        stop(&mut world, first);
        world.step();
        stop(&mut world, second);
        world.wait("stop", 5 * SECOND, |world| is_stopped(world, 0) && is_stopped(world, 1));
        world.drain();
        world.kill(0);
        world.kill(1);
        world.start(0);
        world.start(1);
        settle(&mut world, 0);
        assert!(world.status(0).last_resync.is_none(), "{}", world.describe());
    }
}

/// The standby alone is told: it does not wait for ever for a holder that goes on.
#[test]
fn a_standby_stops_beside_a_holder_that_goes_on() {
    let mut world = pair(701);
    world.load(0, millis(50));
    stop(&mut world, 1);
    let began = world.now;
    while !is_stopped(&world, 1) {
        world.load(0, millis(10));
        assert!(world.now < began + 3 * SECOND, "{}", world.describe());
    }
    world.kill(1);
    world.load(0, SECOND);
    assert!(world.is_holder(0), "{}", world.describe());
    world.start(1);
    settle(&mut world, 0);
    assert_eq!(world.errors, 0, "{}", world.describe());
}

/// Whatever the last leg refuses on the way, the stop comes to its end.
#[test]
fn a_busy_leg_delays_a_stop_and_does_not_prevent_it() {
    for moment in 0..60 {
        let mut world = pair(710 + moment);
        world.load(0, millis(20));
        world.kill(1);
        world.load(0, SECOND);
        world.drain();
        stop(&mut world, 0);
        for _ in 0..moment {
            world.step();
        }
        world.disks[0].inject(SimFault::BusyWrites { count: 1 });
        world.wait("stop", 5 * SECOND, |world| is_stopped(world, 0));
        world.run(Duration::from_millis(1));
    }
}

/// Wherever a node stands when it is told to stop: what an earlier process of it left in its leg's cache is on the disk
/// before it says that it has stopped, because the power may go next.
#[test]
fn a_node_that_stops_has_flushed_its_leg() {
    let cached = |world: &World| !world.disks[0].unstable().is_empty();
    let mut worth = 0;
    for moment in 0..24 {
        let mut world = pair(720 + moment);
        world.load(0, millis(20));
        world.kill(0);
        world.kill(1);
        worth += u32::from(cached(&world));
        world.start(0);
        // Alone it waits for its peer; with it, it is on its way to serve.
        if moment % 2 == 0 {
            world.start(1);
        }
        for _ in 0..moment * 25 {
            world.step();
        }
        stop(&mut world, 0);
        world.wait("stop", 5 * SECOND, |world| is_stopped(world, 0));
        assert!(!cached(&world), "stopped {moment}: {}", world.describe());
    }
    assert!(worth > 12, "a load whose writes need not be durable leaves some in the cache: {worth}");
}

/// The same for a standby that its holder has written to.
#[test]
fn a_standby_that_stops_has_flushed_its_leg() {
    let mut world = pair(810);
    // A load may end with a flush.
    let leaves_some = (0..20).any(|_| {
        world.load(0, millis(50));
        !world.disks[1].unstable().is_empty()
    });
    assert!(leaves_some);
    stop(&mut world, 1);
    world.wait("stop", 5 * SECOND, |world| is_stopped(world, 1));
    assert!(world.disks[1].unstable().is_empty(), "{}", world.describe());
}
