//! The receive window of one stream: a fixed set of frames that go round between the kernel and the reader.

use std::collections::VecDeque;

use engine::{BufMut, Pool};

/// Bytes of one receive frame.
const FRAME_LEN: usize = 64 << 10;
/// Frames of one stream: one is read while the kernel fills the other.
const FRAMES: usize = 2;

/// A frame with received bytes that the reader has not consumed.
#[derive(Debug)]
struct Filled {
    frame: BufMut,
    start: usize,
    end: usize,
}

/// Frames of one stream. Each is in one of three places: filled, spare, or in the kernel's hands.
#[derive(Debug)]
pub(super) struct Window {
    filled: VecDeque<Filled>,
    spare: Vec<BufMut>,
}

impl Window {
    /// Takes the frames from the pool; `None` when it has too few left.
    pub(super) fn new(pool: &Pool) -> Option<Self> {
        let spare = (0..FRAMES).map(|_| pool.alloc(FRAME_LEN)).collect::<Option<Vec<_>>>()?;
        Some(Self { filled: VecDeque::with_capacity(FRAMES), spare })
    }

    /// A frame for the kernel to fill. `None` is back-pressure: the reader has to consume first.
    pub(super) fn take_spare(&mut self) -> Option<BufMut> {
        self.spare.pop()
    }

    /// A frame back from the kernel with `count` bytes in it.
    pub(super) fn put(&mut self, frame: BufMut, count: usize) {
        if count == 0 {
            self.spare.push(frame);
        } else {
            self.filled.push_back(Filled { frame, start: 0, end: count });
        }
    }

    /// The oldest bytes.
    pub(super) fn readable(&self) -> &[u8] {
        self.filled.front().map_or(&[], |filled| &filled.frame[filled.start..filled.end])
    }

    /// Gives the first `count` of the oldest bytes back.
    pub(super) fn consume(&mut self, count: usize) {
        assert!(count <= self.readable().len(), "consumed more than was readable");
        if let Some(filled) = self.filled.front_mut() {
            filled.start += count;
            if filled.start == filled.end {
                let filled = self.filled.pop_front().expect("it is the front");
                self.spare.push(filled.frame);
            }
        }
    }
}
