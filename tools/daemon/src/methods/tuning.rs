//! What may be switched on for any device: latency histograms in SPDK's buckets, the gauge of the queue depth, rate limits.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bdev::Bdev;
use bdev::meter::{HistogramConfig, OpKind, RangeHistogram, RateLimits};
use core::time::Duration;
use engine::Clock;
use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Method;
use super::threads::TICK_RATE;
use crate::node::{Entry, Node};
use crate::params;
use crate::params::check;

pub(super) const METHODS: &[Method] = &[
    Method::runtime("bdev_enable_histogram", check::<EnableHistogram>, enable_histogram),
    Method::runtime("bdev_get_histogram", check::<Named>, histogram),
    Method::runtime("bdev_get_histogram_borders", check::<Borders>, borders),
    Method::runtime("bdev_set_qd_sampling_period", check::<Gauge>, set_gauge),
    Method::runtime("bdev_set_qos_limit", check::<Limit>, set_limits),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnableHistogram {
    name: String,
    enable: bool,
    opc: Option<String>,
    granularity: Option<u8>,
    min_nsec: Option<u64>,
    max_nsec: Option<u64>,
}

fn kind_of(name: &str) -> Result<OpKind, RpcError> {
    let found = OpKind::ALL.into_iter().find(|kind| kind.name() == name);
    found.ok_or_else(|| {
        RpcError::invalid_params(format!(
            "opc {name:?} is not counted apart: read, write (zeroes too), unmap or flush; all of them without opc"
        ))
    })
}

fn enable_histogram(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: EnableHistogram = params::parse(given)?;
    let bdev = &node.bdev(&given.name)?.bdev;
    let default = HistogramConfig::default();
    let config = HistogramConfig {
        kind: given.opc.as_deref().map(kind_of).transpose()?,
        granularity: given.granularity.map_or(default.granularity, u32::from),
        min_nanos: given.min_nsec.unwrap_or(default.min_nanos),
        max_nanos: given.max_nsec.unwrap_or(default.max_nanos),
    };
    if !config.is_valid() {
        return Err(RpcError::invalid_params("granularity must be 1 to 12, and min_nsec below max_nsec"));
    }
    bdev.set_histogram(given.enable.then_some(config));
    Ok(json!(true))
}

fn taken(node: &Node, name: &str) -> Result<RangeHistogram, RpcError> {
    let none =
        || RpcError::refused(format!("bdev {name} has no histogram: bdev_enable_histogram begins one"));
    node.bdev(name)?.bdev.histogram().ok_or_else(none)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

fn histogram(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Named = params::parse(given)?;
    let histogram = taken(node, &given.name)?;
    let bytes: Vec<u8> = histogram.counts().iter().flat_map(|count| count.to_le_bytes()).collect();
    let (min_range, max_range) = histogram.ranges();
    Ok(json!({
        "histogram": STANDARD.encode(bytes), "granularity": histogram.config().granularity,
        "min_range": min_range, "max_range": max_range, "tsc_rate": TICK_RATE,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Borders {
    name: String,
    /// In microseconds.
    borders: Vec<u64>,
}

fn borders(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Borders = params::parse(given)?;
    if !given.borders.is_sorted() {
        return Err(RpcError::invalid_params("borders must rise"));
    }
    let nanos: Vec<u64> = given.borders.iter().map(|micros| micros.saturating_mul(1000)).collect();
    Ok(json!({"borders_count": taken(node, &given.name)?.below(&nanos)}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Gauge {
    name: String,
    /// In microseconds; 0 ends it.
    period: u64,
}

/// The depth is counted at each change; the period only says that somebody wants it.
fn set_gauge(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Gauge = params::parse(given)?;
    let now = node.clock().now();
    node.bdev(&given.name)?.bdev.set_gauge(Duration::from_micros(given.period), now);
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_field_names, reason = "SPDK's parameter names")]
struct Limit {
    name: String,
    rw_ios_per_sec: Option<u64>,
    rw_mbytes_per_sec: Option<u64>,
    r_mbytes_per_sec: Option<u64>,
    w_mbytes_per_sec: Option<u64>,
}

/// Highest rate of a limit: beyond it nothing is limited.
const RATE_MAX: u64 = 1 << 40;

/// What is not named stays; 0 is no limit.
fn set_limits(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Limit = params::parse(given)?;
    let now = node.clock().now();
    let bdev = &node.bdev(&given.name)?.bdev;
    let mut limits = bdev.limits();
    let wanted = [
        ("rw_ios_per_sec", given.rw_ios_per_sec, 1, &mut limits.ios),
        ("rw_mbytes_per_sec", given.rw_mbytes_per_sec, 1 << 20, &mut limits.bytes),
        ("r_mbytes_per_sec", given.r_mbytes_per_sec, 1 << 20, &mut limits.read_bytes),
        ("w_mbytes_per_sec", given.w_mbytes_per_sec, 1 << 20, &mut limits.written_bytes),
    ];
    if wanted.iter().all(|(_, rate, ..)| rate.is_none()) {
        return Err(RpcError::invalid_params("no limit is named"));
    }
    for (name, rate, unit, limit) in wanted {
        let Some(rate) = rate else { continue };
        let rate = rate.checked_mul(unit).filter(|rate| *rate <= RATE_MAX);
        *limit =
            rate.ok_or_else(|| RpcError::invalid_params(format!("{name} is beyond a tebibyte a second")))?;
    }
    bdev.set_limits(limits, now);
    Ok(json!(true))
}

/// The limits as SPDK shows and takes them.
pub(super) fn shown(limits: RateLimits) -> Value {
    json!({
        "rw_ios_per_sec": limits.ios, "rw_mbytes_per_sec": limits.bytes >> 20,
        "r_mbytes_per_sec": limits.read_bytes >> 20, "w_mbytes_per_sec": limits.written_bytes >> 20,
    })
}

/// The calls that switch on again what is on.
pub(super) fn calls(entry: &Entry) -> Vec<(String, Value)> {
    let mut calls = Vec::new();
    let limits = entry.bdev.limits();
    if !limits.is_none() {
        let mut params = shown(limits);
        params["name"] = json!(entry.bdev.name());
        calls.push(("bdev_set_qos_limit".to_owned(), params));
    }
    if let Some(config) = entry.bdev.histogram().map(|histogram| histogram.config()) {
        let mut params = json!({
            "name": entry.bdev.name(), "enable": true, "granularity": config.granularity,
            "min_nsec": config.min_nanos, "max_nsec": config.max_nanos,
        });
        if let Some(kind) = config.kind {
            params["opc"] = json!(kind.name());
        }
        calls.push(("bdev_enable_histogram".to_owned(), params));
    }
    calls
}
