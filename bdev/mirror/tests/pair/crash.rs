//! Crash replay: runs of the production core on recorded legs; then every moment at which power could have failed, with what
//! the caches may have kept (see `cut`), each leg's share with nothing, everything and some of the other's. What is left is
//! opened with the project's own probe, replay and bitmap (I8, I9, I20):
//!
//! - each leg has a superblock that was durable or on its way, a readable log, a whole bitmap;
//! - wherever the legs differ, the union that a rejoin takes says so, or everything is copied (I5);
//! - each leg that the newest config counts has every acknowledged durable write (I2), and the unit's state that was stored
//!   last, or one that was on its way (I17).
//!
//! Some of the moments are booted: two drivers start on what is left, and end with equal legs.

use mirror::format::{ArbiterKind, LegMask};
use mirror::mutation::{Broken, Mutation};

use super::recorder::Event;
use super::replay::{Depth, events, replay, replay_events};
use super::unit_state::{Front, Keeper};
use super::world::World;
use super::{PROMOTE, SECOND, millis};

/// The smallest log that there is.
const SMALL_LOG: Option<u64> = Some(4 << 20);

/// A recorded pair in sync, and the number of events until then.
fn recorded(seed: u64, max_crash_resync: Option<u64>, spread: u64) -> (World, usize) {
    let mut world = World::recorded(seed, max_crash_resync, ArbiterKind::Biased);
    world.spread = spread;
    world.create();
    let created = events(&world).len();
    (world, created)
}

/// Nothing is found wrong with it.
pub(crate) fn clean((world, created): &(World, usize), seed: u64) {
    match replay(world, *created, seed, Depth::usual()) {
        Ok(figures) => println!("{figures:?}"),
        Err(why) => panic!("seed {seed}: {why}"),
    }
}

#[test]
fn creation_and_writes() {
    let (mut world, created) = recorded(500, None, 48);
    world.load(0, millis(6));
    world.drain();
    clean(&(world, created), 500);
}

/// More extents than the log has slots: transactions that free, flushes and pages before them.
#[test]
fn writes_that_push_extents_out_of_the_log() {
    let (mut world, created) = recorded(501, SMALL_LOG, 2000);
    world.load(0, millis(12));
    world.drain();
    let log = world.status(0).log.expect("a holder");
    assert!(log.misses > u64::from(log.slots), "nothing had to leave: {log:?}");
    clean(&(world, created), 501);
}

#[test]
fn degrade_resync_and_rejoin() {
    let (mut world, created) = recorded(502, None, 48);
    world.load(0, millis(2));
    world.kill(1);
    world.wait("degrade", 3 * SECOND, |world| world.in_sync(0) == LegMask::ZERO);
    world.load(0, millis(3));
    world.start(1);
    world.wait("resync", 5 * SECOND, |world| world.status(0).resync.is_some());
    world.load(0, millis(2));
    world.wait("sync", 5 * SECOND, |world| world.is_in_sync(0));
    world.load(0, millis(2));
    world.drain();
    clean(&(world, created), 502);
}

#[test]
fn a_holder_that_restarts() {
    let (mut world, created) = recorded(503, None, 48);
    world.load(0, millis(3));
    world.kill(0);
    world.start(0);
    world.wait("sync", 5 * SECOND, |world| world.is_in_sync(0));
    world.load(0, millis(2));
    world.drain();
    clean(&(world, created), 503);
}

#[test]
fn promotion_and_the_old_holders_return() {
    let (mut world, created) = recorded(504, None, 48);
    world.load(0, millis(3));
    world.kill(0);
    world.run(2 * SECOND);
    world.command(1, PROMOTE).expect("in sync");
    world.wait("promotion", 5 * SECOND, |world| world.is_holder(1));
    world.load(1, millis(3));
    world.start(0);
    world.wait("sync", 5 * SECOND, |world| world.is_in_sync(1));
    world.load(1, millis(2));
    world.drain();
    clean(&(world, created), 504);
}

#[test]
fn a_clean_stop_and_the_start_after_it() {
    let (mut world, created) = recorded(505, None, 48);
    world.load(0, millis(3));
    world.drain();
    for index in 0..2 {
        let now = world.now;
        world.nodes[index].as_mut().expect("runs").driver.stop(now);
        world.wait("stop", 5 * SECOND, |world| {
            world.nodes[index].as_ref().is_some_and(|node| node.driver.is_stopped())
        });
        world.kill(index);
    }
    world.start(0);
    world.start(1);
    world.wait("sync", 5 * SECOND, |world| world.is_in_sync(0));
    world.load(0, millis(1));
    world.drain();
    clean(&(world, created), 505);
}

/// A state of several blocks is stored again and again: with both legs, with one, on the way back, and by the next holder.
fn with_stores(seed: u64) -> (World, usize) {
    let (mut world, created) = recorded(seed, None, 24);
    let mut keeper = Keeper::default();
    let mut front = Front::open(&world, 0);
    let mut store = |world: &mut World, node: usize| {
        world.load(node, millis(1));
        if node == 1 {
            front = Front::open(world, node);
            keeper.load(world, &mut front, SECOND);
        }
        keeper.store(world, &mut front, SECOND);
    };
    store(&mut world, 0);
    store(&mut world, 0);
    world.kill(1);
    world.wait("degrade", 3 * SECOND, |world| world.in_sync(0) == LegMask::ZERO);
    store(&mut world, 0);
    world.start(1);
    world.wait("resync", 5 * SECOND, |world| world.status(0).resync.is_some());
    store(&mut world, 0);
    world.wait("sync", 5 * SECOND, |world| world.is_in_sync(0));
    store(&mut world, 0);
    world.drain();
    world.kill(0);
    world.run(2 * SECOND);
    world.command(1, PROMOTE).expect("in sync");
    world.wait("promotion", 5 * SECOND, |world| world.is_holder(1));
    store(&mut world, 1);
    world.start(0);
    world.wait("sync", 5 * SECOND, |world| world.is_in_sync(1));
    store(&mut world, 1);
    world.drain();
    (world, created)
}

#[test]
fn stores_of_the_units_state() {
    clean(&with_stores(507), 507);
}

/// The replay has to notice a store that is answered before it is durable.
#[test]
fn a_store_that_is_answered_too_early_is_found() {
    let (world, created) = with_stores(508);
    let mut events = events(&world);
    let answered = events.iter().rposition(|event| matches!(event, Event::StateStored { .. })).expect("some");
    let event = events.remove(answered);
    let sent = events.iter().rposition(|event| matches!(event, Event::StateSent { .. })).expect("some");
    events.insert(sent + 1, event);
    let found = replay_events(&events, world.policy, created, 508, Depth::unbooted());
    assert!(found.is_err_and(|why| why.contains("I17")));
}

/// So many configs that a superblock's content fills more than one sector: it can be torn.
fn with_a_long_history(seed: u64) -> (World, usize) {
    let (mut world, created) = recorded(seed, None, 24);
    world.load(0, millis(1));
    for _ in 0..3 {
        world.kill(1);
        world.wait("degrade", 3 * SECOND, |world| world.in_sync(0) == LegMask::ZERO);
        world.start(1);
        world.wait("sync", 5 * SECOND, |world| world.is_in_sync(0));
    }
    world.load(0, millis(1));
    world.drain();
    (world, created)
}

#[test]
fn many_configs() {
    clean(&with_a_long_history(506), 506);
}

/// The replay has to notice what it is for.
pub(crate) fn finds(rule: Mutation, run: impl Fn(u64) -> (World, usize)) {
    let _broken = Broken::rule(rule);
    let found = (510..516).find_map(|seed| {
        let (world, created) = run(seed);
        replay(&world, created, seed, Depth::unbooted()).err()
    });
    println!("{rule:?}: {found:?}");
    assert!(found.is_some(), "{rule:?} goes unnoticed");
}

/// Extents leave the log, and the peer dies with writes in flight.
fn degraded_with_a_small_log(seed: u64) -> (World, usize) {
    let (mut world, created) = recorded(seed, SMALL_LOG, 2000);
    world.load(0, millis(8));
    world.kill(1);
    world.load(0, millis(2));
    world.run(SECOND);
    world.load(0, millis(2));
    (world, created)
}

#[test]
fn broken_rules_of_log_and_config_are_found() {
    for rule in [
        Mutation::R1DataBeforeLog,
        Mutation::R3AckWithoutConfig,
        Mutation::R4LeaveUnflushed,
        Mutation::R6LeaveUnmarked,
    ] {
        finds(rule, degraded_with_a_small_log);
    }
}

#[test]
fn a_superblock_over_the_one_that_counts_is_found() {
    finds(Mutation::R9SameSlot, with_a_long_history);
}
