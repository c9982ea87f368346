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
