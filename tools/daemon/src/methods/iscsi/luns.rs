//! LUNs that come and go while their target serves.

use std::num::NonZeroU64;

use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::nodes::{Lun, Mode, Provisioning, lun_config};
use super::{change, remember};
use crate::node::Node;
use crate::params;

const ADD_LUN: &str = "iscsi_target_node_add_lun";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AddLun {
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
    /// WSNZ: a WRITE SAME of zero blocks is refused.
    #[serde(default)]
    wsnz: bool,
    /// Hosts are told when this share of a thin LUN has storage.
    soft_threshold_percent: Option<u8>,
    /// Where the unit is managed, for VPD page 85h.
    management_url: Option<String>,
}

pub(super) fn add_lun(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: AddLun = params::parse(given)?;
    let lun = Lun {
        bdev_name: parsed.bdev_name,
        lun_id: parsed.lun_id,
        removable: parsed.removable,
        read_only: parsed.read_only,
        provisioning: parsed.provisioning,
        sanitize_mb_per_sec: parsed.sanitize_mb_per_sec,
        wsnz: parsed.wsnz,
        soft_threshold_percent: parsed.soft_threshold_percent,
        management_url: parsed.management_url,
    };
    let lun_id = lun.lun_id;
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
    // By its number, whatever number would be free at another time.
    let mut call = given.cloned().unwrap_or_default();
    call["lun_id"] = json!(number);
    remember(node, ADD_LUN, Some(&call));
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveLun {
    name: String,
    lun_id: u16,
}

pub(super) fn remove_lun(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let RemoveLun { name, lun_id } = params::parse(given)?;
    let target_name = name.clone();
    change(node, move |target| target.remove_lun(&target_name, lun_id))?;
    forget_lun(node, &name, lun_id);
    Ok(json!(true))
}

/// Forgets what made a LUN: a call of its own, or its part of the target's.
fn forget_lun(node: &mut Node, name: &str, lun_id: u16) {
    let named = |params: &Value| params["name"].as_str().is_some_and(|own| own.eq_ignore_ascii_case(name));
    node.target_calls.retain(|(method, params)| {
        !(method == ADD_LUN && named(params) && params["lun_id"] == json!(lun_id))
    });
    let made = node.target_calls.iter_mut().filter(|(method, _)| method == "iscsi_create_target_node");
    for (_, params) in made.filter(|(_, params)| named(params)) {
        let Some(luns) = params["luns"].as_array_mut() else { continue };
        // A LUN without a number has that of its place, which must not change.
        for (at, lun) in luns.iter_mut().enumerate() {
            if lun["lun_id"].is_null() {
                lun["lun_id"] = json!(at);
            }
        }
        luns.retain(|lun| lun["lun_id"] != json!(lun_id));
    }
}
