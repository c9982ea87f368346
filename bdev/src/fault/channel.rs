//! The data half: delays, strikes, passes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::{Buf, Instant, Key, Pool, Progress, Slots};

use super::plan::{Fault, FaultPlan, FaultTarget};
use crate::channel::{Bdev, Channel, Completions, Link};
use crate::error::IoError;
use crate::geometry::BlockRange;
use crate::request::{Completed, Io, Op, Refused, Tag};

/// I/Os on one channel at the most.
const QUEUE_DEPTH: u32 = 1024;

/// An I/O that the device below has, under a tag of ours.
struct Below {
    tag: Tag,
    /// What its owner gave, where the device below got something else.
    original: Option<Op>,
    /// What becomes of a read's data.
    corrupt: Option<(u32, u8)>,
}

pub(super) struct FaultChannel {
    device: Arc<dyn Bdev>,
    pool: Pool,
    plan: FaultPlan,
    base: Box<dyn Channel>,
    below: Slots<Below>,
    /// Not passed on yet, by the time when they will be.
    held: BTreeMap<(Instant, u64), (Below, Io)>,
    silent: Vec<(FaultTarget, Io)>,
    done: Completions,
    sequence: u64,
}

impl FaultChannel {
    pub(super) fn new(device: Arc<dyn Bdev>, pool: Pool, plan: FaultPlan, base: Box<dyn Channel>) -> Self {
        Self {
            device,
            pool,
            plan,
            base,
            below: Slots::with_capacity(QUEUE_DEPTH),
            held: BTreeMap::new(),
            silent: Vec::new(),
            done: Completions::new(),
            sequence: 0,
        }
    }

    fn is_full(&self) -> bool {
        self.below.len() + self.held.len() + self.silent.len() >= self.below.capacity()
    }

    /// Hands an I/O to the device below.
    fn pass(&mut self, below: Below, mut io: Io, now: Instant) {
        let Ok(key) = self.below.insert(below) else { unreachable!("room was checked at submit") };
        io.tag = Tag(key.to_bits());
        let Err(Refused { io, why }) = self.base.submit(io, now) else { return };
        let below = self.below.remove(key).expect("just inserted");
        match why {
            IoError::Busy => self.hold(below, io, now),
            why => self.answer(below, io.complete(Err(why), now)),
        }
    }

    fn pass_whole(&mut self, io: Io, now: Instant) {
        self.pass(Below { tag: io.tag, original: None, corrupt: None }, io, now);
    }

    fn hold(&mut self, below: Below, io: Io, due: Instant) {
        self.sequence += 1;
        self.held.insert((due, self.sequence), (below, io));
    }

    fn answer(&mut self, below: Below, mut completed: Completed) {
        if let (Some((offset, value)), Op::Read { into, .. }) = (below.corrupt, &mut completed.op)
            && let Some(byte) = into.get_mut(offset as usize)
        {
            *byte = value;
        }
        completed.op = below.original.unwrap_or(completed.op);
        completed.tag = below.tag;
        self.done.push_back(completed);
    }

    fn strike(&mut self, fault: Fault, target: FaultTarget, io: Io, now: Instant) {
        match fault {
            Fault::Error | Fault::Busy => {
                let lba = io.op().range().map_or(0, |range| range.lba);
                self.done.push_back(io.complete(Err(IoError::Medium { lba }), now));
            }
            Fault::Silence => self.silent.push((target, io)),
            Fault::Lost if target == FaultTarget::Write => self.done.push_back(io.complete(Ok(()), now)),
            Fault::Torn if target == FaultTarget::Write => self.tear(io, now),
            Fault::Corrupt { offset, value } => self.corrupt(io, (offset, value), now),
            Fault::Lost | Fault::Torn => self.pass_whole(io, now),
        }
    }

    /// Passes on the first half of a write.
    fn tear(&mut self, io: Io, now: Instant) {
        let block_size = self.device.geometry().block_size as usize;
        self.substitute(io, now, |op| match op {
            Op::Write { range, from, durability } => {
                let range = BlockRange::new(range.lba, range.blocks / 2);
                let from = from.slice(0..range.blocks as usize * block_size);
                Ok(Op::Write { range, from, durability: *durability })
            }
            Op::WriteZeroes { range, durability } => {
                let range = BlockRange::new(range.lba, range.blocks / 2);
                Ok(Op::WriteZeroes { range, durability: *durability })
            }
            _ => Err(IoError::Unsupported),
        });
    }

    /// Passes on the I/O with one byte changed.
    fn corrupt(&mut self, io: Io, corrupt: (u32, u8), now: Instant) {
        match io.op() {
            Op::Read { .. } => {
                let below = Below { tag: io.tag, original: None, corrupt: Some(corrupt) };
                self.pass(below, io, now);
            }
            Op::Write { .. } => {
                let pool = self.pool.clone();
                self.substitute(io, now, |op| match op {
                    Op::Write { range, from, durability } => {
                        let from = corrupted(&pool, from, corrupt).ok_or(IoError::Busy)?;
                        Ok(Op::Write { range: *range, from, durability: *durability })
                    }
                    _ => Err(IoError::Unsupported),
                });
            }
            _ => self.pass_whole(io, now),
        }
    }

    /// Passes on another operation in an I/O's place; its owner gets its own back.
    fn substitute(&mut self, io: Io, now: Instant, other: impl FnOnce(&Op) -> Result<Op, IoError>) {
        match other(io.op()) {
            Ok(other) => {
                let (shell, original) = io.detach();
                let below = Below { tag: shell.tag, original: Some(original), corrupt: None };
                self.pass(below, shell.attach(other), now);
            }
            Err(why) => self.done.push_back(io.complete(Err(why), now)),
        }
    }

    fn release_silent(&mut self, now: Instant) {
        let plan = &self.plan;
        let released: Vec<_> = self.silent.extract_if(.., |(target, _)| !plan.is_silent(*target)).collect();
        for (_, io) in released {
            self.pass_whole(io, now);
        }
    }

    fn release_held(&mut self, now: Instant) {
        // What the device below refuses is held again; so each is tried once.
        for _ in 0..self.held.len() {
            match self.held.first_entry() {
                Some(entry) if entry.key().0 <= now => {
                    let (below, io) = entry.remove();
                    self.pass(below, io, now);
                }
                _ => return,
            }
        }
    }
}

fn corrupted(pool: &Pool, from: &Buf, (offset, value): (u32, u8)) -> Option<Buf> {
    if from.is_empty() {
        return Some(from.clone());
    }
    let mut copy = pool.alloc(from.len())?;
    copy.copy_from_slice(from);
    if let Some(byte) = copy.get_mut(offset as usize) {
        *byte = value;
    }
    Some(copy.freeze())
}

impl Channel for FaultChannel {
    fn submit(&mut self, io: Io, now: Instant) -> Result<(), Refused> {
        if self.is_full() {
            return Err(io.refuse(IoError::Busy));
        }
        if let Err(why) = io.op().check(self.device.geometry()) {
            self.done.push_back(io.complete(Err(why), now));
            return Ok(());
        }
        let Some(target) = FaultTarget::of(io.op()) else {
            self.pass_whole(io, now);
            return Ok(());
        };
        match self.plan.draw(target) {
            Some(Fault::Busy) => return Err(io.refuse(IoError::Busy)),
            Some(fault) => self.strike(fault, target, io, now),
            None => {
                let delay = self.plan.draw_delay(target);
                if delay.is_zero() {
                    self.pass_whole(io, now);
                } else {
                    self.hold(Below { tag: io.tag, original: None, corrupt: None }, io, now + delay);
                }
            }
        }
        Ok(())
    }

    fn poll(&mut self, now: Instant, done: &mut Completions) -> Progress {
        self.release_silent(now);
        self.release_held(now);
        let mut below = Completions::new();
        let mut progress = self.base.poll(now, &mut below);
        for completed in below {
            let ours = self.below.remove(Key::from_bits(completed.tag.0));
            self.answer(ours.expect("the device below answers what it was given"), completed);
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
        let held = std::mem::take(&mut self.held).into_values().map(|(_, io)| io);
        for io in held.chain(self.silent.drain(..).map(|(_, io)| io)) {
            drop(io.complete(Err(IoError::Aborted), Instant::EPOCH));
        }
    }
}
