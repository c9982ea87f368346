//! A session from the connect on: its connections, what is under way on them, and what becomes of one that breaks off.
//!
//! ```text
//! Joining --(logged in)--> Serving --(over, level below 2)--> the session is down
//!                             \--(over, level 2)--> Loss: Needed --(a connection serves)--> Removing --> Removed --> taken over
//!                                                      \--(none serves)--> Reinstating --(logged in)--> taken over
//! ```
//!
//! Owner: the channel. A recovery has an end in time; what is not recovered by then ends the session.

pub(super) mod ladder;
mod late;
pub(super) mod ways;

use core::net::SocketAddr;
use core::time::Duration;

use bdev::LinkDown;
use engine::{Instant, Pool, Progress};
use iscsi::initiator::{Command, Config, Connection, Event, NotSent};
use iscsi::{CloseReason, Protocol, TaskId};
use net::{Stream, StreamStatus};

use super::RemoteConfig;
use super::channel::Phase;
use super::flights::{Flights, Lateness};
use crate::wire::{self, Sender};
use ladder::Ladder;
use ways::{Pulse, Ways};

/// What a connection is to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// It logs in.
    Joining,
    /// It takes commands.
    Serving,
}

struct Member {
    cid: u16,
    /// The portal that it goes to.
    way: SocketAddr,
    stream: Box<dyn Stream>,
    connection: Connection,
    sender: Sender,
    standing: Standing,
    /// When the ping on its way was sent; a login counts as one.
    ping_sent: Option<Instant>,
    /// When to send the next.
    next_ping: Instant,
    /// When the last answered ping had been sent.
    alive_at: Instant,
    /// and how long it took.
    round_trip: Option<Duration>,
    /// When bytes came last.
    heard_at: Instant,
}

/// How far the recovery of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recovery {
    /// Nothing is done about it before this time.
    Needed { from: Instant },
    /// This connection was asked to remove it.
    Removing { by: u16 },
    /// It is removed: its tasks may be taken from this time on.
    Removed { from: Instant },
    /// A connection with its identifier logs in.
    Reinstating,
}

/// A connection that is gone, with its tasks.
struct Loss {
    cid: u16,
    connection: Connection,
    recovery: Recovery,
    /// When the session is given up for it.
    until: Instant,
}

/// See the module.
pub(super) struct Live {
    ways: Ways,
    members: Vec<Member>,
    losses: Vec<Loss>,
    pub(super) flights: Flights,
    pub(super) ladder: Ladder,
    pub(super) phase: Phase,
    /// When the last answered ping had been sent.
    pub(super) alive_at: Instant,
    /// When one more connection is made; `None` when there are enough, or no more are let in.
    next_join: Option<Instant>,
}

/// How a member ended.
pub(super) enum End {
    /// Its protocol says why.
    Closed(CloseReason),
    /// Its stream is gone.
    Broken(String),
    /// It says nothing.
    Silent,
}

impl End {
    fn cause(&self) -> LinkDown {
        match self {
            Self::Closed(reason @ (CloseReason::LoginRefused { .. } | CloseReason::NotAuthenticated(_))) => {
                LinkDown::Refused(reason.to_string())
            }
            Self::Closed(reason) => LinkDown::Lost(reason.to_string()),
            Self::Broken(why) => LinkDown::Lost(why.clone()),
            Self::Silent => LinkDown::Silent,
        }
    }
}

/// What a look at the session comes to.
pub(super) enum Verdict {
    /// It goes on.
    Alive,
    /// It is over.
    Down(LinkDown),
    /// The target is somewhere else.
    Moved(String, iscsi::Moved),
}

impl Member {
    fn new(cid: u16, way: SocketAddr, stream: Box<dyn Stream>, connection: Connection, now: Instant) -> Self {
        Self {
            cid,
            way,
            stream,
            connection,
            sender: Sender::default(),
            standing: Standing::Joining,
            ping_sent: Some(now),
            next_ping: now,
            alive_at: now,
            round_trip: None,
            heard_at: now,
        }
    }

    fn end(&self, now: Instant, silence_max: Duration) -> Option<End> {
        // What the target said last says more than that its stream ended.
        if let Some(reason) = self.connection.closed() {
            return Some(End::Closed(reason.clone()));
        }
        if let StreamStatus::Closed(reason) = self.stream.status() {
            return Some(End::Broken(reason.to_string()));
        }
        let silent = |sent| now.saturating_since(sent) >= silence_max;
        self.ping_sent.is_some_and(silent).then_some(End::Silent)
    }

    fn serves(&self) -> bool {
        self.standing == Standing::Serving && self.connection.is_full_feature()
    }
}

impl Live {
    /// A session that begins on `first` of these ways.
    pub(super) fn new(
        ways: Vec<SocketAddr>,
        first: SocketAddr,
        stream: Box<dyn Stream>,
        connection: Connection,
        now: Instant,
    ) -> Self {
        Self {
            ways: Ways::new(ways, first),
            members: vec![Member::new(0, first, stream, connection, now)],
            losses: Vec::new(),
            flights: Flights::default(),
            ladder: Ladder::default(),
            phase: Phase::LoggingIn,
            alive_at: now,
            next_join: None,
        }
    }

    /// How long to wait before the session is made again where it ends unexpectedly; zero before it has begun.
    pub(super) fn time2wait(&self) -> Duration {
        let members = self.members.iter().map(|member| &member.connection);
        let all = members.chain(self.losses.iter().map(|loss| &loss.connection));
        let begun = (self.phase != Phase::LoggingIn).then_some(all);
        let agreed = begun.into_iter().flatten().map(|connection| connection.parameters().time2wait).max();
        Duration::from_secs(agreed.unwrap_or(0).into())
    }

    fn member(&mut self, cid: u16) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.cid == cid)
    }

    /// The connection with the least to do.
    fn server(&mut self) -> Option<&mut Member> {
        let serving = self.members.iter_mut().filter(|member| member.serves());
        serving.min_by_key(|member| member.connection.open_tasks())
    }

    /// Sends a command on the connection with the least to do.
    pub(super) fn submit(&mut self, command: Command) -> Result<TaskId, NotSent> {
        // Its turn would be after what was lost, and the target would have to keep it.
        let has_no_turn = self.losses.iter().any(|loss| loss.connection.has_missed());
        if self.ladder.is_resetting() || has_no_turn {
            return Err(NotSent::WindowClosed);
        }
        let recovers = !self.losses.is_empty();
        match self.server() {
            Some(member) => member.connection.submit(command),
            // Wait for the recovery.
            None if recovers => Err(NotSent::WindowClosed),
            None => Err(NotSent::NotLoggedIn),
        }
    }

    /// True while a connection can be spoken on.
    pub(super) fn serves(&self) -> bool {
        self.members.iter().any(Member::serves)
    }

    /// Gives up every command.
    pub(super) fn abandon_all(&mut self) {
        self.members.iter_mut().for_each(|member| member.connection.abandon_all());
    }

    /// True when no connection is left.
    pub(super) fn is_over(&self) -> bool {
        self.members.iter().all(|member| {
            member.connection.closed().is_some() || matches!(member.stream.status(), StreamStatus::Closed(_))
        })
    }

    /// Logs the session out.
    pub(super) fn log_out(&mut self) {
        if let Some(member) = self.members.iter_mut().find(|member| member.serves()) {
            member.connection.log_out();
        }
    }

    pub(super) fn close(&mut self) {
        self.members.iter_mut().for_each(|member| member.stream.close());
    }

    /// Takes what has come; adds what happened, on which connection.
    pub(super) fn receive(&mut self, now: Instant, events: &mut Vec<(u16, Event)>) -> Progress {
        let mut progress = Progress::Idle;
        let before = events.len();
        for member in &mut self.members {
            progress |= member.stream.poll(now);
            let (stream, connection) = (&mut *member.stream, &mut member.connection);
            let taken = wire::receive(stream, connection, &mut self.flights, |_| false);
            if taken > 0 {
                member.heard_at = now;
            }
            progress |= Progress::from_count(taken);
            while let Some(event) = connection.poll_event() {
                events.push((member.cid, event));
            }
        }
        progress | Progress::from_count(events.len() - before)
    }

    pub(super) fn transmit(&mut self, now: Instant, pool: &Pool) -> Progress {
        let mut progress = Progress::Idle;
        for member in self.members.iter_mut().filter(|member| member.stream.status() == StreamStatus::Open) {
            let sent = member.sender.run(&mut *member.stream, &mut member.connection, &self.flights, pool);
            member.sender.ended.clear();
            let count = sent.unwrap_or_else(|_| {
                member.connection.drop_connection("internal error: a command without its buffer");
                1
            });
            progress |= Progress::from_count(count) | member.stream.poll(now);
        }
        progress
    }

    /// A connection has logged in. True for the first of the session.
    pub(super) fn on_logged_in(&mut self, cid: u16, now: Instant) -> bool {
        let leading = self.phase == Phase::LoggingIn;
        let Some(at) = self.members.iter().position(|member| member.cid == cid) else { return false };
        self.members[at].standing = Standing::Serving;
        if !leading {
            self.members[at].ping_sent = None;
            self.next_join = Some(now);
            self.tell_back(self.members[at].way);
        }
        let same = |loss: &Loss| loss.cid == cid && loss.recovery == Recovery::Reinstating;
        while let Some(lost) = self.losses.iter().position(same) {
            let mut loss = self.losses.remove(lost);
            self.members[at].connection.take_over(&mut loss.connection);
        }
        leading
    }

    /// The capacity is known: the login counted as a ping until now.
    pub(super) fn on_up(&mut self, now: Instant) {
        self.members.iter_mut().for_each(|member| member.ping_sent = None);
        self.next_join = Some(now);
    }

    pub(super) fn on_pong(&mut self, cid: u16, now: Instant) {
        let Some(member) = self.member(cid) else { return };
        let Some(sent) = member.ping_sent.take() else { return };
        (member.alive_at, member.round_trip) = (sent, Some(now.saturating_since(sent)));
        self.alive_at = self.alive_at.max(sent);
    }

    /// A logout for recovery was answered; an error: there is nothing to recover.
    pub(super) fn on_removed(
        &mut self,
        by: u16,
        response: u8,
        time2wait: u16,
        now: Instant,
    ) -> Result<(), u8> {
        let is = |loss: &&mut Loss| loss.recovery == Recovery::Removing { by };
        if let Some(loss) = self.losses.iter_mut().find(is) {
            if response != 0 {
                return Err(response);
            }
            loss.recovery = Recovery::Removed { from: now + Duration::from_secs(time2wait.into()) };
        }
        Ok(())
    }

    /// Pings, notices death, and goes on with recoveries.
    pub(super) fn watch(&mut self, now: Instant, config: &RemoteConfig) -> Verdict {
        let pulse = Pulse::of(config.keep_alive, self.ways.count());
        while let Some((at, end)) = self.first_end(now, config.silence_max, pulse) {
            if let verdict @ (Verdict::Down(_) | Verdict::Moved(..)) = self.on_end(at, &end, now, config) {
                return verdict;
            }
        }
        if matches!(self.phase, Phase::Leaving { until } if now >= until) || self.is_out_of_time(now) {
            return Verdict::Down(LinkDown::Silent);
        }
        if self.losses.iter().any(|loss| now >= loss.until) {
            let why = "a connection broke off, and its commands could not be taken over in time";
            return Verdict::Down(LinkDown::Lost(why.to_owned()));
        }
        if matches!(self.phase, Phase::Up(_)) {
            if let Some(cause) = self.climb(now, config.rung_times) {
                return Verdict::Down(cause);
            }
            self.recover(now);
            self.ping(now, pulse.every);
        }
        Verdict::Alive
    }

    fn first_end(&self, now: Instant, silence_max: Duration, pulse: Pulse) -> Option<(usize, End)> {
        self.members.iter().enumerate().find_map(|(at, member)| {
            let outdone = || self.is_outdone(member, now, pulse.outdone).then_some(End::Silent);
            Some((at, member.end(now, silence_max).or_else(outdone)?))
        })
    }

    fn on_end(&mut self, at: usize, end: &End, now: Instant, config: &RemoteConfig) -> Verdict {
        let alone = self.members.len() == 1 && self.losses.is_empty();
        match (self.phase, self.members[at].standing) {
            // The target ends the other connections of a session that logs out.
            (Phase::Leaving { .. }, _) if !alone && !matches!(end, End::Closed(CloseReason::LoggedOut)) => {
                self.drop_member(at);
            }
            (Phase::LoggingIn | Phase::Probing | Phase::Leaving { .. }, _) => match end {
                End::Closed(CloseReason::Moved { address, how }) => {
                    return Verdict::Moved(address.clone(), *how);
                }
                end => return Verdict::Down(end.cause()),
            },
            (Phase::Up(_), Standing::Joining) => {
                let member = self.drop_member(at);
                let refused = matches!(end, End::Closed(CloseReason::LoginRefused { .. }));
                let same =
                    |loss: &&mut Loss| loss.cid == member.cid && loss.recovery == Recovery::Reinstating;
                match self.losses.iter_mut().find(same) {
                    Some(_) if refused => return Verdict::Down(end.cause()),
                    Some(loss) => loss.recovery = Recovery::Needed { from: now + config.retry_min },
                    None => self.next_join = (!refused).then(|| now + config.retry_max),
                }
            }
            (Phase::Up(_), Standing::Serving) => {
                let without_a_way = self.ways.count() > 1 && self.is_last(at);
                if !self.members[at].connection.reassigns() || without_a_way {
                    return Verdict::Down(end.cause());
                }
                self.tell_lost(self.members[at].way, end);
                self.lose(at, now, config);
            }
        }
        Verdict::Alive
    }

    fn drop_member(&mut self, at: usize) -> Member {
        let mut member = self.members.remove(at);
        member.stream.close();
        member
    }

    /// A connection is gone whose tasks go on elsewhere.
    fn lose(&mut self, at: usize, now: Instant, config: &RemoteConfig) {
        let mut member = self.drop_member(at);
        member.connection.drop_connection("the connection was lost");
        for loss in &mut self.losses {
            if loss.recovery == (Recovery::Removing { by: member.cid }) {
                loss.recovery = Recovery::Needed { from: now };
            }
        }
        let wait = Duration::from_secs(member.connection.parameters().time2wait.into());
        self.losses.push(Loss {
            cid: member.cid,
            connection: member.connection,
            recovery: Recovery::Needed { from: now },
            until: now + wait + 2 * config.silence_max,
        });
        self.next_join = Some(now + config.retry_max);
    }

    fn recover(&mut self, now: Instant) {
        let removing = self.losses.iter().any(|loss| matches!(loss.recovery, Recovery::Removing { .. }));
        let Some(server) = self.members.iter_mut().find(|member| member.serves()) else { return };
        let needed = |loss: &&mut Loss| matches!(loss.recovery, Recovery::Needed { .. });
        if let Some(loss) = self.losses.iter_mut().find(needed).filter(|_| !removing) {
            server.connection.recover(loss.cid);
            loss.recovery = Recovery::Removing { by: server.cid };
        }
        let ready = |loss: &mut Loss| matches!(loss.recovery, Recovery::Removed { from } if now >= from);
        for mut loss in self.losses.extract_if(.., ready) {
            server.connection.take_over(&mut loss.connection);
            // Its place is free: there was none when a connection was due meanwhile.
            self.next_join.get_or_insert(now);
        }
    }

    fn ping(&mut self, now: Instant, every: Duration) {
        for member in self.members.iter_mut().filter(|member| member.serves()) {
            if member.ping_sent.is_none() && now >= member.next_ping {
                member.connection.ping();
                (member.ping_sent, member.next_ping) = (Some(now), now + every);
            }
        }
    }

    /// The identifier of a connection that is to be made now.
    pub(super) fn wants(&mut self, now: Instant, connections: u32) -> Option<u16> {
        if !matches!(self.phase, Phase::Up(_)) || self.members.iter().any(|member| !member.serves()) {
            return None;
        }
        if self.members.is_empty() {
            let wait = |loss: &Loss| Duration::from_secs(loss.connection.parameters().time2wait.into());
            let due = |loss: &&mut Loss| match loss.recovery {
                //= rfc7143#section-7.5: an initiator waits for Time2Wait before it comes again.
                Recovery::Needed { from } => now >= from + wait(loss),
                _ => false,
            };
            let loss = self.losses.iter_mut().find(due)?;
            loss.recovery = Recovery::Reinstating;
            return Some(loss.cid);
        }
        self.next_join.filter(|at| now >= *at)?;
        let wanted = connections.max(u32::try_from(self.ways.count()).unwrap_or(1));
        let agreed = self.members[0].connection.parameters().max_connections.min(wanted) as usize;
        let taken = self.members.iter().map(|member| member.cid);
        let taken: Vec<u16> = taken.chain(self.losses.iter().map(|loss| loss.cid)).collect();
        if taken.len() >= agreed {
            self.next_join = None;
            return None;
        }
        (0..=u16::MAX).find(|cid| !taken.contains(cid))
    }

    /// Makes it.
    pub(super) fn join(
        &mut self,
        cid: u16,
        way: SocketAddr,
        stream: Box<dyn Stream>,
        config: Config,
        now: Instant,
    ) {
        let members = self.members.iter().map(|member| &member.connection);
        let Some(of) = members.chain(self.losses.iter().map(|loss| &loss.connection)).next() else { return };
        let connection = Connection::joining(config, of, cid);
        self.members.push(Member::new(cid, way, stream, connection, now));
    }

    pub(super) fn next_deadline(&self, silence_max: Duration) -> Option<Instant> {
        if let Phase::Leaving { until } = self.phase {
            return Some(until);
        }
        let up = matches!(self.phase, Phase::Up(_));
        let members = self.members.iter().filter_map(|member| match member.ping_sent {
            Some(sent) => Some(sent + silence_max),
            // The next ping waits for the answer to the one before, and for the session.
            None => up.then_some(member.next_ping),
        });
        let losses = self.losses.iter().map(|loss| match loss.recovery {
            Recovery::Needed { from } => {
                from + Duration::from_secs(loss.connection.parameters().time2wait.into())
            }
            Recovery::Removed { from } => from,
            Recovery::Removing { .. } | Recovery::Reinstating => loss.until,
        });
        // What is done about a late one has a time of its own, and while a reset is on its way nothing else is.
        let climbs = |lateness| up && lateness == Lateness::Climbs;
        let waits = |task: &TaskId| self.ladder.is_resetting() || self.ladder.has_abort(*task);
        let open = self.flights.open.iter();
        let open = open.filter(|(task, flight)| !(climbs(flight.lateness) && waits(task)));
        let flights = open.map(|(_, flight)| flight.deadline).chain(self.ladder.next_deadline());
        members.chain(losses).chain(flights).chain(self.next_join.filter(|_| up)).min()
    }
}
