//! The log of events: in SPDK's form, and in full.

use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Method;
use crate::events::{Entry, severity_word, types};
use crate::node::Node;
use crate::params;
use crate::params::{check, none};

pub(super) const METHODS: &[Method] = &[
    Method::always("notify_get_types", none, notify_types),
    Method::runtime("notify_get_notifications", check::<From>, notifications),
    Method::runtime("mirror_get_events", check::<Which>, mirror_events),
];

fn notify_types(_: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    Ok(types().collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    /// First id to give.
    #[serde(default)]
    id: u64,
    /// Most entries to give.
    max: Option<u64>,
}

fn at_most(max: Option<u64>) -> usize {
    max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX))
}

fn notifications(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: From = params::parse(given)?;
    let entries = node.events().since(given.id).take(at_most(given.max));
    Ok(entries.map(|entry| json!({"type": entry.code, "ctx": entry.subject, "id": entry.id})).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    /// One mirror; all when absent.
    name: Option<String>,
    /// First id to give.
    #[serde(default)]
    id: u64,
    /// Most entries to give.
    max: Option<u64>,
}

fn mirror_events(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Which = params::parse(given)?;
    if let Some(name) = &given.name {
        node.bdev(name)?;
    }
    let wanted = |entry: &&Entry| given.name.as_ref().is_none_or(|name| *name == entry.subject);
    let entries = node.events().of_mirrors(given.id).filter(wanted).take(at_most(given.max));
    Ok(entries.map(describe).collect())
}

fn describe(entry: &Entry) -> Value {
    json!({
        "id": entry.id,
        "time": humantime::format_rfc3339_millis(entry.time).to_string(),
        "mirror": entry.subject,
        "event": entry.code,
        "reason": entry.reason,
        "severity": severity_word(entry.severity),
        "text": entry.text,
        "data": entry.data,
    })
}
