//! How many connections and sessions there are, in all, of one address, and of one initiator.
//!
//! Counted when somebody comes or asks, never for a command.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use core::net::IpAddr;
use core::time::Duration;
use engine::Instant;
use iscsi::target::{LoginRequest, SessionType};

use super::session::{Origin, Session};
use super::{Entry, Target, guard};

/// Discovery sessions in all: the oldest makes room for one more. They need no secret, and places are for those that have one.
const DISCOVERY_MAX: usize = 16;
/// For how long one may ask for nothing.
const DISCOVERY_IDLE: Duration = Duration::from_secs(30);

impl Entry {
    /// Ends a discovery session that asks for nothing any more; so much it has asked for in this turn.
    pub(super) fn watch_discovery(&mut self, asked: usize, now: Instant) {
        if !self.session.is_of(SessionType::Discovery) {
            return;
        }
        if asked > 0 {
            self.idle_until = None;
        }
        if now >= *self.idle_until.get_or_insert(now + DISCOVERY_IDLE) {
            self.session.end("a discovery session that asks for nothing");
        }
    }
}

/// The most that one has of what has a limit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crowd {
    /// Connections from one address.
    pub connections_per_address: usize,
    /// Normal sessions of one initiator's name.
    pub sessions_per_initiator: usize,
    /// Discovery sessions from one address.
    pub discovery_per_address: usize,
}

/// How often the commonest one occurs.
fn most<T: Ord>(all: impl Iterator<Item = T>) -> usize {
    let mut counts = BTreeMap::new();
    all.for_each(|one| *counts.entry(one).or_insert(0) += 1);
    counts.into_values().max().unwrap_or(0)
}

/// Of those at these places, the oldest first, the oldest of whoever has the most.
pub(super) fn oldest_of_most<T: Ord>(owners: impl Iterator<Item = (usize, T)>) -> Option<usize> {
    let mut places: BTreeMap<T, Vec<usize>> = BTreeMap::new();
    owners.for_each(|(at, owner)| places.entry(owner).or_default().push(at));
    let oldest = |own: &Vec<usize>| (own.len(), Reverse(own.first().copied()));
    places.into_values().max_by_key(oldest)?.first().copied()
}

impl Session {
    /// Whom its connections count for; `None` where that is not known.
    pub(super) fn source(&self) -> Option<IpAddr> {
        self.stream().peer_addr().map(|address| guard::origin_of(address.ip()))
    }

    fn is_of(&self, kind: SessionType) -> bool {
        self.tsih != 0 && self.who.as_ref().is_some_and(|who| who.session_type == kind)
    }
}

impl Target {
    fn running(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values().map(|entry| &entry.session)
    }

    /// Sessions that hosts began, of one kind.
    fn of_kind(&self, kind: SessionType) -> impl Iterator<Item = &Session> {
        self.running().filter(move |session| session.origin == Origin::Host && session.is_of(kind))
    }

    pub(super) fn count_connections(&self) -> usize {
        self.running().map(|session| session.links.len()).sum()
    }

    fn counted(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let sources = self.running().filter(|session| {
            let address = session.stream().peer_addr().map(|address| address.ip());
            address.is_some_and(|address| !self.is_peer(session.portal_group, address))
        });
        sources.flat_map(|session| session.source().into_iter().flat_map(|at| vec![at; session.links.len()]))
    }

    /// Whether an address has all the connections that it may have.
    pub(super) fn is_crowded(&self, address: IpAddr) -> bool {
        let source = guard::origin_of(address);
        let limit = self.config.limits.connections_per_address;
        self.counted().filter(|other| *other == source).count() >= limit
    }

    /// Whether a portal group is where a target's peer comes to, and this is the peer.
    pub(super) fn is_peer(&self, portal_group: i32, address: IpAddr) -> bool {
        self.nodes.values().any(|node| {
            node.config
                .borrow()
                .peer
                .as_ref()
                .is_some_and(|peer| peer.portal_group == portal_group && peer.is_at(address))
        })
    }

    /// Whether whoever logs in has all the sessions that he may have; those that he replaces do not count.
    pub(super) fn has_enough(&self, id: u64, who: &LoginRequest, replaced: &[u64]) -> bool {
        let limits = self.config.limits;
        let Some(own) = self.sessions.get(&id).map(|entry| &entry.session) else { return false };
        if own.origin == Origin::Peer {
            return false;
        }
        match who.session_type {
            SessionType::Discovery => {
                let source = own.source();
                let of_source = |session: &&Session| session.source() == source;
                self.of_kind(SessionType::Discovery).filter(of_source).count() >= limits.discovery_per_address
            }
            SessionType::Normal => {
                let same = |session: &&Session| {
                    !replaced.contains(&session.id)
                        && session.who.as_ref().is_some_and(|other| other.initiator == who.initiator)
                };
                self.of_kind(SessionType::Normal).filter(same).count() >= limits.sessions_per_initiator
            }
        }
    }

    /// Sessions that nobody is connected to give their places to one that comes, wherever a limit is reached: theirs of the same address,
    /// of the same initiator, and of all. How long they wait for their hosts is what those asked for, up to an hour.
    pub(super) fn make_places(&mut self, id: u64, who: &LoginRequest, replaced: &mut Vec<u64>) {
        let Some(own) = self.sessions.get(&id).map(|entry| &entry.session) else { return };
        if own.origin == Origin::Peer || who.session_type == SessionType::Discovery {
            return;
        }
        let (limits, source) = (self.config.limits, own.source());
        // A session without connections counts like one that has one.
        let of_source = |session: &&Session| session.source() == source && !replaced.contains(&session.id);
        let places: usize = self.running().filter(of_source).map(|own| own.links.len().max(1)).sum();
        if places > limits.connections_per_address {
            replaced.extend(self.end_deserted(|session| session.source() == source));
        }
        if self.has_enough(id, who, replaced) {
            let same = |other: &LoginRequest| other.initiator == who.initiator;
            replaced.extend(self.end_deserted(|session| session.who.as_ref().is_some_and(same)));
        }
        if self.count_sessions(replaced) >= limits.sessions {
            replaced.extend(self.end_deserted(|_| true));
        }
    }

    /// Normal sessions, logged in, but for those that are replaced.
    pub(super) fn count_sessions(&self, replaced: &[u64]) -> usize {
        let counts = |session: &&Session| {
            session.node.is_some() && session.tsih != 0 && !replaced.contains(&session.id)
        };
        self.running().filter(counts).count()
    }

    /// Ends the session that has been without connections the longest, one without open commands before any other.
    fn end_deserted(&mut self, counts: impl Fn(&Session) -> bool) -> Option<u64> {
        let deserted = self.running().filter(|session| counts(session)).filter_map(|session| {
            let since = session.deserted_since()?;
            Some((session.has_tasks(), since, session.id))
        });
        let (.., id) = deserted.min()?;
        self.sessions.get_mut(&id)?.session.end("nobody was connected to it, and its place was wanted");
        Some(id)
    }

    /// One more discovery session comes in.
    pub(super) fn make_room_for_discovery(&mut self) {
        let open = self.of_kind(SessionType::Discovery).filter(|session| !session.is_over());
        let open: Vec<u64> = open.map(|session| session.id).collect();
        let oldest = open.iter().min().filter(|_| open.len() >= DISCOVERY_MAX);
        if let Some(entry) = oldest.and_then(|oldest| self.sessions.get_mut(oldest)) {
            entry.session.end("a newer discovery session");
        }
    }

    /// The most that one address and one initiator have.
    pub fn crowd(&self) -> Crowd {
        let initiators = self.of_kind(SessionType::Normal).filter_map(|session| session.who.as_ref());
        Crowd {
            connections_per_address: most(self.counted()),
            sessions_per_initiator: most(initiators.map(|who| &who.initiator)),
            discovery_per_address: most(
                self.of_kind(SessionType::Discovery).filter_map(|session| session.source()),
            ),
        }
    }
}
