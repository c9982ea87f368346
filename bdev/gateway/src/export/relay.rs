//! A session's way to the node that serves: its commands go to the peer, over the replication link, as those of the same I_T
//! nexus.
//!
//! The peer's target takes it for a session of the host through this node's port: same initiator name, same ISID; the
//! InitiatorAlias says that it is relayed, and through which port. So the node that serves decides everything that has to be
//! decided in one place: reservations, unit attentions, aborts, atomic commands. A relay that comes anew reinstates the
//! session there, which lets it in only when nothing of the old one is at work any more.
//!
//! What was passed is taken back when this node serves the unit itself: the peer has been locked out of it by then, and its
//! answer, if one comes, is nobody's.
//!
//! ```text
//! Down --(a command, a stream)--> LoggingIn --> Up --(stream closed, refused, silence)--> Down
//! ```

use std::collections::BTreeMap;

use core::time::Duration;
use engine::{Instant, Pool, Progress};
use iscsi::chap::Proving;
use iscsi::initiator::{Command, Completion, Config, Connection, Direction, Event};
use iscsi::keys::{Choice, DigestPreference, Preferences};
use iscsi::{Protocol, TaskId};
use net::{Stream, StreamStatus};
use scsi::reservation::Nexus;

use crate::payload::{Parts, Payload, PayloadMut};
use crate::wire::{self, Buffers, Sender};

/// What an InitiatorAlias begins with that names a relay; the port follows.
const ALIAS: &str = "gemel-relay/";
/// Between pings.
const KEEP_ALIVE: Duration = Duration::from_millis(500);
/// A ping without an answer for this long means that the peer is gone.
const SILENCE: Duration = Duration::from_millis(1500);
/// Between attempts.
const RETRY: Duration = Duration::from_millis(100);

/// The alias of a relay of a port.
fn alias(port: u16) -> String {
    format!("{ALIAS}{port}")
}

/// The port that a relay's alias names.
pub(super) fn port_of(alias: &str) -> Option<u16> {
    alias.strip_prefix(ALIAS)?.parse().ok()
}

/// A command as it goes to the peer.
pub(super) struct Passing {
    /// The host's name for it.
    pub(super) task: TaskId,
    pub(super) lun: u64,
    pub(super) cdb: [u8; 16],
    /// Task attribute.
    pub(super) attribute: u8,
    /// Expected data transfer length, of a command that moves data.
    pub(super) expected_len: u32,
    pub(super) data: PassingData,
}

/// The data of a command on its way.
pub(super) enum PassingData {
    None,
    Out(Payload),
    In(PayloadMut),
}

/// How a passed command ended.
pub(super) enum Passed {
    /// As the peer said.
    Answered(Completion, Option<PayloadMut>),
    /// The peer has ended it, or can do nothing more at its unit.
    Ended,
    /// The way is lost, and it may still be on it.
    Lost,
}

/// What a relay tells its session.
pub(super) enum News {
    Passed(TaskId, Passed),
    /// The peer has let the relay in: nothing of one before it is at work there, and nothing of it will be.
    LetIn,
    /// A management request was answered, with the code.
    Managed(TaskId, Ends, u8),
    /// Nobody knows whether the resets that were passed on have been carried out.
    ResetsLost,
    /// What the peer was asked about the nexus it does not answer: the nexus there is gone.
    AnswerLost(TaskId),
    /// The nexus at the peer is gone.
    NexusLost,
}

/// Whether somebody waits for what was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Yes,
    /// It was taken back; its data stay until the peer has answered, or is gone.
    No,
}

struct Flight {
    /// The host's name for it.
    task: TaskId,
    lun: u64,
    data: PassingData,
    awaited: Awaited,
}

impl Flight {
    fn is_awaited(&self) -> bool {
        self.awaited == Awaited::Yes
    }
}

#[derive(Default)]
struct Flights {
    open: BTreeMap<TaskId, Flight>,
}

impl Buffers for Flights {
    fn store(&mut self, task: TaskId, offset: usize, bytes: &[u8]) {
        let Some(Flight { data: PassingData::In(into), .. }) = self.open.get_mut(&task) else { return };
        into.store(offset, bytes);
    }

    fn load(&self, task: TaskId, offset: usize, len: usize) -> Option<Parts> {
        match &self.open.get(&task)?.data {
            PassingData::Out(from) => from.part(offset, len),
            _ => None,
        }
    }
}

/// What a management request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// The task that it is named after.
    Task,
    /// What the nexus has at a LUN.
    AtLun(u64),
    /// What the nexus has.
    Nexus,
    /// Nothing: a query about a LUN.
    Nothing(u64),
}

impl Ends {
    /// The LUN field of the request.
    fn lun(self) -> u64 {
        match self {
            Self::Task | Self::Nexus => 0,
            Self::AtLun(lun) | Self::Nothing(lun) => lun,
        }
    }
}

struct Managing {
    /// The host's name for the request, or for the task that it aborts.
    here: TaskId,
    ends: Ends,
}

/// Whether the peer has let the relay in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Was {
    In,
    Out,
}

struct Live {
    was_in: Was,
    stream: Box<dyn Stream>,
    connection: Connection,
    flights: Flights,
    sender: Sender,
    /// Management requests on their way.
    management: BTreeMap<TaskId, Managing>,
    ping_sent: Option<Instant>,
    next_ping: Instant,
}

enum State {
    Down {
        not_before: Instant,
    },
    /// The target makes a stream.
    Dialling,
    Live(Box<Live>),
}

/// See the module.
pub(super) struct Relay {
    nexus: Nexus,
    target: String,
    state: State,
    dials: usize,
}

impl Relay {
    pub(super) fn new(nexus: Nexus, target: String) -> Self {
        Self { nexus, target, state: State::Down { not_before: Instant::EPOCH }, dials: 0 }
    }

    /// True when the target should make a stream to the peer now: asks once.
    pub(super) fn wants_stream(&mut self, now: Instant) -> bool {
        let due = matches!(self.state, State::Down { not_before } if now >= not_before);
        if due {
            self.state = State::Dialling;
        }
        due
    }

    /// Streams that were asked for before: the next one goes to another address, where the peer has several.
    pub(super) fn dials(&self) -> usize {
        self.dials
    }

    /// A stream to the peer's portal.
    pub(super) fn attach(&mut self, stream: Box<dyn Stream>, credentials: Option<Proving>, now: Instant) {
        let preferences = Preferences {
            header_digest: DigestPreference::Prefer,
            data_digest: DigestPreference::Prefer,
            max_recv_data_segment_length: 1 << 20,
            max_burst_length: 1 << 20,
            first_burst_length: 1 << 20,
            initial_r2t: Choice::No,
            immediate_data: Choice::Yes,
            // It comes again at once.
            default_time2wait: 0,
            ..Preferences::default()
        };
        let connection = Connection::new(Config {
            initiator: self.nexus.initiator.name().to_owned(),
            alias: Some(alias(self.nexus.port)),
            target: Some(self.target.clone()),
            isid: self.nexus.initiator.isid(),
            preferences,
            credentials,
        });
        self.dials += 1;
        self.state = State::Live(Box::new(Live {
            was_in: Was::Out,
            stream,
            connection,
            flights: Flights::default(),
            sender: Sender::default(),
            management: BTreeMap::new(),
            ping_sent: Some(now),
            next_ping: now + KEEP_ALIVE,
        }));
    }

    /// When the next stream may be asked for.
    pub(super) fn next_attempt(&self) -> Option<Instant> {
        match self.state {
            State::Down { not_before } => Some(not_before),
            State::Dialling | State::Live(_) => None,
        }
    }

    /// There is no stream to be had now.
    pub(super) fn put_off(&mut self, now: Instant) {
        self.state = State::Down { not_before: now + RETRY };
    }

    /// True between login and loss.
    pub(super) fn is_up(&self) -> bool {
        matches!(&self.state, State::Live(live) if live.connection.is_full_feature())
    }

    /// True when a command can be sent now.
    pub(super) fn has_room(&self) -> bool {
        matches!(&self.state, State::Live(live) if live.connection.may_submit().is_ok())
    }

    /// Sends a command. False when there is no way or no room now: nothing was sent.
    pub(super) fn pass(&mut self, passing: Passing) -> bool {
        let State::Live(live) = &mut self.state else { return false };
        let Passing { task, lun, cdb, attribute, expected_len, data } = passing;
        let (direction, len) = match &data {
            PassingData::None => (Direction::None, 0),
            PassingData::Out(_) => (Direction::Write, expected_len),
            PassingData::In(_) => (Direction::Read, expected_len),
        };
        let command = Command { lun, cdb, direction, len, attribute };
        let Ok(there) = live.connection.submit(command) else { return false };
        live.flights.open.insert(there, Flight { task, lun, data, awaited: Awaited::Yes });
        true
    }

    /// Asks the peer to abort a command of the host (RFC 7143 section 11.5.1, function 1), if it is there.
    pub(super) fn abort(&mut self, task: TaskId, lun: u64) {
        let State::Live(live) = &mut self.state else { return };
        let is_it = |flight: &Flight| flight.task == task && flight.is_awaited();
        let there = live.flights.open.iter().find(|(_, flight)| is_it(flight)).map(|(there, _)| *there);
        if let Some(there) = there {
            let request = live.connection.manage(1, lun, Some(there));
            live.management.insert(request, Managing { here: task, ends: Ends::Task });
        }
    }

    /// Passes a management request on; false when there is no way.
    pub(super) fn manage(&mut self, request: TaskId, function: u8, ends: Ends) -> bool {
        let State::Live(live) = &mut self.state else { return false };
        if !live.connection.is_full_feature() {
            return false;
        }
        let there = live.connection.manage(function, ends.lun(), None);
        live.management.insert(there, Managing { here: request, ends });
        true
    }

    /// What was passed for a LUN is lost to this side, which serves it now.
    pub(super) fn take_back(&mut self, lun: u64, news: &mut Vec<News>) {
        let State::Live(live) = &mut self.state else { return };
        for flight in live.flights.open.values_mut().filter(|flight| flight.lun == lun && flight.is_awaited())
        {
            flight.awaited = Awaited::No;
            news.push(News::Passed(flight.task, Passed::Ended));
        }
        // What a reset was to end there has ended.
        live.management.retain(|_, managing| {
            let ended = managing.ends == Ends::AtLun(lun);
            if ended {
                news.push(News::Managed(managing.here, managing.ends, 0));
            }
            !ended
        });
    }

    /// One turn.
    pub(super) fn poll(&mut self, pool: &Pool, now: Instant, news: &mut Vec<News>) -> Progress {
        let State::Live(live) = &mut self.state else { return Progress::Idle };
        let mut progress = live.stream.poll(now);
        let taken = wire::receive(&mut *live.stream, &mut live.connection, &mut live.flights, |_| false);
        progress |= Progress::from_count(taken);
        while let Some(event) = live.connection.poll_event() {
            progress = Progress::Busy;
            live.on_event(event, news);
        }
        if live.stream.status() == StreamStatus::Open {
            match live.sender.run(&mut *live.stream, &mut live.connection, &live.flights, pool) {
                Ok(count) => progress |= Progress::from_count(count),
                Err(_) => live.connection.drop_connection("internal error: a command without its buffer"),
            }
            live.sender.ended.clear();
            progress |= live.stream.poll(now);
        }
        if live.is_lost(now) {
            self.go_down(now, news);
            progress = Progress::Busy;
        }
        progress
    }

    fn go_down(&mut self, now: Instant, news: &mut Vec<News>) {
        let down = State::Down { not_before: now + RETRY };
        let State::Live(mut live) = core::mem::replace(&mut self.state, down) else { return };
        // Nothing that was passed may get there later than it has to: whoever waits for a barrier counts on that.
        live.stream.abort();
        if live.was_in == Was::In {
            news.push(News::NexusLost);
        }
        let flights = live.flights.open.into_values().filter(Flight::is_awaited);
        news.extend(flights.map(|flight| News::Passed(flight.task, Passed::Lost)));
        news.push(News::ResetsLost);
        let asked = live.management.into_values();
        let asked = asked.filter(|managing| matches!(managing.ends, Ends::Nexus | Ends::Nothing(_)));
        news.extend(asked.map(|managing| News::AnswerLost(managing.here)));
    }

    /// Lets go of the peer: what is under way is lost.
    pub(super) fn close(&mut self, now: Instant, news: &mut Vec<News>) {
        self.go_down(now, news);
    }

    /// When to poll next at the latest.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match &self.state {
            // Whoever has a command to pass looks again.
            State::Down { .. } | State::Dialling => None,
            State::Live(live) => {
                let silence = live.ping_sent.map(|sent| sent + SILENCE);
                Instant::earliest(silence, Some(live.next_ping))
            }
        }
    }
}

impl Live {
    fn on_event(&mut self, event: Event, news: &mut Vec<News>) {
        match event {
            Event::LoggedIn => {
                (self.was_in, self.ping_sent) = (Was::In, None);
                news.push(News::LetIn);
            }
            Event::Completed(there, completion) => {
                let flight = self.flights.open.remove(&there).filter(Flight::is_awaited);
                let Some(Flight { task, data, .. }) = flight else { return };
                let data = match data {
                    PassingData::In(into) => Some(into),
                    PassingData::None | PassingData::Out(_) => None,
                };
                news.push(News::Passed(task, Passed::Answered(completion, data)));
            }
            Event::Pong => self.ping_sent = None,
            Event::TaskManagementDone(there, code) => {
                let Some(Managing { here, ends }) = self.management.remove(&there) else { return };
                // What a function of this nexus ends is never answered.
                self.flights.open.retain(|_, flight| {
                    let ended = match ends {
                        Ends::Task => flight.task == here,
                        Ends::AtLun(lun) => flight.lun == lun,
                        Ends::Nexus => true,
                        Ends::Nothing(_) => false,
                    };
                    if ended && flight.is_awaited() {
                        news.push(News::Passed(flight.task, Passed::Ended));
                    }
                    !ended
                });
                if ends != Ends::Task {
                    news.push(News::Managed(here, ends, code));
                }
            }
            Event::LogoutRequested { .. } => self.connection.drop_connection("the peer asked for a logout"),
            Event::Text(_) | Event::Removed { .. } | Event::NotReassigned(..) => {}
        }
    }

    /// Pings, and notices death.
    fn is_lost(&mut self, now: Instant) -> bool {
        let ended =
            matches!(self.stream.status(), StreamStatus::Closed(_)) || self.connection.closed().is_some();
        let silent = self.ping_sent.is_some_and(|sent| now.saturating_since(sent) >= SILENCE);
        if self.connection.is_full_feature() && self.ping_sent.is_none() && now >= self.next_ping {
            self.connection.ping();
            self.ping_sent = Some(now);
            self.next_ping = now + KEEP_ALIVE;
        }
        ended || silent
    }
}
