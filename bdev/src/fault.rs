//! A device that stacks over any other and makes it misbehave on command: latency, errors, lost and torn writes, silence.
//! The plan is shared with whoever controls it and may change at any time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::core::time::Duration;
use engine::{Core, Instant, Progress};
use uuid::Uuid;

use crate::channel::{Bdev, Channel, Completions, Link, OpenError};
use crate::error::IoError;
use crate::geometry::{Capabilities, Geometry};
use crate::request::{Io, Op, Refused};

/// Which operations a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultTarget {
    /// Reads.
    Read,
    /// Writes and zeroing.
    Write,
    /// Flushes.
    Flush,
    /// Discards.
    Discard,
}

impl FaultTarget {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Flush, Self::Discard];

    fn of(op: &Op) -> Option<Self> {
        match op {
            Op::Read { .. } => Some(Self::Read),
            Op::Write { .. } | Op::WriteZeroes { .. } => Some(Self::Write),
            Op::Flush => Some(Self::Flush),
            Op::Discard { .. } => Some(Self::Discard),
            Op::Fence { .. } => None,
        }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails with a medium error.
    Error,
    /// The operation is not answered until the fault is cleared.
    Silence,
    /// A write is answered as good and not done.
    Lost,
    /// The first half of a write (in whole blocks) is done, and it is answered as good.
    Torn,
}

/// Faults armed on a device; shared with its controller.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    shared: Arc<Mutex<Armed>>,
}

#[derive(Debug, Default)]
struct Armed {
    faults: BTreeMap<FaultTarget, (Fault, u32)>,
    latency: BTreeMap<FaultTarget, Duration>,
}

impl FaultPlan {
    fn armed(&self) -> MutexGuard<'_, Armed> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next `count` operations of the kind go wrong.
    pub fn arm(&self, target: FaultTarget, fault: Fault, count: u32) {
        self.armed().faults.insert(target, (fault, count));
    }

    /// Nothing of the kind goes wrong any more; silent operations are carried out.
    pub fn clear(&self, target: FaultTarget) {
        self.armed().faults.remove(&target);
    }

    /// Operations of the kind take this much longer.
    pub fn set_latency(&self, target: FaultTarget, latency: Duration) {
        self.armed().latency.insert(target, latency);
    }

    fn draw(&self, target: FaultTarget) -> Option<Fault> {
        let mut armed = self.armed();
        let (fault, count) = armed.faults.get_mut(&target)?;
        let drawn = *fault;
        // Silence lasts until it is cleared: the count bounds nothing that an operator could wait for.
        if drawn != Fault::Silence {
            *count = count.saturating_sub(1);
            if *count == 0 {
                armed.faults.remove(&target);
            }
        }
        Some(drawn)
    }

    fn latency(&self, target: FaultTarget) -> Duration {
        self.armed().latency.get(&target).copied().unwrap_or_default()
    }

    fn is_silent(&self, target: FaultTarget) -> bool {
        matches!(self.armed().faults.get(&target), Some((Fault::Silence, _)))
    }
}

/// Control half.
pub struct FaultBdev {
    name: String,
    product: &'static str,
    uuid: Uuid,
    base: Arc<dyn Bdev>,
    plan: FaultPlan,
}

impl FaultBdev {
    /// A device over `base`; `product` names the control method that made it.
    pub fn new(name: impl Into<String>, product: &'static str, uuid: Uuid, base: Arc<dyn Bdev>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), product, uuid, base, plan: FaultPlan::default() })
    }

    /// The faults, to arm and clear.
    pub fn plan(&self) -> &FaultPlan {
        &self.plan
    }

    /// The device below.
    pub fn base(&self) -> &Arc<dyn Bdev> {
        &self.base
    }
}

impl Bdev for FaultBdev {
    fn name(&self) -> &str {
        &self.name
    }

    fn product(&self) -> &'static str {
        self.product
    }

    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn geometry(&self) -> Geometry {
        self.base.geometry()
    }

    fn capabilities(&self) -> Capabilities {
        self.base.capabilities()
    }

    fn open(self: Arc<Self>, core: &Core) -> Result<Box<dyn Channel>, OpenError> {
        let base = self.base.clone().open(core)?;
        Ok(Box::new(FaultChannel {
            block_size: self.geometry().block_size as usize,
            plan: self.plan.clone(),
            base,
            held: BTreeMap::new(),
            silent: Vec::new(),
            torn: BTreeMap::new(),
            done: Completions::new(),
            sequence: 0,
        }))
    }
}

/// Data half.
struct FaultChannel {
    block_size: usize,
    plan: FaultPlan,
    base: Box<dyn Channel>,
    held: BTreeMap<(Instant, u64), Io>,
    silent: Vec<(FaultTarget, Io)>,
    /// Original writes of which only a half is below, by tag.
    torn: BTreeMap<u64, Op>,
    done: Completions,
    sequence: u64,
}

impl FaultChannel {
    fn pass(&mut self, io: Io, now: Instant) {
        if let Err(refused) = self.base.submit(io, now) {
            if refused.why == IoError::Busy {
                self.hold(refused.io, now);
            } else {
                self.done.push_back(refused.io.complete(Err(refused.why), now));
            }
        }
    }

    fn hold(&mut self, io: Io, due: Instant) {
        self.sequence += 1;
        self.held.insert((due, self.sequence), io);
    }

    fn strike(&mut self, fault: Fault, target: FaultTarget, io: Io, now: Instant) {
        match fault {
            Fault::Error => {
                let lba = io.op().range().map_or(0, |range| range.lba);
                self.done.push_back(io.complete(Err(IoError::Medium { lba }), now));
            }
            Fault::Silence => self.silent.push((target, io)),
            Fault::Lost => self.done.push_back(io.complete(Ok(()), now)),
            Fault::Torn => self.tear(io, now),
        }
    }

    fn tear(&mut self, io: Io, now: Instant) {
        let (shell, op) = io.detach();
        let half = match &op {
            Op::Write { range, from, durability } if range.blocks > 1 => {
                let blocks = range.blocks / 2;
                let from = from.slice(0..blocks as usize * self.block_size);
                let range = crate::geometry::BlockRange::new(range.lba, blocks);
                Some(Op::Write { range, from, durability: *durability })
            }
            _ => None,
        };
        match half {
            Some(half) => {
                self.torn.insert(shell.tag.0, op);
                self.pass(shell.attach(half), now);
            }
            None => self.done.push_back(shell.complete(op, Ok(()), now)),
        }
    }

    fn release_silent(&mut self, now: Instant) {
        let released: Vec<_> =
            self.silent.extract_if(.., |(target, _)| !self.plan.is_silent(*target)).collect();
        for (_, io) in released {
            self.pass(io, now);
        }
    }
}

impl Channel for FaultChannel {
    fn submit(&mut self, io: Io, now: Instant) -> Result<(), Refused> {
        let Some(target) = FaultTarget::of(io.op()) else { return self.base.submit(io, now) };
        if let Some(fault) = self.plan.draw(target) {
            self.strike(fault, target, io, now);
            return Ok(());
        }
        let latency = self.plan.latency(target);
        if latency.is_zero() {
            return self.base.submit(io, now);
        }
        self.hold(io, now + latency);
        Ok(())
    }

    fn poll(&mut self, now: Instant, done: &mut Completions) -> Progress {
        self.release_silent(now);
        while let Some(entry) = self.held.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let io = entry.remove();
            let before = self.held.len();
            self.pass(io, now);
            if self.held.len() > before {
                break;
            }
        }
        let mut below = Completions::new();
        let mut progress = self.base.poll(now, &mut below);
        for mut completed in below {
            if let Some(whole) = self.torn.remove(&completed.tag.0) {
                completed.op = whole;
            }
            done.push_back(completed);
        }
        progress |= Progress::from_count(self.done.len());
        done.append(&mut self.done);
        progress
    }

    fn next_deadline(&self) -> Option<Instant> {
        let held = self.held.first_key_value().map(|((due, _), _)| *due);
        Instant::earliest(held, self.base.next_deadline())
    }

    fn link(&self, now: Instant) -> Link {
        self.base.link(now)
    }
}

impl Drop for FaultChannel {
    fn drop(&mut self) {
        let held = std::mem::take(&mut self.held).into_values();
        for io in held.chain(self.silent.drain(..).map(|(_, io)| io)) {
            drop(io.complete(Err(IoError::Aborted), Instant::EPOCH));
        }
    }
}
