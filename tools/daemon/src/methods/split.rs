//! Legs that have diverged: a look at what this node's leg holds, for a comparison with the other one's, and the operator's
//! choice of one of the two data sets.

use std::sync::Arc;

use ::bdev::Bdev;
use ::mirror::command::{Command, Overwrite};
use ::mirror::format::{ArbiterKind, ConfigId};
use ::mirror::status::{RoleKind, Status};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Method;
use super::mirror::command;
use crate::node::{Node, Resident};
use crate::params;
use crate::params::check;

pub(super) const METHODS: &[Method] = &[
    Method::runtime("mirror_read_leg", check::<ReadLeg>, read_leg),
    Method::runtime("mirror_get_leg_checksums", check::<Checksums>, checksums),
    Method::runtime("mirror_resolve_split", check::<Resolve>, resolve),
];

/// Bytes of one answer of `mirror_read_leg`,
const READ_MAX: u64 = 4 << 20;
/// and bytes that one call of `mirror_get_leg_checksums` reads.
const CHECKED_MAX: u64 = 64 << 20;
/// Bytes of a SHA-256 that are shown: enough to tell blocks apart that nobody made on purpose.
const SHOWN: usize = 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadLeg {
    name: String,
    /// In bytes, from the device's start: metadata, then data.
    offset: u64,
    length: u64,
}

/// The own leg's device of a mirror.
fn own_leg(node: &Node, name: &str) -> Result<String, RpcError> {
    let entry = node.bdev(name)?;
    let leg = entry.bases.first().filter(|_| matches!(entry.resident, Resident::Mirror(_)));
    leg.cloned().ok_or_else(|| RpcError::no_device(format!("bdev {name} is no mirror")))
}

fn check_stretch(device: &dyn Bdev, offset: u64, length: u64, most: u64) -> Result<(), RpcError> {
    let bad = |why: String| Err(RpcError::invalid_params(why));
    let (block, size) = (u64::from(device.geometry().block_size), device.geometry().bytes());
    if length == 0 || length > most {
        return bad(format!("length must be 1 to {most} bytes"));
    }
    if !offset.is_multiple_of(block) || !length.is_multiple_of(block) {
        return bad(format!("offset and length must be multiples of {block}, the leg's block size"));
    }
    if offset.checked_add(length).is_none_or(|end| end > size) {
        return bad(format!("the leg has {size} bytes"));
    }
    Ok(())
}

/// Bytes of this node's leg, as they are on its device.
fn read_leg(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let ReadLeg { name, offset, length } = params::parse(given)?;
    let leg = own_leg(node, &name)?;
    let device: Arc<dyn Bdev> = node.bdev(&leg)?.bdev.clone();
    check_stretch(&*device, offset, length, READ_MAX)?;
    let bytes = node.read(&name, device.clone(), offset, length)?;
    let size = device.geometry().bytes();
    Ok(json!({"offset": offset, "length": length, "leg_size": size, "data": STANDARD.encode(bytes)}))
}

fn block_size() -> u64 {
    4096
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Checksums {
    name: String,
    /// In bytes, from the start of the data area.
    offset: u64,
    length: u64,
    /// Bytes that each checksum is of.
    #[serde(default = "block_size")]
    block_size: u64,
}

/// Checksums of what this node's leg holds, to be compared with the other one's.
fn checksums(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let Checksums { name, offset, length, block_size } = params::parse(given)?;
    if !(4096..=1 << 20).contains(&block_size) || !block_size.is_power_of_two() {
        return Err(RpcError::invalid_params("block_size must be a power of two, 4096 to 1048576"));
    }
    let status = node.mirror(&name, |driver, _| driver.status())?;
    if offset.checked_add(length).is_none_or(|end| end > status.data_size) {
        return Err(RpcError::invalid_params(format!("the volume has {} bytes", status.data_size)));
    }
    let leg = own_leg(node, &name)?;
    let device: Arc<dyn Bdev> = node.bdev(&leg)?.bdev.clone();
    check_stretch(&*device, status.data_offset + offset, length, CHECKED_MAX)?;
    let bytes = node.read(&name, device, status.data_offset + offset, length)?;
    let block = usize::try_from(block_size).expect("at most a mebibyte");
    let sums = bytes.chunks(block).map(|block| {
        let sum = Sha256::digest(block);
        sum[..SHOWN].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    });
    let sums: Vec<String> = sums.collect();
    Ok(json!({"algorithm": "sha256-128", "block_size": block_size, "offset": offset, "checksums": sums}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolve {
    name: String,
    /// The config of the other leg, as `mirror_get_status` shows it at `peer.diverged`: what is given up.
    generation: u64,
    nonce: u64,
    /// Copy everything, whatever the legs' bitmaps say.
    #[serde(default)]
    full: bool,
    /// Without it nothing happens, and the answer says what would.
    #[serde(default)]
    confirm: bool,
}

/// The data set of this node stays, that of the other one goes.
fn resolve(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Resolve = params::parse(given)?;
    let theirs = ConfigId { generation: given.generation, nonce: given.nonce };
    let how = if given.full { Overwrite::Everything } else { Overwrite::Tracked };
    if given.confirm {
        command(node, &given.name, Command::ResolveSplit { theirs, how })?;
        return Ok(json!({"resolved": true, "consequences": []}));
    }
    let status = node.mirror(&given.name, |driver, _| driver.status())?;
    Ok(json!({
        "resolved": false,
        "reason": "nothing has happened: confirm is not set",
        "consequences": consequences(&status, theirs, how),
    }))
}

/// What an operator has to know before he gives up a data set.
fn consequences(status: &Status, theirs: ConfigId, how: Overwrite) -> Vec<String> {
    let ours = status.config.map_or(0, |config| config.generation());
    let mut all = vec![
        format!("the data set of this node stays: generation {ours}"),
        format!(
            "the data set of the other node, generation {}, is overwritten and cannot be had back: whatever hosts wrote \
             through it since the two parted is lost",
            theirs.generation
        ),
        "if the other node serves, it stops at once; its hosts go on with this node's data: unmount what they have mounted \
         from it first"
            .to_owned(),
        match how {
            Overwrite::Tracked => {
                "only what the logs and bitmaps of both legs name is copied, if both reach back to where they parted; else \
                 everything"
            }
            Overwrite::Everything => "everything is copied",
        }
        .to_owned(),
    ];
    if status.arbiter == Some(ArbiterKind::Etcd) {
        all.push(
            "the arbiter is asked first: if it takes the other node for the holder, nothing is overwritten and this node stops \
             serving"
                .to_owned(),
        );
    }
    if status.role != RoleKind::Holder {
        all.push("this node does not serve: it would refuse; promote it by force first".to_owned());
    }
    all
}
