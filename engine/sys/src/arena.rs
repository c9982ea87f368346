//! One anonymous mapping, prefaulted at start, that every buffer lives in.
//!
//! Huge pages first: fewer translation misses and no page fault on the data path. Where the machine has none to spare the
//! arena falls back to ordinary pages and says why, in one line, through [`PageBacking`].

use core::fmt;
use core::ptr::NonNull;

use memmap2::{MmapMut, MmapOptions};
use thiserror::Error;

/// Size of a huge page in bytes.
pub const HUGE_PAGE: usize = 2 << 20;

/// What an arena is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageBacking {
    /// 2 MiB huge pages.
    Huge,
    /// Ordinary pages.
    Ordinary {
        /// Why not huge ones.
        why: String,
    },
}

impl fmt::Display for PageBacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Huge => f.write_str("2 MiB huge pages"),
            Self::Ordinary { why } => write!(f, "ordinary pages ({why})"),
        }
    }
}

/// Why no arena could be mapped.
#[derive(Debug, Error)]
#[error("cannot map {bytes} bytes of buffer memory: {source}; ask for less memory")]
pub struct ArenaError {
    bytes: usize,
    source: std::io::Error,
}

pub(crate) struct Arena {
    base: NonNull<u8>,
    len: usize,
    backing: PageBacking,
    /// Keeps the mapping alive; all access goes through `base`.
    _map: MmapMut,
}

// SAFETY: the arena itself never reads or writes its memory after construction; `Buf` and `BufMut` govern access.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// At least `bytes` bytes on huge pages, or on ordinary ones with the reason.
    pub(crate) fn prefer_huge(bytes: usize) -> Result<Self, ArenaError> {
        let len = bytes.next_multiple_of(HUGE_PAGE);
        let huge = MmapOptions::new().len(len).huge(Some(21)).populate().map_anon();
        match huge {
            Ok(map) => Ok(Self::over(map, PageBacking::Huge)),
            Err(error) => {
                let why = format!(
                    "no {} free huge pages: {error}; raise vm.nr_hugepages for fewer translation misses",
                    len / HUGE_PAGE
                );
                Self::map_ordinary(len, why)
            }
        }
    }

    /// At least `bytes` bytes on ordinary pages.
    pub(crate) fn ordinary(bytes: usize) -> Result<Self, ArenaError> {
        Self::map_ordinary(bytes.next_multiple_of(HUGE_PAGE), "as configured".to_owned())
    }

    fn map_ordinary(len: usize, why: String) -> Result<Self, ArenaError> {
        let map = MmapOptions::new()
            .len(len)
            .populate()
            .map_anon()
            .map_err(|source| ArenaError { bytes: len, source })?;
        Ok(Self::over(map, PageBacking::Ordinary { why }))
    }

    fn over(mut map: MmapMut, backing: PageBacking) -> Self {
        // One write to each page: `populate` may have mapped the shared zero page, and a first touch on the data path can
        // cost milliseconds on a virtual machine.
        for page in map.chunks_mut(4096) {
            page[0] = 0;
        }
        let len = map.len();
        let base = NonNull::new(map.as_mut_ptr()).expect("a mapping is not at address zero");
        Self { base, len, backing, _map: map }
    }

    pub(crate) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < self.len, "offset {offset} is outside the arena");
        // SAFETY: `offset` is inside the mapping.
        unsafe { self.base.add(offset) }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn backing(&self) -> &PageBacking {
        &self.backing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than the machine has set aside: the arena is there all the same, and says why it is not on huge pages.
    #[test]
    fn what_no_huge_pages_are_left_for_is_on_ordinary_ones() {
        let free = std::fs::read_to_string("/proc/sys/vm/nr_hugepages").expect("procfs");
        let free: usize = free.trim().parse().expect("a number");
        let arena = Arena::prefer_huge((free + 4) * HUGE_PAGE).expect("ordinary pages");
        let PageBacking::Ordinary { why } = arena.backing() else { panic!("{}", arena.backing()) };
        assert!(why.contains("huge pages") && why.contains("vm.nr_hugepages"), "{why}");
        assert_eq!(arena.len(), (free + 4) * HUGE_PAGE);
    }
}
