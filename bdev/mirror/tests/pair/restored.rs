//! An arbiter that was restored from a backup, and a node that knows better from its own leg alone: the peer's fence on it is newer
//! than what the arbiter has.

use mirror::command::Refusal;
use mirror::events::{Event, EventKind};
use mirror::format::{ArbiterKind, History};
use mirror::status::RoleKind;

use super::world::{Running, World, seeds_to_run};
use super::{FORCE, PROMOTE, SECOND, millis, settle};

/// Both in sync with node 0 as the holder, and a backup of that.
fn backed_up(seed: u64) -> (World, Option<History>) {
    let mut world = World::new(seed, ArbiterKind::Etcd);
    world.create();
    world.load(0, millis(50));
    world.drain();
    let backup = world.arbiter.record;
    (world, backup)
}

/// The node begins, and its peer, the holder, is stopped as soon as it has fenced its leg: before that says anything else.
fn fenced(world: &mut World, index: usize) -> Running {
    world.start(index);
    let by = 1 - index;
    world.wait("a fence", 10 * SECOND, |world| {
        let events = world.status(index).events;
        events.iter().any(|event| matches!(event.kind, EventKind::Fenced { .. }))
    });
    assert!(!world.is_in_sync(by));
    world.pause(by)
}

/// Whatever this process has heard is gone with it; the fence is on its leg.
fn restart(world: &mut World, index: usize) {
    world.kill(index);
    world.start(index);
}

/// The holder goes on, over new connections.
fn wake(world: &mut World, index: usize, holder: Running) {
    world.resume(index, holder);
    world.heal();
}

/// The peer has taken over and fenced the old holder's leg, and the arbiter names the old holder again.
#[test]
fn an_old_holder_that_its_peer_has_fenced_does_not_believe_an_older_arbiter() {
    for seed in seeds_to_run(620..623) {
        let (mut world, backup) = backed_up(seed);
        world.kill(0);
        world.wait("takeover", 20 * SECOND, |world| world.is_holder(1));
        world.load(1, millis(50));
        world.drain();
        let holder = fenced(&mut world, 0);
        let right = core::mem::replace(&mut world.arbiter.record, backup);
        restart(&mut world, 0);
        world.run(10 * SECOND);
        let status = world.status(0);
        assert_eq!(status.role, RoleKind::Holding, "seed {seed}: {}", world.describe());
        assert!(status.reason.is_some_and(|reason| reason.contains("restored from a backup")));
        // The holder goes on, and the arbiter is mended.
        wake(&mut world, 1, holder);
        world.arbiter.record = right;
        world.load(1, SECOND);
        settle(&mut world, 1);
    }
}

/// The standby was out when its holder fenced its leg for a copy, and the arbiter counts it again.
#[test]
fn a_standby_that_was_fenced_for_a_copy_does_not_take_over_from_an_older_arbiter() {
    for seed in seeds_to_run(630..633) {
        let (mut world, backup) = backed_up(seed);
        world.kill(1);
        world.load(0, 2 * SECOND);
        world.drain();
        let holder = fenced(&mut world, 1);
        let right = core::mem::replace(&mut world.arbiter.record, backup);
        restart(&mut world, 1);
        world.run(10 * SECOND);
        assert_eq!(world.status(1).role, RoleKind::Standby, "seed {seed}: {}", world.describe());
        let older = |event: &Event| matches!(event.kind, EventKind::ArbiterOlder { .. });
        assert!(world.status(1).events.iter().any(older), "seed {seed}: {}", world.describe());
        wake(&mut world, 0, holder);
        world.arbiter.record = right;
        world.load(0, SECOND);
        settle(&mut world, 0);
    }
}

/// The way out is the operator's, as with any arbiter that is older than a leg.
#[test]
fn the_operator_promotes_by_force_where_the_arbiter_is_older_than_the_peers_fence() {
    let (mut world, backup) = backed_up(640);
    world.kill(0);
    world.wait("takeover", 20 * SECOND, |world| world.is_holder(1));
    world.load(1, millis(50));
    world.drain();
    let _gone_for_good = fenced(&mut world, 0);
    world.arbiter.record = backup;
    restart(&mut world, 0);
    world.run(4 * SECOND);
    assert_eq!(world.command(0, PROMOTE), Err(Refusal::ArbiterFirst), "{}", world.describe());
    world.command(0, FORCE).expect("the operator's word");
    world.wait("service", 10 * SECOND, |world| world.is_holder(0));
}
