//! A host at command level: one session, any CDB, small data.
#![allow(dead_code, reason = "each test binary uses its own part")]

mod world;

use std::collections::{BTreeMap, VecDeque};

use core::net::SocketAddr;
use engine::{Instant, Segment};
use iscsi::initiator::{Command, Completion, Config, Connection, Direction, Event};
use iscsi::keys::Preferences;
use iscsi::{Body, Protocol, TaskId, Want};
use net::{Network, Stream, StreamStatus};

#[allow(unused_imports, reason = "each test binary uses a part")]
pub(crate) use world::{GOOD, TARGET, World, attention, portal};

/// What becomes of Data-Out PDUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DataOut {
    Sent,
    Withheld,
}

/// Whether a host does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostState {
    Awake,
    Asleep,
    /// It sends, and takes nothing.
    Deaf,
}

/// What a host does about the unit attentions that it finds when it has logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Attentions {
    /// One TEST UNIT READY at each of these LUNs takes them, when the host is in.
    ToTake(Vec<u16>),
    Taking(Vec<TaskId>),
    /// They are taken, or left where they are.
    Settled,
}

/// See the module.
pub(crate) struct Host {
    stream: Box<dyn Stream>,
    connection: Connection,
    buffers: BTreeMap<TaskId, Vec<u8>>,
    ended: BTreeMap<TaskId, Completion>,
    managed: BTreeMap<TaskId, u8>,
    data: DataOut,
    state: HostState,
    attentions: Attentions,
    /// Bytes that the stream had no room for.
    outbox: VecDeque<u8>,
    /// Everything else that happened.
    pub(crate) events: Vec<Event>,
}

impl Host {
    pub(crate) fn config(name: &str, target: &str) -> Config {
        Config {
            initiator: name.to_owned(),
            alias: None,
            target: Some(target.to_owned()),
            isid: [0x80, 0, 0, 0, 0, 1],
            preferences: Preferences::default(),
            credentials: None,
        }
    }

    pub(crate) fn new(network: &mut dyn Network, address: SocketAddr, config: Config) -> Self {
        let attentions = match config.target {
            Some(_) => Attentions::ToTake(vec![0, 1]),
            None => Attentions::Settled,
        };
        let connection = Connection::new(config);
        let stream = network.connect(address);
        let (buffers, ended, managed) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self {
            stream,
            connection,
            buffers,
            ended,
            managed,
            data: DataOut::Sent,
            state: HostState::Awake,
            attentions,
            outbox: VecDeque::new(),
            events: Vec::new(),
        }
    }

    /// One more connection of the session of `leading`.
    pub(crate) fn joining(
        network: &mut dyn Network,
        address: SocketAddr,
        config: Config,
        leading: &Self,
        cid: u16,
    ) -> Self {
        let mut host = Self::new(network, address, config.clone());
        host.connection = Connection::joining(config, &leading.connection, cid);
        host.leave_attentions();
        host
    }

    pub(crate) fn poll(&mut self, now: Instant) {
        if self.state == HostState::Asleep {
            return;
        }
        let _ = self.stream.poll(now);
        while self.state != HostState::Deaf {
            let count = self.stream.receive(&mut |window| match self.connection.want() {
                Want::Nothing => 0,
                Want::Bytes(len) => {
                    let count = len.min(window.len());
                    self.connection.handle_bytes(&window[..count]);
                    count
                }
                Want::Payload { task, offset, len } => {
                    let count = len.min(window.len());
                    if let Some(buffer) = self.buffers.get_mut(&task) {
                        buffer[offset as usize..offset as usize + count].copy_from_slice(&window[..count]);
                    }
                    self.connection.handle_payload(&window[..count]);
                    count
                }
            });
            if count == 0 {
                break;
            }
        }
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Completed(task, completion) => {
                    self.ended.insert(task, completion);
                }
                Event::TaskManagementDone(request, response) => {
                    self.managed.insert(request, response);
                }
                other => self.events.push(other),
            }
        }
        self.settle();
        while let Some(transmit) = self.connection.poll_transmit() {
            if self.data == DataOut::Withheld && transmit.head()[0] & 0x3f == 0x05 {
                continue;
            }
            self.push(transmit.head());
            match &transmit.body {
                Body::None => {}
                Body::Inline(bytes) => self.push(&bytes.clone()),
                Body::Task { task, offset, len } => {
                    let bytes = self.buffers[task][*offset as usize..][..*len as usize].to_vec();
                    self.push(&bytes);
                }
            }
        }
        self.send_out();
        let _ = self.stream.poll(now);
    }

    fn push(&mut self, bytes: &[u8]) {
        self.outbox.extend(bytes);
        self.outbox.extend(&[0; 3][..bytes.len().wrapping_neg() & 3]);
    }

    fn send_out(&mut self) {
        while self.stream.free_segments() > 0 && !self.outbox.is_empty() {
            let count = self.outbox.len().min(Segment::INLINE_MAX);
            let piece: Vec<u8> = self.outbox.drain(..count).collect();
            self.stream.push(Segment::inline(&piece));
        }
    }

    fn settle(&mut self) {
        match &mut self.attentions {
            Attentions::ToTake(luns) if self.connection.is_full_feature() => {
                let luns = std::mem::take(luns);
                let tasks = luns.into_iter().map(|lun| self.send_to(lun, &[0; 6], &[], 0)).collect();
                self.attentions = Attentions::Taking(tasks);
            }
            Attentions::Taking(tasks) => {
                tasks.retain(|task| self.ended.remove(task).is_none());
                if tasks.is_empty() {
                    self.attentions = Attentions::Settled;
                }
            }
            Attentions::ToTake(_) | Attentions::Settled => {}
        }
    }

    /// The test takes the attentions itself that wait for the host when it comes in.
    pub(crate) fn leave_attentions(&mut self) {
        self.attentions = Attentions::Settled;
    }

    /// Neither sends nor takes anything until it wakes.
    pub(crate) fn sleep(&mut self) {
        self.state = HostState::Asleep;
    }

    /// Sends what it has to send, and takes nothing.
    pub(crate) fn stop_listening(&mut self) {
        self.state = HostState::Deaf;
    }

    pub(crate) fn wake(&mut self) {
        self.state = HostState::Awake;
    }

    /// Sends no Data-Out PDU any more.
    pub(crate) fn withhold_data(&mut self) {
        self.data = DataOut::Withheld;
    }

    /// Sends them again; what was withheld stays so.
    pub(crate) fn send_data(&mut self) {
        self.data = DataOut::Sent;
    }

    pub(crate) fn is_in(&self) -> bool {
        self.connection.is_full_feature() && self.attentions == Attentions::Settled
    }

    /// Why the connection is over, as the host sees it.
    pub(crate) fn closed(&self) -> Option<String> {
        match (self.connection.closed(), self.stream.status()) {
            (Some(reason), _) => Some(reason.to_string()),
            (None, StreamStatus::Closed(reason)) => Some(reason.to_string()),
            _ => None,
        }
    }

    /// The connection, to do other things with.
    pub(crate) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Sends a management request.
    pub(crate) fn manage(&mut self, function: u8, lun: u64, task: Option<TaskId>) -> TaskId {
        self.connection.manage(function, lun, task)
    }

    /// The answer to one, once.
    pub(crate) fn take_managed(&mut self, request: TaskId) -> Option<u8> {
        self.managed.remove(&request)
    }

    /// Sends a command with data to the target (`data`), or room for data from it (`room`).
    pub(crate) fn send(&mut self, cdb: &[u8], data: &[u8], room: u32) -> TaskId {
        self.send_to(0, cdb, data, room)
    }

    /// The same, to any LUN.
    pub(crate) fn send_to(&mut self, lun: u16, cdb: &[u8], data: &[u8], room: u32) -> TaskId {
        self.send_as(Command::SIMPLE, lun, cdb, data, room)
    }

    /// The same, with any task attribute.
    pub(crate) fn send_as(&mut self, attribute: u8, lun: u16, cdb: &[u8], data: &[u8], room: u32) -> TaskId {
        let mut padded = [0; 16];
        padded[..cdb.len()].copy_from_slice(cdb);
        let (direction, len) = match (data.len(), room) {
            (0, 0) => (Direction::None, 0),
            (0, room) => (Direction::Read, room),
            (len, _) => (Direction::Write, u32::try_from(len).expect("small")),
        };
        let command = Command { lun: scsi::lun::encode(lun), cdb: padded, direction, len, attribute };
        let task = self.connection.submit(command).expect("logged in, with room in the window");
        let buffer = if data.is_empty() { vec![0; room as usize] } else { data.to_vec() };
        self.buffers.insert(task, buffer);
        task
    }

    /// How the command ended, once.
    pub(crate) fn take(&mut self, task: TaskId) -> Option<Completion> {
        self.ended.remove(&task)
    }

    /// ABORT TASK of a task of another connection.
    pub(crate) fn abort_of(&mut self, task: TaskId, other: &Self) -> TaskId {
        self.connection.manage_as(1, 0, task, &other.connection)
    }

    /// Takes the tasks of a connection of the same session that is gone.
    pub(crate) fn take_over(&mut self, lost: &mut Self) {
        lost.connection.drop_connection("gone");
        self.connection.take_over(&mut lost.connection);
        self.buffers.append(&mut lost.buffers);
    }

    /// Sends bytes that no protocol made.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.push(bytes);
    }

    /// Nothing more is sent or heard.
    pub(crate) fn hang_up(&mut self) {
        self.stream.close();
    }

    /// ABORT TASK.
    pub(crate) fn abort(&mut self, task: TaskId) -> TaskId {
        self.connection.manage(1, 0, Some(task))
    }

    /// True when a management function is complete.
    pub(crate) fn is_managed(&self, request: TaskId) -> bool {
        self.managed.get(&request) == Some(&0)
    }

    /// What the command read.
    pub(crate) fn data(&self, task: TaskId) -> &[u8] {
        &self.buffers[&task]
    }
}
