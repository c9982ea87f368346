//! Ways: which portals each import reaches its target by, over which link, and how they are.

use std::collections::BTreeMap;

use gateway::{Way, WayState};
use rpc::RpcError;
use serde_json::{Value, json};

use super::Method;
use crate::node::Node;
use crate::params::none;

pub(super) const METHODS: &[Method] = &[Method::runtime("link_get_ways", none, ways)];

fn ways(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    none(given)?;
    let all: BTreeMap<String, Vec<Way>> =
        node.each(|residents, _| residents.ways()).into_iter().flatten().collect();
    let of = |(import, ways): (&String, &Vec<Way>)| {
        ways.iter().map(|way| describe(node, import, way)).collect::<Vec<Value>>()
    };
    Ok(all.iter().flat_map(of).collect())
}

fn state(state: WayState) -> &'static str {
    match state {
        WayState::Up => "up",
        WayState::Joining => "joining",
        WayState::Down => "down",
    }
}

fn describe(node: &Node, import: &str, way: &Way) -> Value {
    let near =
        node.links.iter().find(|(_, link)| link.addresses.iter().any(|net| net.contains(way.address.ip())));
    json!({
        "import": import,
        "address": way.address.to_string(),
        // Null is kernel TCP.
        "link": near.map(|(name, _)| name),
        "state": state(way.state),
        "tasks": way.tasks,
        "round_trip_us": way.round_trip.map(|took| took.as_micros()),
    })
}
