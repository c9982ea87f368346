//! Between a stream and a protocol: payload bytes are copied once, from the stream's window into the task's frame.

use engine::{BUF_LEN_MAX, Buf, Pool, Segment};
use iscsi::digest::Trailer;
use iscsi::{Body, Protocol, TaskId, Transmit, Want};
use net::Stream;

use crate::payload::Parts;

/// The segments that one PDU may need: header, body in one frame or two, trailer.
const SEGMENTS_PER_PDU: usize = 4;

/// Bytes taken from one stream in one turn at the most, so that one peer does not starve the others.
const RECEIVE_BUDGET: usize = 1 << 20;

/// Where a protocol's payload lives.
pub(crate) trait Buffers {
    /// Copies received bytes into a task's frame; bytes past its end, or of a task without one, are dropped.
    fn store(&mut self, task: TaskId, offset: usize, bytes: &[u8]);

    /// A part of a task's data, to send.
    fn load(&self, task: TaskId, offset: usize, len: usize) -> Option<Parts>;
}

/// Gives what was received to the protocol until it wants nothing, nothing is left, or `pause` says so. Returns the bytes
/// taken.
pub(crate) fn receive<P: Protocol>(
    stream: &mut dyn Stream,
    protocol: &mut P,
    buffers: &mut impl Buffers,
    mut pause: impl FnMut(&mut P) -> bool,
) -> usize {
    let mut taken = 0;
    while taken < RECEIVE_BUDGET && !pause(protocol) {
        let count = stream.receive(&mut |window| match protocol.want() {
            Want::Nothing => 0,
            Want::Bytes(len) => {
                let count = len.min(window.len());
                protocol.handle_bytes(&window[..count]);
                count
            }
            Want::Payload { task, offset, len } => {
                let count = len.min(window.len());
                buffers.store(task, offset as usize, &window[..count]);
                protocol.handle_payload(&window[..count]);
                count
            }
        });
        if count == 0 {
            break;
        }
        taken += count;
    }
    taken
}

/// PDUs made in one turn at the most.
const PDUS_PER_TURN: usize = 256;

/// Frames that one stream may have for data segments of no task (echoes, texts, long sense data): nobody's share counts them, and a
/// peer that takes nothing keeps them.
const MADE_MAX: usize = 2;

/// The sending half of one end.
#[derive(Default)]
pub(crate) struct Sender {
    /// A PDU that waits for a frame.
    held: Option<Transmit>,
    /// The frames of data segments of no task that the stream has.
    made: Vec<Buf>,
    /// Tasks that are over with what was sent; the owner takes them.
    pub(crate) ended: Vec<TaskId>,
}

/// A PDU names a task whose buffer is gone, or is longer than any frame: a programmer's error that costs the connection, not the process.
#[derive(Debug)]
pub(crate) struct NoBuffer;

impl Sender {
    /// Sends what there is room for; returns how many PDUs.
    pub(crate) fn run<P: Protocol>(
        &mut self,
        stream: &mut dyn Stream,
        protocol: &mut P,
        buffers: &impl Buffers,
        pool: &Pool,
    ) -> Result<usize, NoBuffer> {
        self.made.retain(Buf::is_shared);
        for count in 0..PDUS_PER_TURN {
            if stream.free_segments() < SEGMENTS_PER_PDU {
                return Ok(count);
            }
            let Some(transmit) = self.held.take().or_else(|| protocol.poll_transmit()) else {
                return Ok(count);
            };
            let Some((body, trailer)) = self.body_segments(&transmit, buffers, pool)? else {
                self.held = Some(transmit);
                return Ok(count);
            };
            stream.push(Segment::inline(transmit.head()));
            body.into_iter().flatten().for_each(|segment| stream.push(segment));
            if !trailer.as_bytes().is_empty() {
                stream.push(Segment::inline(trailer.as_bytes()));
            }
            self.ended.extend(transmit.ends);
        }
        Ok(PDUS_PER_TURN)
    }

    /// The data segment and what follows it; `None` when there is no frame for it now.
    fn body_segments(
        &mut self,
        transmit: &Transmit,
        buffers: &impl Buffers,
        pool: &Pool,
    ) -> Result<Option<DataSegments>, NoBuffer> {
        let (first, second) = match &transmit.body {
            Body::None => return Ok(Some(([None, None], Trailer::of(&[], transmit.data_digest)))),
            Body::Inline(bytes) if bytes.len() <= Segment::INLINE_MAX => (Segment::inline(bytes), None),
            Body::Inline(bytes) if bytes.len() > BUF_LEN_MAX => return Err(NoBuffer),
            Body::Inline(bytes) => match self.make(bytes, pool) {
                Some(frame) => (Segment::Frame(frame), None),
                None => return Ok(None),
            },
            Body::Task { task, offset, len } => {
                let (first, second) = buffers.load(*task, *offset as usize, *len as usize).ok_or(NoBuffer)?;
                (Segment::Frame(first), second.map(Segment::Frame))
            }
        };
        let more = second.as_ref().map_or(&[][..], Segment::as_bytes);
        let trailer = Trailer::of_parts([first.as_bytes(), more], transmit.data_digest);
        Ok(Some(([Some(first), second], trailer)))
    }

    /// A frame with these bytes; `None` while the stream has as many as it may, or the pool has none.
    fn make(&mut self, bytes: &[u8], pool: &Pool) -> Option<Buf> {
        if self.made.len() == MADE_MAX {
            return None;
        }
        let mut frame = pool.alloc(bytes.len())?;
        frame.copy_from_slice(bytes);
        let frame = frame.freeze();
        self.made.push(frame.clone());
        Some(frame)
    }
}

/// A data segment, in as many frames as it is in, and what follows it.
type DataSegments = ([Option<Segment>; 2], Trailer);
