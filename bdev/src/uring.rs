//! A regular file or block device through the reactor's io_uring.
//!
//! Direct I/O where the file and the block size allow it. A durable write is a write with `RWF_DSYNC`; a flush is
//! `fdatasync`; discard punches a hole. The file is locked, so that a second process cannot open the same leg.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::{
    Access, Caching, Completion, Core, File, FileKind, Instant, Key, Operation, Progress, RangeMode,
    RingClient, Slots, WriteMode,
};
use thiserror::Error;
use uuid::Uuid;

use crate::channel::{Bdev, Channel, Completions, Link, OpenError};
use crate::error::IoError;
use crate::geometry::{BlockRange, Capabilities, Geometry};
use crate::request::{Durability, Io, IoShell, Op, Refused};

/// I/Os in flight on one channel at the most.
pub const QUEUE_DEPTH: u32 = 256;

/// Why a file cannot be a block device.
#[derive(Debug, Error)]
pub enum UringError {
    /// The system's error on opening it.
    #[error("cannot open {path}: {source}{hint}", path = path.display(), hint = hint(source))]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The block size is neither 512 nor 4096.
    #[error("block size {0} is not supported: use 512 or 4096")]
    BlockSize(u32),
    /// There is not one whole block.
    #[error("{path} holds {bytes} bytes, less than one block of {block_size}", path = path.display())]
    TooSmall {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The block size asked for.
        block_size: u32,
    },
}

fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc_ebusy) if libc_ebusy == EBUSY => {
            " (another process, or another bdev of this one, has it open)"
        }
        _ => "",
    }
}

const EBUSY: i32 = 16;
const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const EOPNOTSUPP: i32 = 95;
const EROFS: i32 = 30;
const EDQUOT: i32 = 122;
const EFBIG: i32 = 27;

/// Control half.
#[derive(Debug)]
pub struct UringBdev {
    name: String,
    uuid: Uuid,
    path: PathBuf,
    file: File,
    access: Access,
    block_size: u32,
    physical_block_size: u32,
    blocks: AtomicU64,
}

impl UringBdev {
    /// Opens and locks a file.
    ///
    /// # Errors
    /// See [`UringError`].
    pub fn open_file(
        name: impl Into<String>,
        uuid: Uuid,
        path: &Path,
        block_size: u32,
        access: Access,
    ) -> Result<Arc<Self>, UringError> {
        if ![512, 4096].contains(&block_size) {
            return Err(UringError::BlockSize(block_size));
        }
        let open_error = |source| UringError::Open { path: path.to_owned(), source };
        let file = File::open(path, access, block_size).map_err(open_error)?;
        let bytes = file.size().map_err(open_error)?;
        if bytes < u64::from(block_size) {
            return Err(UringError::TooSmall { path: path.to_owned(), bytes, block_size });
        }
        Ok(Arc::new(Self {
            name: name.into(),
            uuid,
            path: path.to_owned(),
            file,
            access,
            block_size,
            physical_block_size: 4096,
            blocks: AtomicU64::new(bytes / u64::from(block_size)),
        }))
    }

    /// Looks at the file's size again; returns the number of blocks. Open channels see it at once.
    ///
    /// # Errors
    /// See [`UringError`].
    pub fn rescan(&self) -> Result<u64, UringError> {
        let bytes =
            self.file.size().map_err(|source| UringError::Open { path: self.path.clone(), source })?;
        let blocks = bytes / u64::from(self.block_size);
        self.blocks.store(blocks, Ordering::Relaxed);
        Ok(blocks)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the page cache lies between.
    pub fn caching(&self) -> Caching {
        self.file.caching()
    }

    /// Regular file or block device.
    pub fn kind(&self) -> FileKind {
        self.file.kind()
    }
}

impl Bdev for UringBdev {
    fn name(&self) -> &str {
        &self.name
    }

    fn product(&self) -> &'static str {
        "URING bdev"
    }

    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            block_size: self.block_size,
            physical_block_size: self.physical_block_size.max(self.block_size),
            blocks: self.blocks.load(Ordering::Relaxed),
        }
    }

    fn capabilities(&self) -> Capabilities {
        let base = Capabilities::FLUSH | Capabilities::FUA | Capabilities::VOLATILE_CACHE;
        match self.access {
            Access::ReadOnly => base | Capabilities::READ_ONLY,
            Access::ReadWrite => {
                base | Capabilities::DISCARD | Capabilities::WRITE_ZEROES | Capabilities::DISCARD_ZEROES
            }
        }
    }

    fn open(self: Arc<Self>, core: &Core) -> Result<Box<dyn Channel>, OpenError> {
        let ring =
            core.ring().ok_or_else(|| OpenError::NoRoom { name: self.name.clone(), core: core.id() })?;
        Ok(Box::new(UringChannel {
            client: ring.attach(),
            core: core.clone(),
            bdev: self,
            shells: Slots::with_capacity(QUEUE_DEPTH),
            done: Completions::new(),
        }))
    }
}

/// An I/O whose operation is in the ring.
struct Flight {
    shell: IoShell,
    range: BlockRange,
    /// A range change that must also be made stable, once it is done.
    then_sync: Option<Op>,
}

/// Data half.
struct UringChannel {
    bdev: Arc<UringBdev>,
    client: RingClient,
    core: Core,
    shells: Slots<Flight>,
    done: Completions,
}

impl UringChannel {
    fn bytes(&self, range: BlockRange) -> (u64, u64) {
        let block_size = u64::from(self.bdev.block_size);
        (range.lba * block_size, u64::from(range.blocks) * block_size)
    }

    fn check(&self, op: &Op) -> Result<(), IoError> {
        if op.range().is_some_and(|range| !self.bdev.geometry().contains(range)) {
            return Err(IoError::OutOfRange);
        }
        if op.changes_medium() && self.bdev.access == Access::ReadOnly {
            return Err(IoError::ReadOnly);
        }
        match op {
            Op::Fence { .. } => Err(IoError::Unsupported),
            _ => Ok(()),
        }
    }

    fn operation(&self, op: Op) -> Operation {
        let file = self.bdev.file.clone();
        match op {
            Op::Read { range, into } => Operation::Read { file, offset: self.bytes(range).0, into },
            Op::Write { range, from, durability } => {
                let mode = match durability {
                    Durability::Accepted => WriteMode::Accepted,
                    Durability::Durable => WriteMode::Durable,
                };
                Operation::Write { file, offset: self.bytes(range).0, from: self.aligned(from), mode }
            }
            Op::Flush | Op::Fence { .. } => Operation::Sync { file },
            Op::Discard { range } => {
                let (offset, len) = self.bytes(range);
                Operation::Range { file, offset, len, mode: RangeMode::PunchHole }
            }
            Op::WriteZeroes { range, .. } => {
                let (offset, len) = self.bytes(range);
                // A hole reads as zeroes everywhere; zero-range is missing on some file systems.
                Operation::Range { file, offset, len, mode: RangeMode::PunchHole }
            }
        }
    }

    /// Direct I/O wants aligned memory; a slice of a frame that is not is copied once.
    fn aligned(&self, from: engine::Buf) -> engine::Buf {
        let Caching::Direct { alignment } = self.bdev.file.caching() else { return from };
        if from.as_ptr() as usize % alignment as usize == 0 {
            return from;
        }
        match self.core.pool().alloc(from.len()) {
            Some(mut copy) => {
                copy.copy_from_slice(&from);
                copy.freeze()
            }
            // The kernel answers EINVAL and the owner sees an error: never wrong data.
            None => from,
        }
    }

    fn start(&mut self, io: Io) {
        let range = io.op().range().unwrap_or(BlockRange::new(0, 0));
        let (shell, op) = io.detach();
        let then_sync = match &op {
            Op::WriteZeroes { durability: Durability::Durable, .. } => Some(Op::Flush),
            _ => None,
        };
        let operation = self.operation(op);
        let key = match self.shells.insert(Flight { shell, range, then_sync }) {
            Ok(key) => key,
            Err(_) => unreachable!("room was checked before the start"),
        };
        self.launch(key, operation);
    }

    fn launch(&mut self, key: Key, operation: Operation) {
        if let Err(operation) = self.client.submit(key.to_bits(), operation) {
            let result = Err(io::Error::from_raw_os_error(EBUSY));
            self.land(Completion { token: key.to_bits(), operation, result, accepted: None }, Instant::EPOCH);
        }
    }

    fn land(&mut self, completion: Completion, now: Instant) {
        let key = Key::from_bits(completion.token);
        let flight = self.shells.get_mut(key).expect("a completion belongs to a flight");
        if completion.result.is_ok() && flight.then_sync.take().is_some() {
            let sync = Operation::Sync { file: self.bdev.file.clone() };
            self.launch(key, sync);
            return;
        }
        let flight = self.shells.remove(key).expect("looked up above");
        let (op, expected) = give_back(completion.operation, flight.range);
        let result = match completion.result {
            Ok(moved) if u64::from(moved) >= expected => Ok(()),
            Ok(_) => Err(IoError::Medium { lba: flight.range.lba }),
            Err(error) => Err(translate(&error, flight.range)),
        };
        self.done.push_back(flight.shell.complete(op, result, now));
    }
}

/// The operation as its owner knew it, and how many bytes it should have moved.
fn give_back(operation: Operation, range: BlockRange) -> (Op, u64) {
    match operation {
        Operation::Read { into, .. } => {
            let len = into.len() as u64;
            (Op::Read { range, into }, len)
        }
        Operation::Write { from, mode, .. } => {
            let durability = match mode {
                WriteMode::Accepted => Durability::Accepted,
                WriteMode::Durable => Durability::Durable,
            };
            let len = from.len() as u64;
            (Op::Write { range, from, durability }, len)
        }
        Operation::Range { .. } => (Op::Discard { range }, 0),
        _ => (Op::Flush, 0),
    }
}

fn translate(error: &io::Error, range: BlockRange) -> IoError {
    match error.raw_os_error() {
        Some(EIO) => IoError::Medium { lba: range.lba },
        Some(ENOSPC | EDQUOT | EFBIG) => IoError::NoSpace,
        Some(EOPNOTSUPP) => IoError::Unsupported,
        Some(EROFS) => IoError::ReadOnly,
        Some(EBUSY) => IoError::Busy,
        Some(errno) => IoError::Os(errno),
        None => IoError::Os(0),
    }
}

impl Channel for UringChannel {
    fn submit(&mut self, mut io: Io, now: Instant) -> Result<(), Refused> {
        if self.shells.is_full() {
            return Err(io.refuse(IoError::Busy));
        }
        io.stamps.submitted = now;
        let empty = io.op().range().is_some_and(|range| range.blocks == 0);
        match self.check(io.op()) {
            Ok(()) if empty => self.done.push_back(io.complete(Ok(()), now)),
            Ok(()) => self.start(io),
            Err(error) => self.done.push_back(io.complete(Err(error), now)),
        }
        Ok(())
    }

    fn poll(&mut self, now: Instant, done: &mut Completions) -> Progress {
        while let Some(completion) = self.client.take() {
            self.land(completion, now);
        }
        let progress = Progress::from_count(self.done.len());
        done.append(&mut self.done);
        progress
    }

    fn link(&self, now: Instant) -> Link {
        Link::local(self.bdev.geometry(), now)
    }
}
