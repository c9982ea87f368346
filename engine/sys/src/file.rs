//! Regular files and block devices, opened for the ring.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// Read and write, or read alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads and writes.
    ReadWrite,
    /// Reads; writes are refused by the system.
    ReadOnly,
}

/// Whether the page cache lies between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// `O_DIRECT`: memory, offsets and lengths are multiples of the alignment in bytes.
    Direct {
        /// Required alignment in bytes.
        alignment: u32,
    },
    /// Through the page cache, because the file system has no direct I/O.
    Buffered,
}

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A block device.
    BlockDevice,
}

/// What a file has at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Storage.
    Data,
    /// None: it reads as zeroes.
    Hole,
}

/// The storage behind a regular file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// What it has.
    pub allocated: u64,
    /// What its file system has left.
    pub available: u64,
}

#[derive(Debug)]
struct Inner {
    file: fs::File,
    kind: FileKind,
    caching: Caching,
}

/// An open file, shared by every operation on it: it cannot close while one is in flight.
#[derive(Clone, Debug)]
pub struct File {
    inner: Arc<Inner>,
}

impl File {
    /// Opens an existing regular file or block device, with direct I/O where blocks of `block_size` bytes allow it, and locks it against any other
    /// process that locks it (`flock`; `O_EXCL` for a block device).
    ///
    /// # Errors
    /// The system's; `ResourceBusy` when another process has it; `Unsupported` for a file of another kind.
    pub fn open(path: &Path, access: Access, block_size: u32) -> io::Result<Self> {
        let kind = kind_of(&fs::metadata(path)?)?;
        let (file, caching) =
            open_direct(path, access, kind, block_size).or_else(|error| match error.raw_os_error() {
                Some(libc::EINVAL) => Ok((open_with(path, access, kind, 0)?, Caching::Buffered)),
                _ => Err(error),
            })?;
        file.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => io::Error::from_raw_os_error(libc::EBUSY),
            fs::TryLockError::Error(error) => error,
        })?;
        Ok(Self { inner: Arc::new(Inner { file, kind, caching }) })
    }

    /// Size in bytes, now.
    ///
    /// # Errors
    /// The system's.
    pub fn size(&self) -> io::Result<u64> {
        match self.inner.kind {
            FileKind::Regular => Ok(self.inner.file.metadata()?.len()),
            // A block device's end is its size, without a device-specific call.
            FileKind::BlockDevice => io::Seek::seek(&mut &self.inner.file, io::SeekFrom::End(0)),
        }
    }

    /// Bytes of storage that the file has, and bytes that its file system still has for files; `None` for a block device, whose storage
    /// is its own.
    ///
    /// # Errors
    /// The system's.
    pub fn storage(&self) -> io::Result<Option<Storage>> {
        if self.inner.kind == FileKind::BlockDevice {
            return Ok(None);
        }
        // `st_blocks` counts 512 bytes whatever the block size is.
        let allocated = self.inner.file.metadata()?.blocks().saturating_mul(512);
        let mut stat = core::mem::MaybeUninit::<libc::statvfs>::zeroed();
        // SAFETY: the descriptor is open, and the buffer is a whole `statvfs` that the system fills.
        if unsafe { libc::fstatvfs(self.raw(), stat.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the buffer was zeroed, and all-zero is a valid `statvfs`.
        let stat = unsafe { stat.assume_init() };
        Ok(Some(Storage { allocated, available: stat.f_bavail.saturating_mul(stat.f_frsize) }))
    }

    /// What the file has at `offset`, and for how many of the next `len` bytes, asked with `SEEK_DATA` and `SEEK_HOLE`. A device
    /// or file system that keeps no holes says that everything is data.
    ///
    /// # Errors
    /// The system's.
    pub fn extent(&self, offset: u64, len: u64) -> io::Result<(Extent, u64)> {
        let end = offset.saturating_add(len);
        let data = self.seek(offset, libc::SEEK_DATA)?.unwrap_or(end).min(end);
        if data > offset {
            return Ok((Extent::Hole, data - offset));
        }
        let hole = self.seek(offset, libc::SEEK_HOLE)?.unwrap_or(end).min(end);
        Ok((Extent::Data, hole.saturating_sub(offset)))
    }

    /// `None` past the last data.
    fn seek(&self, offset: u64, whence: i32) -> io::Result<Option<u64>> {
        let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        // SAFETY: the descriptor is open; the file position that this moves is used by nobody, all I/O names its offset.
        let found = unsafe { libc::lseek(self.raw(), offset, whence) };
        match u64::try_from(found) {
            Ok(found) => Ok(Some(found)),
            Err(_) => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Regular file or block device.
    pub fn kind(&self) -> FileKind {
        self.inner.kind
    }

    /// Whether the page cache lies between.
    pub fn caching(&self) -> Caching {
        self.inner.caching
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.inner.file.as_raw_fd()
    }
}

fn kind_of(metadata: &fs::Metadata) -> io::Result<FileKind> {
    if metadata.is_file() {
        Ok(FileKind::Regular)
    } else if metadata.file_type().is_block_device() {
        Ok(FileKind::BlockDevice)
    } else {
        Err(io::Error::new(io::ErrorKind::Unsupported, "neither a regular file nor a block device"))
    }
}

fn open_with(path: &Path, access: Access, kind: FileKind, flags: i32) -> io::Result<fs::File> {
    let exclusive =
        if kind == FileKind::BlockDevice && access == Access::ReadWrite { libc::O_EXCL } else { 0 };
    fs::OpenOptions::new()
        .read(true)
        .write(access == Access::ReadWrite)
        .custom_flags(flags | exclusive | libc::O_CLOEXEC)
        .open(path)
}

/// Opens with `O_DIRECT` and finds the alignment by asking `statx`; `EINVAL` where direct I/O does not work
/// for blocks of this size.
fn open_direct(
    path: &Path,
    access: Access,
    kind: FileKind,
    block_size: u32,
) -> io::Result<(fs::File, Caching)> {
    let file = open_with(path, access, kind, libc::O_DIRECT)?;
    match direct_alignment(&file) {
        Some(alignment) if alignment <= block_size => Ok((file, Caching::Direct { alignment })),
        _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

/// Direct I/O alignment in bytes: the larger of memory's and offset's. `None` where the system does not say or the file
/// has none.
fn direct_alignment(file: &fs::File) -> Option<u32> {
    let mut stat = core::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the descriptor is open, the path is an empty NUL-terminated string (AT_EMPTY_PATH), and the buffer is a whole
    // `statx` that the kernel fills.
    let result = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            stat.as_mut_ptr(),
        )
    };
    // SAFETY: the buffer was zeroed, and all-zero is a valid `statx`.
    let stat = unsafe { stat.assume_init() };
    let known = result == 0 && stat.stx_mask & libc::STATX_DIOALIGN != 0;
    let alignment = stat.stx_dio_mem_align.max(stat.stx_dio_offset_align);
    (known && alignment != 0).then_some(alignment)
}
