//! Connections that end while their session goes on: logouts, and what becomes of the tasks of a connection that is gone
//! (RFC 7143 sections 11.14 and 7.2.2).
//!
//! Below error recovery level 2 the tasks of a connection end with it, and the session with its last connection. At level 2
//! both wait for a while (`lost.rs`).

use engine::{Instant, Progress};
use iscsi::target::{Logout, LogoutResponse};
use iscsi::{CloseReason, Protocol, TaskId};

use super::links::{Link, Scope};
use super::lost::Standing;
use super::management::Aborter;
use super::{Patience, Session};

impl Link {
    /// When to look for a sign of life.
    pub(super) fn silence(&self, patience: &Patience) -> Option<Instant> {
        let heard = self.heard_at.filter(|_| !self.is_over())?;
        Some(heard + if self.pinged { patience.silence } else { patience.quiet })
    }
}

impl Link {
    /// True for one that is over and not yet counted as lost.
    pub(super) fn may_be_lost(&self) -> bool {
        self.is_over() && self.may_be_recovered()
    }

    fn misbehaved(&self) -> bool {
        matches!(self.connection.closed(), Some(CloseReason::PeerMisbehaved(_)))
    }
}

impl Session {
    pub(super) fn on_logout(&mut self, from: usize, request: TaskId, what: Logout, now: Instant) {
        let own = self.links.at(from).connection.cid();
        let scope = match what {
            Logout::Session => {
                self.forget_all_lost(now);
                Scope::Session
            }
            Logout::Recovery(cid) => {
                if !self.remove_for_recovery(from, request, cid) {
                    self.links.respond_logout(request, LogoutResponse::NoConnection);
                }
                return;
            }
            Logout::Connection(cid) if cid == own => Scope::Connection,
            Logout::Connection(cid) if self.close_lost(cid, now) => Scope::Another,
            Logout::Connection(cid) => {
                let Some(link) = self.links.of_cid(cid) else {
                    return self.links.respond_logout(request, LogoutResponse::NoConnection);
                };
                link.end_for_good("logged out by another connection");
                let tasks = link.connection.kept_tasks().collect();
                self.clear_tasks(tasks, now);
                Scope::Another
            }
        };
        self.abort_collecting(from, scope, now);
        self.links.at(from).logging_out.push((request, scope));
    }

    /// Ends the commands whose data have not all come, because nobody sends them any more, and those that wait for others.
    fn abort_collecting(&mut self, from: usize, scope: Scope, now: Instant) {
        //= rfc7143#section-11.14.5(b): a logout ends the tasks of its connection, or of its session.
        let own = self.links.at(from).id;
        let ends = |link: &&Link| scope == Scope::Session || (scope == Scope::Connection && link.id == own);
        let tasks: Vec<TaskId> = self
            .links
            .iter()
            .filter(ends)
            .flat_map(|link| link.connection.tasks().collect::<Vec<_>>())
            .collect();
        for task in tasks {
            let stalled = self.stalled.take_if(|stalled| stalled.task() == task).is_some();
            if stalled
                || self.jobs.open.get(&task).is_some_and(|job| job.is_collecting() || job.dormant.is_some())
            {
                self.abort(task, Aborter::Itself, now);
            }
        }
    }

    /// Answers logouts that have nothing to wait for any more, and forgets the connections that are over.
    pub(super) fn finish_logouts(&mut self, now: Instant) -> Progress {
        let mut progress = Progress::Idle;
        for index in 0..self.links.len() {
            if self.links.at(index).logging_out.is_empty() {
                continue;
            }
            let idle = self.is_idle();
            let clearing = self.is_clearing();
            let waiting = std::mem::take(&mut self.links.at(index).logging_out);
            let (ended, waiting): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|(_, scope)| match scope {
                    Scope::Session => idle,
                    Scope::Connection => {
                        let link = self.links.at(index);
                        link.standing == Standing::Removed || link.connection.open_tasks() == 0
                    }
                    Scope::Another => !clearing,
                    Scope::Recovery(cid) => self.is_removed(*cid),
                });
            self.links.at(index).logging_out = waiting;
            for (request, scope) in ended {
                let link = self.links.at(index);
                link.connection.respond_logout(request, LogoutResponse::Closed);
                let own = link.id;
                if scope == Scope::Session {
                    let others = self.links.iter_mut().filter(|link| link.id != own);
                    others.for_each(|link| link.end("the session was logged out"));
                }
                progress |= Progress::Busy | self.transmit(index, now);
            }
        }
        if self.links.len() > 1 || self.has_lost() || self.links.iter().any(Link::may_be_lost) {
            //= rfc7143#section-7.7: an error of format ends every connection of the session.
            if self.links.iter().any(Link::misbehaved) {
                self.end("the initiator broke the protocol on another connection");
            }
            self.abort_orphans(now);
            self.links.drop_over(now);
            self.expire_lost(now);
        }
        progress
    }

    /// True when no command is open: an answer that nobody has acknowledged is none.
    fn is_idle(&self) -> bool {
        let open = self.links.iter().any(|link| link.connection.open_tasks() > 0);
        !open && self.stalled.is_none() && self.jobs.open.values().all(|job| !job.in_flight)
    }

    //= rfc7143#section-7.14(a): what broke is gone, and what is not kept of it ends.
    /// Ends the tasks of the connections that are gone.
    fn abort_orphans(&mut self, now: Instant) {
        let mut orphans: Vec<TaskId> = Vec::new();
        for link in self.links.iter().filter(|link| link.is_over()) {
            if link.may_be_recovered() {
                orphans.extend(link.connection.immediate_tasks());
            } else {
                orphans.extend(link.connection.kept_tasks());
            }
        }
        self.clear_tasks(orphans, now);
    }

    /// Takes a connection in that has logged in to the session.
    pub(in crate::export) fn adopt(&mut self, link: Link) {
        self.links.add(link);
    }

    /// Ends the connection that another one with the same identifier replaces (RFC 7143 section 6.3.4).
    pub(in crate::export) fn replace(&mut self, cid: u16, now: Instant) {
        //= rfc7143#section-6.3.4: that is an implicit logout, for recovery where the level allows it.
        self.mark_removed(cid);
        if let Some(link) = self.links.of_cid(cid) {
            link.end("the connection was reinstated");
            link.standing = Standing::Removed;
        }
        self.abort_orphans(now);
    }

    /// True while what was aborted is still at work.
    pub(in crate::export) fn is_clearing(&self) -> bool {
        self.jobs.open.values().any(|job| job.aborted)
    }

    /// The connection of a session that is to go on as one of another; nothing else is left of it.
    pub(in crate::export) fn into_link(mut self) -> Option<Link> {
        self.links.take_leading()
    }
}
