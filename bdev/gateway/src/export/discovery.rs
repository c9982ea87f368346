//! SendTargets: what an initiator may know of.

use std::collections::BTreeSet;
use std::rc::Rc;

use core::net::{IpAddr, SocketAddr};
use iscsi::target::{LoginRequest, SendTargets};

use super::Target;
use super::node::{Node, Portal, PortalGroup, Visibility};
use super::session::Session;

impl Target {
    pub(super) fn on_send_targets(&mut self, id: u64, request: iscsi::TaskId, which: &SendTargets) {
        let Some(entry) = self.sessions.get(&id) else { return };
        let session = &entry.session;
        let Some(who) = session.who.clone() else { return };
        let mut text = Vec::new();
        for (name, node) in &self.nodes {
            let asked = match which {
                SendTargets::All => true,
                SendTargets::Named(wanted) => wanted.eq_ignore_ascii_case(name),
                SendTargets::Session => session.node.as_ref().is_some_and(|of| Rc::ptr_eq(of, node)),
            };
            if asked {
                self.describe_node(node, session, &who, &mut text);
            }
        }
        if let Some(entry) = self.sessions.get_mut(&id) {
            entry.session.links.respond_text(request, text);
        }
    }

    /// The target's portals through which the initiator may use it; nothing when there is none.
    fn describe_node(&self, node: &Node, session: &Session, who: &LoginRequest, text: &mut Vec<u8>) {
        let config = node.config.borrow();
        let tags: BTreeSet<i32> = config.maps.iter().map(|map| map.portal_group).collect();
        let shown = |tag: &i32| {
            let group = self.portal_groups.get(tag)?;
            let known = group.visibility == Visibility::Public || *tag == session.portal_group;
            (known && self.access_through(node, *tag, session, who).is_some()).then_some(group)
        };
        let groups: Vec<&PortalGroup> = tags.iter().filter_map(shown).collect();
        if groups.is_empty() {
            return;
        }
        iscsi::text::emit(text, "TargetName", &config.name);
        let own = session.stream().local_addr().map(|address| address.ip());
        for (portal, tag) in
            groups.iter().flat_map(|group| group.portals.iter().map(|portal| (portal, group.tag)))
        {
            //= rfc7143#section-13.8(a): each address with its portal group.
            if let Some(address) = reachable(portal, own) {
                iscsi::text::emit(text, "TargetAddress", &format!("{address},{}", node.relative_port(tag)));
            }
        }
    }
}

/// What an initiator is told of a portal: what is advertised, or the address; a wildcard is the address that the initiator used,
/// which it can reach. Link-local addresses mean nothing to others.
fn reachable(portal: &Portal, own: Option<IpAddr>) -> Option<SocketAddr> {
    if let Some(advertised) = portal.advertised {
        return Some(advertised);
    }
    let address = portal.address;
    let ip = if address.ip().is_unspecified() { own? } else { address.ip() };
    let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    (!link_local).then(|| SocketAddr::new(ip, address.port()))
}
