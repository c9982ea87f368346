//! What was passed to the peer over a way that is lost, and what waits until none of it can land any more.
//!
//! Bytes of a command may still be on their way to the peer when the relay has given it up, and the peer's end of the relay may
//! take them later. So nothing that says that such a command is over is told before a barrier: a new relay of the same nexus is
//! let in, which ends the old one at the peer with all that is at work there; or this node serves the unit, and the peer is
//! locked out of it. Where neither comes, [`SETTLE_MAX`] ends the wait: the peer ends a relay that has said nothing for
//! [`RELAY_SILENCE`], before it takes another byte from it.
//!
//! ```text
//! passed --(the way is lost)--> astray --(barrier)--> aborted: over, "function complete"; repeatable: passed again; others: ended
//!                                 \--(SETTLE_MAX)--> the same, but what waits for an abort is rejected
//! ```
//!
//! A session that is over stays until nothing of it is at the peer: whoever logs in again waits for that, and for no longer than this.

use core::time::Duration;

use engine::Instant;
use iscsi::TaskId;
use scsi::Sense;

use super::jobs::Job;
use super::management::Aborter;
use super::paths::is_repeatable;
use super::{Origin, Patience, Session};

/// How long a barrier is waited for. Longer than [`RELAY_SILENCE`], with room for a peer that runs slowly; with the silence after which
/// a relay is given up it is not more than a command is held.
pub(super) const SETTLE_MAX: Duration = Duration::from_secs(6);
/// The peer pings every half second, and gives a relay up after 1.5 s without an answer: one that has said nothing for this long is over.
const RELAY_SILENCE: Duration = Duration::from_millis(2500);

/// How a command stopped being astray.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// A barrier was passed: nothing of it lands any more.
    Barred,
    /// Nobody could be asked.
    Unknown,
}

impl Job {
    /// True while the peer may be at it, or may still get it.
    pub(super) fn may_be_at_peer(&self) -> bool {
        self.passage.as_ref().is_some_and(|passage| self.in_flight || passage.lost_at.is_some())
    }

    fn lost_at(&self) -> Option<Instant> {
        self.passage.as_ref()?.lost_at
    }

    /// True when the way that it went is lost, and no barrier has come since.
    pub(super) fn is_astray(&self) -> bool {
        self.lost_at().is_some()
    }
}

impl Session {
    /// The peer relays it: it is watched more closely.
    pub(in crate::export) fn become_relayed(&mut self) {
        self.origin = Origin::Peer;
        self.patience = Patience { quiet: RELAY_SILENCE, silence: RELAY_SILENCE };
    }

    /// True while something of the session may land at the peer.
    pub(super) fn has_passed(&self) -> bool {
        self.relay.is_some() && self.jobs.open.values().any(Job::may_be_at_peer)
    }

    /// The way that a command went is lost.
    pub(super) fn on_passage_lost(&mut self, task: TaskId, now: Instant) {
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        let Some(passage) = &mut job.passage else { return };
        passage.lost_at = Some(now);
        // What finds another way looks for it; the rest waits.
        job.in_flight = job.aborted || job.verdict.is_some() || !is_repeatable(&job.command);
        self.leave_turn(task);
    }

    /// A command that was passed is not answered, and does not land any more: what can be repeated finds another way, of the rest the
    /// host learns that it was cut short.
    pub(super) fn on_passage_ended(&mut self, task: TaskId, now: Instant) {
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        job.in_flight = false;
        if let Some(passage) = &mut job.passage {
            passage.lost_at = None;
        }
        if job.aborted {
            self.close_job(task, now);
        } else if let Some(sense) = job.verdict {
            self.fail(task, sense);
        } else if !is_repeatable(&job.command) {
            self.fail(task, Sense::TERMINATED);
        }
    }

    /// Ends the wait of the commands that are astray and that `which` says.
    pub(super) fn settle(&mut self, how: Settled, now: Instant, which: impl Fn(&Job) -> bool) {
        let astray = self.jobs.open.iter().filter(|(_, job)| job.is_astray() && which(job));
        for task in astray.map(|(task, _)| *task).collect::<Vec<_>>() {
            if how == Settled::Unknown {
                self.reject_waiting_for(task);
            }
            self.on_passage_ended(task, now);
        }
    }

    /// Looks for a barrier while something is astray, and ends a wait that was long enough.
    pub(super) fn seek_barrier(&mut self, now: Instant) {
        if self.relay.is_none() || !self.jobs.open.values().any(Job::is_astray) {
            return;
        }
        let overdue = |job: &Job| job.lost_at().is_some_and(|lost| now >= lost + SETTLE_MAX);
        self.settle(Settled::Unknown, now, overdue);
        // A relay that is let in is the barrier.
        let _ = self.wanted_relay(now);
    }

    /// When to look for one again.
    pub(super) fn barrier_deadline(&self) -> Option<Instant> {
        let relay = self.relay.as_ref()?;
        let lost = self.jobs.open.values().filter_map(Job::lost_at).min()?;
        Instant::earliest(Some(lost + SETTLE_MAX), relay.next_attempt())
    }

    /// The session is over: what it has at the peer is ended there, and then nobody needs the peer any more.
    pub(super) fn leave_peer(&mut self, now: Instant) {
        if self.relay.is_none() {
            return;
        }
        let passing = self.jobs.open.iter().filter(|(_, job)| job.passage.is_some() && !job.aborted);
        for task in passing.map(|(task, _)| *task).collect::<Vec<_>>() {
            self.abort(task, Aborter::Itself, now);
        }
        if !self.has_passed() {
            self.drop_relay(now);
        }
    }
}
