//! Target port groups of a LUN (SPC-4 section 5.15): one for each node that has a way to it.

use bdev::{Access, AccessState};
use scsi::alua::{Management, PortGroup, PortState, SetBy};

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

/// Who made this group the best one. A host may have chosen at the other node, which is not heard of here.
fn set_by(node: &Node, lun: &Lun, best: Option<u16>) -> SetBy {
    match node.management() {
        Management::Implicit => SetBy::Target,
        Management::ImplicitAndExplicit if best.is_some() && lun.unit.chosen.get() == best => SetBy::Host,
        Management::ImplicitAndExplicit => SetBy::Unknown,
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
        set_by: SetBy::Unknown,
        ports: node.ports_of(side).into_iter().collect(),
    };
    let mut groups = vec![group(access.side(), access.state())];
    if let Access::Shared(shared) = access {
        groups.push(group(shared.node.other(), shared.peer));
    }
    let best = groups.iter().find(|group| group.state == PortState::Optimized).map(|group| group.id);
    let set_by = set_by(node, lun, best);
    groups.iter_mut().for_each(|group| group.set_by = set_by);
    groups.sort_by_key(|group| group.id);
    groups
}
