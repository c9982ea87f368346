//! Two nodes, one volume, and hosts at either.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::host::Host;
use crate::volume::{Kept, Volume};
use bdev::fault::FaultBdev;
use bdev::malloc::MallocBdev;
use bdev::{AccessState, Geometry, NodeSide};
use core::net::SocketAddr;
use engine::{Core, Instant, Pool};
use gateway::{
    AuthPolicy, InitiatorGroup, LunConfig, LunMask, LunMode, Map, NetMask, NodeConfig, PeerConfig,
    PortalGroup, StandbyMode, Target, TargetConfig,
};
use iscsi::TaskId;
use iscsi::chap::{Account, Credential, Requirement, Secret};
use net::sim::{Halt, SimConfig, SimNet};
use scsi::alua::Management;
use scsi::{Medium, status};
use uuid::Uuid;

pub(crate) const TARGET: &str = "iqn.2026-11.example:t0";
pub(crate) const EXCLUSIVE: u8 = 3;
pub(crate) const GOOD: (u8, u16) = (status::GOOD, 0);
pub(crate) const CONFLICT: (u8, u16) = (status::RESERVATION_CONFLICT, 0);

pub(crate) const RESET: (u8, u16) = attention(0x2904);
pub(crate) const NEXUS_LOSS: (u8, u16) = attention(0x2907);
/// A host that sees LUN 0 alone.
pub(crate) const MASKED: &str = "iqn.2026-11.example:masked";

pub(crate) const fn attention(code: u16) -> (u8, u16) {
    (status::CHECK_CONDITION, code)
}

/// With which a node and its peer prove themselves to each other on the way that the node goes.
pub(crate) fn account(from: usize) -> Account {
    let credential = |name: String| {
        let secret = Secret::new(format!("the secret of {name}").into_bytes()).expect("a secret");
        Credential { name, secret }
    };
    let (node, peer) = (credential(format!("node{from}")), credential(format!("peer of node{from}")));
    Account::new(node, Some(peer)).expect("two secrets")
}

pub(crate) struct World {
    pub(crate) network: SimNet,
    pub(crate) now: Instant,
    /// A node that died is `None`.
    pub(crate) targets: [Option<Target>; 2],
    pub(crate) volumes: [Arc<Volume>; 2],
    /// LUN 1.
    pub(crate) others: [Arc<Volume>; 2],
    pub(crate) kept: Arc<Kept>,
    pub(crate) fault: Arc<FaultBdev>,
    pub(crate) hosts: Vec<Host>,
}

pub(crate) fn node_ip(index: usize) -> core::net::IpAddr {
    [10, 0, 0, 1 + u8::try_from(index).expect("0 or 1")].into()
}

pub(crate) fn portal(index: usize, port: u16) -> SocketAddr {
    SocketAddr::new(node_ip(index), port)
}

impl World {
    /// Node 0 serves. Host i has a path to node `at[i]`.
    pub(crate) fn new(standby: StandbyMode, at: &[usize]) -> Self {
        Self::managed(standby, Management::ImplicitAndExplicit, at)
    }

    pub(crate) fn managed(standby: StandbyMode, alua: Management, at: &[usize]) -> Self {
        Self::made(standby, alua, at, 512)
    }

    /// Blocks of so many bytes.
    pub(crate) fn of_blocks(standby: StandbyMode, at: &[usize], block_size: u32) -> Self {
        Self::made(standby, Management::ImplicitAndExplicit, at, block_size)
    }

    fn made(standby: StandbyMode, alua: Management, at: &[usize], block_size: u32) -> Self {
        let core = Core::for_tests(Pool::for_tests());
        let network = SimNet::new(SimConfig::default());
        let geometry =
            Geometry { block_size, physical_block_size: 4096, blocks: (8 << 20) / u64::from(block_size) };
        let medium = MallocBdev::new("m0", Uuid::from_u128(7), geometry);
        let fault = FaultBdev::new("f0", "fault", Uuid::from_u128(7), medium);
        let kept = Arc::new(Kept::default());
        let volumes =
            [NodeSide::First, NodeSide::Second].map(|side| Volume::new(fault.clone(), kept.clone(), side));
        let medium = MallocBdev::new("m1", Uuid::from_u128(8), geometry);
        let others = [NodeSide::First, NodeSide::Second]
            .map(|side| Volume::new(medium.clone(), Arc::new(Kept::default()), side));
        let target = |index: usize| {
            let mut target =
                Target::new(&core, Box::new(network.host(node_ip(index))), TargetConfig::default());
            for (tag, port) in [(1, 3261), (2, 3260)] {
                let group = PortalGroup::new(tag, [portal(index, port)]);
                target.add_portal_group(&group).expect("listening");
            }
            target.add_auth_group(1, vec![account(1 - index).into()]).expect("new");
            let policy = AuthPolicy { requirement: Requirement::Mutual, group: 1 };
            target.set_portal_group_auth(1, Some(policy)).expect("it is there");
            let names = (0..4).map(|host| format!("iqn.2026-11.example:h{host}")).collect();
            for (tag, initiators) in [(1, names), (2, vec![MASKED.to_owned()])] {
                let group = InitiatorGroup { tag, initiators, netmasks: vec![NetMask::Any] };
                target.add_initiator_group(group).expect("new");
            }
            let lun =
                |volumes: &[Arc<Volume>; 2]| LunConfig::new(volumes[index].clone(), LunMode::SyncDurable);
            let mut removable = lun(&others);
            removable.options.medium = Medium::Removable;
            let luns = BTreeMap::from([(0, lun(&volumes)), (1, removable)]);
            let address = portal(1 - index, 3261);
            let peer = PeerConfig {
                addresses: vec![address],
                portal_group: 1,
                standby,
                alua,
                account: Some(account(index)),
            };
            let masked = Map { luns: LunMask::Only([0].into()), ..Map::new(2, 2) };
            let (alias, maps, peer) = ("t0".into(), vec![Map::new(2, 1), masked], Some(peer));
            let node = NodeConfig { alias, maps, luns, queue_depth: 32, peer, ..NodeConfig::new(TARGET) };
            target.add_node(node).expect("new");
            Some(target)
        };
        let targets = [target(0), target(1)];
        let mut world = Self {
            network,
            now: Instant::from_nanos(1_000_000_000),
            targets,
            volumes,
            others: others.clone(),
            kept,
            fault,
            hosts: Vec::new(),
        };
        world.serve(0, 1);
        for node in at {
            world.add_host(*node);
        }
        world.until("logins", |world| world.hosts.iter().all(Host::is_in));
        world
    }

    pub(crate) fn add_host(&mut self, node: usize) {
        let name = format!("iqn.2026-11.example:h{}", self.hosts.len());
        self.add_host_named(node, &name);
    }

    pub(crate) fn add_host_named(&mut self, node: usize, name: &str) {
        let index = u8::try_from(self.hosts.len()).expect("a few");
        let mut end = self.network.host([10, 0, 1, index].into());
        self.hosts.push(Host::new(&mut end, portal(node, 3260), Host::config(name, TARGET)));
    }

    pub(crate) fn serve(&mut self, node: usize, epoch: u64) {
        for lun in [&self.volumes, &self.others] {
            lun[node].set(AccessState::Optimized, AccessState::NonOptimized, epoch);
            lun[1 - node].set(AccessState::NonOptimized, AccessState::Optimized, 0);
        }
    }

    pub(crate) fn handed_over(&self) -> u32 {
        self.kept.handed_over.load(Ordering::Relaxed)
    }

    pub(crate) fn command(&mut self, host: usize, cdb: &[u8]) -> (u8, u16) {
        let task = self.hosts[host].send(cdb, &[], 0);
        self.end(host, task)
    }

    /// Node 0 dies; nobody serves.
    pub(crate) fn die(&mut self) {
        self.network.halt(node_ip(0), Halt::PowerOff);
        self.targets[0] = None;
        self.volumes[1].set(AccessState::Transitioning, AccessState::Transitioning, 0);
    }

    pub(crate) fn step(&mut self) {
        self.now += Duration::from_micros(20);
        let _ = self.network.advance(self.now);
        for host in &mut self.hosts {
            host.poll(self.now);
        }
        for target in self.targets.iter_mut().flatten() {
            let _ = target.poll(self.now);
        }
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step();
        }
    }

    pub(crate) fn until(&mut self, what: &str, mut ready: impl FnMut(&mut Self) -> bool) {
        for _ in 0..500_000 {
            if ready(self) {
                return;
            }
            self.step();
        }
        panic!("{what}: not within ten seconds");
    }

    /// Waits for the status and the sense code.
    pub(crate) fn end(&mut self, host: usize, task: TaskId) -> (u8, u16) {
        let mut ended = None;
        self.until("an answer", |world| {
            ended = world.hosts[host].take(task);
            ended.is_some()
        });
        let ended = ended.expect("waited for");
        if ended.status == status::GOOD {
            assert_eq!((ended.underflow, ended.overflow), (0, 0));
        }
        (ended.status, scsi::sense::decode(&ended.sense).map_or(0, |(_, code)| code))
    }

    /// A command without data at any LUN.
    pub(crate) fn run_at(&mut self, host: usize, lun: u16, cdb: &[u8]) -> (u8, u16) {
        let task = self.hosts[host].send_to(lun, cdb, &[], 0);
        self.end(host, task)
    }

    pub(crate) fn ready(&mut self, host: usize) -> (u8, u16) {
        let task = self.hosts[host].send(&[0; 6], &[], 0);
        self.end(host, task)
    }

    pub(crate) fn send_write(&mut self, host: usize, lba: u8, byte: u8) -> TaskId {
        self.hosts[host].send(&[0x2a, 0, 0, 0, 0, lba, 0, 0, 1, 0], &[byte; 512], 0)
    }

    pub(crate) fn write(&mut self, host: usize, lba: u8, byte: u8) -> (u8, u16) {
        let task = self.send_write(host, lba, byte);
        self.end(host, task)
    }

    pub(crate) fn read(&mut self, host: usize, lba: u8) -> u8 {
        let task = self.hosts[host].send(&[0x28, 0, 0, 0, 0, lba, 0, 0, 1, 0], &[], 512);
        assert_eq!(self.end(host, task), GOOD);
        let data = self.hosts[host].data(task);
        assert!(data.iter().all(|byte| *byte == data[0]), "one write's data");
        data[0]
    }

    /// How a read ends.
    pub(crate) fn read_end(&mut self, host: usize) -> (u8, u16) {
        let task = self.hosts[host].send(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[], 512);
        self.end(host, task)
    }

    pub(crate) fn send_reserve_out(
        &mut self,
        host: usize,
        action: u8,
        kind: u8,
        keys: [u64; 2],
        aptpl: u8,
    ) -> TaskId {
        let list = [keys[0].to_be_bytes(), keys[1].to_be_bytes(), [0, 0, 0, 0, aptpl, 0, 0, 0]].concat();
        self.hosts[host].send(&[0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0], &list, 0)
    }

    pub(crate) fn reserve_out(&mut self, host: usize, action: u8, kind: u8, keys: [u64; 2]) -> (u8, u16) {
        let task = self.send_reserve_out(host, action, kind, keys, 0);
        self.end(host, task)
    }

    /// The keys, in the table's order.
    pub(crate) fn keys(&mut self, host: usize) -> Vec<u64> {
        let task = self.hosts[host].send(&[0x5e, 0, 0, 0, 0, 0, 0, 0, 72, 0], &[], 72);
        let mut ended = None;
        self.until("the keys", |world| {
            ended = world.hosts[host].take(task);
            ended.is_some()
        });
        assert_eq!(ended.expect("waited for").status, status::GOOD);
        let data = self.hosts[host].data(task);
        let len = u32::from_be_bytes(data[4..8].try_into().expect("four bytes")) as usize;
        data[8..8 + len]
            .chunks(8)
            .map(|key| u64::from_be_bytes(key.try_into().expect("eight bytes")))
            .collect()
    }

    /// Group and state of each target port group, as a host is told.
    pub(crate) fn groups(&mut self, host: usize) -> Vec<(u8, u8, [u8; 2])> {
        let task = self.hosts[host].send(&[0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0], &[], 28);
        assert_eq!(self.end(host, task), GOOD);
        let data = &self.hosts[host].data(task)[4..];
        data.chunks(12).map(|group| (group[3], group[0] & 15, [group[10], group[11]])).collect()
    }
}
