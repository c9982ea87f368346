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

use super::Method;
use crate::node::Node;
use crate::params::{check, none};

pub(super) const METHODS: &[Method] = &[
    Method::runtime(
        "iscsi_create_portal_group",
        check::<groups::CreatePortalGroup>,
        groups::create_portal_group,
    ),
    Method::runtime("iscsi_delete_portal_group", check::<groups::Tagged>, groups::delete_portal_group),
    Method::runtime("iscsi_get_portal_groups", none, groups::portal_groups),
    Method::runtime(
        "iscsi_create_initiator_group",
        check::<groups::CreateInitiatorGroup>,
        groups::create_initiator_group,
    ),
    Method::runtime("iscsi_delete_initiator_group", check::<groups::Tagged>, groups::delete_initiator_group),
    Method::runtime("iscsi_get_initiator_groups", none, groups::initiator_groups),
    Method::always("iscsi_set_options", check::<options::Options>, options::set),
    Method::always("iscsi_get_options", none, options::get),
    Method::runtime("iscsi_start_portal_group", check::<groups::Tagged>, groups::start_portal_group),
    Method::runtime("iscsi_initiator_group_add_initiators", check::<groups::Entries>, groups::add_initiators),
    Method::runtime(
        "iscsi_initiator_group_remove_initiators",
        check::<groups::Entries>,
        groups::remove_initiators,
    ),
    Method::runtime("iscsi_target_node_add_pg_ig_maps", check::<nodes::Maps>, nodes::add_maps),
    Method::runtime("iscsi_target_node_remove_pg_ig_maps", check::<nodes::Maps>, nodes::remove_maps),
    Method::runtime("iscsi_target_node_set_redirect", check::<nodes::SetRedirect>, nodes::set_redirect),
    Method::runtime("iscsi_target_node_request_logout", check::<nodes::RequestLogout>, nodes::request_logout),
    Method::runtime(
        "iscsi_target_node_give_up_unit_state",
        check::<nodes::GiveUpUnitState>,
        nodes::give_up_unit_state,
    ),
    Method::runtime("iscsi_create_auth_group", check::<auth::CreateGroup>, auth::create_group),
    Method::runtime("iscsi_delete_auth_group", check::<auth::Tagged>, auth::delete_group),
    Method::runtime("iscsi_get_auth_groups", none, auth::groups),
    Method::runtime("iscsi_auth_group_add_secret", auth::check_add_secret, auth::add_secret),
    Method::runtime("iscsi_auth_group_remove_secret", check::<auth::RemoveSecret>, auth::remove_secret),
    Method::runtime("iscsi_set_discovery_auth", check::<auth::SetDiscovery>, auth::set_discovery),
    Method::runtime("iscsi_portal_group_set_auth", check::<auth::SetPortalGroup>, auth::set_portal_group),
    Method::runtime("iscsi_target_node_set_auth", check::<auth::SetNode>, auth::set_node),
    Method::runtime("iscsi_create_target_node", check::<nodes::CreateTargetNode>, nodes::create_target_node),
    Method::runtime("iscsi_delete_target_node", check::<nodes::Named>, nodes::delete_target_node),
    Method::runtime("iscsi_target_node_add_lun", check::<luns::AddLun>, luns::add_lun),
    Method::runtime("iscsi_target_node_remove_lun", check::<luns::RemoveLun>, luns::remove_lun),
    Method::runtime("iscsi_get_target_nodes", none, nodes::target_nodes),
    Method::runtime("iscsi_get_connections", none, show::connections),
    Method::runtime("lun_get_list", none, show::luns),
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
