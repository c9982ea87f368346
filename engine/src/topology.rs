//! Cores and pinned reactor threads.

use std::io;
use std::thread::{Builder, JoinHandle};

use engine_sys::{Pool, RingCapabilities, RingConfig, RingHandle, RingMode, Waker};
use thiserror::Error;

use crate::idle::IdlePolicy;
use crate::mailbox::{Sender, mailbox};
use crate::reactor::{Reactor, Shard};
use crate::stats::ReactorStats;
use crate::{Clock, Core};

/// Messages that a reactor's mailbox holds.
const MAILBOX_CAPACITY: usize = 1024;

/// Cores to run reactors on, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreList(Vec<u32>);

/// Not a list of cores.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CoreListError {
    /// The text is no list.
    #[error("bad core list {0:?}: use core numbers and ranges, as 0,2-3")]
    Syntax(String),
    /// A core is named twice.
    #[error("core {0} is named twice")]
    Twice(u32),
    /// No core is named.
    #[error("no core is named")]
    Empty,
}

impl CoreList {
    /// The cores.
    pub fn cores(&self) -> &[u32] {
        &self.0
    }
}

impl ::core::str::FromStr for CoreList {
    type Err = CoreListError;

    fn from_str(text: &str) -> Result<Self, CoreListError> {
        let syntax = || CoreListError::Syntax(text.to_owned());
        let number =
            |text: &str| text.trim().parse::<u32>().ok().filter(|core| *core < 1024).ok_or_else(syntax);
        let mut cores = Vec::new();
        for part in text.trim_matches(['[', ']']).split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            for core in number(first)?..=number(last)? {
                if cores.contains(&core) {
                    return Err(CoreListError::Twice(core));
                }
                cores.push(core);
            }
        }
        if cores.is_empty() { Err(CoreListError::Empty) } else { Ok(Self(cores)) }
    }
}

/// Whether a reactor's thread stays on its core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinning {
    /// Pinned.
    Pinned,
    /// The system would not: no such core here, or not permitted. The reactor runs where the scheduler puts it.
    Floating,
}

/// How a reactor runs.
#[derive(Clone, Copy, Debug)]
pub struct ReactorConfig {
    /// Its core.
    pub core: u32,
    /// What it does when idle.
    pub policy: IdlePolicy,
    /// What it uses of io_uring.
    pub ring: RingMode,
}

/// A reactor that runs.
#[derive(Debug)]
pub struct ReactorThread<M> {
    /// Its core.
    pub core: u32,
    /// Whether it stays there.
    pub pinning: Pinning,
    /// What its ring uses.
    pub ring: RingCapabilities,
    /// Its thread's identifier in the system.
    pub thread: JoinHandle<io::Result<()>>,
    /// Its mailbox.
    pub sender: Sender<M>,
    /// Its counters.
    pub stats: ReactorStats,
}

/// Starts a reactor; `build` makes its shard on the new thread, from the core and the reactor's counters.
///
/// # Errors
/// The system's, when there is no thread or no io_uring.
pub fn spawn<S, C, F>(
    config: ReactorConfig,
    pool: Pool,
    clock: C,
    build: F,
) -> io::Result<ReactorThread<S::Message>>
where
    S: Shard,
    C: Clock + Send + 'static,
    F: FnOnce(&Core, ReactorStats) -> S + Send + 'static,
{
    let ReactorConfig { core, policy, ring: mode } = config;
    let waker = Waker::new()?;
    let (sender, inbox) = mailbox(MAILBOX_CAPACITY, waker.clone());
    let stats = ReactorStats::default();
    let (started, outcome) = std::sync::mpsc::sync_channel(1);
    let thread = Builder::new().name(format!("reactor_{core}")).spawn({
        let stats = stats.clone();
        move || {
            let pinning = pin(core);
            let ring = match RingHandle::new(RingConfig { mode, ..RingConfig::default() }, &pool, waker) {
                Ok(ring) => ring,
                Err(error) => {
                    // The spawner reports it; nobody else waits for this thread.
                    let _ = started.send(Err(error));
                    return Ok(());
                }
            };
            let context = Core::new(core, pool, ring.clone());
            let shard = build(&context, stats.clone());
            let _ = started.send(Ok((pinning, ring.capabilities())));
            Reactor::new(shard, inbox, ring, clock, policy, stats).run().map(drop)
        }
    })?;
    let gone = || io::Error::other("the reactor's thread ended while it started");
    let (pinning, ring) = outcome.recv().map_err(|_| gone())??;
    Ok(ReactorThread { core, pinning, ring, thread, sender, stats })
}

fn pin(core: u32) -> Pinning {
    let id = core_affinity::CoreId { id: core as usize };
    let exists = core_affinity::get_core_ids().is_some_and(|ids| ids.contains(&id));
    if exists && core_affinity::set_for_current(id) { Pinning::Pinned } else { Pinning::Floating }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Instant, MonotonicClock, Progress};

    #[test]
    fn core_lists_parse() {
        let cores = |text: &str| text.parse::<CoreList>().map(|list| list.0);
        assert_eq!(cores("0"), Ok(vec![0]));
        assert_eq!(cores("[3,0-2]"), Ok(vec![3, 0, 1, 2]));
        assert_eq!(cores("1,1"), Err(CoreListError::Twice(1)));
        assert_eq!(cores("2-1"), Err(CoreListError::Empty));
        for text in ["", "a", "0-", "-1", "0,,1", "99999"] {
            assert!(matches!(cores(text), Err(CoreListError::Syntax(_))), "{text}");
        }
    }

    struct Echo {
        replies: std::sync::mpsc::Sender<u32>,
        finished: bool,
    }

    impl Shard for Echo {
        type Message = u32;

        fn handle(&mut self, message: u32, _now: Instant) {
            self.finished = message == 0;
            self.replies.send(message).expect("the test listens");
        }

        fn poll(&mut self, _now: Instant) -> Progress {
            Progress::Idle
        }

        fn next_deadline(&self) -> Option<Instant> {
            None
        }

        fn is_finished(&self) -> bool {
            self.finished
        }
    }

    #[test]
    fn a_reactor_answers_under_every_policy_and_ends() {
        for policy in ["spin", "yield", "adaptive:50", "block"] {
            let (replies, answers) = std::sync::mpsc::channel();
            let policy = policy.parse().expect("a policy");
            let build = move |_: &Core, _| Echo { replies, finished: false };
            let config = ReactorConfig { core: 0, policy, ring: RingMode::Probe };
            let reactor =
                spawn(config, Pool::for_tests(), MonotonicClock::start(), build).expect("a reactor");
            for message in (0..200).rev() {
                reactor.sender.send(message).expect("room");
                assert_eq!(answers.recv(), Ok(message));
            }
            reactor.thread.join().expect("no panic").expect("no error");
            assert_eq!(reactor.stats.snapshot().messages, 200);
        }
    }
}
