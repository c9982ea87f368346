//! What a device or a stream needs of the reactor that it lives on.

use engine_sys::{Pool, RingHandle, Waker};

/// One reactor as its channels and streams see it: where buffers come from and which ring carries their operations.
///
/// A simulated core has no ring; devices and networks that need one refuse it when they are opened.
#[derive(Clone, Debug)]
pub struct Core {
    id: u32,
    pool: Pool,
    ring: Option<RingHandle>,
    waker: Waker,
}

impl Core {
    /// A core with a ring.
    pub fn new(id: u32, pool: Pool, ring: RingHandle) -> Self {
        let waker = ring.waker();
        Self { id, pool, ring: Some(ring), waker }
    }

    /// A core without a ring: for the simulator and for tests of devices that need none.
    ///
    /// # Panics
    /// When the process has no descriptor left.
    pub fn for_tests(pool: Pool) -> Self {
        Self { id: 0, pool, ring: None, waker: Waker::new().expect("a descriptor for a test") }
    }

    /// The reactor's core number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Where buffers come from.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The reactor's ring; `None` in the simulator.
    pub fn ring(&self) -> Option<&RingHandle> {
        self.ring.as_ref()
    }

    /// Wakes another reactor from this one, if it sleeps. Call after what it is to look at is in place.
    pub fn wake(&self, sleeper: &Waker) {
        match &self.ring {
            Some(ring) => ring.wake(sleeper),
            None => sleeper.wake(),
        }
    }

    /// Wakes this core's reactor from another thread.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }
}
