//! A host at command level: one session, any CDB, small data.

use std::collections::BTreeMap;

use core::net::SocketAddr;
use engine::{Instant, Segment};
use iscsi::initiator::{Command, Completion, Config, Connection, Direction, Event};
use iscsi::keys::Preferences;
use iscsi::{Body, Protocol, TaskId, Want};
use net::{Network, Stream};

/// See the module.
pub(crate) struct Host {
    stream: Box<dyn Stream>,
    connection: Connection,
    buffers: BTreeMap<TaskId, Vec<u8>>,
    ended: BTreeMap<TaskId, Completion>,
}

impl Host {
    pub(crate) fn new(network: &mut dyn Network, address: SocketAddr, name: &str, target: &str) -> Self {
        let config = Config {
            initiator: name.to_owned(),
            target: Some(target.to_owned()),
            isid: [0x80, 0, 0, 0, 0, 1],
            preferences: Preferences::default(),
        };
        let connection = Connection::new(config);
        let stream = network.connect(address);
        Self { stream, connection, buffers: BTreeMap::new(), ended: BTreeMap::new() }
    }

    pub(crate) fn poll(&mut self, now: Instant) {
        let _ = self.stream.poll(now);
        loop {
            let window = self.stream.readable();
            let count = match self.connection.want() {
                _ if window.is_empty() => break,
                Want::Nothing => break,
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
            };
            self.stream.consume(count);
        }
        while let Some(event) = self.connection.poll_event() {
            if let Event::Completed(task, completion) = event {
                self.ended.insert(task, completion);
            }
        }
        while let Some(transmit) = self.connection.poll_transmit() {
            self.stream.push(Segment::inline(transmit.head()));
            match &transmit.body {
                Body::None => {}
                Body::Inline(bytes) => self.push(&bytes.clone()),
                Body::Task { task, offset, len } => {
                    let bytes = self.buffers[task][*offset as usize..][..*len as usize].to_vec();
                    self.push(&bytes);
                }
            }
        }
        let _ = self.stream.poll(now);
    }

    fn push(&mut self, bytes: &[u8]) {
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().next_multiple_of(4), 0);
        for piece in padded.chunks(Segment::INLINE_MAX) {
            self.stream.push(Segment::inline(piece));
        }
    }

    pub(crate) fn is_in(&self) -> bool {
        self.connection.is_full_feature()
    }

    /// Sends a command with data to the target (`data`), or room for data from it (`room`).
    pub(crate) fn send(&mut self, cdb: &[u8], data: &[u8], room: u32) -> TaskId {
        let mut padded = [0; 16];
        padded[..cdb.len()].copy_from_slice(cdb);
        let (direction, len) = match (data.len(), room) {
            (0, 0) => (Direction::None, 0),
            (0, room) => (Direction::Read, room),
            (len, _) => (Direction::Write, u32::try_from(len).expect("small")),
        };
        let command = Command { lun: 0, cdb: padded, direction, len };
        let task = self.connection.submit(command).expect("logged in, with room in the window");
        let buffer = if data.is_empty() { vec![0; room as usize] } else { data.to_vec() };
        self.buffers.insert(task, buffer);
        task
    }

    /// How the command ended, once.
    pub(crate) fn take(&mut self, task: TaskId) -> Option<Completion> {
        self.ended.remove(&task)
    }

    /// What the command read.
    pub(crate) fn data(&self, task: TaskId) -> &[u8] {
        &self.buffers[&task]
    }
}
