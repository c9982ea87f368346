//! One session of a load: its channel, and the operations at work there.

use bdev::{BlockRange, Channel, Completed, Durability, Geometry, Io, IoError, Link, Op, Tag};
use core::time::Duration;
use engine::{Buf, Clock, Core, Instant, MonotonicClock, Prng};

use super::measure::Done;
use super::pace::Pacer;
use crate::target::Opened;
use crate::workload::{Generator, Kind, Request};

/// After an error nothing is sent for this long: a target that refuses is not asked in a tight loop.
const PAUSE: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    kind: Kind,
    intended: Instant,
    bytes: u32,
}

/// What a session works from once it is there.
struct Work {
    generator: Generator,
    pacer: Pacer,
    block_size: u32,
}

/// How an operation ended.
pub(super) enum Ended {
    Well(Done),
    Badly(String),
}

pub(super) struct Session {
    pub(super) name: String,
    pub(super) channel: Box<dyn Channel>,
    work: Option<Work>,
    flights: Vec<Option<Flight>>,
    free: Vec<u32>,
    /// Made, and not taken by the channel yet.
    refused: Option<Io>,
    /// An operation for which there was no buffer.
    unmade: Option<(Request, Instant)>,
    not_before: Instant,
    /// What is written: noise, from a place that moves.
    noise: Buf,
    at: usize,
}

impl Session {
    pub(super) fn new(opened: Opened, depth: u32, noise: Buf) -> Self {
        Self {
            name: opened.name,
            channel: opened.channel,
            work: None,
            flights: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            refused: None,
            unmade: None,
            not_before: Instant::EPOCH,
            noise,
            at: 0,
        }
    }

    /// The device's size, once it is known.
    pub(super) fn geometry(&self, now: Instant) -> Option<Geometry> {
        match self.channel.link(now) {
            Link::Up { geometry, .. } => Some(geometry),
            Link::Down(_) => None,
        }
    }

    pub(super) fn why_down(&self, now: Instant) -> Option<String> {
        match self.channel.link(now) {
            Link::Up { .. } => None,
            Link::Down(why) => Some(format!("{}: {why}", self.name)),
        }
    }

    pub(super) fn begin(&mut self, generator: Generator, pacer: Pacer, block_size: u32) {
        self.work = Some(Work { generator, pacer, block_size });
    }

    fn in_flight(&self) -> u32 {
        u32::try_from(self.flights.len() - self.free.len()).expect("the depth is small")
    }

    /// True when nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.free.len() == self.flights.len()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let room = !self.free.is_empty() && self.refused.is_none();
        let arrival = self.work.as_ref().filter(|_| room).and_then(|work| work.pacer.next_arrival());
        Instant::earliest(self.channel.next_deadline(), arrival.map(|at| at.max(self.not_before)))
    }

    /// Starts what is to start now; returns how many the channel took.
    pub(super) fn fill(&mut self, core: &Core, clock: &MonotonicClock) -> usize {
        let mut count = 0;
        let mut now = clock.now();
        if now < self.not_before {
            return 0;
        }
        while let Some(io) = self.refused.take().or_else(|| self.make(core, now)) {
            if !self.submit(io, now) {
                break;
            }
            count += 1;
            now = clock.now();
        }
        count
    }

    /// Makes the next operation, if one is to start.
    fn make(&mut self, core: &Core, now: Instant) -> Option<Io> {
        let in_flight = self.in_flight();
        let work = self.work.as_mut()?;
        let (request, intended) = match self.unmade.take() {
            Some(unmade) => unmade,
            None => {
                let intended = work.pacer.take(in_flight, now)?;
                (work.generator.next_request(), intended)
            }
        };
        let block_size = work.block_size;
        let Some(op) = self.operation(&request, block_size, core) else {
            self.unmade = Some((request, intended));
            return None;
        };
        let slot = self.free.pop().expect("the pacer keeps to the depth");
        self.flights[slot as usize] = Some(Flight { kind: request.kind, intended, bytes: request.len });
        Some(Io::new(op, Tag(u64::from(slot)), now))
    }

    /// None when there is no buffer.
    fn operation(&mut self, request: &Request, block_size: u32, core: &Core) -> Option<Op> {
        let range = BlockRange::new(request.offset / u64::from(block_size), request.len / block_size);
        let len = request.len as usize;
        Some(match request.kind {
            Kind::Read => Op::Read { range, into: core.pool().alloc(len)? },
            Kind::Write => {
                let room = self.noise.len() - len;
                self.at = if self.at + 4096 > room { 0 } else { self.at + 4096 };
                Op::Write {
                    range,
                    from: self.noise.slice(self.at..self.at + len),
                    durability: Durability::Accepted,
                }
            }
            Kind::Trim => Op::Discard { range },
            Kind::Flush => Op::Flush,
        })
    }

    /// False when the channel takes nothing now.
    fn submit(&mut self, io: Io, now: Instant) -> bool {
        let Err(refused) = self.channel.submit(io, now) else { return true };
        if refused.why == IoError::Busy {
            self.refused = Some(refused.io);
        } else {
            // Down: the operation is not lost but starts later, and its latency counts.
            self.refused = Some(refused.io);
            self.not_before = now + PAUSE;
        }
        false
    }

    pub(super) fn on_completed(&mut self, completed: &Completed, now: Instant) -> Ended {
        let slot = usize::try_from(completed.tag.0).expect("a slot");
        let flight = self.flights[slot].take().expect("an operation ends once");
        self.free.push(u32::try_from(slot).expect("the depth is small"));
        if let Err(error) = completed.result {
            self.not_before = now + PAUSE;
            return Ended::Badly(format!("{}: {}: {error}", self.name, flight.kind));
        }
        let mut stamps = completed.stamps;
        stamps.submitted = stamps.submitted.max(stamps.queued);
        stamps.completed = stamps.completed.max(stamps.submitted);
        stamps.replied = now;
        let bytes = match flight.kind {
            Kind::Read | Kind::Write => u64::from(flight.bytes),
            Kind::Trim | Kind::Flush => 0,
        };
        Ended::Well(Done { kind: flight.kind, intended: flight.intended, stamps, bytes })
    }

    /// Calls `see` with what had arrived by the end and was not started, and forgets it.
    pub(super) fn waiting_arrivals(&mut self, end: Instant, mut see: impl FnMut(Kind, Instant)) {
        if let Some(flight) = self.give_up() {
            see(flight.kind, flight.intended);
        }
        if let Some((request, intended)) = self.unmade.take() {
            see(request.kind, intended);
        }
        let Some(work) = &mut self.work else { return };
        while let Some(intended) = work.pacer.arrived(end) {
            see(work.generator.next_request().kind, intended);
        }
    }

    /// Ends what the channel has not taken.
    pub(super) fn give_up(&mut self) -> Option<Flight> {
        let completed = self.refused.take()?.complete(Err(IoError::Aborted), Instant::EPOCH);
        let slot = usize::try_from(completed.tag.0).expect("a slot");
        self.free.push(u32::try_from(slot).expect("the depth is small"));
        self.flights[slot].take()
    }
}

/// What is written: a buffer of the longest operation's length that does not compress.
pub(super) fn noise(core: &Core) -> Buf {
    let mut frame = core.pool().alloc(engine::BUF_LEN_MAX).expect("the pool is made for this");
    let mut prng = Prng::from_seed(0x006e_6f69_7365);
    for word in frame.chunks_exact_mut(8) {
        word.copy_from_slice(&prng.next_u64().to_le_bytes());
    }
    frame.freeze()
}
