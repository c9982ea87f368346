//! One session of a host that sends commands itself: the production initiator on a stream, without an import around it.

use std::collections::{BTreeMap, VecDeque};

use core::net::SocketAddr;
use engine::{Instant, Segment};
use iscsi::digest::Trailer;
use iscsi::initiator::{Command, Completion, Config, Connection, Direction, Event, NotSent};
use iscsi::keys::{Choice, DigestPreference, Preferences};
use iscsi::{Body, Protocol, TaskId, Transmit, Want};
use net::{Network, Stream, StreamStatus};

/// A command that ended, and its data.
pub(crate) struct Ended {
    pub(crate) task: TaskId,
    pub(crate) completion: Completion,
    pub(crate) data: Vec<u8>,
}

/// See the module.
pub(crate) struct Session {
    stream: Box<dyn Stream>,
    connection: Connection,
    buffers: BTreeMap<TaskId, Vec<u8>>,
    /// Bytes that the stream had no room for.
    outbox: VecDeque<u8>,
}

/// Each write waits until it is asked for its data: between the command and them anything may happen.
fn preferences() -> Preferences {
    Preferences {
        header_digest: DigestPreference::Require,
        data_digest: DigestPreference::Require,
        initial_r2t: Choice::Yes,
        immediate_data: Choice::No,
        default_time2wait: 0,
        ..Preferences::default()
    }
}

impl Session {
    pub(crate) fn new(network: &dyn Network, address: SocketAddr, initiator: String, target: String) -> Self {
        let config = Config {
            initiator,
            alias: None,
            target: Some(target),
            isid: [0x80, 0, 0, 0, 0, 1],
            preferences: preferences(),
            credentials: None,
        };
        Self {
            stream: network.connect(address),
            connection: Connection::new(config),
            buffers: BTreeMap::new(),
            outbox: VecDeque::new(),
        }
    }

    pub(crate) fn is_in(&self) -> bool {
        self.connection.is_full_feature()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.connection.closed().is_some() || matches!(self.stream.status(), StreamStatus::Closed(_))
    }

    /// Sends a command with data to the target, or with room for data from it.
    pub(crate) fn send(&mut self, cdb: [u8; 16], data: Vec<u8>, room: usize) -> Result<TaskId, NotSent> {
        let (direction, buffer) = match (data.len(), room) {
            (0, 0) => (Direction::None, data),
            (0, room) => (Direction::Read, vec![0; room]),
            _ => (Direction::Write, data),
        };
        let len = u32::try_from(buffer.len()).expect("small");
        let command = Command { lun: 0, cdb, direction, len, attribute: Command::SIMPLE };
        let task = self.connection.submit(command)?;
        self.buffers.insert(task, buffer);
        Ok(task)
    }

    /// Takes what has come and sends what there is; gives what has ended.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<Ended> {
        let _ = self.stream.poll(now);
        while self.receive() > 0 {}
        let mut ended = Vec::new();
        while let Some(event) = self.connection.poll_event() {
            if let Event::Completed(task, completion) = event {
                let data = self.buffers.remove(&task).unwrap_or_default();
                ended.push(Ended { task, completion, data });
            }
        }
        while let Some(transmit) = self.connection.poll_transmit() {
            self.write(&transmit);
        }
        while self.stream.free_segments() > 0 && !self.outbox.is_empty() {
            let count = self.outbox.len().min(Segment::INLINE_MAX);
            let piece: Vec<u8> = self.outbox.drain(..count).collect();
            self.stream.push(Segment::inline(&piece));
        }
        let _ = self.stream.poll(now);
        ended
    }

    fn receive(&mut self) -> usize {
        let (connection, buffers) = (&mut self.connection, &mut self.buffers);
        self.stream.receive(&mut |window| match connection.want() {
            Want::Nothing => 0,
            Want::Bytes(len) => {
                let count = len.min(window.len());
                connection.handle_bytes(&window[..count]);
                count
            }
            Want::Payload { task, offset, len } => {
                let count = len.min(window.len());
                let room = buffers.get_mut(&task).and_then(|buffer| buffer.get_mut(offset as usize..));
                if let Some(room) = room {
                    let fits = count.min(room.len());
                    room[..fits].copy_from_slice(&window[..fits]);
                }
                connection.handle_payload(&window[..count]);
                count
            }
        })
    }

    fn write(&mut self, transmit: &Transmit) {
        let body = match &transmit.body {
            Body::None => Some(&[][..]),
            Body::Inline(bytes) => Some(&bytes[..]),
            Body::Task { task, offset, len } => {
                let buffer = self.buffers.get(task);
                buffer.and_then(|buffer| buffer.get(*offset as usize..(*offset + *len) as usize))
            }
        };
        let Some(body) = body else { return self.connection.drop_connection("a command without its data") };
        self.outbox.extend(transmit.head());
        self.outbox.extend(body);
        self.outbox.extend(Trailer::of(body, transmit.data_digest).as_bytes());
    }
}
