//! The data half: I/Os wait for their due time, then happen at once. A crash before that does any part of a write.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::{Instant, Progress};

use super::SimBdev;
use super::medium::Pulse;
use crate::channel::{Channel, Completions, Link};
use crate::error::IoError;
use crate::request::{Io, Refused};

/// I/Os in flight on one channel at the most.
const QUEUE_DEPTH: usize = 256;

pub(super) struct SimChannel {
    bdev: Arc<SimBdev>,
    epoch: u64,
    /// By due time and the medium's number.
    pending: BTreeMap<(Instant, u64), Io>,
}

impl SimChannel {
    pub(super) fn new(bdev: Arc<SimBdev>) -> Self {
        let epoch = bdev.medium().epoch;
        Self { bdev, epoch, pending: BTreeMap::new() }
    }

    fn is_dead(&self) -> bool {
        self.bdev.medium().epoch != self.epoch
    }

    /// A dead channel answers, whatever its disk does.
    fn is_hung(&self) -> bool {
        let medium = self.bdev.medium();
        medium.pulse == Pulse::Hung && medium.epoch == self.epoch
    }

    fn execute(&self, io: &mut Io, number: u64) -> Result<(), IoError> {
        let mut medium = self.bdev.medium();
        if medium.epoch != self.epoch {
            return Err(IoError::Aborted);
        }
        medium.end(number);
        io.op().check(self.bdev.geometry)?;
        medium.execute(io.op_mut())
    }
}

impl Channel for SimChannel {
    fn submit(&mut self, mut io: Io, now: Instant) -> Result<(), Refused> {
        if self.pending.len() >= QUEUE_DEPTH {
            return Err(io.refuse(IoError::Busy));
        }
        io.stamps.submitted = now;
        let config = self.bdev.config;
        let spread = config.latency_max.saturating_sub(config.latency_min);
        let spread = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX);
        let mut medium = self.bdev.medium();
        let extra = medium.delay(io.op(), spread);
        let number = medium.begin(io.op(), self.epoch);
        drop(medium);
        self.pending.insert((now + config.latency_min + extra, number), io);
        Ok(())
    }

    fn poll(&mut self, now: Instant, done: &mut Completions) -> Progress {
        if self.is_hung() {
            return Progress::Idle;
        }
        let is_dead = self.is_dead();
        let before = done.len();
        while let Some(entry) = self.pending.first_entry() {
            let (due, number) = *entry.key();
            if due > now && !is_dead {
                break;
            }
            let mut io = entry.remove();
            let result = self.execute(&mut io, number);
            done.push_back(io.complete(result, now));
        }
        Progress::from_count(done.len() - before)
    }

    fn next_deadline(&self) -> Option<Instant> {
        if self.is_hung() {
            return None;
        }
        self.pending.first_key_value().map(|((due, _), _)| *due)
    }

    fn link(&self, now: Instant) -> Link {
        Link::local(self.bdev.geometry, now)
    }
}

impl Drop for SimChannel {
    fn drop(&mut self) {
        // A node that died takes its I/Os with it; nobody is left to be told. What was in flight stays so for the medium.
        for io in std::mem::take(&mut self.pending).into_values() {
            drop(io.complete(Err(IoError::Aborted), Instant::EPOCH));
        }
    }
}
