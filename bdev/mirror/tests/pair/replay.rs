//! What a recorded run leaves at each moment if power fails then: see `crash`.

use std::collections::{BTreeMap, BTreeSet};

use bdev::Durability;
use engine::Prng;
use mirror::command::Overwrite;
use mirror::format::{ArbiterKind, ConfigId, History};

use super::cut::{Breadth, Cuts, Way, is_deep};
use super::disk::Disk;
use super::opened::{Opened, judge};
use super::recorder::Event;
use super::split::resolve;
use super::unit_state::{Front, Keeper};
use super::world::World;
use super::{FORCE, SECOND, millis};

/// Moments that are booted of a run.
const BOOTS: usize = 40;

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

/// How many data sets there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DataSets {
    #[default]
    One,
    /// A node was promoted by force, and the operator has yet to choose.
    Two,
}

/// What is known of the array whatever the legs say.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) blocks: BTreeMap<u64, Known>,
    pub(crate) state: KnownState,
    /// What the arbiter holds, where there is one.
    pub(crate) arbiter: Option<History>,
    pub(crate) data_sets: DataSets,
}

impl Truth {
    fn acknowledged(&mut self, block: u64, stamp: u64) {
        let known = self.blocks.entry(block).or_default();
        // Of two data sets the operator may choose the other one.
        if known.durable.contains(&stamp) && self.data_sets == DataSets::One {
            known.acknowledged = known.acknowledged.max(stamp);
        }
    }

    fn give_up(&mut self) {
        self.data_sets = DataSets::Two;
        self.blocks.values_mut().for_each(|known| known.acknowledged = 0);
        self.state.stored = 0;
    }
}

/// How much of a run is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Depth {
    /// Ways in which power fails at each moment.
    breadth: Breadth,
    /// Moments that are booted, spread over the run.
    boots: usize,
}

impl Depth {
    /// What an ordinary run has time for; much more with `GEMEL_DEEP`.
    pub(crate) fn usual() -> Self {
        Self { breadth: Breadth::usual(), boots: if is_deep() { 400 } else { BOOTS } }
    }

    /// For what is to be found without a boot.
    pub(crate) fn unbooted() -> Self {
        Self { breadth: Breadth::narrow(), boots: 0 }
    }
}

/// What was looked at.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    events: usize,
    moments: usize,
    images: usize,
    boots: usize,
}

/// See the module.
struct Replay {
    disks: [Disk; 2],
    truth: Truth,
    prng: Prng,
    figures: Figures,
    opened: [BTreeMap<Way, Opened>; 2],
}

impl Replay {
    fn new(seed: u64) -> Self {
        Self {
            disks: [Disk::new(), Disk::new()],
            truth: Truth::default(),
            prng: Prng::from_seed(seed),
            figures: Figures::default(),
            opened: [BTreeMap::new(), BTreeMap::new()],
        }
    }

    /// True when the event changes what a power cut may leave.
    fn apply(&mut self, event: &Event) -> bool {
        match event {
            Event::Sent { block, stamp, durability } => {
                let known = self.truth.blocks.entry(*block).or_default();
                known.sent.insert(*stamp);
                if *durability == Durability::Durable {
                    known.durable.insert(*stamp);
                }
                false
            }
            Event::Acknowledged { block, stamp } => {
                self.truth.acknowledged(*block, *stamp);
                true
            }
            Event::Arbitrated(record) => {
                self.truth.arbiter = Some(**record);
                true
            }
            Event::GivenUp => {
                self.truth.give_up();
                true
            }
            Event::United => {
                self.truth.data_sets = DataSets::One;
                true
            }
            Event::StateSent { number } => {
                self.truth.state.sent = *number;
                false
            }
            Event::StateStored { number } => {
                self.truth.state.stored = *number;
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

    fn cuts(&mut self, leg: usize, breadth: Breadth) -> Cuts {
        Cuts::of(&self.disks[leg].pending(), &mut self.prng, breadth)
    }

    /// Every way in which power may fail now for one leg, with nothing, everything and some of what is pending on the other.
    fn look(&mut self, depth: Depth) -> Result<(), String> {
        self.figures.moments += 1;
        let cuts = [self.cuts(0, depth.breadth), self.cuts(1, depth.breadth)];
        let ways = cuts.each_ref().map(|cuts| cuts.all().collect::<Vec<_>>());
        for (at, way) in ways[0].iter().enumerate() {
            for other in self.meets(&ways[1], at) {
                self.look_at([way, other])?;
            }
        }
        for (at, way) in ways[1].iter().enumerate() {
            for other in self.meets(&ways[0], at) {
                self.look_at([other, way])?;
            }
        }
        Ok(())
    }

    /// What a leg's way number `at` meets on the other: the first two are nothing and everything; the third changes.
    fn meets<'a>(&self, others: &[&'a Way], at: usize) -> Vec<&'a Way> {
        let between = others.get(2..).unwrap_or_default();
        let some = between.get((at + self.figures.moments) % between.len().max(1));
        others.iter().take(2).chain(some).copied().collect()
    }

    fn look_at(&mut self, ways: [&Way; 2]) -> Result<(), String> {
        self.figures.images += 1;
        let named = |why| format!("{why}; what survived: {:?} and {:?}", ways[0], ways[1]);
        for (leg, way) in ways.into_iter().enumerate() {
            let key = self.disks[leg].metadata_of(way);
            if !self.opened[leg].contains_key(&key) {
                let opened = Opened::read(&self.disks[leg], way).map_err(named)?;
                self.opened[leg].insert(key, opened);
            }
        }
        let of = |leg: usize| &self.opened[leg][&self.disks[leg].metadata_of(ways[leg])];
        let legs = [of(0), of(1)];
        judge(legs, &self.disks, ways, &self.truth).map_err(named)
    }

    /// What is left now if one leg keeps a prefix, and the other nothing, everything, or something between.
    fn ways_to_boot(&mut self, breadth: Breadth) -> [Way; 2] {
        let boot = self.figures.boots;
        let of = |cuts: &Cuts, at: usize| cuts.all().nth(at).cloned().unwrap_or_default();
        let mut ways = [0, 1].map(|leg| {
            let cuts = self.cuts(leg, breadth);
            let some = self.prng.below(cuts.all().count() as u64);
            let prefix = self.prng.below(cuts.prefixes.len() as u64);
            [prefix, [0, 1, some][boot / 2 % 3]].map(|at| of(&cuts, usize::try_from(at).expect("few")))
        });
        let which = boot % 2;
        [0, 1].map(|leg| std::mem::take(&mut ways[leg][usize::from(leg != which)]))
    }

    /// Two drivers start on what is left now.
    fn boot(&mut self, policy: ArbiterKind, breadth: Breadth) -> Result<(), String> {
        let mut world = World::new(self.prng.next_u64(), policy);
        for (leg, way) in self.ways_to_boot(breadth).iter().enumerate() {
            world.disks[leg].poke(0, &self.disks[leg].image(way));
        }
        world.after_power_failed(
            self.truth.blocks.iter().map(|(block, known)| (*block, known.may_be_there())),
        );
        world.arbiter.record = self.truth.arbiter;
        for index in 0..2 {
            world.start(index);
        }
        let in_sync = |world: &World| (0..2).any(|index| world.is_in_sync(index));
        if self.truth.data_sets == DataSets::Two {
            choose(&mut world)?;
        }
        world.try_wait(20 * SECOND, in_sync)?;
        world.run(millis(5));
        world.check_acknowledged(0);
        world.check_acknowledged(1);
        world.check_equal();
        let holder = world.holder().expect("both are in sync");
        let mut keeper = Keeper::after(self.truth.state.stored, self.truth.state.sent);
        let mut front = Front::open(&world, holder);
        keeper.load(&mut world, &mut front, SECOND);
        self.figures.boots += 1;
        Ok(())
    }
}

fn diverged(world: &World, index: usize) -> Option<ConfigId> {
    world.status(index).peer.and_then(|peer| peer.diverged)
}

/// Where the legs have diverged the operator keeps what one node has: of one that serves, or waits for his word to.
fn choose(world: &mut World) -> Result<(), String> {
    let is_over = |world: &World| {
        (0..2).any(|index| {
            world.is_in_sync(index) || (world.is_holder(index) && diverged(world, index).is_some())
        })
    };
    if world.try_wait(4 * SECOND, is_over).is_err() {
        let taken = (0..2).any(|index| world.command(index, FORCE).is_ok());
        assert!(taken, "nobody takes the operator's word: {}", world.describe());
    }
    world.try_wait(20 * SECOND, is_over)?;
    let keeps = (0..2).find(|index| world.is_holder(*index) && diverged(world, *index).is_some());
    let Some(keeps) = keeps else { return Ok(()) };
    let theirs = diverged(world, keeps).expect("just seen");
    resolve(world, keeps, theirs, Overwrite::Tracked).map_err(|why| format!("no resolution: {why}"))
}

pub(crate) fn events(world: &World) -> Vec<Event> {
    world.journal.as_ref().expect("a recorded run").events()
}

/// Replays a run's journal. A leg that is not formatted to its end is no leg yet: boots begin when both were in sync.
pub(crate) fn replay(world: &World, first: usize, seed: u64, depth: Depth) -> Result<Figures, String> {
    replay_events(&events(world), world.policy, first, seed, depth)
}

pub(crate) fn replay_events(
    events: &[Event],
    policy: ArbiterKind,
    first: usize,
    seed: u64,
    depth: Depth,
) -> Result<Figures, String> {
    let mut replay = Replay::new(seed);
    replay.figures.events = events.len();
    let every = (events.len() - first).div_ceil(depth.boots.max(1)).max(1);
    for (at, event) in events.iter().enumerate() {
        if replay.apply(event) {
            replay.look(depth).map_err(|why| format!("event {at} of {}: {why}", events.len()))?;
        }
        if depth.boots != 0 && at >= first && (at - first) % every == every / 2 {
            replay.boot(policy, depth.breadth).map_err(|why| format!("booted at event {at}: {why}"))?;
        }
    }
    Ok(replay.figures)
}
