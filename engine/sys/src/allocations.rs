//! The system's allocator with a count of what it was asked for: how a program shows that a path of its own takes no memory.

use core::sync::atomic::{AtomicU64, Ordering};
use std::alloc::{GlobalAlloc, Layout, System};

static ASKED: AtomicU64 = AtomicU64::new(0);

/// For `#[global_allocator]` of a program that counts.
#[derive(Debug)]
pub struct CountingAllocator;

/// How often memory was asked for since the start, by all threads, more room for what was there counted too; always zero in a program
/// whose allocator is another.
pub fn asked() -> u64 {
    ASKED.load(Ordering::Relaxed)
}

fn count() {
    ASKED.fetch_add(1, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory but the counter.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that `System` wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        count();
        // SAFETY: as above; `old` came from `System`, as all memory here does.
        unsafe { System.realloc(old, layout, len) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(old, layout) }
    }
}
