//! Who is let in: name, access, authentication, session reinstatement.

use std::collections::BTreeSet;
use std::rc::Rc;

use engine::Instant;
use iscsi::chap::Verifying;
use iscsi::target::{Admission, Grant, LoginRequest, LoginStatus, SessionType};

use super::node::{Node, Redirect};
use super::session::{Origin, Session};
use super::{Entry, Target, Waiting};
use crate::access::{Caller, LunMask, Verdict};
use crate::auth::{self, AuthGroup, AuthPolicy, User};

/// What becomes of a login request.
enum Decision {
    /// The initiator may try; a discovery session has no place.
    Admit { place: Option<(Rc<Node>, LunMask)>, authentication: Verifying },
    /// It is sent elsewhere.
    Redirect(Redirect),
    /// It stays out.
    Refuse(LoginStatus),
}

impl Target {
    pub(super) fn on_login(&mut self, id: u64, who: LoginRequest) {
        // Names compare without regard to case: they are folded once, here (RFC 3722).
        //= rfc7143#section-4.2.7.2: names compare without case, whatever end has folded them.
        let target = who.target.map(|name| name.to_ascii_lowercase());
        let who = LoginRequest { initiator: who.initiator.to_ascii_lowercase(), target, ..who };
        self.look_for_relay(id, &who);
        let Some(entry) = self.sessions.get(&id) else { return };
        let decision = self.judge(&entry.session, &who);
        let joins = match who.tsih {
            0 => None,
            _ => self
                .joined(&entry.session, &who)
                .map(|(_, joined)| joined.links.leading().connection.membership()),
        };
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        let session = &mut entry.session;
        let (place, authentication) = match decision {
            Decision::Admit { place, authentication } => (place, authentication),
            Decision::Redirect(Redirect { address, how }) => {
                return session.connection().redirect_login(how, &address.to_string());
            }
            Decision::Refuse(status) => return session.connection().refuse_login(status),
        };
        session.who = Some(who);
        let alias = place.as_ref().map(|(node, _)| node.config.borrow().alias.clone());
        let digests = place.as_ref().map(|(node, _)| node.config.borrow().digests).unwrap_or_default();
        if let Some((node, mask)) = place {
            session.node = Some(node);
            session.mask = mask;
        }
        let portal_group_tag = session.port().unwrap_or(1);
        let target_alias = alias.unwrap_or_default();
        let admission = Admission { portal_group_tag, target_alias, authentication, digests, joins };
        session.connection().admit_login(admission);
    }

    /// The session that a login with a handle is to join (RFC 7143 section 6.3.1(b)): the initiator's own, at the same portal group.
    fn joined(&self, session: &Session, who: &LoginRequest) -> Option<(u64, &Session)> {
        let is = |other: &Session| {
            let same = |old: &LoginRequest| {
                old.initiator == who.initiator && old.isid == who.isid && old.target == who.target
            };
            other.tsih == who.tsih
                && other.who.as_ref().is_some_and(same)
                && (other.portal_group, other.origin) == (session.portal_group, session.origin)
                && other.is_full_feature()
        };
        self.sessions.iter().find(|(_, entry)| is(&entry.session)).map(|(id, entry)| (*id, &entry.session))
    }

    /// Whether one more connection may join: there is room, or it replaces one.
    fn judge_joining(&self, session: &Session, who: &LoginRequest) -> Result<(), LoginStatus> {
        let (_, joined) = self.joined(session, who).ok_or(LoginStatus::SessionDoesNotExist)?;
        if who.session_type == SessionType::Discovery {
            return Err(LoginStatus::CannotInclude);
        }
        let allowed = joined.links.leading().connection.parameters().max_connections as usize;
        let others = joined.links.iter().filter(|link| link.connection.cid() != who.cid).count();
        //= rfc7143#section-11.13.5(c): no more connections than were agreed on.
        if others < allowed { Ok(()) } else { Err(LoginStatus::TooManyConnections) }
    }

    /// Whether to let somebody try, where, and how he has to authenticate himself.
    fn judge(&self, session: &Session, who: &LoginRequest) -> Decision {
        if who.tsih != 0
            && let Err(status) = self.judge_joining(session, who)
        {
            return Decision::Refuse(status);
        }
        if who.session_type == SessionType::Discovery {
            let own = self.portal_groups.get(&session.portal_group).and_then(|group| group.auth);
            return self.admit(None, own.unwrap_or(self.discovery_auth), |user| user.may_be(&who.initiator));
        }
        let node = who.target.as_deref().and_then(|name| self.named(name).ok());
        if let Some(node) = node.as_ref().filter(|_| session.origin == Origin::Peer) {
            // The peer has let him in and knows what he may see; it proves that it is the peer.
            let own = self.portal_groups.get(&session.portal_group).and_then(|group| group.auth);
            let policy = own.unwrap_or(node.config.borrow().auth);
            return self.admit(Some((node.clone(), LunMask::All)), policy, |_| true);
        }
        let shown = |node: &Rc<Node>| {
            node.config.borrow().maps.iter().any(|map| map.portal_group == session.portal_group)
        };
        let Some(node) = node.filter(shown) else { return Decision::Refuse(LoginStatus::NotFound) };
        let Some(mask) = self.access(&node, session, who) else {
            return Decision::Refuse(LoginStatus::AuthorizationFailure);
        };
        if let Some(redirect) = node.config.borrow().redirects.get(&session.portal_group) {
            return Decision::Redirect(*redirect);
        }
        let policy = node.config.borrow().auth;
        self.admit(Some((node, mask)), policy, |user| user.may_be(&who.initiator))
    }

    fn admit(
        &self,
        place: Option<(Rc<Node>, LunMask)>,
        policy: AuthPolicy,
        may_be_he: impl Fn(&User) -> bool,
    ) -> Decision {
        match self.verifying(policy, may_be_he) {
            Ok(authentication) => Decision::Admit { place, authentication },
            Err(status) => Decision::Refuse(status),
        }
    }

    /// Who may prove himself: of the users of the policy's group those that may be who logs in.
    fn verifying(
        &self,
        policy: AuthPolicy,
        may_be_he: impl Fn(&User) -> bool,
    ) -> Result<Verifying, LoginStatus> {
        let challenge = auth::challenge().map_err(|_| LoginStatus::OutOfResources)?;
        let group = self.auth_groups.get(&policy.group).cloned().unwrap_or_else(|| Vec::new().into());
        let AuthGroup { users, algorithms } = group;
        let accounts = users.iter().filter(|user| may_be_he(user)).map(|user| user.account.clone()).collect();
        Ok(Verifying { requirement: policy.requirement, accounts, algorithms, challenge })
    }

    /// Everything is proved and agreed on: what the session replaces ends first.
    pub(super) fn on_login_complete(&mut self, id: u64, now: Instant) {
        let Some(who) = self.sessions.get(&id).and_then(|entry| entry.session.who.clone()) else { return };
        if who.tsih != 0 {
            return self.on_joining_complete(id, &who, now);
        }
        let limits = self.config.limits;
        let mut predecessors = self.end_predecessors(id, &who);
        self.make_places(id, &who, &mut predecessors);
        let sessions = self.count_sessions(&predecessors);
        let enough = self.has_enough(id, &who, &predecessors);
        if who.session_type == SessionType::Discovery && !enough {
            self.make_room_for_discovery();
        }
        let used: BTreeSet<u16> = self.sessions.values().map(|entry| entry.session.tsih).collect();
        self.last_tsih = next_tsih(self.last_tsih, &used);
        if let Some(entry) = self.sessions.get_mut(&id) {
            let node = &entry.session.node;
            if enough || (node.is_some() && sessions >= limits.sessions) {
                return entry.session.connection().refuse_login(LoginStatus::OutOfResources);
            }
            let queue_depth = node.as_ref().map_or(1, |node| node.config.borrow().queue_depth);
            let queue_depth = queue_depth.min(limits.queue_depth);
            entry.session.tsih = self.last_tsih;
            // Before this nobody has proved to be the nexus that he names.
            entry.session.identify();
            if let (Some(node), Some(nexus)) = (&entry.session.node, &entry.session.nexus) {
                // Whom the peer relays it tells itself.
                let told = entry.session.origin == Origin::Host;
                node.enter(id, told.then(|| self.known.greet(&node.name(), nexus)));
            }
            let grant = Grant { tsih: self.last_tsih, queue_depth };
            entry.waiting = Some(Waiting::ToBegin(grant, predecessors));
        }
    }

    /// The same for one more connection: what it replaces ends first.
    fn on_joining_complete(&mut self, id: u64, who: &LoginRequest, now: Instant) {
        let Some(entry) = self.sessions.get(&id) else { return };
        let joined = self.joined(&entry.session, who).map(|(joined, _)| joined);
        let judged = self.judge_joining(&entry.session, who);
        if let (Ok(()), Some(joined)) = (judged, joined)
            && let Some(other) = self.sessions.get_mut(&joined)
        {
            other.session.replace(who.cid, now);
        }
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        match (judged, joined) {
            (Ok(()), Some(joined)) => entry.waiting = Some(Waiting::ToJoin(joined)),
            (Err(status), _) => entry.session.connection().refuse_login(status),
            (Ok(()), None) => entry.session.connection().refuse_login(LoginStatus::SessionDoesNotExist),
        }
    }

    /// Which LUNs of a target an initiator may use through the portal that it came by; `None` for no access.
    pub(super) fn access(&self, node: &Node, session: &Session, who: &LoginRequest) -> Option<LunMask> {
        self.access_through(node, session.portal_group, session, who)
    }

    /// The same, through any portal group. One group that denies outweighs all that allow.
    pub(super) fn access_through(
        &self,
        node: &Node,
        portal_group: i32,
        session: &Session,
        who: &LoginRequest,
    ) -> Option<LunMask> {
        let address = session.stream().peer_addr()?.ip();
        let caller = Caller { name: &who.initiator, alias: &who.initiator_alias, address };
        let mut seen = None;
        for map in node.config.borrow().maps.iter().filter(|map| map.portal_group == portal_group) {
            match self.initiator_groups.get(&map.initiator_group).map(|group| group.judge(caller)) {
                Some(Verdict::Denied) => return None,
                Some(Verdict::Allowed) => {
                    seen = Some(match seen {
                        None => map.luns.clone(),
                        Some(mask) => LunMask::or(mask, &map.luns),
                    });
                }
                Some(Verdict::NotListed) | None => {}
            }
        }
        seen
    }

    /// Session reinstatement (RFC 7143 section 6.3.5(a)): same initiator, ISID, target and portal group.
    //= rfc7143#section-4.4.3: an initiator port has one session with a target port.
    fn end_predecessors(&mut self, id: u64, who: &LoginRequest) -> Vec<u64> {
        let Some(group) = self.sessions.get(&id).map(|entry| entry.session.portal_group) else {
            return Vec::new();
        };
        // Relays of one host come through one portal, from different ports.
        let port = self.sessions.get(&id).and_then(|entry| entry.session.port());
        let mut ended = Vec::new();
        for (other, entry) in self.sessions.iter_mut().filter(|(other, _)| **other != id) {
            let same = entry.session.portal_group == group
                && entry.session.who.as_ref().is_some_and(|old| {
                    old.initiator == who.initiator && old.isid == who.isid && old.target == who.target
                })
                && entry.session.port() == port;
            if same && who.session_type == SessionType::Normal {
                entry.session.end("the initiator logged in again");
                if entry.session.tsih != 0 {
                    ended.push(*other);
                }
            }
        }
        ended
    }

    /// Lets in whoever waited for a predecessor that is gone now.
    pub(super) fn release_waiting(&mut self) {
        let ready = |entry: &Entry| match &entry.waiting {
            None => false,
            Some(Waiting::ToBegin(_, old)) => old.iter().all(|old| !self.sessions.contains_key(old)),
            Some(Waiting::ToJoin(joined)) => {
                self.sessions.get(joined).is_none_or(|other| !other.session.is_clearing())
            }
        };
        let ready: Vec<u64> =
            self.sessions.iter().filter(|(_, entry)| ready(entry)).map(|(id, _)| *id).collect();
        for id in ready {
            let Some(entry) = self.sessions.get_mut(&id) else { continue };
            match entry.waiting.take() {
                Some(Waiting::ToBegin(grant, _)) => entry.session.connection().grant_login(&grant),
                Some(Waiting::ToJoin(joined)) => self.join(id, joined),
                None => {}
            }
        }
    }

    /// A connection that has logged in goes on as one of its session.
    fn join(&mut self, id: u64, joined: u64) {
        let lives = self.sessions.get(&joined).is_some_and(|entry| entry.session.is_full_feature());
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        if !lives {
            return entry.session.connection().refuse_login(LoginStatus::SessionDoesNotExist);
        }
        let tsih = entry.session.who.as_ref().map_or(0, |who| who.tsih);
        // The session's own depth stays.
        entry.session.connection().grant_login(&Grant { tsih, queue_depth: 1 });
        let link = self.sessions.remove(&id).and_then(|entry| entry.session.into_link());
        if let (Some(link), Some(entry)) = (link, self.sessions.get_mut(&joined)) {
            entry.session.adopt(link);
        }
    }
}

/// The session handle after this one: zero names no session (RFC 7143 section 11.12.6), and one that is in use names another.
fn next_tsih(last: u16, used: &BTreeSet<u16>) -> u16 {
    let following = |last: u16| last.checked_add(1).unwrap_or(1);
    let mut next = following(last);
    // There are far fewer sessions than handles.
    while used.contains(&next) && next != last {
        next = following(next);
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_handle_is_never_zero_and_never_one_in_use() {
        let used = BTreeSet::from([0, 1, 2, 0xfffe]);
        assert_eq!(next_tsih(0, &used), 3);
        assert_eq!(next_tsih(3, &used), 4);
        assert_eq!(next_tsih(0xfffd, &used), 0xffff);
        assert_eq!(next_tsih(0xffff, &used), 3, "it wraps over the old sessions");
        let mut last = 0xfff0;
        for _ in 0..100 {
            last = next_tsih(last, &used);
            assert!(!used.contains(&last));
        }
    }
}
