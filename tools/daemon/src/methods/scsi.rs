//! SCSI devices: each target node is one.

use gateway::NodeConfig;
use rpc::RpcError;
use serde_json::{Value, json};

use super::{Method, When};
use crate::node::Node;
use crate::params;

pub(super) const METHODS: &[Method] =
    &[Method { name: "scsi_get_devices", when: When::Runtime, run: devices }];

fn devices(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    let nodes: Vec<NodeConfig> = node.target(|target| target.nodes().collect())?;
    let one = |(id, node): (usize, NodeConfig)| json!({"id": id, "device_name": node.name});
    Ok(nodes.into_iter().enumerate().map(one).collect())
}
