//! The data half: counts what passes, and holds back what a limit forbids for now.
//!
//! What is held back goes on in the order in which it came. Flushes and discards are not limited and do not wait: a flush is
//! about writes that were answered. A fence waits for what was before it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::{Instant, Progress};

use super::{Common, OpKind, Shared, lock};
use crate::channel::{Bdev, Channel, Completions, Link};
use crate::error::IoError;
use crate::request::{Io, Op, Refused};

/// I/Os held back on one channel at the most.
const HELD_MAX: usize = 256;

pub(super) struct MeteredChannel {
    below: Box<dyn Channel>,
    bdev: Arc<dyn Bdev>,
    shared: Arc<Shared>,
    common: Arc<Common>,
    /// I/Os of the owner that are not answered.
    in_flight: u64,
    /// It has paid, and the device below was busy.
    paid: Option<Io>,
    held: VecDeque<Io>,
    /// When the first of them may go on.
    retry_at: Option<Instant>,
    /// Answers to what the device below refused after it had been held.
    late: Completions,
}

impl MeteredChannel {
    pub(super) fn new(
        below: Box<dyn Channel>,
        bdev: Arc<dyn Bdev>,
        shared: Arc<Shared>,
        common: Arc<Common>,
    ) -> Self {
        let held = VecDeque::new();
        let late = Completions::new();
        Self { below, bdev, shared, common, in_flight: 0, paid: None, held, retry_at: None, late }
    }

    fn depth_is(&mut self, in_flight: u64, now: Instant) {
        self.in_flight = in_flight;
        self.shared.in_flight.store(in_flight, Ordering::Relaxed);
        if self.common.is_gauged.load(Ordering::Acquire) {
            lock(&self.common.book).gauge(now);
        }
    }

    /// Takes what an I/O costs; when to ask again, if not now.
    fn pay(&self, io: &Io, now: Instant) -> Result<(), Instant> {
        if !self.common.is_limited.load(Ordering::Acquire) {
            return Ok(());
        }
        let Some((kind, blocks)) = OpKind::of(io.op()) else { return Ok(()) };
        let bytes = blocks * u64::from(self.bdev.geometry().block_size);
        match &mut *lock(&self.common.buckets) {
            Some(buckets) => buckets.take(kind, bytes, now),
            None => Ok(()),
        }
    }

    fn is_holding(&self) -> bool {
        self.paid.is_some() || !self.held.is_empty()
    }

    /// The next I/O that may go on.
    fn next_paid(&mut self, now: Instant) -> Option<Io> {
        if let Some(io) = self.paid.take() {
            return Some(io);
        }
        while let Some(io) = self.held.pop_front() {
            if io.deadline.is_some_and(|deadline| now >= deadline) {
                self.late.push_back(io.complete(Err(IoError::TimedOut), now));
                continue;
            }
            match self.pay(&io, now) {
                Ok(()) => return Some(io),
                Err(later) => {
                    self.retry_at = Some(later);
                    self.held.push_front(io);
                    return None;
                }
            }
        }
        None
    }

    /// Lets go on what the limits allow now.
    fn release(&mut self, now: Instant) -> Progress {
        let mut count = 0;
        while let Some(io) = self.next_paid(now) {
            match self.below.submit(io, now) {
                Ok(()) => count += 1,
                Err(Refused { io, why: IoError::Busy }) => {
                    self.paid = Some(io);
                    break;
                }
                Err(Refused { io, why }) => self.late.push_back(io.complete(Err(why), now)),
            }
        }
        Progress::from_count(count)
    }

    fn must_wait(&mut self, io: &Io, now: Instant) -> bool {
        let counts = matches!(OpKind::of(io.op()), Some((OpKind::Read | OpKind::Write, _)));
        if self.is_holding() {
            // A fence and an erase are about everything before them.
            return counts || matches!(io.op(), Op::Fence { .. } | Op::CryptoErase);
        }
        if !counts || !self.common.is_limited.load(Ordering::Acquire) {
            return false;
        }
        match self.pay(io, now) {
            Ok(()) => false,
            Err(later) => {
                self.retry_at = Some(later);
                true
            }
        }
    }
}

impl Channel for MeteredChannel {
    fn submit(&mut self, io: Io, now: Instant) -> Result<(), Refused> {
        if self.must_wait(&io, now) {
            if self.held.len() >= HELD_MAX {
                return Err(io.refuse(IoError::Busy));
            }
            self.held.push_back(io);
        } else {
            self.below.submit(io, now)?;
        }
        self.depth_is(self.in_flight + 1, now);
        Ok(())
    }

    fn poll(&mut self, now: Instant, done: &mut Completions) -> Progress {
        let before = done.len();
        let mut progress = if self.is_holding() { self.release(now) } else { Progress::Idle };
        progress |= self.below.poll(now, done);
        progress |= Progress::from_count(self.late.len());
        done.append(&mut self.late);
        let count = done.len() - before;
        if count > 0 {
            let block_size = self.bdev.geometry().block_size;
            // Nobody else takes this lock but a reader of the figures, now and then.
            let mut counted = lock(&self.shared.counted);
            for completed in done.range(before..) {
                let counted = &mut *counted;
                if let Some((kind, latency)) = counted.stats.record(completed, block_size)
                    && let Some(histogram) = &mut counted.histogram
                {
                    histogram.record(kind, u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
                }
            }
            drop(counted);
            self.depth_is(self.in_flight.saturating_sub(count as u64), now);
        }
        progress
    }

    fn next_deadline(&self) -> Option<Instant> {
        let held = if self.held.is_empty() { None } else { self.retry_at };
        let first = self.held.front().and_then(|io| io.deadline);
        Instant::earliest(Instant::earliest(held, first), self.below.next_deadline())
    }

    fn link(&self, now: Instant) -> Link {
        self.below.link(now)
    }
}

impl Drop for MeteredChannel {
    fn drop(&mut self) {
        for io in self.paid.take().into_iter().chain(self.held.drain(..)) {
            drop(io.complete(Err(IoError::Aborted), Instant::EPOCH));
        }
        let mut book = lock(&self.common.book);
        let book = &mut *book;
        book.open.retain(|(_, shared)| !Arc::ptr_eq(shared, &self.shared));
        let counted = lock(&self.shared.counted);
        book.closed.add(&counted.stats);
        if let (Some(sum), Some(more)) = (&mut book.histogram, &counted.histogram) {
            sum.add(more);
        }
    }
}
