//! Target nodes, portal groups and LUNs: what the administrator configured, with the counters that he asks for.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use core::net::SocketAddr;
use engine::{LatencyHistogram, LatencySummary};
use scsi::copy::Cscd;
use scsi::{Unit, WriteProtection};
use thiserror::Error;

use super::logical_unit::{LogicalUnit, LogicalUnits};
use super::lun::LunConfig;
use super::state::{NexusId, State};

/// Portals that share a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalGroup {
    /// Its tag.
    pub tag: i32,
    /// Where it listens; after it listens, with the ports that the system chose.
    pub portals: Vec<SocketAddr>,
}

/// A target node as it is configured.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// iSCSI name.
    pub name: String,
    /// Alias.
    pub alias: String,
    /// Pairs of portal group tag and initiator group tag.
    pub maps: Vec<(i32, i32)>,
    /// LUNs by number.
    pub luns: BTreeMap<u16, LunConfig>,
    /// Commands that one session may have open.
    pub queue_depth: u32,
}

/// Why a configuration change was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ExportError {
    #[error("portal group {0} exists already")]
    PortalGroupExists(i32),
    #[error("initiator group {0} exists already")]
    InitiatorGroupExists(i32),
    #[error("there is no portal group {0}; create it first")]
    NoPortalGroup(i32),
    #[error("there is no initiator group {0}; create it first")]
    NoInitiatorGroup(i32),
    #[error("group {tag} is used by target {target}; delete the target first")]
    GroupInUse { tag: i32, target: String },
    #[error("target {0} exists already")]
    TargetExists(String),
    #[error("there is no target {0}")]
    NoTarget(String),
    #[error("{0:?} is no iSCSI name: it must begin with iqn., eui. or naa.")]
    BadName(String),
    #[error("target {0} needs LUN 0")]
    NoLunZero(String),
    #[error("LUN {0} exists already")]
    LunExists(u16),
    #[error("queue depth must be 1 to 256, not {0}")]
    QueueDepth(u32),
    #[error("cannot listen on {address}: {cause}")]
    Listen { address: SocketAddr, errno: Option<i32>, cause: String },
}

/// Counters of one LUN.
#[derive(Debug, Default)]
pub(super) struct LunStats {
    pub(super) active: Cell<u32>,
    pub(super) commands: Cell<u64>,
    pub(super) read_bytes: Cell<u64>,
    pub(super) written_bytes: Cell<u64>,
    /// Service times, from a command to its status.
    pub(super) reads: RefCell<LatencyHistogram>,
    pub(super) writes: RefCell<LatencyHistogram>,
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

    /// The unit as it is through any port.
    fn described(&self) -> Unit {
        self.config.unit("", 1, self.state.settings.get())
    }

    pub(super) fn new(config: LunConfig, units: &mut LogicalUnits) -> Self {
        let unit = units.of(config.bdev.uuid());
        Self { config, stats: LunStats::default(), unit, state: State::default() }
    }
}

/// A target node in service.
pub(super) struct Node {
    pub(super) config: RefCell<NodeConfig>,
    pub(super) luns: RefCell<BTreeMap<u16, Rc<Lun>>>,
}

impl Node {
    pub(super) fn new(config: NodeConfig, units: &mut LogicalUnits) -> Self {
        let lun = |(number, config): (&u16, &LunConfig)| (*number, Rc::new(Lun::new(config.clone(), units)));
        let luns = config.luns.iter().map(lun).collect();
        Self { config: RefCell::new(config), luns: RefCell::new(luns) }
    }

    pub(super) fn lun(&self, number: u16) -> Option<Rc<Lun>> {
        self.luns.borrow().get(&number).cloned()
    }

    /// Relative target port identifier of a portal group (a target port is a target node in a portal group).
    pub(super) fn relative_port(&self, portal_group: i32) -> u16 {
        u16::try_from(portal_group).unwrap_or(1)
    }

    /// The relative identifiers of all its target ports.
    pub(super) fn ports(&self) -> BTreeSet<u16> {
        let config = self.config.borrow();
        config.maps.iter().map(|(portal_group, _)| self.relative_port(*portal_group)).collect()
    }

    /// A session begins or ends: every LUN is told.
    pub(super) fn enter(&self, nexus: NexusId) {
        for lun in self.luns.borrow().values() {
            lun.state.nexuses.borrow_mut().enter(nexus);
        }
    }

    pub(super) fn leave(&self, nexus: NexusId) {
        for lun in self.luns.borrow().values() {
            lun.state.nexuses.borrow_mut().leave(nexus);
        }
    }

    /// The LUN that a copy's descriptor names.
    pub(super) fn place_of(&self, cscd: &Cscd) -> Option<Place> {
        let luns = self.luns.borrow();
        let (number, lun) = luns.iter().find(|(_, lun)| cscd.names(&lun.described()))?;
        Some(Place { number: *number, lun: lun.clone() })
    }

    /// The LUNs that are being sanitized.
    pub(super) fn sanitizing(&self) -> Vec<Rc<Lun>> {
        let luns = self.luns.borrow();
        luns.values().filter(|lun| lun.state.sanitizing.borrow().is_running()).cloned().collect()
    }

    /// A reset of one LUN, or of all when `None`: removal of the medium is allowed again.
    pub(super) fn reset(&self, number: Option<u16>) {
        for (_, lun) in self.luns.borrow().iter().filter(|(at, _)| number.is_none_or(|number| number == **at))
        {
            lun.state.nexuses.borrow_mut().reset();
        }
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
