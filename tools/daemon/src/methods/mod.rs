//! The methods of the control socket: one table, one file for each family. Names and shapes are SPDK's where SPDK has the
//! method.

mod absent;
mod accel;
mod bdev;
mod events;
mod framework;
mod iostat;
mod iscsi;
mod limits;
mod link;
mod log;
mod mirror;
mod raid;
mod scsi;
mod sockets;
mod split;
mod threads;
mod tuning;

use std::path::Path;

use rpc::RpcError;
use serde_json::Value;

use crate::keep::Keeper;
use crate::node::{ConfigFile, Node, State};

/// When a method may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Startup,
    Runtime,
    Always,
}

/// One method.
struct Method {
    name: &'static str,
    when: When,
    run: fn(&mut Node, Option<&Value>) -> Result<Value, RpcError>,
}

/// All methods.
fn table() -> impl Iterator<Item = &'static Method> {
    framework::METHODS
        .iter()
        .chain(accel::METHODS)
        .chain(bdev::methods())
        .chain(iostat::METHODS)
        .chain(mirror::METHODS)
        .chain(split::METHODS)
        .chain(limits::METHODS)
        .chain(link::METHODS)
        .chain(events::METHODS)
        .chain(raid::METHODS)
        .chain(threads::METHODS)
        .chain(log::METHODS)
        .chain(scsi::METHODS)
        .chain(sockets::METHODS)
        .chain(tuning::METHODS)
        .chain(iscsi::METHODS)
}

fn allowed(when: When, state: State) -> bool {
    match when {
        When::Always => true,
        When::Startup => state == State::Startup,
        When::Runtime => state == State::Runtime,
    }
}

/// Runs a method.
///
/// # Errors
/// The method's own, or that there is none, or not now.
pub fn dispatch(node: &mut Node, name: &str, params: Option<&Value>) -> Result<Value, RpcError> {
    let absent = || match absent::reason(name) {
        Some(reason) => RpcError::method_not_found(&format!("{name}: {reason}")),
        None => RpcError::method_not_found(name),
    };
    let method = table().find(|method| method.name == name).ok_or_else(absent)?;
    match (method.when, allowed(method.when, node.state)) {
        (_, true) => (method.run)(node, params),
        (When::Startup, _) => Err(RpcError::wrong_state(
            "Method may only be called before framework is initialized using framework_start_init RPC.",
        )),
        _ => Err(RpcError::wrong_state(
            "Method may only be called after framework is initialized using framework_start_init RPC.",
        )),
    }
}

/// Writes the configuration to the node's file, if it keeps one there and has changed.
pub fn keep(node: &mut Node) {
    if let ConfigFile::Kept(_) = &node.config_file
        && let Ok(config) = framework::document(node)
        && let ConfigFile::Kept(keeper) = &mut node.config_file
    {
        keeper.keep(config);
    }
}

/// Has the node keep its configuration in a file from now on.
///
/// # Errors
/// The node is about to end.
pub fn keep_in(node: &mut Node, file: &Path) -> Result<(), RpcError> {
    node.config_file = ConfigFile::Kept(Keeper::new(file, framework::document(node)?));
    Ok(())
}

/// An option of SPDK's that tunes something that this node has not, or does otherwise: its default is no wish and is taken;
/// anything else is refused with the reason.
///
/// # Errors
/// Somebody wished for something.
fn neutral<T: Copy + PartialEq>(
    name: &str,
    given: Option<T>,
    default: T,
    reason: &str,
) -> Result<(), RpcError> {
    match given {
        Some(given) if given != default => {
            Err(RpcError::refused(format!("{name} cannot be set: {reason}; leave it out")))
        }
        _ => Ok(()),
    }
}
