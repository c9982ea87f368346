//! Devices that encrypt what lies on another one.
//!
//! SPDK's crypto bdev has no header: it encrypts with the key itself, from the first block on. Here the key wraps another one, so that data can be
//! erased by forgetting that one. What SPDK wrote cannot be read, and the other way round.

use bdev::crypto::{Over, Request, Wish};
use rpc::RpcError;
use serde::Deserialize;
use serde_json::Value;

use super::{Method, Named, delete, replay, uuid_of};
use crate::methods::accel;
use crate::node::{Entry, Node};
use crate::params;
use crate::params::check;

pub(super) const METHODS: &[Method] = &[
    Method::runtime(CREATE, check::<Create>, create),
    Method::runtime("bdev_crypto_delete", check::<Named>, crypto_delete),
];

/// The method that makes one.
pub(in crate::methods) const CREATE: &str = "bdev_crypto_create";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    base_bdev_name: String,
    key_name: String,
    /// Ours: writes a header to a base that was not formatted before.
    #[serde(default)]
    format: bool,
    /// Ours: with `format`, whatever the base holds.
    #[serde(default)]
    force: bool,
    /// Ours: of a new device; otherwise the one that must be there.
    uuid: Option<String>,
}

impl Create {
    fn wish(&self) -> Result<Wish, RpcError> {
        let uuid = self.uuid.as_deref();
        Ok(match (self.format, self.force) {
            (false, false) => {
                let uuid = uuid.map(|uuid| uuid_of(Some(uuid))).transpose()?;
                Wish::Open(uuid)
            }
            (false, true) => return Err(RpcError::invalid_params("force is about format: give both")),
            (true, false) => Wish::Format(uuid_of(uuid)?, Over::Blank),
            (true, true) => Wish::Format(uuid_of(uuid)?, Over::Anything),
        })
    }
}

fn create(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: Create = params::parse(given)?;
    let Create { name, base_bdev_name, key_name, .. } = &parsed;
    let wish = parsed.wish()?;
    node.check_new(name)?;
    let base = node.bdev(base_bdev_name)?.bdev.clone();
    node.check_free(base_bdev_name)?;
    let user = accel::find(node, key_name)?.key.clone();
    let bdev = node.open_crypto(Request { name: name.clone(), base, user, wish })?;
    let (method, mut made) = replay(CREATE, given, &*bdev);
    // Once: a replay opens what was formatted.
    for only_new in ["format", "force"] {
        made.as_object_mut().map(|params| params.remove(only_new));
    }
    let bases = vec![base_bdev_name.clone()];
    node.add_bdev(name, Entry { bases, ..Entry::new(bdev, Some((method, made))) })
}

fn crypto_delete(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    delete(node, given, CREATE)
}
