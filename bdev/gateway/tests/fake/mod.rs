//! A target with one LUN that does what it is told: commands at some blocks vanish, and management is answered as one wishes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use core::net::SocketAddr;
use engine::Instant;
use iscsi::chap::{Challenge, Requirement, Verifying};
use iscsi::digest::Trailer;
use iscsi::keys::{DigestPreference, Digests};
use iscsi::target::{
    Admission, Command, Config, Connection, Event, Grant, LogoutResponse, Response, TaskFunction,
    TaskResponse,
};
use iscsi::{Body, Preferences, Protocol, TaskId, Want};
use net::{Listener, Network, Segment, Stream};

pub(crate) const ABORT_TASK: u8 = 1;
pub(crate) const LOGICAL_UNIT_RESET: u8 = 5;
const BLOCKS: u64 = 16384;

/// How a management request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Carried out.
    Complete,
    /// There is no such task.
    NoTask,
    /// It is rejected.
    Refused,
    /// Not at all.
    Silence,
    /// Carried out, after this time.
    Later(Duration),
    /// Behind the answer to the task itself: there is no such task any more.
    AfterTheTask,
}

/// A management request that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) function: u8,
    /// Of an abort: it names a command that was swallowed.
    pub(crate) names_the_task: bool,
}

struct Client {
    stream: Box<dyn Stream>,
    connection: Connection,
    buffers: BTreeMap<TaskId, Vec<u8>>,
}

pub(crate) struct Fake {
    listener: Box<dyn Listener>,
    client: Option<Client>,
    pub(crate) logins: usize,
    pub(crate) commands: usize,
    pub(crate) replies: BTreeMap<u8, Reply>,
    pub(crate) asked: Vec<Asked>,
    swallows: BTreeSet<u64>,
    /// Commands that vanished.
    swallowed: Vec<Command>,
    later: Vec<(Instant, TaskId)>,
    /// The last write of each block.
    written: BTreeMap<u64, TaskId>,
}

impl Fake {
    pub(crate) fn new(network: &impl Network, portal: SocketAddr) -> Self {
        Self {
            listener: network.listen(portal).expect("free"),
            client: None,
            logins: 0,
            commands: 0,
            replies: BTreeMap::new(),
            asked: Vec::new(),
            swallows: BTreeSet::new(),
            swallowed: Vec::new(),
            later: Vec::new(),
            written: BTreeMap::new(),
        }
    }

    /// The next command at this block vanishes.
    pub(crate) fn swallow(&mut self, lba: u64) {
        self.swallows.insert(lba);
    }

    /// Answers what vanished, as if nothing had happened, whatever was said of it: what a broken target does.
    pub(crate) fn answer_swallowed(&mut self) {
        let Some(client) = &mut self.client else { return };
        for command in self.swallowed.drain(..) {
            client.buffers.insert(command.task, vec![0xbb; 512]);
            client.connection.send_data(command.task, 512, response(512));
        }
    }

    /// Asks for the data of the writes that vanished, as if nothing had happened.
    pub(crate) fn ask_for_swallowed(&mut self) {
        let Some(client) = &mut self.client else { return };
        for command in &self.swallowed {
            client.buffers.insert(command.task, vec![0; 512]);
            client.connection.solicit(command.task, 512);
        }
    }

    /// The data that have come for the one command that vanished.
    pub(crate) fn data_of_swallowed(&self) -> Vec<u8> {
        let buffers = self.client.as_ref().map(|client| &client.buffers);
        let task = self.swallowed.first().map(|command| command.task);
        buffers.zip(task).and_then(|(buffers, task)| buffers.get(&task).cloned()).unwrap_or_default()
    }

    /// Ends what vanished with this status.
    pub(crate) fn end_swallowed(&mut self, status: u8) {
        let Some(client) = &mut self.client else { return };
        for command in self.swallowed.drain(..) {
            client.connection.respond(command.task, Response { status, ..Response::default() });
        }
    }

    /// What was last written to a block.
    pub(crate) fn written(&self, lba: u64) -> Vec<u8> {
        let written = self.written.get(&lba);
        written.and_then(|task| Some(self.client.as_ref()?.buffers.get(task)?.clone())).unwrap_or_default()
    }

    pub(crate) fn poll(&mut self, now: Instant) {
        if let Some(stream) = self.listener.accept(now) {
            let preferences = Preferences {
                error_recovery_level: 2,
                default_time2wait: 0,
                default_time2retain: 20,
                ..Preferences::default()
            };
            let connection = Connection::new(Config { preferences, queue_depth: 32 });
            self.client = Some(Client { stream, connection, buffers: BTreeMap::new() });
            self.swallowed.clear();
            self.later.clear();
        }
        let Some(mut client) = self.client.take() else { return };
        let _ = client.stream.poll(now);
        client.receive();
        while let Some(event) = client.connection.poll_event() {
            self.on_event(&mut client, event, now);
        }
        for (_, request) in self.later.extract_if(.., |(at, _)| now >= *at) {
            client.connection.respond_task_management(request, TaskResponse::Complete);
        }
        client.transmit();
        let _ = client.stream.poll(now);
        self.client = Some(client);
    }

    fn on_event(&mut self, client: &mut Client, event: Event, now: Instant) {
        let connection = &mut client.connection;
        match event {
            Event::LoginRequest(_) => connection.admit_login(Admission {
                portal_group_tag: 1,
                target_alias: String::new(),
                authentication: Verifying {
                    algorithms: iscsi::chap::Algorithm::ALL.into(),
                    requirement: Requirement::Disabled,
                    accounts: [].into(),
                    challenge: Challenge { id: 1, bytes: [1; 32] },
                },
                digests: Digests { header: DigestPreference::Prefer, data: DigestPreference::Prefer },
                joins: None,
            }),
            Event::LoginComplete => {
                self.logins += 1;
                connection.grant_login(&Grant { tsih: 1, queue_depth: 32 });
            }
            Event::Command(command) => self.on_command(client, command),
            // What vanished is not answered for its data.
            Event::DataComplete(task) if self.swallowed.iter().any(|command| command.task == task) => {}
            Event::DataComplete(task) => connection.respond(task, response(512)),
            Event::TaskManagement { request, function, .. } => {
                self.on_management(client, request, function, now);
            }
            Event::LogoutRequest { request, .. } => {
                connection.respond_logout(request, LogoutResponse::Closed);
            }
            _ => {}
        }
    }

    fn on_command(&mut self, client: &mut Client, command: Command) {
        self.commands += 1;
        let lba = u64::from_be_bytes(command.cdb[2..10].try_into().expect("eight bytes"));
        let task = command.task;
        if matches!(command.cdb[0], 0x88..=0x8a) && self.swallows.remove(&lba) {
            self.swallowed.push(command);
            return;
        }
        match command.cdb[0] {
            // READ CAPACITY (16).
            0x9e => {
                let mut data = vec![0; 32];
                data[..8].copy_from_slice(&(BLOCKS - 1).to_be_bytes());
                data[8..12].copy_from_slice(&512_u32.to_be_bytes());
                client.buffers.insert(task, data);
                client.connection.send_data(task, 32, response(32));
            }
            0x88 => {
                client.buffers.insert(task, vec![0xaa; 512]);
                client.connection.send_data(task, 512, response(512));
            }
            0x8a => {
                // Immediate data may have come with the command, before this.
                let early = client.connection.take_early_data(task);
                let buffer = client.buffers.entry(task).or_default();
                buffer.resize(512, 0);
                buffer[..early.len()].copy_from_slice(&early);
                client.connection.solicit(task, 512);
                self.written.insert(lba, task);
            }
            _ => client.connection.respond(task, response(0)),
        }
    }

    fn on_management(&mut self, client: &mut Client, request: TaskId, function: TaskFunction, now: Instant) {
        let (number, ends): (u8, Vec<TaskId>) = match function {
            TaskFunction::AbortTask(task) => (ABORT_TASK, vec![task]),
            TaskFunction::LogicalUnitReset => {
                (LOGICAL_UNIT_RESET, self.swallowed.iter().map(|command| command.task).collect())
            }
            other => panic!("nobody asks for {other:?}"),
        };
        let names_the_task = self.swallowed.iter().any(|command| ends == [command.task]);
        self.asked.push(Asked { function: number, names_the_task });
        let reply = self.replies.get(&number).copied().unwrap_or(Reply::Silence);
        let response = match reply {
            Reply::Silence => return,
            Reply::Later(after) => return self.later.push((now + after, request)),
            Reply::Refused => TaskResponse::Rejected,
            Reply::NoTask | Reply::Complete => {
                ends.iter().for_each(|task| client.connection.abort(*task));
                if reply == Reply::Complete { TaskResponse::Complete } else { TaskResponse::NoTask }
            }
            Reply::AfterTheTask => {
                for task in &ends {
                    client.buffers.insert(*task, vec![0xaa; 512]);
                    client.connection.send_data(*task, 512, self::response(512));
                }
                TaskResponse::NoTask
            }
        };
        client.connection.respond_task_management(request, response);
    }
}

fn response(transfer_len: u64) -> Response {
    Response { transfer_len, ..Response::default() }
}

impl Client {
    fn receive(&mut self) {
        let (connection, buffers) = (&mut self.connection, &mut self.buffers);
        let mut take = |window: &[u8]| match connection.want() {
            Want::Nothing => 0,
            Want::Bytes(len) => {
                let count = len.min(window.len());
                connection.handle_bytes(&window[..count]);
                count
            }
            Want::Payload { task, offset, len } => {
                let count = len.min(window.len());
                let (at, buffer) = (offset as usize, buffers.entry(task).or_default());
                buffer.resize(buffer.len().max(at + count), 0);
                buffer[at..at + count].copy_from_slice(&window[..count]);
                connection.handle_payload(&window[..count]);
                count
            }
        };
        while self.stream.receive(&mut take) > 0 {}
    }

    fn transmit(&mut self) {
        while self.stream.free_segments() >= 64 {
            let Some(transmit) = self.connection.poll_transmit() else { return };
            let data = match &transmit.body {
                Body::None => &[][..],
                Body::Inline(bytes) => bytes,
                Body::Task { task, offset, len } => &self.buffers[task][*offset as usize..][..*len as usize],
            };
            let trailer = Trailer::of(data, transmit.data_digest);
            for piece in [transmit.head(), data, trailer.as_bytes()] {
                piece.chunks(Segment::INLINE_MAX).for_each(|part| self.stream.push(Segment::inline(part)));
            }
        }
    }
}
