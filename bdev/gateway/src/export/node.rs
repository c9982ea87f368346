//! Target nodes, portal groups and LUNs: what the administrator configured, with the counters that he asks for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bdev::{Access, NodeSide};
use core::net::{IpAddr, SocketAddr};
use engine::LatencySummary;
use iscsi::chap::Account;
use iscsi::keys::Digests;
use iscsi::name::NameError;
use iscsi::target::Moved;
use scsi::alua::Management;
use scsi::copy::Cscd;
use scsi::mode::WriteBack;
use scsi::{Sense, Unit, WriteProtection};
use thiserror::Error;

use super::logical_unit::{LogicalUnit, LogicalUnits};
use super::lun::{LunConfig, LunMode, Port};
use super::session::StandbyMode;
use super::state::{NexusId, State};
use super::stats::LunStats;
use super::tokens::Tokens;
use crate::access::LunMask;
use crate::auth::AuthPolicy;

/// Where initiators connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portal {
    /// Where it listens; after it listens, with the port that the system chose.
    pub address: SocketAddr,
    /// What discovery says instead, for initiators behind address translation.
    pub advertised: Option<SocketAddr>,
}

impl From<SocketAddr> for Portal {
    fn from(address: SocketAddr) -> Self {
        Self { address, advertised: None }
    }
}

/// Whether discovery at other portals tells of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visibility {
    /// It does.
    #[default]
    Public,
    /// It does not: initiators are redirected here, or know the way.
    Private,
}

/// Portals that share a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalGroup {
    /// Its tag.
    pub tag: i32,
    /// Its portals.
    pub portals: Vec<Portal>,
    /// Whether discovery at other portals tells of it.
    pub visibility: Visibility,
    /// CHAP of discovery sessions at these portals; the target's own when absent.
    pub auth: Option<AuthPolicy>,
}

impl PortalGroup {
    /// A public group.
    pub fn new(tag: i32, portals: impl IntoIterator<Item = SocketAddr>) -> Self {
        let portals = portals.into_iter().map(Portal::from).collect();
        Self { tag, portals, visibility: Visibility::Public, auth: None }
    }
}

/// Who may use a target through which portals, and what he sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// Tag of the portal group.
    pub portal_group: i32,
    /// Tag of the initiator group.
    pub initiator_group: i32,
    /// Which LUNs show.
    pub luns: LunMask,
}

impl Map {
    /// A map that shows every LUN.
    pub fn new(portal_group: i32, initiator_group: i32) -> Self {
        Self { portal_group, initiator_group, luns: LunMask::All }
    }
}

/// A target node as it is configured.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// iSCSI name.
    pub name: String,
    /// Alias.
    pub alias: String,
    /// Who may use it.
    pub maps: Vec<Map>,
    /// LUNs by number.
    pub luns: BTreeMap<u16, LunConfig>,
    /// Commands that one session may have open.
    pub queue_depth: u32,
    /// CHAP of its sessions.
    pub auth: AuthPolicy,
    /// What it thinks of digests.
    pub digests: Digests,
    /// Where logins at a portal group are sent instead, by the group's tag.
    pub redirects: BTreeMap<i32, Redirect>,
    /// The node that serves the same LUNs, too.
    pub peer: Option<PeerConfig>,
}

/// The other node of a pair, as a target node of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its portals on the replication links, the preferred one first: relayed sessions go to one that answers,
    pub addresses: Vec<SocketAddr>,
    /// and its own come in here, through this portal group. No host is let in that way. They authenticate as the portal
    /// group asks, or, where it asks for nothing of its own, as the target does.
    pub portal_group: i32,
    /// What becomes of commands while it is the one that serves.
    pub standby: StandbyMode,
    /// Whether hosts may choose which of the two serves.
    pub alua: Management,
    /// How relayed sessions authenticate there; with the target's credential, the peer must prove itself, too.
    pub account: Option<Account>,
}

impl PeerConfig {
    /// True for an address of the peer's, as a stream tells it; the administrator may have written it in the form of IPv6.
    pub(super) fn is_at(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|address| address.ip().to_canonical() == ip)
    }
}

/// Where logins are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The portal.
    pub address: SocketAddr,
    /// For this login, or for good: an initiator may keep the new address then.
    pub how: Moved,
}

/// Why a configuration change was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ExportError {
    #[error("portal group {0} exists already")]
    PortalGroupExists(i32),
    #[error("initiator group {0} exists already")]
    InitiatorGroupExists(i32),
    #[error("authentication group {0} exists already")]
    AuthGroupExists(i32),
    #[error("there is no authentication group {0}; create it first")]
    NoAuthGroup(i32),
    #[error("authentication group {tag} is used by {user}; change that first")]
    AuthGroupInUse { tag: i32, user: String },
    #[error("authentication group {tag} has user {user} already")]
    UserExists { tag: i32, user: String },
    #[error("authentication group {tag} has no user {user}")]
    NoUser { tag: i32, user: String },
    #[error("there is no portal group {0}; create it first")]
    NoPortalGroup(i32),
    #[error("there is no initiator group {0}; create it first")]
    NoInitiatorGroup(i32),
    #[error("portal group {0} listens already")]
    Listening(i32),
    #[error(
        "target {target} has no map of portal group {portal_group} and initiator group {initiator_group}"
    )]
    NoMap { target: String, portal_group: i32, initiator_group: i32 },
    #[error(
        "target {target} has a map of portal group {portal_group} and initiator group {initiator_group} already"
    )]
    MapExists { target: String, portal_group: i32, initiator_group: i32 },
    #[error("initiator group {tag} has no entry {entry:?}")]
    NoEntry { tag: i32, entry: String },
    #[error("target {target} is not shown at portal group {tag}")]
    NotAt { target: String, tag: i32 },
    #[error("group {tag} is used by target {target}; delete the target first")]
    GroupInUse { tag: i32, target: String },
    #[error("target {0} exists already")]
    TargetExists(String),
    #[error("there is no target {0}")]
    NoTarget(String),
    #[error("{0:?} is no iSCSI name: {1}")]
    BadName(String, NameError),
    #[error("target {0} needs LUN 0")]
    NoLunZero(String),
    #[error("LUN {0} exists already")]
    LunExists(u16),
    #[error("target {target} has no LUN {number}")]
    NoLun { target: String, number: u16 },
    #[error(
        "what is kept of LUN {number} of target {target} can be read, or this node does not serve it: there is nothing to give up"
    )]
    UnitStateReadable { target: String, number: u16 },
    #[error("queue depth must be 1 to 256, not {0}")]
    QueueDepth(u32),
    #[error("cannot listen on {address}: {cause}")]
    Listen { address: SocketAddr, errno: Option<i32>, cause: String },
}

/// The largest tag of a portal group.
pub const PORTAL_GROUP_TAG_MAX: i32 = 0x7fff;

fn relative_port(portal_group: i32, side: NodeSide) -> u16 {
    let second = match side {
        NodeSide::First => 0,
        NodeSide::Second => 0x8000,
    };
    u16::try_from(portal_group.clamp(1, PORTAL_GROUP_TAG_MAX)).expect("clamped") | second
}

/// Target port group of a node's ports.
pub(super) fn port_group(side: NodeSide) -> u16 {
    u16::from(side.number()) + 1
}

/// SCSI name string of a target port (RFC 7143 section 4.4.1).
pub(super) fn port_name(node: &str, port: u16) -> String {
    format!("{node},t,0x{port:04x}")
}

/// A LUN in service.
pub(super) struct Lun {
    pub(super) config: LunConfig,
    pub(super) stats: LunStats,
    /// What it shares with other paths to the same device.
    pub(super) unit: Rc<LogicalUnit>,
    pub(super) state: State,
}

/// The LUN that a command is for.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) number: u16,
    pub(super) lun: Rc<Lun>,
}

impl Lun {
    /// Whether hosts may not write.
    pub(super) fn is_write_protected(&self) -> bool {
        self.described().protection != WriteProtection::Writable
    }

    /// When a write's status means that it is stable: as the administrator says, or more often, as a host does.
    pub(super) fn mode(&self) -> LunMode {
        match self.config.mode {
            LunMode::SyncCached if self.unit.settings().write_back == WriteBack::Off => LunMode::SyncDurable,
            mode => mode,
        }
    }

    /// The unit as it is through any port.
    pub(super) fn described(&self) -> Unit {
        self.config.unit(Port { number: 1, ..Port::default() }, self.unit.modes(), engine::BUF_LEN_MAX)
    }

    pub(super) fn new(config: LunConfig, units: &mut LogicalUnits) -> Self {
        let unit = units.of(&config.bdev);
        let state = State::default();
        unit.listen(&state.nexuses, &config.options);
        Self { config, stats: LunStats::default(), unit, state }
    }
}

/// A target node in service.
pub(super) struct Node {
    pub(super) config: RefCell<NodeConfig>,
    pub(super) luns: RefCell<BTreeMap<u16, Rc<Lun>>>,
    /// ROD tokens.
    pub(super) tokens: Rc<RefCell<Tokens>>,
    /// As many others have it as there are copies in the background.
    pub(super) behind: Rc<()>,
}

impl NodeConfig {
    /// A target node without LUNs, for nobody.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            alias: String::new(),
            maps: Vec::new(),
            luns: BTreeMap::new(),
            queue_depth: 64,
            auth: AuthPolicy::default(),
            digests: Digests::default(),
            redirects: BTreeMap::new(),
            peer: None,
        }
    }
}

impl Node {
    pub(super) fn new(config: NodeConfig, units: &mut LogicalUnits) -> Self {
        let lun = |(number, config): (&u16, &LunConfig)| (*number, Rc::new(Lun::new(config.clone(), units)));
        let luns = config.luns.iter().map(lun).collect();
        Self {
            config: RefCell::new(config),
            luns: RefCell::new(luns),
            tokens: Rc::default(),
            behind: Rc::default(),
        }
    }

    pub(super) fn lun(&self, number: u16) -> Option<Rc<Lun>> {
        self.luns.borrow().get(&number).cloned()
    }

    /// True as long as a place is there: its LUN has not been removed, nor another one come in its place.
    pub(super) fn has(&self, place: &Place) -> bool {
        self.luns.borrow().get(&place.number).is_some_and(|lun| Rc::ptr_eq(lun, &place.lun))
    }

    /// Which node of a pair this one is, as the first LUN's device says.
    fn side(&self) -> NodeSide {
        self.luns.borrow().values().next().map_or(NodeSide::First, |lun| lun.config.bdev.access().side())
    }

    /// Relative target port identifier, and portal group tag on the wire, of a portal group: a target port is a target node
    /// in a portal group, and the ports of a pair's nodes differ.
    pub(super) fn relative_port(&self, portal_group: i32) -> u16 {
        relative_port(portal_group, self.side())
    }

    /// The relative identifiers of a node's target ports.
    pub(super) fn ports_of(&self, side: NodeSide) -> BTreeSet<u16> {
        let config = self.config.borrow();
        config.maps.iter().map(|map| relative_port(map.portal_group, side)).collect()
    }

    /// The relative identifiers of all target ports of the device, the peer's included.
    pub(super) fn ports(&self) -> BTreeSet<u16> {
        let shared = self.luns.borrow().values().any(|lun| lun.config.bdev.access() != Access::Local);
        let own = self.ports_of(self.side());
        if shared { own.union(&self.ports_of(self.side().other())).copied().collect() } else { own }
    }

    /// Those ports with their names.
    pub(super) fn named_ports(&self) -> Vec<(u16, String)> {
        let name = self.name();
        self.ports().into_iter().map(|port| (port, port_name(&name, port))).collect()
    }

    /// What becomes of commands while the peer serves.
    pub(super) fn standby_mode(&self) -> StandbyMode {
        self.config.borrow().peer.as_ref().map_or(StandbyMode::Refuse, |peer| peer.standby)
    }

    /// Who chooses which of the pair serves.
    pub(super) fn management(&self) -> Management {
        self.config.borrow().peer.as_ref().map_or(Management::Implicit, |peer| peer.alua)
    }

    /// A session begins, and has something to be told: every LUN hears of it.
    pub(super) fn enter(&self, nexus: NexusId, greeting: Option<Sense>) {
        for lun in self.luns.borrow().values() {
            lun.state.nexuses.borrow_mut().enter(nexus, greeting);
        }
    }

    /// A session ends.
    pub(super) fn leave(&self, nexus: NexusId) {
        for lun in self.luns.borrow().values() {
            lun.state.nexuses.borrow_mut().leave(nexus);
            lun.unit.forget_nexus(nexus);
        }
    }

    /// The LUN that a copy's descriptor names, if it shows.
    pub(super) fn place_of(&self, cscd: &Cscd, mask: &LunMask) -> Option<Place> {
        let luns = self.luns.borrow();
        let (number, lun) =
            luns.iter().find(|(number, lun)| mask.shows(**number) && cscd.names(&lun.described()))?;
        Some(Place { number: *number, lun: lun.clone() })
    }

    /// Whether such a unit shows.
    pub(super) fn shows(&self, mask: &LunMask, is_it: impl Fn(&Unit) -> bool) -> bool {
        let luns = self.luns.borrow();
        luns.iter().any(|(number, lun)| mask.shows(*number) && is_it(&lun.described()))
    }

    /// The name of a unit's device, if it shows here.
    pub(super) fn device_of(&self, unit: &Rc<LogicalUnit>) -> Option<String> {
        let luns = self.luns.borrow();
        let lun = luns.values().find(|lun| Rc::ptr_eq(&lun.unit, unit))?;
        Some(lun.config.bdev.name().to_owned())
    }

    /// Every LUN.
    pub(super) fn all_luns(&self) -> Vec<Rc<Lun>> {
        self.luns.borrow().values().cloned().collect()
    }

    pub(super) fn name(&self) -> String {
        self.config.borrow().name.clone()
    }
}

/// A LUN as `lun list` shows it.
#[derive(Clone, Debug)]
pub struct LunInfo {
    /// Its target.
    pub target: String,
    /// Its number.
    pub number: u16,
    /// How it is exported.
    pub config: LunConfig,
    /// Commands that one session may have open.
    pub queue_depth: u32,
    /// Commands open now.
    pub active: u32,
    /// Commands ended.
    pub commands: u64,
    /// Service times of reads, from the command to its status.
    pub reads: LatencySummary,
    /// Service times of writes.
    pub writes: LatencySummary,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Initiators that may use it, as their groups list them.
    pub initiators: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_known_by_its_address_however_it_was_written() {
        let at = |text: &str| {
            let addresses = vec![text.parse().expect("an address")];
            let (standby, alua) = (StandbyMode::default(), Management::Implicit);
            PeerConfig { addresses, portal_group: 1, standby, alua, account: None }
        };
        let ip = "10.0.0.2".parse().expect("an address");
        assert!(["10.0.0.2:3261", "[::ffff:10.0.0.2]:3261"].iter().all(|text| at(text).is_at(ip)));
        assert!(!at("10.0.0.3:3261").is_at(ip));
    }
}
