//! Target port groups of a LUN (SPC-4 section 5.15): one for each node that has a way to it.

use bdev::{Access, AccessState};
use scsi::alua::{PortGroup, PortState};

use super::node::{Lun, Node, port_group};
use super::session::StandbyMode;

fn port_state(state: AccessState, mode: StandbyMode) -> PortState {
    match (state, mode) {
        (AccessState::Optimized, _) => PortState::Optimized,
        (AccessState::NonOptimized, StandbyMode::Forward) => PortState::NonOptimized,
        (AccessState::NonOptimized, StandbyMode::Refuse) => PortState::Standby,
        (AccessState::Transitioning, _) => PortState::Transitioning,
        (AccessState::Unavailable, _) => PortState::Unavailable,
    }
}

/// The target port groups of a LUN: this node's, and the other one's where there is one. The nodes of a pair are configured
/// alike, so the other one's ports have the same tags.
pub(super) fn groups(node: &Node, lun: &Lun) -> Vec<PortGroup> {
    let access = lun.config.bdev.access();
    let mode = node.standby_mode();
    let group = |side, state| PortGroup {
        id: port_group(side),
        state: port_state(state, mode),
        ports: node.ports_of(side).into_iter().collect(),
    };
    let mut groups = vec![group(access.side(), access.state())];
    if let Access::Shared(shared) = access {
        groups.push(group(shared.node.other(), shared.peer));
    }
    groups.sort_by_key(|group| group.id);
    groups
}
