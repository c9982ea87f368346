//! What a reactor polls, and how often there was something to do.
//!
//! Owner: the reactor. A poller runs once a turn; "busy" are the turns in which it moved something.

use engine::Progress;

/// How often something was polled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PollCount {
    /// Times polled.
    pub runs: u64,
    /// Times that there was something to do.
    pub busy: u64,
}

impl PollCount {
    /// Counts a poll; gives its outcome back.
    pub fn count(&mut self, progress: Progress) -> Progress {
        self.runs += 1;
        self.busy += u64::from(progress.is_busy());
        progress
    }
}

/// Something with a count of its polls.
#[derive(Debug)]
pub struct Polled<T> {
    /// It.
    pub what: T,
    /// How often it was polled.
    pub count: PollCount,
}

impl<T> Polled<T> {
    /// Not polled yet.
    pub fn new(what: T) -> Self {
        Self { what, count: PollCount::default() }
    }
}

/// One poller, for whoever looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollerInfo {
    /// What it is, and of which object.
    pub name: String,
    /// How often it ran.
    pub count: PollCount,
}
