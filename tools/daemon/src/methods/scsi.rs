//! SCSI devices: each target node is one.

use gateway::NodeConfig;
use rpc::RpcError;
use serde_json::{Value, json};

use super::Method;
use crate::node::Node;
use crate::params;
use crate::params::none;

pub(super) const METHODS: &[Method] = &[Method::runtime("scsi_get_devices", none, devices)];

fn devices(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    let nodes: Vec<NodeConfig> = node.target(|target| target.nodes().collect())?;
    let one = |(id, node): (usize, NodeConfig)| json!({"id": id, "device_name": node.name});
    Ok(nodes.into_iter().enumerate().map(one).collect())
}
