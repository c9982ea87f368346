//! The world: everything that a run consists of, and the loop that leaps from one due time to the next.

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use bdev::Geometry;
use bdev::sim::{SimBdev, SimConfig};
use engine::{Core, Instant, Prng};
use gateway::StandbyMode;
use mirror::decide::PromoteMode;
use mirror::events::EventKind;
use mirror::format::{ArbiterKind, ArrayName, Config, LegFlags, LegIndex, LegMask};
use mirror::setup::{ArbiterLink, Content, DegradedPolicy, OnBlank, Setup, Timing};
use mirror::status::{PeerSight, RoleKind, Status};
use net::sim::{Pace, SimNet};
use scsi::alua::Management;
use uuid::Uuid;

use super::arbiter::Arbiter;
use super::checks::Checks;
use super::clock::Clock;
use super::contender::Contender;
use super::coverage::Coverage;
use super::fault::{Event, Still};
use super::history::History;
use super::host::{Env, Host};
use super::inflict::Undo;
use super::journal::Journal;
use super::machine::{self, Flush, Front, Life, Machine, Process};
use super::orders::Orders;
use super::plan::{Patience, Plan};
use super::records::Records;
use super::setback::{Backup, Sessions, SetBack};
use super::split::Split;
use super::told::Told;

/// A leg: room for 192 granules of data behind the metadata.
pub(crate) const LEG: Geometry = Geometry { block_size: 512, physical_block_size: 4096, blocks: 18 << 11 };
const MS: Duration = Duration::from_millis(1);
/// How often the operator looks.
const OPERATOR: Duration = Duration::from_millis(250);
/// How often a node's status is looked at.
const LOOK: Duration = Duration::from_micros(500);

/// What a node last said of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) role: RoleKind,
    pub(crate) config: Option<Config>,
    pub(crate) resync: bool,
}

/// What happened to a leg that the array does not know of yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Its disk was replaced, or holds something else than what the array wrote.
    pub(crate) leg_lost: bool,
    /// It was set back.
    pub(crate) set_back: SetBack,
    /// Its cache was lost.
    pub(crate) cache_lost: bool,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) journal: Journal,
    pub(crate) net: SimNet,
    pub(crate) core: Core,
    pub(crate) prng: Prng,
    pub(crate) now: Instant,
    pub(crate) machines: [Machine; 2],
    pub(crate) hosts: Vec<Host>,
    pub(crate) contenders: Vec<Contender>,
    pub(crate) orders: Orders,
    pub(crate) arbiter: Arbiter,
    pub(crate) history: History,
    pub(crate) coverage: Coverage,
    pub(crate) checks: Checks,
    pub(crate) views: [Option<View>; 2],
    pub(crate) told: [Told; 2],
    pub(crate) damage: [Damage; 2],
    pub(crate) events: VecDeque<Event>,
    pub(crate) waiting: Vec<Event>,
    pub(crate) undos: Vec<(Instant, Undo)>,
    /// The moment that the events' times count from.
    pub(crate) began: Instant,
    pub(crate) operator_at: Instant,
    /// When the operator promotes the peer, and how.
    pub(crate) promote_at: Option<(Instant, PromoteMode)>,
    /// When somebody is to serve again, whose holder was demoted.
    pub(crate) demoted: Option<Instant>,
    /// The run of each node that the operator took out of service, until it may serve again.
    pub(crate) retired: [Option<u64>; 2],
    /// After how long a node that starts next goes on without its peer.
    pub(crate) alone: [Option<Duration>; 2],
    /// The node that serves, or served last.
    pub(crate) serving: usize,
    /// An image of each leg, for one that is set back.
    pub(crate) backups: [Option<Backup>; 2],
    /// Of a holder with each leg.
    pub(crate) sessions: [Sessions; 2],
    /// Nodes whose unusable leg was tried once more.
    pub(crate) second_chances: [bool; 2],
    /// Two data sets, or what leads to them.
    pub(crate) split: Option<Box<Split>>,
    /// What is known of the unit's record on the legs.
    pub(crate) records: Records,
    /// Counts new disks.
    disks: u64,
    /// Granules of the volume.
    pub(crate) granules: u64,
}

/// How a process that was told to stop has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    InOrder,
    Killed,
}

/// A rule was broken.
pub(crate) type Check<T = ()> = Result<T, String>;

impl World {
    pub(crate) fn new(plan: Plan, core: &Core, journal: Journal) -> Self {
        let Plan { seed, net, drift_ppm, .. } = plan;
        let mut prng = Prng::from_seed(seed ^ 0x3072_1d00);
        let config = net::sim::SimConfig {
            seed: seed ^ 0x7e7,
            latency_min: net.0,
            latency_max: net.1,
            piece_max: 32 << 10,
            give_up: Duration::from_secs(20),
            pace: Pace::Owner,
            ..net::sim::SimConfig::default()
        };
        let net = SimNet::new(config);
        let mut disks = 0;
        let machines = [0, 1].map(|node| {
            let offset = Duration::from_millis(1000 + prng.below(5_000_000));
            disks += 1;
            Machine::new(node, Clock::new(offset, drift_ppm[node]), disk(&plan, disks), plan.turn_cost)
        });
        let hosts =
            (0..plan.load.hosts).map(|number| Host::new(number, core, &net, seed, &plan.load)).collect();
        let first = plan.load.hosts;
        let contenders = (first..first + plan.contenders)
            .map(|number| Contender::new(number, seed, plan.load.ops))
            .collect();
        Self {
            journal,
            core: core.clone(),
            prng,
            now: Instant::EPOCH + Duration::from_secs(1),
            machines,
            hosts,
            contenders,
            orders: Orders::default(),
            arbiter: Arbiter::new(seed),
            history: History::new(plan.standby),
            coverage: Coverage::default(),
            checks: Checks::default(),
            views: [None; 2],
            told: Default::default(),
            damage: [Damage::default(); 2],
            events: VecDeque::new(),
            waiting: Vec::new(),
            undos: Vec::new(),
            began: Instant::EPOCH,
            operator_at: Instant::EPOCH,
            promote_at: None,
            demoted: None,
            retired: [None; 2],
            alone: [None; 2],
            serving: 0,
            backups: [None, None],
            sessions: [Sessions::default(); 2],
            second_chances: [false; 2],
            split: None,
            records: Records::default(),
            disks,
            granules: 0,
            net,
            plan,
        }
    }

    pub(crate) fn note(&self, who: &str, what: core::fmt::Arguments<'_>) {
        self.journal.line(self.now, who, what);
    }

    // --- Nodes ---

    fn setup(&mut self, node: usize) -> Setup {
        let machine = &mut self.machines[node];
        machine.run += 1;
        let create = OnBlank::Create { arbiter: self.plan.policy, data_size: None, max_crash_resync: None };
        let creates = node == 0 && machine.run == 1;
        Setup {
            array: Uuid::from_u128(77),
            name: ArrayName::new("sim").expect("short"),
            who: LegIndex::BOTH[node],
            node: Uuid::from_u128(node as u128 + 10),
            incarnation: Self::boot_id(node, machine.boot),
            on_blank: if creates { create } else { OnBlank::Join },
            content: Content::Zeroed,
            flags: LegFlags::empty(),
            arbiter: match self.plan.policy {
                ArbiterKind::Etcd => ArbiterLink::Etcd,
                _ => ArbiterLink::None,
            },
            degraded: self.alone[node].map_or(DegradedPolicy::Ask, DegradedPolicy::After),
            timing: match self.plan.patience {
                Patience::Ordinary => Timing::default(),
                Patience::Fast => Timing::fast(),
            },
            seed: self.plan.seed.wrapping_mul(1 << 20) ^ (machine.run << 1) ^ node as u64,
        }
    }

    fn boot_id(node: usize, boot: u64) -> Uuid {
        Uuid::from_u128((node as u128 + 1) << 64 | u128::from(boot))
    }

    /// The boot id that a node's process has, or would have.
    pub(crate) fn incarnation(&self, node: usize) -> Uuid {
        Self::boot_id(node, self.machines[node].boot)
    }

    pub(crate) fn start(&mut self, node: usize) {
        self.on_start_with_record(node);
        let setup = self.setup(node);
        // Hosts that contend choose, too.
        let alua = match self.plan.contenders {
            0 => Management::Implicit,
            _ => Management::ImplicitAndExplicit,
        };
        let front = Front { mode: self.plan.mode, standby: self.plan.standby, alua };
        self.machines[node].start(setup, front, &self.core, &self.net, self.now);
        self.note(&format!("node {node}"), format_args!("starts, run {}", self.machines[node].run));
    }

    /// An empty disk in place of a node's.
    pub(crate) fn new_disk(&mut self, node: usize) {
        self.disks += 1;
        self.machines[node].disk = disk(&self.plan, self.disks);
        self.checks.forget_store(node);
    }

    pub(crate) fn status(&self, node: usize) -> Option<Status> {
        self.machines[node].process.as_ref().map(|process| process.driver.status())
    }

    /// The newest config that anybody has stored, and what it follows.
    pub(crate) fn newest_record(&self) -> Option<mirror::format::History> {
        let stores = self.machines.iter().filter_map(|machine| super::checks::superblock(&machine.disk));
        let legs = stores.map(|superblock| superblock.history);
        legs.chain(self.arbiter.record).max_by_key(|record| record.current().generation())
    }

    /// The newest config that anybody has stored.
    pub(crate) fn newest_config(&self) -> Option<Config> {
        self.newest_record().map(|record| *record.current())
    }

    /// The holder, when both legs are in sync and at work.
    pub(crate) fn in_sync(&self) -> Option<usize> {
        (0..2).find(|node| {
            let Some(status) = self.status(*node) else { return false };
            let both = status.config.is_some_and(|config| config.in_sync == LegMask::both());
            let joined = status.peer.is_some_and(|peer| peer.sight == PeerSight::Joined);
            status.role == RoleKind::Holder && both && joined && self.machines.iter().all(Machine::is_running)
        })
    }

    /// Everything of every node, in words.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for machine in &self.machines {
            let node = machine.node;
            let Some(status) = self.status(node) else {
                text += &format!("\nnode {node}: {:?}", machine.life);
                continue;
            };
            let fence = super::checks::superblock(&machine.disk).map(|superblock| superblock.fence);
            text += &format!(
                "\nnode {node}: {:?}, {:?} {:?}, config {:?}, peer {:?}, dirty {}, fence of its leg {fence:?}",
                machine.life, status.role, status.reason, status.config, status.peer, status.dirty_bytes
            );
        }
        text += &format!("\narbiter: {:?}", self.arbiter.config());
        text
    }

    // --- The loop ---

    /// Runs until `end`, or until `is_over` says so: true then.
    pub(crate) fn run(&mut self, time: Duration, mut is_over: impl FnMut(&mut Self) -> bool) -> Check<bool> {
        let end = self.now + time;
        let mut look_at = self.now;
        loop {
            let next = self.next_due();
            if next >= end {
                self.now = end;
                let _ = self.net.advance(self.now);
                return Ok(is_over(self));
            }
            self.now = self.now.max(next);
            self.dispatch()?;
            if self.now >= look_at {
                look_at = self.now + MS;
                if is_over(self) {
                    return Ok(true);
                }
            }
        }
    }

    fn next_due(&self) -> Instant {
        let machines = self.machines.iter().map(|machine| machine.due);
        let hosts = self.hosts.iter().map(|host| host.due);
        let others = [self.net.next_deadline(), self.arbiter.next_deadline(), Some(self.operator_at)];
        let events = self.events.front().map(|event| self.began + event.at);
        let undos = self.undos.iter().map(|(at, _)| *at);
        let some = others.into_iter().flatten().chain(events).chain(undos);
        let contenders = self.contenders.iter().map(|contender| contender.due);
        machines.chain(hosts).chain(contenders).chain(some).min().expect("the operator looks for ever")
    }

    fn dispatch(&mut self) -> Check {
        let _ = self.net.advance(self.now);
        self.wake();
        self.advance_arbiter();
        for node in 0..2 {
            if self.machines[node].due <= self.now {
                self.turn(node)?;
            }
        }
        for at in 0..self.hosts.len() {
            if self.hosts[at].due <= self.now {
                self.turn_host(at)?;
            }
        }
        for at in 0..self.contenders.len() {
            if self.contenders[at].due <= self.now {
                self.turn_contender(at)?;
            }
        }
        self.strike()?;
        if self.operator_at <= self.now {
            self.operator_at = self.now + OPERATOR;
            self.operate()?;
        }
        Ok(())
    }

    fn wake(&mut self) {
        for ip in self.net.take_woken() {
            for machine in self.machines.iter_mut().filter(|machine| machine::address(machine.node) == ip) {
                machine.wake(self.now);
            }
            let hosts = self.hosts.iter_mut().map(|host| (host.ip, &mut host.due));
            let others = self.contenders.iter_mut().map(|it| (it.ip, &mut it.due));
            for (_, due) in hosts.chain(others).filter(|(of, _)| *of == ip) {
                *due = (*due).min(self.now);
            }
        }
    }

    fn advance_arbiter(&mut self) {
        if self.arbiter.next_deadline().is_none_or(|due| due > self.now) {
            return;
        }
        let (told, decided) = self.arbiter.advance(self.now);
        for config in decided {
            let (generation, holder) = (config.generation(), config.holder.number());
            let (in_sync, reason) = (config.in_sync, config.reason.words());
            self.note(
                "arbiter",
                format_args!("generation {generation}: node {holder}, {in_sync:?}: {reason}"),
            );
        }
        for ((node, run), ticket, answer) in told {
            let machine = &mut self.machines[node];
            if machine.run != run || !machine.is_running() {
                continue;
            }
            let local = machine.clock.local(self.now);
            if let Some(process) = &mut machine.process {
                process.driver.on_arbiter(ticket, answer, local);
            }
            machine.wake(self.now);
        }
    }

    /// A machine's turn: its process runs, or something ends that it waited for.
    fn turn(&mut self, node: usize) -> Check {
        match self.machines[node].life {
            Life::Down(_) => {
                self.start(node);
                return Ok(());
            }
            Life::Still(how, _) => {
                self.note(&format!("node {node}"), format_args!("goes on"));
                if how == Still::Machine {
                    self.net.thaw(machine::address(node));
                }
                self.machines[node].life = Life::Up;
            }
            Life::Up | Life::Stopping(_) => {}
        }
        let machine = &mut self.machines[node];
        machine.turn(self.now);
        let run = machine.run;
        let asker = (node, run);
        if let Some(process) = &mut machine.process {
            while let Some((ticket, ask)) = process.driver.next_ask() {
                self.arbiter.ask(asker, ticket, ask, self.now);
            }
        }
        while let Some(event) =
            self.machines[node].process.as_mut().and_then(|process| process.driver.next_event())
        {
            if matches!(event.kind, EventKind::OwnLegFailed(_) | EventKind::LegUnusable(_)) {
                self.machines[node].flush = Flush::Failed;
            }
            self.told[node].hear(&event.kind);
            self.hear_of_split(&event.kind);
            self.note(&format!("node {node}"), format_args!("{}", event.kind));
        }
        if self.machines[node].process.as_mut().is_some_and(Process::is_unreadable) {
            self.on_unreadable(node)?;
        }
        if self.now >= self.machines[node].look_at || self.is_being_forced(node) {
            self.machines[node].look_at = self.now + LOOK;
            self.look(node)?;
        }
        Ok(())
    }

    /// Takes up what a node says of itself.
    pub(crate) fn look(&mut self, node: usize) -> Check {
        let Some(status) = self.status(node) else { return Ok(()) };
        let view = View { role: status.role, config: status.config, resync: status.resync.is_some() };
        if self.views[node].is_none_or(|before| before.role != view.role) {
            self.note(&format!("node {node}"), format_args!("is {}", view.role.words()));
        }
        self.views[node] = Some(view);
        if matches!(view.role, RoleKind::Holder | RoleKind::Frozen) {
            self.serving = self.side_of_hosts().unwrap_or(node);
        }
        match view.role {
            RoleKind::Holder if self.is_being_forced(node) => self.on_forced(node)?,
            RoleKind::Holder if view.resync => self.on_resync(node),
            _ => {}
        }
        if let (RoleKind::Holder, Some(config)) = (view.role, view.config) {
            self.checks.on_service((node, self.machines[node].run), config)?;
            self.lose_record_where_alone(node, config);
        }
        self.check_retired(node, view.role)?;
        self.watch_sessions(node, &status);
        self.look_what_is_told(node, &status)?;
        self.checks.on_config((node, self.side_of(node)), status.config)?;
        self.on_stopping(node);
        Ok(())
    }

    /// A process that was told to stop, and has.
    fn on_stopping(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        let Life::Stopping(until) = machine.life else { return };
        let stopped = machine.process.as_ref().is_some_and(|process| process.driver.is_stopped());
        if stopped || self.now >= until {
            let how = if stopped { "has stopped" } else { "does not stop, and is killed" };
            self.note(&format!("node {node}"), format_args!("{how}"));
            self.switch_off(node, if stopped { Stopped::InOrder } else { Stopped::Killed });
            self.end_process(node, until.max(self.now + MS));
        }
    }

    /// What a host's turn is given.
    fn env(&mut self) -> Env<'_> {
        Env {
            net: &self.net,
            history: &mut self.history,
            orders: &mut self.orders,
            load: &self.plan.load,
            standby: self.plan.standby,
            granules: self.granules.max(1),
            runs: [self.machines[0].run, self.machines[1].run],
            serving: self.serving,
        }
    }

    fn turn_contender(&mut self, at: usize) -> Check {
        let mut all = core::mem::take(&mut self.contenders);
        let (now, mut env) = (self.now, self.env());
        let turned = all[at].turn(now, &mut env);
        self.contenders = all;
        let news = self.contenders[at].take_news();
        for news in &news {
            self.note(&format!("host {}", self.plan.load.hosts + at), format_args!("{news}"));
        }
        turned?;
        if news.is_empty() { Ok(()) } else { self.check_claimed() }
    }

    fn turn_host(&mut self, at: usize) -> Check {
        let mut all = core::mem::take(&mut self.hosts);
        let (now, mut env) = (self.now, self.env());
        let turned = all[at].turn(now, &mut env);
        self.hosts = all;
        turned?;
        for (node, invoked) in self.hosts[at].take_served() {
            if self.plan.standby == StandbyMode::Refuse {
                self.check_let_in(node, invoked)?;
            }
        }
        let granted = self.hosts[at].take_news();
        granted.into_iter().try_for_each(|registration| self.check_granted(registration))
    }
}

fn disk(plan: &Plan, number: u64) -> Arc<SimBdev> {
    let config =
        SimConfig { seed: plan.seed ^ number << 32, latency_min: plan.disk.0, latency_max: plan.disk.1 };
    SimBdev::new(format!("disk{number}"), Uuid::from_u128(u128::from(number)), LEG, config)
}
