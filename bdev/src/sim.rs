//! A simulated disk: deterministic from its seed, with a volatile cache that a crash may lose, keep or tear.
//!
//! Fault model: completed but unflushed writes survive a crash sector by sector (512 bytes) at random; durable writes and
//! flushed ones always survive; reads and writes can be made to fail, writes to be lost. Time comes from the caller.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::core::time::Duration;
use engine::{Core, Instant, Prng, Progress};
use uuid::Uuid;

use crate::channel::{Bdev, Channel, Completions, Link, OpenError};
use crate::error::IoError;
use crate::geometry::{BlockRange, Capabilities, Geometry};
use crate::request::{Durability, Io, Op, Refused};

const SECTOR: usize = 512;

/// How a simulated disk behaves.
#[derive(Clone, Copy, Debug)]
pub struct SimConfig {
    /// Decides latencies and what survives a crash.
    pub seed: u64,
    /// The shortest latency.
    pub latency_min: Duration,
    /// The longest latency.
    pub latency_max: Duration,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self { seed: 0, latency_min: Duration::from_micros(10), latency_max: Duration::from_micros(200) }
    }
}

/// What to do to the next operations of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimFault {
    /// Reads that touch the block fail with a medium error until it is written.
    BadBlock {
        /// The block.
        lba: u64,
    },
    /// The next writes fail with a medium error.
    FailWrites {
        /// How many.
        count: u32,
    },
    /// The next writes complete and store nothing.
    LoseWrites {
        /// How many.
        count: u32,
    },
}

#[derive(Debug)]
struct State {
    /// What reads see.
    visible: Vec<u8>,
    /// Sectors whose visible content is not stable yet, with the content that is.
    unstable: BTreeMap<usize, [u8; SECTOR]>,
    bad_blocks: Vec<u64>,
    fail_writes: u32,
    lose_writes: u32,
    prng: Prng,
    epoch: u64,
    writes: u64,
}

/// Control half. Clones of the `Arc` see the same medium, so that a crashed node's successor opens what is left.
#[derive(Debug)]
pub struct SimBdev {
    name: String,
    uuid: Uuid,
    geometry: Geometry,
    config: SimConfig,
    state: Mutex<State>,
}

impl SimBdev {
    /// A zeroed disk.
    ///
    /// # Panics
    /// When the size does not fit in memory.
    pub fn new(name: impl Into<String>, uuid: Uuid, geometry: Geometry, config: SimConfig) -> Arc<Self> {
        let bytes = usize::try_from(geometry.bytes()).expect("a simulated disk fits in memory");
        let state = State {
            visible: vec![0; bytes],
            unstable: BTreeMap::new(),
            bad_blocks: Vec::new(),
            fail_writes: 0,
            lose_writes: 0,
            prng: Prng::from_seed(config.seed),
            epoch: 0,
            writes: 0,
        };
        Arc::new(Self { name: name.into(), uuid, geometry, config, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node loses power: unstable sectors survive or not, one by one. Channels opened before are dead: their I/Os
    /// complete as aborted and do nothing.
    pub fn crash(&self) {
        let mut state = self.state();
        state.epoch += 1;
        for (sector, stable) in std::mem::take(&mut state.unstable) {
            if state.prng.percent(50) {
                let at = sector * SECTOR;
                state.visible[at..at + SECTOR].copy_from_slice(&stable);
            }
        }
    }

    /// The process dies, the machine lives: the cache survives. Channels opened before are dead.
    pub fn kill(&self) {
        self.state().epoch += 1;
    }

    /// Arms a fault.
    pub fn inject(&self, fault: SimFault) {
        let mut state = self.state();
        match fault {
            SimFault::BadBlock { lba } => state.bad_blocks.push(lba),
            SimFault::FailWrites { count } => state.fail_writes += count,
            SimFault::LoseWrites { count } => state.lose_writes += count,
        }
    }

    /// What reads of `bytes` at `offset` see.
    pub fn peek(&self, offset: usize, bytes: usize) -> Vec<u8> {
        self.state().visible[offset..offset + bytes].to_vec()
    }

    /// Overwrites the medium behind everybody's back.
    pub fn poke(&self, offset: usize, bytes: &[u8]) {
        self.state().visible[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Writes completed so far.
    pub fn writes(&self) -> u64 {
        self.state().writes
    }
}

impl State {
    fn execute(&mut self, op: &mut Op, block_size: usize) -> Result<(), IoError> {
        match op {
            Op::Read { range, into } => {
                self.check_readable(*range)?;
                let at = start(*range, block_size);
                into.copy_from_slice(&self.visible[at..at + range.blocks as usize * block_size]);
                Ok(())
            }
            Op::Write { range, from, durability } => self.store(*range, from, *durability, block_size),
            Op::WriteZeroes { range, durability } => {
                let zeroes = vec![0; range.blocks as usize * block_size];
                self.store(*range, &zeroes, *durability, block_size)
            }
            Op::Discard { range } => {
                let zeroes = vec![0; range.blocks as usize * block_size];
                self.store(*range, &zeroes, Durability::Accepted, block_size)
            }
            Op::Flush => {
                self.unstable.clear();
                Ok(())
            }
            Op::Fence { .. } => Err(IoError::Unsupported),
        }
    }

    fn check_readable(&self, range: BlockRange) -> Result<(), IoError> {
        let bad = self.bad_blocks.iter().find(|lba| range.overlaps(&BlockRange::new(**lba, 1)));
        bad.map_or(Ok(()), |lba| Err(IoError::Medium { lba: *lba }))
    }

    fn store(
        &mut self,
        range: BlockRange,
        from: &[u8],
        durability: Durability,
        block_size: usize,
    ) -> Result<(), IoError> {
        if self.fail_writes > 0 {
            self.fail_writes -= 1;
            return Err(IoError::Medium { lba: range.lba });
        }
        self.writes += 1;
        if self.lose_writes > 0 {
            self.lose_writes -= 1;
            return Ok(());
        }
        self.bad_blocks.retain(|lba| !range.overlaps(&BlockRange::new(*lba, 1)));
        let first = start(range, block_size);
        for (index, bytes) in from.chunks(SECTOR).enumerate() {
            let at = first + index * SECTOR;
            let old: [u8; SECTOR] = self.visible[at..at + SECTOR].try_into().expect("whole sectors");
            match durability {
                Durability::Durable => {
                    self.unstable.remove(&(at / SECTOR));
                }
                Durability::Accepted => {
                    self.unstable.entry(at / SECTOR).or_insert(old);
                }
            }
            self.visible[at..at + SECTOR].copy_from_slice(bytes);
        }
        Ok(())
    }
}

fn start(range: BlockRange, block_size: usize) -> usize {
    usize::try_from(range.lba).expect("checked against the geometry") * block_size
}

impl Bdev for SimBdev {
    fn name(&self) -> &str {
        &self.name
    }

    fn product(&self) -> &'static str {
        "Simulated disk"
    }

    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::FLUSH
            | Capabilities::FUA
            | Capabilities::DISCARD
            | Capabilities::WRITE_ZEROES
            | Capabilities::DISCARD_ZEROES
            | Capabilities::VOLATILE_CACHE
    }

    fn open(self: Arc<Self>, _core: &Core) -> Result<Box<dyn Channel>, OpenError> {
        let epoch = self.state().epoch;
        Ok(Box::new(SimChannel { bdev: self, epoch, pending: BTreeMap::new(), sequence: 0 }))
    }
}

/// Data half: I/Os wait for their due time, then happen at once. So writes in flight at a crash happened wholly or not at
/// all in the cache, and the crash tears the cache.
struct SimChannel {
    bdev: Arc<SimBdev>,
    epoch: u64,
    pending: BTreeMap<(Instant, u64), Io>,
    sequence: u64,
}

impl Channel for SimChannel {
    fn submit(&mut self, mut io: Io, now: Instant) -> Result<(), Refused> {
        if self.pending.len() >= 256 {
            return Err(io.refuse(IoError::Busy));
        }
        io.stamps.submitted = now;
        let config = self.bdev.config;
        let spread = u64::try_from((config.latency_max - config.latency_min).as_nanos()).unwrap_or(u64::MAX);
        let extra = self.bdev.state().prng.below(spread.max(1));
        self.sequence += 1;
        let due = now + config.latency_min + Duration::from_nanos(extra);
        self.pending.insert((due, self.sequence), io);
        Ok(())
    }

    fn poll(&mut self, now: Instant, done: &mut Completions) -> Progress {
        let mut count = 0;
        while let Some(entry) = self.pending.first_entry() {
            let dead = self.bdev.state().epoch != self.epoch;
            if entry.key().0 > now && !dead {
                break;
            }
            let mut io = entry.remove();
            let inside = io.op().range().is_none_or(|range| self.bdev.geometry.contains(range));
            let result = match (dead, inside) {
                (true, _) => Err(IoError::Aborted),
                (_, false) => Err(IoError::OutOfRange),
                _ => self.bdev.state().execute(io.op_mut(), self.bdev.geometry.block_size as usize),
            };
            done.push_back(io.complete(result, now));
            count += 1;
        }
        Progress::from_count(count)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.pending.first_key_value().map(|((due, _), _)| *due)
    }

    fn link(&self, now: Instant) -> Link {
        Link::local(self.bdev.geometry, now)
    }
}

impl Drop for SimChannel {
    fn drop(&mut self) {
        // A node that died takes its I/Os with it; nobody is left to be told.
        for (_, io) in std::mem::take(&mut self.pending) {
            drop(io.complete(Err(IoError::Aborted), Instant::EPOCH));
        }
    }
}
