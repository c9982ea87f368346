//! Reactors as SPDK's tools look at them: cores, threads, pollers, channels. Each reactor is one thread that stays on its core.

use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Method;
use crate::node::{Entry, Node};
use crate::params;
use crate::params::{check, none};
use crate::pollers::PollerInfo;
use crate::reactor::Reactor;

pub(super) const METHODS: &[Method] = &[
    Method::runtime("framework_get_reactors", none, reactors),
    Method::runtime("framework_get_scheduler", none, scheduler),
    Method::always("framework_set_scheduler", check::<Scheduler>, set_scheduler),
    Method::runtime("thread_get_stats", none, threads),
    Method::runtime("thread_get_pollers", none, pollers),
    Method::runtime("thread_get_io_channels", none, channels),
    Method::runtime("thread_set_cpumask", check::<SetMask>, set_mask),
];

/// SPDK's light-weight thread: here each reactor runs one.
pub(super) fn thread_name(core: u32) -> String {
    format!("reactor_{core}")
}

/// Ticks are nanoseconds.
pub(super) const TICK_RATE: u64 = 1_000_000_000;

fn mask(core: u32) -> String {
    format!("{:x}", 1u128.checked_shl(core).unwrap_or(0))
}

/// A list of one object for each reactor; its name, id and mask are filled in.
fn each(node: &Node, what: impl Fn(usize, &Reactor) -> Result<Value, RpcError>) -> Result<Value, RpcError> {
    let one = |(index, reactor): (usize, &Reactor)| {
        let core = reactor.core();
        let mut object = json!({"name": thread_name(core), "id": index + 1, "cpumask": mask(core)});
        if let (Some(object), Value::Object(more)) = (object.as_object_mut(), what(index, reactor)?) {
            object.extend(more);
        }
        Ok(object)
    };
    let threads = node.reactors().iter().enumerate().map(one).collect::<Result<Value, RpcError>>()?;
    Ok(json!({"tick_rate": TICK_RATE, "threads": threads}))
}

/// Time that a core spent since the machine's start, in the kernel's ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CoreTime {
    user: u64,
    system: u64,
    interrupts: u64,
}

impl CoreTime {
    /// Of `text`, which is /proc/stat's; zeroes where the core is not named.
    fn of(text: &str, core: u32) -> Self {
        let name = format!("cpu{core}");
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name.as_str()));
        let fields: Vec<u64> = line
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .filter_map(|field| field.parse().ok())
            .collect();
        let at = |index: usize| fields.get(index).copied().unwrap_or(0);
        // user nice system idle iowait irq softirq
        Self { user: at(0) + at(1), system: at(2), interrupts: at(5) + at(6) }
    }
}

/// The core's NUMA node; -1 where there is none.
fn numa_id(core: u32) -> i64 {
    let Ok(entries) = std::fs::read_dir(format!("/sys/devices/system/cpu/cpu{core}")) else { return -1 };
    let number = |name: &str| name.strip_prefix("node").and_then(|number| number.parse().ok());
    entries.flatten().find_map(|entry| number(entry.file_name().to_str()?)).unwrap_or(-1)
}

fn reactors(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let one = |(index, reactor): (usize, &Reactor)| {
        let (core, stats) = (reactor.core(), reactor.stats());
        let time = CoreTime::of(&stat, core);
        json!({
            "lcore": core, "numa_id": numa_id(core), "tid": reactor.tid(), "busy": stats.busy_nanos,
            "idle": stats.idle_nanos, "in_interrupt": false, "irq": time.interrupts, "sys": time.system,
            "usr": time.user,
            "lw_threads": [{
                "name": thread_name(core), "id": index + 1, "cpumask": mask(core),
                "elapsed": stats.busy_nanos + stats.idle_nanos,
            }],
        })
    };
    let list: Value = node.reactors().iter().enumerate().map(one).collect();
    Ok(json!({"tick_rate": TICK_RATE, "pid": std::process::id(), "reactors": list}))
}

fn pollers_on(node: &Node, reactor: usize) -> Result<Vec<PollerInfo>, RpcError> {
    node.on(reactor, |residents, _| residents.pollers())
}

fn threads(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    each(node, |index, reactor| {
        let stats = reactor.stats();
        Ok(json!({
            "busy": stats.busy_nanos, "idle": stats.idle_nanos,
            "active_pollers_count": pollers_on(node, index)?.len(), "timed_pollers_count": 0,
            "paused_pollers_count": 0,
        }))
    })
}

/// All run in each turn: there are no timed ones, because a turn knows when the next deadline is.
fn pollers(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    let one = |(id, poller): (usize, PollerInfo)| {
        json!({
            "name": poller.name, "id": id + 1, "state": "waiting", "run_count": poller.count.runs,
            "busy_count": poller.count.busy,
        })
    };
    each(node, |index, _| {
        let active: Value = pollers_on(node, index)?.into_iter().enumerate().map(one).collect();
        Ok(json!({"active_pollers": active, "timed_pollers": [], "paused_pollers": []}))
    })
}

/// Open channels by thread and device.
fn channels(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    each(node, |_, reactor| {
        let open = |(name, entry): (&String, &Entry)| {
            let here = entry.bdev.channels().iter().filter(|channel| channel.core == reactor.core()).count();
            (here > 0).then(|| json!({"name": name, "ref": here}))
        };
        let list: Value = node.bdevs.iter().filter_map(open).collect();
        Ok(json!({"io_channels": list}))
    })
}

/// Threads stay on their cores.
fn scheduler(_: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    Ok(json!({
        "scheduler_name": "static", "scheduler_period": 0, "isolated_core_mask": "0x0", "scheduling_core": 0,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scheduler {
    name: String,
    /// Of no weight where nothing is moved.
    #[expect(dead_code, reason = "a period between moves, of which there are none")]
    period: Option<u64>,
    load_limit: Option<u8>,
    core_limit: Option<u8>,
    core_busy: Option<u8>,
    mappings: Option<String>,
}

fn set_scheduler(_: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Scheduler = params::parse(given)?;
    let tuned = [given.load_limit, given.core_limit, given.core_busy].iter().any(Option::is_some);
    if given.name != "static" || tuned || given.mappings.is_some() {
        return Err(RpcError::refused(
            "only the static scheduler, without load limits and mappings: each reactor stays on its core (gemeld --cores)",
        ));
    }
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetMask {
    id: usize,
    cpumask: String,
}

/// Whether a mask, in hexadecimal or as a list in brackets, has a core.
fn has_core(text: &str, core: u32) -> Option<bool> {
    if text.starts_with('[') {
        return Some(text.parse::<engine::CoreList>().ok()?.cores().contains(&core));
    }
    let bits = u128::from_str_radix(text.trim_start_matches("0x"), 16).ok()?;
    Some(core < u128::BITS && bits >> core & 1 == 1)
}

/// A thread runs on a core of its mask: it does already, or it would have to move.
fn set_mask(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: SetMask = params::parse(given)?;
    let reactor = given.id.checked_sub(1).and_then(|index| node.reactors().get(index));
    let core = reactor.ok_or_else(|| RpcError::no_device(format!("there is no thread {}", given.id)))?.core();
    match has_core(&given.cpumask, core) {
        Some(true) => Ok(json!(true)),
        Some(false) => Err(RpcError::refused(format!(
            "thread {} stays on core {core}: start gemeld with other --cores to move it",
            given.id
        ))),
        None => Err(RpcError::invalid_params(format!("cpumask {:?} is no mask", given.cpumask))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_numbers_or_lists() {
        assert_eq!(has_core("0x6", 2), Some(true));
        assert_eq!(has_core("6", 0), Some(false));
        assert_eq!(has_core("[0,2-3]", 3), Some(true));
        assert_eq!((has_core("x", 0), has_core("[", 0)), (None, None));
    }

    #[test]
    fn the_kernels_times_of_a_core_are_found() {
        let text = "cpu  9 9 9 9 9 9 9\ncpu0 1 2 3 4 5 6 7 0\ncpu1 10 0 0 0 0 0 0\n";
        assert_eq!(CoreTime::of(text, 0), CoreTime { user: 3, system: 3, interrupts: 13 });
        assert_eq!(CoreTime::of(text, 1).user, 10);
        assert_eq!(CoreTime::of(text, 2), CoreTime::default());
    }
}
