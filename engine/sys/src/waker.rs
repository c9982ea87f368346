//! Waking a reactor that sleeps in its ring.
//!
//! Protocol, so that no wake-up is lost: the sleeper sets its flag, looks at its mailbox once more, then sleeps; a sender
//! puts its message first and looks at the flag after. Either the sender sees the flag and rings, or the sleeper's last look
//! sees the message. Both sides order with sequentially consistent fences. A reactor rings by a message from its ring to the
//! sleeper's ([`crate::RingHandle::wake`]), which costs no system call of its own; any other thread by the event counter.

use core::sync::atomic::{AtomicBool, AtomicI32, Ordering, fence};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::Arc;

const NO_RING: RawFd = -1;

#[derive(Debug)]
struct Shared {
    sleeping: AtomicBool,
    /// The sleeper's ring; [`NO_RING`] before it is made and after it is gone.
    ring: AtomicI32,
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
        let (sleeping, ring) = (AtomicBool::new(false), AtomicI32::new(NO_RING));
        Ok(Self { shared: Arc::new(Shared { sleeping, ring, event }) })
    }

    /// Wakes the reactor if it sleeps or is about to. Call after the message is in place.
    pub fn wake(&self) {
        if self.claim() {
            self.ring_by_event();
        }
    }

    /// True when the reactor sleeps, or is about to, and the caller is the one who has to ring.
    pub(crate) fn claim(&self) -> bool {
        fence(Ordering::SeqCst);
        self.shared.sleeping.swap(false, Ordering::SeqCst)
    }

    pub(crate) fn ring_by_event(&self) {
        // A full counter means that a wake-up is pending already.
        let _ = (&self.shared.event).write_all(&1u64.to_le_bytes());
    }

    /// The sleeper's ring, to send a message to. It may be gone by then: the kernel says so to the sender.
    pub(crate) fn ring(&self) -> Option<RawFd> {
        Some(self.shared.ring.load(Ordering::Relaxed)).filter(|raw| *raw != NO_RING)
    }

    /// The ring that the reactor sleeps in; `None` once it is gone.
    pub(crate) fn set_ring(&self, ring: Option<RawFd>) {
        self.shared.ring.store(ring.unwrap_or(NO_RING), Ordering::Relaxed);
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
