//! Import: a LUN of another node as a bdev.
//!
//! One session, kept up for ever: connect, log in, ask for the capacity, serve; on any failure everything in flight comes
//! back at once and the next attempt follows after a back-off. It never waits on a dead peer: a keep-alive without answer or
//! an I/O past a deadline of its own drops the session. One without, at a target that answers pings, is aborted first (`live/ladder.rs`).
//! A device that is deleted logs out first. The session may have several ways to the target (`live/ways.rs`).

mod channel;
mod config;
mod discovery;
mod flights;
mod live;
mod route;
mod served;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bdev::{Bdev, Capabilities, Channel, Geometry, OpenError};
use engine::Core;
use net::tcp::{TcpConfig, TcpNetwork};
use uuid::Uuid;

use channel::RemoteChannel;
pub use config::RemoteConfig;
pub use discovery::{Discovered, Discovery, DiscoveryConfig};
pub use live::ladder::{Rung, RungTimes};
pub use live::ways::{Way, WayNews, WayState};
pub use served::Served;

/// What the last session learnt, for the control half.
#[derive(Debug, Default)]
struct Learnt {
    block_size: AtomicU32,
    physical_block_size: AtomicU32,
    blocks: AtomicU64,
}

impl Learnt {
    fn set(&self, geometry: Geometry) {
        self.block_size.store(geometry.block_size, Ordering::Relaxed);
        self.physical_block_size.store(geometry.physical_block_size, Ordering::Relaxed);
        self.blocks.store(geometry.blocks, Ordering::Relaxed);
    }

    fn get(&self) -> Geometry {
        Geometry {
            block_size: self.block_size.load(Ordering::Relaxed).max(512),
            physical_block_size: self.physical_block_size.load(Ordering::Relaxed).max(512),
            blocks: self.blocks.load(Ordering::Relaxed),
        }
    }
}

/// Control half.
#[derive(Debug)]
pub struct Remote {
    name: String,
    uuid: Uuid,
    config: RemoteConfig,
    learnt: Arc<Learnt>,
}

impl Remote {
    /// A device that connects when a channel is opened. Its size is zero until the first session.
    pub fn new(name: impl Into<String>, uuid: Uuid, mut config: RemoteConfig) -> Arc<Self> {
        let name = name.into();
        config.isid.get_or_insert_with(|| RemoteConfig::isid_of(&name, config.lun));
        Arc::new(Self { name, uuid, config, learnt: Arc::new(Learnt::default()) })
    }

    /// How it connects.
    pub fn config(&self) -> &RemoteConfig {
        &self.config
    }

    /// Opens the channel over a given network: the simulator's way in.
    pub fn open_over(&self, core: &Core, network: Box<dyn net::Network>) -> Box<dyn Channel> {
        Box::new(self.channel(core, network))
    }

    fn channel(&self, core: &Core, network: Box<dyn net::Network>) -> RemoteChannel {
        RemoteChannel::new(core, network, self.config.clone(), self.learnt.clone())
    }
}

impl Bdev for Remote {
    fn name(&self) -> &str {
        &self.name
    }

    fn product(&self) -> &'static str {
        "iSCSI LUN"
    }

    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn geometry(&self) -> Geometry {
        self.learnt.get()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::FLUSH
            | Capabilities::FUA
            | Capabilities::DISCARD
            | Capabilities::WRITE_ZEROES
            | Capabilities::FENCE
            | Capabilities::COMPARE_AND_WRITE
            | Capabilities::VOLATILE_CACHE
    }

    fn access(&self) -> bdev::Access {
        bdev::Access::Local
    }

    fn open(self: Arc<Self>, core: &Core) -> Result<Box<dyn Channel>, OpenError> {
        Ok(self.open_over(core, Box::new(TcpNetwork::new(core, TcpConfig::default()))))
    }
}
