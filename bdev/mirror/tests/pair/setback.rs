//! A leg that is set back to an older copy of itself: it is told from the leg that the array knows, and copied whole.

use core::time::Duration;

use mirror::command::{Command, Overwrite, Refusal};
use mirror::decide::{DataAge, HolderState, PromoteMode, StandbyReason};
use mirror::events::Codes;
use mirror::format::{ArbiterKind, LegMask};
use mirror::setup::{DegradedPolicy, Timing};
use mirror::status::RoleKind;

use super::world::World;
use super::{FORCE, SECOND, millis, pair, settle};

/// A copy of a node's whole leg.
fn image(world: &World, node: usize) -> Vec<u8> {
    world.disks[node].peek(0, usize::try_from(super::world::LEG.bytes()).expect("small"))
}

/// The node dies, and starts again from the copy after `down`; the legs come in sync by a copy of everything.
fn is_copied_whole(world: &mut World, node: usize, image: &[u8], down: Duration) {
    world.kill(node);
    world.disks[node].restore(image);
    world.run(down);
    world.start(node);
    world.load(1 - node, 2 * SECOND);
    settle(world, 1 - node);
    let (status, size) = (world.status(1 - node), world.status(node).data_size);
    let last = status.last_resync.expect("there was one");
    assert_eq!((last.total, world.errors), (size, 0), "{}", world.describe());
}

/// Another session with it, and no other config.
fn reconnect(world: &mut World) {
    let generation = world.status(0).config.expect("one").generation();
    world.cut();
    world.run(millis(20));
    world.heal();
    world.load(0, millis(200));
    assert!(world.is_in_sync(0), "{}", world.describe());
    assert_eq!(world.status(0).config.expect("one").generation(), generation);
}

#[test]
fn a_copy_from_before_the_last_session_is_no_member() {
    for down in [millis(20), SECOND] {
        let mut world = pair(700);
        world.load(0, millis(50));
        let old = image(&world, 1);
        world.load(0, millis(50));
        reconnect(&mut world);
        is_copied_whole(&mut world, 1, &old, down);
    }
}

/// What its node writes when it starts does not bring it up to what it was.
#[test]
fn a_copy_on_a_machine_that_starts_again_and_again_is_no_member() {
    let mut world = pair(707);
    world.load(0, millis(50));
    let old = image(&world, 1);
    world.load(0, millis(50));
    reconnect(&mut world);
    world.power_off(1);
    world.disks[1].restore(&old);
    world.cut();
    for _ in 0..4 {
        world.start(1);
        world.run(millis(100));
        world.power_off(1);
    }
    world.heal();
    world.start(1);
    world.load(0, 2 * SECOND);
    settle(&mut world, 0);
    let last = world.status(0).last_resync.expect("there was one");
    assert_eq!(last.total, world.status(0).data_size, "{}", world.describe());
}

/// It was out, and came back; then the config is another one, and its leg was told.
#[test]
fn a_copy_from_before_a_resync_is_no_base_for_the_next() {
    let mut world = pair(701);
    world.load(0, millis(50));
    let old = image(&world, 1);
    world.kill(1);
    world.load(0, SECOND);
    assert_eq!(world.in_sync(0), LegMask::ZERO);
    world.start(1);
    world.wait("sync", 20 * SECOND, |world| world.is_in_sync(0));
    world.load(0, millis(50));
    is_copied_whole(&mut world, 1, &old, SECOND);
}

/// Nothing happens for long but writes: the superblocks are numbered anew all the same.
#[test]
fn an_old_copy_from_the_same_session_is_no_base_for_a_delta() {
    let mut world = pair(702);
    world.load(0, millis(50));
    let old = image(&world, 1);
    world.load(0, millis(50));
    let mark = mirror::setup::Timing::default().mark;
    world.run(mark + SECOND);
    world.load(0, millis(50));
    is_copied_whole(&mut world, 1, &old, SECOND);
}

/// Without writes nothing has to be told apart, and nothing is written.
#[test]
fn an_idle_pair_is_not_numbered() {
    let mut world = pair(703);
    world.load(0, millis(50));
    let mark = mirror::setup::Timing::default().mark;
    world.run(mark + SECOND);
    let before = [0, 1].map(|node| world.disks[node].peek(64 << 10, 8 << 10));
    world.run(2 * mark);
    assert_eq!([0, 1].map(|node| world.disks[node].peek(64 << 10, 8 << 10)), before);
}

/// The old holder's leg, once the new one has met it.
#[test]
fn a_copy_of_the_old_holders_leg_from_before_a_switchover_is_no_member() {
    let mut world = pair(704);
    world.load(0, millis(50));
    let old = image(&world, 0);
    world.load(0, millis(50));
    world.drain();
    world.command(0, Command::Switchover).expect("both are in sync");
    world.wait("switchover", 5 * SECOND, |world| world.is_in_sync(1));
    world.load(1, millis(50));
    is_copied_whole(&mut world, 0, &old, millis(20));
}

/// A resync is under way: what was copied already is missing from the copy.
#[test]
fn a_copy_from_before_a_resync_is_no_base_for_the_rest_of_it() {
    let mut world = pair(705);
    world.load(0, millis(50));
    world.kill(1);
    let old = image(&world, 1);
    world.load(0, SECOND);
    world.start(1);
    world.wait("resync", 20 * SECOND, |world| world.status(0).resync.is_some());
    is_copied_whole(&mut world, 1, &old, millis(20));
}

/// The holder's own leg: what it lacks is on its peer's.
#[test]
fn a_holder_whose_leg_was_set_back_copies_everything_from_its_peer() {
    let mut world = pair(706);
    world.load(0, millis(50));
    let old = image(&world, 0);
    let mark = mirror::setup::Timing::default().mark;
    world.run(mark + SECOND);
    world.load(0, millis(50));
    world.drain();
    world.kill(0);
    world.disks[0].restore(&old);
    world.start(0);
    world.wait("service", 10 * SECOND, |world| world.is_holder(0));
    world.load(0, SECOND);
    settle(&mut world, 0);
    let last = world.status(0).last_resync.expect("there was one");
    assert_eq!(last.total, world.status(0).data_size, "{}", world.describe());
}

/// Both nodes are down, and the holder's leg is one from before its peer's was out and came back.
fn missed_a_return(seed: u64) -> World {
    let mut world = World::new(seed, ArbiterKind::Etcd);
    world.create();
    world.load(0, millis(50));
    let old = image(&world, 0);
    world.kill(1);
    world.load(0, 2 * SECOND);
    world.start(1);
    world.wait("sync", 20 * SECOND, |world| world.is_in_sync(0));
    world.load(0, millis(50));
    world.drain();
    world.kill(0);
    world.kill(1);
    world.disks[0].restore(&old);
    world
}

fn check_holds_as_reverted(world: &World) {
    let status = world.status(0);
    assert_eq!(status.role, RoleKind::Holding, "{}", world.describe());
    assert!(status.events.iter().any(|event| event.kind.reason() == "leg-reverted"), "{:?}", status.events);
}

/// The arbiter's list says that the peer was out and came back since: what the leg lacks is on its peer's, and for that it waits.
#[test]
fn a_holder_whose_leg_missed_its_peers_return_waits_for_it() {
    let mut world = missed_a_return(721);
    world.start(0);
    world.run(10 * SECOND);
    check_holds_as_reverted(&world);
    // By force it would serve what it has, and the operator is told what that is; an attempt that comes to nothing changes no
    // answer.
    let age = |world: &World| {
        let driver = &world.nodes[0].as_ref().expect("runs").driver;
        driver.may_promote(PromoteMode::Forced, HolderState::ConfirmedDown).map(|promotion| promotion.data)
    };
    assert_eq!(age(&world), Ok(DataAge::Past));
    world.arbiter.reach[0] = false;
    world.command(0, FORCE).expect("the arbiter is asked first");
    assert_eq!(world.status(0).role, RoleKind::Standby);
    assert_eq!(world.status(0).reason, Some(StandbyReason::AskingArbiter.to_string()));
    world.run(6 * SECOND);
    assert_eq!((world.status(0).role, age(&world)), (RoleKind::Standby, Ok(DataAge::Past)));
    world.arbiter.reach[0] = true;
    world.wait("a hold", 10 * SECOND, |world| world.status(0).role == RoleKind::Holding);
    world.start(1);
    world.wait("service", 20 * SECOND, |world| world.holder().is_some());
    let holder = world.holder().expect("just seen");
    world.load(holder, SECOND);
    settle(&mut world, holder);
}

/// Nobody allows a start without the peer before the arbiter has told how old the leg is: the operator cannot, and the policy does not.
#[test]
fn a_start_that_was_allowed_before_the_arbiter_was_heard_is_allowed_anew() {
    let mut world = missed_a_return(722);
    world.arbiter.reach[0] = false;
    world.degraded = DegradedPolicy::After(SECOND);
    world.start(0);
    world.wait("a hold", 10 * SECOND, |world| world.status(0).role == RoleKind::Holding);
    assert_eq!(world.command(0, Command::StartDegraded), Err(Refusal::ArbiterFirst));
    world.run(3 * SECOND);
    world.arbiter.reach[0] = true;
    world.run(5 * SECOND);
    check_holds_as_reverted(&world);
    world.command(0, Command::StartDegraded).expect("now it is known what that means");
    world.wait("service", 5 * SECOND, |world| world.is_holder(0));
}

/// The holder's leg is set back while both nodes are down. It starts before its peer can be seen, so it serves what it has, and starts
/// so many times more; then the peer comes.
fn meets_its_peer_late(seed: u64, restarts: u32) -> World {
    let mut world = World::new(seed, ArbiterKind::Etcd);
    world.create();
    world.load(0, millis(50));
    let old = image(&world, 0);
    world.run(Timing::default().mark + SECOND);
    world.load(0, SECOND);
    world.drain();
    world.kill(0);
    world.kill(1);
    world.disks[0].restore(&old);
    for _ in 0..=restarts {
        world.start(0);
        world.wait("service", 10 * SECOND, |world| world.is_holder(0));
        world.run(Timing::default().mark + SECOND);
        world.kill(0);
    }
    world.start(0);
    world.wait("service", 10 * SECOND, |world| world.is_holder(0));
    world.start(1);
    world.run(5 * SECOND);
    world
}

/// The peer's leg says what the holder's was: nothing is overwritten, whatever the holder has done since, until the operator chooses.
#[test]
fn a_holder_that_was_set_back_and_went_on_alone_overwrites_nothing() {
    for restarts in [0, 1, 20] {
        let mut world = meets_its_peer_late(720, restarts);
        world.check_acknowledged(1);
        assert_eq!(world.in_sync(0), LegMask::ZERO, "{}", world.describe());
        let told = |world: &World| {
            let events = world.status(0).events;
            events.iter().any(|event| (event.kind.code(), event.kind.reason()) == ("split", "leg-reverted"))
        };
        assert!(told(&world), "{:?}", world.status(0).events);
        let theirs = world.status(1).config.expect("one").id;
        world
            .command(0, Command::ResolveSplit { theirs, how: Overwrite::Tracked })
            .expect("the operator's word");
        world.give_up();
        settle(&mut world, 0);
        let status = world.status(0);
        assert_eq!(status.last_resync.map(|last| last.total), Some(status.data_size), "{}", world.describe());
    }
}
