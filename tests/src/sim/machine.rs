//! A node: its machine with clock, disk and network, and the process on it, which turns as a reactor does.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use bdev::sim::SimBdev;
use engine::{Core, Instant, Progress};
use gateway::{
    AuthPolicy, InitiatorGroup, LunConfig, LunMode, Map, NetMask, NodeConfig, PeerConfig, PortalGroup,
    Remote, RemoteConfig, Served, StandbyMode, Stations, Target, TargetConfig, poll_in_order,
};
use iscsi::chap::{Account, Credential, Requirement, Secret};
use mirror::driver::Driver;
use mirror::setup::Setup;
use net::sim::SimNet;
use scsi::alua::Management;
use uuid::Uuid;

use super::clock::Clock;
use super::fault::Still;

pub(crate) const FRONT_PORT: u16 = 3260;
const LEG_PORT: u16 = 3261;
/// Where commands of hosts come in that the peer passes on.
const RELAY_PORT: u16 = 3262;
const RELAYS: i32 = 3;
/// A reactor never sleeps longer.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// What an idle turn takes at the least, and what it is to be woken.
const IDLE_COST: Duration = Duration::from_micros(20);

pub(crate) fn address(node: usize) -> IpAddr {
    [10, 0, 0, u8::try_from(node + 1).expect("two nodes")].into()
}

pub(crate) fn volume_name() -> String {
    "iqn.2026-11.sim:vol".to_owned()
}

fn leg_name(node: usize) -> String {
    format!("iqn.2026-11.sim:leg{node}")
}

fn node_name(node: usize) -> String {
    format!("iqn.2026-11.sim:node{node}")
}

/// What the volume is to its hosts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Front {
    pub(crate) mode: LunMode,
    /// What the node that does not serve does with their commands.
    pub(crate) standby: StandbyMode,
    /// Who chooses which node serves.
    pub(crate) alua: Management,
}

/// With which a node and its peer prove themselves to each other on the way that the node goes.
fn account(from: usize) -> Account {
    let credential = |name: String| {
        let secret = Secret::new(format!("the secret of {name}").into_bytes()).expect("a secret");
        Credential { name, secret }
    };
    Account::new(credential(format!("node{from}")), Some(credential(format!("peer of node{from}"))))
        .expect("two secrets")
}

/// The way to the peer for what hosts ask of this node.
fn way_to_peer(node: usize, front: Front, target: &mut Target) -> PeerConfig {
    let Front { standby, alua, .. } = front;
    let portal = SocketAddr::new(address(node), RELAY_PORT);
    target.add_portal_group(&PortalGroup::new(RELAYS, [portal])).expect("the port is free");
    target.add_auth_group(RELAYS, vec![account(1 - node).into()]).expect("a new tag");
    let policy = AuthPolicy { requirement: Requirement::Mutual, group: RELAYS };
    target.set_portal_group_auth(RELAYS, Some(policy)).expect("it is there");
    let account = Some(account(node));
    let address = SocketAddr::new(address(1 - node), RELAY_PORT);
    PeerConfig { addresses: vec![address], portal_group: RELAYS, standby, alua, account }
}

/// What runs on a node.
pub(crate) struct Process {
    pub(crate) driver: Driver,
    import: Served,
    target: Target,
}

impl Process {
    fn start(
        node: usize,
        setup: Setup,
        disk: Arc<SimBdev>,
        front: Front,
        (core, net, now): (&Core, &SimNet, Instant),
    ) -> Self {
        let portal = SocketAddr::new(address(1 - node), LEG_PORT);
        let config = RemoteConfig::new(node_name(node), leg_name(1 - node), portal);
        let remote = Remote::new("peer", Uuid::nil(), config);
        let (peer, import) = Served::over(&remote, Box::new(net.host(address(node))), core);
        let (volumes, driver) = Driver::start("vol", setup, disk, peer, core, now).expect("its disk opens");
        let mut target = Target::new(core, Box::new(net.host(address(node))), TargetConfig::default());
        let leg = LunConfig::new(volumes.guarded, LunMode::SyncCached);
        let volume = LunConfig::new(volumes.front, front.mode);
        let way = way_to_peer(node, front, &mut target);
        let shows: [(i32, u16, String, LunConfig, String, Option<PeerConfig>); 2] = [
            (1, FRONT_PORT, volume_name(), volume, "ANY".to_owned(), Some(way)),
            (2, LEG_PORT, leg_name(node), leg, node_name(1 - node), None),
        ];
        for (tag, port, name, lun, initiator, peer) in shows {
            let portal = SocketAddr::new(address(node), port);
            target.add_portal_group(&PortalGroup::new(tag, [portal])).expect("the port is free");
            let group = InitiatorGroup { tag, initiators: vec![initiator], netmasks: vec![NetMask::Any] };
            target.add_initiator_group(group).expect("a new tag");
            let (maps, luns) = (vec![Map::new(tag, tag)], BTreeMap::from([(0, lun)]));
            let config = NodeConfig { maps, luns, queue_depth: 128, peer, ..NodeConfig::new(name) };
            target.add_node(config).expect("a new name");
        }
        Self { driver, import, target }
    }

    /// True when its target cannot read what is kept of the unit; told once.
    pub(crate) fn is_unreadable(&mut self) -> bool {
        !self.target.unreadable().is_empty()
    }

    /// False when there is nothing to give up.
    pub(crate) fn give_up_record(&mut self) -> bool {
        self.target.give_up_unit_state(&volume_name(), 0).is_ok()
    }

    fn next_deadline(&self) -> Option<Instant> {
        let back = Instant::earliest(self.import.next_deadline(), self.driver.next_deadline());
        Instant::earliest(back, self.target.next_deadline())
    }
}

impl Stations for Process {
    fn poll_imports(&mut self, now: Instant) -> Progress {
        self.import.poll(now)
    }

    fn poll_mirrors(&mut self, now: Instant) -> Progress {
        self.driver.poll(now)
    }

    fn poll_target(&mut self, now: Instant) -> Progress {
        self.target.poll(now)
    }
}

/// What a machine is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Up,
    /// Stands still until then.
    Still(Still, Instant),
    /// Nothing runs until then.
    Down(Instant),
    /// The process stops in order; then it is down until then.
    Stopping(Instant),
}

/// Whether a node that stops can be trusted to have flushed its leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    Sound,
    /// It has said that its leg failed.
    Failed,
}

pub(crate) struct Machine {
    pub(crate) node: usize,
    pub(crate) clock: Clock,
    pub(crate) disk: Arc<SimBdev>,
    pub(crate) process: Option<Process>,
    pub(crate) life: Life,
    /// What its process has said of its leg.
    pub(crate) flush: Flush,
    /// Counts the processes.
    pub(crate) run: u64,
    /// Counts the times that power came: the boot id.
    pub(crate) boot: u64,
    /// What one turn takes.
    pub(crate) turn_cost: Duration,
    pub(crate) due: Instant,
    pub(crate) look_at: Instant,
}

impl Machine {
    pub(crate) fn new(node: usize, clock: Clock, disk: Arc<SimBdev>, turn_cost: Duration) -> Self {
        Self {
            node,
            clock,
            disk,
            process: None,
            life: Life::Down(Instant::EPOCH),
            flush: Flush::Sound,
            run: 0,
            boot: 0,
            turn_cost,
            due: Instant::FAR_FUTURE,
            look_at: Instant::EPOCH,
        }
    }

    pub(crate) fn start(&mut self, setup: Setup, front: Front, core: &Core, net: &SimNet, now: Instant) {
        net.power_on(address(self.node));
        let local = self.clock.local(now);
        self.process = Some(Process::start(self.node, setup, self.disk.clone(), front, (core, net, local)));
        (self.life, self.due, self.flush) = (Life::Up, now, Flush::Sound);
    }

    /// True while its process may do something.
    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some() && !matches!(self.life, Life::Still(..))
    }

    /// One turn of the reactor; then it is busy, or sleeps.
    pub(crate) fn turn(&mut self, now: Instant) {
        let local = self.clock.local(now);
        let Some(process) = &mut self.process else { return };
        let soon = now + self.turn_cost;
        if poll_in_order(process, local).is_busy() {
            self.due = soon;
            return;
        }
        let next = process.next_deadline().map_or(now + SLEEP_MAX, |next| self.clock.world(next));
        // A deadline that has passed is a turn of nothing.
        self.due = next.min(now + SLEEP_MAX).max(now + IDLE_COST);
    }

    /// Something arrived.
    pub(crate) fn wake(&mut self, now: Instant) {
        if self.is_running() {
            self.due = self.due.min(now);
        }
    }
}
