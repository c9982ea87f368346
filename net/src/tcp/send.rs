//! The send queue of one stream: segments leave in order, gathered, one call in flight at a time.

use std::collections::VecDeque;

use engine::{Operation, Segment, Socket};

/// Segments that one stream holds at the most, with those in flight.
pub(super) const SEGMENTS_MAX: usize = 256;

/// Segments not yet sent.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: VecDeque<Segment>,
    /// Bytes of the first waiting segment that are sent already.
    skip: usize,
    in_flight: usize,
    sent: u64,
    /// An empty vector to fill for the next send: the one that came back from the last.
    batch: Vec<Segment>,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::with_capacity(SEGMENTS_MAX),
            skip: 0,
            in_flight: 0,
            sent: 0,
            batch: Vec::with_capacity(Operation::SEND_SEGMENTS_MAX),
        }
    }

    pub(super) fn free(&self) -> usize {
        SEGMENTS_MAX - self.waiting.len() - self.in_flight
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight == 0
    }

    /// Bytes sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn push(&mut self, segment: Segment) {
        assert!(self.free() > 0, "pushed a segment without room for it");
        // An empty vector in a gathered send would look like the end of progress.
        if !segment.as_bytes().is_empty() {
            self.waiting.push_back(segment);
        }
    }

    /// The next send; `None` while one is in flight or nothing waits.
    pub(super) fn start(&mut self, socket: &Socket) -> Option<Operation> {
        if self.in_flight != 0 || self.waiting.is_empty() {
            return None;
        }
        let mut segments = core::mem::take(&mut self.batch);
        let count = self.waiting.len().min(Operation::SEND_SEGMENTS_MAX);
        segments.extend(self.waiting.drain(..count));
        self.in_flight = count;
        Some(Operation::Send { socket: socket.clone(), segments, skip: core::mem::take(&mut self.skip) })
    }

    /// A send ended after `sent` bytes: what it did not send waits again, in front.
    pub(super) fn finish(&mut self, mut segments: Vec<Segment>, skip: usize, sent: usize) {
        self.in_flight = 0;
        self.sent += sent as u64;
        let mut sent = skip + sent;
        let whole = segments
            .iter()
            .take_while(|segment| {
                let len = segment.as_bytes().len();
                let gone = sent >= len;
                sent -= if gone { len } else { 0 };
                gone
            })
            .count();
        self.skip = sent;
        for segment in segments.drain(whole..).rev() {
            self.waiting.push_front(segment);
        }
        segments.clear();
        self.batch = segments;
    }

    /// Forgets everything that waits.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.skip = 0;
    }
}
