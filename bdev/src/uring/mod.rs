//! A regular file or block device through the reactor's io_uring.
//!
//! Direct I/O where the file and the block size allow it. A durable write is a write with `RWF_DSYNC`; a flush is
//! `fdatasync`; discarding and zeroing punch a hole, or write zeroes where the file cannot have one. The file is locked, so
//! that neither a second process nor a second device can open the same leg.

mod channel;
mod flight;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::{Access, Caching, Core, Extent, File, FileKind};
use thiserror::Error;
use uuid::Uuid;

use crate::channel::{Bdev, Channel, OpenError};
use crate::error::IoError;
use crate::geometry::{Backing, BlockRange, BlockStatus, Capabilities, Geometry, Space};
pub use channel::QUEUE_DEPTH;
use channel::UringChannel;

/// The physical block size that is reported in bytes, where the logical one is not larger: what file systems and disks
/// write without reading first.
const PHYSICAL_BLOCK_SIZE: u32 = 4096;

/// Whether holes may be punched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holes {
    /// Discarding and zeroing punch them.
    Punched,
    /// The ring has no `fallocate`: nothing is discarded, and zeroes are written.
    None,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug)]
pub struct FileOptions {
    /// Logical block size in bytes: 512 or 4096.
    pub block_size: u32,
    /// Whether it may be written.
    pub access: Access,
    /// Whether it may get holes.
    pub holes: Holes,
}

impl FileOptions {
    /// Writable, with holes.
    pub fn new(block_size: u32) -> Self {
        Self { block_size, access: Access::ReadWrite, holes: Holes::Punched }
    }
}

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
    match source.kind() {
        io::ErrorKind::ResourceBusy => " (another process, or another bdev of this one, has it open)",
        io::ErrorKind::NotFound => " (create it first, with the size that it shall have)",
        io::ErrorKind::PermissionDenied => " (run as a user who may read and write it)",
        _ => "",
    }
}

/// Control half.
#[derive(Debug)]
pub struct UringBdev {
    name: String,
    uuid: Uuid,
    path: PathBuf,
    file: File,
    options: FileOptions,
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
        options: FileOptions,
    ) -> Result<Arc<Self>, UringError> {
        let FileOptions { block_size, access, .. } = options;
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
            options,
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
        let blocks = bytes / u64::from(self.options.block_size);
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

impl UringBdev {
    /// Which blocks the file has storage for. Asked of the system at once: its answer comes from the file's extents.
    fn status(&self, range: BlockRange) -> Result<BlockStatus, IoError> {
        let size = u64::from(self.options.block_size);
        let (extent, bytes) = self
            .file
            .extent(range.lba * size, u64::from(range.blocks) * size)
            .map_err(|error| IoError::Os(error.raw_os_error().unwrap_or(5)))?;
        // A block that is backed in part is backed.
        let (blocks, backing) = match extent {
            Extent::Data => (bytes.div_ceil(size), Backing::Allocated),
            Extent::Hole if bytes < size => (1, Backing::Allocated),
            Extent::Hole => (bytes / size, Backing::Hole),
        };
        Ok(BlockStatus { blocks: u32::try_from(blocks).unwrap_or(u32::MAX).min(range.blocks), backing })
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
            block_size: self.options.block_size,
            physical_block_size: PHYSICAL_BLOCK_SIZE.max(self.options.block_size),
            blocks: self.blocks.load(Ordering::Relaxed),
        }
    }

    fn capabilities(&self) -> Capabilities {
        let base = Capabilities::FLUSH
            | Capabilities::FUA
            | Capabilities::VOLATILE_CACHE
            | Capabilities::BLOCK_STATUS;
        match (self.options.access, self.options.holes) {
            (Access::ReadOnly, _) => base | Capabilities::READ_ONLY,
            (Access::ReadWrite, Holes::None) => base | Capabilities::WRITE_ZEROES,
            (Access::ReadWrite, Holes::Punched) => {
                base | Capabilities::DISCARD | Capabilities::WRITE_ZEROES | Capabilities::DISCARD_ZEROES
            }
        }
    }

    fn space(&self) -> Option<Space> {
        let storage = self.file.storage().ok()??;
        Some(Space { allocated: storage.allocated, available: storage.available })
    }

    fn access(&self) -> crate::Access {
        crate::Access::Local
    }

    fn open(self: Arc<Self>, core: &Core) -> Result<Box<dyn Channel>, OpenError> {
        let ring =
            core.ring().ok_or_else(|| OpenError::NoRoom { name: self.name.clone(), core: core.id() })?;
        Ok(Box::new(UringChannel::new(self, core, ring)))
    }
}
