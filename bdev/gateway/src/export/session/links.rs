//! The connections of a session, each with its stream. A task belongs to the one that it came by (RFC 7143 section 4.2.5.1), and
//! at error recovery level 2 it outlives it: what is kept of a connection that is gone is in `lost.rs`.

use engine::Instant;
use iscsi::target::{Connection, LogoutResponse, Response, TaskResponse};
use iscsi::{Protocol, TaskId};
use net::{Stream, StreamStatus};

use super::lost::{Lost, Standing};
use super::turns::Pace;
use crate::wire::Sender;

/// A connection.
pub(in crate::export) struct Link {
    /// The target's number of it.
    pub(in crate::export) id: u64,
    pub(in crate::export) stream: Box<dyn Stream>,
    pub(in crate::export) connection: Connection,
    pub(super) sender: Sender,
    pub(super) heard_at: Option<Instant>,
    /// True while an answer to a ping is awaited.
    pub(super) pinged: bool,
    /// How fast its initiator takes what is sent.
    pub(super) pace: Pace,
    /// Logouts that came by it, and what they wait for.
    pub(super) logging_out: Vec<(TaskId, Scope)>,
    /// What becomes of its tasks when it ends.
    pub(super) standing: Standing,
}

/// What waits for the end of tasks to log out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Every task of the session.
    Session,
    /// Those of the connection itself.
    Connection,
    /// The aborted ones of another connection.
    Another,
    /// None: the connection with this identifier is removed, and its tasks are kept.
    Recovery(u16),
}

impl Link {
    pub(super) fn new(id: u64, stream: Box<dyn Stream>, connection: Connection) -> Self {
        Self {
            id,
            stream,
            connection,
            sender: Sender::default(),
            heard_at: None,
            pinged: false,
            pace: Pace::default(),
            logging_out: Vec::new(),
            standing: Standing::Allegiant,
        }
    }

    /// True when nothing can come in any more.
    pub(super) fn is_over(&self) -> bool {
        let ended = self.connection.closed().is_some() && !self.stream.is_sending();
        ended || matches!(self.stream.status(), StreamStatus::Closed(_))
    }

    pub(super) fn end(&mut self, why: &'static str) {
        self.connection.drop_connection(why);
        self.stream.close();
    }
}

/// The connections of a session: one at the least, the first one first, among those that live and those that are lost.
pub(in crate::export) struct Links {
    live: Vec<Link>,
    pub(super) lost: Vec<Lost>,
}

impl Links {
    pub(super) fn new(leading: Link) -> Self {
        Self { live: vec![leading], lost: Vec::new() }
    }

    pub(in crate::export) fn leading(&self) -> &Link {
        self.live.first().unwrap_or_else(|| &self.lost[0].link)
    }

    pub(in crate::export) fn leading_mut(&mut self) -> &mut Link {
        match self.live.first_mut() {
            Some(link) => link,
            None => &mut self.lost[0].link,
        }
    }

    pub(in crate::export) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.live.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.live.iter_mut()
    }

    pub(in crate::export) fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn at(&mut self, index: usize) -> &mut Link {
        &mut self.live[index]
    }

    /// The connection with this identifier, among those that live.
    pub(in crate::export) fn of_cid(&mut self, cid: u16) -> Option<&mut Link> {
        self.live.iter_mut().find(|link| link.connection.cid() == cid && !link.is_over())
    }

    pub(super) fn add(&mut self, link: Link) {
        self.live.push(link);
    }

    /// Forgets those that are over, as long as another is left, and keeps those whose tasks may go on.
    pub(super) fn drop_over(&mut self, now: Instant) {
        let over = |link: &Link| link.is_over() && !link.connection.has_event();
        while let Some(at) = self.live.iter().position(over) {
            if self.live[at].may_be_recovered() {
                let link = self.live.remove(at);
                self.lost.push(Lost::new(link, now));
            } else if self.live.len() + self.lost.len() > 1 {
                self.live.remove(at);
            } else {
                return;
            }
        }
    }

    /// Drops the connection that a task belongs to; its tasks end with it.
    pub(super) fn dismiss(&mut self, task: TaskId, why: &'static str) {
        let has = |link: &&mut Link| link.standing != Standing::Closed && link.connection.is_open(task);
        if let Some(link) = self.live.iter_mut().find(has) {
            link.standing = Standing::Closed;
            link.connection.dismiss_connection(why);
        }
    }

    /// True for a task of a connection that is gone.
    pub(super) fn has_lost(&self, task: TaskId) -> bool {
        self.lost.iter().any(|lost| lost.link.connection.keeps(task))
    }

    /// Bytes that the initiator has taken of the connection that a task belongs to, while there is more for it; zero otherwise.
    pub(super) fn taken_by_owner(&self, task: TaskId) -> u64 {
        let own = self.live.iter().filter(|link| link.connection.is_open(task) && link.stream.is_sending());
        own.map(|link| link.stream.sent()).sum()
    }

    /// Nothing of a lost connection is kept any more.
    pub(super) fn forget(&mut self, index: usize) {
        let mut lost = self.lost.remove(index);
        lost.link.standing = Standing::Closed;
        if self.live.is_empty() && self.lost.is_empty() {
            self.live.push(lost.link);
        }
    }

    /// The session ends: nothing of a connection outlives it any more.
    pub(super) fn give_up(&mut self) {
        self.live.extend(self.lost.drain(..).map(|lost| lost.link));
        self.live.iter_mut().for_each(|link| link.standing = Standing::Closed);
    }

    /// Forgets the answer of a task whose name comes again; false when there is none.
    pub(super) fn forget_answered(&mut self, task: TaskId) -> bool {
        let lost = self.lost.iter_mut().map(|lost| &mut lost.link.connection);
        let all = self.live.iter_mut().map(|link| &mut link.connection).chain(lost);
        all.fold(false, |found, connection| found | connection.forget_answered(task))
    }

    /// The only connection, of a session that ends with this.
    pub(super) fn take_leading(&mut self) -> Option<Link> {
        self.live.pop()
    }

    fn all(&self) -> impl Iterator<Item = &Connection> {
        let lost = self.lost.iter().map(|lost| &lost.link.connection);
        self.live.iter().map(|link| &link.connection).chain(lost)
    }

    fn of(&mut self, task: TaskId) -> Option<&mut Connection> {
        if self.live.len() == 1 && self.lost.is_empty() {
            return self.live.first_mut().map(|only| &mut only.connection);
        }
        let lost = self.lost.iter_mut().map(|lost| &mut lost.link.connection);
        let all = self.live.iter_mut().map(|link| &mut link.connection).chain(lost);
        all.into_iter().find(|connection| connection.keeps(task))
    }

    fn of_request(&mut self, request: TaskId) -> Option<&mut Connection> {
        self.live.iter_mut().map(|link| &mut link.connection).find(|connection| connection.awaits(request))
    }

    /// TASK REASSIGN: the task goes on at the connection that the request came by.
    pub(super) fn reassign(&mut self, request: TaskId, task: TaskId, exp_data_sn: u32) {
        //= rfc7143#section-7.2.2: what is asked for decides, and the answer goes before what it lets through.
        let allegiant = self.live.iter().any(|link| link.connection.keeps(task));
        let lost = self.lost.iter_mut().find(|lost| lost.link.connection.keeps(task));
        let Some(taker) = self.live.iter_mut().find(|link| link.connection.awaits(request)) else { return };
        //= rfc7143#section-11.6.1(a): a reassignment is refused for its reason.
        let (response, orphan) = match lost {
            _ if !taker.connection.reassigns() => (TaskResponse::ReassignUnsupported, None),
            //= rfc7143#section-7.2.2(b): first its connection is logged out for recovery.
            _ if allegiant => (TaskResponse::StillAllegiant, None),
            None => (TaskResponse::NoTask, None),
            Some(lost) => match lost.link.standing {
                Standing::Allegiant | Standing::Closed => (TaskResponse::StillAllegiant, None),
                Standing::Removed => (TaskResponse::Complete, lost.link.connection.release(task)),
            },
        };
        taker.connection.respond_task_management(request, response);
        if let Some(orphan) = orphan {
            taker.connection.adopt(orphan, exp_data_sn);
        }
    }

    // What `Connection` has, for the one that has the task or the request.

    pub(super) fn is_open(&self, task: TaskId) -> bool {
        self.all().any(|connection| connection.is_open(task))
    }

    pub(super) fn respond(&mut self, task: TaskId, response: Response) {
        if let Some(connection) = self.of(task) {
            connection.respond(task, response);
        }
    }

    pub(super) fn send_data(&mut self, task: TaskId, available: u32, response: Response) {
        if let Some(connection) = self.of(task) {
            connection.send_data(task, available, response);
        }
    }

    pub(super) fn solicit(&mut self, task: TaskId, len: u32) {
        if let Some(connection) = self.of(task) {
            connection.solicit(task, len);
        }
    }

    pub(super) fn give_up_data(&mut self, task: TaskId) -> bool {
        self.of(task).is_some_and(|connection| connection.give_up_data(task))
    }

    pub(super) fn take_early_data(&mut self, task: TaskId) -> Vec<u8> {
        self.of(task).map(|connection| connection.take_early_data(task)).unwrap_or_default()
    }

    pub(super) fn abort(&mut self, task: TaskId) {
        if let Some(connection) = self.of(task) {
            connection.abort(task);
        }
    }

    pub(super) fn terminate(&mut self, task: TaskId, response: Response) {
        if let Some(connection) = self.of(task) {
            connection.terminate(task, response);
        }
    }

    pub(in crate::export) fn respond_task_management(&mut self, request: TaskId, response: TaskResponse) {
        if let Some(connection) = self.of_request(request) {
            connection.respond_task_management(request, response);
        }
    }

    pub(super) fn respond_query(&mut self, request: TaskId, response: TaskResponse, information: [u8; 3]) {
        if let Some(connection) = self.of_request(request) {
            connection.respond_query(request, response, information);
        }
    }

    pub(in crate::export) fn respond_text(&mut self, request: TaskId, text: Vec<u8>) {
        if let Some(connection) = self.of_request(request) {
            connection.respond_text(request, text);
        }
    }

    pub(super) fn respond_logout(&mut self, request: TaskId, response: LogoutResponse) {
        if let Some(connection) = self.of_request(request) {
            connection.respond_logout(request, response);
        }
    }
}
