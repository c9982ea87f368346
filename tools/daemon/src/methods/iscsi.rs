//! The iSCSI target: groups, nodes, LUNs, connections.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use core::net::SocketAddr;
use gateway::{
    ExportError, InitiatorGroup, LunAccess, LunConfig, LunMode, LunOptions, LunProvisioning, NodeConfig,
    PortalGroup, Target,
};
use rpc::RpcError;
use scsi::Medium;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Method, When};
use crate::node::Node;
use crate::params;

pub(super) const METHODS: &[Method] = &[
    Method { name: "iscsi_create_portal_group", when: When::Runtime, run: create_portal_group },
    Method { name: "iscsi_delete_portal_group", when: When::Runtime, run: delete_portal_group },
    Method { name: "iscsi_get_portal_groups", when: When::Runtime, run: portal_groups },
    Method { name: "iscsi_create_initiator_group", when: When::Runtime, run: create_initiator_group },
    Method { name: "iscsi_delete_initiator_group", when: When::Runtime, run: delete_initiator_group },
    Method { name: "iscsi_get_initiator_groups", when: When::Runtime, run: initiator_groups },
    Method { name: "iscsi_create_target_node", when: When::Runtime, run: create_target_node },
    Method { name: "iscsi_delete_target_node", when: When::Runtime, run: delete_target_node },
    Method { name: "iscsi_target_node_add_lun", when: When::Runtime, run: add_lun },
    Method { name: "iscsi_get_target_nodes", when: When::Runtime, run: target_nodes },
    Method { name: "iscsi_get_connections", when: When::Runtime, run: connections },
    Method { name: "lun_get_list", when: When::Runtime, run: luns },
];

fn refusal(error: &ExportError) -> RpcError {
    let message = error.to_string();
    match error {
        ExportError::PortalGroupExists(_)
        | ExportError::InitiatorGroupExists(_)
        | ExportError::TargetExists(_)
        | ExportError::LunExists(_) => RpcError::exists(message),
        ExportError::NoPortalGroup(_) | ExportError::NoInitiatorGroup(_) | ExportError::NoTarget(_) => {
            RpcError::no_device(message)
        }
        ExportError::GroupInUse { .. } => RpcError::busy(message),
        ExportError::BadName(_) | ExportError::NoLunZero(_) | ExportError::QueueDepth(_) => {
            RpcError::invalid_params(message)
        }
        ExportError::Listen { errno: Some(errno), .. } => RpcError { code: -i64::from(*errno), message },
        ExportError::Listen { .. } => RpcError::refused(message),
    }
}

/// Changes the target.
fn change<T: Send + 'static>(
    node: &Node,
    what: impl FnOnce(&mut Target) -> Result<T, ExportError> + Send + 'static,
) -> Result<T, RpcError> {
    node.target(what)?.map_err(|error| refusal(&error))
}

/// Remembers a call that made something, to be replayed.
fn remember(node: &mut Node, method: &str, params: Option<&Value>) {
    node.target_calls.push((method.to_owned(), params.cloned().unwrap_or_else(|| json!({}))));
}

/// Forgets the calls that made a thing that is gone.
fn forget(node: &mut Node, methods: &[&str], key: &str, value: &Value) {
    node.target_calls
        .retain(|(method, params)| !(methods.contains(&method.as_str()) && params[key] == *value));
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Portal {
    host: String,
    port: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreatePortalGroup {
    tag: i32,
    portals: Vec<Portal>,
    #[serde(default)]
    private: bool,
    #[serde(default)]
    wait: bool,
}

fn address(portal: &Portal) -> Result<SocketAddr, RpcError> {
    let bad = || {
        RpcError::invalid_params(format!("{}:{} is no numerical address and port", portal.host, portal.port))
    };
    let host = portal.host.trim_matches(['[', ']']).parse().map_err(|_| bad())?;
    Ok(SocketAddr::new(host, portal.port.parse().map_err(|_| bad())?))
}

fn create_portal_group(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: CreatePortalGroup = params::parse(given)?;
    if parsed.private || parsed.wait {
        return Err(RpcError::refused("private and waiting portal groups are not supported: leave both out"));
    }
    if !(1..=0xffff).contains(&parsed.tag) || parsed.portals.is_empty() {
        return Err(RpcError::invalid_params("tag must be 1 to 65535, and there must be a portal"));
    }
    let portals = parsed.portals.iter().map(address).collect::<Result<_, _>>()?;
    let group = PortalGroup { tag: parsed.tag, portals };
    let bound = change(node, move |target| target.add_portal_group(&group))?;
    // The ports that the system chose are part of the configuration from now on.
    let made = json!({"tag": bound.tag, "portals": portals_json(&bound)});
    remember(node, "iscsi_create_portal_group", Some(&made));
    Ok(json!(true))
}

fn portals_json(group: &PortalGroup) -> Value {
    let one =
        |address: &SocketAddr| json!({"host": address.ip().to_string(), "port": address.port().to_string()});
    group.portals.iter().map(one).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tagged {
    tag: i32,
}

fn delete_portal_group(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Tagged = params::parse(given)?;
    change(node, move |target| target.remove_portal_group(given.tag))?;
    forget(node, &["iscsi_create_portal_group"], "tag", &json!(given.tag));
    Ok(json!(true))
}

fn portal_groups(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    let one =
        |group: &PortalGroup| json!({"tag": group.tag, "portals": portals_json(group), "private": false});
    let groups: Vec<PortalGroup> = node.target(|target| target.portal_groups().cloned().collect())?;
    Ok(groups.iter().map(one).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateInitiatorGroup {
    tag: i32,
    initiators: Vec<String>,
    netmasks: Vec<String>,
}

fn create_initiator_group(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: CreateInitiatorGroup = params::parse(given)?;
    let bad = |error: &dyn std::fmt::Display| RpcError::invalid_params(error.to_string());
    let netmasks = parsed.netmasks.iter().map(|mask| mask.parse().map_err(|error| bad(&error)));
    let netmasks = netmasks.collect::<Result<_, _>>()?;
    let group = InitiatorGroup { tag: parsed.tag, initiators: parsed.initiators, netmasks };
    change(node, move |target| target.add_initiator_group(group))?;
    remember(node, "iscsi_create_initiator_group", given);
    Ok(json!(true))
}

fn delete_initiator_group(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Tagged = params::parse(given)?;
    change(node, move |target| target.remove_initiator_group(given.tag))?;
    forget(node, &["iscsi_create_initiator_group"], "tag", &json!(given.tag));
    Ok(json!(true))
}

fn initiator_groups(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    let made = node.target_calls.iter().filter(|(method, _)| method == "iscsi_create_initiator_group");
    Ok(made.map(|(_, params)| params.clone()).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Map {
    ig_tag: i32,
    pg_tag: i32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lun {
    bdev_name: String,
    lun_id: Option<u16>,
    #[serde(default)]
    removable: bool,
    #[serde(default)]
    read_only: bool,
    #[serde(default)]
    provisioning: Provisioning,
    sanitize_mb_per_sec: Option<NonZeroU64>,
}

impl Lun {
    fn options(&self) -> LunOptions {
        LunOptions {
            medium: if self.removable { Medium::Removable } else { Medium::Fixed },
            access: if self.read_only { LunAccess::ReadOnly } else { LunAccess::ReadWrite },
            provisioning: match self.provisioning {
                Provisioning::Thin => LunProvisioning::Thin,
                Provisioning::Thick => LunProvisioning::Thick,
            },
            sanitize_rate: self.sanitize_mb_per_sec.map(|rate| rate.saturating_mul(MIB)),
        }
    }
}

const MIB: NonZeroU64 = NonZeroU64::new(1 << 20).expect("not zero");

/// Whether a LUN takes UNMAP; ours.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Provisioning {
    #[default]
    Thin,
    Thick,
}

/// Durability mode of the LUNs; ours.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    #[default]
    SyncDurable,
    SyncCached,
}

impl From<Mode> for LunMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::SyncDurable => Self::SyncDurable,
            Mode::SyncCached => Self::SyncCached,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "SPDK's parameters")]
struct CreateTargetNode {
    name: String,
    alias_name: String,
    pg_ig_maps: Vec<Map>,
    luns: Vec<Lun>,
    queue_depth: u32,
    #[serde(default)]
    durability: Mode,
    #[serde(default)]
    #[expect(dead_code, reason = "true or false: there is no CHAP to disable")]
    disable_chap: bool,
    #[serde(default)]
    require_chap: bool,
    #[serde(default)]
    mutual_chap: bool,
    #[serde(default)]
    chap_group: i32,
    #[serde(default)]
    header_digest: bool,
    #[serde(default)]
    data_digest: bool,
}

fn lun_config(node: &Node, lun: &Lun, mode: Mode) -> Result<LunConfig, RpcError> {
    let name = &lun.bdev_name;
    let bdev = node.bdev(name)?.bdev.clone();
    node.check_free(name)?;
    Ok(LunConfig { options: lun.options(), ..LunConfig::new(bdev, mode.into()) })
}

fn create_target_node(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: CreateTargetNode = params::parse(given)?;
    if parsed.require_chap || parsed.mutual_chap || parsed.chap_group != 0 {
        return Err(RpcError::refused("CHAP is not supported yet: restrict access with initiator groups"));
    }
    if parsed.header_digest || parsed.data_digest {
        return Err(RpcError::refused(
            "digests cannot be required yet: an initiator that asks for them gets them",
        ));
    }
    let mut luns = BTreeMap::new();
    for lun in &parsed.luns {
        let next = || u16::try_from(luns.len()).unwrap_or(u16::MAX);
        let number = lun.lun_id.unwrap_or_else(next);
        let config = lun_config(node, lun, parsed.durability)?;
        if luns.insert(number, config).is_some() {
            return Err(RpcError::invalid_params(format!("LUN {number} is named twice")));
        }
    }
    let maps = parsed.pg_ig_maps.iter().map(|map| (map.pg_tag, map.ig_tag)).collect();
    let config = NodeConfig {
        name: parsed.name,
        alias: parsed.alias_name,
        maps,
        luns,
        queue_depth: parsed.queue_depth,
    };
    change(node, move |target| target.add_node(config))?;
    remember(node, "iscsi_create_target_node", given);
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

fn delete_target_node(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Named = params::parse(given)?;
    let name = given.name.clone();
    change(node, move |target| target.remove_node(&name))?;
    forget(node, &["iscsi_create_target_node", "iscsi_target_node_add_lun"], "name", &json!(given.name));
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddLun {
    name: String,
    bdev_name: String,
    lun_id: Option<u16>,
    #[serde(default)]
    durability: Mode,
    #[serde(default)]
    removable: bool,
    #[serde(default)]
    read_only: bool,
    #[serde(default)]
    provisioning: Provisioning,
    sanitize_mb_per_sec: Option<NonZeroU64>,
}

fn add_lun(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: AddLun = params::parse(given)?;
    let AddLun { bdev_name, lun_id, removable, read_only, provisioning, sanitize_mb_per_sec, .. } = parsed;
    let lun = Lun { bdev_name, lun_id, removable, read_only, provisioning, sanitize_mb_per_sec };
    let config = lun_config(node, &lun, parsed.durability)?;
    let used: Vec<u16> = node
        .target(|target| target.luns())?
        .iter()
        .filter(|lun| lun.target == parsed.name)
        .map(|lun| lun.number)
        .collect();
    let number = lun_id.or_else(|| (0..=255).find(|number| !used.contains(number)));
    let number = number.ok_or_else(|| RpcError::refused("all 256 LUNs are in use"))?;
    change(node, move |target| target.add_lun(&parsed.name, number, config))?;
    remember(node, "iscsi_target_node_add_lun", given);
    Ok(json!(true))
}

fn target_nodes(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    let lun =
        |(number, config): (&u16, &LunConfig)| json!({"bdev_name": config.bdev.name(), "lun_id": number});
    let map = |(pg_tag, ig_tag): &(i32, i32)| json!({"pg_tag": pg_tag, "ig_tag": ig_tag});
    let one = |config: NodeConfig| {
        json!({
            "name": config.name,
            "alias_name": config.alias,
            "pg_ig_maps": config.maps.iter().map(map).collect::<Value>(),
            "luns": config.luns.iter().map(lun).collect::<Value>(),
            "queue_depth": config.queue_depth,
            "disable_chap": true, "require_chap": false, "mutual_chap": false, "chap_group": 0,
            "header_digest": false, "data_digest": false,
        })
    };
    let nodes: Vec<NodeConfig> = node.target(|target| target.nodes().collect())?;
    Ok(nodes.into_iter().map(one).collect())
}

fn connections(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    let thread = super::threads::thread_name(node.reactors()[0].core());
    let address =
        |address: Option<SocketAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    let one = |connection: gateway::ConnectionInfo| {
        json!({
            "id": connection.id,
            "cid": connection.cid,
            "tsih": connection.tsih,
            "state": "running",
            "login_phase": if connection.full_feature { "full_feature_phase" } else { "security_negotiation_phase" },
            "initiator_name": connection.initiator,
            "initiator_addr": address(connection.initiator_address),
            "target_addr": address(connection.target_address),
            "target_node_name": connection.target,
            "thread_name": thread,
        })
    };
    Ok(node.target(|target| target.connections())?.into_iter().map(one).collect())
}

/// What an administrator wants to see of each LUN; ours.
fn luns(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    let (connections, luns) = node.target(|target| (target.connections(), target.luns()))?;
    let one = |lun: gateway::LunInfo| {
        let geometry = lun.config.bdev.geometry();
        let sessions = connections.iter().filter(|connection| connection.target == lun.target).count();
        let backing = node.bdevs.get(lun.config.bdev.name()).and_then(|entry| entry.file.as_ref());
        json!({
            "target": lun.target,
            "lun_id": lun.number,
            "status": if sessions > 0 { "in use" } else { "free" },
            "bdev_name": lun.config.bdev.name(),
            "backing": backing.map(|file| file.path().display().to_string()),
            "serial": lun.config.serial,
            "durability": lun.config.mode.name(),
            "removable": lun.config.options.medium == Medium::Removable,
            "read_only": lun.config.options.access == LunAccess::ReadOnly,
            "block_size": geometry.block_size,
            "num_blocks": geometry.blocks,
            "queue_depth": lun.queue_depth,
            "initiators": lun.initiators,
            "sessions": sessions,
            "active_commands": lun.active,
            "commands": lun.commands,
            "bytes_read": lun.read_bytes,
            "bytes_written": lun.written_bytes,
            "read": super::iostat::summary(&lun.reads),
            "write": super::iostat::summary(&lun.writes),
        })
    };
    Ok(luns.into_iter().map(one).collect())
}
