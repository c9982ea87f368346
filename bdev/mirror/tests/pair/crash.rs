//! Crash replay: runs of the production core on recorded legs; then every moment at which power could have failed, with what
//! the caches may have kept: all, nothing, each metadata write alone and all but it, torn at every sector, and random
//! subsets. What is left is opened with the project's own probe, replay and bitmap (I8, I9, I20):
//!
//! - each leg has a superblock that was durable or on its way, a readable log, a whole bitmap;
//! - wherever the legs differ, the union that a rejoin takes says so, or everything is copied (I5);
//! - each leg that the newest config counts has every acknowledged durable write (I2), and the unit's state that was stored
//!   last, or one that was on its way (I17).
//!
//! Some of the moments are booted: two drivers start on what is left, and end with equal legs.

use std::collections::{BTreeMap, BTreeSet};

use bdev::Durability;
use engine::Prng;
use mirror::format::{ArbiterKind, LegMask};
use mirror::mutation::{Broken, Mutation};

use super::disk::{Disk, Survival};
use super::opened::{Opened, judge};
use super::recorder::{Event, Number};
use super::unit_state::{Front, Keeper};
use super::world::World;
use super::{PROMOTE, SECOND, millis};

/// What hosts know of a block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// The newest stamp that was acknowledged after a durable write.
    pub(crate) acknowledged: u64,
    /// All stamps that were ever sent there.
    pub(crate) sent: BTreeSet<u64>,
    durable: BTreeSet<u64>,
}

impl Known {
    /// What was acknowledged, and what may be there instead: everything that was sent later.
    fn may_be_there(&self) -> (u64, Vec<u64>) {
        let later = self.sent.iter().copied().filter(|stamp| *stamp > self.acknowledged);
        (self.acknowledged, later.collect())
    }
}

/// What whoever keeps the unit's state knows of it: states have rising numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KnownState {
    /// The newest one whose store was answered.
    pub(crate) stored: u64,
    /// The newest one that was sent.
    pub(crate) sent: u64,
}

/// How much of a run is looked at.
#[derive(Clone, Copy)]
struct Depth {
    /// Random subsets at each moment.
    random: u32,
    /// Moments that are booted, spread over the run.
    boots: usize,
}

/// What was looked at.
#[derive(Debug, Default)]
struct Figures {
    events: usize,
    moments: usize,
    images: usize,
    boots: usize,
}

struct Replay {
    disks: [Disk; 2],
    known: BTreeMap<u64, Known>,
    state: KnownState,
    prng: Prng,
    figures: Figures,
    opened: [BTreeMap<Vec<(Number, Survival)>, Opened>; 2],
}

impl Replay {
    fn new(seed: u64) -> Self {
        Self {
            disks: [Disk::new(), Disk::new()],
            known: BTreeMap::new(),
            state: KnownState::default(),
            prng: Prng::from_seed(seed),
            figures: Figures::default(),
            opened: [BTreeMap::new(), BTreeMap::new()],
        }
    }

    /// True when the event changes what a power cut may leave.
    fn apply(&mut self, event: &Event) -> bool {
        match event {
            Event::Sent { block, stamp, durability } => {
                let known = self.known.entry(*block).or_default();
                known.sent.insert(*stamp);
                if *durability == Durability::Durable {
                    known.durable.insert(*stamp);
                }
                false
            }
            Event::Acknowledged { block, stamp } => {
                let known = self.known.entry(*block).or_default();
                if known.durable.contains(stamp) {
                    known.acknowledged = known.acknowledged.max(*stamp);
                }
                true
            }
            Event::StateSent { number } => {
                self.state.sent = *number;
                false
            }
            Event::StateStored { number } => {
                self.state.stored = *number;
                true
            }
            Event::Write { leg, .. }
            | Event::Written { leg, .. }
            | Event::Landed { leg, .. }
            | Event::Lost { leg, .. }
            | Event::Flush { leg, .. }
            | Event::Flushed { leg, .. } => {
                let touched = self.disks[*leg].apply(event);
                if touched.metadata {
                    self.opened[*leg].clear();
                }
                touched.any
            }
        }
    }

    /// Every way in which power may fail now.
    fn look(&mut self, depth: Depth) -> Result<(), String> {
        self.figures.moments += 1;
        let ways = [0, 1].map(|leg: usize| self.disks[leg].ways(&mut self.prng, depth.random));
        let most = ways[0].len().max(ways[1].len());
        for at in 0..most {
            // The ways of both legs side by side, and across.
            for shift in [0, 1] {
                let pair = [&ways[0][at % ways[0].len()], &ways[1][(at + shift) % ways[1].len()]];
                self.look_at(pair)?;
            }
        }
        Ok(())
    }

    fn look_at(&mut self, ways: [&Vec<(Number, Survival)>; 2]) -> Result<(), String> {
        self.figures.images += 1;
        for (leg, way) in ways.into_iter().enumerate() {
            let key = self.disks[leg].metadata_of(way);
            if !self.opened[leg].contains_key(&key) {
                let opened = Opened::read(&self.disks[leg], way)?;
                self.opened[leg].insert(key, opened);
            }
        }
        let of = |leg: usize| &self.opened[leg][&self.disks[leg].metadata_of(ways[leg])];
        let legs = [of(0), of(1)];
        judge(legs, &self.disks, ways, &self.known, self.state)
            .map_err(|why| format!("{why}; what survived: {:?} and {:?}", ways[0], ways[1]))
    }

    /// Two drivers start on what is left now.
    fn boot(&mut self, policy: ArbiterKind) -> Result<(), String> {
        let mut world = World::new(self.prng.next_u64(), policy);
        for leg in 0..2 {
            let ways = self.disks[leg].ways(&mut self.prng, 1);
            let way = ways.last().expect("at least one");
            world.disks[leg].poke(0, &self.disks[leg].image(way));
        }
        world.after_power_failed(self.known.iter().map(|(block, known)| (*block, known.may_be_there())));
        for index in 0..2 {
            world.start(index);
        }
        let in_sync = |world: &World| (0..2).any(|index| world.is_in_sync(index));
        world.try_wait(20 * SECOND, in_sync)?;
        world.run(millis(5));
        world.check_acknowledged(0);
        world.check_acknowledged(1);
        world.check_equal();
        let holder = world.holder().expect("both are in sync");
        let mut keeper = Keeper::after(self.state.stored, self.state.sent);
        let mut front = Front::open(&world, holder);
        keeper.load(&mut world, &mut front, SECOND);
        self.figures.boots += 1;
        Ok(())
    }
}

fn events(world: &World) -> Vec<Event> {
    world.journal.as_ref().expect("a recorded run").events()
}

/// Replays a run's journal. A leg that is not formatted to its end is no leg yet: boots begin when both were in sync.
fn replay(world: &World, first: usize, seed: u64, depth: Depth) -> Result<Figures, String> {
    replay_events(&events(world), first, seed, depth)
}

fn replay_events(events: &[Event], first: usize, seed: u64, depth: Depth) -> Result<Figures, String> {
    let mut replay = Replay::new(seed);
    replay.figures.events = events.len();
    let every = (events.len() - first).div_ceil(depth.boots.max(1)).max(1);
    for (at, event) in events.iter().enumerate() {
        if replay.apply(event) {
            replay.look(depth).map_err(|why| format!("event {at} of {}: {why}", events.len()))?;
        }
        if depth.boots != 0 && at >= first && (at - first) % every == every / 2 {
            replay.boot(ArbiterKind::Biased).map_err(|why| format!("booted at event {at}: {why}"))?;
        }
    }
    Ok(replay.figures)
}

const DEPTH: Depth = Depth { random: 2, boots: 12 };

/// The smallest log that there is.
const SMALL_LOG: Option<u64> = Some(4 << 20);

/// A recorded pair in sync, and the number of events until then.
fn recorded(seed: u64, max_crash_resync: Option<u64>, spread: u64) -> (World, usize) {
    let mut world = World::recorded(seed, max_crash_resync);
    world.spread = spread;
    world.create();
    let created = events(&world).len();
    (world, created)
}

fn clean((world, created): &(World, usize), seed: u64) {
    match replay(world, *created, seed, DEPTH) {
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
    let found = replay_events(&events, created, 508, Depth { random: 2, boots: 0 });
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
fn finds(rule: Mutation, run: impl Fn(u64) -> (World, usize)) {
    let _broken = Broken::rule(rule);
    let found = (510..516).find_map(|seed| {
        let (world, created) = run(seed);
        replay(&world, created, seed, Depth { random: 2, boots: 0 }).err()
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
