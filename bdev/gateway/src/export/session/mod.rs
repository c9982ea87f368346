//! One initiator's session with a target: its stream, its protocol, its jobs and one channel for each LUN.
//!
//! A session whose stream is gone stays until its I/Os came back: a successor of the same nexus is let in only then, so that
//! nothing of the old session lands after the new one began.

mod commands;
mod jobs;
mod management;
mod paths;
mod reservation;

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bdev::{AccessState, Completions};
use engine::{Core, Instant, Progress};
use iscsi::target::{self, Connection, Event};
use iscsi::{Protocol, TaskId};
use net::{Stream, StreamStatus};
use scsi::Sense;
use scsi::reservation::{InitiatorPort, Nexus};

use super::logical_unit::LogicalUnit;
use super::node::{Lun, Node};
use super::relay::{self, Relay};
use super::reservations::Changing;
use super::resets::ResetKind;
use super::state::NexusId;
use crate::access::LunMask;
use crate::wire::{self, Sender};
use commands::{CachedUnit, Stalled};
use jobs::{Attached, Jobs};
pub(super) use management::Aborter;
use management::Management;
pub(super) use paths::Origin;
pub use paths::StandbyMode;

/// How long an initiator may say nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// It is pinged then,
    pub(super) quiet: Duration,
    /// and its session ends.
    pub(super) silence: Duration,
}

/// How long a session that was told that it ends has to take that.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How far the end of a session is that this side wants. A time that is `None` begins with the next turn.
#[derive(Clone, Copy, Debug)]
enum Farewell {
    /// Nobody wants it.
    None,
    /// The initiator was asked to log out.
    Asked { seconds: u16, until: Option<Instant>, why: &'static str },
    /// It was told that the session ends.
    Dismissed { until: Option<Instant>, why: &'static str },
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
}

pub(super) struct Session {
    /// The target's number of it.
    id: NexusId,
    core: Core,
    stream: Box<dyn Stream>,
    connection: Connection,
    jobs: Jobs,
    channels: BTreeMap<u16, Attached>,
    units: BTreeMap<u16, CachedUnit>,
    stalled: Option<Stalled>,
    management: Vec<Management>,
    /// What the target is asked for in this turn.
    asks: Vec<Request>,
    relay: Option<Relay>,
    pub(super) origin: Origin,
    seen_blocks: BTreeMap<u16, u64>,
    seen_access: BTreeMap<u16, AccessState>,
    done: Completions,
    sender: Sender,
    logging_out: bool,
    patience: Patience,
    heard_at: Option<Instant>,
    /// True while an answer to a ping is awaited.
    pinged: bool,
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
        core: &Core,
        stream: Box<dyn Stream>,
        config: target::Config,
        portal_group: i32,
        id: NexusId,
        patience: Patience,
    ) -> Self {
        Self {
            id,
            core: core.clone(),
            stream,
            connection: Connection::new(config),
            jobs: Jobs::default(),
            channels: BTreeMap::new(),
            units: BTreeMap::new(),
            stalled: None,
            management: Vec::new(),
            asks: Vec::new(),
            relay: None,
            origin: Origin::default(),
            seen_blocks: BTreeMap::new(),
            seen_access: BTreeMap::new(),
            done: Completions::new(),
            sender: Sender::default(),
            logging_out: false,
            patience,
            heard_at: None,
            pinged: false,
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
        self.nexus = Some(Rc::new(Nexus { initiator, port }));
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

    pub(super) fn stream(&self) -> &dyn Stream {
        &*self.stream
    }

    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    pub(super) fn is_full_feature(&self) -> bool {
        self.connection.is_full_feature()
    }

    /// True when nothing can come in any more.
    pub(super) fn is_over(&self) -> bool {
        let ended = self.connection.closed().is_some() && !self.stream.is_sending();
        ended || matches!(self.stream.status(), StreamStatus::Closed(_))
    }

    /// True when no I/O is under way.
    pub(super) fn is_drained(&self) -> bool {
        self.channels.values().all(|attached| attached.in_flight == 0)
    }

    /// Ends the session behind what it was answered, and says that it may come back after `seconds`.
    pub(super) fn dismiss(&mut self, seconds: u16, why: &'static str) {
        if self.is_full_feature() {
            self.connection.dismiss(seconds, why);
            self.farewell = Farewell::Dismissed { until: None, why };
        } else {
            self.end(why);
        }
    }

    /// Asks the initiator to log out; one that does not within `seconds` is dismissed.
    pub(super) fn request_logout(&mut self, seconds: u16, why: &'static str) {
        match self.farewell {
            Farewell::None if self.is_full_feature() => {
                self.connection.request_logout(seconds);
                self.farewell = Farewell::Asked { seconds, until: None, why };
            }
            Farewell::None => self.end(why),
            Farewell::Asked { .. } | Farewell::Dismissed { .. } => {}
        }
    }

    /// Goes on with a farewell whose time has come.
    fn take_leave(&mut self, now: Instant) {
        match &mut self.farewell {
            Farewell::None => {}
            Farewell::Asked { seconds, until, why } => {
                let (seconds, why) = (*seconds, *why);
                let until = *until.get_or_insert(now + Duration::from_secs(seconds.into()));
                if now >= until {
                    self.dismiss(0, why);
                }
            }
            Farewell::Dismissed { until, why } => {
                let why = *why;
                if now >= *until.get_or_insert(now + LAST_WORDS) {
                    self.end(why);
                }
            }
        }
    }

    /// Ends the session from this side.
    pub(super) fn end(&mut self, why: &'static str) {
        self.connection.drop_connection(why);
        self.stream.close();
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let farewell = match self.farewell {
            Farewell::Asked { until, .. } | Farewell::Dismissed { until, .. } => until,
            Farewell::None => None,
        };
        let silence = self
            .heard_at
            .map(|heard| heard + if self.pinged { self.patience.silence } else { self.patience.quiet });
        let channels = self.channels.values().filter_map(|attached| attached.channel.next_deadline()).min();
        let relay = self.relay.as_ref().and_then(Relay::next_deadline);
        [channels, farewell, silence, relay, self.passages_deadline()].into_iter().flatten().min()
    }

    /// One turn; pushes what needs the target to `requests`.
    pub(super) fn poll(&mut self, now: Instant, requests: &mut Vec<Request>) -> Progress {
        let mut progress = self.stream.poll(now);
        progress |= self.poll_channels(now);
        progress |= self.poll_relay(now);
        if !self.is_over() {
            progress |= self.receive(now, requests);
            self.watch_silence(now);
            self.take_leave(now);
            self.finish_management();
            progress |= self.transmit(now);
            // What was pushed leaves in this turn, not in the next.
            progress |= self.stream.poll(now);
            if self.connection.closed().is_some() && !self.stream.is_sending() {
                self.stream.close();
            }
        }
        if self.is_over() {
            self.drop_relay(now);
        }
        requests.append(&mut self.asks);
        progress
    }

    fn receive(&mut self, now: Instant, requests: &mut Vec<Request>) -> Progress {
        let mut taken = 0;
        loop {
            self.retry_stalled(now);
            if self.stalled.is_some() {
                break;
            }
            // Stop at each event: its answer may change what the next bytes mean.
            let pending = &mut VecDeque::new();
            let count =
                wire::receive(&mut *self.stream, &mut self.connection, &mut self.jobs, |connection| {
                    pending.extend(connection.poll_event());
                    !pending.is_empty()
                });
            pending.extend(self.connection.poll_event());
            taken += count;
            if count > 0 {
                self.heard_at = Some(now);
                self.pinged = false;
            }
            if pending.is_empty() {
                break;
            }
            for event in pending.drain(..) {
                taken += 1;
                self.on_event(event, now, requests);
            }
            // What comes behind a request waits for it: a reset ends what came before, not what comes after.
            if !requests.is_empty() {
                break;
            }
        }
        Progress::from_count(taken)
    }

    /// Pings a quiet initiator, and ends the session of a silent one.
    fn watch_silence(&mut self, now: Instant) {
        let heard = *self.heard_at.get_or_insert(now);
        if now - heard >= self.patience.silence {
            self.end("the initiator is silent");
        } else if now - heard >= self.patience.quiet {
            // Once is enough: a second ping waits for the first one's answer.
            self.connection.ping();
            self.pinged = true;
        }
    }

    fn on_event(&mut self, event: Event, now: Instant, requests: &mut Vec<Request>) {
        match event {
            Event::LoginRequest(request) => requests.push(Request::Login(request)),
            Event::LoginComplete => requests.push(Request::LoginComplete),
            Event::LoggedIn | Event::Pong => {}
            Event::Command(command) => self.on_command(command, now),
            Event::DataComplete(task) => self.on_collected(task, now),
            Event::DataLost(task) => self.fail(task, Sense::CRC_ERROR),
            Event::SendTargets { request, which } => requests.push(Request::SendTargets(request, which)),
            Event::TaskManagement { request, lun, function } => {
                self.on_management(request, lun, function, now, requests);
            }
            Event::LogoutRequest => self.logging_out = true,
        }
    }

    fn transmit(&mut self, now: Instant) -> Progress {
        let sent = self.sender.run(&mut *self.stream, &mut self.connection, &self.jobs, self.core.pool());
        let Ok(mut count) = sent else {
            self.end("internal error: a response without its buffer");
            return Progress::Busy;
        };
        for task in std::mem::take(&mut self.sender.ended) {
            // An aborted task may have a status and an I/O under way, which is waited for.
            if self.jobs.open.get(&task).is_some_and(|job| !job.in_flight) {
                self.close_job(task, now);
            }
        }
        if self.logging_out && self.jobs.open.is_empty() {
            self.logging_out = false;
            self.connection.finish_logout();
            count += 1;
        }
        Progress::from_count(count)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for job in self.jobs.open.values() {
            job.leave();
        }
    }
}
