//! One target, and hosts that use it over simulated links.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bdev::fault::FaultBdev;
use bdev::malloc::MallocBdev;
use bdev::{Bdev, BlockRange, Geometry};
use core::net::SocketAddr;
use engine::{Core, Instant, Pool};
use gateway::{
    InitiatorGroup, LunConfig, LunMode, Map, NetMask, NodeConfig, PortalGroup, Target, TargetConfig,
};
use iscsi::TaskId;
use net::sim::{SimConfig, SimNet};
use uuid::Uuid;

use super::Host;

/// The target's name.
pub(crate) const TARGET: &str = "iqn.2026-11.example:t0";
/// GOOD, without sense.
pub(crate) const GOOD: (u8, u16) = (scsi::status::GOOD, 0);

/// CHECK CONDITION with this sense code.
pub(crate) const fn attention(code: u16) -> (u8, u16) {
    (scsi::status::CHECK_CONDITION, code)
}

pub(crate) struct World {
    pub(crate) network: SimNet,
    pub(crate) now: Instant,
    pub(crate) target: Target,
    pub(crate) fault: Arc<FaultBdev>,
    pub(crate) medium: Arc<MallocBdev>,
    pub(crate) hosts: Vec<Host>,
}

impl World {
    /// LUNs 0 and 1, and hosts that are logged in.
    pub(crate) fn new(hosts: u8) -> Self {
        Self::with_lun(hosts, |fault| fault)
    }

    /// The same, with what `wrap` makes of LUN 0's device.
    pub(crate) fn with_lun(hosts: u8, wrap: impl FnOnce(Arc<FaultBdev>) -> Arc<dyn Bdev>) -> Self {
        Self::with_lun_as(hosts, LunMode::SyncDurable, wrap)
    }

    /// The same, with a say in when LUN 0's writes are stable.
    pub(crate) fn with_lun_as(
        hosts: u8,
        mode: LunMode,
        wrap: impl FnOnce(Arc<FaultBdev>) -> Arc<dyn Bdev>,
    ) -> Self {
        let mut world = Self::empty_with(mode, wrap);
        for index in 0..hosts {
            world.add(index, |_| {});
        }
        world.until("logins", |world| world.hosts.iter().all(Host::is_in));
        world
    }

    /// A target with LUNs 0 and 1 in portal group 1, for everybody, and no hosts.
    pub(crate) fn empty() -> Self {
        Self::empty_with(LunMode::SyncDurable, |fault| fault)
    }

    /// The same, with so little memory.
    pub(crate) fn empty_on(pool: Pool) -> Self {
        Self::empty_as(pool, LunMode::SyncDurable, |fault| fault)
    }

    fn empty_with(mode: LunMode, wrap: impl FnOnce(Arc<FaultBdev>) -> Arc<dyn Bdev>) -> Self {
        Self::empty_as(Pool::for_tests(), mode, wrap)
    }

    fn empty_as(pool: Pool, mode: LunMode, wrap: impl FnOnce(Arc<FaultBdev>) -> Arc<dyn Bdev>) -> Self {
        let core = Core::for_tests(pool);
        let network = SimNet::new(SimConfig::default());
        let geometry = Geometry { block_size: 512, physical_block_size: 4096, blocks: 16384 };
        let medium = MallocBdev::new("m0", Uuid::from_u128(7), geometry);
        let fault = FaultBdev::new("f0", "fault", Uuid::from_u128(7), medium.clone());
        let other = MallocBdev::new("m1", Uuid::from_u128(8), geometry);
        let mut target =
            Target::new(&core, Box::new(network.host([10, 0, 0, 1].into())), TargetConfig::default());
        target.add_portal_group(&PortalGroup::new(1, [portal(3260)])).expect("listening");
        let everybody =
            InitiatorGroup { tag: 1, initiators: vec!["ANY".into()], netmasks: vec![NetMask::Any] };
        target.add_initiator_group(everybody).expect("new");
        let luns = BTreeMap::from([
            (0, LunConfig::new(wrap(fault.clone()), mode)),
            (1, LunConfig::new(other, LunMode::SyncDurable)),
        ]);
        let node = NodeConfig {
            alias: "t0".into(),
            maps: vec![Map::new(1, 1)],
            luns,
            queue_depth: 32,
            ..NodeConfig::new(TARGET)
        };
        target.add_node(node).expect("new");
        let now = Instant::from_nanos(1_000_000_000);
        Self { network, now, target, fault, medium, hosts: Vec::new() }
    }

    /// A host that begins to log in; `prepare` changes its configuration.
    pub(crate) fn add(&mut self, index: u8, prepare: impl FnOnce(&mut iscsi::initiator::Config)) -> usize {
        self.add_at(portal(3260), index, prepare)
    }

    /// The same, at another portal.
    pub(crate) fn add_at(
        &mut self,
        portal: SocketAddr,
        index: u8,
        prepare: impl FnOnce(&mut iscsi::initiator::Config),
    ) -> usize {
        let mut end = self.network.host([10, 0, 0, 2 + index].into());
        let mut config = Host::config(&format!("iqn.2026-11.example:h{index}"), TARGET);
        prepare(&mut config);
        self.hosts.push(Host::new(&mut end, portal, config));
        self.hosts.len() - 1
    }

    /// One more connection of a host's session.
    pub(crate) fn join(
        &mut self,
        leading: usize,
        cid: u16,
        portal: SocketAddr,
        prepare: impl FnOnce(&mut iscsi::initiator::Config),
    ) -> usize {
        let index = u8::try_from(leading).expect("few hosts");
        let mut end = self.network.host([10, 0, 0, 2 + index].into());
        let mut config = Host::config(&format!("iqn.2026-11.example:h{index}"), TARGET);
        prepare(&mut config);
        let joining = Host::joining(&mut end, portal, config, &self.hosts[leading], cid);
        self.hosts.push(joining);
        self.hosts.len() - 1
    }

    pub(crate) fn step(&mut self) {
        self.now += Duration::from_micros(20);
        let _ = self.network.advance(self.now);
        for host in &mut self.hosts {
            host.poll(self.now);
        }
        let _ = self.target.poll(self.now);
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step();
        }
    }

    pub(crate) fn until(&mut self, what: &str, mut ready: impl FnMut(&mut Self) -> bool) {
        for _ in 0..200_000 {
            if ready(self) {
                return;
            }
            self.step();
        }
        panic!("{what}: not within four seconds");
    }

    /// Waits for the status and the sense code.
    pub(crate) fn end(&mut self, host: usize, task: TaskId) -> (u8, u16) {
        let mut ended = None;
        self.until("an answer", |world| {
            ended = world.hosts[host].take(task);
            ended.is_some()
        });
        let ended = ended.expect("waited for");
        (ended.status, scsi::sense::decode(&ended.sense).map_or(0, |(_, code)| code))
    }

    /// Waits for the answer to a management request.
    pub(crate) fn managed(&mut self, host: usize, function: u8, lun: u64, task: Option<TaskId>) -> u8 {
        let request = self.hosts[host].manage(function, lun, task);
        let mut answer = None;
        self.until("an answer to a management request", |world| {
            answer = world.hosts[host].take_managed(request);
            answer.is_some()
        });
        answer.expect("waited for")
    }

    pub(crate) fn run_at(&mut self, host: usize, lun: u16, cdb: &[u8], data: &[u8]) -> (u8, u16) {
        let task = self.hosts[host].send_to(lun, cdb, data, 0);
        self.end(host, task)
    }

    pub(crate) fn run(&mut self, host: usize, cdb: &[u8], data: &[u8]) -> (u8, u16) {
        let task = self.hosts[host].send(cdb, data, 0);
        self.end(host, task)
    }

    pub(crate) fn ready(&mut self, host: usize) -> (u8, u16) {
        self.run(host, &[0; 6], &[])
    }

    pub(crate) fn write(&mut self, host: usize) -> TaskId {
        self.hosts[host].send(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[7; 512], 0)
    }

    /// The first byte of LUN 0.
    pub(crate) fn first_byte(&self) -> u8 {
        self.medium.snapshot(BlockRange::new(0, 1))[0]
    }
}

/// A portal of the target.
pub(crate) fn portal(port: u16) -> SocketAddr {
    ([10, 0, 0, 1], port).into()
}
