//! A host at command level: one session over kernel TCP, any CDB, one command at a time. It blocks.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use engine::{Clock, MonotonicClock};
use gateway::LunUrl;
use iscsi::digest::Trailer;
use iscsi::initiator::{Command, Completion, Config, Connection, Direction, Event};
use iscsi::keys::Preferences;
use iscsi::{Body, Protocol, TaskId, Want};

/// How long a host waits for an answer before the test fails: more than a front end may hold a command.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one look at the socket takes at the most.
const LOOK: Duration = Duration::from_millis(5);

/// How a command ended: the status, and the additional sense code with its qualifier, or zero.
pub type Outcome = (u8, u16);
/// It went well.
pub const GOOD: Outcome = (0, 0);
/// RESERVATION CONFLICT.
pub const CONFLICT: Outcome = (0x18, 0);

/// CHECK CONDITION with this additional sense code and qualifier.
pub const fn check(code: u16) -> Outcome {
    (0x02, code)
}

/// The service actions of PERSISTENT RESERVE OUT (SPC-4 section 6.14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ReserveOut {
    /// 00h.
    Register = 0,
    /// 01h.
    Reserve = 1,
    /// 02h.
    Release = 2,
    /// 03h.
    Clear = 3,
    /// 04h.
    Preempt = 4,
    /// 05h.
    PreemptAndAbort = 5,
    /// 06h.
    RegisterAndIgnore = 6,
}

/// What a command brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it ended.
    pub outcome: Outcome,
    /// INFORMATION of the sense data.
    pub information: Option<u64>,
    /// What was read.
    pub data: Vec<u8>,
}

/// What a task is still waited for.
#[derive(Debug)]
struct Open {
    task: TaskId,
    buffer: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct Host {
    stream: TcpStream,
    connection: Connection,
    open: Vec<Open>,
    ended: Vec<(TaskId, Completion)>,
    managed: Vec<(TaskId, u8)>,
    lun: u64,
    clock: MonotonicClock,
}

impl Host {
    /// Logs in under an initiator name.
    ///
    /// # Panics
    /// When the target does not let it in.
    pub fn login(url: &str, name: &str) -> Self {
        let url: LunUrl = url.parse().expect("a URL of a LUN");
        let config = Config {
            initiator: name.to_owned(),
            alias: None,
            target: Some(url.target.clone()),
            isid: [0x80, 0, 0, 0x74, 0, 1],
            preferences: Preferences::default(),
            credentials: None,
        };
        let mut host = Self {
            stream: connect(url.portal),
            connection: Connection::new(config),
            open: Vec::new(),
            ended: Vec::new(),
            managed: Vec::new(),
            lun: scsi::lun::encode(url.lun),
            clock: MonotonicClock::start(),
        };
        host.until("a login", |host| host.connection.is_full_feature());
        // A new nexus is told so.
        host.ready();
        host
    }

    fn until(&mut self, what: &str, mut ready: impl FnMut(&mut Self) -> bool) {
        let until = self.clock.now() + PATIENCE;
        loop {
            self.turn();
            if ready(self) {
                return;
            }
            assert!(self.connection.closed().is_none(), "{what}: {:?}", self.connection.closed());
            assert!(self.clock.now() < until, "{what}: nothing for {PATIENCE:?}");
        }
    }

    fn turn(&mut self) {
        self.transmit();
        let mut bytes = [0; 1 << 16];
        match self.stream.read(&mut bytes) {
            Ok(0) => self.connection.drop_connection("the target closed the stream"),
            Ok(count) => self.receive(&bytes[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.connection.drop_connection("the stream failed"),
        }
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Completed(task, completion) => self.ended.push((task, completion)),
                Event::TaskManagementDone(request, code) => self.managed.push((request, code)),
                Event::LoggedIn
                | Event::Pong
                | Event::Text(_)
                | Event::LogoutRequested { .. }
                | Event::Removed { .. }
                | Event::NotReassigned(..) => {}
            }
        }
        self.transmit();
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let count = match self.connection.want() {
                Want::Nothing => return,
                Want::Bytes(len) => {
                    let count = len.min(bytes.len());
                    self.connection.handle_bytes(&bytes[..count]);
                    count
                }
                Want::Payload { task, offset, len } => {
                    let count = len.min(bytes.len());
                    if let Some(open) = self.open.iter_mut().find(|open| open.task == task) {
                        open.buffer[offset as usize..][..count].copy_from_slice(&bytes[..count]);
                    }
                    self.connection.handle_payload(&bytes[..count]);
                    count
                }
            };
            bytes = &bytes[count..];
        }
    }

    fn transmit(&mut self) {
        let mut bytes = Vec::new();
        while let Some(transmit) = self.connection.poll_transmit() {
            bytes.extend_from_slice(transmit.head());
            let body = match &transmit.body {
                Body::None => &[][..],
                Body::Inline(body) => body,
                Body::Task { task, offset, len } => {
                    let open = self.open.iter().find(|open| open.task == *task).expect("an open task");
                    &open.buffer[*offset as usize..][..*len as usize]
                }
            };
            bytes.extend_from_slice(body);
            bytes.extend_from_slice(Trailer::of(body, transmit.data_digest).as_bytes());
        }
        if !bytes.is_empty() && self.stream.write_all(&bytes).is_err() {
            self.connection.drop_connection("the stream failed");
        }
    }

    /// Sends a command with data to the target, or room for data from it.
    ///
    /// # Panics
    /// When the session is over.
    pub fn send(&mut self, cdb: &[u8], data: &[u8], room: usize) -> TaskId {
        let mut padded = [0; 16];
        padded[..cdb.len()].copy_from_slice(cdb);
        let (direction, len) = match (data.len(), room) {
            (0, 0) => (Direction::None, 0),
            (0, room) => (Direction::Read, room),
            (len, _) => (Direction::Write, len),
        };
        let len = u32::try_from(len).expect("small");
        let command = Command { lun: self.lun, cdb: padded, direction, len, attribute: Command::SIMPLE };
        let task = self.connection.submit(command).expect("logged in, with room in the window");
        let buffer = if data.is_empty() { vec![0; room] } else { data.to_vec() };
        self.open.push(Open { task, buffer });
        self.transmit();
        task
    }

    /// Waits for a command's end.
    ///
    /// # Panics
    /// When it does not end.
    pub fn answer(&mut self, task: TaskId) -> Answer {
        self.until("an answer", |host| host.ended.iter().any(|(ended, _)| *ended == task));
        let at = self.ended.iter().position(|(ended, _)| *ended == task).expect("waited for");
        let (_, completion) = self.ended.swap_remove(at);
        let at = self.open.iter().position(|open| open.task == task).expect("opened");
        let mut data = self.open.swap_remove(at).buffer;
        data.truncate(data.len().saturating_sub(completion.underflow as usize));
        let code = scsi::sense::decode(&completion.sense).map_or(0, |(_, code)| code);
        let information = scsi::sense::information(&completion.sense);
        Answer { outcome: (completion.status, code), information, data }
    }

    /// Waits for a command's end, or for the session's: `None` then.
    pub fn end_if_any(&mut self, task: TaskId) -> Option<(Outcome, Vec<u8>)> {
        let has_ended = |host: &Self| host.ended.iter().any(|(ended, _)| *ended == task);
        self.until("an answer, or the end", |host| has_ended(host) || host.connection.closed().is_some());
        has_ended(self).then(|| self.end(task))
    }

    /// Waits for a command's end; how it ended, and what it read.
    pub fn end(&mut self, task: TaskId) -> (Outcome, Vec<u8>) {
        let Answer { outcome, data, .. } = self.answer(task);
        (outcome, data)
    }

    /// Lets time pass; true when the command is still without an answer then.
    pub fn is_open_after(&mut self, task: TaskId, time: Duration) -> bool {
        let until = self.clock.now() + time;
        while self.clock.now() < until {
            self.turn();
        }
        !self.ended.iter().any(|(ended, _)| *ended == task)
    }

    /// A command without data.
    pub fn command(&mut self, cdb: &[u8]) -> Outcome {
        let task = self.send(cdb, &[], 0);
        self.end(task).0
    }

    /// A command with data to the target.
    pub fn run(&mut self, cdb: &[u8], data: &[u8]) -> Outcome {
        let task = self.send(cdb, data, 0);
        self.end(task).0
    }

    /// A command with data from the target, at the most `room` bytes.
    ///
    /// # Panics
    /// When it fails.
    pub fn fetch(&mut self, cdb: &[u8], room: usize) -> Vec<u8> {
        let task = self.send(cdb, &[], room);
        let (outcome, data) = self.end(task);
        assert_eq!(outcome, GOOD, "{cdb:02x?}");
        data
    }

    /// TEST UNIT READY.
    pub fn ready(&mut self) -> Outcome {
        self.command(&[0; 6])
    }

    /// TEST UNIT READY until nothing is to be told any more: what was told.
    pub fn attentions(&mut self) -> Vec<u16> {
        let mut told = Vec::new();
        loop {
            match self.ready() {
                (0x02, code) if told.len() < 16 => told.push(code),
                _ => return told,
            }
        }
    }

    fn block(address: u32) -> [u8; 10] {
        let [a, b, c, d] = address.to_be_bytes();
        [0x2a, 0, a, b, c, d, 0, 0, 1, 0]
    }

    /// WRITE(10) of a block that is full of a byte, without a wait.
    pub fn send_write(&mut self, address: u32, byte: u8) -> TaskId {
        self.send(&Self::block(address), &[byte; 512], 0)
    }

    /// WRITE(10) of a block that is full of a byte.
    pub fn write(&mut self, address: u32, byte: u8) -> Outcome {
        let task = self.send_write(address, byte);
        self.end(task).0
    }

    /// READ(10) of a block: the byte that it is full of.
    ///
    /// # Errors
    /// How it ended otherwise.
    ///
    /// # Panics
    /// When the block is not full of one byte.
    pub fn read(&mut self, address: u32) -> Result<u8, Outcome> {
        let mut cdb = Self::block(address);
        cdb[0] = 0x28;
        let task = self.send(&cdb, &[], 512);
        match self.end(task) {
            (GOOD, data) => {
                assert!(data.iter().all(|byte| *byte == data[0]), "one write's data");
                Ok(data[0])
            }
            (outcome, _) => Err(outcome),
        }
    }

    /// PERSISTENT RESERVE OUT, without a wait.
    pub fn send_reserve_out(&mut self, action: ReserveOut, kind: u8, key: u64, action_key: u64) -> TaskId {
        // APTPL: it is kept when the power fails.
        let list = [&key.to_be_bytes()[..], &action_key.to_be_bytes(), &[0, 0, 0, 0, 1, 0, 0, 0]].concat();
        self.send(&[0x5f, action as u8, kind, 0, 0, 0, 0, 0, 24, 0], &list, 0)
    }

    /// PERSISTENT RESERVE OUT with a type (SPC-4 section 6.14), the reservation key and the service action reservation key.
    pub fn reserve_out(&mut self, action: ReserveOut, kind: u8, key: u64, action_key: u64) -> Outcome {
        let task = self.send_reserve_out(action, kind, key, action_key);
        self.end(task).0
    }

    fn reserve_in(&mut self, action: u8) -> Vec<u8> {
        self.fetch(&[0x5e, action, 0, 0, 0, 0, 0, 0, 252, 0], 252)
    }

    /// PRgeneration and the keys that are registered (READ KEYS).
    ///
    /// # Panics
    /// When the command fails.
    pub fn keys(&mut self) -> (u32, Vec<u64>) {
        let data = self.reserve_in(0);
        let keys = data[8..].chunks_exact(8).map(|key| u64::from_be_bytes(key.try_into().expect("eight")));
        (u32::from_be_bytes(data[..4].try_into().expect("four")), keys.collect())
    }

    /// Key and type of the reservation (READ RESERVATION).
    ///
    /// # Panics
    /// When the command fails.
    pub fn reservation(&mut self) -> Option<(u64, u8)> {
        let data = self.reserve_in(1);
        let descriptor = data.get(8..24)?;
        Some((u64::from_be_bytes(descriptor[..8].try_into().expect("eight")), descriptor[13] & 0x0f))
    }

    /// A task management function (RFC 7143 section 11.5.1): the response code.
    ///
    /// # Panics
    /// When it is not answered.
    pub fn manage(&mut self, function: u8) -> u8 {
        let request = self.connection.manage(function, self.lun, None);
        self.until("a response", |host| host.managed.iter().any(|(managed, _)| *managed == request));
        self.managed.iter().find(|(managed, _)| *managed == request).expect("waited for").1
    }
}

fn connect(portal: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&portal, PATIENCE).expect("the portal listens");
    stream.set_nodelay(true).expect("a TCP socket");
    stream.set_read_timeout(Some(LOOK)).expect("a time");
    stream
}
