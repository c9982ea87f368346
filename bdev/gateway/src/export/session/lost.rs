//! What is kept of connections that are gone, at error recovery level 2 (RFC 7143 sections 7.2 and 7.6).
//!
//! ```text
//! live --(over)--> lost, Allegiant --(removed for recovery, or its identifier logs in again)--> Removed
//!                        \-----------------------\--(Time2Wait + Time2Retain, or no room)--> its tasks are aborted
//! Removed --(TASK REASSIGN)--> each task goes on at another connection
//! ```
//!
//! Owner: the session. Bounds: as many lost connections as a session may have connections, [`RETAINED_MAX`] bytes of buffers, and
//! the time that was agreed on; what is beyond that is aborted, the oldest first.

use core::time::Duration;
use std::rc::Rc;

use engine::Instant;
use iscsi::{CloseReason, Protocol, TaskId};
use scsi::Sense;

use super::super::logical_unit::LogicalUnit;
use super::Session;
use super::links::{Link, Scope};
use super::management::Aborter;

/// Bytes of tasks' buffers that a session keeps for its lost connections.
const RETAINED_MAX: usize = 8 << 20;

/// Whether a connection has a claim on its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has.
    Allegiant,
    /// It was removed for recovery: another connection may take them.
    Removed,
    /// Nobody has: it was closed with all that belongs to it.
    Closed,
}

/// A connection that is gone, with its tasks.
pub(in crate::export) struct Lost {
    pub(super) link: Link,
    since: Instant,
    /// When they are aborted.
    until: Instant,
}

impl Lost {
    pub(super) fn new(mut link: Link, now: Instant) -> Self {
        //= rfc7143#section-6.3.5(b): so long a session without connections lives.
        //= rfc7143#section-7.15: then the session's tasks end, and it.
        //= rfc7143#section-7.6: from here on Time2Wait passes, then Time2Retain.
        link.end("the connection was lost");
        let parameters = link.connection.parameters();
        let seconds = u64::from(parameters.time2wait) + u64::from(parameters.time2retain);
        Self { link, since: now, until: now + Duration::from_secs(seconds) }
    }

    /// True for one with this identifier.
    fn is(&self, cid: u16) -> bool {
        self.link.connection.cid() == cid
    }
}

impl Link {
    /// True for a connection that is over and whose tasks are kept.
    pub(super) fn may_be_recovered(&self) -> bool {
        let broke = matches!(self.connection.closed(), Some(CloseReason::PeerMisbehaved(_)));
        let left = matches!(self.connection.closed(), Some(CloseReason::LoggedOut));
        let stays = match self.standing {
            Standing::Allegiant => !left,
            Standing::Removed => true,
            Standing::Closed => false,
        };
        self.connection.reassigns() && !broke && stays
    }

    /// Ends it, and what belongs to it.
    pub(super) fn end_for_good(&mut self, why: &'static str) {
        self.standing = Standing::Closed;
        self.end(why);
    }
}

impl Session {
    /// True where answers are kept until they are acknowledged.
    pub(super) fn recovers(&self) -> bool {
        self.links.leading().connection.parameters().error_recovery_level > 0
    }

    /// True while something is kept of a connection that is gone.
    pub(in crate::export) fn has_lost(&self) -> bool {
        !self.links.lost.is_empty()
    }

    /// Since when nobody is connected to it, while it waits for its initiator to come back.
    pub(in crate::export) fn deserted_since(&self) -> Option<Instant> {
        let last = self.links.lost.iter().map(|lost| lost.since).max();
        last.filter(|_| self.links.len() == 0)
    }

    /// True while a command of it is open, or its answer is kept.
    pub(in crate::export) fn has_tasks(&self) -> bool {
        self.stalled.is_some() || !self.jobs.open.is_empty()
    }

    /// When the first of it is forgotten.
    pub(super) fn lost_deadline(&self) -> Option<Instant> {
        self.links.lost.iter().map(|lost| lost.until).min()
    }

    /// Bytes of buffers of those tasks.
    pub(in crate::export) fn retained(&self) -> usize {
        let kept = self.links.lost.iter().flat_map(|lost| lost.link.connection.kept_tasks());
        kept.filter_map(|task| self.jobs.open.get(&task)).map(|job| job.buffer_len()).sum()
    }

    /// Forgets the lost connections whose time is over, or for which there is no room.
    pub(super) fn expire_lost(&mut self, now: Instant) {
        while let Some(at) = self.links.lost.iter().position(|lost| now >= lost.until) {
            self.forget_lost(at, now);
        }
        let most = self.links.leading().connection.parameters().max_connections as usize;
        while self.links.lost.len() > most || (self.has_lost() && self.retained() > RETAINED_MAX) {
            self.forget_lost(0, now);
        }
    }

    /// Aborts the tasks of the connection that was lost first.
    pub(in crate::export) fn forget_oldest_lost(&mut self, now: Instant) {
        if self.has_lost() {
            self.forget_lost(0, now);
        }
    }

    /// The same of all.
    pub(super) fn forget_all_lost(&mut self, now: Instant) {
        while self.has_lost() {
            self.forget_lost(0, now);
        }
    }

    fn forget_lost(&mut self, index: usize, now: Instant) {
        let tasks: Vec<TaskId> = self.links.lost[index].link.connection.kept_tasks().collect();
        self.clear_tasks(tasks, now);
        self.links.forget(index);
    }

    /// Ends tasks that the protocol has lost, and tells the nexus that they are.
    pub(super) fn clear_tasks(&mut self, tasks: Vec<TaskId>, now: Instant) {
        self.stalled.take_if(|stalled| tasks.contains(&stalled.task()));
        let mut units: Vec<Rc<LogicalUnit>> = Vec::new();
        for task in tasks {
            let open = self.links.is_open(task);
            let place = self.jobs.open.get(&task).and_then(|job| job.place.as_ref());
            if let Some(place) = place.filter(|_| open)
                && !units.iter().any(|unit| Rc::ptr_eq(unit, &place.lun.unit))
            {
                units.push(place.lun.unit.clone());
            }
            self.abort(task, Aborter::Itself, now);
        }
        //= rfc7143#section-11.14.5(a): the nexus hears of what ended so at each unit.
        for unit in units {
            self.establish(&unit, Sense::COMMANDS_CLEARED_BY_PROTOCOL);
        }
    }

    /// Logout for recovery (reason 2): the connection goes, its tasks stay. False: there is no such connection.
    pub(super) fn remove_for_recovery(&mut self, from: usize, request: TaskId, cid: u16) -> bool {
        let own = self.links.at(from);
        let scope = if own.connection.cid() == cid {
            own.standing = Standing::Removed;
            Scope::Connection
        } else {
            let lost = self.links.lost.iter().any(|lost| lost.is(cid));
            let live = self.links.iter_mut().find(|link| link.connection.cid() == cid);
            if !lost && live.is_none() {
                return false;
            }
            if let Some(link) = live {
                link.standing = Standing::Removed;
                link.end("removed for recovery");
            }
            Scope::Recovery(cid)
        };
        self.links.at(from).logging_out.push((request, scope));
        true
    }

    /// The connection is removed when it is lost: until then it may have something to tell.
    pub(super) fn is_removed(&mut self, cid: u16) -> bool {
        let live = self.links.iter().any(|link| link.connection.cid() == cid);
        if !live {
            self.mark_removed(cid);
        }
        !live
    }

    /// Its tasks may be taken.
    pub(super) fn mark_removed(&mut self, cid: u16) {
        let same = self.links.lost.iter_mut().filter(|lost| lost.is(cid));
        same.for_each(|lost| lost.link.standing = Standing::Removed);
    }

    /// True for a lost connection with this identifier; its tasks are aborted.
    pub(super) fn close_lost(&mut self, cid: u16, now: Instant) -> bool {
        let mut found = false;
        while let Some(at) = self.links.lost.iter().position(|lost| lost.is(cid)) {
            self.forget_lost(at, now);
            found = true;
        }
        found
    }

    /// True for a session that goes on when somebody logs in to it again.
    pub(in crate::export) fn may_be_continued(&self) -> bool {
        self.has_lost() || self.links.iter().any(Link::may_be_lost)
    }
}
