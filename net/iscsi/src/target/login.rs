//! Login at the target (RFC 7143 section 6.3): stages, keys, and the owner's decision in between.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Connection, Outgoing, Phase};
use crate::keys::{Negotiation, Preferences};
use crate::pdu::{Header, flag, opcode};
use crate::protocol::{Body, CloseReason};
use crate::text::{self, Pairs};

/// Login exchanges before the target loses patience.
const EXCHANGES_MAX: u32 = 32;
/// Bytes of continued login text that are kept.
const TEXT_MAX: usize = 64 << 10;

/// Discovery or normal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionType {
    /// SendTargets only.
    Discovery,
    /// SCSI.
    Normal,
}

/// Who wants in, and to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginRequest {
    /// Discovery or normal.
    pub session_type: SessionType,
    /// InitiatorName.
    pub initiator: String,
    /// InitiatorAlias, empty when none was sent.
    pub initiator_alias: String,
    /// TargetName of a normal session.
    pub target: Option<String>,
    /// ISID: with the initiator's name and the portal group it names the I_T nexus.
    pub isid: [u8; 6],
    /// TSIH: zero for a new session.
    pub tsih: u16,
    /// Connection identifier.
    pub cid: u16,
}

/// What a granted login tells the initiator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The session's handle, not zero.
    pub tsih: u16,
    /// Tag of the portal group.
    pub portal_group_tag: u16,
    /// TargetAlias; empty for none.
    pub target_alias: String,
    /// Numbered commands that may be open at once.
    pub queue_depth: u32,
}

/// Why a login is refused (RFC 7143 section 11.13.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginStatus {
    /// 0200: initiator error.
    InitiatorError,
    /// 0201: authentication failed.
    AuthenticationFailure,
    /// 0202: this initiator may not use the target.
    AuthorizationFailure,
    /// 0203: no such target here.
    NotFound,
    /// 0205: version not supported.
    UnsupportedVersion,
    /// 0207: a required key is missing.
    MissingParameter,
    /// 0208: a second connection cannot be included.
    CannotInclude,
    /// 020a: the session does not exist.
    SessionDoesNotExist,
    /// 020b: invalid during login.
    InvalidDuringLogin,
    /// 0301: service unavailable.
    ServiceUnavailable,
    /// 0302: out of resources.
    OutOfResources,
}

impl LoginStatus {
    /// Class and detail.
    pub fn code(self) -> (u8, u8) {
        match self {
            Self::InitiatorError => (2, 0),
            Self::AuthenticationFailure => (2, 1),
            Self::AuthorizationFailure => (2, 2),
            Self::NotFound => (2, 3),
            Self::UnsupportedVersion => (2, 5),
            Self::MissingParameter => (2, 7),
            Self::CannotInclude => (2, 8),
            Self::SessionDoesNotExist => (2, 0x0a),
            Self::InvalidDuringLogin => (2, 0x0b),
            Self::ServiceUnavailable => (3, 1),
            Self::OutOfResources => (3, 2),
        }
    }
}

/// What the owner has said.
#[derive(Debug)]
enum Decision {
    /// Nobody has been identified yet.
    NotAsked,
    /// The owner thinks.
    Asked,
    /// Let in.
    Granted(Grant),
}

/// A request whose text is complete.
#[derive(Debug)]
struct Pending {
    header: Header,
    pairs: Pairs,
}

#[derive(Debug)]
pub(super) struct Login {
    negotiation: Negotiation,
    decision: Decision,
    /// Current stage: 0 security, 1 operational.
    stage: u8,
    pending: Option<Pending>,
    text: Vec<u8>,
    exchanges: u32,
    announced: bool,
}

impl Login {
    pub(super) fn new(preferences: Preferences) -> Self {
        Self {
            negotiation: Negotiation::new(preferences),
            decision: Decision::NotAsked,
            stage: 0,
            pending: None,
            text: Vec::new(),
            exchanges: 0,
            announced: false,
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.decision, Decision::Asked)
    }

    pub(super) fn grant(&mut self, grant: Grant) {
        self.decision = Decision::Granted(grant);
    }
}

fn current_stage(header: &Header) -> u8 {
    header.flags() >> 2 & 3
}

fn next_stage(header: &Header) -> u8 {
    header.flags() & 3
}

impl Connection {
    /// A login request is complete.
    pub(super) fn on_login(&mut self, header: &Header, data: &[u8]) {
        if let Err(status) = self.check_login(header, data) {
            return self.fail_login(status);
        }
        if header.has(flag::CONTINUE) {
            // More text follows: answer with an empty response of the same stage.
            return self.send_login_response(header, 0, Vec::new());
        }
        let text = core::mem::take(&mut self.login.text);
        let Ok(pairs) = text::parse(&text) else { return self.fail_login(LoginStatus::InitiatorError) };
        self.login.pending = Some(Pending { header: *header, pairs });
        self.run_login();
    }

    fn check_login(&mut self, header: &Header, data: &[u8]) -> Result<(), LoginStatus> {
        self.login.exchanges += 1;
        if self.login.exchanges > EXCHANGES_MAX || self.login.text.len() + data.len() > TEXT_MAX {
            return Err(LoginStatus::InitiatorError);
        }
        if header.byte(3) != 0 {
            return Err(LoginStatus::UnsupportedVersion);
        }
        let stage = current_stage(header);
        let transits = header.has(flag::TRANSIT);
        //= rfc7143#section-11.12.3: stage 2 is reserved, and a transit goes forward.
        let legal = stage <= 1 && (!transits || (next_stage(header) > stage && next_stage(header) != 2));
        if !legal || stage < self.login.stage || (transits && header.has(flag::CONTINUE)) {
            return Err(LoginStatus::InitiatorError);
        }
        if self.login.exchanges == 1 {
            self.exp_cmd_sn = header.cmd_sn();
            self.max_cmd_sn = header.cmd_sn();
        }
        self.login.stage = stage;
        self.login.text.extend_from_slice(data);
        Ok(())
    }

    /// Goes as far as the owner's decision allows.
    pub(super) fn run_login(&mut self) {
        match &self.login.decision {
            Decision::NotAsked => self.identify(),
            Decision::Asked => {}
            Decision::Granted(_) => self.answer_login(),
        }
    }

    fn identify(&mut self) {
        let Some(pending) = &self.login.pending else { return };
        match login_request(&pending.header, &pending.pairs) {
            Ok(request) => {
                self.session_type = request.session_type;
                self.login.decision = Decision::Asked;
                self.events.push_back(super::Event::LoginRequest(request));
            }
            Err(status) => self.fail_login(status),
        }
    }

    fn answer_login(&mut self) {
        let Some(pending) = self.login.pending.take() else { return };
        let mut text = Vec::new();
        if !self.login.announced {
            self.login.announced = true;
            if self.session_type == SessionType::Normal {
                self.announce(&mut text);
            }
        }
        let in_operational = current_stage(&pending.header) == 1;
        for (key, value) in &pending.pairs {
            if let Err(status) = self.answer_key(key, value, &mut text) {
                return self.fail_login(status);
            }
        }
        if in_operational && let Some((key, value)) = self.login.negotiation.declaration() {
            text::emit(&mut text, key, &value);
        }
        let transit =
            if pending.header.has(flag::TRANSIT) { flag::TRANSIT | next_stage(&pending.header) } else { 0 };
        let finishes = transit == flag::TRANSIT | 3;
        if finishes {
            self.parameters = self.login.negotiation.clone().into_parameters();
            let Decision::Granted(grant) = &self.login.decision else { return };
            self.config.queue_depth = grant.queue_depth;
            self.update_window();
        }
        self.send_login_response(&pending.header, transit, text);
        if finishes {
            self.outgoing.push_back(Outgoing::EnterFullFeature);
        }
    }

    fn announce(&self, text: &mut Vec<u8>) {
        let Decision::Granted(grant) = &self.login.decision else { return };
        text::emit(text, "TargetPortalGroupTag", &grant.portal_group_tag.to_string());
        if !grant.target_alias.is_empty() {
            text::emit(text, "TargetAlias", &grant.target_alias);
        }
    }

    fn answer_key(&mut self, key: &str, value: &str, text: &mut Vec<u8>) -> Result<(), LoginStatus> {
        match key {
            "InitiatorName" | "InitiatorAlias" | "TargetName" | "SessionType" => Ok(()),
            "AuthMethod" => {
                if !value.split(',').any(|method| method == "None") {
                    return Err(LoginStatus::AuthenticationFailure);
                }
                text::emit(text, "AuthMethod", "None");
                Ok(())
            }
            // Operational keys are answered in whichever stage they come.
            _ => {
                let answer =
                    self.login.negotiation.respond(key, value).map_err(|_| LoginStatus::InitiatorError)?;
                if let Some(answer) = answer {
                    text::emit(text, key, &answer);
                }
                Ok(())
            }
        }
    }

    fn send_login_response(&mut self, request: &Header, transit: u8, text: Vec<u8>) {
        let stage = current_stage(request) << 2;
        let tsih = match &self.login.decision {
            Decision::Granted(grant) if transit == flag::TRANSIT | 3 => grant.tsih,
            _ => request.u16_at(14),
        };
        let header = Header::new(opcode::LOGIN_RESPONSE, transit | stage)
            .with_isid(request.isid())
            .with_u16(14, tsih)
            .with_itt(request.itt());
        let body = if text.is_empty() { Body::None } else { Body::Inline(text) };
        self.send(header, body);
    }

    pub(super) fn fail_login(&mut self, status: LoginStatus) {
        let (class, detail) = status.code();
        let request = self.deframer.header();
        let header = Header::new(opcode::LOGIN_RESPONSE, request.flags() & 0x0c)
            .with_isid(request.isid())
            .with_u16(14, request.u16_at(14))
            .with_itt(request.itt())
            .with_byte(36, class)
            .with_byte(37, detail);
        debug_assert_eq!(self.phase, Phase::Login);
        self.login.decision = Decision::Asked;
        self.send(header, Body::None);
        self.outgoing.push_back(Outgoing::Close(CloseReason::LoginRefused { class, detail }));
    }
}

fn login_request(header: &Header, pairs: &Pairs) -> Result<LoginRequest, LoginStatus> {
    let find = |key: &str| pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    let initiator =
        find("InitiatorName").filter(|name| !name.is_empty()).ok_or(LoginStatus::MissingParameter)?;
    let session_type = match find("SessionType").as_deref() {
        None | Some("Normal") => SessionType::Normal,
        Some("Discovery") => SessionType::Discovery,
        Some(_) => return Err(LoginStatus::InitiatorError),
    };
    let target = find("TargetName");
    if session_type == SessionType::Normal && target.is_none() {
        return Err(LoginStatus::MissingParameter);
    }
    Ok(LoginRequest {
        session_type,
        initiator,
        initiator_alias: find("InitiatorAlias").unwrap_or_default(),
        target,
        isid: header.isid(),
        tsih: header.u16_at(14),
        cid: header.u16_at(20),
    })
}
