//! The iSCSI target: groups, nodes, LUNs, connections.

mod auth;
mod groups;
mod luns;
mod nodes;
mod options;
mod show;

use gateway::{ExportError, Target};
use rpc::RpcError;
use serde_json::{Value, json};

use super::{Method, When};
use crate::node::Node;

pub(super) const METHODS: &[Method] = &[
    Method { name: "iscsi_create_portal_group", when: When::Runtime, run: groups::create_portal_group },
    Method { name: "iscsi_delete_portal_group", when: When::Runtime, run: groups::delete_portal_group },
    Method { name: "iscsi_get_portal_groups", when: When::Runtime, run: groups::portal_groups },
    Method { name: "iscsi_create_initiator_group", when: When::Runtime, run: groups::create_initiator_group },
    Method { name: "iscsi_delete_initiator_group", when: When::Runtime, run: groups::delete_initiator_group },
    Method { name: "iscsi_get_initiator_groups", when: When::Runtime, run: groups::initiator_groups },
    Method { name: "iscsi_set_options", when: When::Always, run: options::set },
    Method { name: "iscsi_get_options", when: When::Always, run: options::get },
    Method { name: "iscsi_start_portal_group", when: When::Runtime, run: groups::start_portal_group },
    Method { name: "iscsi_initiator_group_add_initiators", when: When::Runtime, run: groups::add_initiators },
    Method {
        name: "iscsi_initiator_group_remove_initiators",
        when: When::Runtime,
        run: groups::remove_initiators,
    },
    Method { name: "iscsi_target_node_add_pg_ig_maps", when: When::Runtime, run: nodes::add_maps },
    Method { name: "iscsi_target_node_remove_pg_ig_maps", when: When::Runtime, run: nodes::remove_maps },
    Method { name: "iscsi_target_node_set_redirect", when: When::Runtime, run: nodes::set_redirect },
    Method { name: "iscsi_target_node_request_logout", when: When::Runtime, run: nodes::request_logout },
    Method {
        name: "iscsi_target_node_give_up_unit_state",
        when: When::Runtime,
        run: nodes::give_up_unit_state,
    },
    Method { name: "iscsi_create_auth_group", when: When::Runtime, run: auth::create_group },
    Method { name: "iscsi_delete_auth_group", when: When::Runtime, run: auth::delete_group },
    Method { name: "iscsi_get_auth_groups", when: When::Runtime, run: auth::groups },
    Method { name: "iscsi_auth_group_add_secret", when: When::Runtime, run: auth::add_secret },
    Method { name: "iscsi_auth_group_remove_secret", when: When::Runtime, run: auth::remove_secret },
    Method { name: "iscsi_set_discovery_auth", when: When::Runtime, run: auth::set_discovery },
    Method { name: "iscsi_portal_group_set_auth", when: When::Runtime, run: auth::set_portal_group },
    Method { name: "iscsi_target_node_set_auth", when: When::Runtime, run: auth::set_node },
    Method { name: "iscsi_create_target_node", when: When::Runtime, run: nodes::create_target_node },
    Method { name: "iscsi_delete_target_node", when: When::Runtime, run: nodes::delete_target_node },
    Method { name: "iscsi_target_node_add_lun", when: When::Runtime, run: luns::add_lun },
    Method { name: "iscsi_target_node_remove_lun", when: When::Runtime, run: luns::remove_lun },
    Method { name: "iscsi_get_target_nodes", when: When::Runtime, run: nodes::target_nodes },
    Method { name: "iscsi_get_connections", when: When::Runtime, run: show::connections },
    Method { name: "lun_get_list", when: When::Runtime, run: show::luns },
];

fn refusal(error: &ExportError) -> RpcError {
    let message = error.to_string();
    match error {
        ExportError::PortalGroupExists(_)
        | ExportError::InitiatorGroupExists(_)
        | ExportError::TargetExists(_)
        | ExportError::AuthGroupExists(_)
        | ExportError::UserExists { .. }
        | ExportError::MapExists { .. }
        | ExportError::Listening(_)
        | ExportError::LunExists(_) => RpcError::exists(message),
        ExportError::NoPortalGroup(_)
        | ExportError::NoInitiatorGroup(_)
        | ExportError::NoAuthGroup(_)
        | ExportError::NoUser { .. }
        | ExportError::NoMap { .. }
        | ExportError::NoEntry { .. }
        | ExportError::NotAt { .. }
        | ExportError::NoLun { .. }
        | ExportError::NoTarget(_) => RpcError::no_device(message),
        ExportError::GroupInUse { .. } | ExportError::AuthGroupInUse { .. } => RpcError::busy(message),
        ExportError::BadName(..) | ExportError::NoLunZero(_) | ExportError::QueueDepth(_) => {
            RpcError::invalid_params(message)
        }
        ExportError::UnitStateReadable { .. } => RpcError::refused(message),
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

/// Remembers the last of the calls that set something of one thing.
fn replace(node: &mut Node, method: &str, key: &str, params: Option<&Value>) {
    let value = params.map(|params| params[key].clone()).unwrap_or_default();
    forget(node, &[method], key, &value);
    remember(node, method, params);
}
