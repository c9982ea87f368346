//! What each device did: SPDK's counters, and the percentiles of each layer's latency.

use bdev::Bdev;
use bdev::meter::{IoStats, OpKind, OpStats};
use core::time::Duration;
use engine::{Clock, LatencySummary};
use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Method;
use super::threads::TICK_RATE;
use crate::node::{Entry, Node};
use crate::params;
use crate::params::check;

pub(super) const METHODS: &[Method] = &[
    Method::runtime("bdev_get_iostat", check::<Which>, iostat),
    Method::runtime("bdev_reset_iostat", check::<Reset>, reset),
    Method::runtime("bdev_get_latency", check::<Named>, latency),
];

/// What to set back to zero after it was read.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ResetMode {
    All,
    #[default]
    None,
    /// Nothing is reset alone: minima and maxima are of the same histogram as everything else.
    Maxmin,
    Error,
}

impl ResetMode {
    fn check(self) -> Result<(), RpcError> {
        match self {
            Self::All | Self::None => Ok(()),
            Self::Maxmin | Self::Error => {
                Err(RpcError::refused("only all figures can be reset together: use all, or none"))
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    names: Option<Vec<String>>,
    /// What older clients send.
    name: Option<String>,
    #[serde(default)]
    per_channel: bool,
    #[serde(default)]
    reset_mode: ResetMode,
}

/// The entries that a call names, or all.
fn named<'a>(node: &'a Node, names: &[String]) -> Result<Vec<&'a Entry>, RpcError> {
    if names.is_empty() {
        return Ok(node.bdevs.values().collect());
    }
    names.iter().map(|name| node.bdev(name)).collect()
}

fn iostat(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Which = params::parse(given)?;
    let names: Vec<String> = given.names.into_iter().flatten().chain(given.name).collect();
    given.reset_mode.check()?;
    if given.per_channel && names.is_empty() {
        return Err(RpcError::invalid_params("per_channel needs the name of a bdev"));
    }
    let entries = named(node, &names)?;
    let now = node.clock().now();
    let one = |entry: &&Entry| {
        let mut figures = json!({"name": entry.bdev.name()});
        if given.per_channel {
            let channels = entry.bdev.channels();
            figures["channels"] = channels
                .iter()
                .map(|channel| with(json!({"thread_id": thread_id(node, channel.core)}), &channel.stats))
                .collect();
            return figures;
        }
        let mut figures = with(figures, &entry.bdev.stats());
        if let Some(depth) = entry.bdev.depth(now) {
            let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            figures["queue_depth_polling_period"] = json!(micros(depth.period));
            figures["queue_depth"] = json!(depth.depth);
            figures["io_time"] = json!(micros(depth.busy));
            figures["weighted_io_time"] = json!(micros(depth.weighted));
        }
        figures
    };
    let list: Value = entries.iter().map(one).collect();
    if let ResetMode::All = given.reset_mode {
        entries.iter().for_each(|entry| entry.bdev.reset());
    }
    let ticks = ticks(now.saturating_since(engine::Instant::EPOCH));
    Ok(json!({"tick_rate": TICK_RATE, "ticks": ticks, "bdevs": list}))
}

fn thread_id(node: &Node, core: u32) -> usize {
    node.reactors().iter().position(|reactor| reactor.core() == core).map_or(0, |index| index + 1)
}

fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// SPDK's fields for a device's or channel's figures.
fn with(mut figures: Value, stats: &IoStats) -> Value {
    let [read, write, unmap, flush] = OpKind::ALL.map(|kind| stats.of(kind));
    for (name, stats) in [("read", read), ("write", write), ("unmap", unmap)] {
        let bytes = if name == "write" { "bytes_written" } else { &format!("bytes_{}", past(name)) };
        figures[bytes] = json!(stats.bytes);
        figures[format!("num_{name}_ops")] = json!(stats.operations);
        figures[format!("{name}_latency_ticks")] = json!(ticks(stats.busy));
        figures[format!("max_{name}_latency_ticks")] = json!(ticks(stats.latency.summary().max));
        figures[format!("min_{name}_latency_ticks")] = json!(ticks(stats.latency.summary().min));
    }
    // No device copies by itself.
    for field in ["bytes_copied", "num_copy_ops", "copy_latency_ticks"] {
        figures[field] = json!(0);
    }
    let failed: u64 = [read, write, unmap, flush].iter().map(|stats| stats.errors).sum();
    figures["io_error"] = if failed == 0 { json!({}) } else { json!({"failed": failed}) };
    figures
}

fn past(name: &str) -> &str {
    if name == "unmap" { "unmapped" } else { name }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reset {
    name: Option<String>,
    mode: Option<ResetMode>,
}

fn reset(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Reset = params::parse(given)?;
    let mode = given.mode.unwrap_or(ResetMode::All);
    mode.check()?;
    let names: Vec<String> = given.name.into_iter().collect();
    let entries = named(node, &names)?;
    if let ResetMode::All = mode {
        entries.iter().for_each(|entry| entry.bdev.reset());
    }
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: Option<String>,
}

/// Percentiles of each layer, in microseconds; ours.
fn latency(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Named = params::parse(given)?;
    let names: Vec<String> = given.name.into_iter().collect();
    let one = |entry: &&Entry| {
        let stats = entry.bdev.stats();
        let mut figures = json!({"name": entry.bdev.name(), "product_name": entry.bdev.product()});
        for kind in OpKind::ALL {
            figures[kind.name()] = percentiles(stats.of(kind));
        }
        figures
    };
    Ok(named(node, &names)?.iter().map(one).collect())
}

fn percentiles(stats: &OpStats) -> Value {
    let mut figures = summary(&stats.latency.summary());
    figures["errors"] = json!(stats.errors);
    figures
}

/// A histogram's usual percentiles, in microseconds.
pub(super) fn summary(summary: &LatencySummary) -> Value {
    let micros = |time: Duration| ticks(time) as f64 / 1000.0;
    json!({
        "count": summary.count, "mean_us": micros(summary.mean), "p50_us": micros(summary.p50),
        "p99_us": micros(summary.p99), "p999_us": micros(summary.p999), "max_us": micros(summary.max),
    })
}
