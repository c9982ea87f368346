//! What the administrator makes and removes: portal groups, initiator groups, authentication groups, target nodes, LUNs.

use std::rc::Rc;

use super::node::{ExportError, Map, Node, NodeConfig, PortalGroup, Redirect};
use super::revision::AccessNews;
use super::{OpenPortal, Target};
use crate::access::{InitiatorGroup, NetMask};

/// What an initiator gets to log out when the administrator wants it to.
const LOGOUT_SECONDS: u16 = 5;

impl Target {
    /// Listens on a group of portals. All of them or none.
    ///
    /// # Errors
    /// The tag is taken, or an address cannot be listened on.
    pub fn add_portal_group(&mut self, group: &PortalGroup) -> Result<PortalGroup, ExportError> {
        self.add_waiting_portal_group(group)?;
        let started = self.start_portal_group(group.tag);
        if started.is_err() {
            self.portal_groups.remove(&group.tag);
        }
        started
    }

    /// Knows a group of portals, without listening yet.
    ///
    /// # Errors
    /// The tag is taken.
    pub fn add_waiting_portal_group(&mut self, group: &PortalGroup) -> Result<(), ExportError> {
        self.check_policy(group.auth.unwrap_or_default())?;
        if self.portal_groups.contains_key(&group.tag) {
            return Err(ExportError::PortalGroupExists(group.tag));
        }
        self.portal_groups.insert(group.tag, group.clone());
        Ok(())
    }

    /// Listens on a group that waits; gives it with the ports that the system chose.
    ///
    /// # Errors
    /// There is none, it listens already, or an address cannot be listened on.
    pub fn start_portal_group(&mut self, tag: i32) -> Result<PortalGroup, ExportError> {
        let group = self.portal_groups.get_mut(&tag).ok_or(ExportError::NoPortalGroup(tag))?;
        if self.portals.iter().any(|portal| portal.group == tag) {
            return Err(ExportError::Listening(tag));
        }
        let mut listening = Vec::new();
        for portal in &group.portals {
            let address = portal.address;
            let cause = |error: std::io::Error| {
                let (errno, cause) = (error.raw_os_error(), error.to_string());
                ExportError::Listen { address, errno, cause }
            };
            let listener = self.network.listen(address).map_err(cause)?;
            listening.push(OpenPortal { group: tag, listener });
        }
        for (portal, open) in group.portals.iter_mut().zip(&listening) {
            portal.address = open.listener.local_addr();
        }
        let group = group.clone();
        self.portals.append(&mut listening);
        Ok(group)
    }

    /// Stops listening on a group. Sessions through it are asked to log out.
    ///
    /// # Errors
    /// There is none, or a target uses it.
    pub fn remove_portal_group(&mut self, tag: i32) -> Result<(), ExportError> {
        if !self.portal_groups.contains_key(&tag) {
            return Err(ExportError::NoPortalGroup(tag));
        }
        self.check_unused(tag, |map| map.portal_group)?;
        let relays = |node: &&Rc<Node>| {
            node.config.borrow().peer.as_ref().is_some_and(|peer| peer.portal_group == tag)
        };
        if let Some(node) = self.nodes.values().find(relays) {
            return Err(ExportError::GroupInUse { tag, target: node.name() });
        }
        self.portal_groups.remove(&tag);
        self.portals.retain(|portal| portal.group != tag);
        for entry in self.sessions.values_mut().filter(|entry| entry.session.portal_group == tag) {
            entry.session.request_logout(LOGOUT_SECONDS, "the portal was removed");
        }
        Ok(())
    }

    /// Adds an initiator group.
    ///
    /// # Errors
    /// The tag is taken.
    pub fn add_initiator_group(&mut self, group: InitiatorGroup) -> Result<(), ExportError> {
        if self.initiator_groups.contains_key(&group.tag) {
            return Err(ExportError::InitiatorGroupExists(group.tag));
        }
        self.initiator_groups.insert(group.tag, group);
        Ok(())
    }

    /// Removes an initiator group.
    ///
    /// # Errors
    /// There is none, or a target uses it.
    pub fn remove_initiator_group(&mut self, tag: i32) -> Result<(), ExportError> {
        if !self.initiator_groups.contains_key(&tag) {
            return Err(ExportError::NoInitiatorGroup(tag));
        }
        self.check_unused(tag, |map| map.initiator_group)?;
        self.initiator_groups.remove(&tag);
        Ok(())
    }

    /// Adds entries to an initiator group. What they change holds for the sessions that run as well ([`Target::remove_initiators`]).
    /// New names come before those that are there, so that an
    /// entry that keeps out is not hidden by one that lets everybody in; networks likewise.
    ///
    /// # Errors
    /// There is no such group.
    pub fn add_initiators(
        &mut self,
        tag: i32,
        names: Vec<String>,
        masks: Vec<NetMask>,
    ) -> Result<(), ExportError> {
        let group = self.initiator_groups.get_mut(&tag).ok_or(ExportError::NoInitiatorGroup(tag))?;
        group.initiators.splice(0..0, names);
        group.netmasks.splice(0..0, masks);
        self.access = AccessNews::Changed;
        Ok(())
    }

    /// Removes entries from an initiator group: all of them or none. With the next turn, sessions that are not allowed any more end,
    /// and of those that see other LUNs than before the commands at LUNs that are gone.
    ///
    /// # Errors
    /// There is no such group, or it does not have an entry.
    pub fn remove_initiators(
        &mut self,
        tag: i32,
        names: &[String],
        masks: &[NetMask],
    ) -> Result<(), ExportError> {
        let group = self.initiator_groups.get_mut(&tag).ok_or(ExportError::NoInitiatorGroup(tag))?;
        let missing = names.iter().find(|name| !group.initiators.contains(name)).cloned();
        let missing = missing.or_else(|| {
            let mask = masks.iter().find(|mask| !group.netmasks.contains(mask))?;
            Some(format!("{mask:?}"))
        });
        if let Some(entry) = missing {
            return Err(ExportError::NoEntry { tag, entry });
        }
        group.initiators.retain(|name| !names.contains(name));
        group.netmasks.retain(|mask| !masks.contains(mask));
        self.access = AccessNews::Changed;
        Ok(())
    }

    fn check_map(&self, map: &Map) -> Result<(), ExportError> {
        if !self.portal_groups.contains_key(&map.portal_group) {
            return Err(ExportError::NoPortalGroup(map.portal_group));
        }
        if !self.initiator_groups.contains_key(&map.initiator_group) {
            return Err(ExportError::NoInitiatorGroup(map.initiator_group));
        }
        Ok(())
    }

    /// Lets a group of initiators use a target through a portal group; sessions of theirs see its LUNs.
    ///
    /// # Errors
    /// There is no such target or group, or they are mapped already.
    pub fn add_map(&mut self, name: &str, map: Map) -> Result<(), ExportError> {
        self.check_map(&map)?;
        let node = self.named(name)?;
        let maps = &mut node.config.borrow_mut().maps;
        let Map { portal_group, initiator_group, .. } = map;
        let same = |old: &Map| old.portal_group == portal_group && old.initiator_group == initiator_group;
        if maps.iter().any(same) {
            let target = name.to_owned();
            return Err(ExportError::MapExists { target, portal_group, initiator_group });
        }
        maps.push(map);
        self.access = AccessNews::Changed;
        Ok(())
    }

    /// Takes a map back: see [`Target::remove_initiators`].
    ///
    /// # Errors
    /// There is no such target or map.
    pub fn remove_map(
        &mut self,
        name: &str,
        portal_group: i32,
        initiator_group: i32,
    ) -> Result<(), ExportError> {
        let is_it = |map: &Map| map.portal_group == portal_group && map.initiator_group == initiator_group;
        let removed = self.named(name)?.config.borrow_mut().maps.extract_if(.., |map| is_it(map)).count();
        if removed == 0 {
            let target = name.to_owned();
            return Err(ExportError::NoMap { target, portal_group, initiator_group });
        }
        self.access = AccessNews::Changed;
        Ok(())
    }

    /// Sends logins at a portal group to another address, or, with `None`, does not any more. Sessions go on: see
    /// [`Target::request_logouts`].
    ///
    /// # Errors
    /// There is no such target, or it is not shown there.
    pub fn set_redirect(
        &mut self,
        name: &str,
        tag: i32,
        redirect: Option<Redirect>,
    ) -> Result<(), ExportError> {
        let node = self.named(name)?;
        let mut config = node.config.borrow_mut();
        if !config.maps.iter().any(|map| map.portal_group == tag) {
            return Err(ExportError::NotAt { target: name.to_owned(), tag });
        }
        match redirect {
            Some(redirect) => config.redirects.insert(tag, redirect),
            None => config.redirects.remove(&tag),
        };
        Ok(())
    }

    /// Asks the initiators of a target, through one portal group or any, to log out; those that do not are sent away.
    ///
    /// # Errors
    /// There is no such target.
    pub fn request_logouts(&mut self, name: &str, tag: Option<i32>) -> Result<(), ExportError> {
        let node = self.named(name)?;
        for entry in self.sessions.values_mut() {
            let session = &mut entry.session;
            let at = session.node.as_ref().is_some_and(|of| Rc::ptr_eq(of, &node));
            if at && tag.is_none_or(|tag| session.portal_group == tag) {
                session.request_logout(LOGOUT_SECONDS, "the initiator was asked to log out");
            }
        }
        Ok(())
    }

    /// A target by its name, whose case does not matter.
    pub(super) fn named(&self, name: &str) -> Result<Rc<Node>, ExportError> {
        let found = self.nodes.get(&name.to_ascii_lowercase()).cloned();
        found.ok_or_else(|| ExportError::NoTarget(name.to_owned()))
    }

    fn check_unused(&self, tag: i32, of: impl Fn(&Map) -> i32) -> Result<(), ExportError> {
        let user =
            self.nodes.values().find(|node| node.config.borrow().maps.iter().any(|map| of(map) == tag));
        match user {
            Some(node) => Err(ExportError::GroupInUse { tag, target: node.name() }),
            None => Ok(()),
        }
    }

    /// Adds a target node.
    ///
    /// # Errors
    /// Its name is taken or none, a group does not exist, LUN 0 is missing, or its queue depth is out of range.
    pub fn add_node(&mut self, config: NodeConfig) -> Result<(), ExportError> {
        if let Err(why) = iscsi::name::check(&config.name) {
            return Err(ExportError::BadName(config.name, why));
        }
        if self.named(&config.name).is_ok() {
            return Err(ExportError::TargetExists(config.name));
        }
        if !config.luns.contains_key(&0) {
            return Err(ExportError::NoLunZero(config.name));
        }
        if !(1..=256).contains(&config.queue_depth) {
            return Err(ExportError::QueueDepth(config.queue_depth));
        }
        config.maps.iter().try_for_each(|map| self.check_map(map))?;
        let replication = config.peer.as_ref().map(|peer| peer.portal_group);
        if let Some(tag) = replication.filter(|tag| !self.portal_groups.contains_key(tag)) {
            return Err(ExportError::NoPortalGroup(tag));
        }
        self.check_policy(config.auth)?;
        self.nodes.insert(config.name.to_ascii_lowercase(), Rc::new(Node::new(config, &mut self.units)));
        Ok(())
    }

    /// Removes a target node; its sessions end.
    ///
    /// # Errors
    /// There is none.
    pub fn remove_node(&mut self, name: &str) -> Result<(), ExportError> {
        let node = self.nodes.remove(&name.to_ascii_lowercase());
        let node = node.ok_or_else(|| ExportError::NoTarget(name.to_owned()))?;
        self.dismiss_sessions(&node, 0, "the target was removed");
        Ok(())
    }

    /// Gives up what is kept beside a LUN's data, and cannot be read: reservations, mode parameters, identifying information.
    /// From then on the LUN serves whoever may use it. Gives the device's name.
    ///
    /// # Errors
    /// There is no such node or LUN, or there is nothing to give up.
    pub fn give_up_unit_state(&mut self, name: &str, number: u16) -> Result<String, ExportError> {
        let lun = self.named(name)?.lun(number);
        let target = || name.to_owned();
        let lun = lun.ok_or_else(|| ExportError::NoLun { target: target(), number })?;
        if lun.unit.give_up_record() {
            return Ok(lun.config.bdev.name().to_owned());
        }
        Err(ExportError::UnitStateReadable { target: target(), number })
    }
}
