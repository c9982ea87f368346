//! The memory that frames of an AF_XDP socket lie in: chunks of a page, first those to receive into, then those to send from.

use core::slice;
use std::io;

use memmap2::{MmapOptions, MmapRaw};

/// Bytes of a chunk; the kernel takes no larger ones.
pub(super) const CHUNK: usize = 4096;

/// See the module. Which chunks are this process's, its owner knows.
#[derive(Debug)]
pub(super) struct Umem {
    map: MmapRaw,
}

impl Umem {
    pub(super) fn new(chunks: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(chunks * CHUNK).populate().map_anon()?;
        Ok(Self { map: map.into() })
    }

    pub(super) fn registration(&self) -> libc::xdp_umem_reg {
        libc::xdp_umem_reg {
            addr: self.map.as_ptr() as u64,
            len: self.map.len() as u64,
            chunk_size: u32::try_from(CHUNK).expect("a page"),
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        }
    }

    /// True when the bytes lie in it.
    pub(super) fn has(&self, at: usize, len: usize) -> bool {
        at.checked_add(len).is_some_and(|end| end <= self.map.len())
    }

    /// # Safety
    /// The bytes' chunks are this process's, and not written to while the slice lives.
    ///
    /// # Panics
    /// When they are not in it.
    pub(super) unsafe fn bytes(&self, at: usize, len: usize) -> &[u8] {
        assert!(self.has(at, len), "no bytes of this memory");
        // SAFETY: they lie in the mapping, which is initialised; the caller's promise for the rest.
        unsafe { slice::from_raw_parts(self.map.as_ptr().add(at), len) }
    }

    /// # Safety
    /// The bytes' chunks are this process's, and nobody else's slice of them lives.
    ///
    /// # Panics
    /// When they are not in it.
    #[expect(
        clippy::mut_from_ref,
        reason = "the caller promises what a borrow would: the map is shared by two halves"
    )]
    pub(super) unsafe fn bytes_mut(&self, at: usize, len: usize) -> &mut [u8] {
        assert!(self.has(at, len), "no bytes of this memory");
        // SAFETY: they lie in the mapping, which is initialised; the caller's promise for the rest.
        unsafe { slice::from_raw_parts_mut(self.map.as_mut_ptr().add(at), len) }
    }
}
