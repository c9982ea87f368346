//! The framework: version, methods, start, configuration, reactors.

use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Method, When, allowed, table};
use crate::node::{ConfigFile, Entry, Node, Resident, State};
use crate::params;
use crate::reactor::Reactor;

pub(super) const METHODS: &[Method] = &[
    Method { name: "spdk_get_version", when: When::Always, run: version },
    Method { name: "rpc_get_methods", when: When::Always, run: methods },
    Method { name: "spdk_kill_instance", when: When::Always, run: kill },
    Method { name: "framework_start_init", when: When::Startup, run: start_init },
    Method { name: "framework_wait_init", when: When::Runtime, run: wait_init },
    Method { name: "framework_get_subsystems", when: When::Runtime, run: subsystems },
    Method { name: "framework_get_config", when: When::Runtime, run: config },
    Method { name: "node_get_config_file", when: When::Always, run: config_file },
    Method { name: "framework_get_reactors", when: When::Runtime, run: reactors },
    Method { name: "framework_get_scheduler", when: When::Runtime, run: scheduler },
    Method { name: "thread_get_stats", when: When::Runtime, run: threads },
    Method { name: "thread_get_io_channels", when: When::Runtime, run: channels },
];

/// Subsystems in the order of their start, with what they need.
const SUBSYSTEMS: [(&str, &[&str]); 2] = [("bdev", &[]), ("iscsi", &["bdev"])];

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
    let now = |method: &&Method| !given.current || allowed(method.when, node.state);
    Ok(table().filter(now).map(|method| method.name).collect())
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
}

/// The calls that set a subsystem's options.
fn options(node: &Node, subsystem: &str) -> Vec<(String, Value)> {
    let mine = node.options.iter().filter(|(method, _)| method.starts_with(subsystem));
    mine.map(|(method, params)| (method.clone(), params.clone())).collect()
}

/// The calls that make the subsystem's objects again.
fn config(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: GetConfig = params::parse(given)?;
    calls_of(node, &given.name)
}

/// The whole configuration, as it is saved.
pub(super) fn document(node: &Node) -> Result<Value, RpcError> {
    let one = |(name, _): &(&str, &[&str])| Ok(json!({"subsystem": name, "config": calls_of(node, name)?}));
    Ok(json!({"subsystems": SUBSYSTEMS.iter().map(one).collect::<Result<Value, RpcError>>()?}))
}

fn calls_of(node: &Node, subsystem: &str) -> Result<Value, RpcError> {
    let call = |(method, params): &(String, Value)| json!({"method": method, "params": params});
    match subsystem {
        "bdev" => {
            let devices = super::bdev::in_order(node).filter_map(|entry| entry.created_by.as_ref());
            Ok(options(node, "bdev_").iter().chain(devices).map(call).collect())
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

/// SPDK's light-weight thread: here each reactor runs one.
pub(super) fn thread_name(core: u32) -> String {
    format!("reactor_{core}")
}

/// Ticks are nanoseconds.
pub(super) const TICK_RATE: u64 = 1_000_000_000;

fn reactors(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    let one = |(index, reactor): (usize, &Reactor)| {
        let (core, stats) = (reactor.core(), reactor.stats());
        json!({
            "lcore": core, "tid": 0, "busy": stats.busy_nanos, "idle": stats.idle_nanos, "in_interrupt": false,
            "irq": 0, "sys": 0, "usr": 0,
            "lw_threads": [{
                "name": thread_name(core), "id": index + 1, "cpumask": mask(core),
                "elapsed": stats.busy_nanos + stats.idle_nanos,
            }],
        })
    };
    let list: Value = node.reactors().iter().enumerate().map(one).collect();
    Ok(json!({"tick_rate": TICK_RATE, "pid": std::process::id(), "reactors": list}))
}

fn threads(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    let one = |(index, reactor): (usize, &Reactor)| {
        let (core, stats) = (reactor.core(), reactor.stats());
        json!({
            "name": thread_name(core), "id": index + 1, "cpumask": mask(core), "busy": stats.busy_nanos,
            "idle": stats.idle_nanos, "active_pollers_count": pollers_of(node, index),
            "timed_pollers_count": 0, "paused_pollers_count": 0,
        })
    };
    let list: Value = node.reactors().iter().enumerate().map(one).collect();
    Ok(json!({"tick_rate": TICK_RATE, "threads": list}))
}

/// How many things a reactor polls: the iSCSI target, sessions of imports, mirrors.
fn pollers_of(node: &Node, reactor: usize) -> usize {
    let here =
        |entry: &&Entry| [Resident::Import(reactor), Resident::Mirror(reactor)].contains(&entry.resident);
    node.bdevs.values().filter(here).count() + usize::from(reactor == 0)
}

/// Open channels by thread and device.
fn channels(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    let one = |(index, reactor): (usize, &Reactor)| {
        let open = |(name, entry): (&String, &Entry)| {
            let here = entry.bdev.channels().iter().filter(|channel| channel.core == reactor.core()).count();
            (here > 0).then(|| json!({"name": name, "ref": here}))
        };
        let list: Value = node.bdevs.iter().filter_map(open).collect();
        json!({
            "name": thread_name(reactor.core()), "id": index + 1, "cpumask": mask(reactor.core()),
            "io_channels": list,
        })
    };
    let list: Value = node.reactors().iter().enumerate().map(one).collect();
    Ok(json!({"tick_rate": TICK_RATE, "threads": list}))
}

/// Threads stay on their cores.
fn scheduler(_: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    Ok(json!({
        "scheduler_name": "static", "scheduler_period": 0, "isolated_core_mask": "0x0", "scheduling_core": 0,
    }))
}

fn mask(core: u32) -> String {
    format!("{:x}", 1u128.checked_shl(core).unwrap_or(0))
}
