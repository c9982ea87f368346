//! An import of a LUN of a target over simulated links.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bdev::fault::FaultBdev;
use bdev::malloc::MallocBdev;
use bdev::{Bdev, BlockRange, Channel, Completed, Completions, Durability, Geometry, Io, IoError, Op, Tag};
use engine::{Core, Instant, Pages, Pool, PoolConfig};
use gateway::{
    InitiatorGroup, LunConfig, LunMode, Map, NetMask, NodeConfig, PortalGroup, Remote, RemoteConfig, Target,
    TargetConfig,
};
use net::sim::{SimConfig, SimNet, SimNetwork};
use net::{Listener, Network, Stream};
use uuid::Uuid;

pub(crate) const TARGET: &str = "iqn.2026-11.example:t0";
pub(crate) const HOST: &str = "iqn.2026-11.example:h0";

pub(crate) struct World {
    pub(crate) core: Core,
    pub(crate) network: SimNet,
    pub(crate) now: Instant,
    pub(crate) target: Target,
    pub(crate) channel: Box<dyn Channel>,
    pub(crate) medium: Arc<MallocBdev>,
    pub(crate) fault: Arc<FaultBdev>,
    pub(crate) done: Completions,
}

pub(crate) fn ip(host: u8) -> core::net::IpAddr {
    [10, 0, 0, host].into()
}

/// A host's address on the second link.
pub(crate) fn ip_there(host: u8) -> core::net::IpAddr {
    [10, 0, 1, host].into()
}

/// A host with two links, 10.0.0.0/24 and 10.0.1.0/24.
pub(crate) struct Homes([SimNetwork; 2]);

impl Homes {
    pub(crate) fn new(network: &SimNet, host: u8) -> Self {
        Self([network.host(ip(host)), network.host(ip_there(host))])
    }

    /// The link that an address is on.
    fn on(&self, address: core::net::SocketAddr) -> &SimNetwork {
        let there = matches!(address.ip(), core::net::IpAddr::V4(v4) if v4.octets()[2] == 1);
        &self.0[usize::from(there)]
    }
}

impl Network for Homes {
    fn listen(&self, address: core::net::SocketAddr) -> std::io::Result<Box<dyn Listener>> {
        self.on(address).listen(address)
    }

    fn connect(&self, address: core::net::SocketAddr) -> Box<dyn Stream> {
        self.on(address).connect(address)
    }
}

pub(crate) fn config(address: &str) -> RemoteConfig {
    RemoteConfig::new(HOST, TARGET, address.parse().expect("address"))
}

impl World {
    pub(crate) fn new(seed: u64, remote: RemoteConfig, initiators: &[&str]) -> Self {
        Self::of(seed, remote, initiators, |fault| fault)
    }

    /// The same, with what `wrap` makes of the LUN's device.
    pub(crate) fn of(
        seed: u64,
        remote: RemoteConfig,
        initiators: &[&str],
        wrap: impl FnOnce(Arc<FaultBdev>) -> Arc<dyn Bdev>,
    ) -> Self {
        let pool = Pool::new(PoolConfig { frames: [512, 64, 64], pages: Pages::Ordinary });
        let core = Core::for_tests(pool.expect("memory"));
        let network = SimNet::new(SimConfig { seed, ..SimConfig::default() });
        let geometry = Geometry { block_size: 512, physical_block_size: 4096, blocks: 16384 };
        let medium = MallocBdev::new("m0", Uuid::from_u128(7), geometry);
        let fault = FaultBdev::new("f0", "fault", Uuid::from_u128(7), medium.clone());
        let homes = Homes::new(&network, 1);
        let mut target = Target::new(&core, Box::new(homes), TargetConfig::default());
        let portals = ["10.0.0.1:3260", "10.0.1.1:3260"].map(|portal| portal.parse().expect("address"));
        target.add_portal_group(&PortalGroup::new(1, portals)).expect("listening");
        let initiators = initiators.iter().map(|name| (*name).to_owned()).collect();
        target
            .add_initiator_group(InitiatorGroup { tag: 1, initiators, netmasks: vec![NetMask::Any] })
            .expect("new");
        let luns = BTreeMap::from([(0, LunConfig::new(wrap(fault.clone()), LunMode::SyncCached))]);
        let node =
            NodeConfig { alias: "t0".into(), maps: vec![Map::new(1, 1)], luns, ..NodeConfig::new(TARGET) };
        target.add_node(node).expect("new");
        let remote = Remote::new("r0", Uuid::nil(), remote);
        let channel = remote.open_over(&core, Box::new(Homes::new(&network, 2)));
        let now = Instant::from_nanos(1_000_000_000);
        Self { core, network, now, target, channel, medium, fault, done: Completions::new() }
    }

    pub(crate) fn step(&mut self) {
        self.now += Duration::from_micros(20);
        let _ = self.network.advance(self.now);
        let _ = self.channel.poll(self.now, &mut self.done);
        let _ = self.target.poll(self.now);
    }

    pub(crate) fn run_until(&mut self, limit: Duration, mut ready: impl FnMut(&Self) -> bool) -> bool {
        let until = self.now + limit;
        while self.now < until {
            if ready(self) {
                return true;
            }
            self.step();
        }
        ready(self)
    }

    pub(crate) fn up(&mut self) {
        assert!(
            self.run_until(Duration::from_secs(5), |world| world.channel.link(world.now).is_up()),
            "{:?} {:?}",
            self.channel.link(self.now),
            self.target.connections()
        );
    }

    pub(crate) fn submit(&mut self, op: Op, tag: u64) {
        let now = self.now;
        self.channel.submit(Io::new(op, Tag(tag), now), now).expect("room");
    }

    pub(crate) fn run(&mut self, op: Op) -> Completed {
        self.submit(op, 1);
        assert!(self.run_until(Duration::from_secs(10), |world| !world.done.is_empty()), "no answer");
        self.done.pop_front().expect("one")
    }

    pub(crate) fn write(&mut self, lba: u64, blocks: u32, byte: u8) -> Result<(), IoError> {
        let mut buf = self.core.pool().alloc(blocks as usize * 512).expect("a frame");
        buf.fill(byte);
        let range = BlockRange::new(lba, blocks);
        self.run(Op::Write { range, from: buf.freeze(), durability: Durability::Durable }).result
    }

    pub(crate) fn read(&mut self, lba: u64, blocks: u32) -> Result<Vec<u8>, IoError> {
        let into = self.core.pool().alloc(blocks as usize * 512).expect("a frame");
        let completed = self.run(Op::Read { range: BlockRange::new(lba, blocks), into });
        let Op::Read { into, .. } = completed.op else { panic!("another operation came back") };
        completed.result.map(|()| into.to_vec())
    }
}
