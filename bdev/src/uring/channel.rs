//! The data half: I/Os in slots, their operations in the ring.

use std::collections::VecDeque;
use std::sync::Arc;

use engine::{
    Access, Buf, Caching, Completion, Core, Instant, Key, Operation, Pool, Progress, Registered, RingClient,
    RingHandle, Slots,
};

use super::flight::{Flight, Next, Step};
use super::{Holes, UringBdev};
use crate::channel::{Bdev, Channel, Completions, Link};
use crate::error::IoError;
use crate::geometry::BlockRange;
use crate::request::{Io, IoShell, Op, Refused};

/// I/Os in flight on one channel at the most.
pub const QUEUE_DEPTH: u32 = 256;
/// Zeroes written at once, in bytes.
const ZEROES_LEN: usize = 64 << 10;

pub(super) struct UringChannel {
    bdev: Arc<UringBdev>,
    client: RingClient,
    /// Where the kernel has room for it.
    _registered: Option<Registered>,
    pool: Pool,
    flights: Slots<Flight>,
    /// Operations for which the ring had no room.
    waiting: VecDeque<(Key, Operation)>,
    /// Made when the first hole cannot be punched.
    zeroes: Option<Buf>,
    done: Completions,
}

impl UringChannel {
    pub(super) fn new(bdev: Arc<UringBdev>, core: &Core, ring: &RingHandle) -> Self {
        let registered = ring.register_file(&bdev.file);
        Self {
            bdev,
            client: ring.attach(),
            _registered: registered,
            pool: core.pool().clone(),
            flights: Slots::with_capacity(QUEUE_DEPTH),
            waiting: VecDeque::new(),
            zeroes: None,
            done: Completions::new(),
        }
    }

    fn check(&self, op: &Op) -> Result<(), IoError> {
        op.check(self.bdev.geometry())?;
        match op {
            Op::Fence { .. }
            | Op::StoreState { .. }
            | Op::LoadState { .. }
            | Op::HandOver
            | Op::CryptoErase
            | Op::CompareAndWrite { .. } => Err(IoError::Unsupported),
            op if op.changes_medium() && self.bdev.options.access == Access::ReadOnly => {
                Err(IoError::ReadOnly)
            }
            Op::Discard { .. } if self.bdev.options.holes == Holes::None => Err(IoError::Unsupported),
            _ => Ok(()),
        }
    }

    /// A write's buffer as direct I/O wants it: a slice of a frame that is not aligned is copied once. `None` when there is
    /// no frame to copy to.
    fn aligned(&self, from: &Buf) -> Option<Buf> {
        let aligned = match self.bdev.file.caching() {
            Caching::Direct { alignment } => (from.as_ptr() as usize).is_multiple_of(alignment as usize),
            Caching::Buffered => true,
        };
        if aligned {
            return Some(from.clone());
        }
        let mut copy = self.pool.alloc(from.len())?;
        copy.copy_from_slice(from);
        Some(copy.freeze())
    }

    fn answer_status(&self, op: &mut Op) -> Result<(), IoError> {
        if let Op::BlockStatus { range, found } = op {
            *found = Some(self.bdev.status(*range)?);
        }
        Ok(())
    }

    fn start(&mut self, io: Io, aligned: Option<Buf>, now: Instant) {
        let range = io.op().range().unwrap_or(BlockRange::new(0, 0));
        let (shell, op) = io.detach();
        let (step, op) = Step::first(op, aligned, &self.bdev.options);
        let flight = Flight { shell, op, range, block_size: self.bdev.options.block_size, step };
        match self.flights.insert(flight) {
            Ok(key) => self.launch(key, now),
            Err(_) => unreachable!("room was checked before the start"),
        }
    }

    /// Hands the current step to the ring.
    fn launch(&mut self, key: Key, now: Instant) {
        let flight = self.flights.get_mut(key).expect("it is in flight");
        if matches!(flight.step, Step::Zero { .. }) && self.zeroes.is_none() {
            self.zeroes = self.pool.alloc_zeroed(ZEROES_LEN).map(engine::BufMut::freeze);
        }
        match flight.operation(self.bdev.file.clone(), self.zeroes.as_ref()) {
            Ok(operation) => self.submit_operation(key, operation),
            Err(error) => self.finish(key, None, Err(error), now),
        }
    }

    fn submit_operation(&mut self, key: Key, operation: Operation) {
        if let Err(operation) = self.client.submit(key.to_bits(), operation) {
            self.waiting.push_back((key, operation));
        }
    }

    fn land(&mut self, completion: Completion, now: Instant) {
        let key = Key::from_bits(completion.token);
        let flight = self.flights.get_mut(key).expect("a completion belongs to a flight");
        match flight.next(completion.result.as_ref().copied()) {
            Next::Continue(step) => {
                flight.step = step;
                self.launch(key, now);
            }
            Next::Finish(result) => self.finish(key, Some(completion.operation), result, now),
        }
    }

    fn finish(&mut self, key: Key, last: Option<Operation>, result: Result<(), IoError>, now: Instant) {
        let Flight { shell, op, range, .. } = self.flights.remove(key).expect("it is in flight");
        let op = match last {
            Some(Operation::Read { into, .. }) => Op::Read { range, into },
            _ => op,
        };
        self.done.push_back(IoShell::complete(shell, op, result, now));
    }
}

impl Channel for UringChannel {
    fn submit(&mut self, mut io: Io, now: Instant) -> Result<(), Refused> {
        if self.flights.is_full() {
            return Err(io.refuse(IoError::Busy));
        }
        io.stamps.submitted = now;
        let is_empty = io.op().range().is_some_and(|range| range.blocks == 0);
        match self.check(io.op()) {
            Ok(()) if is_empty => self.done.push_back(io.complete(Ok(()), now)),
            Err(error) => self.done.push_back(io.complete(Err(error), now)),
            Ok(()) if matches!(io.op(), Op::BlockStatus { .. }) => {
                let answer = self.answer_status(io.op_mut());
                self.done.push_back(io.complete(answer, now));
            }
            Ok(()) => {
                let aligned = match io.op() {
                    Op::Write { from, .. } => match self.aligned(from) {
                        None => return Err(io.refuse(IoError::Busy)),
                        found => found,
                    },
                    _ => None,
                };
                self.start(io, aligned, now);
            }
        }
        Ok(())
    }

    fn poll(&mut self, now: Instant, done: &mut Completions) -> Progress {
        while let Some(completion) = self.client.take() {
            self.land(completion, now);
        }
        for _ in 0..self.waiting.len() {
            let Some((key, operation)) = self.waiting.pop_front() else { break };
            self.submit_operation(key, operation);
        }
        let progress = Progress::from_count(self.done.len());
        done.append(&mut self.done);
        progress
    }

    fn link(&self, now: Instant) -> Link {
        Link::local(self.bdev.geometry(), now)
    }
}
