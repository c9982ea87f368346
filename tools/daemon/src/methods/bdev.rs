//! Block devices: make, list, break, delete.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bdev::fault::{Fault, FaultBdev, FaultTarget};
use bdev::malloc::MallocBdev;
use bdev::null::NullBdev;
use bdev::uring::{UringBdev, UringError};
use bdev::{Bdev, Capabilities, Geometry, OpenError};
use core::time::Duration;
use engine::Access;
use gateway::url::UrlError;
use gateway::{LunUrl, Remote, RemoteConfig, Served};
use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Method, When};
use crate::node::{Entry, Node, Resident};
use crate::params;

pub(super) const METHODS: &[Method] = &[
    Method { name: "bdev_get_bdevs", when: When::Runtime, run: list },
    Method { name: "bdev_wait_for_examine", when: When::Runtime, run: wait_for_examine },
    Method { name: "bdev_malloc_create", when: When::Runtime, run: malloc_create },
    Method { name: "bdev_malloc_delete", when: When::Runtime, run: delete },
    Method { name: "bdev_null_create", when: When::Runtime, run: null_create },
    Method { name: "bdev_null_delete", when: When::Runtime, run: delete },
    Method { name: "bdev_uring_create", when: When::Runtime, run: uring_create },
    Method { name: "bdev_uring_delete", when: When::Runtime, run: delete },
    Method { name: "bdev_uring_rescan", when: When::Runtime, run: rescan },
    Method { name: "bdev_delay_create", when: When::Runtime, run: delay_create },
    Method { name: "bdev_delay_delete", when: When::Runtime, run: delete },
    Method { name: "bdev_error_create", when: When::Runtime, run: error_create },
    Method { name: "bdev_error_delete", when: When::Runtime, run: delete },
    Method { name: "bdev_error_inject_error", when: When::Runtime, run: inject },
    Method { name: "bdev_iscsi_create", when: When::Runtime, run: iscsi_create },
    Method { name: "bdev_iscsi_delete", when: When::Runtime, run: delete },
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
struct List {
    name: Option<String>,
    #[expect(dead_code, reason = "accepted for SPDK's client; devices appear at once")]
    timeout: Option<u64>,
}

fn list(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: List = params::parse(given)?;
    let users = node.users()?;
    match given.name {
        Some(name) => Ok(json!([describe(node.bdev(&name)?, &users)])),
        None => Ok(node.bdevs.values().map(|entry| describe(entry, &users)).collect()),
    }
}

fn describe(entry: &Entry, users: &BTreeMap<String, String>) -> Value {
    let bdev = &entry.bdev;
    let geometry = bdev.geometry();
    let can = |capability| bdev.capabilities().contains(capability);
    let file = entry.file.as_ref().map(|file| json!({"filename": file.path().display().to_string()}));
    json!({
        "name": bdev.name(),
        "aliases": [bdev.uuid().to_string()],
        "product_name": bdev.product(),
        "block_size": geometry.block_size,
        "num_blocks": geometry.blocks,
        "uuid": bdev.uuid().to_string(),
        "numa_id": -1,
        "assigned_rate_limits": {
            "rw_ios_per_sec": 0, "rw_mbytes_per_sec": 0, "r_mbytes_per_sec": 0, "w_mbytes_per_sec": 0,
        },
        "claimed": users.contains_key(bdev.name()),
        "zoned": false,
        "supported_io_types": {
            "read": true, "write": !can(Capabilities::READ_ONLY), "unmap": can(Capabilities::DISCARD),
            "flush": can(Capabilities::FLUSH), "reset": false, "write_zeroes": can(Capabilities::WRITE_ZEROES),
            "compare": false, "compare_and_write": can(Capabilities::COMPARE_AND_WRITE),
            "seek_hole": can(Capabilities::BLOCK_STATUS), "seek_data": can(Capabilities::BLOCK_STATUS), "abort": false, "copy": false,
        },
        "driver_specific": file.map_or_else(|| json!({}), |file| json!({"uring": file})),
    })
}

fn wait_for_examine(_: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sized {
    name: Option<String>,
    block_size: u32,
    num_blocks: u64,
    uuid: Option<String>,
    physical_block_size: Option<u32>,
    // SPDK's client sends these with their defaults; anything else is refused, not ignored.
    #[serde(default)]
    optimal_io_boundary: u32,
    #[serde(default)]
    md_size: u32,
    #[serde(default)]
    md_interleave: bool,
    #[serde(default)]
    dif_type: i32,
    #[serde(default)]
    dif_is_head_of_md: bool,
    #[serde(default)]
    dif_pi_format: u32,
    numa_id: Option<i32>,
}

/// RAM disks larger than this are refused: more likely a slip than a wish.
const MALLOC_MAX: u64 = 1 << 36;

fn sized_geometry(given: &Sized) -> Result<Geometry, RpcError> {
    let numbers =
        [given.optimal_io_boundary, given.md_size, given.dif_pi_format, given.dif_type.unsigned_abs()];
    let wants_metadata =
        numbers.iter().any(|number| *number != 0) || given.md_interleave || given.dif_is_head_of_md;
    if wants_metadata || given.numa_id.is_some_and(|id| id >= 0) {
        return Err(RpcError::refused(
            "metadata, protection information, I/O boundaries and NUMA placement are not supported",
        ));
    }
    let physical = given.physical_block_size.unwrap_or(given.block_size);
    let legal = [512, 4096].contains(&given.block_size) && physical.is_multiple_of(given.block_size);
    if !legal {
        return Err(RpcError::invalid_params(
            "block_size must be 512 or 4096, physical_block_size a multiple of it",
        ));
    }
    if given.num_blocks == 0 || given.num_blocks.checked_mul(u64::from(given.block_size)).is_none() {
        return Err(RpcError::invalid_params("num_blocks must be at least 1 and the size below 2^64 bytes"));
    }
    Ok(Geometry { block_size: given.block_size, physical_block_size: physical, blocks: given.num_blocks })
}

fn malloc_create(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: Sized = params::parse(given)?;
    let geometry = sized_geometry(&parsed)?;
    if geometry.bytes() > MALLOC_MAX {
        return Err(RpcError::invalid_params("a malloc bdev may have 64 GiB at the most"));
    }
    let uuid = uuid_of(parsed.uuid.as_deref())?;
    let name = parsed.name.unwrap_or_else(|| format!("Malloc{}", node.bdevs.len()));
    let bdev = MallocBdev::new(name.as_str(), uuid, geometry);
    let mut made = replay("bdev_malloc_create", given, &*bdev);
    made.1["name"] = json!(name);
    node.add_bdev(&name, Entry::new(bdev, Some(made)))
}

fn null_create(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: Sized = params::parse(given)?;
    let geometry = sized_geometry(&parsed)?;
    let uuid = uuid_of(parsed.uuid.as_deref())?;
    let name = parsed.name.ok_or_else(|| RpcError::invalid_params("name is missing"))?;
    let bdev = NullBdev::new(name.as_str(), uuid, geometry);
    let made = replay("bdev_null_create", given, &*bdev);
    node.add_bdev(&name, Entry::new(bdev, Some(made)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FromFile {
    name: String,
    filename: PathBuf,
    block_size: Option<u32>,
    uuid: Option<String>,
}

fn file_error(error: &UringError) -> RpcError {
    match error {
        UringError::Open { source, .. } => match source.raw_os_error() {
            Some(errno) => RpcError { code: -i64::from(errno), message: error.to_string() },
            None => RpcError::refused(error.to_string()),
        },
        _ => RpcError::refused(error.to_string()),
    }
}

fn uring_create(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: FromFile = params::parse(given)?;
    node.check_new(&parsed.name)?;
    let uuid = uuid_of(parsed.uuid.as_deref())?;
    let block_size = parsed.block_size.unwrap_or(512);
    let bdev =
        UringBdev::open_file(parsed.name.as_str(), uuid, &parsed.filename, block_size, Access::ReadWrite)
            .map_err(|error| file_error(&error))?;
    let made = replay("bdev_uring_create", given, &*bdev);
    let entry = Entry { file: Some(bdev.clone()), ..Entry::new(bdev, Some(made)) };
    node.add_bdev(&parsed.name, entry)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

fn rescan(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Named = params::parse(given)?;
    let entry = node.bdev(&given.name)?;
    let file =
        entry.file.as_ref().ok_or_else(|| RpcError::refused(format!("bdev {} has no file", given.name)))?;
    file.rescan().map_err(|error| file_error(&error))?;
    Ok(json!(true))
}

fn delete(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Named = params::parse(given)?;
    node.remove_bdev(&given.name)?;
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_field_names, reason = "SPDK's parameter names")]
struct Delay {
    name: String,
    base_bdev_name: String,
    avg_read_latency: u64,
    p99_read_latency: u64,
    avg_write_latency: u64,
    p99_write_latency: u64,
    uuid: Option<String>,
}

fn stack(
    node: &mut Node,
    name: &str,
    base: &str,
    product: &'static str,
    uuid: Uuid,
) -> Result<Arc<FaultBdev>, RpcError> {
    let below = node.bdev(base)?.bdev.clone();
    node.check_free(base)?;
    Ok(FaultBdev::new(name, product, uuid, below))
}

fn delay_create(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: Delay = params::parse(given)?;
    if parsed.avg_read_latency > parsed.p99_read_latency
        || parsed.avg_write_latency > parsed.p99_write_latency
    {
        return Err(RpcError::invalid_params("a p99 latency must not be below the average"));
    }
    let uuid = uuid_of(parsed.uuid.as_deref())?;
    let bdev = stack(node, &parsed.name, &parsed.base_bdev_name, "delay", uuid)?;
    // Every I/O takes the average; the tail is not modelled.
    bdev.plan().set_latency(FaultTarget::Read, Duration::from_micros(parsed.avg_read_latency));
    bdev.plan().set_latency(FaultTarget::Write, Duration::from_micros(parsed.avg_write_latency));
    let made = replay("bdev_delay_create", given, &*bdev);
    let faults = Some(bdev.plan().clone());
    let entry = Entry { faults, bases: vec![parsed.base_bdev_name], ..Entry::new(bdev, Some(made)) };
    node.add_bdev(&parsed.name, entry)
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
    let uuid = uuid_of(parsed.uuid.as_deref())?;
    let bdev = stack(node, &name, &parsed.base_name, "error", uuid)?;
    let made = replay("bdev_error_create", given, &*bdev);
    let faults = Some(bdev.plan().clone());
    let entry = Entry { faults, bases: vec![parsed.base_name], ..Entry::new(bdev, Some(made)) };
    node.add_bdev(&name, entry)?;
    Ok(json!(true))
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
        ErrorType::Lost => Fault::Lost,
        ErrorType::Torn => Fault::Torn,
    };
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IscsiCreate {
    name: String,
    initiator_iqn: String,
    url: String,
    uuid: Option<String>,
    /// The far end counts as dead after so many milliseconds without a sign of life; ours.
    silence_ms: Option<u64>,
}

fn iscsi_create(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: IscsiCreate = params::parse(given)?;
    let url: LunUrl =
        parsed.url.parse().map_err(|error: UrlError| RpcError::invalid_params(error.to_string()))?;
    let uuid = uuid_of(parsed.uuid.as_deref())?;
    let mut config =
        RemoteConfig { lun: url.lun, ..RemoteConfig::new(parsed.initiator_iqn, url.target, url.portal) };
    if let Some(millis) = parsed.silence_ms {
        config.silence_max = params::millis("silence_ms", millis)?;
        config.keep_alive = config.silence_max / 4;
    }
    node.check_new(&parsed.name)?;
    let remote = Remote::new(parsed.name.as_str(), uuid, config);
    let made = replay("bdev_iscsi_create", given, &*remote);
    let (reactor, key) = (node.place(), parsed.name.clone());
    let opened = node.on(reactor, move |residents, _| {
        let (bdev, import) = Served::new(remote, &residents.core)?;
        residents.imports.insert(key, import);
        Ok::<_, OpenError>(bdev)
    })?;
    let bdev = opened.map_err(|error| RpcError::internal(error.to_string()))?;
    let entry = Entry { resident: Resident::Import(reactor), ..Entry::new(bdev, Some(made)) };
    node.add_bdev(&parsed.name, entry)
}
