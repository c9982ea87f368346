//! A closed loop: a fixed number of commands at work, over the first of several paths that serves.
//!
//! Writes are stamped and entered in a [`Ledger`]; no block has two commands under way. A command that fails is counted, and
//! the load goes on, on another path where there is one: what a failed write left behind is unknown, and the ledger allows for
//! it. At the end every block that was written is read and judged.

use std::collections::BTreeSet;

use bdev::{BlockRange, Channel, Completed, Completions, Durability, Io, IoError, Op, Tag};
use core::time::Duration;
use engine::{Clock, Core, Instant, LatencyHistogram, LatencySummary, MonotonicClock, Prng};
use thiserror::Error;

use crate::ledger::{Ledger, Mismatch};
use crate::stamp::{BLOCK_LEN, Stamp};

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct LoadConfig {
    /// Commands at work.
    pub depth: u32,
    /// 4 KiB blocks to use, from the LUN's start.
    pub blocks: u32,
    /// How long.
    pub duration: Duration,
    /// Reads in a hundred commands.
    pub mix: Mix,
    /// Decides addresses.
    pub seed: u64,
    /// How long nothing may be served before the load gives up.
    pub patience: Duration,
    /// How long a command may take before its path is given up for another one; as long as the path allows where there is none.
    pub command: Option<Duration>,
}

/// Reads in a hundred commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix(pub u8);

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// How long it ran.
    pub elapsed: Duration,
    /// Reads that succeeded.
    pub reads: u64,
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Commands that failed.
    pub errors: u64,
    /// The longest time without any success.
    pub longest_stall: Duration,
    /// Latencies of the successes.
    pub latency: LatencySummary,
    /// Blocks that were read and judged at the end.
    pub verified: u64,
    /// Blocks that held what they must not.
    pub mismatches: Vec<Mismatch>,
}

/// Why a load could not be carried out.
#[derive(Debug, Error)]
pub enum LoadError {
    /// No path served for too long.
    #[error("no path has served for {0:?}: {1}")]
    NobodyServes(Duration, String),
    /// The reactor's ring failed.
    #[error("io_uring failed: {0}")]
    Ring(#[from] std::io::Error),
    /// The LUN is smaller than the blocks to use, or has other blocks than the load can use.
    #[error(
        "the LUN has {0} bytes in blocks of {1}: fewer than the load wants, or blocks that do not divide 4096"
    )]
    TooSmall(u64, u32),
}

struct InFlight {
    address: u64,
    path: usize,
    stamp: Option<Stamp>,
}

/// See the module.
pub struct Load {
    core: Core,
    clock: MonotonicClock,
    config: LoadConfig,
    paths: Vec<Box<dyn Channel>>,
    active: usize,
    block_size: u32,
    ledger: Ledger,
    prng: Prng,
    busy: BTreeSet<u64>,
    in_flight: Vec<Option<InFlight>>,
    latency: LatencyHistogram,
    report: Report,
    last_success: Instant,
    last_error: String,
    /// After an error, nothing is sent before then: a path that refuses is not asked in a tight loop.
    not_before: Instant,
}

/// How long the load waits after an error.
const PAUSE: Duration = Duration::from_millis(2);

impl Load {
    /// A load over channels to the same LUN, on a core with a ring.
    pub fn new(core: Core, clock: MonotonicClock, paths: Vec<Box<dyn Channel>>, config: LoadConfig) -> Self {
        let now = clock.now();
        let report = Report {
            elapsed: Duration::ZERO,
            reads: 0,
            writes: 0,
            errors: 0,
            longest_stall: Duration::ZERO,
            latency: LatencySummary::default(),
            verified: 0,
            mismatches: Vec::new(),
        };
        Self {
            core,
            clock,
            paths,
            active: 0,
            block_size: 512,
            ledger: Ledger::new(config.seed, config.blocks as usize),
            prng: Prng::from_seed(config.seed),
            busy: BTreeSet::new(),
            in_flight: (0..config.depth).map(|_| None).collect(),
            latency: LatencyHistogram::new(),
            report,
            last_success: now,
            last_error: "never connected".to_owned(),
            not_before: Instant::EPOCH,
            config,
        }
    }

    /// Runs the load, then verifies.
    ///
    /// # Errors
    /// See [`LoadError`]; mismatches are no error but part of the report.
    pub fn run(mut self) -> Result<Report, LoadError> {
        self.connect()?;
        let start = self.clock.now();
        self.last_success = start;
        while self.clock.now() - start < self.config.duration {
            self.fill();
            self.turn()?;
        }
        self.drain()?;
        self.report.elapsed = self.clock.now() - start;
        self.report.latency = self.latency.summary();
        self.verify()?;
        Ok(self.report)
    }

    fn connect(&mut self) -> Result<(), LoadError> {
        loop {
            let now = self.clock.now();
            if let Some((index, geometry)) = self.serving_path(now) {
                self.active = index;
                self.block_size = geometry.block_size;
                let wanted = u64::from(self.config.blocks) * BLOCK_LEN as u64;
                let fits =
                    geometry.bytes() >= wanted && (BLOCK_LEN as u32).is_multiple_of(geometry.block_size);
                return if fits {
                    Ok(())
                } else {
                    Err(LoadError::TooSmall(geometry.bytes(), geometry.block_size))
                };
            }
            self.turn()?;
        }
    }

    fn serving_path(&self, now: Instant) -> Option<(usize, bdev::Geometry)> {
        let count = self.paths.len();
        (0..count).map(|step| (self.active + step) % count).find_map(|index| {
            match self.paths[index].link(now) {
                bdev::Link::Up { geometry, .. } => Some((index, geometry)),
                bdev::Link::Down(_) => None,
            }
        })
    }

    fn turn(&mut self) -> Result<(), LoadError> {
        self.core.ring().expect("a load's core has a ring").turn()?;
        let now = self.clock.now();
        let mut done = Completions::new();
        let mut busy = false;
        for path in &mut self.paths {
            busy |= path.poll(now, &mut done).is_busy();
        }
        self.core.ring().expect("a load's core has a ring").turn()?;
        for completed in done {
            self.on_completed(completed, now);
        }
        let silence = now - self.last_success;
        if silence > self.config.patience {
            return Err(LoadError::NobodyServes(silence, self.last_error.clone()));
        }
        if !busy {
            std::thread::yield_now();
        }
        Ok(())
    }

    fn fill(&mut self) {
        if self.clock.now() < self.not_before {
            return;
        }
        for slot in 0..self.in_flight.len() {
            if self.in_flight[slot].is_some() {
                continue;
            }
            let address = self.prng.below(u64::from(self.config.blocks));
            if self.busy.contains(&address) {
                continue;
            }
            let reads = self.prng.percent(u64::from(self.config.mix.0));
            if !self.submit(slot, address, reads) {
                return;
            }
        }
    }

    /// False when nothing more can be started now.
    fn submit(&mut self, slot: usize, address: u64, reads: bool) -> bool {
        let Some(mut frame) = self.core.pool().alloc(BLOCK_LEN) else { return false };
        let blocks = BLOCK_LEN as u32 / self.block_size;
        let range = BlockRange::new(address * u64::from(blocks), blocks);
        let (op, stamp) = if reads {
            (Op::Read { range, into: frame }, None)
        } else {
            let stamp = self.ledger.issue(address);
            stamp.write(&mut frame);
            (Op::Write { range, from: frame.freeze(), durability: Durability::Durable }, Some(stamp))
        };
        let now = self.clock.now();
        let io = Io::new(op, Tag(slot as u64), now);
        let io = match self.config.command {
            Some(most) => io.with_deadline(now + most),
            None => io,
        };
        match self.paths[self.active].submit(io, now) {
            Ok(()) => {
                self.busy.insert(address);
                self.in_flight[slot] = Some(InFlight { address, path: self.active, stamp });
                true
            }
            Err(refused) => {
                let why = refused.why;
                drop(refused.io.complete(Err(why), now));
                false
            }
        }
    }

    fn on_completed(&mut self, completed: Completed, now: Instant) {
        let slot = usize::try_from(completed.tag.0).expect("a slot");
        let Some(flight) = self.in_flight[slot].take() else { return };
        self.busy.remove(&flight.address);
        if let Err(error) = completed.result {
            return self.on_error(error, flight.path, now);
        }
        self.report.longest_stall = self.report.longest_stall.max(now - self.last_success);
        self.last_success = now;
        self.latency.record(now - completed.stamps.queued);
        match (flight.stamp, completed.op) {
            (Some(stamp), _) => {
                self.report.writes += 1;
                self.ledger.acknowledge(stamp);
            }
            (None, Op::Read { into, .. }) => {
                self.report.reads += 1;
                self.judge(flight.address, &into);
            }
            _ => {}
        }
    }

    fn on_error(&mut self, error: IoError, path: usize, now: Instant) {
        self.report.errors += 1;
        self.not_before = now + PAUSE;
        self.last_error = match self.paths[path].link(now) {
            bdev::Link::Down(why) => format!("{error} ({why:?})"),
            bdev::Link::Up { .. } => error.to_string(),
        };
        // What was under way on a path that was given up already says nothing about the one that is used now.
        if path != self.active {
            return;
        }
        // Another path may do better; the same one is tried again in its turn.
        self.active = (self.active + 1) % self.paths.len();
        if let Some((index, _)) = self.serving_path(now) {
            self.active = index;
        }
    }

    fn judge(&mut self, address: u64, block: &[u8]) {
        if let Err(mismatch) = self.ledger.check(address, block) {
            self.report.mismatches.push(mismatch);
        }
    }

    fn drain(&mut self) -> Result<(), LoadError> {
        while self.in_flight.iter().any(Option::is_some) {
            self.turn()?;
        }
        // One that ends while nothing is served has stalled as well.
        self.report.longest_stall = self.report.longest_stall.max(self.clock.now() - self.last_success);
        Ok(())
    }

    /// Reads every block that was written.
    fn verify(&mut self) -> Result<(), LoadError> {
        let written: Vec<u64> = self.ledger.written().collect();
        self.last_success = self.clock.now();
        for address in written {
            let reads_before = self.report.reads;
            while self.report.reads == reads_before {
                if self.in_flight[0].is_none() {
                    self.submit(0, address, true);
                }
                self.turn()?;
            }
            self.report.reads = reads_before;
            self.report.verified += 1;
        }
        Ok(())
    }
}
