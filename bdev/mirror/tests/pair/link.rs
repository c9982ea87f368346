//! The link between two simulated nodes: a channel to the other's guarded leg that can be cut. What was sent
//! before a cut may still happen at the far end; its answer is lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bdev::hop::HopBdev;
use bdev::{
    Bdev, Capabilities, Channel, Completions, Geometry, Io, IoError, Link, LinkDown, Op, OpenError, Refused,
    Tag,
};
use engine::{Core, Instant, Pool, Progress};
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

    fn open(self: Arc<Self>, core: &Core) -> Result<Box<dyn Channel>, OpenError> {
        let core = core.clone();
        Ok(Box::new(WireChannel {
            wire: self,
            core,
            session: 0,
            far: None,
            open: BTreeMap::new(),
            next: 0,
            done: Completions::new(),
        }))
    }
}

struct WireChannel {
    wire: Arc<Wire>,
    core: Core,
    session: u64,
    far: Option<Box<dyn Channel>>,
    open: BTreeMap<u64, Io>,
    next: u64,
    done: Completions,
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
    }
}

impl WireChannel {
    fn follow(&mut self, now: Instant) {
        let (far, session) = {
            let state = self.wire.state();
            (state.far.clone(), state.session)
        };
        if far.is_some() == self.far.is_some() && session == self.session {
            return;
        }
        self.far = None;
        for io in std::mem::take(&mut self.open).into_values() {
            self.done.push_back(io.complete(Err(IoError::LinkDown), now));
        }
        self.session = session;
        self.far = far.map(|far| far.open(&self.core).expect("a lane"));
    }
}

impl Channel for WireChannel {
    fn submit(&mut self, io: Io, now: Instant) -> Result<(), Refused> {
        self.follow(now);
        let Some(far) = &mut self.far else { return Err(io.refuse(IoError::LinkDown)) };
        let copy = Io::new(copy_of(io.op(), self.core.pool()), Tag(self.next), now);
        if let Err(refused) = far.submit(copy, now) {
            let why = refused.why;
            drop(refused.io.complete(Err(why), now));
            return Err(io.refuse(why));
        }
        self.open.insert(self.next, io);
        self.next += 1;
        Ok(())
    }

    fn poll(&mut self, now: Instant, done: &mut Completions) -> Progress {
        self.follow(now);
        let mut answers = Completions::new();
        if let Some(far) = &mut self.far {
            let _: Progress = far.poll(now, &mut answers);
        }
        for answer in answers {
            let Some(mut io) = self.open.remove(&answer.tag.0) else { continue };
            if let (Op::Read { into, .. }, Op::Read { into: theirs, .. }) = (io.op_mut(), &answer.op) {
                into.copy_from_slice(theirs);
            }
            self.done.push_back(io.complete(answer.result, now));
        }
        // A far end that does not answer in time has failed.
        let late: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, io)| io.deadline.is_some_and(|at| now >= at))
            .map(|(tag, _)| *tag)
            .collect();
        for tag in late {
            let io = self.open.remove(&tag).expect("just seen");
            self.done.push_back(io.complete(Err(IoError::TimedOut), now));
        }
        let count = self.done.len();
        done.append(&mut self.done);
        Progress::from_count(count)
    }

    fn link(&self, now: Instant) -> Link {
        match &self.far {
            Some(far) => match far.link(now) {
                Link::Up { geometry, .. } => Link::Up { session: self.session, geometry, alive_at: now },
                down @ Link::Down(_) => down,
            },
            None => Link::Down(LinkDown::Lost("cut".to_owned())),
        }
    }
}

impl Drop for WireChannel {
    fn drop(&mut self) {
        for io in std::mem::take(&mut self.open).into_values().chain([]) {
            drop(io.complete(Err(IoError::Aborted), Instant::EPOCH));
        }
    }
}
