//! Faults strike: only such as the array is meant to survive. What would take the last good copy of an acknowledged write
//! is left out, and the journal says so.

use core::net::IpAddr;
use core::time::Duration;

use bdev::sim::{SimFault, Survival};
use gateway::LunMode;
use mirror::command::Command;
use mirror::decide::PromoteMode;
use mirror::format::layout::{LOG_OFFSET, SUPERBLOCK_OFFSET};
use mirror::format::{ArbiterKind, BLOCK_BYTES, LegIndex, LegMask};
use mirror::holder::resync::Throttle;
use mirror::status::RoleKind;
use net::sim::Halt;

use super::contender::Contender;
use super::coverage::Phase;
use super::disks::Damaged;
use super::fault::{Event, Fault, Still, Way, Who};
use super::host;
use super::machine::{self, Flush, Life};
use super::setback::SetBack;
use super::world::{Check, Stopped, World};

/// How long an event waits for its phase.
const PHASE_WAIT: Duration = Duration::from_secs(4);
/// How long one waits that needs an array that is whole.
const WHOLE_WAIT: Duration = Duration::from_secs(20);
/// Metadata offsets of the logical unit's state.
const UNIT_STATE: core::ops::Range<u64> = 128 << 10..256 << 10;

/// The end of a fault that lasts.
#[derive(Clone, Debug)]
pub(crate) enum Undo {
    Mend(Vec<(IpAddr, IpAddr)>),
    Hasten(Vec<(IpAddr, IpAddr)>),
    Arbiter(Vec<usize>),
    HastenDisk(usize),
    WakeDisk(usize),
    HastenArbiter,
    Resume,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    Process,
    Power,
}

impl World {
    /// Ends what is over, and does what is due.
    pub(crate) fn strike(&mut self) -> Check {
        let now = self.now;
        let over: Vec<Undo> = self.undos.extract_if(.., |(at, _)| *at <= now).map(|(_, undo)| undo).collect();
        over.into_iter().for_each(|undo| self.undo(undo));
        while self.events.front().is_some_and(|event| self.began + event.at <= now) {
            self.waiting.extend(self.events.pop_front());
        }
        for event in core::mem::take(&mut self.waiting) {
            let late = now >= self.began + event.at + PHASE_WAIT;
            if self.waits_for_a_better_moment(&event) {
                self.waiting.push(event);
            } else if late || event.during.is_none_or(|phase| self.is_in(phase)) {
                self.inflict(&event)?;
            } else {
                self.waiting.push(event);
            }
        }
        Ok(())
    }

    /// What tears the array apart waits until it is whole.
    fn waits_for_a_better_moment(&self, event: &Event) -> bool {
        let early = self.now < self.began + event.at + WHOLE_WAIT;
        early && matches!(event.fault, Fault::ForceBehind(..)) && !self.may_be_torn_apart()
    }

    fn is_writing(&self, from: u64, to: u64) -> bool {
        let within = |range: bdev::BlockRange| (from..to).contains(&(range.lba * 512));
        self.machines.iter().any(|machine| machine.disk.writes_in_flight().into_iter().any(within))
    }

    fn is_in(&self, phase: Phase) -> bool {
        match phase {
            Phase::Idle => !Phase::ALL[1..].iter().any(|phase| self.is_in(*phase)),
            Phase::Write => {
                self.hosts.iter().any(host::Host::is_writing)
                    || self.contenders.iter().any(Contender::is_writing)
            }
            Phase::LogWrite => self.is_writing(LOG_OFFSET, LOG_OFFSET + (1 << 20)),
            Phase::Resync => self.views.iter().flatten().any(|view| view.resync),
            Phase::ConfigChange => {
                self.arbiter.is_changing()
                    || self.is_writing(SUPERBLOCK_OFFSET, SUPERBLOCK_OFFSET + 2 * BLOCK_BYTES)
            }
            Phase::ReservationChange => self.is_writing(UNIT_STATE.start, UNIT_STATE.end),
        }
    }

    pub(crate) fn nodes(&self, who: Who) -> Vec<usize> {
        match who {
            Who::Holder => vec![self.serving],
            Who::Peer => vec![1 - self.serving],
            Who::Both => vec![0, 1],
        }
    }

    /// Everything acknowledged is elsewhere.
    pub(crate) fn is_expendable(&self, node: usize) -> bool {
        let other = 1 - node;
        if self.split.is_some() {
            return false;
        }
        let counted = self.newest_config().is_some_and(|config| config.in_sync.has(LegIndex::BOTH[other]));
        let damage = self.damage[other];
        counted && !damage.leg_lost && !damage.cache_lost && self.records.is_whole(other)
    }

    /// The same of a node whose disk is lost: a config on its way that counts this leg alone makes it the last one, and the
    /// other's node cannot know that nothing was acknowledged in it. Two legs lost at once are outside the fault model. For a
    /// lost cache this does not matter: the leg was flushed before anybody was asked for such a config.
    pub(crate) fn is_leg_expendable(&self, node: usize) -> bool {
        let last = LegMask::only(LegIndex::BOTH[node]);
        self.is_expendable(node) && self.arbiter.coming().all(|config| config.in_sync != last)
    }

    fn inflict(&mut self, event: &Event) -> Check {
        let fault = event.fault;
        let shaky = self.damage.iter().any(|damage| damage.set_back != SetBack::No);
        if shaky && !matches!(fault, Fault::Corrupt(Way::ToHosts(_)) | Fault::Cut(Way::Hosts(_), _)) {
            self.note("fault", format_args!("left out while a leg was set back: {fault:?}"));
            return Ok(());
        }
        if !self.bears_while_split(fault) {
            self.note("fault", format_args!("left out while there are two data sets: {fault:?}"));
            return Ok(());
        }
        let phases: Vec<Phase> = Phase::ALL.into_iter().filter(|phase| self.is_in(*phase)).collect();
        self.note("fault", format_args!("{fault:?} (holder {}) during {phases:?}", self.serving));
        if self.apply(fault)? {
            self.coverage.count(fault.point(), &phases);
        } else {
            self.note("fault", format_args!("left out: it would be more than the array is to survive"));
        }
        Ok(())
    }

    /// False: it was left out.
    fn apply(&mut self, fault: Fault) -> Check<bool> {
        match fault {
            Fault::Kill(who, down) => self.end_all(who, down, Death::Process)?,
            Fault::PowerCut(who, down) => self.end_all(who, down, Death::Power)?,
            Fault::Pause(who, how, time) => {
                for node in self.nodes(who) {
                    self.pause(node, how, time);
                }
            }
            Fault::Stop(who, down) => {
                for node in self.nodes(who) {
                    self.stop(node, down);
                }
            }
            Fault::Cut(way, time) => self.cut(way, time),
            Fault::Isolate(time) => self.isolate(time),
            Fault::Reset(way) => {
                for (a, b) in self.pairs(way) {
                    self.net.reset(a, b);
                }
            }
            Fault::Corrupt(way) => {
                for (a, b) in self.pairs(way) {
                    self.net.corrupt_next(a, b);
                }
            }
            Fault::SlowWay(way, extra, time) => {
                let pairs = self.pairs(way);
                for (a, b) in &pairs {
                    self.net.slow_down(*a, *b, extra);
                }
                self.undos.push((self.now + time, Undo::Hasten(pairs)));
            }
            Fault::SlowDisk(who, extra, time) => {
                for node in self.nodes(who) {
                    self.machines[node].disk.slow_down(extra);
                    self.undos.push((self.now + time, Undo::HastenDisk(node)));
                }
            }
            Fault::StickWrites(who, count, extra) => {
                for node in self.nodes(who) {
                    self.machines[node].disk.inject(SimFault::DelayWrites { count, extra });
                }
            }
            Fault::HangDisk(who, time) => {
                for node in self.nodes(who) {
                    self.machines[node].disk.hang();
                    self.undos.push((self.now + time, Undo::WakeDisk(node)));
                }
            }
            Fault::Spoil(who, what, count) => self.spoil(who, what, count),
            Fault::BadBlock(who) => self.bad_block(who),
            Fault::Rot(who, place) => return Ok(self.damage_metadata(who, place, Damaged::Bit)),
            Fault::Misdirect(who, place) => {
                return Ok(self.damage_metadata(who, place, Damaged::Misdirected));
            }
            Fault::ReplaceDisk(_) | Fault::RevertLeg(_) | Fault::CloneLeg(_) => return self.exchange(fault),
            Fault::SlowArbiter(extra, time) => {
                self.arbiter.slow = extra;
                self.undos.push((self.now + time, Undo::HastenArbiter));
            }
            Fault::RestoreArbiter => return Ok(self.restore_arbiter()),
            Fault::LoseArbiter => self.arbiter.record = None,
            // Also one that is refused has struck: during a resync each is.
            Fault::Switchover => _ = self.command(self.serving, Command::Switchover),
            Fault::Demote(how) => self.demote(how),
            Fault::StartAlone(after) => return self.start_alone(after),
            Fault::ChooseGroup => return Ok(self.choose_group()),
            Fault::PauseResync(time) => {
                self.command(self.serving, Command::Resync(Throttle::Paused));
                self.undos.push((self.now + time, Undo::Resume));
            }
            Fault::Promote => self.promote_soon(PromoteMode::Ordinary)?,
            Fault::ForcePromote => self.promote_soon(PromoteMode::Forced)?,
            Fault::ForceBehind(gone, keeps, upset) => return Ok(self.tear_apart(gone, keeps, upset)),
        }
        Ok(true)
    }

    // --- Nodes ---

    fn end_all(&mut self, who: Who, down: Duration, death: Death) -> Check {
        let nodes = self.nodes(who);
        self.look_at_legs("before a node dies")?;
        // A cache that holds the only copy of an unflushed write is not lost: the LUN's mode says that much.
        let power = death == Death::Power
            && (self.plan.mode == LunMode::SyncDurable || nodes.len() == 1 && self.is_expendable(nodes[0]));
        for node in &nodes {
            let pause = Duration::from_millis(if nodes.len() == 2 { self.prng.below(700) } else { 0 });
            self.end_node(*node, down + pause, if power { Death::Power } else { Death::Process });
        }
        self.look_at_legs("after a node died")
    }

    fn promote_soon(&mut self, mode: PromoteMode) -> Check {
        self.end_all(Who::Holder, Duration::from_secs(8), Death::Process)?;
        // The old holder's session counts for a while.
        self.promote_at = Some((self.now + Duration::from_millis(500 + self.prng.below(3000)), mode));
        Ok(())
    }

    pub(crate) fn end_node(&mut self, node: usize, down: Duration, death: Death) {
        let survival = match self.prng.below(3) {
            0 => Survival::All,
            1 => Survival::None,
            _ => Survival::Random,
        };
        let machine = &mut self.machines[node];
        match death {
            Death::Power => {
                machine.disk.crash_with(survival);
                machine.boot += 1;
                self.net.halt(machine::address(node), Halt::PowerOff);
                self.damage[node].cache_lost = true;
            }
            Death::Process => {
                machine.disk.kill();
                self.net.thaw(machine::address(node));
                self.net.halt(machine::address(node), Halt::Kill);
            }
        }
        self.end_process(node, self.now + down);
    }

    /// The process is gone; a new one starts then.
    pub(crate) fn end_process(&mut self, node: usize, again: engine::Instant) {
        let machine = &mut self.machines[node];
        if machine.process.take().is_some() {
            self.net.halt(machine::address(node), Halt::Kill);
        }
        self.net.thaw(machine::address(node));
        (machine.life, machine.due) = (Life::Down(again), again);
        (self.views[node], self.alone[node]) = (None, None);
    }

    /// The machine of a process that was told to stop is often switched off, too. What stopped in order has flushed its leg
    /// (R12), unless that failed; only of the holder's leg does the array know it, which is believed for it.
    pub(crate) fn switch_off(&mut self, node: usize, how: Stopped) {
        let held = self.views[node].is_some_and(|view| {
            matches!(view.role, RoleKind::Holder | RoleKind::Stopping | RoleKind::Stopped)
        });
        let sound = self.machines[node].flush == Flush::Sound;
        let flushed = how == Stopped::InOrder && sound && held && self.serving == node;
        let safe = flushed || self.plan.mode == LunMode::SyncDurable || self.is_expendable(node);
        if safe && self.prng.percent(50) {
            self.machines[node].disk.crash_with(Survival::None);
            self.machines[node].boot += 1;
            self.damage[node].cache_lost |= !flushed;
            self.note(&format!("node {node}"), format_args!("is switched off"));
        } else if how == Stopped::Killed {
            self.machines[node].disk.kill();
        }
    }

    fn pause(&mut self, node: usize, how: Still, time: Duration) {
        let machine = &mut self.machines[node];
        if machine.life != Life::Up {
            return;
        }
        let until = self.now + time;
        (machine.life, machine.due) = (Life::Still(how, until), until);
        if how == Still::Machine {
            self.net.freeze(machine::address(node));
        }
    }

    fn stop(&mut self, node: usize, down: Duration) {
        let now = self.now;
        let machine = &mut self.machines[node];
        if machine.life != Life::Up {
            return;
        }
        let local = machine.clock.local(now);
        if let Some(process) = &mut machine.process {
            process.driver.stop(local);
            // An administrator's patience.
            machine.life = Life::Stopping(now + down + Duration::from_secs(3));
            machine.wake(now);
        }
    }

    // --- Ways ---

    fn pairs(&self, way: Way) -> Vec<(IpAddr, IpAddr)> {
        let at = machine::address;
        let (holder, peer) = (at(self.serving), at(1 - self.serving));
        let hosts = |who: Who, both: bool| {
            let nodes = self.nodes(who);
            let hosts = self.plan.initiators().map(host::address);
            hosts
                .flat_map(|host| nodes.iter().map(move |node| (at(*node), host)))
                .flat_map(|(node, host)| [Some((node, host)), both.then_some((host, node))])
                .flatten()
                .collect()
        };
        match way {
            Way::Nodes => vec![(holder, peer), (peer, holder)],
            Way::HolderToPeer => vec![(holder, peer)],
            Way::PeerToHolder => vec![(peer, holder)],
            Way::Hosts(who) => hosts(who, true),
            Way::ToHosts(who) => hosts(who, false),
            Way::Arbiter(_) | Way::FromArbiter(_) => Vec::new(),
        }
    }

    /// The last host sees the old holder, and the others its peer.
    fn isolate(&mut self, time: Duration) {
        let holder = machine::address(self.serving);
        let others = (0..self.plan.initiators().end.saturating_sub(1)).map(host::address);
        let others: Vec<IpAddr> = others.chain([machine::address(1 - self.serving)]).collect();
        for other in &others {
            self.net.reset(holder, *other);
            self.net.partition(holder, *other);
        }
        let pairs = others.into_iter().map(|other| (holder, other)).collect();
        self.undos.push((self.now + time, Undo::Mend(pairs)));
        self.cut(Way::Arbiter(Who::Holder), time);
    }

    fn cut(&mut self, way: Way, time: Duration) {
        let until = self.now + time;
        match way {
            Way::Arbiter(who) | Way::FromArbiter(who) => {
                let nodes = self.nodes(who);
                for node in &nodes {
                    self.arbiter.answers_pass[*node] = false;
                    self.arbiter.asks_pass[*node] = matches!(way, Way::FromArbiter(_));
                }
                self.undos.push((until, Undo::Arbiter(nodes)));
            }
            _ => {
                let pairs = self.pairs(way);
                for (from, to) in &pairs {
                    self.net.partition_one_way(*from, *to);
                }
                self.undos.push((until, Undo::Mend(pairs)));
            }
        }
    }

    pub(crate) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Mend(pairs) => pairs.into_iter().for_each(|(a, b)| self.net.heal(a, b)),
            Undo::Hasten(pairs) => {
                pairs.into_iter().for_each(|(a, b)| self.net.slow_down(a, b, Duration::ZERO));
            }
            Undo::Arbiter(nodes) => {
                for node in nodes {
                    (self.arbiter.asks_pass[node], self.arbiter.answers_pass[node]) = (true, true);
                }
            }
            Undo::HastenDisk(node) => self.machines[node].disk.slow_down(Duration::ZERO),
            Undo::WakeDisk(node) => self.machines[node].disk.wake(),
            Undo::HastenArbiter => self.arbiter.slow = Duration::ZERO,
            Undo::Resume => self.resume(),
        }
    }

    // --- The arbiter ---

    /// Back to an older config, unless the legs could not know better: one that counts a leg which the newest does not.
    fn restore_arbiter(&mut self) -> bool {
        let Some(newest) = self.newest_config() else { return false };
        let past = &self.arbiter.past;
        if past.len() < 2 || self.plan.policy != ArbiterKind::Etcd {
            return false;
        }
        let record = past[self.prng.below(past.len() as u64 - 1) as usize];
        let in_sync = record.current().in_sync;
        let known = newest.in_sync == LegMask::both() || newest.in_sync.contains(in_sync);
        if known {
            self.arbiter.record = Some(record);
        }
        known
    }
}
