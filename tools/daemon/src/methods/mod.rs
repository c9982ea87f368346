//! The methods of the control socket: one table, one file for each family. Names and shapes are SPDK's where SPDK has the
//! method.

mod bdev;
mod events;
mod framework;
mod iostat;
mod iscsi;
mod mirror;

use rpc::RpcError;
use serde_json::Value;

use crate::node::{Node, State};

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
        .chain(bdev::METHODS)
        .chain(iostat::METHODS)
        .chain(mirror::METHODS)
        .chain(events::METHODS)
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
    let method =
        table().find(|method| method.name == name).ok_or_else(|| RpcError::method_not_found(name))?;
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
