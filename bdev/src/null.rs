//! The null device: accepts everything, stores nothing, reads as zeroes. The template for a new device.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::{Core, Instant, Progress};
use uuid::Uuid;

use crate::channel::{Bdev, Channel, Completions, Link, OpenError};
use crate::error::IoError;
use crate::geometry::{Backing, BlockStatus, Capabilities, Geometry};
use crate::request::{Io, Op, Refused};

/// Control half.
#[derive(Debug)]
pub struct NullBdev {
    name: String,
    uuid: Uuid,
    geometry: Geometry,
    blocks: AtomicU64,
}

impl NullBdev {
    /// A device of the given size.
    pub fn new(name: impl Into<String>, uuid: Uuid, geometry: Geometry) -> Arc<Self> {
        let blocks = AtomicU64::new(geometry.blocks);
        Arc::new(Self { name: name.into(), uuid, geometry, blocks })
    }

    /// Has this many blocks from now on. Open channels see it at once.
    pub fn resize(&self, blocks: u64) {
        self.blocks.store(blocks, Ordering::Relaxed);
    }
}

impl Bdev for NullBdev {
    fn name(&self) -> &str {
        &self.name
    }

    fn product(&self) -> &'static str {
        "Null disk"
    }

    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn geometry(&self) -> Geometry {
        Geometry { blocks: self.blocks.load(Ordering::Relaxed), ..self.geometry }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::FLUSH
            | Capabilities::FUA
            | Capabilities::DISCARD
            | Capabilities::WRITE_ZEROES
            | Capabilities::BLOCK_STATUS
            | Capabilities::COMPARE_AND_WRITE
    }

    fn access(&self) -> crate::Access {
        crate::Access::Local
    }

    fn open(self: Arc<Self>, _core: &Core) -> Result<Box<dyn Channel>, OpenError> {
        Ok(Box::new(NullChannel { bdev: self, done: Completions::new() }))
    }
}

/// Data half.
struct NullChannel {
    bdev: Arc<NullBdev>,
    done: Completions,
}

impl Channel for NullChannel {
    fn submit(&mut self, mut io: Io, now: Instant) -> Result<(), Refused> {
        io.stamps.submitted = now;
        let result = io.op().check(self.bdev.geometry()).and_then(|()| match io.op_mut() {
            Op::Read { into, .. } => {
                into.fill(0);
                Ok(())
            }
            Op::CompareAndWrite { both, .. } => {
                match both[..both.len() / 2].iter().position(|byte| *byte != 0) {
                    None => Ok(()),
                    Some(at) => Err(IoError::Miscompare { offset: u32::try_from(at).unwrap_or(u32::MAX) }),
                }
            }
            Op::BlockStatus { range, found } => {
                *found = Some(BlockStatus { blocks: range.blocks, backing: Backing::Hole });
                Ok(())
            }
            Op::Fence { .. }
            | Op::StoreState { .. }
            | Op::LoadState { .. }
            | Op::HandOver
            | Op::CryptoErase => Err(IoError::Unsupported),
            _ => Ok(()),
        });
        self.done.push_back(io.complete(result, now));
        Ok(())
    }

    fn poll(&mut self, _now: Instant, done: &mut Completions) -> Progress {
        let progress = Progress::from_count(self.done.len());
        done.append(&mut self.done);
        progress
    }

    fn link(&self, now: Instant) -> Link {
        Link::local(self.bdev.geometry(), now)
    }
}
