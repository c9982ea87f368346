//! Mirrors as SPDK's raid module shows and makes them: raid1 of two base bdevs, this node's leg and the import of the peer's.

use ::mirror::format::LegIndex;
use ::mirror::status::{PeerSight, RoleKind, Status};
use bdev::Bdev;
use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Method, mirror, neutral};
use crate::node::{Entry, Node, Resident};
use crate::params;
use crate::params::check;

pub(super) const METHODS: &[Method] = &[
    Method::always("bdev_raid_set_options", check::<Options>, set_options),
    Method::runtime("bdev_raid_get_bdevs", check::<Which>, list),
    Method::runtime("bdev_raid_create", check::<Create>, create),
    Method::runtime("bdev_raid_delete", check::<Delete>, delete),
    Method::runtime("bdev_raid_add_base_bdev", check::<AddBase>, add_base),
    Method::runtime("bdev_raid_remove_base_bdev", check::<Named>, remove_base),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    process_window_size_kb: Option<u32>,
    process_max_bandwidth_mb_sec: Option<u32>,
}

fn set_options(_: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Options = params::parse(given)?;
    let runs = "a resync copies runs of 64 to 512 KiB, as they are out of sync";
    let pace = "a resync's rate follows the hosts' latency; mirror_resync_pause stops it";
    neutral("process_window_size_kb", given.process_window_size_kb, 1024, runs)?;
    neutral("process_max_bandwidth_mb_sec", given.process_max_bandwidth_mb_sec, 0, pace)?;
    Ok(json!(true))
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Category {
    All,
    Online,
    Configuring,
    Offline,
}

impl Category {
    fn of(role: RoleKind) -> Self {
        match role {
            RoleKind::Holder => Self::Online,
            RoleKind::Starting | RoleKind::Holding | RoleKind::Promoting | RoleKind::Opening => {
                Self::Configuring
            }
            RoleKind::Standby
            | RoleKind::Frozen
            | RoleKind::SwitchingOver
            | RoleKind::Demoting
            | RoleKind::Stopping
            | RoleKind::Stopped
            | RoleKind::Failed => Self::Offline,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Online => "online",
            Self::Configuring => "configuring",
            Self::Offline => "offline",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    category: Category,
}

fn list(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Which = params::parse(given)?;
    let wanted =
        |status: &Status| given.category == Category::All || given.category == Category::of(status.role);
    let mirrors = mirror::all(node)?.into_iter().filter(|(.., status)| wanted(status));
    let one = |(name, entry, status): (&String, &Entry, Status)| {
        let mut shown = describe(node, entry, &status);
        shown["name"] = json!(name);
        shown["uuid"] = json!(entry.bdev.uuid().to_string());
        shown
    };
    Ok(mirrors.map(one).collect())
}

/// The object `raid` of a mirror.
pub(super) fn describe(node: &Node, entry: &Entry, status: &Status) -> Value {
    let block = u64::from(entry.bdev.geometry().block_size).max(1);
    let in_sync = |leg: usize| {
        status
            .config
            .is_some_and(|config| LegIndex::BOTH.get(leg).is_some_and(|leg| config.in_sync.has(*leg)))
    };
    let configured =
        [0, 1].map(|leg| if leg == status.own { own_is_used(status) } else { peer_is_used(status) });
    // The bases are the own leg and the peer's; the list goes by the legs' numbers.
    let base = |leg: usize| entry.bases.get(usize::from(leg != status.own));
    let bases: Value = [0, 1]
        .map(|leg| {
            let device = base(leg).and_then(|name| node.bdevs.get(name));
            json!({
                "name": base(leg), "uuid": device.map(|entry| entry.bdev.uuid().to_string()),
                "is_configured": configured[leg], "data_offset": status.data_offset / block,
                "data_size": status.data_size / block,
            })
        })
        .into_iter()
        .collect();
    let count = |there: [bool; 2]| there.into_iter().filter(|there| *there).count();
    let mut raid = json!({
        "strip_size_kb": 0, "state": Category::of(status.role).name(), "raid_level": "raid1", "superblock": true,
        "num_base_bdevs": 2, "num_base_bdevs_discovered": count(configured),
        "num_base_bdevs_operational": count([0, 1].map(in_sync)), "base_bdevs_list": bases,
    });
    if let Some(resync) = &status.resync {
        let done = resync.total.saturating_sub(status.dirty_bytes);
        raid["process"] = json!({
            "type": "rebuild", "target": base(1 - status.own.min(1)),
            "progress": {"blocks": done / block, "percent": done * 100 / resync.total.max(1)},
        });
    }
    raid
}

/// Whether this node's own leg is part of what it does.
fn own_is_used(status: &Status) -> bool {
    let failed = matches!(status.role, RoleKind::Starting | RoleKind::Failed);
    let record = status.legs.and_then(|legs| legs.get(status.own).map(|leg| leg.state));
    !failed && record.is_some_and(|state| state != ::mirror::format::LegState::Faulty)
}

/// Whether the peer's leg is there and takes part, or is being copied to; only a holder knows.
fn peer_is_used(status: &Status) -> bool {
    status.peer.as_ref().is_some_and(|peer| matches!(peer.sight, PeerSight::Joined | PeerSight::Resync))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    #[serde(default)]
    strip_size_kb: u32,
    raid_level: String,
    base_bdevs: Vec<String>,
    uuid: Option<String>,
    #[serde(default)]
    superblock: bool,
}

/// A raid1 of an own device and the import of the peer's leg is a mirror; the place of the own one is this node's number.
fn create(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Create = params::parse(given)?;
    if !["raid1", "1"].contains(&given.raid_level.as_str()) || given.strip_size_kb != 0 {
        return Err(RpcError::refused(
            "only raid1 without strips is supported: stripe below the leg, with mdadm or LVM",
        ));
    }
    if !given.superblock {
        return Err(RpcError::refused(
            "a mirror keeps its superblock on its legs: give superblock=true (spdk-rpc: -s)",
        ));
    }
    let [first, second] = &given.base_bdevs[..] else {
        return Err(RpcError::refused(
            "a mirror has two legs: name this node's bdev and the import of the peer's leg",
        ));
    };
    let is_import = |name: &str| Ok::<_, RpcError>(matches!(node.bdev(name)?.resident, Resident::Import(_)));
    let (leg, peer, index) = match (is_import(first)?, is_import(second)?) {
        (false, true) => (first, second, 0),
        (true, false) => (second, first, 1),
        _ => {
            return Err(RpcError::refused(
                "a mirror's legs are on two nodes: one base bdev is this node's, the other one is made with \
                 bdev_iscsi_create; gemel pair create does all of it. Two disks of one machine: mdadm below the leg",
            ));
        }
    };
    let mut wanted = json!({"name": given.name, "leg": leg, "peer": peer, "index": index});
    if let Some(uuid) = given.uuid {
        wanted["uuid"] = json!(uuid);
    }
    mirror::create(node, Some(&wanted))?;
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    name: String,
    #[serde(default)]
    clear_sb: bool,
}

fn delete(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Delete = params::parse(given)?;
    if given.clear_sb {
        return Err(RpcError::refused(
            "clear_sb is not supported: the other node's leg would keep the array; delete without it, then zero the \
             leg's first MiB and last 4 KiB",
        ));
    }
    mirror::delete(node, Some(&json!({"name": given.name})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddBase {
    raid_bdev: String,
    base_bdev: String,
}

fn add_base(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: AddBase = params::parse(given)?;
    node.bdev(&given.base_bdev)?;
    let raid = node.bdev(&given.raid_bdev)?;
    Err(RpcError::refused(format!(
        "each node gives its own leg to a mirror: on the other node, gemel pair join {} --uuid {}",
        given.raid_bdev,
        raid.bdev.uuid()
    )))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

fn remove_base(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Named = params::parse(given)?;
    node.bdev(&given.name)?;
    let of = node.bdevs.iter().find(|(_, entry)| entry.bases.contains(&given.name));
    let name = of.map_or("NAME", |(name, _)| name);
    Err(RpcError::refused(format!(
        "a leg leaves a mirror with its node: stop the other node, then gemel degrade {name}; it may come back"
    )))
}
