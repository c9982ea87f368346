//! Login at the initiator: a security stage without authentication, then the operational keys.

use alloc::vec::Vec;

use super::{Connection, Event, Outgoing};
use crate::keys::{Negotiation, Preferences};
use crate::pdu::{Header, flag, opcode};
use crate::protocol::{Body, CloseReason};
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

#[derive(Debug)]
pub(super) struct Login {
    negotiation: Negotiation,
    offered: bool,
    exchanges: u32,
    tsih: u16,
    text: Vec<u8>,
}

impl Login {
    pub(super) fn new(preferences: Preferences) -> Self {
        Self {
            negotiation: Negotiation::new(preferences),
            offered: false,
            exchanges: 0,
            tsih: 0,
            text: Vec::new(),
        }
    }
}

impl Connection {
    /// Sends the login request of the stage at hand.
    pub(super) fn send_login(&mut self) {
        let mut text = Vec::new();
        let transit = match self.stage {
            Stage::Security => {
                text::emit(&mut text, "InitiatorName", &self.config.initiator);
                match &self.config.target {
                    Some(target) => {
                        text::emit(&mut text, "TargetName", target);
                        text::emit(&mut text, "SessionType", "Normal");
                    }
                    None => text::emit(&mut text, "SessionType", "Discovery"),
                }
                text::emit(&mut text, "AuthMethod", "None");
                flag::TRANSIT | 1
            }
            _ => {
                if !self.login.offered {
                    self.login.offered = true;
                    for (key, value) in self.login.negotiation.offers() {
                        text::emit(&mut text, key, &value);
                    }
                }
                flag::TRANSIT | 1 << 2 | 3
            }
        };
        let header = Header::new(opcode::LOGIN, transit)
            .with_immediate()
            .with_isid(self.config.isid)
            .with_u16(14, self.login.tsih)
            .with_itt(0)
            .with_cmd_sn(self.cmd_sn);
        let body = if text.is_empty() { Body::None } else { Body::Inline(text) };
        self.outgoing.push_back(Outgoing::Control { header, body });
    }

    pub(super) fn on_login_response(&mut self, header: &Header, data: &[u8]) {
        if header.opcode() != opcode::LOGIN_RESPONSE {
            return self.misbehaved("a PDU other than Login Response during login");
        }
        let (class, detail) = (header.byte(36), header.byte(37));
        if class != 0 {
            return self.close(CloseReason::LoginRefused { class, detail });
        }
        self.login.exchanges += 1;
        if self.login.exchanges > EXCHANGES_MAX || self.login.text.len() + data.len() > TEXT_MAX {
            return self.misbehaved("a login without end");
        }
        self.exp_stat_sn = header.stat_sn().wrapping_add(1);
        self.login.text.extend_from_slice(data);
        if header.has(flag::CONTINUE) {
            return self.send_login();
        }
        let text = core::mem::take(&mut self.login.text);
        if let Err(what) = self.take_answers(&text) {
            return self.misbehaved(what);
        }
        self.advance_login(header);
    }

    fn take_answers(&mut self, text: &[u8]) -> Result<(), &'static str> {
        let pairs = text::parse(text).map_err(|_| "login text that is no text")?;
        for (key, value) in &pairs {
            match key.as_str() {
                "AuthMethod" if value != "None" => return Err("the target wants authentication"),
                _ => self.login.negotiation.conclude(key, value).map_err(|error| error.0)?,
            }
        }
        Ok(())
    }

    fn advance_login(&mut self, header: &Header) {
        if !header.has(flag::TRANSIT) {
            return self.send_login();
        }
        match (self.stage, header.flags() & 3) {
            (Stage::Security, 1) => {
                self.stage = Stage::Operational;
                self.send_login();
            }
            (Stage::Operational, 3) => {
                self.login.tsih = header.u16_at(14);
                self.parameters = self.login.negotiation.clone().into_parameters();
                self.deframer.set_digests(self.parameters.header_digest, self.parameters.data_digest);
                self.max_cmd_sn = header.max_cmd_sn();
                self.stage = Stage::FullFeature;
                self.events.push_back(Event::LoggedIn);
            }
            _ => self.misbehaved("a login stage that was not asked for"),
        }
    }
}
