//! One initiator's session with a target: its connections, its jobs and one channel for each LUN.
//!
//! A session whose last connection is gone stays until its I/Os came back: a successor of the same nexus is let in only then, so that
//! nothing of the old session lands after the new one began.

mod access_states;
mod alteration;
mod background;
mod barrier;
mod commands;
mod dormant;
mod farewell;
mod fence;
mod footing;
mod frames;
mod jobs;
mod links;
mod logout;
mod lost;
mod management;
mod masking;
mod passed_resets;
pub(super) mod paths;
mod reservation;
mod turns;
mod withheld;

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bdev::Completions;
use engine::{Core, Instant, Progress};
use iscsi::target::{self, Connection, DataFault, Event};
use iscsi::{Protocol, TaskId};
use net::Stream;
use scsi::Sense;
use scsi::reservation::{InitiatorPort, Nexus};

use super::departure::Departure;
use super::logical_unit::LogicalUnit;
use super::long::LongCommands;
use super::node::{Lun, Node};
use super::relay::{self, Relay};
use super::reservations::Changing;
use super::resets::ResetKind;
use super::state::NexusId;
use crate::access::LunMask;
use crate::wire;
use access_states::AccessStates;
use background::Background;
use commands::{CachedUnit, Stalled};
use farewell::Farewell;
use fence::Fenced;
use frames::Arrivals;
use jobs::{Attached, Jobs};
pub(super) use links::Link;
use links::Links;
pub(super) use management::Aborter;
use management::{Management, TargetReset};
use passed_resets::PassedReset;
pub(super) use paths::Origin;
pub use paths::StandbyMode;
use turns::Turns;

/// How long an initiator may say nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// It is pinged then,
    pub(super) quiet: Duration,
    /// and its session ends.
    pub(super) silence: Duration,
}

/// What a session asks of its target.
pub(super) enum Request {
    /// Somebody wants in.
    Login(target::LoginRequest),
    /// Whoever wanted in is authenticated, and all is negotiated.
    LoginComplete,
    /// SendTargets.
    SendTargets(TaskId, target::SendTargets),
    /// Make a stream to the peer, for the session's relay.
    Dial,
    /// Put a change of reservations in force, then tell the other sessions what it means for them.
    Change(Changing),
    /// End tasks of every session at these units, then answer.
    Reset { request: TaskId, units: Vec<Rc<LogicalUnit>>, kind: ResetKind },
    /// End every session of the session's target: it was reset.
    EndSessions,
}

pub(super) struct Session {
    /// The target's number of it.
    pub(super) id: NexusId,
    core: Core,
    /// Its turns to move more than a frame holds.
    turns: Turns,
    pub(super) links: Links,
    jobs: Jobs,
    channels: BTreeMap<u16, Attached>,
    /// Of LUNs that are gone, until nothing is under way there.
    leaving: Vec<Attached>,
    units: BTreeMap<u16, CachedUnit>,
    stalled: Option<Stalled>,
    /// Commands that wait in task sets, in the order in which they came.
    dormant: VecDeque<TaskId>,
    /// Commands that have no frame yet, the oldest first.
    parked: VecDeque<TaskId>,
    /// Since when no command that had to be parked could be.
    impatient_since: Option<Instant>,
    arrivals: Arrivals,
    withheld_looked_at: Instant,
    management: Vec<Management>,
    target_resets: Vec<TargetReset>,
    passed_resets: Vec<PassedReset>,
    fenced: Vec<Fenced>,
    /// What the target is asked for in this turn.
    asks: Vec<Request>,
    relay: Option<Relay>,
    pub(super) origin: Origin,
    seen_blocks: BTreeMap<u16, u64>,
    access_states: AccessStates,
    /// Copies whose command has ended.
    background: Vec<Background>,
    last_background: u32,
    done: Completions,
    patience: Patience,
    farewell: Farewell,
    pub(super) node: Option<Rc<Node>>,
    /// Which of the node's LUNs show.
    pub(super) mask: LunMask,
    pub(super) who: Option<target::LoginRequest>,
    /// Who this session is to reservations, from the login on.
    pub(super) nexus: Option<Rc<Nexus>>,
    pub(super) portal_group: i32,
    pub(super) tsih: u16,
}

impl Session {
    pub(super) fn new(
        (core, long_commands): (&Core, &Rc<LongCommands>),
        stream: Box<dyn Stream>,
        config: target::Config,
        portal_group: i32,
        id: NexusId,
        patience: Patience,
    ) -> Self {
        Self {
            id,
            core: core.clone(),
            turns: Turns::new(long_commands, id),
            links: Links::new(Link::new(id, stream, Connection::new(config))),
            jobs: Jobs::default(),
            channels: BTreeMap::new(),
            leaving: Vec::new(),
            units: BTreeMap::new(),
            stalled: None,
            dormant: VecDeque::new(),
            parked: VecDeque::new(),
            impatient_since: None,
            arrivals: Arrivals::default(),
            withheld_looked_at: Instant::EPOCH,
            management: Vec::new(),
            target_resets: Vec::new(),
            passed_resets: Vec::new(),
            fenced: Vec::new(),
            asks: Vec::new(),
            relay: None,
            origin: Origin::default(),
            seen_blocks: BTreeMap::new(),
            access_states: AccessStates::default(),
            background: Vec::new(),
            last_background: 0,
            done: Completions::new(),
            patience,
            farewell: Farewell::None,
            node: None,
            mask: LunMask::All,
            who: None,
            nexus: None,
            portal_group,
            tsih: 0,
        }
    }

    /// Whoever logs in is known by now, and where.
    pub(super) fn identify(&mut self) {
        let (Some(who), Some(port)) = (&self.who, self.port()) else { return };
        let initiator = InitiatorPort::new(&who.initiator, who.isid);
        self.nexus = initiator.map(|initiator| Rc::new(Nexus { initiator, port }));
        self.turns.belong_to(&who.initiator, self.id, self.origin);
    }

    /// The target port that the session is at: here, or at the peer that relays it.
    pub(super) fn port(&self) -> Option<u16> {
        let (who, node) = (self.who.as_ref()?, self.node.as_ref()?);
        Some(match self.origin {
            Origin::Host => node.relative_port(self.portal_group),
            Origin::Peer => relay::port_of(&who.initiator_alias).unwrap_or_default(),
        })
    }

    /// A LUN that shows here.
    pub(super) fn lun(&self, number: u16) -> Option<Rc<Lun>> {
        self.node.as_ref().filter(|_| self.mask.shows(number))?.lun(number)
    }

    /// The stream of the first connection.
    pub(super) fn stream(&self) -> &dyn Stream {
        &*self.links.leading().stream
    }

    /// The first connection: the only one during a login.
    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.links.leading_mut().connection
    }

    pub(super) fn is_full_feature(&self) -> bool {
        self.may_be_continued() || self.links.iter().any(|link| link.connection.is_full_feature())
    }

    /// True when nothing can come in any more.
    pub(super) fn is_over(&self) -> bool {
        !self.has_lost() && self.links.iter().all(Link::is_over) && !self.links.iter().any(Link::may_be_lost)
    }

    /// How its first connection ended, where this end closed it.
    pub(super) fn departure(&self) -> Option<Departure> {
        let link = self.links.leading();
        let why = link.connection.closed()?.clone();
        let initiator = self.who.as_ref().map(|who| who.initiator.clone());
        Some(Departure { address: link.stream.peer_addr(), initiator, why })
    }

    /// True when nothing is under way, here or at the peer: no I/O, and no change of what a unit keeps, which is in force when it
    /// is stored, whatever has become of the session by then.
    pub(super) fn is_drained(&self) -> bool {
        let idle = self.channels.values().all(|attached| attached.in_flight == 0);
        idle && self.leaving.is_empty() && !self.has_passed() && !self.jobs.is_at_work()
    }

    /// Ends the session from this side.
    pub(super) fn end(&mut self, why: &'static str) {
        self.links.give_up();
        self.links.iter_mut().for_each(|link| link.end_for_good(why));
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let farewell = match self.farewell {
            Farewell::Asked { until, .. } | Farewell::Dismissed { until, .. } => until,
            Farewell::None => None,
        };
        let silence = self.links.iter().filter_map(|link| link.silence(&self.patience)).min();
        let channels = self.channels.values().chain(&self.leaving);
        let channels = channels.filter_map(|attached| attached.channel.next_deadline()).min();
        let relay = self.relay.as_ref().and_then(Relay::next_deadline);
        let others = [
            self.passages_deadline(),
            self.lost_deadline(),
            self.resets_deadline(),
            self.patience_deadline(),
            self.barrier_deadline(),
            self.turns_deadline(),
            self.withheld_deadline(),
        ];
        [channels, farewell, silence, relay].into_iter().chain(others).flatten().min()
    }

    /// One turn; pushes what needs the target to `requests`.
    pub(super) fn poll(&mut self, now: Instant, requests: &mut Vec<Request>) -> Progress {
        let mut progress = Progress::Idle;
        self.links.iter_mut().for_each(|link| progress |= link.stream.poll(now));
        progress |= self.turns.settle();
        progress |= self.poll_channels(now);
        progress |= self.poll_background(now);
        progress |= self.poll_relay(now);
        self.move_resets(now);
        if self.origin == Origin::Peer {
            // What comes behind too long a silence is not taken any more: the peer goes by that.
            self.watch_silence(now);
        }
        if !self.is_over() {
            let received = self.receive(now, requests);
            if received.is_busy() {
                // What a device has at once is answered in this turn.
                progress |= received | self.poll_channels(now);
            }
            self.watch_silence(now);
            self.watch_data(now);
            progress |= self.watch_turns(now);
            progress |= self.watch_withheld(now);
            self.take_leave(now);
            self.finish_management();
            self.finish_fenced();
            for index in 0..self.links.len() {
                progress |= self.transmit(index, now);
            }
            progress |= self.finish_logouts(now);
        }
        if self.is_over() {
            progress |= self.end_waiting(now);
            self.leave_peer(now);
        }
        self.seek_barrier(now);
        requests.append(&mut self.asks);
        progress
    }

    fn receive(&mut self, now: Instant, requests: &mut Vec<Request>) -> Progress {
        let mut taken = 0;
        self.wake(now);
        self.unpark(now);
        for index in 0..self.links.len() {
            taken += self.receive_from(index, now, requests);
        }
        Progress::from_count(taken)
    }

    fn receive_from(&mut self, index: usize, now: Instant, requests: &mut Vec<Request>) -> usize {
        let mut taken = 0;
        loop {
            self.retry_stalled(now);
            // What comes behind a request waits for it: a reset ends what came before, not what comes after.
            if self.stalled.is_some() || !requests.is_empty() {
                break;
            }
            if let Some((from, event)) = self.next_event(index) {
                taken += 1;
                self.on_event(from, event, now, requests);
                continue;
            }
            // Stop at each event: its answer may change what the next bytes mean.
            let link = self.links.at(index);
            let count =
                wire::receive(&mut *link.stream, &mut link.connection, &mut self.jobs, |connection| {
                    connection.has_event()
                });
            if count > 0 {
                link.heard_at = Some(now);
                link.pinged = false;
            }
            taken += count;
            if count == 0 {
                break;
            }
        }
        taken
    }

    /// The next event of a connection; or of another, whose requests may have been waiting for this one's.
    fn next_event(&mut self, index: usize) -> Option<(usize, Event)> {
        if let Some(event) = self.links.at(index).connection.poll_event() {
            return Some((index, event));
        }
        let others = (0..self.links.len()).filter(|other| *other != index);
        others.into_iter().find_map(|other| Some((other, self.links.at(other).connection.poll_event()?)))
    }

    /// Pings a quiet initiator, and ends the connection of a silent one.
    fn watch_silence(&mut self, now: Instant) {
        for link in self.links.iter_mut() {
            let heard = *link.heard_at.get_or_insert(now);
            if now - heard >= self.patience.silence {
                link.end("the initiator is silent");
            } else if now - heard >= self.patience.quiet {
                // Once is enough: a second ping waits for the first one's answer.
                link.connection.ping();
                link.pinged = true;
            }
        }
    }

    fn on_event(&mut self, from: usize, event: Event, now: Instant, requests: &mut Vec<Request>) {
        match event {
            Event::LoginRequest(request) => requests.push(Request::Login(request)),
            Event::LoginComplete => requests.push(Request::LoginComplete),
            Event::LoggedIn | Event::Pong => {}
            Event::Ended(task) => self.end_answered(task, now),
            Event::Command(command) => self.on_command(command, now),
            Event::DataComplete(task) => self.on_collected(task, now),
            Event::DataOver(task) => self.on_data_over(task),
            Event::DataLost(task, fault) => self.fail(task, data_fault(fault)),
            Event::SendTargets { request, which } => requests.push(Request::SendTargets(request, which)),
            Event::TaskManagement { request, lun, function } => {
                self.on_management(request, lun, function, now, requests);
            }
            Event::LogoutRequest { request, what } => self.on_logout(from, request, what, now),
        }
    }

    fn transmit(&mut self, index: usize, now: Instant) -> Progress {
        let link = self.links.at(index);
        if link.is_over() {
            return Progress::Idle;
        }
        let sent = link.sender.run(&mut *link.stream, &mut link.connection, &self.jobs, self.core.pool());
        let Ok(count) = sent else {
            link.end("internal error: a response without its buffer");
            return Progress::Busy;
        };
        let mut ended = std::mem::take(&mut link.sender.ended);
        for task in ended.drain(..) {
            self.end_answered(task, now);
        }
        self.links.at(index).sender.ended = ended;
        // What was pushed leaves in this turn, not in the next.
        let link = self.links.at(index);
        let progress = Progress::from_count(count) | link.stream.poll(now);
        if link.connection.closed().is_some() && !link.stream.is_sending() {
            link.stream.close();
        }
        progress
    }
}

/// What is wrong with a command's data, in SCSI's words (RFC 7143 section 11.4.7.2).
fn data_fault(fault: DataFault) -> Sense {
    match fault {
        DataFault::Damaged => Sense::CRC_ERROR,
        DataFault::Unexpected => Sense::UNEXPECTED_UNSOLICITED_DATA,
        DataFault::Amount => Sense::INCORRECT_AMOUNT_OF_DATA,
    }
}

impl Session {
    /// The task's answer is out, or acknowledged: its buffer is not needed any more.
    fn end_answered(&mut self, task: TaskId, now: Instant) {
        // An aborted task may have a status and an I/O under way, which is waited for.
        if self.jobs.open.get(&task).is_some_and(|job| !job.in_flight) {
            self.close_job(task, now);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for job in self.jobs.open.values() {
            job.leave();
        }
    }
}
