//! A volume that two nodes reach: one medium, one state, and a say about who serves.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bdev::{
    Access, AccessState, Bdev, Capabilities, Channel, Completions, Durability, Geometry, Io, IoError, Link,
    NodeSide, NotReady, Op, OpenError, Power, Refused, Shared, StateFound, StateHealth,
};
use engine::{Core, Instant, Progress};
use uuid::Uuid;

fn locked<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What both ends share.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) state: Mutex<Vec<u8>>,
    pub(crate) power: Mutex<Power>,
    pub(crate) health: Mutex<StateHealth>,
    /// How often somebody asked that the other node serve.
    pub(crate) handed_over: AtomicU32,
    /// Writes that were to be stable when they were answered.
    pub(crate) durable: AtomicU32,
}

/// One node's end.
#[derive(Debug)]
pub(crate) struct Volume {
    medium: Arc<dyn Bdev>,
    kept: Arc<Kept>,
    access: Mutex<Access>,
}

impl Volume {
    pub(crate) fn new(medium: Arc<dyn Bdev>, kept: Arc<Kept>, node: NodeSide) -> Arc<Self> {
        let shared =
            Shared { node, own: AccessState::Transitioning, peer: AccessState::Transitioning, epoch: 0 };
        Arc::new(Self { medium, kept, access: Mutex::new(Access::Shared(shared)) })
    }

    pub(crate) fn set(&self, own: AccessState, peer: AccessState, epoch: u64) {
        let mut access = locked(&self.access);
        let node = access.side();
        *access = Access::Shared(Shared { node, own, peer, epoch });
    }
}

impl Bdev for Volume {
    fn name(&self) -> &str {
        self.medium.name()
    }

    fn product(&self) -> &'static str {
        "Volume"
    }

    fn uuid(&self) -> Uuid {
        self.medium.uuid()
    }

    fn geometry(&self) -> Geometry {
        self.medium.geometry()
    }

    fn capabilities(&self) -> Capabilities {
        self.medium.capabilities() | Capabilities::UNIT_STATE | Capabilities::HAND_OVER
    }

    fn space(&self) -> Option<bdev::Space> {
        self.medium.space()
    }

    fn access(&self) -> Access {
        *locked(&self.access)
    }

    fn open(self: Arc<Self>, core: &Core) -> Result<Box<dyn Channel>, OpenError> {
        let medium = self.medium.clone().open(core)?;
        Ok(Box::new(VolumeChannel { volume: self, medium, done: Completions::new() }))
    }
}

struct VolumeChannel {
    volume: Arc<Volume>,
    medium: Box<dyn Channel>,
    done: Completions,
}

impl Channel for VolumeChannel {
    fn submit(&mut self, mut io: Io, now: Instant) -> Result<(), Refused> {
        let result = match (self.volume.access().state(), io.op_mut()) {
            (AccessState::Optimized, Op::StoreState { from }) => {
                *locked(&self.volume.kept.state) = from.to_vec();
                *locked(&self.volume.kept.health) = StateHealth::Whole;
                Ok(())
            }
            (AccessState::Optimized, Op::LoadState { into, found }) => {
                let state = locked(&self.volume.kept.state);
                into[..state.len()].copy_from_slice(&state);
                let len = u32::try_from(state.len()).expect("short");
                let health = *locked(&self.volume.kept.health);
                *found = StateFound { len, power: *locked(&self.volume.kept.power), health };
                Ok(())
            }
            (AccessState::Optimized, Op::HandOver) => {
                self.volume.kept.handed_over.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            (AccessState::Optimized, Op::Write { durability: Durability::Durable, .. }) => {
                self.volume.kept.durable.fetch_add(1, Ordering::Relaxed);
                return self.medium.submit(io, now);
            }
            (AccessState::Optimized, _) => return self.medium.submit(io, now),
            _ => Err(IoError::NotReady(NotReady::Standby)),
        };
        self.done.push_back(io.complete(result, now));
        Ok(())
    }

    fn poll(&mut self, now: Instant, done: &mut Completions) -> Progress {
        let progress = self.medium.poll(now, done) | Progress::from_count(self.done.len());
        done.append(&mut self.done);
        progress
    }

    fn link(&self, now: Instant) -> Link {
        self.medium.link(now)
    }
}
