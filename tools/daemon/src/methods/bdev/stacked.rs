//! Devices over another one: slower, faulty, or the same again.

use std::sync::Arc;

use bdev::fault::{Delay, Fault, FaultBdev, FaultPlan, FaultTarget};
use core::time::Duration;
use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Method, Named, delete, replay, uuid_of};
use crate::node::{Entry, Node};
use crate::params;
use crate::params::check;

pub(super) const METHODS: &[Method] = &[
    Method::runtime("bdev_delay_create", check::<DelayCreate>, delay_create),
    Method::runtime("bdev_delay_update_latency", check::<UpdateLatency>, update_latency),
    Method::runtime("bdev_delay_delete", check::<Named>, delay_delete),
    Method::runtime("bdev_error_create", check::<ErrorCreate>, error_create),
    Method::runtime("bdev_error_delete", check::<Named>, error_delete),
    Method::runtime("bdev_error_inject_error", check::<Inject>, inject),
    Method::runtime("bdev_passthru_create", check::<Passthru>, passthru_create),
    Method::runtime("bdev_passthru_delete", check::<Named>, passthru_delete),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_field_names, reason = "SPDK's parameter names")]
struct DelayCreate {
    name: String,
    base_bdev_name: String,
    avg_read_latency: u64,
    p99_read_latency: u64,
    avg_write_latency: u64,
    p99_write_latency: u64,
    uuid: Option<String>,
}

/// Stacks a device over another one; `faults` says whether it may misbehave on command.
fn stack(
    node: &mut Node,
    (name, base): (&str, &str),
    product: &'static str,
    uuid: Option<&str>,
    (method, given): (&str, Option<&Value>),
) -> Result<Arc<FaultBdev>, RpcError> {
    node.check_new(name)?;
    let below = node.bdev(base)?.bdev.clone();
    node.check_free(base)?;
    let bdev = FaultBdev::new(name, product, uuid_of(uuid)?, below);
    let made = replay(method, given, &*bdev);
    let bases = vec![base.to_owned()];
    node.add_bdev(name, Entry { bases, ..Entry::new(bdev.clone(), Some(made)) })?;
    Ok(bdev)
}

/// Lets a device's faults be armed on command.
fn expose(node: &mut Node, name: &str, plan: &FaultPlan) {
    if let Some(entry) = node.bdevs.get_mut(name) {
        entry.faults = Some(plan.clone());
    }
}

/// A delay of SPDK's parameters: the average, and what one in a hundred takes.
fn delay(average: u64, p99: u64) -> Result<Delay, RpcError> {
    if average > p99 {
        return Err(RpcError::invalid_params("a p99 latency must not be below the average"));
    }
    if p99 > LATENCY_MAX {
        return Err(RpcError::invalid_params("a latency is in microseconds: 60 seconds at the most"));
    }
    Ok(Delay { usual: Duration::from_micros(average), tail: Duration::from_micros(p99) })
}

/// Longest latency of a delay device in microseconds.
const LATENCY_MAX: u64 = 60_000_000;

fn delay_create(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: DelayCreate = params::parse(given)?;
    let read = delay(parsed.avg_read_latency, parsed.p99_read_latency)?;
    let write = delay(parsed.avg_write_latency, parsed.p99_write_latency)?;
    let names = (parsed.name.as_str(), parsed.base_bdev_name.as_str());
    let bdev = stack(node, names, "delay", parsed.uuid.as_deref(), ("bdev_delay_create", given))?;
    bdev.plan().set_delay(FaultTarget::Read, read);
    bdev.plan().set_delay(FaultTarget::Write, write);
    expose(node, &parsed.name, bdev.plan());
    Ok(json!(parsed.name))
}

fn delay_delete(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    delete(node, given, "bdev_delay_create")
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LatencyType {
    AvgRead,
    P99Read,
    AvgWrite,
    P99Write,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateLatency {
    delay_bdev_name: String,
    latency_type: LatencyType,
    latency_us: u64,
}

fn update_latency(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: UpdateLatency = params::parse(given)?;
    let name = &given.delay_bdev_name;
    node.bdev(name)?;
    let entry = node.bdevs.get_mut(name);
    let made = entry.and_then(|entry| Some((entry.faults.clone()?, entry.created_by.as_mut()?)));
    let (plan, params) = match made {
        Some((plan, (method, params))) if method == "bdev_delay_create" => (plan, params),
        _ => return Err(RpcError::refused(format!("bdev {name} is no delay bdev"))),
    };
    let key = match given.latency_type {
        LatencyType::AvgRead => "avg_read_latency",
        LatencyType::P99Read => "p99_read_latency",
        LatencyType::AvgWrite => "avg_write_latency",
        LatencyType::P99Write => "p99_write_latency",
    };
    let latency = |of: &str| if of == key { given.latency_us } else { params[of].as_u64().unwrap_or(0) };
    let read = delay(latency("avg_read_latency"), latency("p99_read_latency"))?;
    let write = delay(latency("avg_write_latency"), latency("p99_write_latency"))?;
    plan.set_delay(FaultTarget::Read, read);
    plan.set_delay(FaultTarget::Write, write);
    params[key] = json!(given.latency_us);
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Passthru {
    name: String,
    base_bdev_name: String,
    uuid: Option<String>,
}

/// The base under another name and uuid.
fn passthru_create(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: Passthru = params::parse(given)?;
    let names = (parsed.name.as_str(), parsed.base_bdev_name.as_str());
    stack(node, names, "passthru", parsed.uuid.as_deref(), ("bdev_passthru_create", given))?;
    Ok(json!(parsed.name))
}

fn passthru_delete(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    delete(node, given, "bdev_passthru_create")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorCreate {
    base_name: String,
    uuid: Option<String>,
}

fn error_create(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: ErrorCreate = params::parse(given)?;
    let name = format!("EE_{}", parsed.base_name);
    let names = (name.as_str(), parsed.base_name.as_str());
    let bdev = stack(node, names, "error", parsed.uuid.as_deref(), ("bdev_error_create", given))?;
    expose(node, &name, bdev.plan());
    Ok(json!(true))
}

fn error_delete(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    delete(node, given, "bdev_error_create")
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum IoType {
    Clear,
    Read,
    Write,
    Unmap,
    Flush,
    All,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ErrorType {
    Failure,
    Pending,
    /// One byte of the data is another.
    CorruptData,
    /// Refused as busy, and tried again by whoever sent it.
    Nomem,
    /// What people ask for, and what cannot be had.
    NvmeFailure,
    /// Ours: a write that is answered and not done.
    Lost,
    /// Ours: a write of which half is done.
    Torn,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Inject {
    name: String,
    io_type: IoType,
    error_type: ErrorType,
    num: Option<u32>,
    #[serde(default)]
    queue_depth: u64,
    #[serde(default)]
    corrupt_offset: u32,
    #[serde(default)]
    corrupt_value: u8,
    #[serde(default)]
    nvme_sct: u32,
    #[serde(default)]
    nvme_sc: u32,
}

fn inject(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Inject = params::parse(given)?;
    let entry = node.bdev(&given.name)?;
    let no_faults = || {
        RpcError::refused(format!("bdev {} cannot misbehave: stack one with bdev_error_create", given.name))
    };
    let plan = entry.faults.as_ref().ok_or_else(no_faults)?;
    let fault = match given.error_type {
        ErrorType::Failure => Fault::Error,
        ErrorType::Pending => Fault::Silence,
        ErrorType::Nomem => Fault::Busy,
        ErrorType::CorruptData if given.corrupt_value == 0 => {
            return Err(RpcError::invalid_params("corrupt_value must not be 0"));
        }
        ErrorType::CorruptData => Fault::Corrupt { offset: given.corrupt_offset, value: given.corrupt_value },
        ErrorType::NvmeFailure => {
            return Err(RpcError::refused("this node has no NVMe devices: use failure"));
        }
        ErrorType::Lost => Fault::Lost,
        ErrorType::Torn => Fault::Torn,
    };
    if given.queue_depth != 0 || given.nvme_sct != 0 || given.nvme_sc != 0 {
        return Err(RpcError::refused("queue_depth, nvme_sct and nvme_sc are not supported: leave them out"));
    }
    let targets: &[FaultTarget] = match given.io_type {
        IoType::Clear | IoType::All => &FaultTarget::ALL,
        IoType::Read => &[FaultTarget::Read],
        IoType::Write => &[FaultTarget::Write],
        IoType::Unmap => &[FaultTarget::Discard],
        IoType::Flush => &[FaultTarget::Flush],
    };
    for target in targets {
        match given.io_type {
            IoType::Clear => plan.clear(*target),
            _ => plan.arm(*target, fault, given.num.unwrap_or(1)),
        }
    }
    Ok(json!(true))
}
