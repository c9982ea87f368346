//! The link between two simulated nodes: a channel to the other's guarded leg that can be cut. Each message takes its
//! time. What was sent before a cut may still happen at the far end, even after the next session began; its answer is
//! lost.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use bdev::hop::HopBdev;
use bdev::{
    Bdev, BlockRange, Capabilities, Channel, Completed, Completions, Geometry, Io, IoError, Link, LinkDown,
    Op, OpenError, Refused, Tag,
};
use core::time::Duration;
use engine::{Core, Instant, Pool, Prng, Progress};
use uuid::Uuid;

#[derive(Default)]
struct State {
    far: Option<Arc<HopBdev>>,
    session: u64,
}

/// One direction.
pub(crate) struct Wire {
    state: Mutex<State>,
    geometry: Geometry,
}

impl Wire {
    pub(crate) fn new(geometry: Geometry) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), geometry })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("one thread")
    }

    /// Connects to a leg, in a new session.
    pub(crate) fn connect(&self, far: Arc<HopBdev>) {
        let mut state = self.state();
        state.far = Some(far);
        state.session += 1;
    }

    /// Cuts it.
    pub(crate) fn cut(&self) {
        self.state().far = None;
    }
}

impl Bdev for Wire {
    fn name(&self) -> &str {
        "wire"
    }

    fn product(&self) -> &'static str {
        "Simulated link"
    }

    fn uuid(&self) -> Uuid {
        Uuid::nil()
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::FLUSH | Capabilities::FUA | Capabilities::FENCE
    }

    fn access(&self) -> bdev::Access {
        bdev::Access::Local
    }

    fn open(self: Arc<Self>, core: &Core) -> Result<Box<dyn Channel>, OpenError> {
        let core = core.clone();
        Ok(Box::new(WireChannel {
            wire: self,
            core,
            session: 0,
            current: None,
            late: Vec::new(),
            open: BTreeMap::new(),
            next: 0,
            prng: Prng::from_seed(7),
            done: Completions::new(),
        }))
    }
}

struct WireChannel {
    wire: Arc<Wire>,
    core: Core,
    session: u64,
    current: Option<Session>,
    /// Sessions that this end has given up, with what they left on the wire.
    late: Vec<Session>,
    open: BTreeMap<u64, Io>,
    next: u64,
    prng: Prng,
    done: Completions,
}

/// A channel to the far end, and what is on the wire to it.
struct Session {
    far: Box<dyn Channel>,
    /// With the time of arrival.
    sent: VecDeque<(Instant, Io)>,
    in_flight: usize,
}

impl Session {
    fn send(&mut self, io: Io, now: Instant, takes: Duration) {
        let after = self.sent.back().map_or(now, |(due, _)| now.max(*due));
        self.sent.push_back((after + takes, io));
    }

    /// Hands over what has arrived, and gives the answers.
    fn poll(&mut self, now: Instant) -> Completions {
        let mut answers = Completions::new();
        let _: Progress = self.far.poll(now, &mut answers);
        self.in_flight -= answers.len();
        while self.sent.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, io)) = self.sent.pop_front() else { break };
            match self.far.submit(io, now) {
                Ok(()) => self.in_flight += 1,
                Err(refused) => {
                    let why = refused.why;
                    answers.push_back(refused.io.complete(Err(why), now));
                }
            }
        }
        answers
    }

    fn is_over(&self) -> bool {
        self.sent.is_empty() && self.in_flight == 0
    }

    /// Everything on the wire takes so much longer.
    fn delay(mut self, pause: Duration) -> Self {
        self.sent.iter_mut().for_each(|(due, _)| *due += pause);
        self
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for (_, io) in self.sent.drain(..) {
            drop(io.complete(Err(IoError::Aborted), Instant::EPOCH));
        }
    }
}

/// The memory of the far end, which another node has.
fn far_pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(Pool::for_tests)
}

fn copy_of(op: &Op, pool: &Pool) -> Op {
    match op {
        Op::Read { range, into } => Op::Read { range: *range, into: pool.alloc(into.len()).expect("frames") },
        Op::Write { range, from, durability } => {
            Op::Write { range: *range, from: from.clone(), durability: *durability }
        }
        Op::WriteZeroes { range, durability } => Op::WriteZeroes { range: *range, durability: *durability },
        Op::Discard { range } => Op::Discard { range: *range },
        Op::Flush => Op::Flush,
        Op::Fence { key } => Op::Fence { key: *key },
        Op::BlockStatus { .. } | Op::CompareAndWrite { .. } | Op::CryptoErase => {
            unreachable!("the mirror never sends these to a leg")
        }
        Op::StoreState { .. } | Op::LoadState { .. } | Op::HandOver => {
            unreachable!("a leg keeps no state of its own")
        }
    }
}

impl WireChannel {
    fn follow(&mut self, now: Instant) {
        let (far, session) = {
            let state = self.wire.state();
            (state.far.clone(), state.session)
        };
        if far.is_some() == self.current.is_some() && session == self.session {
            return;
        }
        let pause = Duration::from_micros(self.prng.below(20_000));
        self.late.extend(self.current.take().map(|old| old.delay(pause)));
        for io in std::mem::take(&mut self.open).into_values() {
            self.done.push_back(io.complete(Err(IoError::LinkDown), now));
        }
        self.session = session;
        let open = |far: Arc<HopBdev>| far.open(&self.core).expect("a lane");
        self.current = far.map(|far| Session { far: open(far), sent: VecDeque::new(), in_flight: 0 });
    }

    fn answer(&mut self, answer: &Completed, now: Instant) {
        let Some(mut io) = self.open.remove(&answer.tag.0) else { return };
        if let (Op::Read { into, .. }, Op::Read { into: theirs, .. }) = (io.op_mut(), &answer.op) {
            into.copy_from_slice(theirs);
        }
        self.done.push_back(io.complete(answer.result, now));
    }

    /// A far end that does not answer in time has failed.
    fn time_out(&mut self, now: Instant) {
        let late = |io: &Io| io.deadline.is_some_and(|at| now >= at);
        let tags: Vec<u64> = self.open.iter().filter(|(_, io)| late(io)).map(|(tag, _)| *tag).collect();
        for tag in tags {
            let io = self.open.remove(&tag).expect("just seen");
            self.done.push_back(io.complete(Err(IoError::TimedOut), now));
        }
    }
}

impl Channel for WireChannel {
    fn submit(&mut self, io: Io, now: Instant) -> Result<(), Refused> {
        self.follow(now);
        let Some(session) = &mut self.current else { return Err(io.refuse(IoError::LinkDown)) };
        let mut op = copy_of(io.op(), far_pool());
        if let (Op::Read { range, .. }, Link::Up { geometry: far, .. }) = (&mut op, session.far.link(now)) {
            // Whatever its size is said to be, a block is where it is.
            let scale = self.wire.geometry.block_size / far.block_size;
            *range = BlockRange::new(range.lba * u64::from(scale), range.blocks * scale);
        }
        let copy = Io::new(op, Tag(self.next), now);
        session.send(copy, now, Duration::from_micros(self.prng.below(150)));
        self.open.insert(self.next, io);
        self.next += 1;
        Ok(())
    }

    fn poll(&mut self, now: Instant, done: &mut Completions) -> Progress {
        self.follow(now);
        self.late.retain_mut(|session| {
            session.poll(now);
            !session.is_over()
        });
        let answers = self.current.as_mut().map(|session| session.poll(now));
        for answer in answers.into_iter().flatten() {
            self.answer(&answer, now);
        }
        self.time_out(now);
        let count = self.done.len();
        done.append(&mut self.done);
        Progress::from_count(count)
    }

    fn link(&self, now: Instant) -> Link {
        match &self.current {
            Some(Session { far, .. }) => match far.link(now) {
                Link::Up { geometry, .. } => {
                    let Geometry { block_size, physical_block_size, .. } = self.wire.geometry;
                    let blocks = geometry.bytes() / u64::from(block_size);
                    let geometry = Geometry { block_size, physical_block_size, blocks };
                    Link::Up { session: self.session, geometry, alive_at: now }
                }
                down @ Link::Down(_) => down,
            },
            None => Link::Down(LinkDown::Lost("cut".to_owned())),
        }
    }
}

impl Drop for WireChannel {
    fn drop(&mut self) {
        for io in std::mem::take(&mut self.open).into_values() {
            drop(io.complete(Err(IoError::Aborted), Instant::EPOCH));
        }
    }
}
