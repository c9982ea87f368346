//! One io_uring, owned by one reactor, which carries its disk and network operations.
//!
//! Invariants:
//! - every operation that the kernel has is in `flights`, by value, with its buffers, descriptors and message headers, from
//!   before its submission entry is pushed until its completion is taken; a buffer cannot die before its completion;
//! - each accepted operation produces exactly one [`Completion`], put into the inbox of the client that asked, or dropped
//!   (buffers and all) when that client is gone;
//! - dropping the ring cancels what is in flight and waits for it.
//!
//! Not `Send`: the ring is made on the reactor's thread (`IORING_SETUP_SINGLE_ISSUER`).

mod capabilities;
mod files;
mod flight;
mod operation;

use core::time::Duration;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use io_uring::{EnterFlags, IoUring, opcode, squeue, types};

pub use capabilities::{RingCapabilities, RingMode, UnknownRingMode};
use files::Files;
pub use files::Registered;
use flight::Flight;
pub use operation::{Completion, Operation, RangeMode, WriteMode};

use crate::pool::Pool;
use crate::waker::Waker;

/// Completion's name of the wake-up read.
const WAKE: u64 = u64::MAX;
/// Completion's name of cancellations, whose own results do not matter.
const CANCEL: u64 = u64::MAX - 1;
/// Completion's name of another ring's message: there is nothing in it, it ends a sleep.
pub(super) const WOKEN: u64 = u64::MAX - 2;

/// Size and mode of a ring.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Submission entries, and the most operations in flight.
    pub entries: u32,
    /// What to use of what the kernel has.
    pub mode: RingMode,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self { entries: 2048, mode: RingMode::Probe }
    }
}

struct Ring {
    uring: IoUring,
    capabilities: RingCapabilities,
    flights: Box<[Option<Flight>]>,
    free: Vec<u32>,
    inboxes: Vec<Option<VecDeque<Completion>>>,
    arena: Option<Pool>,
    files: Option<Files>,
    waker: Waker,
    wake_value: Box<u64>,
    wake_armed: bool,
    unsubmitted: usize,
}

/// A handle to a reactor's ring.
#[derive(Clone)]
pub struct RingHandle {
    ring: Rc<RefCell<Ring>>,
}

impl core::fmt::Debug for RingHandle {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("RingHandle")
            .field("capabilities", &self.ring.borrow().capabilities)
            .finish_non_exhaustive()
    }
}

impl RingHandle {
    /// Makes the ring of the calling thread's reactor; registers the pool's arena where the kernel allows.
    ///
    /// # Errors
    /// The system's, when io_uring itself is absent or forbidden.
    pub fn new(config: RingConfig, pool: &Pool, waker: Waker) -> io::Result<Self> {
        let (uring, mut capabilities) = capabilities::build(config)?;
        let registered = config.mode == RingMode::Probe && register_arena(&uring, pool).is_ok();
        capabilities.fixed_buffers = registered;
        let files = if config.mode == RingMode::Probe { Files::new(&uring).ok() } else { None };
        capabilities.fixed_files = files.is_some();
        let entries = config.entries;
        waker.set_ring(Some(uring.as_raw_fd()));
        let ring = Ring {
            uring,
            capabilities,
            flights: (0..entries).map(|_| None).collect(),
            free: (0..entries).rev().collect(),
            inboxes: Vec::new(),
            arena: registered.then(|| pool.clone()),
            files,
            waker,
            wake_value: Box::new(0),
            wake_armed: false,
            unsubmitted: 0,
        };
        Ok(Self { ring: Rc::new(RefCell::new(ring)) })
    }

    /// What the kernel offered and the ring uses.
    pub fn capabilities(&self) -> RingCapabilities {
        self.ring.borrow().capabilities
    }

    /// Wakes this ring's reactor from another thread.
    pub fn waker(&self) -> Waker {
        self.ring.borrow().waker.clone()
    }

    /// Wakes another reactor, if it sleeps or is about to, from this ring's. Call after the message is in place; it leaves
    /// with the next turn.
    pub fn wake(&self, sleeper: &Waker) {
        if sleeper.claim() {
            self.ring.borrow_mut().send_wake(sleeper);
        }
    }

    /// A new inbox for one user of the ring.
    pub fn attach(&self) -> RingClient {
        let mut ring = self.ring.borrow_mut();
        let vacant = ring.inboxes.iter().position(Option::is_none).unwrap_or_else(|| {
            ring.inboxes.push(None);
            ring.inboxes.len() - 1
        });
        ring.inboxes[vacant] = Some(VecDeque::with_capacity(64));
        RingClient { handle: self.clone(), id: vacant }
    }

    /// Hands what was submitted to the kernel and takes what completed; returns how many completed.
    ///
    /// # Errors
    /// The system's; only a broken ring fails here.
    pub fn turn(&self) -> io::Result<usize> {
        let mut ring = self.ring.borrow_mut();
        ring.enter_if_needed()?;
        ring.clear_places();
        Ok(ring.reap())
    }

    /// As [`RingHandle::turn`], but sleeps until something completes, the waker is used, or `timeout` passed. Announce the
    /// sleep on the waker, and look for messages, before.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<usize> {
        let mut ring = self.ring.borrow_mut();
        ring.arm_wake();
        ring.sleep(timeout)?;
        ring.clear_places();
        Ok(ring.reap())
    }

    /// Operations in flight.
    pub fn in_flight(&self) -> usize {
        let ring = self.ring.borrow();
        ring.flights.len() - ring.free.len()
    }
}

/// One user's inbox of a ring. Dropping it lets operations in flight end on their own; their buffers are freed then.
#[derive(Debug)]
pub struct RingClient {
    handle: RingHandle,
    id: usize,
}

impl RingClient {
    /// Starts an operation; it reaches the kernel at the reactor's next ring turn at the latest.
    ///
    /// # Errors
    /// Gives the operation back when the ring is full.
    pub fn submit(&self, token: u64, operation: Operation) -> Result<(), Operation> {
        self.handle.ring.borrow_mut().submit(self.id, token, operation)
    }

    /// The next operation that ended.
    pub fn take(&self) -> Option<Completion> {
        self.handle.ring.borrow_mut().inboxes[self.id].as_mut()?.pop_front()
    }

    /// Asks the kernel to give up the operations with this token; they complete with `ECANCELED` or as they would have.
    pub fn cancel(&self, token: u64) {
        self.handle.ring.borrow_mut().cancel(self.id, token);
    }
}

impl Drop for RingClient {
    fn drop(&mut self) {
        self.handle.ring.borrow_mut().detach(self.id);
    }
}

impl Ring {
    fn submit(&mut self, client: usize, token: u64, operation: Operation) -> Result<(), Operation> {
        let Some(slot) = self.free.pop() else { return Err(operation) };
        self.start(slot, Flight::new(client, token, operation));
        Ok(())
    }

    fn send_wake(&mut self, sleeper: &Waker) {
        let by_message = self.capabilities.messages && sleeper.ring().is_some();
        match by_message.then(|| self.free.pop()).flatten() {
            Some(slot) => self.start(slot, Flight::unwatched(Operation::Wake { sleeper: sleeper.clone() })),
            None => sleeper.ring_by_event(),
        }
    }

    fn start(&mut self, slot: u32, mut flight: Flight) {
        let entry = flight.entry(self.arena.as_ref(), self.files.as_ref()).user_data(u64::from(slot));
        self.flights[slot as usize] = Some(flight);
        // SAFETY: everything that the entry points at is owned by the flight, which stays in `flights` until the completion
        // is taken: frames lie in the arena, headers and addresses in boxes that do not move.
        unsafe { self.push(&entry) };
    }

    /// # Safety
    /// What the entry points at stays valid and unmoved until its completion is reaped.
    unsafe fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: the caller's promise.
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                self.unsubmitted += 1;
                return;
            }
            // The queue is full: hand it over and try again.
            self.enter_if_needed().expect("io_uring_enter takes a full queue");
        }
    }

    fn enter_if_needed(&mut self) -> io::Result<()> {
        let (taskrun, overflow) = {
            let queue = self.uring.submission();
            (queue.taskrun(), queue.cq_overflow())
        };
        if self.unsubmitted == 0 && !taskrun && !overflow {
            return Ok(());
        }
        let flags = EnterFlags::GETEVENTS.bits();
        let to_submit = u32::try_from(self.unsubmitted).expect("bounded by the ring");
        // SAFETY: no argument structure is passed; every queued entry's memory is owned by `flights`.
        match unsafe { self.uring.submitter().enter::<libc::sigset_t>(to_submit, 0, flags, None) } {
            Ok(submitted) => {
                self.unsubmitted -= submitted.min(self.unsubmitted);
                Ok(())
            }
            Err(error) if is_transient(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Frees the places of registrations that are no more, once the kernel has taken every entry that may name them. Where it takes none
    /// now, a later turn does it.
    fn clear_places(&mut self) {
        if !self.files.as_ref().is_some_and(Files::has_leaving) {
            return;
        }
        // An error that lasts shows in the next turn.
        let entered = self.unsubmitted == 0 || self.enter_if_needed().is_ok();
        if let Some(files) = self.files.as_mut().filter(|_| entered && self.unsubmitted == 0) {
            files.clear(&self.uring);
        }
    }

    fn sleep(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if !self.uring.completion().is_empty() {
            return Ok(());
        }
        let result = match timeout {
            Some(timeout) => {
                let timespec = types::Timespec::from(timeout);
                self.uring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&timespec))
            }
            None => self.uring.submit_and_wait(1),
        };
        self.unsubmitted = self.uring.submission().len();
        match result {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ETIME) || is_transient(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn arm_wake(&mut self) {
        if self.wake_armed {
            return;
        }
        self.wake_armed = true;
        let fd = types::Fd(self.waker.raw());
        let target = (&raw mut *self.wake_value).cast();
        let entry = opcode::Read::new(fd, target, 8).build().user_data(WAKE);
        // SAFETY: the value is boxed and lives as long as the ring, which reaps this read before it goes.
        unsafe { self.push(&entry) };
    }

    fn reap(&mut self) -> usize {
        let mut count = 0;
        loop {
            let Some(entry) = self.uring.completion().next() else { return count };
            count += 1;
            match entry.user_data() {
                WAKE => self.wake_armed = false,
                CANCEL | WOKEN => {}
                slot => self.land(slot, entry.result()),
            }
        }
    }

    fn land(&mut self, slot: u64, result: i32) {
        let index = usize::try_from(slot).expect("slots are 32 bits");
        let flight = self.flights[index].take().expect("a completion belongs to a flight");
        self.free.push(u32::try_from(slot).expect("slots are 32 bits"));
        let (client, completion) = flight.land(result);
        if let Some(inbox) = client.and_then(|client| self.inboxes[client].as_mut()) {
            inbox.push_back(completion);
        }
    }

    fn cancel(&mut self, client: usize, token: u64) {
        let slots: Vec<u64> = (0u64..)
            .zip(self.flights.iter())
            .filter(|(_, flight)| flight.as_ref().is_some_and(|flight| flight.is(client, token)))
            .map(|(slot, _)| slot)
            .collect();
        for slot in slots {
            let entry = opcode::AsyncCancel::new(slot).build().user_data(CANCEL);
            // SAFETY: a cancellation points at nothing.
            unsafe { self.push(&entry) };
        }
    }

    /// Frees the inbox; what is still in flight for it ends without one.
    fn detach(&mut self, client: usize) {
        for flight in self.flights.iter_mut().flatten() {
            flight.orphan_if(client);
        }
        self.inboxes[client] = None;
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.waker.set_ring(None);
        let everything = types::CancelBuilder::any();
        // Without this call (an old kernel) the loop below still ends: sockets and files complete on their own.
        let _ = self.uring.submitter().register_sync_cancel(Some(types::Timespec::new().sec(1)), everything);
        while self.free.len() < self.flights.len() || self.wake_armed {
            if self.wake_armed {
                self.waker.announce_sleep();
                self.waker.wake();
            }
            if self.sleep(Some(Duration::from_millis(100))).is_err() {
                // The kernel tears the ring down with the descriptor; leak the buffers rather than free them early.
                core::mem::forget(core::mem::take(&mut self.flights));
                return;
            }
            self.reap();
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN))
}

fn register_arena(uring: &IoUring, pool: &Pool) -> io::Result<()> {
    // One registration holds at most 1 GiB.
    if pool.bytes() > 1 << 30 {
        return Err(io::Error::from_raw_os_error(libc::EFAULT));
    }
    // SAFETY: the arena lives as long as the pool, and the ring keeps a handle to the pool while registered.
    unsafe { uring.submitter().register_buffers(&[pool.arena_iovec()]) }
}

#[cfg(test)]
mod tests;
