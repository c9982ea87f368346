//! A device whose I/Os are served on one reactor and whose channels may be opened on any.
//!
//! Each channel is a lane: a ring of requests and a ring of replies, both lock-free and of fixed depth. The owner holds the
//! [`HopServer`]: it takes I/Os from all lanes in turn and answers each one. A lane never holds more than its depth, so an
//! answer always finds room.
//!
//! Invariants: an I/O is in one lane's requests, with the owner, or in the same lane's replies; a lane whose channel was
//! dropped stays until the owner has answered what it took; when the owner goes, what it had not taken comes back as
//! aborted (what it took, it must have answered before).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};

use crossbeam_queue::ArrayQueue;
use engine::{Core, Instant, Progress, Waker};
use uuid::Uuid;

use crate::access::Access;
use crate::channel::{Bdev, Channel, Completions, Link, LinkDown, OpenError};
use crate::error::IoError;
use crate::geometry::{Capabilities, Geometry, Space};
use crate::request::{Completed, Io, Refused};

/// I/Os in flight on one lane at the most.
pub const LANE_DEPTH: usize = 256;
/// Lanes that can wait for the owner to notice them.
const NEW_LANES_MAX: usize = 256;

/// The owner's name for one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// What happened to a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopEvent {
    /// A channel was opened.
    Opened(ClientId),
    /// A channel was dropped and all its I/Os are answered.
    Closed(ClientId),
}

struct Lane {
    requests: ArrayQueue<Io>,
    replies: ArrayQueue<Completed>,
    client: Waker,
    client_gone: AtomicBool,
}

impl Lane {
    fn abort_requests(&self, now: Instant, mut answer: impl FnMut(Completed)) {
        while let Some(io) = self.requests.pop() {
            answer(io.complete(Err(IoError::Aborted), now));
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Both ends are gone: nobody is left to be told.
        self.abort_requests(Instant::EPOCH, drop);
    }
}

struct Shared {
    name: String,
    product: &'static str,
    uuid: Uuid,
    block_size: AtomicU32,
    physical_block_size: AtomicU32,
    blocks: AtomicU64,
    capabilities: AtomicU32,
    link: RwLock<HopLink>,
    access: AtomicU32,
    epoch: AtomicU64,
    server_gone: AtomicBool,
    /// The device that this one is a part of, if it is one.
    storage: OnceLock<Weak<dyn Bdev>>,
    new_lanes: ArrayQueue<Arc<Lane>>,
    server: Waker,
}

/// What channels say of the way to the device's medium.
#[derive(Debug)]
struct HopLink {
    /// Rises each time the link comes up.
    session: u64,
    down: Option<LinkDown>,
}

impl Shared {
    fn geometry(&self) -> Geometry {
        Geometry {
            block_size: self.block_size.load(Ordering::Relaxed),
            physical_block_size: self.physical_block_size.load(Ordering::Relaxed),
            blocks: self.blocks.load(Ordering::Relaxed),
        }
    }
}

/// Control half.
pub struct HopBdev {
    shared: Arc<Shared>,
}

/// Who a hop device is.
#[derive(Clone, Debug)]
pub struct HopIdentity {
    /// Its name.
    pub name: String,
    /// Its kind, as SPDK's `product_name`.
    pub product: &'static str,
    /// Its identity.
    pub uuid: Uuid,
    /// Its first size.
    pub geometry: Geometry,
    /// What it can do.
    pub capabilities: Capabilities,
}

/// Makes a device served on `core`'s reactor.
pub fn hop(identity: HopIdentity, core: &Core) -> (Arc<HopBdev>, HopServer) {
    let geometry = identity.geometry;
    let shared = Arc::new(Shared {
        name: identity.name,
        product: identity.product,
        uuid: identity.uuid,
        block_size: AtomicU32::new(geometry.block_size),
        physical_block_size: AtomicU32::new(geometry.physical_block_size),
        blocks: AtomicU64::new(geometry.blocks),
        capabilities: AtomicU32::new(identity.capabilities.bits()),
        link: RwLock::new(HopLink { session: 0, down: None }),
        access: AtomicU32::new(Access::Local.pack().0),
        epoch: AtomicU64::new(0),
        server_gone: AtomicBool::new(false),
        storage: OnceLock::new(),
        new_lanes: ArrayQueue::new(NEW_LANES_MAX),
        server: core.waker().clone(),
    });
    let bdev = Arc::new(HopBdev { shared: shared.clone() });
    (bdev, HopServer { shared, core: core.clone(), lanes: BTreeMap::new(), next_id: 0, cursor: 0 })
}

impl Bdev for HopBdev {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn product(&self) -> &'static str {
        self.shared.product
    }

    fn uuid(&self) -> Uuid {
        self.shared.uuid
    }

    fn geometry(&self) -> Geometry {
        self.shared.geometry()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::from_bits_truncate(self.shared.capabilities.load(Ordering::Relaxed))
    }

    fn space(&self) -> Option<Space> {
        self.shared.storage.get().and_then(Weak::upgrade)?.space()
    }

    fn access(&self) -> Access {
        // The state is stored behind its epoch.
        let packed = self.shared.access.load(Ordering::Acquire);
        Access::unpack(packed, self.shared.epoch.load(Ordering::Acquire))
    }

    fn open(self: Arc<Self>, core: &Core) -> Result<Box<dyn Channel>, OpenError> {
        let lane = Arc::new(Lane {
            requests: ArrayQueue::new(LANE_DEPTH),
            replies: ArrayQueue::new(LANE_DEPTH),
            client: core.waker().clone(),
            client_gone: AtomicBool::new(false),
        });
        let no_room = |_| OpenError::NoRoom { name: self.shared.name.clone(), core: core.id() };
        self.shared.new_lanes.push(lane.clone()).map_err(no_room)?;
        self.shared.server.wake();
        Ok(Box::new(HopChannel { lane, shared: self.shared.clone(), core: core.clone(), in_flight: 0 }))
    }
}

/// Data half.
struct HopChannel {
    lane: Arc<Lane>,
    shared: Arc<Shared>,
    core: Core,
    in_flight: usize,
}

impl Channel for HopChannel {
    fn submit(&mut self, mut io: Io, now: Instant) -> Result<(), Refused> {
        if self.shared.server_gone.load(Ordering::Acquire) {
            return Err(io.refuse(IoError::Aborted));
        }
        if self.in_flight == LANE_DEPTH {
            return Err(io.refuse(IoError::Busy));
        }
        io.stamps.submitted = now;
        match self.lane.requests.push(io) {
            Ok(()) => {
                self.in_flight += 1;
                self.core.wake(&self.shared.server);
                Ok(())
            }
            Err(io) => Err(io.refuse(IoError::Busy)),
        }
    }

    fn poll(&mut self, now: Instant, done: &mut Completions) -> Progress {
        let before = done.len();
        if self.shared.server_gone.load(Ordering::Acquire) {
            self.lane.abort_requests(now, |completed| done.push_back(completed));
        }
        while let Some(completed) = self.lane.replies.pop() {
            done.push_back(completed);
        }
        let count = done.len() - before;
        self.in_flight -= count;
        Progress::from_count(count)
    }

    fn link(&self, now: Instant) -> Link {
        if self.shared.server_gone.load(Ordering::Acquire) {
            return Link::Down(LinkDown::Lost(format!("{} is not served any more", self.shared.name)));
        }
        let link = self.shared.link.read().unwrap_or_else(PoisonError::into_inner);
        match &link.down {
            Some(why) => Link::Down(why.clone()),
            None => Link::Up { session: link.session, geometry: self.shared.geometry(), alive_at: now },
        }
    }
}

impl Drop for HopChannel {
    fn drop(&mut self) {
        self.lane.client_gone.store(true, Ordering::Release);
        self.shared.server.wake();
    }
}

struct ServerLane {
    lane: Arc<Lane>,
    taken: usize,
}

/// The owner's end: on one reactor.
pub struct HopServer {
    shared: Arc<Shared>,
    core: Core,
    lanes: BTreeMap<ClientId, ServerLane>,
    next_id: u64,
    cursor: u64,
}

impl HopServer {
    /// The device is a part of this one, whose storage is its own; said once.
    pub fn set_storage(&self, whole: &Arc<dyn Bdev>) {
        let _ = self.shared.storage.set(Arc::downgrade(whole));
    }

    /// The next lane that appeared or went. Call until `None` before [`HopServer::take`].
    pub fn next_event(&mut self) -> Option<HopEvent> {
        if let Some(lane) = self.shared.new_lanes.pop() {
            self.next_id += 1;
            let id = ClientId(self.next_id);
            self.lanes.insert(id, ServerLane { lane, taken: 0 });
            return Some(HopEvent::Opened(id));
        }
        let ended = |lane: &ServerLane| {
            lane.taken == 0 && lane.lane.client_gone.load(Ordering::Acquire) && lane.lane.requests.is_empty()
        };
        let id = *self.lanes.iter().find(|(_, lane)| ended(lane))?.0;
        self.lanes.remove(&id);
        Some(HopEvent::Closed(id))
    }

    /// The next I/O, from the lanes in turn. Each must be answered with [`HopServer::complete`].
    pub fn take(&mut self) -> Option<(ClientId, Io)> {
        let after = self.lanes.range_mut(ClientId(self.cursor + 1)..);
        let found = after.map(|(id, lane)| (*id, lane)).find_map(|(id, lane)| take_from(id, lane));
        let found = match found {
            Some(found) => Some(found),
            None => self.lanes.iter_mut().find_map(|(id, lane)| take_from(*id, lane)),
        };
        if let Some((id, _)) = &found {
            self.cursor = id.0;
        }
        found
    }

    /// Answers an I/O.
    ///
    /// # Panics
    /// When more is answered than was taken.
    pub fn complete(&mut self, client: ClientId, completed: Completed) {
        let lane = self.lanes.get_mut(&client).expect("a lane stays until all its I/Os are answered");
        lane.taken = lane.taken.checked_sub(1).expect("each I/O is answered once");
        if lane.lane.replies.push(completed).is_err() {
            unreachable!("a lane has a reply's room for each request");
        }
        self.core.wake(&lane.lane.client);
    }

    /// The size from now on.
    pub fn set_geometry(&mut self, geometry: Geometry) {
        self.shared.block_size.store(geometry.block_size, Ordering::Relaxed);
        self.shared.physical_block_size.store(geometry.physical_block_size, Ordering::Relaxed);
        self.shared.blocks.store(geometry.blocks, Ordering::Relaxed);
    }

    /// The powers from now on.
    pub fn set_capabilities(&mut self, capabilities: Capabilities) {
        self.shared.capabilities.store(capabilities.bits(), Ordering::Relaxed);
    }

    /// How the nodes reach the device from now on.
    pub fn set_access(&mut self, access: Access) {
        let (packed, epoch) = access.pack();
        self.shared.epoch.store(epoch, Ordering::Release);
        if self.shared.access.swap(packed, Ordering::AcqRel) != packed {
            self.lanes.values().for_each(|lane| lane.lane.client.wake());
        }
    }

    /// What channels say of their link from now on: up, or down with a cause. I/Os still arrive, and are the owner's to
    /// answer.
    pub fn set_link(&mut self, link: Result<(), LinkDown>) {
        let mut shared = self.shared.link.write().unwrap_or_else(PoisonError::into_inner);
        if shared.down.is_some() && link.is_ok() {
            shared.session += 1;
        }
        shared.down = link.err();
    }

    /// The size now.
    pub fn geometry(&self) -> Geometry {
        self.shared.geometry()
    }
}

fn take_from(id: ClientId, lane: &mut ServerLane) -> Option<(ClientId, Io)> {
    let io = lane.lane.requests.pop()?;
    lane.taken += 1;
    Some((id, io))
}

impl Drop for HopServer {
    fn drop(&mut self) {
        self.shared.server_gone.store(true, Ordering::Release);
        for lane in self.lanes.values() {
            lane.lane.client.wake();
        }
        // Lanes that were never noticed have channels that wait too.
        while let Some(lane) = self.shared.new_lanes.pop() {
            lane.client.wake();
        }
    }
}
