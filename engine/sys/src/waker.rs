//! Waking a reactor that sleeps in its ring.
//!
//! Protocol, so that no wake-up is lost: the sleeper sets its flag, looks at its mailbox once more, then sleeps; a sender
//! puts its message first and looks at the flag after. Either the sender sees the flag and writes the event counter, or the
//! sleeper's last look sees the message. Both sides order with sequentially consistent fences.

use core::sync::atomic::{AtomicBool, Ordering, fence};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::Arc;

#[derive(Debug)]
struct Shared {
    sleeping: AtomicBool,
    event: File,
}

/// Wakes one reactor from any thread. A call costs one atomic read while the reactor is awake.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Shared>,
}

impl Waker {
    /// A waker with its event counter.
    ///
    /// # Errors
    /// The system's: no descriptors left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else has it.
        let event = unsafe { File::from_raw_fd(fd) };
        Ok(Self { shared: Arc::new(Shared { sleeping: AtomicBool::new(false), event }) })
    }

    /// Wakes the reactor if it sleeps or is about to. Call after the message is in place.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.shared.sleeping.swap(false, Ordering::SeqCst) {
            // A full counter means that a wake-up is pending already.
            let _ = (&self.shared.event).write_all(&1u64.to_le_bytes());
        }
    }

    /// Says that the reactor is about to sleep. It must look for messages once more after this.
    pub fn announce_sleep(&self) {
        self.shared.sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Says that the reactor is awake again.
    pub fn announce_awake(&self) {
        self.shared.sleeping.store(false, Ordering::SeqCst);
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.shared.event.as_raw_fd()
    }
}
