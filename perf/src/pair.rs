//! A mirrored pair in this process: two nodes with a RAM leg each, joined without a wire. What the mirror itself costs.
//!
//! Owner: the load's reactor. Every session of the pair polls both nodes; the pair's link is up once both legs are in sync.

use core::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use bdev::hop::HopBdev;
use bdev::malloc::MallocBdev;
use bdev::{
    Access, Bdev, Capabilities, Channel, Completions, Geometry, Io, IoError, Link, LinkDown, OpenError,
    Refused,
};
use engine::{Core, Instant, Progress};
use mirror::driver::Driver;
use mirror::format::{ArbiterKind, ArrayName, LegFlags, LegIndex};
use mirror::setup::{ArbiterLink, Content, DegradedPolicy, OnBlank, Setup, Timing};
use mirror::status::{PeerSight, RoleKind};
use uuid::Uuid;

const NAME: &str = "pair";

/// The way to the other node's leg, which is made after this node.
struct Cable {
    far: OnceLock<Arc<HopBdev>>,
    geometry: Geometry,
}

impl Bdev for Cable {
    fn name(&self) -> &'static str {
        "cable"
    }

    fn product(&self) -> &'static str {
        "Cable"
    }

    fn uuid(&self) -> Uuid {
        Uuid::nil()
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::FLUSH
            | Capabilities::FUA
            | Capabilities::DISCARD
            | Capabilities::WRITE_ZEROES
            | Capabilities::FENCE
    }

    fn access(&self) -> Access {
        Access::Local
    }

    fn open(self: Arc<Self>, core: &Core) -> Result<Box<dyn Channel>, OpenError> {
        Ok(Box::new(CableChannel { cable: self, core: core.clone(), far: None }))
    }
}

struct CableChannel {
    cable: Arc<Cable>,
    core: Core,
    far: Option<Box<dyn Channel>>,
}

impl Channel for CableChannel {
    fn submit(&mut self, io: Io, now: Instant) -> Result<(), Refused> {
        match &mut self.far {
            Some(far) => far.submit(io, now),
            None => Err(io.refuse(IoError::LinkDown)),
        }
    }

    fn poll(&mut self, now: Instant, done: &mut Completions) -> Progress {
        if self.far.is_none()
            && let Some(far) = self.cable.far.get()
        {
            self.far = far.clone().open(&self.core).ok();
        }
        self.far.as_mut().map_or(Progress::Idle, |far| far.poll(now, done))
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.far.as_ref().and_then(|far| far.next_deadline())
    }

    fn link(&self, now: Instant) -> Link {
        self.far.as_ref().map_or(Link::Down(LinkDown::Connecting), |far| far.link(now))
    }
}

/// Both nodes.
pub(crate) struct Pair {
    nodes: Rc<RefCell<[Driver; 2]>>,
    volume: Arc<HopBdev>,
}

impl Pair {
    /// A new pair with legs of so many blocks.
    ///
    /// # Errors
    /// A leg gives no channel.
    pub(crate) fn new(leg: Geometry, core: &Core, now: Instant) -> Result<Self, OpenError> {
        let cables = [0, 1].map(|_| Arc::new(Cable { far: OnceLock::new(), geometry: leg }));
        let start = |who: LegIndex, cable: &Arc<Cable>| {
            let own = MallocBdev::new(format!("leg{}", who.number()), Uuid::from_u128(1), leg);
            Driver::start(NAME, setup(who), own, cable.clone(), core, now)
        };
        let (zero, node0) = start(LegIndex::Zero, &cables[0])?;
        let (one, node1) = start(LegIndex::One, &cables[1])?;
        // Nobody else has set them.
        let _ = (cables[0].far.set(one.guarded), cables[1].far.set(zero.guarded));
        Ok(Self { nodes: Rc::new(RefCell::new([node0, node1])), volume: zero.front })
    }

    /// A session of the pair.
    ///
    /// # Errors
    /// The volume gives no channel.
    pub(crate) fn open(&self, core: &Core) -> Result<Box<dyn Channel>, OpenError> {
        let front = self.volume.clone().open(core)?;
        Ok(Box::new(PairChannel { front, nodes: self.nodes.clone(), sync: Synced::Awaited }))
    }
}

/// A node of a new pair.
pub(crate) fn setup(who: LegIndex) -> Setup {
    let create = OnBlank::Create { arbiter: ArbiterKind::Biased, data_size: None, max_crash_resync: None };
    Setup {
        arbiter: ArbiterLink::None,
        array: Uuid::from_u128(0x6d69_7272_6f72),
        name: ArrayName::new(NAME).expect("a short name"),
        who,
        node: Uuid::from_u128(2 + u128::from(who.number())),
        incarnation: Uuid::from_u128(4),
        on_blank: if who == LegIndex::Zero { create } else { OnBlank::Join },
        content: Content::Zeroed,
        flags: LegFlags::empty(),
        degraded: DegradedPolicy::Ask,
        timing: Timing::default(),
        seed: 5 + u64::from(who.number()),
    }
}

/// Whether the legs have been seen in sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Synced {
    /// Not yet: ask.
    Awaited,
    /// They were; what becomes of them now is seen in the operations.
    Reached,
}

struct PairChannel {
    front: Box<dyn Channel>,
    nodes: Rc<RefCell<[Driver; 2]>>,
    sync: Synced,
}

impl Channel for PairChannel {
    fn submit(&mut self, io: Io, now: Instant) -> Result<(), Refused> {
        self.front.submit(io, now)
    }

    fn poll(&mut self, now: Instant, done: &mut Completions) -> Progress {
        let mut progress = Progress::Idle;
        for node in self.nodes.borrow_mut().iter_mut() {
            progress |= node.poll(now);
            // Nobody reads the log.
            while node.next_event().is_some() {}
        }
        if self.sync == Synced::Awaited && in_sync(&self.nodes.borrow()[0]) {
            self.sync = Synced::Reached;
        }
        progress | self.front.poll(now, done)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let nodes = self.nodes.borrow();
        nodes.iter().fold(self.front.next_deadline(), |earliest, node| {
            Instant::earliest(earliest, node.next_deadline())
        })
    }

    fn link(&self, now: Instant) -> Link {
        match self.sync {
            Synced::Awaited => Link::Down(LinkDown::Connecting),
            Synced::Reached => self.front.link(now),
        }
    }
}

/// True when the holder has both legs.
pub(crate) fn in_sync(holder: &Driver) -> bool {
    let status = holder.status();
    let joined = status.peer.is_some_and(|peer| peer.sight == PeerSight::Joined);
    status.role == RoleKind::Holder && joined && status.dirty_bytes == 0
}

/// The smallest leg that has room for an array, in bytes.
pub(crate) const LEG_MIN: u64 = 16 << 20;
