//! Login at the initiator: the security stage, then the operational keys (RFC 7143 section 6.3).

use alloc::vec::Vec;

use super::{Connection, Event, Outgoing};
use crate::chap::{self, Prover, Proving};
use crate::keys::{Negotiation, Preferences, Purpose, SessionParameters};
use crate::pdu::{Header, flag, opcode};
use crate::protocol::{Body, CloseReason, Moved};
use crate::text;

/// Login exchanges before the initiator loses patience.
const EXCHANGES_MAX: u32 = 32;
/// Bytes of continued login text that are kept.
const TEXT_MAX: usize = 64 << 10;

/// Where the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Security,
    Operational,
    FullFeature,
    Closed,
}

/// What the target has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    Nothing,
    /// Who logs in, to what.
    Names,
    /// The operational offers.
    Offers,
}

#[derive(Debug)]
pub(super) struct Login {
    negotiation: Negotiation,
    prover: Prover,
    said: Said,
    /// What the security stage sends next.
    proof: Vec<u8>,
    /// Answers to what the target offered.
    replies: Vec<u8>,
    exchanges: u32,
    tsih: u16,
    cid: u16,
    /// The portal group that serves the session.
    portal_group: Option<u16>,
    text: Vec<u8>,
}

/// Which session a connection joins.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) tsih: u16,
    pub(super) cid: u16,
    /// The portal group that its first connection is served by.
    pub(super) portal_group: Option<u16>,
    pub(super) parameters: SessionParameters,
}

impl Login {
    pub(super) fn new(
        preferences: Preferences,
        credentials: Option<Proving>,
        joins: Option<Membership>,
    ) -> Self {
        let mut negotiation = Negotiation::new(preferences);
        let (tsih, cid) = joins.as_ref().map_or((0, 0), |session| (session.tsih, session.cid));
        let portal_group = joins.as_ref().and_then(|session| session.portal_group);
        if let Some(session) = joins {
            negotiation.join(&session.parameters);
        }
        Self {
            negotiation,
            prover: Prover::new(credentials),
            said: Said::Nothing,
            proof: Vec::new(),
            replies: Vec::new(),
            exchanges: 0,
            tsih,
            cid,
            portal_group,
            text: Vec::new(),
        }
    }

    /// The session's handle; zero before the target has given one.
    pub(super) fn tsih(&self) -> u16 {
        self.tsih
    }

    pub(super) fn cid(&self) -> u16 {
        self.cid
    }

    pub(super) fn portal_group(&self) -> Option<u16> {
        self.portal_group
    }

    /// The target tells its portal group; false when it is another one than that of the session.
    fn is_at(&mut self, tag: &str) -> bool {
        let told = text::parse_number(tag).and_then(|tag| u16::try_from(tag).ok()).unwrap_or_default();
        *self.portal_group.get_or_insert(told) == told
    }
}

impl Connection {
    /// Sends the login request of the stage at hand.
    pub(super) fn send_login(&mut self) {
        let (text, transit) = match self.stage {
            Stage::Security => self.security_request(),
            _ => self.operational_request(),
        };
        let header = Header::new(opcode::LOGIN, transit)
            .with_immediate()
            .with_isid(self.config.isid)
            .with_u16(14, self.login.tsih)
            .with_itt(0)
            .with_u16(20, self.login.cid)
            .with_cmd_sn(self.numbers.next());
        let body = if text.is_empty() { Body::None } else { Body::Inline(text) };
        self.outgoing.push_back(Outgoing::Control { header, body });
    }

    fn security_request(&mut self) -> (Vec<u8>, u8) {
        let mut text = core::mem::take(&mut self.login.proof);
        text.append(&mut self.login.replies);
        if self.login.said == Said::Nothing {
            self.login.said = Said::Names;
            text::emit(&mut text, "InitiatorName", &self.config.initiator);
            if let Some(alias) = &self.config.alias {
                text::emit(&mut text, "InitiatorAlias", alias);
            }
            match &self.config.target {
                Some(target) => {
                    text::emit(&mut text, "TargetName", target);
                    text::emit(&mut text, "SessionType", "Normal");
                }
                None => {
                    self.login.negotiation.set_purpose(Purpose::Discovery);
                    text::emit(&mut text, "SessionType", "Discovery");
                }
            }
            text::emit(&mut text, "AuthMethod", self.login.prover.offer());
        }
        let transit = if self.login.prover.may_transit() { flag::TRANSIT | 1 } else { 0 };
        (text, transit)
    }

    fn operational_request(&mut self) -> (Vec<u8>, u8) {
        let mut text = core::mem::take(&mut self.login.replies);
        if self.login.said < Said::Offers {
            self.login.said = Said::Offers;
            for (key, value) in self.login.negotiation.offers() {
                text::emit(&mut text, key, &value);
            }
        }
        (text, flag::TRANSIT | 1 << 2 | 3)
    }

    pub(super) fn on_login_response(&mut self, header: &Header, data: &[u8]) {
        if header.opcode() != opcode::LOGIN_RESPONSE {
            return self.misbehaved("a PDU other than Login Response during login");
        }
        let (class, detail) = (header.byte(36), header.byte(37));
        if class != 0 {
            return self.close(refusal(class, detail, data));
        }
        self.login.exchanges += 1;
        if self.login.exchanges > EXCHANGES_MAX || self.login.text.len() + data.len() > TEXT_MAX {
            return self.misbehaved("a login without end");
        }
        self.statuses.expected = header.stat_sn().wrapping_add(1);
        self.login.text.extend_from_slice(data);
        if header.has(flag::CONTINUE) {
            return self.send_login();
        }
        let text = core::mem::take(&mut self.login.text);
        if let Err(reason) = self.take_answers(&text) {
            return self.close(reason);
        }
        self.advance_login(header);
    }

    fn take_answers(&mut self, text: &[u8]) -> Result<(), CloseReason> {
        let misbehaved = CloseReason::PeerMisbehaved;
        let pairs = text::parse(text).map_err(|_| misbehaved("login text that is no text"))?;
        if self.stage == Stage::Security {
            let login = &mut self.login;
            let proof = login.prover.handle(&pairs, &mut login.proof);
            proof.map_err(|failure| CloseReason::NotAuthenticated(failure.0))?;
        }
        for (key, value) in pairs.iter().filter(|(key, _)| !chap::is_key(key)) {
            //= rfc7143#section-6.2: what the target offers is answered, with the next request.
            if self.login.negotiation.is_peers_offer(key) {
                let answer = self.login.negotiation.respond(key, value);
                if let Some(answer) = answer.map_err(|error| misbehaved(error.0))? {
                    text::emit(&mut self.login.replies, key, &answer);
                }
                continue;
            }
            //= rfc7143#section-13.9: all connections of a session come through one portal group.
            if key == "TargetPortalGroupTag" && !self.login.is_at(value) {
                return Err(misbehaved("the portal is one of another portal group than the session's"));
            }
            self.login.negotiation.conclude(key, value).map_err(|error| misbehaved(error.0))?;
        }
        Ok(())
    }

    fn advance_login(&mut self, header: &Header) {
        if !header.has(flag::TRANSIT) {
            return self.send_login();
        }
        match (self.stage, header.flags() & 3) {
            (Stage::Security, 1) if !self.login.prover.is_done() => {
                self.close(CloseReason::NotAuthenticated("the target ends the authentication early"));
            }
            (Stage::Security, 1) => {
                self.stage = Stage::Operational;
                self.send_login();
            }
            (Stage::Operational, 3) => {
                self.login.tsih = header.u16_at(14);
                self.parameters = self.login.negotiation.clone().into_parameters();
                self.deframer.set_digests(self.parameters.header_digest, self.parameters.data_digest);
                self.numbers.open_to(header.max_cmd_sn());
                self.numbers.acknowledge(header.exp_cmd_sn());
                self.stage = Stage::FullFeature;
                self.events.push_back(Event::LoggedIn);
            }
            _ => self.misbehaved("a login stage that was not asked for"),
        }
    }
}

/// What a response without success means. A redirection without an address is none.
fn refusal(class: u8, detail: u8, data: &[u8]) -> CloseReason {
    let pairs = text::parse(data).unwrap_or_default();
    let address = pairs.into_iter().find(|(key, _)| key == "TargetAddress").map(|(_, address)| address);
    match (Moved::from_code(class, detail), address) {
        (Some(how), Some(address)) => CloseReason::Moved { address, how },
        _ => CloseReason::LoginRefused { class, detail },
    }
}
