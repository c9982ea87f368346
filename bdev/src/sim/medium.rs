//! The simulated medium: what reads see, what is stable, what a crash leaves.

use core::time::Duration;
use std::collections::BTreeMap;

use engine::{Buf, Prng};

use super::{SimFault, Survival};
use crate::error::IoError;
use crate::geometry::{BlockRange, Geometry};
use crate::request::{Durability, Op};

/// What the medium writes whole or not at all, in bytes.
pub(super) const SECTOR: usize = 512;

type Sector = [u8; SECTOR];

/// A write that a channel holds and the medium has not done. A crash may do any part of it.
#[derive(Debug)]
pub(super) struct Pending {
    range: BlockRange,
    /// `None` writes zeroes.
    from: Option<Buf>,
}

impl Pending {
    pub(super) fn of(op: &Op) -> Option<Self> {
        match op {
            Op::Write { range, from, .. } => Some(Self { range: *range, from: Some(from.clone()) }),
            Op::WriteZeroes { range, .. } | Op::Discard { range } => Some(Self { range: *range, from: None }),
            Op::Read { .. }
            | Op::Flush
            | Op::Fence { .. }
            | Op::StoreState { .. }
            | Op::LoadState { .. }
            | Op::HandOver
            | Op::BlockStatus { .. }
            | Op::CryptoErase
            | Op::CompareAndWrite { .. } => None,
        }
    }
}

/// How many of the next operations of each kind go wrong.
#[derive(Debug, Default)]
struct Armed {
    fail_reads: u32,
    fail_writes: u32,
    busy_writes: u32,
    fail_writes_in: Vec<BlockRange>,
    fail_flushes: u32,
    lose_flushes: u32,
    lose_writes: u32,
    tear_writes: u32,
    misdirect_writes: u32,
    delay_writes: u32,
    /// How much longer these take.
    delay: Duration,
}

/// Whether it does what it has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    /// It does.
    Working,
    /// It neither does it nor fails it.
    Hung,
}

/// True when one is left, and takes it.
fn draw(count: &mut u32) -> bool {
    let any = *count > 0;
    *count = count.saturating_sub(1);
    any
}

#[derive(Debug)]
pub(super) struct Medium {
    geometry: Geometry,
    /// What reads see.
    visible: Vec<u8>,
    /// Sectors whose visible content is not stable yet, with the content that is.
    unstable: BTreeMap<usize, Sector>,
    /// Writes in flight, by their channels' numbers for them.
    pending: BTreeMap<u64, Pending>,
    bad_blocks: Vec<u64>,
    armed: Armed,
    pub(super) prng: Prng,
    /// Rises with each crash: channels of an earlier epoch are dead.
    pub(super) epoch: u64,
    pub(super) writes: u64,
    /// Added to each latency.
    pub(super) extra: Duration,
    pub(super) pulse: Pulse,
    next_number: u64,
}

impl Medium {
    pub(super) fn new(geometry: Geometry, seed: u64) -> Self {
        let bytes = usize::try_from(geometry.bytes()).expect("a simulated disk fits in memory");
        Self {
            geometry,
            visible: vec![0; bytes],
            unstable: BTreeMap::new(),
            pending: BTreeMap::new(),
            bad_blocks: Vec::new(),
            armed: Armed::default(),
            prng: Prng::from_seed(seed),
            epoch: 0,
            writes: 0,
            extra: Duration::ZERO,
            pulse: Pulse::Working,
            next_number: 0,
        }
    }

    pub(super) fn inject(&mut self, fault: SimFault) {
        match fault {
            SimFault::BadBlock { lba } => self.bad_blocks.push(lba),
            SimFault::FailReads { count } => self.armed.fail_reads += count,
            SimFault::FailWrites { count } => self.armed.fail_writes += count,
            SimFault::BusyWrites { count } => self.armed.busy_writes += count,
            SimFault::FailWritesIn { range } => self.armed.fail_writes_in.push(range),
            SimFault::FailFlushes { count } => self.armed.fail_flushes += count,
            SimFault::LoseFlushes { count } => self.armed.lose_flushes += count,
            SimFault::LoseWrites { count } => self.armed.lose_writes += count,
            SimFault::TearWrites { count } => self.armed.tear_writes += count,
            SimFault::MisdirectWrites { count } => self.armed.misdirect_writes += count,
            SimFault::DelayWrites { count, extra } => {
                self.armed.delay_writes += count;
                self.armed.delay = extra;
            }
        }
    }

    pub(super) fn heal(&mut self) {
        self.bad_blocks.clear();
        self.armed = Armed::default();
        self.extra = Duration::ZERO;
        self.pulse = Pulse::Working;
    }

    pub(super) fn has_bad_blocks(&self) -> bool {
        !self.bad_blocks.is_empty()
    }

    pub(super) fn in_flight(&self) -> Vec<BlockRange> {
        self.pending.values().map(|pending| pending.range).collect()
    }

    pub(super) fn unstable(&self) -> Vec<(usize, Sector)> {
        self.unstable.iter().map(|(sector, stable)| (*sector, *stable)).collect()
    }

    pub(super) fn restore(&mut self, image: &[u8]) {
        self.visible.copy_from_slice(image);
        self.unstable.clear();
        self.pending.clear();
    }

    /// What an operation takes beyond the shortest latency; `spread` is the most that chance adds.
    pub(super) fn delay(&mut self, op: &Op, spread: u64) -> Duration {
        let chance = self.extra + Duration::from_nanos(self.prng.below(spread.max(1)));
        if matches!(op, Op::Write { .. }) && draw(&mut self.armed.delay_writes) {
            return chance + self.armed.delay;
        }
        chance
    }

    /// A number for an I/O in flight; a living channel's write is remembered under it.
    pub(super) fn begin(&mut self, op: &Op, epoch: u64) -> u64 {
        self.next_number += 1;
        if let (Some(pending), true) = (Pending::of(op), epoch == self.epoch) {
            self.pending.insert(self.next_number, pending);
        }
        self.next_number
    }

    /// The I/O is done or given up.
    pub(super) fn end(&mut self, number: u64) {
        self.pending.remove(&number);
    }

    /// Power fails.
    pub(super) fn crash(&mut self, survival: Survival) {
        self.epoch += 1;
        for pending in self.take_pending() {
            let mut prng = self.prng.clone();
            self.store_sectors(pending.range, pending.from.as_deref(), Durability::Accepted, || {
                survives(survival, &mut prng)
            });
            self.prng = prng;
        }
        for (sector, stable) in std::mem::take(&mut self.unstable) {
            if !survives(survival, &mut self.prng) {
                let at = sector * SECTOR;
                self.visible[at..at + SECTOR].copy_from_slice(&stable);
            }
        }
    }

    /// Nothing of what is not stable is left.
    fn lose_cache(&mut self) {
        for (sector, stable) in std::mem::take(&mut self.unstable) {
            self.visible[sector * SECTOR..(sector + 1) * SECTOR].copy_from_slice(&stable);
        }
    }

    /// The process dies, the machine lives. Of the writes in flight, some had reached the kernel: they happen.
    pub(super) fn kill(&mut self) {
        self.epoch += 1;
        for pending in self.take_pending() {
            if self.prng.percent(50) {
                self.store(pending.range, pending.from.as_deref(), Durability::Accepted);
            }
        }
    }

    fn take_pending(&mut self) -> Vec<Pending> {
        let geometry = self.geometry;
        let pending = std::mem::take(&mut self.pending).into_values();
        pending.filter(|pending| geometry.contains(pending.range)).collect()
    }

    pub(super) fn peek(&self, offset: usize, bytes: usize) -> &[u8] {
        &self.visible[offset..offset + bytes]
    }

    pub(super) fn poke(&mut self, offset: usize, bytes: &[u8]) {
        self.visible[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// What would be read after a crash that loses everything it may.
    pub(super) fn stable_image(&self) -> Vec<u8> {
        let mut image = self.visible.clone();
        for (sector, stable) in &self.unstable {
            image[sector * SECTOR..(sector + 1) * SECTOR].copy_from_slice(stable);
        }
        image
    }

    /// Carries an operation out. Its range was checked.
    pub(super) fn execute(&mut self, op: &mut Op) -> Result<(), IoError> {
        match op {
            Op::Read { range, into } => self.read(*range, into),
            Op::Write { range, from, durability } => self.write(*range, Some(from), *durability),
            Op::WriteZeroes { range, durability } => self.write(*range, None, *durability),
            Op::Discard { range } => self.write(*range, None, Durability::Accepted),
            Op::Flush if draw(&mut self.armed.fail_flushes) => Err(IoError::Medium { lba: 0 }),
            Op::Flush if draw(&mut self.armed.lose_flushes) => {
                self.lose_cache();
                Err(IoError::Medium { lba: 0 })
            }
            Op::Flush => {
                self.unstable.clear();
                Ok(())
            }
            Op::Fence { .. }
            | Op::StoreState { .. }
            | Op::LoadState { .. }
            | Op::HandOver
            | Op::BlockStatus { .. }
            | Op::CryptoErase
            | Op::CompareAndWrite { .. } => Err(IoError::Unsupported),
        }
    }

    fn read(&mut self, range: BlockRange, into: &mut [u8]) -> Result<(), IoError> {
        if range.blocks == 0 {
            return Ok(());
        }
        if draw(&mut self.armed.fail_reads) {
            return Err(IoError::Medium { lba: range.lba });
        }
        if let Some(lba) = self.bad_blocks.iter().find(|lba| range.overlaps(&BlockRange::new(**lba, 1))) {
            return Err(IoError::Medium { lba: *lba });
        }
        let at = self.start(range);
        into.copy_from_slice(&self.visible[at..at + into.len()]);
        Ok(())
    }

    fn write(
        &mut self,
        range: BlockRange,
        from: Option<&[u8]>,
        durability: Durability,
    ) -> Result<(), IoError> {
        if range.blocks == 0 {
            return Ok(());
        }
        if draw(&mut self.armed.busy_writes) {
            return Err(IoError::Busy);
        }
        let is_bad = self.armed.fail_writes_in.iter().any(|bad| bad.overlaps(&range));
        if is_bad || draw(&mut self.armed.fail_writes) {
            return Err(IoError::Medium { lba: range.lba });
        }
        self.writes += 1;
        if draw(&mut self.armed.lose_writes) {
            return Ok(());
        }
        if draw(&mut self.armed.tear_writes) {
            let half = BlockRange::new(range.lba, range.blocks / 2);
            self.store(half, from, durability);
            return Ok(());
        }
        if draw(&mut self.armed.misdirect_writes) {
            let elsewhere = self.prng.below(self.geometry.blocks - u64::from(range.blocks) + 1);
            self.store(BlockRange::new(elsewhere, range.blocks), from, durability);
            return Ok(());
        }
        self.bad_blocks.retain(|lba| !range.overlaps(&BlockRange::new(*lba, 1)));
        self.store(range, from, durability);
        Ok(())
    }

    fn start(&self, range: BlockRange) -> usize {
        let lba = usize::try_from(range.lba).expect("checked against the geometry");
        lba * self.geometry.block_size as usize
    }

    /// Puts as many of the bytes (zeroes where there are none) into place as the range has.
    fn store(&mut self, range: BlockRange, from: Option<&[u8]>, durability: Durability) {
        self.store_sectors(range, from, durability, || true);
    }

    /// As [`Medium::store`], for the sectors that `keep` picks.
    fn store_sectors(
        &mut self,
        range: BlockRange,
        from: Option<&[u8]>,
        durability: Durability,
        mut keep: impl FnMut() -> bool,
    ) {
        let first = self.start(range);
        let len = range.blocks as usize * self.geometry.block_size as usize;
        for at in (first..first + len).step_by(SECTOR).filter(|_| keep()) {
            let target = &mut self.visible[at..at + SECTOR];
            let old: Sector = (&*target).try_into().expect("whole sectors");
            match from {
                Some(from) => target.copy_from_slice(&from[at - first..at - first + SECTOR]),
                None => target.fill(0),
            }
            match durability {
                Durability::Durable => {
                    self.unstable.remove(&(at / SECTOR));
                }
                Durability::Accepted => {
                    self.unstable.entry(at / SECTOR).or_insert(old);
                }
            }
        }
    }
}

fn survives(survival: Survival, prng: &mut Prng) -> bool {
    match survival {
        Survival::All => true,
        Survival::None => false,
        Survival::Random => prng.percent(50),
    }
}
