//! Files and block devices. Linux AIO and io_uring are one device here: io_uring's.

use std::path::{Path, PathBuf};

use bdev::uring::{FileOptions, Holes, UringBdev, UringError};
use engine::Access;
use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Method, Named, delete, replay, uuid_of};
use crate::node::{Entry, Node};
use crate::params;
use crate::params::check;

pub(super) const METHODS: &[Method] = &[
    Method::runtime("bdev_uring_create", check::<FromFile>, uring_create),
    Method::runtime("bdev_uring_delete", check::<Named>, uring_delete),
    Method::runtime("bdev_uring_rescan", check::<Named>, rescan),
    Method::runtime("bdev_aio_create", check::<Aio>, aio_create),
    Method::runtime("bdev_aio_delete", check::<Named>, aio_delete),
    Method::runtime("bdev_aio_rescan", check::<Named>, rescan),
];

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

/// Opens a file; `made` is the call that makes it again.
fn open(
    node: &mut Node,
    (name, filename): (&str, &Path),
    uuid: Option<&str>,
    options: FileOptions,
    (method, given): (&str, Option<&Value>),
) -> Result<Value, RpcError> {
    node.check_new(name)?;
    let bdev = UringBdev::open_file(name, uuid_of(uuid)?, filename, options);
    let bdev = bdev.map_err(|error| file_error(&error))?;
    let made = replay(method, given, &*bdev);
    node.add_bdev(name, Entry { file: Some(bdev.clone()), ..Entry::new(bdev, Some(made)) })
}

/// The block size asked for; zero and absence leave the choice to the node.
fn block_size(given: Option<u32>) -> u32 {
    given.filter(|size| *size != 0).unwrap_or(512)
}

/// Whether the reactors' rings can punch holes.
fn holes(node: &Node) -> Holes {
    let can = node.reactors().iter().all(|reactor| reactor.ring().fallocate);
    if can { Holes::Punched } else { Holes::None }
}

fn uring_create(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: FromFile = params::parse(given)?;
    let options = FileOptions { holes: holes(node), ..FileOptions::new(block_size(parsed.block_size)) };
    let file = (parsed.name.as_str(), parsed.filename.as_path());
    open(node, file, parsed.uuid.as_deref(), options, ("bdev_uring_create", given))
}

fn uring_delete(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    delete(node, given, "bdev_uring_create")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Aio {
    name: String,
    filename: PathBuf,
    block_size: Option<u32>,
    #[serde(default)]
    readonly: bool,
    /// Whether discarding punches holes.
    #[serde(default)]
    fallocate: bool,
    uuid: Option<String>,
    #[serde(default)]
    nowait: bool,
}

/// The same device as `bdev_uring_create` makes, as its product name says; with the choices that SPDK's has.
fn aio_create(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: Aio = params::parse(given)?;
    if parsed.nowait {
        return Err(RpcError::refused(
            "nowait is not supported: io_uring never blocks the reactor; leave it out",
        ));
    }
    let options = FileOptions {
        block_size: block_size(parsed.block_size),
        access: if parsed.readonly { Access::ReadOnly } else { Access::ReadWrite },
        holes: if parsed.fallocate { holes(node) } else { Holes::None },
    };
    let file = (parsed.name.as_str(), parsed.filename.as_path());
    open(node, file, parsed.uuid.as_deref(), options, ("bdev_aio_create", given))
}

fn aio_delete(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    delete(node, given, "bdev_aio_create")
}

fn rescan(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Named = params::parse(given)?;
    let entry = node.bdev(&given.name)?;
    let file =
        entry.file.as_ref().ok_or_else(|| RpcError::refused(format!("bdev {} has no file", given.name)))?;
    file.rescan().map_err(|error| file_error(&error))?;
    Ok(json!(true))
}
