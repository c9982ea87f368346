//! The ways of a session: addresses of one portal group of its target, over different links.
//!
//! Each has a connection of the session at the least, and all of them are used. The session stays the one that it is when a way is cut:
//! what was under way there goes on at another connection (error recovery level 2), so that whoever is behind the target sees one
//! initiator, and neither a new one nor the same command twice.
//!
//! A way counts as cut when a ping on it has no answer, nor anything else comes by it, while a ping that was sent later on another way has. One
//! that is slow, with much before the ping, is not cut. A target that stands still says
//! nothing on any: that is the session's own silence.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;

use engine::Instant;

use super::{End, Live, Member, Standing};

/// News that nobody took; more are left out.
const NEWS_MAX: usize = 64;

/// What a way is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayState {
    /// Connections of the session serve on it.
    Up,
    /// One is logging in.
    Joining,
    /// There is none.
    Down,
}

/// A way as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The portal.
    pub address: SocketAddr,
    /// What it is.
    pub state: WayState,
    /// Commands under way on it.
    pub tasks: usize,
    /// How long the last ping took.
    pub round_trip: Option<Duration>,
}

/// What became of a way while the session stayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WayNews {
    /// Its connection is gone, for this reason.
    Lost(SocketAddr, String),
    /// It is used again.
    Back(SocketAddr),
}

/// How often pings are sent, and when one without an answer is too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pulse {
    pub(super) every: Duration,
    /// Beside another way that answers.
    pub(super) outdone: Duration,
}

impl Pulse {
    /// With several ways a cut is noticed before one ping of a single way would have been sent.
    pub(super) fn of(keep_alive: Duration, ways: usize) -> Self {
        let every = if ways > 1 { keep_alive / 5 } else { keep_alive };
        Self { every, outdone: keep_alive * 3 / 5 }
    }
}

/// See the module.
pub(super) struct Ways {
    all: Vec<SocketAddr>,
    /// The one that a connection was begun on last.
    tried: usize,
    news: VecDeque<WayNews>,
}

impl Ways {
    /// The session begins on `first`.
    pub(super) fn new(all: Vec<SocketAddr>, first: SocketAddr) -> Self {
        let tried = all.iter().position(|way| *way == first).unwrap_or(0);
        Self { all, tried, news: VecDeque::new() }
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    fn tell(&mut self, news: WayNews) {
        if self.all.len() > 1 && self.news.len() < NEWS_MAX {
            self.news.push_back(news);
        }
    }
}

impl Live {
    /// Where the next connection goes: the way with the fewest, and of those the next one in turn.
    pub(in super::super) fn next_way(&mut self) -> SocketAddr {
        let Self { ways, members, .. } = self;
        let busy = |at: &usize| members.iter().filter(|member| member.way == ways.all[*at]).count();
        let turns = (1..=ways.all.len()).map(|step| (ways.tried + step) % ways.all.len());
        ways.tried = turns.min_by_key(busy).unwrap_or(ways.tried);
        ways.all[ways.tried]
    }

    /// True for a connection whose way is cut, as far as another one shows.
    pub(super) fn is_outdone(&self, member: &Member, now: Instant, outdone: Duration) -> bool {
        let late = |sent: &Instant| now.saturating_since(member.heard_at.max(*sent)) >= outdone;
        let Some(sent) = member.ping_sent.filter(late).filter(|_| member.serves()) else { return false };
        let answers = |other: &Member| other.way != member.way && other.serves() && other.alive_at >= sent;
        self.members.iter().any(answers)
    }

    /// True when nothing but this connection serves: then the session ends with it, and begins anew on whatever way there is.
    pub(super) fn is_last(&self, at: usize) -> bool {
        let others = self.members.iter().enumerate().filter(|(other, _)| *other != at);
        others.map(|(_, member)| member).all(|member| !member.serves())
    }

    pub(super) fn tell_lost(&mut self, way: SocketAddr, end: &End) {
        self.ways.tell(WayNews::Lost(way, end.cause().to_string()));
    }

    pub(super) fn tell_back(&mut self, way: SocketAddr) {
        self.ways.tell(WayNews::Back(way));
    }

    pub(in super::super) fn take_way_news(&mut self) -> VecDeque<WayNews> {
        core::mem::take(&mut self.ways.news)
    }

    /// What its ways are now.
    pub(in super::super) fn ways(&self) -> impl Iterator<Item = Way> + '_ {
        self.ways.all.iter().map(|address| {
            let on = || self.members.iter().filter(|member| member.way == *address);
            let state = match on().map(|member| member.standing).max() {
                Some(Standing::Serving) => WayState::Up,
                Some(Standing::Joining) => WayState::Joining,
                None => WayState::Down,
            };
            let tasks = on().map(|member| member.connection.open_tasks()).sum();
            let round_trip = on().filter_map(|member| member.round_trip).max();
            Way { address: *address, state, tasks, round_trip }
        })
    }
}
