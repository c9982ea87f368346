//! How fast a resync may copy, and how much at a time.
//!
//! Owner: the holder. Pure: requests of hosts, copies and the clock in; what the next copy may be out.
//!
//! Without hosts at work there is nobody to protect: as much is under way as keeps both disks and the link busy, at once. Where
//! hosts are at work, copies are small and evenly spaced, and one is under way after the other, but for what a long way between the nodes
//! holds: what is under way is what a request finds before it at the own leg, on the link and at the peer.
//!
//! Two things say that the rate is high enough. A request is *late* when it takes much longer than 99 of 100 do while nothing is copied
//! ([`tail`]); where too many are, the rate falls, from what was really copied. And where less is copied than the rate allows, copies
//! wait for each other, or for something else: then it does not rise. What requests take otherwise is learnt in the rests that copies
//! have every second, so hosts that change what they do are not taken for hosts that suffer. The floor guarantees an end (I13).

mod tail;

#[cfg(test)]
mod tests;

use core::time::Duration;

use engine::Instant;

use tail::Tail;

/// Bytes of one copy at the most.
pub(crate) const COPY_MAX: u64 = 512 << 10;
/// Bytes of one copy while hosts are at work, or where there are no larger frames.
pub(crate) const COPY_MIN: u64 = 64 << 10;
/// Bytes under way where no host is at work.
pub(crate) const UNDER_WAY_MAX: u64 = 2 << 20;
/// How long hosts have to be silent to count as not at work.
const SILENCE: Duration = Duration::from_secs(1);

/// Lowest rate, bytes per second.
const FLOOR: u64 = 16 << 20;
/// First rate.
const FIRST: u64 = 256 << 20;
/// Highest rate.
const CEILING: u64 = 8 << 30;
/// How often the rate may rise,
const LOOK: Duration = Duration::from_millis(50);
/// by so much, once it has fallen; until then by a half.
const STEP: u64 = 16 << 20;
/// What is longer than this of the time that the quickest copy takes is the way there and back.
const SHORT: Duration = Duration::from_micros(100);
/// A copy that begins late by no more than this does not put off the next ones.
const SLACK: Duration = Duration::from_millis(1);

/// How often copies rest while hosts are at work, and for how long; longer, and as much more seldom, where it takes long until none is
/// under way.
const REST_EVERY: Duration = Duration::from_secs(1);
const REST: Duration = Duration::from_millis(30);
const REST_SHARE: u32 = 16;
/// So long after the last copy nothing of it disturbs anybody.
const SETTLED: Duration = Duration::from_millis(5);

/// One late request weighs as much as so many that are not;
const LATE_WEIGHT: u32 = 100;
/// with more than this many of them close together the rate falls.
const LATE_MAX: u32 = 3;

/// Whether requests of hosts wait for their answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Nothing,
    Something,
}

/// Whether hosts ask for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hosts {
    Silent,
    /// They did then.
    AtWork {
        last: Instant,
    },
}

/// How the rate rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rise {
    /// It has not been too high yet: by a half.
    Searching,
    /// It has: by a step.
    Careful,
}

/// A time in which nothing is copied.
#[derive(Clone, Copy, Debug)]
enum Calm {
    /// It goes on.
    Since(Instant),
    /// The last one.
    Was { from: Instant, until: Instant },
}

impl Calm {
    fn has(self, at: Instant) -> bool {
        match self {
            Self::Since(from) => at >= from,
            Self::Was { from, until } => from <= at && at < until,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pace {
    hosts: Hosts,
    /// Bytes per second while hosts are at work.
    rate: u64,
    rise: Rise,
    /// The next copy is not due before.
    due: Instant,
    next_rest: Instant,
    /// Bytes of copies under way.
    under_way: u64,
    /// When the last copy ended.
    ended: Instant,
    /// What the quickest copy took, give or take, once there was one.
    quickest: Option<Duration>,
    /// What a copy takes.
    typical: Duration,
    calm: Calm,
    /// Of requests that came while it was calm.
    usual: Tail,
    /// What late requests weigh.
    burden: u32,
    /// When the last late one was answered that counts: those that were under way then were late for the same reason.
    heard_at: Instant,
    /// Bytes copied since the last look, and bytes a second before that.
    looked_at: Instant,
    copied: u64,
    achieved: u64,
}

impl Default for Pace {
    fn default() -> Self {
        let start = Instant::EPOCH;
        Self {
            hosts: Hosts::Silent,
            rate: FIRST,
            rise: Rise::Searching,
            due: start,
            next_rest: start,
            under_way: 0,
            ended: start,
            quickest: None,
            typical: Duration::ZERO,
            calm: Calm::Since(start),
            usual: Tail::default(),
            burden: 0,
            heard_at: start,
            looked_at: start,
            copied: 0,
            achieved: 0,
        }
    }
}

impl Pace {
    // --- What happens ---

    /// A request of a host was answered.
    pub(crate) fn on_request(&mut self, queued: Instant, now: Instant) {
        self.see_hosts(now);
        let latency = now.saturating_since(queued);
        if self.calm.has(queued) {
            return self.usual.learn(latency);
        }
        match self.usual.limit() {
            Some(limit) if latency <= limit => self.burden = self.burden.saturating_sub(1),
            Some(_) if queued >= self.heard_at => {
                (self.burden, self.heard_at) = (self.burden + LATE_WEIGHT, now);
            }
            Some(_) | None => {}
        }
        if self.burden > LATE_MAX * LATE_WEIGHT {
            self.fall();
        }
    }

    fn see_hosts(&mut self, now: Instant) {
        if self.hosts == Hosts::Silent {
            self.next_rest = now + REST_EVERY;
            // No rate comes of what was copied undisturbed.
            (self.copied, self.looked_at) = (0, now);
        }
        self.hosts = Hosts::AtWork { last: now };
    }

    fn fall(&mut self) {
        let had = if self.achieved == 0 { self.rate } else { self.rate.min(self.achieved) };
        self.rate = (had / 10 * 7).max(FLOOR);
        (self.rise, self.burden) = (Rise::Careful, 0);
    }

    /// A copy begins.
    pub(crate) fn on_copy(&mut self, bytes: u64, now: Instant) {
        self.under_way += bytes;
        if let Calm::Since(from) = self.calm {
            self.calm = Calm::Was { from, until: now };
        }
        if self.hosts != Hosts::Silent {
            let from = self.due.since_epoch().max(now.since_epoch().saturating_sub(SLACK));
            self.due = Instant::from(from + time_of(bytes, self.rate));
        }
    }

    /// A copy ended, whatever became of it.
    pub(crate) fn on_copy_over(&mut self, bytes: u64, now: Instant) {
        self.under_way -= bytes;
        self.ended = now;
    }

    /// So much was copied: only that says how long it takes.
    pub(crate) fn on_copied(&mut self, bytes: u64, took: Duration) {
        self.copied += bytes;
        self.quickest = Some(self.quickest.map_or(took, |quickest| quickest.min(took)));
        self.typical = (self.typical * 7 + took) / 8;
    }

    /// Time passes.
    pub(crate) fn on_time(&mut self, asked: Asked, now: Instant) {
        if asked == Asked::Something {
            self.see_hosts(now);
        }
        if let (Calm::Was { .. }, 0) = (self.calm, self.under_way)
            && now.saturating_since(self.ended) >= SETTLED
        {
            self.calm = Calm::Since(now);
        }
        let Hosts::AtWork { last } = self.hosts else { return };
        if now.saturating_since(last) >= SILENCE {
            self.hosts = Hosts::Silent;
        }
        if now.saturating_since(self.looked_at) >= LOOK {
            self.look(now);
        }
        if now >= self.next_rest {
            let rest = REST + self.typical * 2;
            (self.next_rest, self.due) = (now + REST_EVERY.max(rest * REST_SHARE), self.due.max(now + rest));
            // No rate comes of a rest.
            (self.copied, self.looked_at) = (0, self.due);
        }
    }

    fn look(&mut self, now: Instant) {
        self.achieved = per_second(self.copied, now.saturating_since(self.looked_at));
        (self.copied, self.looked_at) = (0, now);
        // The quickest copy of long ago says less and less.
        self.quickest = self.quickest.map(|quickest| quickest.saturating_add(quickest / 100));
        let keeps_up = self.achieved >= self.rate / 4 * 3;
        if keeps_up && self.burden < LATE_WEIGHT {
            let more = if self.rise == Rise::Searching { self.rate / 2 } else { STEP };
            self.rate = (self.rate + more).min(CEILING);
        }
    }

    // --- What may be done ---

    /// Bytes of the next copy at the most, if it may begin now.
    pub(crate) fn next_copy(&self, now: Instant) -> Option<u64> {
        let (most, limit) = match self.hosts {
            Hosts::Silent => (COPY_MAX, UNDER_WAY_MAX),
            Hosts::AtWork { .. } if now < self.due => return None,
            Hosts::AtWork { .. } => (COPY_MIN, self.needed_under_way()),
        };
        (self.under_way < limit).then_some(most)
    }

    /// One copy after the other, so that both nodes have time for hosts in between, and beside that what a long way holds; but no less than
    /// makes the lowest rate of copies that take what they take.
    fn needed_under_way(&self) -> u64 {
        let way = self.quickest.unwrap_or(Duration::ZERO).saturating_sub(SHORT);
        let held = bytes_in(way, self.rate).max(bytes_in(self.typical, FLOOR));
        held.saturating_add(1).min(UNDER_WAY_MAX)
    }

    /// When one may begin that may not yet.
    pub(crate) fn next_try(&self, now: Instant) -> Option<Instant> {
        (self.hosts != Hosts::Silent && self.due > now).then_some(self.due)
    }
}

const NANOS: u128 = 1_000_000_000;

fn bytes_in(time: Duration, rate: u64) -> u64 {
    u64::try_from(u128::from(rate) * time.as_nanos() / NANOS).unwrap_or(u64::MAX)
}

fn time_of(bytes: u64, rate: u64) -> Duration {
    Duration::from_nanos(u64::try_from(u128::from(bytes) * NANOS / u128::from(rate)).unwrap_or(u64::MAX))
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(bytes) * NANOS / time.as_nanos().max(1)).unwrap_or(u64::MAX)
}
