//! Export: bdevs as LUNs of iSCSI targets.
//!
//! Owner: one reactor, which polls the [`Target`]. It listens on portals, decides logins (name, access, session
//! reinstatement) and drives sessions.

mod job;
mod logical_unit;
mod lun;
mod node;
mod reservations;
mod session;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use core::net::SocketAddr;
use engine::{Core, Instant, Progress};
use iscsi::Preferences;
use iscsi::target::{Grant, LoginRequest, LoginStatus, SendTargets, SessionType, TaskResponse};
use net::{Listener, Network};
use scsi::Sense;
use scsi::reservation::Table;

use logical_unit::LogicalUnits;
pub use lun::{LunAccess, LunConfig, LunMode, LunOptions, LunProvisioning};
use node::Node;
pub use node::{ExportError, LunInfo, NodeConfig, PortalGroup};
use reservations::Preemption;
use session::{Request, Session};

use crate::access::{InitiatorGroup, Verdict};

/// Limits of a target.
#[derive(Clone, Copy, Debug)]
pub struct TargetConfig {
    /// Connections at once, logged in or not.
    pub connections_max: usize,
    /// Time for a login, from the accept.
    pub login_timeout: core::time::Duration,
    /// What to negotiate for.
    pub preferences: Preferences,
}

impl Default for TargetConfig {
    fn default() -> Self {
        Self {
            connections_max: 128,
            login_timeout: core::time::Duration::from_secs(15),
            preferences: Preferences::default(),
        }
    }
}

struct Portal {
    group: i32,
    listener: Box<dyn Listener>,
}

struct Entry {
    session: Session,
    login_until: Option<Instant>,
    /// A login that waits until its predecessor is drained.
    waiting: Option<(Grant, Vec<u64>)>,
}

/// A reset that waits for tasks of other sessions.
struct Reset {
    by: u64,
    request: iscsi::TaskId,
    node: Rc<Node>,
    lun: Option<u16>,
}

/// A connection as `iscsi_get_connections` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Number of the connection since the start.
    pub id: u64,
    /// Connection identifier of the initiator.
    pub cid: u16,
    /// Session handle.
    pub tsih: u16,
    /// The initiator's name; empty before login.
    pub initiator: String,
    /// The initiator's address.
    pub initiator_address: Option<SocketAddr>,
    /// The portal's address.
    pub target_address: Option<SocketAddr>,
    /// The target's name; empty for discovery.
    pub target: String,
    /// True after login.
    pub full_feature: bool,
}

/// See the module.
pub struct Target {
    core: Core,
    network: Box<dyn Network>,
    config: TargetConfig,
    portals: Vec<Portal>,
    portal_groups: BTreeMap<i32, PortalGroup>,
    initiator_groups: BTreeMap<i32, InitiatorGroup>,
    nodes: BTreeMap<String, Rc<Node>>,
    sessions: BTreeMap<u64, Entry>,
    resets: Vec<Reset>,
    preemptions: Vec<Preemption>,
    units: LogicalUnits,
    next_id: u64,
    next_tsih: u16,
}

impl Target {
    /// A target without portals.
    pub fn new(core: &Core, network: Box<dyn Network>, config: TargetConfig) -> Self {
        Self {
            core: core.clone(),
            network,
            config,
            portals: Vec::new(),
            portal_groups: BTreeMap::new(),
            initiator_groups: BTreeMap::new(),
            nodes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            resets: Vec::new(),
            preemptions: Vec::new(),
            units: LogicalUnits::default(),
            next_id: 0,
            next_tsih: 0,
        }
    }

    // Configuration.

    /// Listens on a group of portals. All of them or none.
    ///
    /// # Errors
    /// The tag is taken, or an address cannot be listened on.
    pub fn add_portal_group(&mut self, group: &PortalGroup) -> Result<PortalGroup, ExportError> {
        if self.portal_groups.contains_key(&group.tag) {
            return Err(ExportError::PortalGroupExists(group.tag));
        }
        let mut portals = Vec::new();
        for address in &group.portals {
            let cause = |error: std::io::Error| {
                let (errno, cause) = (error.raw_os_error(), error.to_string());
                ExportError::Listen { address: *address, errno, cause }
            };
            let listener = self.network.listen(*address).map_err(cause)?;
            portals.push(Portal { group: group.tag, listener });
        }
        let bound = portals.iter().map(|portal| portal.listener.local_addr()).collect();
        let group = PortalGroup { tag: group.tag, portals: bound };
        self.portals.append(&mut portals);
        self.portal_groups.insert(group.tag, group.clone());
        Ok(group)
    }

    /// Stops listening on a group.
    ///
    /// # Errors
    /// There is none, or a target uses it.
    pub fn remove_portal_group(&mut self, tag: i32) -> Result<(), ExportError> {
        if !self.portal_groups.contains_key(&tag) {
            return Err(ExportError::NoPortalGroup(tag));
        }
        self.check_unused(tag, |map| map.0)?;
        self.portal_groups.remove(&tag);
        self.portals.retain(|portal| portal.group != tag);
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
        self.check_unused(tag, |map| map.1)?;
        self.initiator_groups.remove(&tag);
        Ok(())
    }

    fn check_unused(&self, tag: i32, of: impl Fn(&(i32, i32)) -> i32) -> Result<(), ExportError> {
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
        if !["iqn.", "eui.", "naa."].iter().any(|prefix| config.name.starts_with(prefix)) {
            return Err(ExportError::BadName(config.name));
        }
        if self.nodes.contains_key(&config.name) {
            return Err(ExportError::TargetExists(config.name));
        }
        if !config.luns.contains_key(&0) {
            return Err(ExportError::NoLunZero(config.name));
        }
        if !(1..=256).contains(&config.queue_depth) {
            return Err(ExportError::QueueDepth(config.queue_depth));
        }
        for (portal, initiator) in &config.maps {
            if !self.portal_groups.contains_key(portal) {
                return Err(ExportError::NoPortalGroup(*portal));
            }
            if !self.initiator_groups.contains_key(initiator) {
                return Err(ExportError::NoInitiatorGroup(*initiator));
            }
        }
        self.nodes.insert(config.name.clone(), Rc::new(Node::new(config, &mut self.units)));
        Ok(())
    }

    /// Removes a target node; its sessions end.
    ///
    /// # Errors
    /// There is none.
    pub fn remove_node(&mut self, name: &str) -> Result<(), ExportError> {
        let node = self.nodes.remove(name).ok_or_else(|| ExportError::NoTarget(name.to_owned()))?;
        for entry in self.sessions.values_mut() {
            if entry.session.node.as_ref().is_some_and(|of| Rc::ptr_eq(of, &node)) {
                entry.session.end("the target was removed");
            }
        }
        Ok(())
    }

    /// Adds a LUN to a target node.
    ///
    /// # Errors
    /// There is no such node, or the number is taken.
    pub fn add_lun(&mut self, name: &str, number: u16, config: LunConfig) -> Result<(), ExportError> {
        let node = self.nodes.get(name).ok_or_else(|| ExportError::NoTarget(name.to_owned()))?;
        if node.luns.borrow().contains_key(&number) {
            return Err(ExportError::LunExists(number));
        }
        node.luns.borrow_mut().insert(number, Rc::new(node::Lun::new(config.clone(), &mut self.units)));
        node.config.borrow_mut().luns.insert(number, config);
        Ok(())
    }

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
            let groups = config.maps.iter().filter_map(|(_, tag)| self.initiator_groups.get(tag));
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
        let info = |(id, entry): (&u64, &Entry)| {
            let session = &entry.session;
            ConnectionInfo {
                id: *id,
                cid: session.who.as_ref().map_or(0, |who| who.cid),
                tsih: session.tsih,
                initiator: session.who.as_ref().map(|who| who.initiator.clone()).unwrap_or_default(),
                initiator_address: session.stream().peer_addr(),
                target_address: session.stream().local_addr(),
                target: session.node.as_ref().map(|node| node.name()).unwrap_or_default(),
                full_feature: session.is_full_feature(),
            }
        };
        self.sessions.iter().map(info).collect()
    }

    /// Ends every session and stops listening.
    pub fn shut_down(&mut self) {
        self.portals.clear();
        for entry in self.sessions.values_mut() {
            entry.session.end("the node shuts down");
        }
    }

    /// True when no session is left.
    pub fn is_idle(&self) -> bool {
        self.sessions.is_empty()
    }

    // Running.

    /// One turn.
    pub fn poll(&mut self, now: Instant) -> Progress {
        let mut progress = self.accept(now);
        let mut requests = Vec::new();
        for (id, entry) in &mut self.sessions {
            let mut own = Vec::new();
            progress |= entry.session.poll(now, &mut own);
            requests.extend(own.into_iter().map(|request| (*id, request)));
            if entry.session.is_full_feature() {
                entry.login_until = None;
            } else if entry.login_until.is_some_and(|until| now >= until) {
                entry.session.end("the login took too long");
            }
        }
        progress |= Progress::from_count(requests.len());
        for (id, request) in requests {
            self.on_request(id, request, now);
        }
        self.finish_resets();
        self.finish_preemptions(now);
        self.release_lost();
        progress |= self.sanitize(now);
        self.bury();
        self.release_waiting();
        progress
    }

    /// When to poll next at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = |entry: &Entry| Instant::earliest(entry.login_until, entry.session.next_deadline());
        let sessions = self.sessions.values().filter_map(deadlines).min();
        let sanitizing = self.nodes.values().flat_map(|node| node.sanitizing());
        let sanitizing = sanitizing.filter_map(|lun| lun.state.sanitizing.borrow().next_deadline(&lun)).min();
        Instant::earliest(sessions, sanitizing)
    }

    /// Sanitize operations go on, whatever becomes of the sessions that asked for them.
    fn sanitize(&mut self, now: Instant) -> Progress {
        let mut progress = Progress::Idle;
        for lun in self.nodes.values().flat_map(|node| node.sanitizing()) {
            progress |= lun.state.sanitizing.borrow_mut().poll(&lun, &self.core, now);
        }
        progress
    }

    fn accept(&mut self, now: Instant) -> Progress {
        let mut progress = Progress::Idle;
        for portal in &mut self.portals {
            let Some(mut stream) = portal.listener.accept(now) else { continue };
            progress = Progress::Busy;
            if self.sessions.len() >= self.config.connections_max {
                stream.close();
                continue;
            }
            let config = iscsi::target::Config { preferences: self.config.preferences, queue_depth: 1 };
            self.next_id += 1;
            let session = Session::new(&self.core, stream, config, portal.group, self.next_id);
            let login_until = Some(now + self.config.login_timeout);
            self.sessions.insert(self.next_id, Entry { session, login_until, waiting: None });
        }
        progress
    }

    fn on_request(&mut self, id: u64, request: Request, now: Instant) {
        match request {
            Request::Login(who) => self.on_login(id, &who),
            Request::SendTargets(request, which) => self.on_send_targets(id, request, &which),
            Request::Announce(announcement) => self.on_announcement(id, announcement, now),
            Request::Reset { request, lun } => self.on_reset(id, request, lun, now),
        }
    }

    fn on_login(&mut self, id: u64, who: &LoginRequest) {
        let Some(entry) = self.sessions.get(&id) else { return };
        let decision = self.judge(&entry.session, who);
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        let (node, queue_depth) = match decision {
            Ok(found) => found,
            Err(status) => return entry.session.connection().refuse_login(status),
        };
        self.next_tsih = self.next_tsih.checked_add(1).unwrap_or(1);
        let session = &mut entry.session;
        session.tsih = self.next_tsih;
        session.who = Some(who.clone());
        let alias = node.as_ref().map(|node| node.config.borrow().alias.clone()).unwrap_or_default();
        if let Some(node) = &node {
            node.enter(id);
        }
        session.node = node;
        session.identify();
        let grant = Grant {
            tsih: self.next_tsih,
            portal_group_tag: u16::try_from(session.portal_group).unwrap_or(1),
            target_alias: alias,
            queue_depth,
        };
        let predecessors = self.end_predecessors(id, who);
        if let Some(entry) = self.sessions.get_mut(&id) {
            entry.waiting = Some((grant, predecessors));
        }
    }

    /// Whether to let somebody in, and where.
    fn judge(&self, session: &Session, who: &LoginRequest) -> Result<(Option<Rc<Node>>, u32), LoginStatus> {
        if who.tsih != 0 {
            //= rfc7143#section-6.3.1: a TSIH other than zero adds a connection, of which a session has one here.
            return Err(LoginStatus::SessionDoesNotExist);
        }
        if who.session_type == SessionType::Discovery {
            return Ok((None, 1));
        }
        let name = who.target.as_deref().unwrap_or_default();
        let node = self.nodes.get(name).ok_or(LoginStatus::NotFound)?;
        if !node.config.borrow().maps.iter().any(|(portal, _)| *portal == session.portal_group) {
            return Err(LoginStatus::NotFound);
        }
        if !self.may_use(node, session, &who.initiator) {
            return Err(LoginStatus::AuthorizationFailure);
        }
        let queue_depth = node.config.borrow().queue_depth;
        Ok((Some(node.clone()), queue_depth))
    }

    fn may_use(&self, node: &Node, session: &Session, initiator: &str) -> bool {
        let Some(address) = session.stream().peer_addr().map(|address| address.ip()) else { return false };
        let config = node.config.borrow();
        let tags =
            config.maps.iter().filter(|(portal, _)| *portal == session.portal_group).map(|(_, tag)| tag);
        let verdicts: Vec<Verdict> = tags
            .filter_map(|tag| self.initiator_groups.get(tag))
            .map(|group| group.judge(initiator, address))
            .collect();
        !verdicts.contains(&Verdict::Denied) && verdicts.contains(&Verdict::Allowed)
    }

    /// Session reinstatement (RFC 7143 section 6.3.5): same initiator, ISID, target and portal group.
    fn end_predecessors(&mut self, id: u64, who: &LoginRequest) -> Vec<u64> {
        let Some(group) = self.sessions.get(&id).map(|entry| entry.session.portal_group) else {
            return Vec::new();
        };
        let mut ended = Vec::new();
        for (other, entry) in self.sessions.iter_mut().filter(|(other, _)| **other != id) {
            let same = entry.session.portal_group == group
                && entry.session.who.as_ref().is_some_and(|old| {
                    old.initiator == who.initiator && old.isid == who.isid && old.target == who.target
                });
            if same && who.session_type == SessionType::Normal {
                entry.session.end("the initiator logged in again");
                ended.push(*other);
            }
        }
        ended
    }

    /// Lets in whoever waited for a predecessor that is gone now.
    fn release_waiting(&mut self) {
        let gone = |waiting: &(Grant, Vec<u64>)| waiting.1.iter().all(|old| !self.sessions.contains_key(old));
        let ready = |entry: &Entry| entry.waiting.as_ref().is_some_and(gone);
        let ready: Vec<u64> =
            self.sessions.iter().filter(|(_, entry)| ready(entry)).map(|(id, _)| *id).collect();
        for id in ready {
            if let Some(entry) = self.sessions.get_mut(&id)
                && let Some((grant, _)) = entry.waiting.take()
            {
                entry.session.connection().grant_login(grant);
            }
        }
    }

    fn on_send_targets(&mut self, id: u64, request: iscsi::TaskId, which: &SendTargets) {
        let Some(entry) = self.sessions.get(&id) else { return };
        let session = &entry.session;
        let initiator = session.who.as_ref().map(|who| who.initiator.clone()).unwrap_or_default();
        let mut text = Vec::new();
        for (name, node) in &self.nodes {
            let asked = match which {
                SendTargets::All => true,
                SendTargets::Named(wanted) => wanted == name,
                SendTargets::Session => session.node.as_ref().is_some_and(|of| Rc::ptr_eq(of, node)),
            };
            if asked && self.may_use(node, session, &initiator) {
                self.describe_node(node, session, &mut text);
            }
        }
        if let Some(entry) = self.sessions.get_mut(&id) {
            entry.session.connection().respond_text(request, text);
        }
    }

    fn describe_node(&self, node: &Node, session: &Session, text: &mut Vec<u8>) {
        let config = node.config.borrow();
        iscsi::text::emit(text, "TargetName", &config.name);
        for tag in config.maps.iter().map(|(portal, _)| *portal).collect::<BTreeSet<_>>() {
            let Some(group) = self.portal_groups.get(&tag) else { continue };
            for portal in &group.portals {
                // A wildcard is answered with the address that the initiator used, which it can reach.
                let own = session.stream().local_addr().map(|address| address.ip());
                let ip = if portal.ip().is_unspecified() { own.unwrap_or(portal.ip()) } else { portal.ip() };
                let address = SocketAddr::new(ip, portal.port());
                iscsi::text::emit(text, "TargetAddress", &format!("{address},{tag}"));
            }
        }
    }

    fn on_reset(&mut self, id: u64, request: iscsi::TaskId, lun: Option<u16>, now: Instant) {
        let Some(node) = self.sessions.get(&id).and_then(|entry| entry.session.node.clone()) else { return };
        for hit in node.luns.borrow().iter().filter(|(number, _)| lun.is_none_or(|lun| lun == **number)) {
            hit.1.unit.change_older(Table::reset);
        }
        node.reset(lun);
        for entry in self.sessions.values_mut() {
            if entry.session.node.as_ref().is_some_and(|of| Rc::ptr_eq(of, &node)) {
                entry.session.reset(lun, Sense::LUN_RESET, now);
            }
        }
        self.resets.push(Reset { by: id, request, node, lun });
    }

    fn finish_resets(&mut self) {
        let sessions = &mut self.sessions;
        self.resets.retain(|reset| {
            let at_work = sessions.values().any(|entry| {
                entry.session.node.as_ref().is_some_and(|of| Rc::ptr_eq(of, &reset.node))
                    && !entry.session.is_reset(reset.lun)
            });
            if !at_work && let Some(entry) = sessions.get_mut(&reset.by) {
                entry.session.connection().respond_task_management(reset.request, TaskResponse::Complete);
            }
            at_work
        });
    }

    fn bury(&mut self) {
        self.sessions.retain(|id, entry| {
            let gone = entry.session.is_over() && entry.session.is_drained();
            if gone && let Some(node) = &entry.session.node {
                node.leave(*id);
            }
            !gone
        });
    }
}
