//! Connections and LUNs as an administrator wants to see them.

use core::net::SocketAddr;
use gateway::LunAccess;
use rpc::RpcError;
use scsi::Medium;
use serde_json::{Value, json};

use crate::node::Node;
use crate::params;

pub(super) fn connections(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    let thread = super::super::threads::thread_name(node.reactors()[0].core());
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

/// The file that a device's blocks are in on this node: its own, or that of what it is made of.
fn backing(node: &Node, name: &str) -> Option<String> {
    let entry = node.bdevs.get(name)?;
    let own = entry.file.as_ref().map(|file| file.path().display().to_string());
    own.or_else(|| entry.bases.iter().find_map(|base| backing(node, base)))
}

/// What an administrator wants to see of each LUN; ours.
pub(super) fn luns(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    let (connections, luns) = node.target(|target| (target.connections(), target.luns()))?;
    let one = |lun: gateway::LunInfo| {
        let geometry = lun.config.bdev.geometry();
        let sessions = connections.iter().filter(|connection| connection.target == lun.target).count();
        let backing = backing(node, lun.config.bdev.name());
        json!({
            "target": lun.target,
            "lun_id": lun.number,
            "status": if sessions > 0 { "in use" } else { "free" },
            "bdev_name": lun.config.bdev.name(),
            "backing": backing,
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
            "read": super::super::iostat::summary(&lun.reads),
            "write": super::super::iostat::summary(&lun.writes),
        })
    };
    Ok(luns.into_iter().map(one).collect())
}
