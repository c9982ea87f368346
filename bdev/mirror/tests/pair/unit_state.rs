//! The logical unit's state over crashes, cuts and takeovers: what was stored is found by whoever serves next, what was found
//! once is never followed by something older, and both legs have it (I17).

use bdev::sim::SimFault;
use bdev::{Bdev, Channel, Completions, Io, IoError, Op, Power, StateFound, StateHealth, Tag};
use core::time::Duration;
use engine::Progress;
use mirror::command::Command;
use mirror::format::{ArbiterKind, UnitState};
use uuid::Uuid;

use super::recorder::Event;
use super::world::{World, seeds_to_run};
use super::{SECOND, millis, pair, settle};

/// Whoever keeps something: it stores numbers.
#[derive(Default)]
pub(crate) struct Keeper {
    /// What was acknowledged, or found.
    known: u64,
    /// What may be there instead.
    maybe: Vec<u64>,
    next: u64,
    stores: u64,
    loads: u64,
}

/// A channel to the volume on a node.
pub(crate) struct Front {
    node: usize,
    channel: Box<dyn Channel>,
    tags: u64,
}

impl Front {
    pub(crate) fn open(world: &World, node: usize) -> Self {
        let volume = world.nodes[node].as_ref().expect("runs").volumes.front.clone();
        Self { node, channel: volume.open(&world.core).expect("a lane"), tags: 0 }
    }

    /// Runs an operation to its end, or gives up after a time: `None` then, and when the node is gone.
    pub(crate) fn run(
        &mut self,
        world: &mut World,
        op: Op,
        most: Duration,
    ) -> Option<(Op, Result<(), IoError>)> {
        self.tags += 1;
        let tag = Tag(self.tags);
        let io = Io::new(op, tag, world.now);
        if let Err(refused) = self.channel.submit(io, world.now) {
            let why = refused.why;
            drop(refused.io.complete(Err(why), world.now));
            return None;
        }
        let until = world.now + most;
        let mut done = Completions::new();
        while world.now < until {
            world.step();
            let _: Progress = self.channel.poll(world.now, &mut done);
            // What was given up before may be answered now.
            if let Some(completed) = done.drain(..).find(|completed| completed.tag == tag) {
                return Some((completed.op, completed.result));
            }
        }
        None
    }
}

/// Numbers fill more than one block of the copy.
const LEN: usize = 9000;

/// The number that is kept, 0 for nothing; `None` for a mixture.
pub(crate) fn number_of(content: &[u8]) -> Option<u64> {
    let number = content.get(..8).map_or(0, |word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
    content.chunks_exact(8).all(|word| word == number.to_le_bytes()).then_some(number)
}

impl Keeper {
    /// One that has stored up to the number `known`, and has sent those up to `sent`.
    pub(crate) fn after(known: u64, sent: u64) -> Self {
        Self { known, maybe: (known + 1..=sent).collect(), next: sent, ..Self::default() }
    }

    pub(crate) fn store(&mut self, world: &mut World, front: &mut Front, most: Duration) {
        self.next += 1;
        let number = self.next;
        let mut frame = world.core.pool().alloc(LEN).expect("frames");
        for word in frame.chunks_exact_mut(8) {
            word.copy_from_slice(&number.to_le_bytes());
        }
        self.maybe.push(number);
        world.note(Event::StateSent { number });
        if let Some((_, Ok(()))) = front.run(world, Op::StoreState { from: frame.freeze() }, most) {
            (self.known, self.maybe) = (number, Vec::new());
            self.stores += 1;
            world.note(Event::StateStored { number });
            world.check_states(number);
        }
    }

    pub(crate) fn load(&mut self, world: &mut World, front: &mut Front, most: Duration) {
        let into = world.core.pool().alloc(LEN).expect("frames");
        let op = Op::LoadState { into, found: StateFound::default() };
        let Some((Op::LoadState { into, found }, Ok(()))) = front.run(world, op, most) else { return };
        let bytes = &into[..found.len as usize];
        let number = number_of(bytes).expect("not torn");
        let known = number == self.known || self.maybe.contains(&number);
        assert!(
            known,
            "{number} on node {}, not {} or {:?}: {}",
            front.node,
            self.known,
            self.maybe,
            world.describe()
        );
        (self.known, self.maybe) = (number, Vec::new());
        self.loads += 1;
    }
}

impl World {
    /// What a leg has of the state.
    pub(crate) fn state_on(&self, index: usize) -> UnitState {
        UnitState::newest(&self.disks[index].peek(0, 256 << 10), Uuid::from_u128(77))
    }

    /// Every leg that the config counts has this number.
    fn check_states(&self, number: u64) {
        let Some(holder) = (0..2).find(|index| self.is_holder(*index)) else { return };
        let config = self.status(holder).config.expect("a holder has one");
        for leg in mirror::format::LegIndex::BOTH.into_iter().filter(|leg| config.in_sync.has(*leg)) {
            let content = self.state_on(leg.index()).content;
            assert_eq!(content[..8], number.to_le_bytes(), "leg {}: {}", leg.number(), self.describe());
        }
    }
}

#[test]
fn what_was_stored_survives_takeovers_and_comes_back_with_a_leg() {
    let mut world = World::new(500, ArbiterKind::Etcd);
    world.create();
    let mut keeper = Keeper::default();
    let mut holder = 0;
    for round in 0..6 {
        let mut front = Front::open(&world, holder);
        keeper.load(&mut world, &mut front, SECOND);
        keeper.store(&mut world, &mut front, SECOND);
        assert_eq!(keeper.known, keeper.next, "round {round}");
        world.kill(holder);
        holder = 1 - holder;
        world.wait("takeover", 10 * SECOND, |world| world.is_holder(holder));
        let mut front = Front::open(&world, holder);
        keeper.load(&mut world, &mut front, SECOND);
        keeper.store(&mut world, &mut front, SECOND);
        world.start(1 - holder);
        settle(&mut world, holder);
        assert_eq!(world.state_on(0), world.state_on(1));
    }
    assert_eq!((keeper.stores, keeper.loads), (12, 12));
}

/// Both copies are read once at a takeover, and errors that pass are no reason to be without either.
#[test]
fn reads_that_fail_at_a_takeover_do_not_lose_what_was_stored() {
    for count in 1..5 {
        let mut world = World::new(502, ArbiterKind::Etcd);
        world.create();
        let mut keeper = Keeper::default();
        let mut front = Front::open(&world, 0);
        keeper.store(&mut world, &mut front, SECOND);
        world.kill(0);
        world.disks[1].inject(SimFault::FailReads { count });
        world.wait("takeover", 10 * SECOND, |world| world.is_holder(1));
        let mut front = Front::open(&world, 1);
        keeper.load(&mut world, &mut front, SECOND);
        assert_eq!((keeper.known, keeper.loads), (1, 1), "{}", world.describe());
        world.start(0);
        settle(&mut world, 1);
    }
}

#[test]
fn a_standby_keeps_nothing_and_says_so() {
    let mut world = World::new(501, ArbiterKind::Etcd);
    world.create();
    let mut front = Front::open(&world, 1);
    let from = world.core.pool().alloc(512).expect("frames").freeze();
    let answer = front.run(&mut world, Op::StoreState { from }, SECOND).expect("an answer");
    assert_eq!(answer.1, Err(IoError::NotReady(bdev::NotReady::Standby)));
}

/// Kills, cuts and lost disks at random moments of stores and loads.
#[test]
fn seeds_of_stores() {
    for seed in seeds_to_run(1..13) {
        random_run(seed);
    }
}

fn random_run(seed: u64) {
    let mut world = World::new(seed.wrapping_mul(7919), ArbiterKind::Etcd);
    world.create();
    let mut keeper = Keeper::default();
    for _ in 0..6 {
        let Some(holder) = world.holder() else {
            world.run(SECOND);
            continue;
        };
        let mut front = Front::open(&world, holder);
        keeper.load(&mut world, &mut front, SECOND);
        for _ in 0..world.prng.below(4) {
            keeper.store(&mut world, &mut front, SECOND);
        }
        let moment = Duration::from_micros(world.prng.below(900));
        match world.prng.below(5) {
            0 | 1 => {
                keeper.store(&mut world, &mut front, moment);
                drop(front);
                world.kill(holder);
                world.run(millis(500));
                if world.prng.percent(50) {
                    world.wait("takeover", 10 * SECOND, |world| world.is_holder(1 - holder));
                    let mut front = Front::open(&world, 1 - holder);
                    keeper.load(&mut world, &mut front, SECOND);
                    keeper.store(&mut world, &mut front, SECOND);
                }
                world.start(holder);
            }
            2 => {
                world.kill(1 - holder);
                keeper.store(&mut world, &mut front, 3 * SECOND);
                if world.prng.percent(30) {
                    world.replace_disk(1 - holder);
                }
                world.start(1 - holder);
                world.run(moment * 20);
                keeper.store(&mut world, &mut front, 3 * SECOND);
            }
            3 => {
                world.cut();
                keeper.store(&mut world, &mut front, moment * 100);
                world.heal();
                keeper.store(&mut world, &mut front, 3 * SECOND);
            }
            _ => {
                keeper.store(&mut world, &mut front, moment);
                drop(front);
                world.kill(holder);
                world.kill(1 - holder);
                world.start(holder);
                world.start(1 - holder);
            }
        }
        world.wait("a holder in sync", 30 * SECOND, |world| {
            (0..2).any(|index| world.is_holder(index) && world.is_in_sync(index))
        });
    }
    let holder = world.holder().expect("one");
    let mut front = Front::open(&world, holder);
    keeper.load(&mut world, &mut front, SECOND);
    settle(&mut world, holder);
    assert_eq!(world.state_on(0), world.state_on(1), "seed {seed}: {}", world.describe());
    assert!(keeper.loads > 3, "seed {seed}");
}

/// A pair in which so much was stored, one after the other.
fn stored(seed: u64, stores: usize) -> (World, Keeper) {
    let mut world = pair(seed);
    let mut keeper = Keeper::default();
    let mut front = Front::open(&world, 0);
    keeper.load(&mut world, &mut front, SECOND);
    for _ in 0..stores {
        keeper.store(&mut world, &mut front, SECOND);
    }
    (world, keeper)
}

/// Both copies of the state on a leg are damaged.
fn damage(world: &World, index: usize) {
    for copy in [128 << 10, 192 << 10] {
        world.disks[index].poke(copy + 64, &[0xa5; 64]);
    }
}

/// What a load says of the power.
fn power(world: &mut World, holder: usize) -> Power {
    let mut front = Front::open(world, holder);
    let into = world.core.pool().alloc(LEN).expect("frames");
    let op = Op::LoadState { into, found: StateFound::default() };
    match front.run(world, op, SECOND) {
        Some((Op::LoadState { found, .. }, Ok(()))) => found.power,
        _ => panic!("no answer: {}", world.describe()),
    }
}

/// What a load says.
pub(crate) fn found(world: &mut World, holder: usize) -> (StateHealth, Option<u64>) {
    let mut front = Front::open(world, holder);
    let into = world.core.pool().alloc(LEN).expect("frames");
    let op = Op::LoadState { into, found: StateFound::default() };
    let Some((Op::LoadState { into, found }, Ok(()))) = front.run(world, op, SECOND) else {
        panic!("no answer: {}", world.describe())
    };
    (found.health, number_of(&into[..found.len as usize]))
}

/// What was stored is in both copies when it is answered.
#[test]
fn the_loss_of_one_copy_brings_nothing_older_back() {
    for copy in [128 << 10, 192 << 10] {
        let (mut world, _) = stored(534, 3);
        world.kill(1);
        world.load(0, 2 * SECOND);
        world.kill(0);
        world.disks[0].poke(copy + 64, &[0xa5; 64]);
        world.start(0);
        world.wait("service", 10 * SECOND, |world| world.is_holder(0));
        assert_eq!(found(&mut world, 0), (StateHealth::Whole, Some(3)), "{}", world.describe());
    }
}

/// What one leg lost the other one has.
#[test]
fn a_state_that_one_leg_lost_is_the_other_ones() {
    for loser in 0..2 {
        let (mut world, _) = stored(530 + loser as u64, 1);
        world.kill(1);
        world.kill(0);
        damage(&world, loser);
        world.start(0);
        world.start(1);
        world.wait("sync", 10 * SECOND, |world| world.is_in_sync(0));
        assert_eq!(found(&mut world, 0), (StateHealth::Whole, Some(1)), "{}", world.describe());
        assert_eq!(world.state_on(0), world.state_on(1));
    }
}

/// The only leg that counts has lost it: nobody takes that for an empty one, nor what a leg that comes back still has for the
/// last one, whoever serves. What is stored then is newer.
#[test]
fn a_state_that_nobody_can_read_is_not_an_empty_one() {
    let (mut world, mut keeper) = stored(532, 5);
    world.kill(1);
    world.load(0, 2 * SECOND);
    let mut front = Front::open(&world, 0);
    keeper.store(&mut world, &mut front, SECOND);
    drop(front);
    world.kill(0);
    damage(&world, 0);
    world.start(0);
    world.wait("service", 10 * SECOND, |world| world.is_holder(0));
    assert_eq!(found(&mut world, 0), (StateHealth::Damaged, Some(0)), "{}", world.describe());
    world.start(1);
    world.wait("sync", 20 * SECOND, |world| world.is_in_sync(0));
    assert_eq!(found(&mut world, 0).0, StateHealth::Damaged, "{}", world.describe());
    assert_eq!(world.state_on(0), world.state_on(1));
    world.kill(0);
    world.kill(1);
    world.start(0);
    world.start(1);
    world.wait("sync again", 20 * SECOND, |world| world.is_in_sync(0));
    assert_eq!(found(&mut world, 0).0, StateHealth::Damaged, "an older one does not come back");
    let mut front = Front::open(&world, 0);
    keeper.store(&mut world, &mut front, SECOND);
    drop(front);
    assert_eq!(found(&mut world, 0), (StateHealth::Whole, Some(keeper.known)));
    assert_eq!(world.state_on(0), world.state_on(1), "an older one does not come back");
}

/// Both machines lose their power, and node 0 begins alone and stores something. For all that it knows its peer was on all the time.
fn dark(seed: u64) -> World {
    let (mut world, mut keeper) = stored(seed, 1);
    world.power_off(0);
    world.power_off(1);
    world.start(0);
    world.run(SECOND);
    world.command(0, Command::StartDegraded).expect("it holds");
    world.wait("service", 10 * SECOND, |world| world.is_holder(0));
    assert_eq!(power(&mut world, 0), Power::Kept, "{}", world.describe());
    let mut front = Front::open(&world, 0);
    keeper.store(&mut world, &mut front, SECOND);
    drop(front);
    world
}

/// A node that has joined since something was stored keeps the unit's power, whatever becomes of the one that stored it.
#[test]
fn a_node_that_joined_since_the_last_store_keeps_the_power() {
    let mut world = dark(540);
    world.start(1);
    world.wait("sync", 20 * SECOND, |world| world.is_in_sync(0));
    world.run(SECOND);
    for _ in 0..2 {
        world.power_off(0);
        world.start(0);
        world.wait("service", 10 * SECOND, |world| world.is_in_sync(0));
        assert_eq!(power(&mut world, 0), Power::Kept, "{}", world.describe());
        assert_eq!(world.state_on(0), world.state_on(1));
    }
    // The same the other way round, with a member that was away for a moment.
    world.power_off(1);
    world.start(1);
    world.wait("sync", 20 * SECOND, |world| world.is_in_sync(0));
    world.run(SECOND);
    world.power_off(0);
    world.start(0);
    world.wait("service", 10 * SECOND, |world| world.is_in_sync(0));
    assert_eq!(power(&mut world, 0), Power::Kept, "{}", world.describe());
    world.power_off(0);
    world.power_off(1);
    world.start(0);
    world.start(1);
    world.wait("service", 10 * SECOND, |world| world.is_in_sync(0));
    assert_eq!(power(&mut world, 0), Power::Lost, "{}", world.describe());
}

/// Whoever was told of a loss of power and died before it drew its conclusions has not taken it from whoever comes next.
#[test]
fn a_loss_of_power_is_told_until_something_is_stored() {
    let (mut world, mut keeper) = stored(541, 1);
    world.power_off(0);
    world.power_off(1);
    world.start(0);
    world.start(1);
    for _ in 0..2 {
        world.wait("service", 10 * SECOND, |world| world.is_in_sync(0));
        assert_eq!(power(&mut world, 0), Power::Lost, "{}", world.describe());
        world.run(SECOND);
        world.kill(0);
        world.start(0);
    }
    world.wait("service", 10 * SECOND, |world| world.is_in_sync(0));
    assert_eq!(power(&mut world, 0), Power::Lost, "{}", world.describe());
    let mut front = Front::open(&world, 0);
    keeper.store(&mut world, &mut front, SECOND);
    drop(front);
    world.kill(0);
    world.start(0);
    world.wait("service", 10 * SECOND, |world| world.is_in_sync(0));
    assert_eq!(power(&mut world, 0), Power::Kept, "{}", world.describe());
}

/// A leg that counted when this node began to serve without it has what was stored last.
#[test]
fn a_state_that_the_leg_that_serves_has_lost_comes_back_with_the_other_one() {
    let (mut world, _) = stored(533, 1);
    world.kill(0);
    world.kill(1);
    damage(&world, 0);
    world.start(0);
    world.run(SECOND);
    world.command(0, Command::StartDegraded).expect("it holds");
    world.wait("service", 10 * SECOND, |world| world.is_holder(0));
    assert_eq!(found(&mut world, 0).0, StateHealth::Damaged, "{}", world.describe());
    world.start(1);
    world.wait("sync", 20 * SECOND, |world| world.is_in_sync(0));
    assert_eq!(found(&mut world, 0), (StateHealth::Whole, Some(1)), "{}", world.describe());
    assert_eq!(world.state_on(0), world.state_on(1));
}

/// The peer's leg counts alone, and its node may have gone on: what this one remembers is no answer.
#[test]
fn a_holder_that_cannot_reach_the_leg_that_counts_says_nothing_of_the_state() {
    let (mut world, _) = stored(540, 3);
    world.disks[0].inject(SimFault::FailWrites { count: 1_000_000 });
    world.load(0, SECOND);
    world.drain();
    assert_eq!(found(&mut world, 0), (StateHealth::Whole, Some(3)), "{}", world.describe());
    world.cut();
    let mut front = Front::open(&world, 0);
    let into = world.core.pool().alloc(LEN).expect("frames");
    let answer = front.run(&mut world, Op::LoadState { into, found: StateFound::default() }, SECOND);
    assert!(answer.is_none(), "{:?}", answer.map(|(_, result)| result));
    world.disks[0].heal();
    world.heal();
    world.load(0, SECOND);
    settle(&mut world, 0);
    assert_eq!(found(&mut world, 0), (StateHealth::Whole, Some(3)), "{}", world.describe());
}
