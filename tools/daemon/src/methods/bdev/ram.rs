//! Devices without a medium: RAM disks and null devices.

use bdev::malloc::MallocBdev;
use bdev::null::NullBdev;
use bdev::{Bdev, Geometry};
use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Method, Named, delete, replay, uuid_of};
use crate::node::{Entry, Node};
use crate::params;
use crate::params::check;

pub(super) const METHODS: &[Method] = &[
    Method::runtime("bdev_malloc_create", check::<Sized>, malloc_create),
    Method::runtime("bdev_malloc_delete", check::<Named>, malloc_delete),
    Method::runtime("bdev_null_create", check::<Sized>, null_create),
    Method::runtime("bdev_null_delete", check::<Named>, null_delete),
    Method::runtime("bdev_null_resize", check::<Resize>, null_resize),
];

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
    let entry = Entry { null: Some(bdev.clone()), ..Entry::new(bdev, Some(made)) };
    node.add_bdev(&name, entry)
}

fn malloc_delete(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    delete(node, given, "bdev_malloc_create")
}

fn null_delete(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    delete(node, given, "bdev_null_create")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resize {
    name: String,
    /// In MiB.
    new_size: u64,
}

fn null_resize(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Resize = params::parse(given)?;
    let bdev = node.bdev(&given.name)?.null.clone();
    let bdev = bdev.ok_or_else(|| RpcError::refused(format!("bdev {} is no null bdev", given.name)))?;
    let Geometry { block_size, blocks, .. } = bdev.geometry();
    let wanted = given.new_size.checked_mul((1 << 20) / u64::from(block_size)).filter(|blocks| *blocks > 0);
    let wanted =
        wanted.ok_or_else(|| RpcError::invalid_params("new_size is in MiB: from 1 to below 2^44"))?;
    if wanted < blocks {
        // Whoever uses it would find blocks gone.
        node.check_free(&given.name)?;
    }
    bdev.resize(wanted);
    if let Some((_, params)) = node.bdevs.get_mut(&given.name).and_then(|entry| entry.created_by.as_mut()) {
        params["num_blocks"] = json!(wanted);
    }
    Ok(json!(true))
}
