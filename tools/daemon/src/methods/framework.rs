//! The framework: version, methods, start, configuration.

use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Method, When, allowed, long_table, table};
use crate::node::{ConfigFile, Node, State};
use crate::params;
use crate::params::{check, none};
use crate::secret::covered;

pub(super) const METHODS: &[Method] = &[
    Method::always("spdk_get_version", none, version),
    Method::always("rpc_get_methods", check::<GetMethods>, methods),
    Method::always("spdk_kill_instance", check::<Kill>, kill),
    Method::startup("framework_start_init", none, start_init),
    Method::runtime("framework_wait_init", none, wait_init),
    Method::runtime("framework_get_subsystems", none, subsystems),
    Method::runtime("framework_get_config", check::<GetConfig>, config),
    Method::always("node_get_config_file", none, config_file),
];

/// Subsystems in the order of their start, with what they need.
const SUBSYSTEMS: [(&str, &[&str]); 4] =
    [("accel", &[]), ("link", &[]), ("bdev", &["accel", "link"]), ("iscsi", &["bdev", "link"])];

fn version(_: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    let version = env!("CARGO_PKG_VERSION");
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    Ok(json!({
        "version": format!("Gemel {version}"),
        "fields": {"major": next(), "minor": next(), "patch": next(), "suffix": ""},
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetMethods {
    #[serde(default)]
    current: bool,
    #[serde(default)]
    #[expect(dead_code, reason = "accepted for SPDK's client; there are no aliases")]
    include_aliases: bool,
}

fn methods(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: GetMethods = params::parse(given)?;
    let all = table().map(|method| (method.name, method.when));
    let all = all.chain(long_table().map(|method| (method.name, method.when)));
    let now = |(_, when): &(&str, When)| !given.current || allowed(*when, node.state);
    Ok(all.filter(now).map(|(name, _)| name).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kill {
    sig_name: String,
}

fn kill(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Kill = params::parse(given)?;
    match given.sig_name.trim_start_matches("SIG") {
        "INT" | "TERM" | "QUIT" | "HUP" => {
            node.request_end();
            Ok(json!(true))
        }
        other => Err(RpcError::refused(format!("signal {other:?} is not supported: use SIGINT or SIGTERM"))),
    }
}

fn start_init(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    node.state = State::Runtime;
    Ok(json!(true))
}

fn wait_init(_: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    Ok(json!(true))
}

fn subsystems(_: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    let one = |(name, depends_on): &(&str, &[&str])| json!({"subsystem": name, "depends_on": depends_on});
    Ok(SUBSYSTEMS.iter().map(one).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetConfig {
    name: String,
    #[serde(default)]
    #[expect(dead_code, reason = "accepted for SPDK's client; nothing is batched")]
    with_batches: bool,
    /// Secrets that were given in calls are not covered; ours.
    #[serde(default)]
    with_secrets: bool,
}

/// The calls that set a subsystem's options.
fn options(node: &Node, subsystem: &str) -> Vec<(String, Value)> {
    let mine = node.options.iter().filter(|(method, _)| method.starts_with(subsystem));
    mine.map(|(method, params)| (method.clone(), params.clone())).collect()
}

/// The calls that make the subsystem's objects again. What a call gave as a secret shows only to who asks for it.
fn config(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: GetConfig = params::parse(given)?;
    let calls = calls_of(node, &given.name)?;
    Ok(if given.with_secrets { calls } else { covered(&calls) })
}

/// The whole configuration, as it is written to the node's own file: with all secrets.
pub(super) fn document(node: &Node) -> Result<Value, RpcError> {
    let one = |(name, _): &(&str, &[&str])| Ok(json!({"subsystem": name, "config": calls_of(node, name)?}));
    Ok(json!({"subsystems": SUBSYSTEMS.iter().map(one).collect::<Result<Value, RpcError>>()?}))
}

fn calls_of(node: &Node, subsystem: &str) -> Result<Value, RpcError> {
    let call = |(method, params): &(String, Value)| json!({"method": method, "params": params});
    match subsystem {
        "accel" => Ok(node.crypto_keys.values().map(|key| call(&key.created_by)).collect()),
        "link" => Ok(node.links.values().map(|link| call(&link.created_by)).collect()),
        "bdev" => {
            let devices = super::bdev::in_order(node).filter_map(|entry| entry.created_by.as_ref());
            // A mirror's guarded leg has no call of its own: what is switched on comes when all devices are there.
            let switched_on: Vec<_> = node.bdevs.values().flat_map(super::tuning::calls).collect();
            Ok(options(node, "bdev_").iter().chain(devices).chain(&switched_on).map(call).collect())
        }
        "iscsi" => Ok(options(node, "iscsi_").iter().chain(&node.target_calls).map(call).collect()),
        other => Err(RpcError::refused(format!("there is no subsystem {other:?}"))),
    }
}

/// Where the configuration is, and whether changes are written there; ours.
fn config_file(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    Ok(match &node.config_file {
        ConfigFile::None => json!({"file": null, "write_back": false, "error": null}),
        ConfigFile::Loaded(file) => json!({"file": file, "write_back": false, "error": null}),
        ConfigFile::Kept(keeper) => {
            json!({"file": keeper.path(), "write_back": true, "error": keeper.error()})
        }
    })
}
