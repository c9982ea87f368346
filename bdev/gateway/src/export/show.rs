//! What the administrator looks at.

use super::node::{LunInfo, NodeConfig, PortalGroup};
use super::session::{Link, Session};
use super::{ConnectionInfo, Target};
use crate::access::InitiatorGroup;

impl Target {
    /// Portal groups as they listen.
    pub fn portal_groups(&self) -> impl Iterator<Item = &PortalGroup> {
        self.portal_groups.values()
    }

    /// Initiator groups.
    pub fn initiator_groups(&self) -> impl Iterator<Item = &InitiatorGroup> {
        self.initiator_groups.values()
    }

    /// Target nodes as they are configured.
    pub fn nodes(&self) -> impl Iterator<Item = NodeConfig> + '_ {
        self.nodes.values().map(|node| node.config.borrow().clone())
    }

    /// Every LUN with its counters.
    pub fn luns(&self) -> Vec<LunInfo> {
        let mut list = Vec::new();
        for node in self.nodes.values() {
            let config = node.config.borrow();
            let groups = config.maps.iter().filter_map(|map| self.initiator_groups.get(&map.initiator_group));
            let initiators: Vec<String> = groups.flat_map(|group| group.initiators.clone()).collect();
            for (number, lun) in node.luns.borrow().iter() {
                list.push(LunInfo {
                    target: config.name.clone(),
                    number: *number,
                    config: lun.config.clone(),
                    queue_depth: config.queue_depth,
                    active: lun.stats.active.get(),
                    commands: lun.stats.commands.get(),
                    reads: lun.stats.reads.borrow().summary(),
                    writes: lun.stats.writes.borrow().summary(),
                    read_bytes: lun.stats.read_bytes.get(),
                    written_bytes: lun.stats.written_bytes.get(),
                    initiators: initiators.clone(),
                });
            }
        }
        list
    }

    /// Every connection.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        let info = |(session, link): (&Session, &Link)| ConnectionInfo {
            id: link.id,
            cid: link.connection.cid(),
            tsih: session.tsih,
            initiator: session.who.as_ref().map(|who| who.initiator.clone()).unwrap_or_default(),
            initiator_address: link.stream.peer_addr(),
            target_address: link.stream.local_addr(),
            target: session.node.as_ref().map(|node| node.name()).unwrap_or_default(),
            full_feature: link.connection.is_full_feature(),
            parameters: link.connection.is_full_feature().then(|| link.connection.parameters().clone()),
        };
        let sessions = self.sessions.values().map(|entry| &entry.session);
        sessions.flat_map(|session| session.links.iter().map(move |link| (session, link))).map(info).collect()
    }
}
