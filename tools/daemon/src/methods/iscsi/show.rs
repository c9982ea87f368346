//! Connections and LUNs as an administrator wants to see them.

use core::net::SocketAddr;
use gateway::LunAccess;
use iscsi::SessionParameters;
use rpc::RpcError;
use scsi::Medium;
use serde_json::{Value, json};

use crate::node::Node;
use crate::params;

/// What a login agreed on, under the names of the options; ours.
fn negotiated(agreed: &SessionParameters) -> Value {
    json!({
        "header_digest": agreed.header_digest.name(), "data_digest": agreed.data_digest.name(),
        "max_recv_data_segment_length": agreed.max_recv_data_segment_length,
        "max_send_data_segment_length": agreed.max_send_data_segment_length,
        "max_burst_length": agreed.max_burst_length, "first_burst_length": agreed.first_burst_length,
        "initial_r2t": agreed.initial_r2t.is_yes(), "immediate_data": agreed.immediate_data.is_yes(),
        "max_outstanding_r2t": agreed.max_outstanding_r2t,
        "data_pdu_in_order": agreed.data_pdu_in_order.is_yes(),
        "data_sequence_in_order": agreed.data_sequence_in_order.is_yes(),
        "default_time2wait": agreed.time2wait, "default_time2retain": agreed.time2retain,
        "max_connections_per_session": agreed.max_connections,
        "error_recovery_level": agreed.error_recovery_level, "protocol_level": agreed.protocol_level,
    })
}

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
            "negotiated": connection.parameters.as_ref().map(negotiated),
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
