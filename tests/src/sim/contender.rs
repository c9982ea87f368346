//! A host that shares the unit with others by persistent reservations, as the nodes of a cluster do: it registers, reserves, releases,
//! preempts, and reads and writes in between, allowed or not. At times it stands still with a write half sent, which is when others
//! preempt it.
//!
//! What it sees of reservations is judged by `orders`, and what it reads by `history`.

mod commands;

use core::net::{IpAddr, SocketAddr};
use core::ops::Range;
use core::time::Duration;
use std::collections::BTreeMap;

use engine::{Instant, Prng};
use gateway::StandbyMode;
use iscsi::TaskId;
use scsi::{initiator as cdb, status};

use super::claims;
use super::history::{Outcome, Service, Value};
use super::host::{self, BLOCK, Env};
use super::initiator::{Ended, Session};
use super::machine::{self, FRONT_PORT};
use super::orders::Number;
use super::spc::{Answer, Ask, Nexus};
use super::tally::Tally;

const MS: Duration = Duration::from_millis(1);
/// How long it waits for an answer; then its session is made anew.
const PATIENCE: Duration = Duration::from_millis(2500);
/// How long before a path is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// What it is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// It does what it wants.
    Contend,
    /// Nothing more is sent.
    Rest,
    /// It takes away every registration.
    Clear,
}

enum What {
    /// Unit attentions are taken.
    Settle,
    /// The other node is to serve.
    Choose,
    Write {
        blocks: Range<u64>,
        value: Value,
        watched: Number,
    },
    Read {
        blocks: Range<u64>,
        before: Vec<Option<(Instant, Value)>>,
        watched: Number,
    },
    Claim {
        ask: Ask,
        number: Number,
    },
}

struct Open {
    invoked: Instant,
    service: Service,
    what: What,
}

/// A change whose answer nobody heard.
struct Lost {
    number: Number,
    service: Service,
    invoked: Instant,
    at: Instant,
}

/// How far a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    LoggingIn,
    Settling,
    Usable,
}

struct Path {
    session: Option<Session>,
    stage: Stage,
    since: Instant,
    not_before: Instant,
    open: BTreeMap<TaskId, Open>,
    /// Keys that it has had.
    keys: u64,
}

/// How a command ended.
enum End {
    Good,
    Conflict,
    Illegal,
    /// It was not begun.
    Attention,
    Failed,
}

impl End {
    fn of(ended: &Ended) -> Self {
        let sense = &ended.completion.sense;
        let key = match sense.first().map(|code| code & 0x7f) {
            Some(0x72 | 0x73) => sense.get(1),
            _ => sense.get(2),
        };
        match (ended.completion.response, ended.completion.status, key.map(|key| key & 0x0f)) {
            (0, status::GOOD, _) => Self::Good,
            (0, status::RESERVATION_CONFLICT, _) => Self::Conflict,
            (0, status::CHECK_CONDITION, Some(5)) => Self::Illegal,
            (0, status::CHECK_CONDITION, Some(6)) => Self::Attention,
            _ => Self::Failed,
        }
    }
}

/// See the module.
pub(crate) struct Contender {
    number: usize,
    pub(crate) ip: IpAddr,
    paths: [Path; 2],
    preferred: usize,
    lost: Vec<Lost>,
    prng: Prng,
    next_issue: Instant,
    /// It stands still until then.
    still: Instant,
    pub(crate) aim: Aim,
    /// The node that it wants to serve.
    choice: Option<usize>,
    ops_left: u64,
    pub(crate) tally: Tally,
    /// What was answered since this was last asked.
    news: Vec<String>,
    pub(crate) due: Instant,
}

impl Contender {
    pub(crate) fn new(number: usize, seed: u64, ops: u64) -> Self {
        let path = || Path {
            session: None,
            stage: Stage::LoggingIn,
            since: Instant::EPOCH,
            not_before: Instant::EPOCH,
            open: BTreeMap::new(),
            keys: 0,
        };
        Self {
            number,
            ip: host::address(number),
            paths: [path(), path()],
            preferred: 0,
            lost: Vec::new(),
            prng: Prng::from_seed(seed ^ (number as u64 + 1) << 41),
            next_issue: Instant::EPOCH,
            still: Instant::EPOCH,
            aim: Aim::Contend,
            choice: None,
            ops_left: ops,
            tally: Tally::default(),
            news: Vec::new(),
            due: Instant::EPOCH,
        }
    }

    /// It wants this node to serve; false where it does nothing any more.
    pub(crate) fn choose(&mut self, node: usize) -> bool {
        let wants = self.wants_more();
        self.choice = wants.then_some(node);
        wants
    }

    pub(crate) fn is_writing(&self) -> bool {
        self.open().any(|open| matches!(open.what, What::Write { .. }))
    }

    fn open(&self) -> impl Iterator<Item = &Open> {
        self.paths.iter().flat_map(|path| path.open.values())
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.open().all(|open| matches!(open.what, What::Settle))
    }

    /// Changes that were answered since this was last asked, in words.
    pub(crate) fn take_news(&mut self) -> Vec<String> {
        core::mem::take(&mut self.news)
    }

    const fn nexus(&self, node: usize) -> Nexus {
        Nexus { host: self.number, node }
    }

    /// One turn.
    ///
    /// # Errors
    /// It saw what it must not.
    pub(crate) fn turn(&mut self, now: Instant, env: &mut Env<'_>) -> Result<(), String> {
        if now < self.still {
            self.due = self.still;
            return Ok(());
        }
        let mut busy = false;
        for node in 0..2 {
            busy |= self.drive(node, now, env)?;
        }
        self.settle_lost(env)?;
        busy |= self.issue(now, env);
        let soon = now + Duration::from_micros(if busy { 3 } else { 50 });
        let next = if self.wants_more() { self.next_issue.max(soon) } else { now + 100 * MS };
        self.due = if busy { soon } else { next.min(now + 20 * MS) }.max(self.still);
        Ok(())
    }

    // --- Sessions ---

    /// True: something happened.
    fn drive(&mut self, node: usize, now: Instant, env: &mut Env<'_>) -> Result<bool, String> {
        let path = &mut self.paths[node];
        let Some(session) = &mut path.session else {
            if now >= path.not_before {
                let address = SocketAddr::new(machine::address(node), FRONT_PORT);
                let name = format!("iqn.2026-11.sim:host{}", self.number);
                let network = env.net.host(self.ip);
                path.session = Some(Session::new(&network, address, name, machine::volume_name()));
                (path.stage, path.since) = (Stage::LoggingIn, now);
            }
            return Ok(false);
        };
        let ended = session.poll(now);
        if path.stage == Stage::LoggingIn && session.is_in() {
            env.history.logged_in(self.number, node, now);
            (path.stage, path.since) = (Stage::Settling, now);
            self.test(node, now, env);
            return Ok(true);
        }
        let busy = !ended.is_empty();
        for ended in ended {
            if let Some(open) = self.paths[node].open.remove(&ended.task) {
                self.on_ended(node, open, &ended, now, env)?;
            }
        }
        let path = &self.paths[node];
        let over = path.session.as_ref().is_some_and(Session::is_over);
        let slow = path.stage != Stage::Usable && now >= path.since + PATIENCE;
        if over || slow || path.open.values().any(|open| now >= open.invoked + PATIENCE) {
            self.hang_up(node, now, env);
        }
        Ok(busy)
    }

    fn send(&mut self, node: usize, (cdb, data, room): ([u8; 16], Vec<u8>, usize), open: Open) -> bool {
        let path = &mut self.paths[node];
        let Some(session) = &mut path.session else { return false };
        let Ok(task) = session.send(cdb, data, room) else { return false };
        let now = open.invoked;
        path.open.insert(task, open);
        // So that it leaves before this host stands still.
        let _none = session.poll(now);
        true
    }

    fn test(&mut self, node: usize, now: Instant, env: &Env<'_>) {
        let open = Open { invoked: now, service: (node, env.runs[node]), what: What::Settle };
        self.send(node, (cdb::test_unit_ready(), Vec::new(), 0), open);
    }

    /// What the session had sent is lost with it.
    fn hang_up(&mut self, node: usize, now: Instant, env: &mut Env<'_>) {
        let path = &mut self.paths[node];
        path.session = None;
        path.not_before = now + PAUSE;
        env.net.vanish(self.ip, machine::address(node));
        for (_, open) in core::mem::take(&mut path.open) {
            self.lose(open, now, env);
        }
        self.preferred = 1 - node;
    }

    /// Nobody knows what becomes of it.
    fn lose(&mut self, open: Open, now: Instant, env: &mut Env<'_>) {
        let Open { invoked, service, what } = open;
        match what {
            What::Settle | What::Choose => return,
            What::Write { value, watched, .. } => {
                env.history.give_up(value, Outcome::Unknown, now);
                env.orders.unwatch(watched);
            }
            What::Read { watched, .. } => env.orders.unwatch(watched),
            What::Claim { ask, number } => {
                self.news.push(format!("at node {}: {ask:x?}: nobody hears an answer", service.0));
                if env.orders.lost(number) {
                    self.lost.push(Lost { number, service, invoked, at: now });
                }
            }
        }
        self.tally.bad += 1;
    }

    /// Changes that have happened by now, or never will.
    fn settle_lost(&mut self, env: &mut Env<'_>) -> Result<(), String> {
        let (history, number) = (&*env.history, self.number);
        let is_over = |lost: &mut Lost| history.over((number, lost.service), lost.invoked, lost.at).is_some();
        let over: Vec<Lost> = self.lost.extract_if(.., is_over).collect();
        for lost in over {
            self.news.push(format!("what it had asked node {} for is over", lost.service.0));
            env.orders.over(lost.number)?;
        }
        env.look_at_bars();
        Ok(())
    }

    // --- Answers ---

    fn on_ended(
        &mut self,
        node: usize,
        open: Open,
        ended: &Ended,
        now: Instant,
        env: &mut Env<'_>,
    ) -> Result<(), String> {
        let end = End::of(ended);
        let Open { invoked, service, .. } = open;
        if matches!(end, End::Good) && !matches!(open.what, What::Settle | What::Choose) {
            self.tally.good += 1;
            self.tally.passed_on += u64::from(node != env.serving);
            self.preferred = node;
            env.history.answered(service, invoked, now);
        }
        match (open.what, end) {
            (What::Settle, End::Attention) => self.test(node, now, env),
            (What::Settle, _) => self.paths[node].stage = Stage::Usable,
            // Whoever serves by now will be found.
            (What::Choose, _) => {}
            (What::Write { blocks, value, watched }, End::Good) => {
                env.history.acknowledge(blocks, value, now);
                env.orders.passed(watched)?;
            }
            (What::Read { blocks, before, watched }, End::Good) => {
                for ((block, bytes), before) in blocks.zip(ended.data.chunks_exact(BLOCK)).zip(before) {
                    let value = host::value_of(bytes, block)?;
                    env.history.read(block, value, (invoked, now), before)?;
                }
                env.orders.passed(watched)?;
            }
            (What::Write { value, watched, .. }, End::Conflict) => {
                env.history.give_up(value, Outcome::Ended, now);
                env.orders.kept_out(watched)?;
                self.tally.kept_out += 1;
            }
            (What::Read { watched, .. }, End::Conflict) => {
                env.orders.kept_out(watched)?;
                self.tally.kept_out += 1;
            }
            (What::Claim { ask, number }, End::Good) => {
                let answer = claims::decode(ask, &ended.data)?;
                self.on_claimed(node, ask, number, &answer, now, env)?;
            }
            (What::Claim { ask, number }, End::Conflict) => {
                self.on_claimed(node, ask, number, &Answer::Conflict, now, env)?;
            }
            (What::Claim { ask, number }, End::Illegal) => {
                self.on_claimed(node, ask, number, &Answer::Illegal, now, env)?;
            }
            // A way that was lost between the nodes is told by an attention, too: then it may have been begun.
            (What::Claim { number, .. }, End::Attention) if env.standby == StandbyMode::Refuse => {
                env.orders.refused(number)?;
            }
            (what @ What::Claim { .. }, _) => {
                self.lose(Open { invoked, service, what }, now, env);
                self.hang_up(node, now, env);
            }
            (what, end) => {
                self.lose(Open { invoked, service, what }, now, env);
                if matches!(end, End::Failed) {
                    self.paths[node].not_before = now + PAUSE;
                    self.preferred = 1 - node;
                }
            }
        }
        Ok(())
    }

    fn on_claimed(
        &mut self,
        node: usize,
        ask: Ask,
        number: Number,
        answer: &Answer,
        now: Instant,
        env: &mut Env<'_>,
    ) -> Result<(), String> {
        self.news.push(format!("at node {node}: {ask:x?}: {answer:x?}"));
        self.tally.claims += u64::from(*answer == Answer::Good);
        let told = env.orders.answered(number, answer, now);
        env.look_at_bars();
        told
    }
}
