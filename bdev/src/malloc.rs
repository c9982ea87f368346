//! A RAM disk, shared by all its channels.

use std::sync::{Arc, RwLock};

use engine::{Core, Instant, Progress};
use uuid::Uuid;

use crate::channel::{Bdev, Channel, Completions, Link, OpenError};
use crate::error::IoError;
use crate::geometry::{BlockRange, Capabilities, Geometry};
use crate::request::{Io, Op, Refused};

/// Blocks are locked in stripes of this many bytes, so that channels on different cores seldom meet.
const STRIPE: usize = 1 << 20;

/// Control half.
#[derive(Debug)]
pub struct MallocBdev {
    name: String,
    uuid: Uuid,
    geometry: Geometry,
    stripes: Box<[RwLock<Vec<u8>>]>,
}

impl MallocBdev {
    /// A zeroed device of the given size.
    ///
    /// # Panics
    /// When the size does not fit in the address space.
    pub fn new(name: impl Into<String>, uuid: Uuid, geometry: Geometry) -> Arc<Self> {
        let bytes = usize::try_from(geometry.bytes()).expect("a RAM disk fits in memory");
        let stripe_len = |start: usize| STRIPE.min(bytes - start);
        let stripes =
            (0..bytes).step_by(STRIPE).map(|start| RwLock::new(vec![0; stripe_len(start)])).collect();
        Arc::new(Self { name: name.into(), uuid, geometry, stripes })
    }

    /// The content of `range`, for tests and comparisons.
    ///
    /// # Panics
    /// When the range is outside.
    pub fn snapshot(&self, range: BlockRange) -> Vec<u8> {
        let mut bytes = vec![0; range.blocks as usize * self.geometry.block_size as usize];
        self.read(range, &mut bytes);
        bytes
    }

    /// Calls `visit(stripe, offset in the stripe, offset in the range, length)` for each piece of a range.
    fn pieces(&self, range: BlockRange, mut visit: impl FnMut(&RwLock<Vec<u8>>, usize, usize, usize)) {
        let block_size = u64::from(self.geometry.block_size);
        let mut at = usize::try_from(range.lba * block_size).expect("checked against the geometry");
        let end = usize::try_from(range.end() * block_size).expect("checked against the geometry");
        let start = at;
        while at < end {
            let len = (STRIPE - at % STRIPE).min(end - at);
            visit(&self.stripes[at / STRIPE], at % STRIPE, at - start, len);
            at += len;
        }
    }

    fn read(&self, range: BlockRange, into: &mut [u8]) {
        self.pieces(range, |stripe, from, to, len| {
            let stripe = stripe.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            into[to..to + len].copy_from_slice(&stripe[from..from + len]);
        });
    }

    fn write(&self, range: BlockRange, from: &[u8]) {
        self.pieces(range, |stripe, to, at, len| {
            let mut stripe = stripe.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            stripe[to..to + len].copy_from_slice(&from[at..at + len]);
        });
    }

    fn zero(&self, range: BlockRange) {
        self.pieces(range, |stripe, to, _, len| {
            stripe.write().unwrap_or_else(std::sync::PoisonError::into_inner)[to..to + len].fill(0);
        });
    }

    fn execute(&self, op: &mut Op) -> Result<(), IoError> {
        op.check(self.geometry)?;
        match op {
            Op::Read { range, into } => self.read(*range, into),
            Op::Write { range, from, .. } => self.write(*range, from),
            Op::Discard { range } | Op::WriteZeroes { range, .. } => self.zero(*range),
            Op::Flush => {}
            Op::Fence { .. } => return Err(IoError::Unsupported),
        }
        Ok(())
    }
}

impl Bdev for MallocBdev {
    fn name(&self) -> &str {
        &self.name
    }

    fn product(&self) -> &'static str {
        "Malloc disk"
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
    }

    fn open(self: Arc<Self>, _core: &Core) -> Result<Box<dyn Channel>, OpenError> {
        Ok(Box::new(MallocChannel { bdev: self, done: Completions::new() }))
    }
}

/// Data half.
struct MallocChannel {
    bdev: Arc<MallocBdev>,
    done: Completions,
}

impl Channel for MallocChannel {
    fn submit(&mut self, mut io: Io, now: Instant) -> Result<(), Refused> {
        io.stamps.submitted = now;
        let result = self.bdev.execute(io.op_mut());
        self.done.push_back(io.complete(result, now));
        Ok(())
    }

    fn poll(&mut self, _now: Instant, done: &mut Completions) -> Progress {
        let progress = Progress::from_count(self.done.len());
        done.append(&mut self.done);
        progress
    }

    fn link(&self, now: Instant) -> Link {
        Link::local(self.bdev.geometry, now)
    }
}
