//! Two production drivers, simulated disks and links, virtual time, and a host that remembers what was
//! acknowledged.

use core::ops::Range;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bdev::sim::{SimBdev, SimConfig};
use bdev::{Bdev, BlockRange, Channel, Completions, Durability, Geometry, Io, IoError, Op, Tag};
use core::time::Duration;
use engine::{Core, Instant, Pool, PoolConfig, Prng, Progress};
use mirror::command::{Command, Refusal};
use mirror::driver::{Driver, Volumes};
use mirror::format::{ArbiterKind, ArrayName, LegFlags, LegIndex, LegMask};
use mirror::setup::{ArbiterLink, Content, DegradedPolicy, OnBlank, Setup, Timing};
use mirror::status::{PeerSight, RoleKind, Status};
use uuid::Uuid;

use super::arbiter::Arbiter;
use super::link::Wire;
use super::recorder::{Event, Journal, Recorder};

pub(crate) const BLOCK: u64 = 4096;
pub(crate) const ARRAY: Uuid = Uuid::from_u128(77);
/// Bytes of a leg.
pub(crate) const LEG_BYTES: usize = 24 << 20;
pub(crate) const LEG: Geometry = leg_of(512);

/// A leg whose device has blocks of this size.
const fn leg_of(block_size: u32) -> Geometry {
    Geometry { block_size, physical_block_size: 4096, blocks: LEG_BYTES as u64 / block_size as u64 }
}

/// A running node.
pub(crate) struct Running {
    pub(crate) driver: Driver,
    pub(crate) volumes: Volumes,
    host: Box<dyn Channel>,
    boot: u64,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) core: Core,
    pub(crate) prng: Prng,
    pub(crate) disks: [Arc<SimBdev>; 2],
    pub(crate) wires: [Arc<Wire>; 2],
    pub(crate) nodes: [Option<Running>; 2],
    connected: bool,
    boots: u64,
    seed: u64,
    pub(crate) policy: ArbiterKind,
    pub(crate) arbiter: Arbiter,
    /// By block: what was acknowledged, and what may be there instead.
    acked: BTreeMap<u64, (u64, Vec<u64>)>,
    /// By tag: the block, and what a read of it may give (I1, I12, I19).
    pub(crate) reading: BTreeMap<u64, (u64, BTreeSet<u64>)>,
    /// Each machine's boot: what was in a volatile cache is gone with it.
    incarnations: [u128; 2],
    /// The newest generation that acknowledged, and whose it is.
    newest_ack: (u64, usize),
    /// By tag: block and value on their way.
    pub(crate) open: BTreeMap<u64, (u64, u64)>,
    stamp: u64,
    reads: u64,
    /// Most bytes to copy after a crash; the array's own choice when absent.
    max_crash_resync: Option<u64>,
    /// Whether a node that waits for its peer goes on by itself.
    pub(crate) degraded: DegradedPolicy,
    /// Where the legs' writes are written down, for a replay.
    pub(crate) journal: Option<Arc<Journal>>,
    /// Reads that were answered with data.
    pub(crate) answered: u64,
    /// Blocks that the load writes, every fifth, and where they begin.
    pub(crate) spread: u64,
    pub(crate) base: u64,
    /// Of a hundred writes, those that need not be durable when they are acknowledged.
    pub(crate) accepted: u64,
    pub(crate) acks: u64,
    pub(crate) errors: u64,
    /// How the last I/O of [`World::ask`] ended.
    answer: Option<Result<(), IoError>>,
}

/// The tag of the I/Os of [`World::ask`].
const ASKED: u64 = u64::MAX / 2;

fn disk(index: usize, seed: u64, leg: Geometry) -> Arc<SimBdev> {
    let config = SimConfig { seed: seed ^ (index as u64 + 1) << 32, ..SimConfig::default() };
    SimBdev::new(format!("disk{index}"), Uuid::from_u128(index as u128 + 1), leg, config)
}

impl World {
    pub(crate) fn new(seed: u64, arbiter: ArbiterKind) -> Self {
        let pool = Pool::new(PoolConfig::with_memory(64 << 20)).expect("memory");
        Self {
            now: Instant::EPOCH + Duration::from_secs(1),
            core: Core::for_tests(pool),
            prng: Prng::from_seed(seed),
            disks: [disk(0, seed, LEG), disk(1, seed, LEG)],
            wires: [Wire::new(LEG), Wire::new(LEG)],
            nodes: [None, None],
            connected: true,
            boots: 0,
            seed,
            policy: arbiter,
            arbiter: Arbiter::new(seed),
            acked: BTreeMap::new(),
            reading: BTreeMap::new(),
            incarnations: [20, 21],
            newest_ack: (0, 0),
            open: BTreeMap::new(),
            stamp: 0,
            spread: 600,
            base: 0,
            accepted: 50,
            reads: 0,
            max_crash_resync: None,
            degraded: DegradedPolicy::Ask,
            journal: None,
            answered: 0,
            acks: 0,
            errors: 0,
            answer: None,
        }
    }

    fn setup(&mut self, index: usize) -> Setup {
        self.boots += 1;
        let max_crash_resync = self.max_crash_resync;
        let create = OnBlank::Create { arbiter: self.policy, data_size: None, max_crash_resync };
        Setup {
            array: ARRAY,
            name: ArrayName::new("pair").expect("short"),
            who: LegIndex::BOTH[index],
            node: Uuid::from_u128(index as u128 + 10),
            incarnation: Uuid::from_u128(self.incarnations[index]),
            on_blank: if index == 0 && self.boots == 1 { create } else { OnBlank::Join },
            content: Content::Zeroed,
            flags: LegFlags::empty(),
            arbiter: match self.policy {
                ArbiterKind::Etcd => ArbiterLink::Etcd,
                _ => ArbiterLink::None,
            },
            degraded: self.degraded,
            timing: Timing { retry: Duration::from_millis(500), ..Timing::default() },
            seed: self.seed.wrapping_mul(1000) + self.boots,
        }
    }

    pub(crate) fn start(&mut self, index: usize) {
        let setup = self.setup(index);
        let (own, peer) = (self.own_leg(index), self.wires[index].clone());
        let started = Driver::start("vol", setup, own, peer, &self.core, self.now);
        let (volumes, driver) = started.expect("opens");
        let host = bdev::Bdev::open(volumes.front.clone(), &self.core).expect("a lane");
        self.nodes[index] = Some(Running { driver, volumes, host, boot: self.boots });
        self.rewire();
    }

    fn own_leg(&self, index: usize) -> Arc<dyn Bdev> {
        let disk = self.disks[index].clone();
        match &self.journal {
            Some(journal) => Recorder::new(disk, index, journal.clone()),
            None => disk,
        }
    }

    pub(crate) fn note(&self, event: Event) {
        if let Some(journal) = &self.journal {
            journal.note(event);
        }
    }

    fn rewire(&mut self) {
        for index in 0..2 {
            match (&self.nodes[1 - index], self.connected) {
                (Some(far), true) if self.nodes[index].is_some() => {
                    self.wires[index].connect(far.volumes.guarded.clone());
                }
                _ => self.wires[index].cut(),
            }
        }
    }

    pub(crate) fn cut(&mut self) {
        self.connected = false;
        self.rewire();
    }

    pub(crate) fn heal(&mut self) {
        self.connected = true;
        self.rewire();
    }

    /// SIGKILL: the process is gone, the machine and its cache live on.
    pub(crate) fn kill(&mut self, index: usize) {
        self.disks[index].kill();
        if let Some(journal) = &self.journal {
            journal.killed(index, &self.disks[index]);
        }
        let Some(running) = self.nodes[index].take() else { return };
        self.forget_open();
        drop(running);
        self.rewire();
    }

    /// The machine loses power, and its disk's cache with it.
    pub(crate) fn power_off(&mut self, index: usize) {
        self.disks[index].crash();
        self.incarnations[index] += 2;
        let Some(running) = self.nodes[index].take() else { return };
        self.forget_open();
        drop(running);
        self.rewire();
    }

    /// The node stands still, and its machine answers nothing: give it back with [`World::resume`].
    pub(crate) fn pause(&mut self, index: usize) -> Running {
        self.nodes[index].take().expect("runs")
    }

    /// It goes on as if no time had passed.
    pub(crate) fn resume(&mut self, index: usize, sleeper: Running) {
        self.nodes[index] = Some(sleeper);
    }

    /// A turn that began `then` comes to its end now: the node's thread was stopped in the middle of it.
    pub(crate) fn end_turn(&mut self, index: usize, then: Instant) {
        let running = self.nodes[index].as_mut().expect("runs");
        let _: Progress = running.driver.poll(then);
    }

    /// What was on its way may be there or not.
    fn forget_open(&mut self) {
        for (_, (block, value)) in std::mem::take(&mut self.open) {
            self.acked.entry(block).or_default().1.push(value);
        }
        self.reading.clear();
    }

    pub(crate) fn replace_disk(&mut self, index: usize) {
        self.disks[index] = disk(index, self.seed ^ 0xabc, LEG);
    }

    /// A blank disk with blocks of this size, and the way that the other node has to it.
    pub(crate) fn exchange_disk(&mut self, index: usize, block_size: u32) {
        self.disks[index] = disk(index, self.seed ^ 0xdef, leg_of(block_size));
        self.exchange_wire(1 - index, block_size);
    }

    /// This node's way to its peer's leg says that it has blocks of this size.
    pub(crate) fn exchange_wire(&mut self, index: usize, block_size: u32) {
        self.wires[index] = Wire::new(leg_of(block_size));
        self.rewire();
    }

    pub(crate) fn step(&mut self) {
        self.now += Duration::from_micros(50);
        self.step_arbiter();
        for index in 0..2 {
            let Some(running) = &mut self.nodes[index] else { continue };
            let _: Progress = running.driver.poll(self.now);
            while let Some((ticket, ask)) = running.driver.next_ask() {
                self.arbiter.ask((index, running.boot), ticket, ask, self.now);
            }
            let mut done = Completions::new();
            let _: Progress = running.host.poll(self.now, &mut done);
            for completed in done {
                self.on_done(index, &completed);
            }
        }
    }

    /// True when the node wants a turn at once.
    pub(crate) fn is_due(&self, index: usize) -> bool {
        let next = self.nodes[index].as_ref().and_then(|running| running.driver.next_deadline());
        next.is_some_and(|at| at <= self.now)
    }

    fn step_arbiter(&mut self) {
        let before = self.arbiter.config();
        let answers = self.arbiter.step(self.now);
        if let Some(record) = self.arbiter.record.filter(|_| self.arbiter.config() != before) {
            self.note(Event::Arbitrated(Box::new(record)));
        }
        for ((index, boot), ticket, answer) in answers {
            if let Some(running) = self.nodes[index].as_mut().filter(|running| running.boot == boot) {
                running.driver.on_arbiter(ticket, answer, self.now);
            }
        }
    }

    fn on_done(&mut self, index: usize, completed: &bdev::Completed) {
        assert_ne!(
            completed.result,
            Err(IoError::Fenced),
            "no host has to do with fences: {}",
            self.describe()
        );
        if completed.tag.0 == ASKED {
            self.answer = Some(completed.result);
            return;
        }
        self.errors += u64::from(completed.result.is_err());
        if let Some((block, value)) = self.open.remove(&completed.tag.0) {
            let entry = self.acked.entry(block).or_default();
            if completed.result.is_err() {
                return entry.1.push(value);
            }
            self.acks += 1;
            *entry = (value, Vec::new());
            self.note(Event::Acknowledged { block, stamp: value });
            self.check_holder(index);
        } else if let Some((block, allowed)) = self.reading.remove(&completed.tag.0)
            && let (Ok(()), Op::Read { into, .. }) = (completed.result, &completed.op)
        {
            self.answered += 1;
            let value = u64::from_le_bytes(into[..8].try_into().expect("8"));
            self.check_read(index, (block, value), &allowed);
        }
    }

    /// No acknowledgement outside the newest config's holder (I4).
    fn check_holder(&mut self, index: usize) {
        let holder = self.arbiter.config().map(|config| config.holder.index());
        assert!(
            holder.is_none_or(|holder| holder == index),
            "seed {}: node {index} acknowledges (I4)",
            self.seed
        );
        let generation = self.status(index).config.expect("it serves").generation();
        let (newest, by) = self.newest_ack;
        assert!(
            generation > newest || index == by,
            "seed {}: node {index} acknowledges in generation {generation}, node {by} did in {newest} (I4): {}",
            self.seed,
            self.describe()
        );
        self.newest_ack = (generation, index);
    }

    /// A read gives what a block that is written and read one after the other would give.
    fn check_read(&mut self, index: usize, (block, value): (u64, u64), allowed: &BTreeSet<u64>) {
        assert!(
            allowed.contains(&value),
            "seed {}: node {index} reads {value} from block {block}, and may read {allowed:?}: {}",
            self.seed,
            self.describe()
        );
        let entry = self.acked.entry(block).or_default();
        let took_effect = entry.1.contains(&value) || self.open.values().any(|open| *open == (block, value));
        if took_effect {
            // No later read may go back behind it.
            entry.1.retain(|maybe| *maybe != value);
            entry.0 = value;
        }
    }

    /// What a read of a block that begins now may give, as far as is known yet.
    fn allowed(&self, block: u64) -> BTreeSet<u64> {
        let (acked, maybe) = self.acked.get(&block).cloned().unwrap_or_default();
        let open = self.open.values().filter(|(open, _)| *open == block).map(|(_, value)| *value);
        maybe.into_iter().chain([acked]).chain(open).collect()
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step();
        }
    }

    pub(crate) fn wait(&mut self, what: &str, most: Duration, until: impl FnMut(&Self) -> bool) {
        if let Err(state) = self.try_wait(most, until) {
            panic!("seed {}: no {what} in {most:?}: {state}", self.seed);
        }
    }

    /// As [`World::wait`]; when it does not come, what both nodes say.
    pub(crate) fn try_wait(
        &mut self,
        most: Duration,
        mut until: impl FnMut(&Self) -> bool,
    ) -> Result<(), String> {
        let end = self.now + most;
        while !until(self) {
            if self.now >= end {
                return Err(self.describe());
            }
            self.step();
        }
        Ok(())
    }

    // --- Recorded runs ---

    /// A pair whose legs' writes are written down, with so many bytes to copy after a crash at the most.
    pub(crate) fn recorded(seed: u64, max_crash_resync: Option<u64>, policy: ArbiterKind) -> Self {
        let journal = Some(Arc::default());
        Self { journal, max_crash_resync, ..Self::new(seed, policy) }
    }

    /// The machines were off, so caches are empty; the array is there already. What hosts know of its blocks: what was
    /// acknowledged last, and what may be there instead.
    pub(crate) fn after_power_failed(&mut self, known: impl Iterator<Item = (u64, (u64, Vec<u64>))>) {
        self.incarnations = [40, 41];
        self.boots += 1;
        self.acked.extend(known);
    }

    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(node) = node else { continue };
            let status = node.driver.status();
            text += &format!(
                "\nnode {index}: {:?} {:?} config {:?} peer {:?} dirty {}",
                status.role, status.reason, status.config, status.peer, status.dirty_bytes
            );
            for event in status.events {
                text += &format!("\n   {:>9} us {}", event.at.as_nanos() / 1000, event.kind);
            }
        }
        text
    }

    /// A command of the operator.
    pub(crate) fn command(&mut self, index: usize, command: Command) -> Result<(), Refusal> {
        let now = self.now;
        self.nodes[index].as_mut().expect("runs").driver.command(command, now)
    }

    /// What was acknowledged so far is given up: an operator promotes a leg that misses it.
    pub(crate) fn give_up(&mut self) {
        self.note(Event::GivenUp);
        self.acked.clear();
        self.newest_ack = (0, 0);
    }

    pub(crate) fn in_sync(&self, index: usize) -> LegMask {
        self.status(index).config.expect("a config").in_sync
    }

    pub(crate) fn status(&self, index: usize) -> Status {
        self.nodes[index].as_ref().expect("runs").driver.status()
    }

    pub(crate) fn is_holder(&self, index: usize) -> bool {
        self.nodes[index].as_ref().is_some_and(|node| node.driver.status().role == RoleKind::Holder)
    }

    /// The node that serves, if one does.
    pub(crate) fn holder(&self) -> Option<usize> {
        (0..2).find(|index| self.is_holder(*index))
    }

    pub(crate) fn is_in_sync(&self, holder: usize) -> bool {
        let Some(node) = &self.nodes[holder] else { return false };
        let status = node.driver.status();
        let both = status.config.is_some_and(|config| config.in_sync == LegMask::both());
        status.role == RoleKind::Holder
            && both
            && status.peer.is_some_and(|peer| peer.sight == PeerSight::Joined)
    }

    /// Creates the pair and waits until both legs are in sync.
    pub(crate) fn create(&mut self) {
        self.start(0);
        self.start(1);
        self.wait("sync", Duration::from_secs(5), |world| world.is_in_sync(0));
    }

    pub(crate) fn blocks(&self) -> u64 {
        let size = self.nodes.iter().flatten().map(|node| node.driver.status().data_size).max();
        size.expect("a node runs") / BLOCK
    }

    /// Sends a write to a random block that has none on its way.
    pub(crate) fn write(&mut self, index: usize) {
        if self.nodes[index].is_none() {
            return;
        }
        let block = (self.base + self.prng.below(self.blocks().min(self.spread))) * 5 % self.blocks();
        if self.open.len() >= 16 || self.open.values().any(|(open, _)| *open == block) {
            return;
        }
        self.stamp += 1;
        let mut frame = self.core.pool().alloc(4096).expect("frames");
        frame.fill(0);
        for word in frame.chunks_exact_mut(8) {
            word.copy_from_slice(&self.stamp.to_le_bytes());
        }
        let durability =
            if self.prng.percent(self.accepted) { Durability::Accepted } else { Durability::Durable };
        let range = BlockRange::new(block * 8, 8);
        self.note(Event::Sent { block, stamp: self.stamp, durability });
        let io = Io::new(Op::Write { range, from: frame.freeze(), durability }, Tag(self.stamp), self.now);
        let Some(running) = &mut self.nodes[index] else { return drop(io.complete(Ok(()), self.now)) };
        match running.host.submit(io, self.now) {
            Ok(()) => {
                self.open.insert(self.stamp, (block, self.stamp));
                for (reading, allowed) in self.reading.values_mut() {
                    if *reading == block {
                        allowed.insert(self.stamp);
                    }
                }
            }
            Err(refused) => drop(refused.io.complete(Ok(()), self.now)),
        }
    }

    /// Sends a read of a block, whose answer is compared with what it may be; an error counts.
    pub(crate) fn read(&mut self, index: usize, block: u64) {
        if self.reading.len() >= 16 {
            return;
        }
        let into = self.core.pool().alloc(4096).expect("frames");
        self.reads += 1;
        let io = Io::new(
            Op::Read { range: BlockRange::new(block * 8, 8), into },
            Tag(u64::MAX - self.reads),
            self.now,
        );
        let allowed = self.allowed(block);
        let running = self.nodes[index].as_mut().expect("runs");
        assert!(running.host.submit(io, self.now).is_ok(), "a lane has room");
        self.reading.insert(u64::MAX - self.reads, (block, allowed));
    }

    /// Sends any I/O to a node, and waits for its end and not a step longer.
    pub(crate) fn ask(&mut self, index: usize, op: Op) -> Result<(), IoError> {
        self.send(index, op);
        self.answer()
    }

    /// Sends it, and waits for nothing: [`World::answer`] does.
    pub(crate) fn send(&mut self, index: usize, op: Op) {
        let io = Io::new(op, Tag(ASKED), self.now);
        let running = self.nodes[index].as_mut().expect("runs");
        assert!(running.host.submit(io, self.now).is_ok(), "a lane has room");
    }

    pub(crate) fn answer(&mut self) -> Result<(), IoError> {
        self.wait("an answer", Duration::from_secs(5), |world| world.answer.is_some());
        self.answer.take().expect("waited for")
    }

    /// Load on a node for a while.
    pub(crate) fn load(&mut self, index: usize, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            if self.prng.percent(40) {
                self.write(index);
            }
            if self.nodes[index].is_some() && self.prng.percent(20) {
                let block = (self.base + self.prng.below(self.blocks().min(self.spread))) * 5 % self.blocks();
                self.read(index, block);
            }
            self.step();
        }
    }

    pub(crate) fn drain(&mut self) {
        self.wait("answer to everything", Duration::from_secs(5), |world| {
            world.open.is_empty() && world.reading.is_empty()
        });
    }

    /// Everything is answered; who serves then. One that did before may have heard meanwhile that it is the holder no more.
    pub(crate) fn drained(&mut self) -> usize {
        self.drain();
        self.wait("one holder", Duration::from_secs(20), |world| world.is_holder(0) != world.is_holder(1));
        usize::from(self.is_holder(1))
    }

    /// The value of a block on a leg.
    fn on_leg(&self, index: usize, block: u64) -> u64 {
        let offset = self.status(index).data_offset + block * BLOCK;
        let bytes = self.disks[index].peek(usize::try_from(offset).expect("small"), 8);
        u64::from_le_bytes(bytes.try_into().expect("8"))
    }

    /// Every acknowledged write is on this node's leg.
    pub(crate) fn check_acknowledged(&self, index: usize) {
        for (block, (acked, maybe)) in &self.acked {
            let value = self.on_leg(index, *block);
            assert!(
                value == *acked || maybe.contains(&value),
                "seed {}: block {block} holds {value}, acknowledged {acked}, perhaps {maybe:?}: {}",
                self.seed,
                self.describe()
            );
        }
    }

    /// A leg's data area.
    pub(crate) fn data(&self, index: usize) -> Vec<u8> {
        let status = self.status(index);
        let (offset, len) = (status.data_offset, status.data_size);
        self.disks[index].peek(usize::try_from(offset).expect("small"), usize::try_from(len).expect("small"))
    }

    /// The legs' data areas are the same bytes (I6).
    pub(crate) fn check_equal(&self) {
        let (a, b) = (self.data(0), self.data(1));
        let differs = a.iter().zip(&b).position(|(a, b)| a != b);
        assert!(differs.is_none(), "seed {}: legs differ at {differs:?}: {}", self.seed, self.describe());
    }
}

/// Seeds of random runs: the usual ones, or another first one and another number by `GEMEL_SEED` and `GEMEL_SEEDS`.
pub(crate) fn seeds_to_run(usual: Range<u64>) -> Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = number("GEMEL_SEED").unwrap_or(usual.start);
    first..first + number("GEMEL_SEEDS").unwrap_or(usual.end - usual.start)
}
