//! Export: bdevs as LUNs of iSCSI targets.
//!
//! Owner: one reactor, which polls the [`Target`]. It listens on portals, decides logins (name, access, session
//! reinstatement) and drives sessions.

mod admission;
mod authentication;
mod config;
mod crowd;
mod departure;
mod discovery;
mod groups;
mod guard;
mod inventory;
mod job;
mod keeper;
mod logical_unit;
mod long;
mod lun;
mod node;
mod relay;
mod reservations;
mod resets;
mod revision;
mod sanitizing;
mod session;
mod show;
mod state;
mod stats;
mod storage;
mod tokens;

use std::collections::BTreeMap;
use std::rc::Rc;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use engine::{Core, Instant, Progress};
use iscsi::target::Grant;
use iscsi::{Preferences, SessionParameters};
use net::{Listener, Network, Stream};

pub use crowd::Crowd;
pub use departure::Departure;
use departure::Departures;
use guard::{LoginGuard, Pending};
use inventory::KnownNexuses;
use logical_unit::LogicalUnits;
use long::LongCommands;
pub use lun::{LunAccess, LunConfig, LunMode, LunOptions, LunProvisioning, Percent};
use node::Node;
pub use node::{
    ExportError, LunInfo, Map, NodeConfig, PORTAL_GROUP_TAG_MAX, PeerConfig, Portal, PortalGroup, Redirect,
    Visibility,
};
use reservations::{Changing, Preemption};
use resets::Reset;
use revision::AccessNews;
pub use session::StandbyMode;
use session::{Patience, Request, Session};
use storage::Looks;

use crate::access::InitiatorGroup;
use crate::auth::{AuthGroup, AuthPolicy};

/// How many may be there, and how they may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, logged in or not.
    pub connections: usize,
    /// Of them, from one address; IPv6 addresses with the same first 64 bits are one. The peer of a target counts for nobody.
    pub connections_per_address: usize,
    /// Normal sessions at once.
    pub sessions: usize,
    /// Of them, of one initiator's name.
    pub sessions_per_initiator: usize,
    /// Discovery sessions from one address.
    pub discovery_per_address: usize,
    /// Connections that are logging in.
    pub logins: usize,
    /// Connections that are logging in from one address.
    pub logins_per_address: usize,
    /// Logins that one address may begin in a second, in the long run,
    pub logins_per_second: u32,
    /// and at once.
    pub login_burst: u32,
    /// Time for a login, from the accept.
    pub login_timeout: Duration,
    /// Commands that one session may have open, whatever its target says.
    pub queue_depth: u32,
    /// An initiator that says nothing for this long is pinged,
    pub quiet: Duration,
    /// and when it says nothing for this long its session ends: a dead host must not hold a place for ever. SPDK's target waits as long
    /// (30 s, and 60 s more for the answer), LIO 45 s; programs on libiscsi that sleep for a minute between two commands answer
    /// no ping meanwhile, and are not dead.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 192,
            connections_per_address: 96,
            sessions: 128,
            sessions_per_initiator: 64,
            discovery_per_address: 8,
            logins: 64,
            logins_per_address: 32,
            logins_per_second: 100,
            login_burst: 200,
            login_timeout: Duration::from_secs(15),
            queue_depth: 256,
            quiet: Duration::from_secs(30),
            silence: Duration::from_secs(90),
        }
    }
}

/// How a target behaves.
#[derive(Clone, Copy, Debug)]
pub struct TargetConfig {
    /// How many may be there.
    pub limits: Limits,
    /// What to negotiate for.
    pub preferences: Preferences,
}

impl Default for TargetConfig {
    fn default() -> Self {
        let preferences = Preferences {
            max_connections: 4,
            error_recovery_level: 2,
            // A session that comes again is let in when nothing of the old one is at work, however soon that is.
            default_time2wait: 0,
            default_time2retain: 20,
            ..Preferences::default()
        };
        Self { limits: Limits::default(), preferences }
    }
}

/// Bytes of buffers that are kept for connections that are gone, of all sessions.
const RETAINED_MAX: usize = 32 << 20;

/// What initiators get to log out when the node ends.
const SHUT_DOWN_SECONDS: u16 = 1;

/// A connection that is logging in.
fn pending((id, entry): (&u64, &Entry)) -> Option<Pending> {
    let address = entry.session.source()?;
    (!entry.session.is_full_feature() && !entry.session.is_over()).then_some(Pending { id: *id, address })
}

struct OpenPortal {
    group: i32,
    listener: Box<dyn Listener>,
}

struct Entry {
    session: Session,
    login_until: Option<Instant>,
    /// When a discovery session ends that asks for nothing.
    idle_until: Option<Instant>,
    /// A login that is complete, and what it waits for.
    waiting: Option<Waiting>,
}

/// What a complete login waits for.
enum Waiting {
    /// These sessions, which the new one replaces, are gone.
    ToBegin(Grant, Vec<u64>),
    /// Nothing of the connection that it replaces is at work in its session.
    ToJoin(u64),
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
    /// What both ends agreed on, as the target sees it; `None` before that.
    pub parameters: Option<SessionParameters>,
}

/// See the module.
pub struct Target {
    core: Core,
    network: Box<dyn Network>,
    config: TargetConfig,
    portals: Vec<OpenPortal>,
    portal_groups: BTreeMap<i32, PortalGroup>,
    initiator_groups: BTreeMap<i32, InitiatorGroup>,
    auth_groups: BTreeMap<i32, AuthGroup>,
    discovery_auth: AuthPolicy,
    nodes: BTreeMap<String, Rc<Node>>,
    sessions: BTreeMap<u64, Entry>,
    resets: Vec<Reset>,
    preemptions: Vec<Preemption>,
    units: LogicalUnits,
    guard: LoginGuard,
    departures: Departures,
    known: KnownNexuses,
    access: AccessNews,
    /// Devices whose record cannot be read, to be told.
    unreadable: Vec<String>,
    /// Who has the frames for a command of more than one.
    long_commands: Rc<LongCommands>,
    looks: Looks,
    next_id: u64,
    /// The session handle that was given last.
    last_tsih: u16,
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
            auth_groups: BTreeMap::new(),
            discovery_auth: AuthPolicy::default(),
            nodes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            resets: Vec::new(),
            preemptions: Vec::new(),
            units: LogicalUnits::default(),
            guard: LoginGuard::default(),
            departures: Departures::default(),
            known: KnownNexuses::default(),
            unreadable: Vec::new(),
            access: AccessNews::None,
            long_commands: LongCommands::new(core.pool()),
            looks: Looks::default(),
            next_id: 0,
            last_tsih: 0,
        }
    }

    /// Stops listening, and asks every initiator to log out; sessions that do not end all the same, a second later.
    pub fn shut_down(&mut self) {
        self.portals.clear();
        for entry in self.sessions.values_mut() {
            entry.session.request_logout(SHUT_DOWN_SECONDS, "the node shuts down");
        }
    }

    /// True when no session is left.
    pub fn is_idle(&self) -> bool {
        self.sessions.is_empty()
    }

    // Running.

    /// One turn.
    pub fn poll(&mut self, now: Instant) -> Progress {
        self.revise_access();
        let mut progress = self.accept(now);
        let mut requests = Vec::new();
        for (id, entry) in &mut self.sessions {
            let mut own = Vec::new();
            progress |= entry.session.poll(now, &mut own);
            let asked = own.len();
            requests.extend(own.into_iter().map(|request| (*id, request)));
            if entry.session.is_full_feature() {
                entry.login_until = None;
                entry.watch_discovery(asked, now);
            } else if entry.login_until.is_some_and(|until| now >= until) {
                entry.session.end("the login took too long");
            }
        }
        progress |= Progress::from_count(requests.len());
        for (id, request) in requests {
            self.on_request(id, request, now);
        }
        progress |= self.poll_units(now);
        self.limit_retained(now);
        self.finish_resets();
        self.finish_preemptions(now);
        self.release_lost();
        self.watch_storage(now);
        progress |= self.bury();
        self.release_waiting();
        progress
    }

    /// When to poll next at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = |entry: &Entry| {
            let until = Instant::earliest(entry.login_until, entry.idle_until);
            Instant::earliest(until, entry.session.next_deadline())
        };
        let sessions = self.sessions.values().filter_map(deadlines).min();
        [sessions, self.units.next_deadline(), self.next_look()].into_iter().flatten().min()
    }

    /// What is kept for connections that are gone has a bound for all sessions together, too.
    fn limit_retained(&mut self, now: Instant) {
        let retained = |sessions: &BTreeMap<u64, Entry>| {
            let keeps = sessions.values().filter(|entry| entry.session.has_lost());
            keeps.map(|entry| entry.session.retained()).sum::<usize>()
        };
        while retained(&self.sessions) > RETAINED_MAX
            && let Some(entry) = self.sessions.values_mut().find(|entry| entry.session.has_lost())
        {
            entry.session.forget_oldest_lost(now);
        }
    }

    /// How it behaves.
    pub fn config(&self) -> TargetConfig {
        self.config
    }

    /// Changes how it behaves; what is negotiated, from the next login on. The length of data segments is declared, and may be
    /// declared again (RFC 7143 section 13.12): the initiators that are there are asked to hear it.
    pub fn set_config(&mut self, config: TargetConfig) {
        let before = self.config.preferences.max_recv_data_segment_length;
        self.config = config;
        let length = config.preferences.max_recv_data_segment_length;
        if length != before {
            self.sessions.values_mut().for_each(|entry| entry.session.renegotiate(length));
        }
    }

    /// At most one connection of each portal in a turn: sessions come first.
    fn accept(&mut self, now: Instant) -> Progress {
        let accepted: Vec<_> = self
            .portals
            .iter_mut()
            .filter_map(|portal| Some((portal.group, portal.listener.accept(now)?)))
            .collect();
        let progress = Progress::from_count(accepted.len());
        for (group, stream) in accepted {
            self.welcome(group, stream, now);
        }
        progress
    }

    fn welcome(&mut self, group: i32, mut stream: Box<dyn Stream>, now: Instant) {
        let limits = self.config.limits;
        let Some(address) = stream.peer_addr().map(|address| address.ip()) else { return stream.close() };
        // Whatever hosts do, the link of the pair comes up.
        if !self.is_peer(group, address) && !self.has_room_for(address, now) {
            return stream.close();
        }
        let config = iscsi::target::Config { preferences: self.config.preferences, queue_depth: 1 };
        let patience = Patience { quiet: limits.quiet, silence: limits.silence };
        self.next_id += 1;
        let resources = (&self.core, &self.long_commands);
        let session = Session::new(resources, stream, config, group, self.next_id, patience);
        let login_until = Some(now + limits.login_timeout);
        self.sessions.insert(self.next_id, Entry { session, login_until, idle_until: None, waiting: None });
    }

    /// Whether one more connection from an address may log in; one that does already makes room for it perhaps.
    fn has_room_for(&mut self, address: IpAddr, now: Instant) -> bool {
        let limits = self.config.limits;
        if self.is_crowded(address) {
            return false;
        }
        let pending: Vec<Pending> = self.sessions.iter().filter_map(pending).collect();
        match self.guard.judge(&limits, &pending, guard::origin_of(address), now) {
            guard::Verdict::Welcome => self.count_connections() < limits.connections,
            guard::Verdict::Instead(oldest) => {
                if let Some(entry) = self.sessions.get_mut(&oldest) {
                    entry.session.end("another login from a crowded address");
                }
                true
            }
            guard::Verdict::TurnedAway => false,
        }
    }

    fn on_request(&mut self, id: u64, request: Request, now: Instant) {
        match request {
            Request::Login(who) => self.on_login(id, who),
            Request::LoginComplete => self.on_login_complete(id, now),
            Request::SendTargets(request, which) => self.on_send_targets(id, request, &which),
            Request::Dial => self.on_dial(id, now),
            Request::Change(Changing { task, unit, change }) => unit.change(Some((id, task)), change),
            Request::EndSessions => self.on_cold_reset(id),
            Request::Reset { request, units, kind } => self.on_reset(id, request, units, kind, now),
        }
    }

    /// Takes what is known of connections that ended otherwise than in order, and how many more there were.
    pub fn departures(&mut self) -> (Vec<Departure>, u64) {
        self.departures.take()
    }

    /// Takes the names of devices whose record cannot be read since somebody looked: nobody may use their LUNs until the
    /// operator decides ([`Target::give_up_unit_state`]).
    pub fn unreadable(&mut self) -> Vec<String> {
        core::mem::take(&mut self.unreadable)
    }

    fn bury(&mut self) -> Progress {
        let (departures, before) = (&mut self.departures, self.sessions.len());
        self.sessions.retain(|id, entry| {
            let gone = entry.session.is_over() && entry.session.is_drained();
            if gone && let Some(departure) = entry.session.departure() {
                departures.note(departure);
            }
            if gone && let Some(node) = &entry.session.node {
                node.leave(*id);
            }
            !gone
        });
        Progress::from_count(before - self.sessions.len())
    }
}
