//! `bdev_get_bdevs`: what is known of each device.

use std::collections::BTreeMap;

use bdev::{Bdev, Capabilities};
use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::methods::{raid, tuning};
use crate::node::{Entry, Node, Resident};
use crate::params;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    name: Option<String>,
    #[expect(dead_code, reason = "accepted for SPDK's client; devices appear at once")]
    timeout: Option<u64>,
}

pub(super) fn list(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: List = params::parse(given)?;
    let users = node.users()?;
    let wanted = |entry: &&Entry| match &given.name {
        None => true,
        // A uuid is an alias.
        Some(name) => entry.bdev.name() == name || entry.bdev.uuid().to_string() == *name,
    };
    let entries: Vec<&Entry> = node.bdevs.values().filter(wanted).collect();
    if let (Some(name), true) = (&given.name, entries.is_empty()) {
        node.bdev(name)?;
    }
    entries.into_iter().map(|entry| describe(node, entry, &users)).collect()
}

fn describe(node: &Node, entry: &Entry, users: &BTreeMap<String, String>) -> Result<Value, RpcError> {
    let bdev = &entry.bdev;
    let geometry = bdev.geometry();
    let can = |capability| bdev.capabilities().contains(capability);
    Ok(json!({
        "name": bdev.name(),
        "aliases": [bdev.uuid().to_string()],
        "product_name": bdev.product(),
        "block_size": geometry.block_size,
        "num_blocks": geometry.blocks,
        "uuid": bdev.uuid().to_string(),
        "numa_id": -1,
        "assigned_rate_limits": tuning::shown(bdev.limits()),
        "claimed": users.contains_key(bdev.name()),
        "zoned": false,
        "supported_io_types": {
            "read": true, "write": !can(Capabilities::READ_ONLY), "unmap": can(Capabilities::DISCARD),
            "flush": can(Capabilities::FLUSH), "reset": false, "write_zeroes": can(Capabilities::WRITE_ZEROES),
            "compare": false, "compare_and_write": can(Capabilities::COMPARE_AND_WRITE),
            "seek_hole": can(Capabilities::BLOCK_STATUS), "seek_data": can(Capabilities::BLOCK_STATUS), "abort": false, "copy": false,
        },
        "driver_specific": specific(node, entry)?,
    }))
}

/// What only devices of this kind have, under SPDK's names.
fn specific(node: &Node, entry: &Entry) -> Result<Value, RpcError> {
    if let Resident::Mirror(_) = entry.resident {
        let status = node.mirror(entry.bdev.name(), |driver, _| driver.status())?;
        return Ok(json!({"raid": raid::describe(node, entry, &status)}));
    }
    let Some((method, params)) = &entry.created_by else { return Ok(json!({})) };
    let pick =
        |keys: &[&str]| keys.iter().map(|key| ((*key).to_owned(), params[*key].clone())).collect::<Value>();
    Ok(match method.as_str() {
        "bdev_uring_create" => json!({"uring": pick(&["filename"])}),
        "bdev_aio_create" => json!({"aio": pick(&["filename", "readonly", "fallocate"])}),
        "bdev_iscsi_create" => {
            json!({"iscsi": {"initiator_name": params["initiator_iqn"], "url": params["url"]}})
        }
        "bdev_delay_create" => json!({"delay": pick(&[
            "name", "base_bdev_name", "avg_read_latency", "p99_read_latency", "avg_write_latency", "p99_write_latency",
        ])}),
        "bdev_error_create" => {
            json!({"error": {"name": entry.bdev.name(), "base_bdev": params["base_name"]}})
        }
        "bdev_crypto_create" => json!({"crypto": pick(&["name", "base_bdev_name", "key_name"])}),
        "bdev_passthru_create" => json!({"passthru": pick(&["name", "base_bdev_name"])}),
        _ => json!({}),
    })
}
