//! A simulated disk: deterministic from its seed, with a volatile cache that a crash may lose, keep or tear.
//!
//! Fault model: writes that completed and were not flushed, and writes in flight, survive a crash sector by sector (512
//! bytes) at random; durable and flushed ones always survive. Reads, writes and flushes can be made to fail; writes can be
//! lost, torn, or land elsewhere; blocks can be bad. Time comes from the caller.

mod channel;
mod medium;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::core::time::Duration;
use engine::Core;
use uuid::Uuid;

use crate::channel::{Bdev, Channel, OpenError};
use crate::geometry::{BlockRange, Capabilities, Geometry};
use channel::SimChannel;
use medium::{Medium, Pulse};

/// How a simulated disk behaves.
#[derive(Clone, Copy, Debug)]
pub struct SimConfig {
    /// Decides latencies and what survives a crash.
    pub seed: u64,
    /// The shortest latency.
    pub latency_min: Duration,
    /// The longest latency.
    pub latency_max: Duration,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self { seed: 0, latency_min: Duration::from_micros(10), latency_max: Duration::from_micros(200) }
    }
}

/// What to do to the next operations of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimFault {
    /// Reads that touch the block fail with a medium error until it is written.
    BadBlock {
        /// The block.
        lba: u64,
    },
    /// The next reads fail with a medium error.
    FailReads {
        /// How many.
        count: u32,
    },
    /// The next writes fail with a medium error and store nothing.
    FailWrites {
        /// How many.
        count: u32,
    },
    /// The next writes are refused as busy, as a system short of memory does.
    BusyWrites {
        /// How many.
        count: u32,
    },
    /// Writes that touch the range fail with a medium error and store nothing, until [`SimBdev::heal`].
    FailWritesIn {
        /// Where.
        range: BlockRange,
    },
    /// The next flushes fail; what they should have made stable stays unstable.
    FailFlushes {
        /// How many.
        count: u32,
    },
    /// The next flushes fail, and what they should have made stable is lost: the block is what it was, and a flush after them
    /// succeeds. So do systems that tell of a failed write once.
    LoseFlushes {
        /// How many.
        count: u32,
    },
    /// The next writes complete and store nothing.
    LoseWrites {
        /// How many.
        count: u32,
    },
    /// The next writes complete and store the first half of their blocks.
    TearWrites {
        /// How many.
        count: u32,
    },
    /// The next writes take longer, and later ones pass them: a drive that tries a sector again and again.
    DelayWrites {
        /// How many.
        count: u32,
        /// By how much.
        extra: Duration,
    },
    /// The next writes complete and store their bytes at a random other place.
    MisdirectWrites {
        /// How many.
        count: u32,
    },
}

/// What a crash leaves of what was not stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Everything: the cache was written back in time.
    All,
    /// Nothing.
    None,
    /// Each sector or not, as the seed decides.
    Random,
}

/// Control half. Clones of the `Arc` see the same medium, so that a crashed node's successor opens what is left.
#[derive(Debug)]
pub struct SimBdev {
    name: String,
    uuid: Uuid,
    geometry: Geometry,
    config: SimConfig,
    medium: Mutex<Medium>,
}

impl SimBdev {
    /// A zeroed disk.
    ///
    /// # Panics
    /// When the size does not fit in memory.
    pub fn new(name: impl Into<String>, uuid: Uuid, geometry: Geometry, config: SimConfig) -> Arc<Self> {
        let medium = Mutex::new(Medium::new(geometry, config.seed));
        Arc::new(Self { name: name.into(), uuid, geometry, config, medium })
    }

    fn medium(&self) -> MutexGuard<'_, Medium> {
        self.medium.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node loses power: unstable sectors and writes in flight survive or not, sector by sector. Channels opened
    /// before are dead: their I/Os complete as aborted and do nothing more.
    pub fn crash(&self) {
        self.crash_with(Survival::Random);
    }

    /// As [`SimBdev::crash`], with a say in what survives.
    pub fn crash_with(&self, survival: Survival) {
        self.medium().crash(survival);
    }

    /// The process dies, the machine lives: the cache survives, and writes in flight happen. Channels opened before are
    /// dead.
    pub fn kill(&self) {
        self.medium().kill();
    }

    /// Arms a fault.
    pub fn inject(&self, fault: SimFault) {
        self.medium().inject(fault);
    }

    /// Every operation that begins from now on takes so much longer.
    pub fn slow_down(&self, extra: Duration) {
        self.medium().extra = extra;
    }

    /// It hangs: it takes operations, and neither does them nor fails them until [`SimBdev::wake`] or [`SimBdev::heal`].
    pub fn hang(&self) {
        self.medium().pulse = Pulse::Hung;
    }

    /// It goes on where it was.
    pub fn wake(&self) {
        self.medium().pulse = Pulse::Working;
    }

    /// No operation goes wrong any more: armed faults are taken back, bad blocks read again, nothing is slow.
    pub fn heal(&self) {
        self.medium().heal();
    }

    /// True while some block cannot be read.
    pub fn has_bad_blocks(&self) -> bool {
        self.medium().has_bad_blocks()
    }

    /// The ranges of writes that a living channel holds and the medium has not done.
    pub fn writes_in_flight(&self) -> Vec<BlockRange> {
        self.medium().in_flight()
    }

    /// The sectors whose content a crash may take back, with what would be there then: (512-byte sector, content).
    pub fn unstable(&self) -> Vec<(usize, [u8; 512])> {
        self.medium().unstable()
    }

    /// What is on the medium now, stable or not, becomes what is on `other`, stable: a cloned disk.
    ///
    /// # Panics
    /// When the two differ in size.
    pub fn clone_to(&self, other: &Self) {
        let image = self.peek(0, usize::try_from(self.geometry.bytes()).expect("it is in memory"));
        other.restore(&image);
    }

    /// The whole medium is set to `image`, stable: a disk restored from a backup.
    ///
    /// # Panics
    /// When the image has another size.
    pub fn restore(&self, image: &[u8]) {
        self.medium().restore(image);
    }

    /// What reads of `bytes` at `offset` see.
    pub fn peek(&self, offset: usize, bytes: usize) -> Vec<u8> {
        self.medium().peek(offset, bytes).to_vec()
    }

    /// Overwrites the medium behind everybody's back; stable at once where it was stable.
    pub fn poke(&self, offset: usize, bytes: &[u8]) {
        self.medium().poke(offset, bytes);
    }

    /// The whole medium as a crash would leave it that loses everything it may.
    pub fn stable_image(&self) -> Vec<u8> {
        self.medium().stable_image()
    }

    /// Writes completed so far.
    pub fn writes(&self) -> u64 {
        self.medium().writes
    }
}

impl Bdev for SimBdev {
    fn name(&self) -> &str {
        &self.name
    }

    fn product(&self) -> &'static str {
        "Simulated disk"
    }

    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::FLUSH
            | Capabilities::FUA
            | Capabilities::DISCARD
            | Capabilities::WRITE_ZEROES
            | Capabilities::DISCARD_ZEROES
            | Capabilities::VOLATILE_CACHE
    }

    fn access(&self) -> crate::Access {
        crate::Access::Local
    }

    fn open(self: Arc<Self>, _core: &Core) -> Result<Box<dyn Channel>, OpenError> {
        Ok(Box::new(SimChannel::new(self)))
    }
}
