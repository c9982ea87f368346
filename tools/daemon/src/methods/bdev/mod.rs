//! Block devices: what is common to all, and the files of each kind.

mod crypto;
mod describe;
mod file;
mod import;
mod ram;
mod stacked;

pub(super) use crypto::CREATE as CRYPTO_CREATE;
pub(super) use import::LONG_METHODS;
use std::collections::BTreeSet;

use bdev::Bdev;
use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Method, neutral};
use crate::node::{Entry, Node};
use crate::params;
use crate::params::{check, none};

/// Of each kind of device.
pub(super) fn methods() -> impl Iterator<Item = &'static Method> {
    COMMON
        .iter()
        .chain(ram::METHODS)
        .chain(file::METHODS)
        .chain(stacked::METHODS)
        .chain(crypto::METHODS)
        .chain(import::METHODS)
}

const COMMON: &[Method] = &[
    Method::startup("bdev_set_options", check::<Options>, set_options),
    Method::runtime("bdev_get_bdevs", check::<describe::List>, describe::list),
    Method::runtime("bdev_examine", check::<Named>, examine),
    Method::runtime("bdev_wait_for_examine", none, wait_for_examine),
];

/// Entries such that each comes after what it is made of.
pub(super) fn in_order(node: &Node) -> impl Iterator<Item = &Entry> {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut ordered = Vec::new();
    while ordered.len() < node.bdevs.len() {
        let ready = |(name, entry): &(&String, &Entry)| {
            !done.contains(name.as_str()) && entry.bases.iter().all(|base| done.contains(base.as_str()))
        };
        let Some((name, entry)) = node.bdevs.iter().find(ready) else { break };
        done.insert(name);
        ordered.push(entry);
    }
    ordered.into_iter()
}

pub(super) fn uuid_of(given: Option<&str>) -> Result<Uuid, RpcError> {
    match given {
        None => Ok(Uuid::new_v4()),
        Some(text) => text.parse().map_err(|_| RpcError::invalid_params(format!("uuid {text:?} is no UUID"))),
    }
}

/// The call with its choices made, so that a replay makes the same device.
fn replay(method: &str, params: Option<&Value>, bdev: &dyn Bdev) -> (String, Value) {
    let mut params = params.cloned().unwrap_or_else(|| json!({}));
    params["uuid"] = json!(bdev.uuid().to_string());
    (method.to_owned(), params)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    bdev_io_pool_size: Option<u32>,
    bdev_io_cache_size: Option<u32>,
    bdev_auto_examine: Option<bool>,
    iobuf_small_cache_size: Option<u32>,
    iobuf_large_cache_size: Option<u32>,
}

/// Takes what SPDK writes when nobody wished for anything.
fn set_options(_: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Options = params::parse(given)?;
    let no_pool = "an I/O is one value that moves: there is no pool of them to size";
    let arena = "buffers come from one arena: size it with gemeld --memory";
    neutral("bdev_io_pool_size", given.bdev_io_pool_size, 65535, no_pool)?;
    neutral("bdev_io_cache_size", given.bdev_io_cache_size, 256, no_pool)?;
    neutral("bdev_auto_examine", given.bdev_auto_examine, true, "legs are looked at when they are named")?;
    neutral("iobuf_small_cache_size", given.iobuf_small_cache_size, 128, arena)?;
    neutral("iobuf_large_cache_size", given.iobuf_large_cache_size, 16, arena)?;
    Ok(json!(true))
}

/// Nothing is found by looking at a device: a leg is looked at when a mirror is made of it.
fn examine(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Named = params::parse(given)?;
    node.bdev(&given.name)?;
    Ok(json!(true))
}

/// Devices are there when the call that makes them returns.
fn wait_for_examine(_: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

/// Removes a device that `made_by` made. Each kind has its own method, so that a slip takes no other one away.
fn delete(node: &mut Node, given: Option<&Value>, made_by: &str) -> Result<Value, RpcError> {
    let given: Named = params::parse(given)?;
    let name = &given.name;
    match node.bdev(name)?.created_by.as_ref().map(|(method, _)| method.as_str()) {
        Some(method) if method == made_by => node.remove_bdev(name)?,
        Some("mirror_assemble") => {
            return Err(RpcError::no_device(format!("bdev {name} is a mirror: use mirror_delete")));
        }
        Some(method) => {
            let with = method.replace("_create", "_delete");
            return Err(RpcError::no_device(format!("bdev {name} was made by {method}: use {with}")));
        }
        None => {
            return Err(RpcError::busy(format!(
                "bdev {name} belongs to a mirror: it goes with mirror_delete"
            )));
        }
    }
    Ok(json!(true))
}
