//! Crash replay of runs in which the array goes from one node to the other, or a leg goes and comes back: see `crash`.

use core::time::Duration;

use bdev::sim::SimFault;
use mirror::command::{Command, Overwrite};
use mirror::format::{ArbiterKind, LegMask};
use mirror::mutation::Mutation;

use super::crash::{clean, finds};
use super::recorder::Event;
use super::replay::events;
use super::split::{meet, resolve};
use super::world::World;
use super::{FORCE, SECOND, millis};

/// A recorded pair in sync, and the number of events until then.
fn recorded(seed: u64, policy: ArbiterKind) -> (World, usize) {
    let mut world = World::recorded(seed, None, policy);
    world.spread = 24;
    world.create();
    let created = events(&world).len();
    (world, created)
}

/// Hosts go on while the array changes hands.
fn switch(world: &mut World, from: usize) {
    world.command(from, Command::Switchover).expect("in sync");
    let until = world.now + 5 * SECOND;
    while !world.is_holder(1 - from) {
        assert!(world.now < until, "{}", world.describe());
        world.load(from, Duration::from_micros(100));
    }
}

fn switchovers(seed: u64, policy: ArbiterKind) -> (World, usize) {
    let (mut world, created) = recorded(seed, policy);
    for from in [0, 1] {
        world.load(from, millis(2));
        switch(&mut world, from);
        world.load(1 - from, millis(2));
        world.wait("sync", 5 * SECOND, |world| world.is_in_sync(1 - from));
    }
    world.drain();
    (world, created)
}

#[test]
fn switchovers_without_an_arbiter() {
    clean(&switchovers(520, ArbiterKind::Biased), 520);
}

#[test]
fn switchovers_under_an_arbiter() {
    clean(&switchovers(521, ArbiterKind::Etcd), 521);
}

/// The holder dies with writes on its way; the other node goes on by itself, and then the same the other way round.
fn takeovers(seed: u64) -> (World, usize) {
    let (mut world, created) = recorded(seed, ArbiterKind::Etcd);
    for holder in [0, 1] {
        let next = 1 - holder;
        world.load(holder, millis(2));
        world.kill(holder);
        world.wait("takeover", 10 * SECOND, |world| world.is_holder(next));
        world.load(next, millis(2));
        world.start(holder);
        world.wait("sync", 10 * SECOND, |world| world.is_in_sync(next));
    }
    world.load(0, millis(1));
    world.drain();
    (world, created)
}

#[test]
fn takeovers_under_an_arbiter() {
    clean(&takeovers(522), 522);
}

/// The own leg fails a write, is left out, and comes back; then the same again, and the holder restarts without it.
fn an_own_leg_fails(seed: u64, policy: ArbiterKind) -> (World, usize) {
    let (mut world, created) = recorded(seed, policy);
    for _ in 0..2 {
        world.load(0, millis(2));
        world.disks[0].inject(SimFault::FailWrites { count: 1 });
        let until = world.now + SECOND;
        while world.in_sync(0) != LegMask::ONE {
            assert!(world.now < until, "{}", world.describe());
            world.load(0, Duration::from_micros(500));
        }
        world.load(0, millis(2));
        world.wait("sync", 20 * SECOND, |world| world.is_in_sync(0));
    }
    world.disks[0].inject(SimFault::FailWrites { count: 1 });
    world.load(0, millis(3));
    world.wait("the peer's leg alone", SECOND, |world| world.in_sync(0) == LegMask::ONE);
    world.kill(0);
    world.start(0);
    world.wait("service", 10 * SECOND, |world| world.is_holder(0));
    world.load(0, millis(2));
    world.wait("sync", 20 * SECOND, |world| world.is_in_sync(0));
    world.drain();
    assert_eq!(world.errors, 0, "{}", world.describe());
    (world, created)
}

#[test]
fn an_own_leg_that_fails_and_comes_back() {
    clean(&an_own_leg_fails(523, ArbiterKind::Biased), 523);
}

#[test]
fn an_own_leg_that_fails_and_comes_back_under_an_arbiter() {
    clean(&an_own_leg_fails(524, ArbiterKind::Etcd), 524);
}

/// The link is cut and both nodes go on: node 1 by force. Then the operator keeps what one of them has.
fn a_split_is_resolved(seed: u64, policy: ArbiterKind, keeps: usize) -> (World, usize) {
    let (mut world, created) = recorded(seed, policy);
    world.load(0, millis(2));
    world.drain();
    world.cut();
    world.load(0, millis(1));
    world.wait("degrade", 10 * SECOND, |world| world.in_sync(0) == LegMask::ZERO);
    world.load(0, millis(2));
    world.drain();
    world.give_up();
    world.command(1, FORCE).expect("the operator's word");
    world.wait("promotion", 10 * SECOND, |world| world.is_holder(1));
    world.base = 100;
    world.load(1, millis(2));
    world.drain();
    world.give_up();
    world.base = 200;
    let theirs = meet(&mut world, keeps);
    resolve(&mut world, keeps, theirs, Overwrite::Tracked).expect("it is there");
    world.load(keeps, millis(2));
    world.wait("sync", 20 * SECOND, |world| world.is_in_sync(keeps));
    world.drain();
    world.note(Event::United);
    world.load(keeps, millis(2));
    world.drain();
    (world, created)
}

#[test]
fn a_promotion_by_force_whose_data_stay() {
    clean(&a_split_is_resolved(525, ArbiterKind::Biased, 1), 525);
}

#[test]
fn a_promotion_by_force_whose_data_go() {
    clean(&a_split_is_resolved(526, ArbiterKind::Biased, 0), 526);
}

#[test]
fn a_promotion_by_force_under_an_arbiter() {
    clean(&a_split_is_resolved(527, ArbiterKind::Etcd, 1), 527);
}

#[test]
fn broken_rules_of_hand_over_degrade_and_rejoin_are_found() {
    finds(Mutation::R12CleanUnflushed, |seed| switchovers(seed, ArbiterKind::Etcd));
    finds(Mutation::R8ArbiterLast, |seed| switchovers(seed, ArbiterKind::Etcd));
    finds(Mutation::R8ActBeforeSuperblock, |seed| an_own_leg_fails(seed, ArbiterKind::Biased));
    finds(Mutation::RejoinWithoutUnion, takeovers);
    finds(Mutation::RejoinWithoutUnion, |seed| a_split_is_resolved(seed, ArbiterKind::Biased, 1));
}
