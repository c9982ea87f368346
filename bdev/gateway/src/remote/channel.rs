//! The data half of a remote device.
//!
//! ```text
//! Down --(retry time)--> LoggingIn --(logged in)--> Probing --(capacity)--> Up
//!   ^------- stream closed, login refused, silence, deadline missed ---------/
//! Probing, Up --(leave)--> Leaving --(logout answered, or patience over)--> Gone
//! Probing, Up --(the target asks for a logout)--> Down, while the old session logs out
//! Down, LoggingIn --(leave)--> Gone
//! ```
//!
//! The session may have several connections; what becomes of one that breaks off is in `live/`.

use std::collections::VecDeque;
use std::sync::Arc;

use bdev::{Channel, Completions, Durability, Geometry, Io, IoError, Link, LinkDown, Op, Refused};
use core::time::Duration;
use engine::{Core, Instant, Progress};
use iscsi::TaskId;
use iscsi::chap::Proving;
use iscsi::initiator::{self, Command, Completion, Connection, Direction, Event, NotSent};
use net::Network;
use scsi::initiator as cdb;

use super::flights::{CAPACITY_LEN, Flight, Lateness, Payload, command, is_repeatable, parameter_list};
use super::live::ladder::Rung;
use super::live::ways::{Way, WayNews, WayState};
use super::live::{Live, Verdict};
use super::route::Route;
use super::{Learnt, RemoteConfig};
use crate::auth;
use crate::translate;

/// I/Os in flight at the most; the target's window may allow fewer.
const QUEUE_DEPTH: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    LoggingIn,
    Probing,
    Up(Geometry),
    /// A logout is on its way; what is in flight ends before it is answered.
    Leaving {
        until: Instant,
    },
}

/// How long a target may take to answer a logout.
const LOGOUT_PATIENCE: Duration = Duration::from_secs(1);

enum State {
    Down {
        retry_at: Instant,
    },
    Live(Box<Live>),
    /// Logged out by this end's wish.
    Gone,
}

pub(super) struct RemoteChannel {
    core: Core,
    network: Box<dyn Network>,
    config: RemoteConfig,
    learnt: Arc<Learnt>,
    state: State,
    /// Why the last session ended, or what became of the last try: true until the next one is up.
    cause: LinkDown,
    session: u64,
    pause: Duration,
    /// I/Os to send again, each with its deadline: the target answered with a unit attention, which says nothing about them, or they
    /// were swept away by a reset that was about others.
    again: VecDeque<(Io, Instant)>,
    done: Completions,
    /// Empty between turns: its memory is used again.
    events: Vec<(u16, Event)>,
    route: Route,
    /// What was done for the sake of late I/Os of sessions that are over.
    rungs: VecDeque<Rung>,
    /// A session that logs out because the target asked for it, and until when that is waited for.
    parting: Option<(Box<Live>, Instant)>,
}

impl RemoteChannel {
    pub(super) fn new(
        core: &Core,
        network: Box<dyn Network>,
        config: RemoteConfig,
        learnt: Arc<Learnt>,
    ) -> Self {
        let pause = config.retry_min;
        let route = Route::to(config.ways());
        Self {
            core: core.clone(),
            network,
            config,
            learnt,
            state: State::Down { retry_at: Instant::EPOCH },
            cause: LinkDown::Connecting,
            session: 0,
            pause,
            again: VecDeque::new(),
            done: Completions::new(),
            events: Vec::new(),
            route,
            rungs: VecDeque::new(),
            parting: None,
        }
    }

    fn connect(&mut self, now: Instant) {
        let config = match self.initiator() {
            Ok(config) => config,
            Err(error) => return self.go_down(LinkDown::Refused(format!("no random source: {error}")), now),
        };
        let address = self.route.next();
        let stream = self.network.connect(address);
        let ways = self.route.ways_with(address);
        self.state = State::Live(Box::new(Live::new(ways, address, stream, Connection::new(config), now)));
    }

    /// Makes one more connection of the session, where one is due.
    fn join(&mut self, now: Instant) {
        let connections = self.config.preferences.max_connections;
        let State::Live(live) = &mut self.state else { return };
        let Some(cid) = live.wants(now, connections) else { return };
        // Without a random source it is tried again, or the session ends, as after a login that fails.
        let Ok(config) = self.initiator() else { return };
        let State::Live(live) = &mut self.state else { return };
        let way = live.next_way();
        let stream = self.network.connect(way);
        live.join(cid, way, stream, config, now);
    }

    fn initiator(&self) -> Result<initiator::Config, getrandom::Error> {
        Ok(initiator::Config {
            initiator: self.config.initiator.clone(),
            alias: None,
            target: Some(self.config.target.clone()),
            isid: self.config.isid.unwrap_or_default(),
            preferences: self.config.preferences,
            credentials: self.credentials()?,
        })
    }

    fn credentials(&self) -> Result<Option<Proving>, getrandom::Error> {
        let Some(account) = self.config.account.clone() else { return Ok(None) };
        let algorithms = self.config.algorithms.clone();
        auth::proving(account, algorithms).map(Some)
    }

    /// Ends the session: everything in flight comes back with an unknown outcome.
    fn go_down(&mut self, cause: LinkDown, now: Instant) {
        if let Some(mut live) = self.leave_session(cause, now) {
            if let State::Down { retry_at } = &mut self.state {
                //= rfc7143#section-7.5: a session that ended unexpectedly is made again after Time2Wait, and not before.
                *retry_at = (*retry_at).max(now + live.time2wait());
            }
            live.close();
        }
    }

    /// The target asks for a logout: it gets one. What is in flight comes back at once, because nobody knows how long that would take.
    fn part(&mut self, seconds: u16, now: Instant) {
        if matches!(&self.state, State::Live(live) if matches!(live.phase, Phase::Leaving { .. })) {
            return;
        }
        let until = now + LOGOUT_PATIENCE.min(Duration::from_secs(seconds.max(1).into()));
        let cause = LinkDown::Lost("the target asked for a logout".to_owned());
        if let Some(mut live) = self.leave_session(cause, now) {
            //= rfc7143#section-11.9.1(f): an initiator honours the request with a logout.
            live.abandon_all();
            live.log_out();
            self.parting = Some((live, until));
        }
    }

    /// Goes on with a logout that was asked for.
    fn see_off(&mut self, now: Instant) -> Progress {
        let Some((live, until)) = &mut self.parting else { return Progress::Idle };
        let mut progress = live.receive(now, &mut Vec::new());
        progress |= live.transmit(now, self.core.pool());
        if live.is_over() || now >= *until {
            live.close();
            self.parting = None;
        }
        progress
    }

    /// The session is none any more; its streams are as they were.
    fn leave_session(&mut self, cause: LinkDown, now: Instant) -> Option<Box<Live>> {
        self.cause = cause;
        let down = match &self.state {
            State::Gone => State::Gone,
            State::Live(live) if matches!(live.phase, Phase::Leaving { .. }) => State::Gone,
            _ => State::Down { retry_at: now + self.pause },
        };
        self.pause = (self.pause * 2).min(self.config.retry_max);
        let State::Live(mut live) = std::mem::replace(&mut self.state, down) else { return None };
        // Nobody may take them: what the last session told is enough then.
        self.rungs = live.ladder.take_news();
        for (_, flight) in std::mem::take(&mut live.flights.open) {
            if let Some(io) = flight.io {
                let error = if now >= flight.deadline { IoError::TimedOut } else { IoError::LinkDown };
                self.done.push_back(io.complete(Err(error), now));
            }
        }
        for (io, _) in self.again.drain(..) {
            self.done.push_back(io.complete(Err(IoError::LinkDown), now));
        }
        Some(live)
    }

    /// Logs out for good: nothing is taken any more, and what is in flight ends first (RFC 7143 section 11.14).
    pub(super) fn leave(&mut self, now: Instant) {
        match &mut self.state {
            State::Live(live) if matches!(live.phase, Phase::Leaving { .. }) => {}
            State::Live(live) if live.serves() => {
                live.log_out();
                live.phase = Phase::Leaving { until: now + LOGOUT_PATIENCE };
            }
            State::Gone => {}
            _ => {
                self.go_down(LinkDown::Lost("closed by this node".to_owned()), now);
                self.state = State::Gone;
            }
        }
    }

    /// What was done for the sake of late I/Os since somebody asked.
    pub(super) fn take_rungs(&mut self) -> VecDeque<Rung> {
        let mut rungs = std::mem::take(&mut self.rungs);
        if let State::Live(live) = &mut self.state {
            rungs.append(&mut live.ladder.take_news());
        }
        rungs
    }

    /// What became of ways while the session stayed, since somebody asked.
    pub(super) fn take_way_news(&mut self) -> VecDeque<WayNews> {
        match &mut self.state {
            State::Live(live) => live.take_way_news(),
            State::Down { .. } | State::Gone => VecDeque::new(),
        }
    }

    /// The ways to the target, in the order that they are configured in.
    pub(super) fn ways(&self) -> Vec<Way> {
        if let State::Live(live) = &self.state {
            return live.ways().collect();
        }
        let down = |address| Way { address, state: WayState::Down, tasks: 0, round_trip: None };
        self.route.homes().iter().copied().map(down).collect()
    }

    /// True when nothing is left of the session, by this end's wish.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone)
    }

    /// Sends an I/O. Its deadline is this one, unless it has its own.
    fn send(&mut self, mut io: Io, deadline: Instant, now: Instant) -> Result<(), Refused> {
        let State::Live(live) = &mut self.state else { return Err(io.refuse(IoError::LinkDown)) };
        let Phase::Up(geometry) = live.phase else { return Err(io.refuse(IoError::LinkDown)) };
        if live.flights.open.len() >= QUEUE_DEPTH {
            return Err(io.refuse(IoError::Busy));
        }
        if matches!(io.op(), Op::BlockStatus { .. }) {
            self.done.push_back(io.complete(Err(IoError::Unsupported), now));
            return Ok(());
        }
        if io.op().range().is_some_and(|range| !geometry.contains(range)) {
            self.done.push_back(io.complete(Err(IoError::OutOfRange), now));
            return Ok(());
        }
        if matches!(io.op(), Op::StoreState { .. } | Op::LoadState { .. } | Op::HandOver | Op::CryptoErase) {
            self.done.push_back(io.complete(Err(IoError::Unsupported), now));
            return Ok(());
        }
        let list = match parameter_list(io.op()) {
            None => None,
            Some(bytes) => match self.core.pool().alloc(bytes.len()) {
                None => return Err(io.refuse(IoError::Busy)),
                Some(mut frame) => {
                    frame.copy_from_slice(&bytes);
                    Some(frame.freeze())
                }
            },
        };
        let command = command(io.op(), geometry.block_size, self.config.lun);
        match live.submit(command) {
            Ok(task) => {
                io.stamps.submitted = now;
                let payload = list.map_or(Payload::Io, Payload::List);
                let flight = Flight::of(io, payload, command.lun, deadline);
                live.flights.open.insert(task, flight);
                Ok(())
            }
            Err(NotSent::WindowClosed) => Err(io.refuse(IoError::Busy)),
            Err(NotSent::NotLoggedIn) => Err(io.refuse(IoError::LinkDown)),
        }
    }

    fn send_own(&mut self, cdb: cdb::Cdb, len: u32, flight: Flight) {
        let State::Live(live) = &mut self.state else { return };
        let lun = scsi::lun::encode(self.config.lun);
        let direction = if len == 0 { Direction::None } else { Direction::Read };
        match live.submit(Command { lun, cdb, direction, len, attribute: Command::SIMPLE }) {
            Ok(task) => {
                live.flights.open.insert(task, flight);
            }
            Err(_) => {
                if let Some(io) = flight.io {
                    self.again.push_back((io, flight.deadline));
                }
            }
        }
    }

    fn probe(&mut self, now: Instant) {
        if let State::Live(live) = &mut self.state {
            live.phase = Phase::Probing;
        }
        let flight = Flight {
            io: None,
            payload: Payload::Capacity(Box::default()),
            lun: scsi::lun::encode(self.config.lun),
            deadline: now + self.config.io_timeout,
            lateness: Lateness::Ends,
            syncing: false,
        };
        self.send_own(cdb::read_capacity(), CAPACITY_LEN as u32, flight);
    }

    fn on_event(&mut self, cid: u16, event: Event, now: Instant) {
        let State::Live(live) = &mut self.state else { return };
        match event {
            Event::LoggedIn => {
                if live.on_logged_in(cid, now) {
                    self.probe(now);
                }
            }
            Event::Completed(task, completion) => self.on_completed(task, &completion, now),
            Event::Pong => live.on_pong(cid, now),
            Event::LogoutRequested { seconds } => self.part(seconds, now),
            Event::Removed { response, time2wait, .. } => {
                if let Err(response) = live.on_removed(cid, response, time2wait, now) {
                    let why = format!("a connection broke off and cannot be recovered (response {response})");
                    self.go_down(LinkDown::Lost(why), now);
                }
            }
            Event::NotReassigned(_, response) => {
                let why = format!("the target does not go on with a command (response {response})");
                self.go_down(LinkDown::Lost(why), now);
            }
            Event::TaskManagementDone(request, response) => {
                let over = live.on_managed(cid, request, response, now);
                over.into_iter().for_each(|task| self.give_up(task, now));
            }
            Event::Text(_) => {}
        }
    }

    /// A task is over without a status. One that was late is given back, for a write with an unknown outcome; one that a reset swept away
    /// with it is sent again, within the time that it had: its owner did nothing that it should fail for.
    fn give_up(&mut self, task: TaskId, now: Instant) {
        let State::Live(live) = &mut self.state else { return };
        let Some(Flight { io, deadline, .. }) = live.flights.open.remove(&task) else { return };
        let Some(io) = io else { return };
        let error = match now >= deadline {
            true => IoError::TimedOut,
            false if is_repeatable(io.op()) => return self.again.push_back((io, deadline)),
            false => IoError::Aborted,
        };
        self.done.push_back(io.complete(Err(error), now));
    }

    fn on_completed(&mut self, task: TaskId, completion: &Completion, now: Instant) {
        let State::Live(live) = &mut self.state else { return };
        let Some(flight) = live.flights.open.remove(&task) else { return };
        live.ladder.forget(task);
        let attention = scsi::sense::decode(&completion.sense).is_some_and(|(key, _)| key == 6);
        // Another initiator's reset or CLEAR TASK SET, where TAS is one.
        let aborted = completion.status == scsi::status::TASK_ABORTED;
        match (flight.io, flight.payload) {
            (None, Payload::Capacity(data)) => {
                self.on_capacity(&data[..], completion, attention || aborted, now);
            }
            (Some(io), _) if attention || (aborted && is_repeatable(io.op())) => {
                self.again.push_back((io, flight.deadline));
            }
            (Some(io), _) => self.finish(io, completion, flight.syncing, now),
            (None, _) => {}
        }
    }

    fn on_capacity(&mut self, data: &[u8], completion: &Completion, again: bool, now: Instant) {
        if again {
            return self.probe(now);
        }
        let capacity = cdb::capacity(data).filter(|_| completion.status == scsi::status::GOOD);
        let Some(capacity) = capacity else {
            let why = match scsi::sense::decode(&completion.sense) {
                Some((key, code)) => format!("the LUN does not serve (sense key {key:x}h, code {code:04x}h)"),
                None => format!("the LUN does not serve (status {:02x}h)", completion.status),
            };
            return self.go_down(LinkDown::Refused(why), now);
        };
        let geometry = Geometry {
            block_size: capacity.block_size,
            physical_block_size: capacity.physical_block_size,
            blocks: capacity.blocks,
        };
        self.learnt.set(geometry);
        if !matches!(&self.state, State::Live(live) if live.phase == Phase::Probing) {
            return;
        }
        self.session += 1;
        self.route.arrived();
        self.pause = self.config.retry_min;
        if let State::Live(live) = &mut self.state {
            live.phase = Phase::Up(geometry);
            live.on_up(now);
        }
    }

    fn finish(&mut self, io: Io, completion: &Completion, syncing: bool, now: Instant) {
        let lba = io.op().range().map_or(0, |range| range.lba);
        let result = translate::from_scsi(completion.status, &completion.sense, lba);
        let short = result.is_ok() && !syncing && completion.underflow > 0;
        // Zeroing has no forced unit access: its durable form is followed by a flush.
        let flush_follows = matches!(io.op(), Op::WriteZeroes { durability: Durability::Durable, .. });
        if result.is_ok() && flush_follows && !syncing {
            let lun = scsi::lun::encode(self.config.lun);
            let flight = Flight::of(io, Payload::Io, lun, now + self.config.io_timeout);
            return self.send_own(cdb::synchronize_cache(), 0, Flight { syncing: true, ..flight });
        }
        let result = if short { Err(IoError::Protocol) } else { result };
        self.done.push_back(io.complete(result, now));
    }

    fn exchange(&mut self, now: Instant) -> Progress {
        let State::Live(live) = &mut self.state else { return Progress::Idle };
        let mut events = std::mem::take(&mut self.events);
        let progress = live.receive(now, &mut events);
        for (cid, event) in events.drain(..) {
            self.on_event(cid, event, now);
        }
        self.events = events;
        for _ in 0..self.again.len() {
            let Some((io, deadline)) = self.again.pop_front() else { break };
            if now >= deadline {
                self.done.push_back(io.complete(Err(IoError::TimedOut), now));
                continue;
            }
            if let Err(refused) = self.send(io, deadline, now) {
                self.again.push_back((refused.io, deadline));
            }
        }
        progress
    }

    fn transmit(&mut self, now: Instant) -> Progress {
        match &mut self.state {
            State::Live(live) => live.transmit(now, self.core.pool()),
            _ => Progress::Idle,
        }
    }

    /// Pings, and notices death.
    fn watch(&mut self, now: Instant) {
        let State::Live(live) = &mut self.state else { return };
        match live.watch(now, &self.config) {
            Verdict::Alive => self.join(now),
            Verdict::Down(cause) => self.go_down(cause, now),
            Verdict::Moved(address, how) => match self.route.follow(&address, how) {
                Ok(()) => {
                    self.pause = Duration::ZERO;
                    self.go_down(LinkDown::Connecting, now);
                    self.pause = self.config.retry_min;
                }
                Err(trouble) => {
                    let why = format!("the target has moved to {address}: {trouble}");
                    self.go_down(LinkDown::Refused(why), now);
                }
            },
        }
    }
}

impl Channel for RemoteChannel {
    fn submit(&mut self, io: Io, now: Instant) -> Result<(), Refused> {
        match self.send(io, now + self.config.io_timeout, now) {
            Err(refused) if refused.why == IoError::LinkDown => {
                self.done.push_back(refused.io.complete(Err(IoError::LinkDown), now));
                Ok(())
            }
            other => other,
        }
    }

    fn poll(&mut self, now: Instant, done: &mut Completions) -> Progress {
        let mut progress = self.see_off(now);
        match &self.state {
            State::Down { retry_at, .. } if now >= *retry_at && self.parting.is_none() => self.connect(now),
            _ => {}
        }
        progress |= self.exchange(now);
        self.watch(now);
        progress |= self.transmit(now);
        progress |= Progress::from_count(self.done.len());
        done.append(&mut self.done);
        progress
    }

    fn next_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Gone => None,
            State::Down { .. } if self.parting.is_some() => self.parting.as_ref().map(|(_, until)| *until),
            State::Down { retry_at, .. } => Some(*retry_at),
            State::Live(live) => {
                let again = self.again.iter().map(|(_, deadline)| *deadline).min();
                Instant::earliest(live.next_deadline(self.config.silence_max), again)
            }
        }
    }

    fn link(&self, _now: Instant) -> Link {
        if let State::Live(live) = &self.state
            && let Phase::Up(geometry) = live.phase
        {
            return Link::Up { session: self.session, geometry, alive_at: live.alive_at };
        }
        Link::Down(self.cause.clone())
    }
}

impl Drop for RemoteChannel {
    fn drop(&mut self) {
        self.go_down(LinkDown::Lost("closed by this node".to_owned()), Instant::EPOCH);
    }
}
