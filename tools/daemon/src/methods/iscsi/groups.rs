//! Portal groups and initiator groups.

use core::net::SocketAddr;
use gateway::{InitiatorGroup, NetMask, PORTAL_GROUP_TAG_MAX, Portal, PortalGroup, Visibility};
use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{change, forget, remember};
use crate::node::Node;
use crate::params;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PortalParams {
    host: String,
    port: String,
    /// What discovery says instead, `ADDRESS:PORT`; ours.
    advertise: Option<SocketAddr>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreatePortalGroup {
    tag: i32,
    portals: Vec<PortalParams>,
    #[serde(default)]
    private: bool,
    #[serde(default)]
    wait: bool,
}

impl PortalParams {
    fn portal(&self) -> Result<Portal, RpcError> {
        let Self { host, port, advertise } = self;
        let bad = || RpcError::invalid_params(format!("{host}:{port} is no numerical address and port"));
        let host = host.trim_matches(['[', ']']).parse().map_err(|_| bad())?;
        let address = SocketAddr::new(host, port.parse().map_err(|_| bad())?);
        Ok(Portal { address, advertised: *advertise })
    }
}

pub(super) fn create_portal_group(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: CreatePortalGroup = params::parse(given)?;
    if !(1..=PORTAL_GROUP_TAG_MAX).contains(&parsed.tag) || parsed.portals.is_empty() {
        return Err(RpcError::invalid_params(format!(
            "tag must be 1 to {PORTAL_GROUP_TAG_MAX}, and there must be a portal"
        )));
    }
    let portals = parsed.portals.iter().map(PortalParams::portal).collect::<Result<_, _>>()?;
    let visibility = if parsed.private { Visibility::Private } else { Visibility::Public };
    let group = PortalGroup { tag: parsed.tag, portals, visibility, auth: None };
    let waits = parsed.wait;
    let bound = change(node, move |target| match waits {
        true => target.add_waiting_portal_group(&group).map(|()| group),
        false => target.add_portal_group(&group),
    })?;
    // The ports that the system chose are part of the configuration from now on.
    let mut made = group_json(&bound);
    if waits {
        made["wait"] = json!(true);
    }
    remember(node, "iscsi_create_portal_group", Some(&made));
    Ok(json!(true))
}

pub(super) fn start_portal_group(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Tagged = params::parse(given)?;
    let bound = change(node, move |target| target.start_portal_group(given.tag))?;
    let created = |(method, params): &&mut (String, Value)| {
        method == "iscsi_create_portal_group" && params["tag"] == given.tag
    };
    if let Some((_, params)) = node.target_calls.iter_mut().find(created) {
        *params = group_json(&bound);
    }
    Ok(json!(true))
}

fn group_json(group: &PortalGroup) -> Value {
    let mut shown = json!({"tag": group.tag, "portals": portals_json(group)});
    if group.visibility == Visibility::Private {
        shown["private"] = json!(true);
    }
    shown
}

fn portals_json(group: &PortalGroup) -> Value {
    let one = |portal: &Portal| {
        let Portal { address, advertised } = portal;
        let mut shown = json!({"host": address.ip().to_string(), "port": address.port().to_string()});
        if let Some(advertised) = advertised {
            shown["advertise"] = json!(advertised.to_string());
        }
        shown
    };
    group.portals.iter().map(one).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tagged {
    tag: i32,
}

pub(super) fn delete_portal_group(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Tagged = params::parse(given)?;
    change(node, move |target| target.remove_portal_group(given.tag))?;
    forget(node, &["iscsi_create_portal_group", "iscsi_portal_group_set_auth"], "tag", &json!(given.tag));
    Ok(json!(true))
}

pub(super) fn portal_groups(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    let one = |group: &PortalGroup| {
        let private = group.visibility == Visibility::Private;
        json!({"tag": group.tag, "portals": portals_json(group), "private": private})
    };
    let groups: Vec<PortalGroup> = node.target(|target| target.portal_groups().cloned().collect())?;
    Ok(groups.iter().map(one).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateInitiatorGroup {
    tag: i32,
    initiators: Vec<String>,
    netmasks: Vec<String>,
}

pub(super) fn create_initiator_group(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: CreateInitiatorGroup = params::parse(given)?;
    let netmasks = masks(&parsed.netmasks)?;
    let group = InitiatorGroup { tag: parsed.tag, initiators: parsed.initiators, netmasks };
    change(node, move |target| target.add_initiator_group(group))?;
    remember(node, "iscsi_create_initiator_group", given);
    Ok(json!(true))
}

pub(super) fn delete_initiator_group(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Tagged = params::parse(given)?;
    change(node, move |target| target.remove_initiator_group(given.tag))?;
    forget(node, &["iscsi_create_initiator_group"], "tag", &json!(given.tag));
    Ok(json!(true))
}

pub(super) fn initiator_groups(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    // As they were typed: a network's text is not kept anywhere else.
    let made = node.target_calls.iter().filter(|(method, _)| method == "iscsi_create_initiator_group");
    Ok(made.map(|(_, params)| params.clone()).collect())
}

fn masks(texts: &[String]) -> Result<Vec<NetMask>, RpcError> {
    let bad = |error: &dyn std::fmt::Display| RpcError::invalid_params(error.to_string());
    texts.iter().map(|mask| mask.parse().map_err(|error| bad(&error))).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entries {
    tag: i32,
    #[serde(default)]
    initiators: Vec<String>,
    #[serde(default)]
    netmasks: Vec<String>,
}

/// The lists of a group's call, to be changed as the group was.
fn change_call(node: &mut Node, tag: i32, change: impl Fn(&str, &mut Vec<Value>)) {
    let created = |(method, params): &&mut (String, Value)| {
        method == "iscsi_create_initiator_group" && params["tag"] == tag
    };
    let Some((_, params)) = node.target_calls.iter_mut().find(created) else { return };
    for list in ["initiators", "netmasks"] {
        if let Some(entries) = params[list].as_array_mut() {
            change(list, entries);
        }
    }
}

pub(super) fn add_initiators(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let Entries { tag, initiators, netmasks } = params::parse(given)?;
    let (names, parsed) = (initiators.clone(), masks(&netmasks)?);
    change(node, move |target| target.add_initiators(tag, names, parsed))?;
    change_call(node, tag, |list, entries| {
        let new = if list == "initiators" { &initiators } else { &netmasks };
        entries.splice(0..0, new.iter().map(|entry| json!(entry)));
    });
    Ok(json!(true))
}

pub(super) fn remove_initiators(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let Entries { tag, initiators, netmasks } = params::parse(given)?;
    let (names, parsed) = (initiators.clone(), masks(&netmasks)?);
    change(node, move |target| target.remove_initiators(tag, &names, &parsed))?;
    let gone = masks(&netmasks)?;
    change_call(node, tag, |list, entries| {
        entries.retain(|entry| {
            let text = entry.as_str().unwrap_or_default();
            match list {
                "initiators" => !initiators.iter().any(|name| name == text),
                // One network has more than one text.
                _ => !text.parse().is_ok_and(|mask: NetMask| gone.contains(&mask)),
            }
        });
    });
    Ok(json!(true))
}
