//! The reactor: one thread, one core, one ring, one shard.
//!
//! A turn is: take messages, take completions, poll the shard, hand new operations to the kernel, account. Each step has a
//! bound; nothing in it blocks. Only between turns, when there was nothing to do, the idle policy may yield or sleep.

use ::core::time::Duration;
use std::io;

use engine_sys::{RingHandle, Waker};

use crate::idle::{IdlePolicy, Idler, Rest};
use crate::mailbox::Receiver;
use crate::slices::{Slice, Slices};
use crate::stats::ReactorStats;
use crate::{Clock, Instant, Progress};

/// Messages taken in one turn at the most.
const MESSAGE_BUDGET: usize = 64;
/// The longest sleep: a lost wake-up would cost this much, never a hang.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// What a reactor runs. A shard lives on its reactor's thread and is not `Send`.
pub trait Shard {
    /// What other threads may send it: one closed enum.
    type Message: Send + 'static;

    /// Takes one message.
    fn handle(&mut self, message: Self::Message, now: Instant);

    /// Polls everything that the shard holds.
    fn poll(&mut self, now: Instant) -> Progress;

    /// The reactor is about to sleep: have the ring complete something when there is work that does not come through it. A
    /// poll follows.
    fn prepare_sleep(&mut self) {}

    /// When `poll` must be called at the latest even if nothing happens.
    fn next_deadline(&self) -> Option<Instant>;

    /// True when the reactor should return.
    fn is_finished(&self) -> bool;
}

/// One reactor.
#[derive(Debug)]
pub struct Reactor<S: Shard, C> {
    shard: S,
    inbox: Receiver<S::Message>,
    ring: RingHandle,
    waker: Waker,
    clock: C,
    idler: Idler,
    slices: Slices,
    stats: ReactorStats,
}

impl<S: Shard, C: Clock> Reactor<S, C> {
    /// A reactor of the calling thread.
    pub fn new(
        shard: S,
        inbox: Receiver<S::Message>,
        ring: RingHandle,
        clock: C,
        policy: IdlePolicy,
        stats: ReactorStats,
    ) -> Self {
        let waker = ring.waker();
        Self {
            shard,
            inbox,
            ring,
            waker,
            clock,
            idler: Idler::new(policy),
            slices: Slices::of_this_thread(),
            stats,
        }
    }

    /// One turn.
    ///
    /// # Errors
    /// The system's, when the ring itself is broken.
    pub fn turn(&mut self, now: Instant) -> io::Result<Progress> {
        let mut progress = self.take_messages(now);
        progress |= Progress::from_count(self.ring.turn()?);
        progress |= self.shard.poll(now);
        progress |= Progress::from_count(self.ring.turn()?);
        self.stats.count_turn();
        Ok(progress)
    }

    fn take_messages(&mut self, now: Instant) -> Progress {
        for taken in 0..MESSAGE_BUDGET {
            let Some(message) = self.inbox.receive() else { return Progress::from_count(taken) };
            self.stats.count_message();
            self.shard.handle(message, now);
        }
        Progress::Busy
    }

    /// Turns until the shard is finished; gives it back.
    ///
    /// # Errors
    /// The system's, when the ring itself is broken.
    pub fn run(mut self) -> io::Result<S> {
        let mut before = self.clock.now();
        while !self.shard.is_finished() {
            let progress = self.turn(before)?;
            let after = self.clock.now();
            if progress.is_busy() {
                self.idler.on_busy();
                self.stats.add_busy(after - before);
                before = after;
                continue;
            }
            self.rest(after)?;
            let rested = self.clock.now();
            self.stats.add_idle(rested - before);
            before = rested;
        }
        Ok(self.shard)
    }

    fn rest(&mut self, now: Instant) -> io::Result<()> {
        match self.idler.on_idle(now) {
            Rest::Pause => ::core::hint::spin_loop(),
            Rest::Yield => {
                self.slices.have(Slice::Ordinary);
                std::thread::yield_now();
                self.idler.on_yielded(now, self.clock.now());
            }
            Rest::Sleep => {
                self.slices.have(if self.idler.is_beside_a_hog() { Slice::Short } else { Slice::Ordinary });
                self.sleep(now)?;
            }
        }
        Ok(())
    }

    fn sleep(&mut self, now: Instant) -> io::Result<()> {
        let timeout =
            self.shard.next_deadline().map_or(SLEEP_MAX, |at| at.saturating_since(now).min(SLEEP_MAX));
        self.waker.announce_sleep();
        self.shard.prepare_sleep();
        // Whoever sent before the announcement did not wake us: look once more.
        if self.inbox.is_empty() && !self.shard.poll(now).is_busy() && !timeout.is_zero() {
            self.stats.count_sleep();
            if self.ring.wait(Some(timeout))? > 0 {
                self.idler.on_busy();
            }
        }
        self.waker.announce_awake();
        Ok(())
    }
}
