//! What a device or a stream needs of the reactor that it lives on.

use engine_sys::Pool;

/// One reactor as its channels and streams see it: where buffers come from and which ring carries their operations.
///
/// A simulated core has no ring; devices and networks that need one refuse it when they are opened.
#[derive(Clone, Debug)]
pub struct Core {
    id: u32,
    pool: Pool,
}

impl Core {
    /// A core without a ring: for the simulator and for tests of devices that need none.
    pub fn for_tests(pool: Pool) -> Self {
        Self { id: 0, pool }
    }

    /// The reactor's core number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Where buffers come from.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}
