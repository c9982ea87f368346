//! The connections of a session, each with its stream. A task belongs to the one that it came by (RFC 7143 section 4.2.5.3).

use engine::Instant;
use iscsi::target::{Connection, LogoutResponse, Response, TaskResponse};
use iscsi::{Protocol, TaskId};
use net::{Stream, StreamStatus};

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
    /// Logouts that came by it, and what they wait for.
    pub(super) logging_out: Vec<(TaskId, Scope)>,
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
            logging_out: Vec::new(),
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

/// The connections of a session: one at the least, the first one first.
pub(in crate::export) struct Links(Vec<Link>);

impl Links {
    pub(super) fn new(leading: Link) -> Self {
        Self(vec![leading])
    }

    pub(in crate::export) fn leading(&self) -> &Link {
        &self.0[0]
    }

    pub(in crate::export) fn leading_mut(&mut self) -> &mut Link {
        &mut self.0[0]
    }

    pub(in crate::export) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.0.iter_mut()
    }

    pub(in crate::export) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn at(&mut self, index: usize) -> &mut Link {
        &mut self.0[index]
    }

    /// The connection with this identifier, among those that live.
    pub(in crate::export) fn of_cid(&mut self, cid: u16) -> Option<&mut Link> {
        self.0.iter_mut().find(|link| link.connection.cid() == cid && !link.is_over())
    }

    pub(super) fn add(&mut self, link: Link) {
        self.0.push(link);
    }

    /// Forgets those that are over, as long as another is left.
    pub(super) fn drop_over(&mut self) {
        while let Some(at) = self.0.iter().position(Link::is_over).filter(|_| self.0.len() > 1) {
            self.0.remove(at);
        }
    }

    /// The only connection, of a session that ends with this.
    pub(super) fn take_leading(&mut self) -> Option<Link> {
        self.0.pop()
    }

    fn of(&mut self, task: TaskId) -> Option<&mut Connection> {
        match &mut self.0[..] {
            [only] => Some(&mut only.connection),
            several => {
                several.iter_mut().map(|link| &mut link.connection).find(|connection| connection.keeps(task))
            }
        }
    }

    fn of_request(&mut self, request: TaskId) -> Option<&mut Connection> {
        self.0.iter_mut().map(|link| &mut link.connection).find(|connection| connection.awaits(request))
    }

    // What `Connection` has, for the one that has the task or the request.

    pub(super) fn is_open(&self, task: TaskId) -> bool {
        self.0.iter().any(|link| link.connection.is_open(task))
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
