//! A leg that writes down what passes: each write as it is sent and as it ends, each flush, and what hosts were told. What a
//! power cut may leave at any moment follows from that; see `crash`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bdev::sim::SimBdev;
use bdev::{
    Bdev, Capabilities, Channel, Completions, Durability, Geometry, Io, Link, Op, OpenError, Refused,
};
use engine::{Buf, Core, Instant, Progress};
use mirror::format::History;
use uuid::Uuid;

/// Names a write or flush.
pub(crate) type Number = u64;

/// What a write puts there.
#[derive(Clone, Debug)]
pub(crate) enum Bytes {
    Data(Arc<[u8]>),
    Zeroes(u64),
}

impl Bytes {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Zeroes(len) => *len,
        }
    }
}

/// One thing that happened, in the order of the run.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A write is on its way to byte `at` of a leg.
    Write { leg: usize, number: Number, at: u64, bytes: Bytes, durability: Durability },
    /// It ended with success.
    Written { leg: usize, number: Number },
    /// The process died, and the kernel has done it nevertheless.
    Landed { leg: usize, number: Number },
    /// It ended otherwise, and is not there.
    Lost { leg: usize, number: Number },
    /// A flush is on its way.
    Flush { leg: usize, number: Number },
    /// It ended with success.
    Flushed { leg: usize, number: Number },
    /// A host has written a stamp to a block; `Durable`: it asked for more than a cache.
    Sent { block: u64, stamp: u64, durability: Durability },
    /// And was told that it is there.
    Acknowledged { block: u64, stamp: u64 },
    /// The unit's state with this number is to be stored.
    StateSent { number: u64 },
    /// And is.
    StateStored { number: u64 },
    /// The arbiter has taken a config, with those that it follows.
    Arbitrated(Box<History>),
    /// The operator accepts that what was acknowledged so far is lost: from now on there may be two data sets.
    GivenUp,
    /// There is one data set again, on both legs.
    United,
}

/// All of a run.
#[derive(Default)]
pub(crate) struct Journal {
    state: Mutex<Recording>,
}

#[derive(Default)]
struct Recording {
    events: Vec<Event>,
    numbers: Number,
    /// Writes that have not ended.
    open: BTreeMap<Number, (usize, u64, Bytes)>,
}

impl Journal {
    fn state(&self) -> MutexGuard<'_, Recording> {
        self.state.lock().expect("one thread")
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.state().events.clone()
    }

    pub(crate) fn note(&self, event: Event) {
        self.state().events.push(event);
    }

    fn begin(&self, leg: usize, op: &Op, block_size: u64) -> Option<Number> {
        let mut state = self.state();
        state.numbers += 1;
        let number = state.numbers;
        let (range, bytes, durability) = match op {
            Op::Write { range, from, durability } => (range, Bytes::Data(Arc::from(&from[..])), *durability),
            Op::WriteZeroes { range, durability } => {
                (range, Bytes::Zeroes(u64::from(range.blocks) * block_size), *durability)
            }
            Op::Discard { range } => {
                (range, Bytes::Zeroes(u64::from(range.blocks) * block_size), Durability::Accepted)
            }
            Op::Flush => {
                state.events.push(Event::Flush { leg, number });
                return Some(number);
            }
            Op::Read { .. }
            | Op::Fence { .. }
            | Op::StoreState { .. }
            | Op::LoadState { .. }
            | Op::HandOver
            | Op::BlockStatus { .. } => return None,
            Op::CompareAndWrite { .. } | Op::CryptoErase => unreachable!("no leg is sent one"),
        };
        let at = range.lba * block_size;
        state.open.insert(number, (leg, at, bytes.clone()));
        state.events.push(Event::Write { leg, number, at, bytes, durability });
        Some(number)
    }

    fn end(&self, leg: usize, number: Number, is_flush: bool, is_good: bool) {
        let mut state = self.state();
        state.open.remove(&number);
        state.events.push(match (is_flush, is_good) {
            (true, true) => Event::Flushed { leg, number },
            (false, true) => Event::Written { leg, number },
            (_, false) => Event::Lost { leg, number },
        });
    }

    /// The process died: what it had in flight is on the medium by now, or never will be.
    pub(crate) fn killed(&self, leg: usize, disk: &SimBdev) {
        let mut state = self.state();
        let open = std::mem::take(&mut state.open);
        for (number, (of, at, bytes)) in open {
            if of != leg {
                state.open.insert(number, (of, at, bytes));
                continue;
            }
            let place = usize::try_from(at).expect("a small disk");
            let there = disk.peek(place, usize::try_from(bytes.len()).expect("a small disk"));
            let landed = match bytes {
                Bytes::Data(data) => there[..] == data[..],
                Bytes::Zeroes(_) => there.iter().all(|byte| *byte == 0),
            };
            let event = if landed { Event::Landed { leg, number } } else { Event::Lost { leg, number } };
            state.events.push(event);
        }
    }
}

/// See the module.
pub(crate) struct Recorder {
    inner: Arc<SimBdev>,
    leg: usize,
    journal: Arc<Journal>,
}

impl Recorder {
    pub(crate) fn new(inner: Arc<SimBdev>, leg: usize, journal: Arc<Journal>) -> Arc<Self> {
        Arc::new(Self { inner, leg, journal })
    }
}

impl Bdev for Recorder {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn product(&self) -> &'static str {
        "Recorded disk"
    }

    fn uuid(&self) -> Uuid {
        self.inner.uuid()
    }

    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn space(&self) -> Option<bdev::Space> {
        self.inner.space()
    }

    fn access(&self) -> bdev::Access {
        bdev::Access::Local
    }

    fn open(self: Arc<Self>, core: &Core) -> Result<Box<dyn Channel>, OpenError> {
        let inner = self.inner.clone().open(core)?;
        Ok(Box::new(RecordingChannel { device: self, inner, open: BTreeMap::new(), held: None }))
    }
}

struct RecordingChannel {
    device: Arc<Recorder>,
    inner: Box<dyn Channel>,
    /// By the owner's tag: the number, and whether it is a flush.
    open: BTreeMap<u64, (Number, bool)>,
    /// What was written last: as a link's queue does, the device may look at it when it has answered.
    held: Option<Buf>,
}

impl Channel for RecordingChannel {
    fn submit(&mut self, io: Io, now: Instant) -> Result<(), Refused> {
        let block_size = u64::from(self.device.inner.geometry().block_size);
        let (tag, is_flush) = (io.tag.0, matches!(io.op(), Op::Flush));
        let number = self.device.journal.begin(self.device.leg, io.op(), block_size);
        if let Op::Write { from, .. } = io.op() {
            self.held = Some(from.clone());
        }
        let sent = self.inner.submit(io, now);
        match (number, &sent) {
            (Some(number), Ok(())) => drop(self.open.insert(tag, (number, is_flush))),
            (Some(number), Err(_)) => self.device.journal.end(self.device.leg, number, is_flush, false),
            (None, _) => {}
        }
        sent
    }

    fn poll(&mut self, now: Instant, done: &mut Completions) -> Progress {
        let before = done.len();
        let progress = self.inner.poll(now, done);
        for completed in done.iter().skip(before) {
            if let Some((number, is_flush)) = self.open.remove(&completed.tag.0) {
                self.device.journal.end(self.device.leg, number, is_flush, completed.result.is_ok());
            }
        }
        progress
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.inner.next_deadline()
    }

    fn link(&self, now: Instant) -> Link {
        self.inner.link(now)
    }
}
