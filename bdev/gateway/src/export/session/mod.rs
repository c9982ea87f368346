//! One initiator's session with a target: its stream, its protocol, its jobs and one channel for each LUN.
//!
//! A session whose stream is gone stays until its I/Os came back: a successor of the same nexus is let in only then, so that
//! nothing of the old session lands after the new one began.

mod commands;
mod jobs;
mod management;
mod reservation;

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bdev::Completions;
use engine::{Core, Instant, Progress};
use iscsi::target::{self, Connection, Event};
use iscsi::{Protocol, TaskId};
use net::{Stream, StreamStatus};
use scsi::Sense;
use scsi::reservation::{InitiatorPort, Nexus};

use super::node::Node;
use super::reservations::Announcement;
use super::state::NexusId;
use crate::wire::{self, Sender};
use commands::{CachedUnit, Stalled};
use jobs::{Attached, Jobs};
use management::Management;

/// An initiator that says nothing for this long is pinged,
const QUIET: Duration = Duration::from_secs(15);
/// and when it says nothing for this long its session ends: a dead host must not hold a place for ever.
const SILENT: Duration = Duration::from_secs(45);

/// What a session asks of its target.
pub(super) enum Request {
    /// Somebody wants in.
    Login(target::LoginRequest),
    /// SendTargets.
    SendTargets(TaskId, target::SendTargets),
    /// Tell the other sessions what a change of reservations means for them.
    Announce(Announcement),
    /// End the tasks of every session at this LUN (all LUNs when `None`), then answer.
    Reset { request: TaskId, lun: Option<u16> },
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
    announcements: Vec<Announcement>,
    seen_blocks: BTreeMap<u16, u64>,
    done: Completions,
    sender: Sender,
    logging_out: bool,
    heard_at: Option<Instant>,
    pub(super) node: Option<Rc<Node>>,
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
            announcements: Vec::new(),
            seen_blocks: BTreeMap::new(),
            done: Completions::new(),
            sender: Sender::default(),
            logging_out: false,
            heard_at: None,
            node: None,
            who: None,
            nexus: None,
            portal_group,
            tsih: 0,
        }
    }

    /// Whoever logs in is known by now, and where.
    pub(super) fn identify(&mut self) {
        let (Some(who), Some(node)) = (&self.who, &self.node) else { return };
        let initiator = InitiatorPort::new(&who.initiator, who.isid);
        self.nexus = Some(Rc::new(Nexus { initiator, port: node.relative_port(self.portal_group) }));
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

    /// Ends the session from this side.
    pub(super) fn end(&mut self, why: &'static str) {
        self.connection.drop_connection(why);
        self.stream.close();
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.channels.values().filter_map(|attached| attached.channel.next_deadline()).min()
    }

    /// One turn; pushes what needs the target to `requests`.
    pub(super) fn poll(&mut self, now: Instant, requests: &mut Vec<Request>) -> Progress {
        let mut progress = self.stream.poll(now);
        progress |= self.poll_channels(now);
        if !self.is_over() {
            progress |= self.receive(now, requests);
            self.watch_silence(now);
            self.finish_management();
            progress |= self.transmit(now);
            // What was pushed leaves in this turn, not in the next.
            progress |= self.stream.poll(now);
            if self.connection.closed().is_some() && !self.stream.is_sending() {
                self.stream.close();
            }
        }
        requests.extend(self.announcements.drain(..).map(Request::Announce));
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
            }
            if pending.is_empty() {
                break;
            }
            for event in pending.drain(..) {
                taken += 1;
                self.on_event(event, now, requests);
            }
        }
        Progress::from_count(taken)
    }

    /// Pings a quiet initiator, and ends the session of a silent one.
    fn watch_silence(&mut self, now: Instant) {
        let heard = *self.heard_at.get_or_insert(now);
        if now - heard >= SILENT {
            self.end("the initiator is silent");
        } else if now - heard >= QUIET {
            // Once is enough: a second ping waits for the first one's answer.
            self.connection.ping();
        }
    }

    fn on_event(&mut self, event: Event, now: Instant, requests: &mut Vec<Request>) {
        match event {
            Event::LoginRequest(request) => requests.push(Request::Login(request)),
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
            self.close_job(task, now);
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
