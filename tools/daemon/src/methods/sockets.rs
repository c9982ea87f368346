//! SPDK's options of sockets and of its buffer pools. There is one kind of socket here, kernel TCP on io_uring, and one arena.

use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Method, neutral};
use crate::node::Node;
use crate::params;
use crate::params::{check, none};

pub(super) const METHODS: &[Method] = &[
    Method::startup("iobuf_set_options", check::<Buffers>, set_buffers),
    Method::always("sock_get_default_impl", none, implementation),
    Method::startup("sock_set_default_impl", check::<Named>, set_implementation),
    Method::always("sock_impl_get_options", check::<Named>, options),
    Method::startup("sock_impl_set_options", check_options, set_options),
];

const OURS: &str = "uring";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Buffers {
    small_pool_count: Option<u64>,
    large_pool_count: Option<u64>,
    small_bufsize: Option<u32>,
    large_bufsize: Option<u32>,
    enable_numa: Option<bool>,
}

/// Takes what SPDK writes when nobody wished for anything.
fn set_buffers(_: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Buffers = params::parse(given)?;
    let arena =
        "buffers come from one arena, in frames of 4 KiB, 64 KiB and 1 MiB: size it with gemeld --memory";
    neutral("small_pool_count", given.small_pool_count, 8192, arena)?;
    neutral("large_pool_count", given.large_pool_count, 1024, arena)?;
    neutral("small_bufsize", given.small_bufsize, 8192, arena)?;
    neutral("large_bufsize", given.large_bufsize, 135_168, arena)?;
    neutral("enable_numa", given.enable_numa, false, arena)?;
    Ok(json!(true))
}

fn implementation(_: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    Ok(json!({"impl_name": OURS}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    impl_name: String,
}

fn ours(name: &str) -> Result<(), RpcError> {
    match name == OURS {
        true => Ok(()),
        false => Err(RpcError::no_device(format!(
            "there is no socket implementation {name:?}: sockets are kernel TCP on io_uring, \"uring\""
        ))),
    }
}

fn set_implementation(_: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Named = params::parse(given)?;
    ours(&given.impl_name)?;
    Ok(json!(true))
}

/// What holds of every stream. Buffer sizes are the kernel's, which adapts them.
const FLAGS: [(&str, bool); 5] = [
    ("enable_recv_pipe", false),
    ("enable_quickack", false),
    ("enable_zerocopy_send_server", false),
    ("enable_zerocopy_send_client", false),
    ("enable_ktls", false),
];

fn options(_: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Named = params::parse(given)?;
    ours(&given.impl_name)?;
    Ok(current())
}

fn current() -> Value {
    let mut shown = json!({
        "recv_buf_size": 0, "send_buf_size": 0, "enable_placement_id": 0, "zerocopy_threshold": 0, "tls_version": 0,
    });
    FLAGS.iter().for_each(|(name, value)| shown[*name] = json!(value));
    shown
}

/// Takes what is so anyway.
fn set_options(_: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    check_options(given)?;
    Ok(json!(true))
}

fn check_options(given: Option<&Value>) -> Result<(), RpcError> {
    let Some(Value::Object(wanted)) = given else {
        return Err(RpcError::invalid_params("impl_name is missing"));
    };
    let name = wanted.get("impl_name").and_then(Value::as_str).unwrap_or_default();
    ours(name)?;
    let current = current();
    for (key, value) in wanted.iter().filter(|(key, _)| *key != "impl_name") {
        match current.get(key) {
            None => {
                return Err(RpcError::invalid_params(format!("Invalid parameters: unknown field `{key}`")));
            }
            Some(now) if now == value => {}
            Some(now) => {
                return Err(RpcError::refused(format!(
                    "{key} cannot be set to {value}: it is {now}; leave it out"
                )));
            }
        }
    }
    Ok(())
}
