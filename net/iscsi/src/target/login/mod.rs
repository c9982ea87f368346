//! Login at the target (RFC 7143 section 6.3).
//!
//! ```text
//! Unknown --(first request)--> Asked --(admitted)--> Admitted --(asks for full feature)--> Complete --(granted)--> full feature
//! ```
//!
//! The owner decides twice: who may try, with which authentication ([`Admission`]); and, when everything is proved and agreed
//! on, whether the session begins ([`Grant`]). A session that the new one replaces is ended between the two, so that nobody
//! ends another's session without a secret of the target, and which of them are good for an initiator's name the owner knows.

mod types;

use alloc::string::ToString;
use alloc::vec::Vec;

use super::numbers::Gaps;
use super::{Connection, Event, Outgoing, Phase};
use crate::chap::{self, Verifier};
use crate::keys::{Negotiation, Preferences, Purpose};
use crate::name;
use crate::pdu::{Header, flag, opcode};
use crate::protocol::{Body, CloseReason, Moved};
use crate::text::{self, Pairs};
pub use types::{Admission, Grant, LoginRequest, LoginStatus, Membership, SessionType};

/// Login exchanges before the target loses patience.
const EXCHANGES_MAX: u32 = 32;
/// Bytes of continued login text that are kept.
const TEXT_MAX: usize = 64 << 10;
/// Bytes of a login response's text (RFC 7143 section 6.2: the default of MaxRecvDataSegmentLength).
pub(super) const LOGIN_DATA_MAX: usize = 8192;

/// How far the login is.
#[derive(Debug)]
enum Progress {
    /// Nobody has been identified yet.
    Unknown,
    /// The owner thinks about an admission.
    Asked,
    /// The initiator authenticates itself and negotiates.
    Admitted(Admitted),
    /// The owner thinks about a grant.
    Complete,
    /// Over, well or not.
    Over,
}

#[derive(Debug)]
struct Admitted {
    verifier: Verifier,
    /// What the first response announces; `None` once it has.
    announcement: Option<(u16, alloc::string::String)>,
}

/// What the connection is to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Its first.
    Leading,
    /// One more.
    Joining,
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
    role: Role,
    progress: Progress,
    /// Current stage: 0 security, 1 operational.
    stage: u8,
    /// The first request: what must not change during the login.
    first: Option<Header>,
    pending: Option<Pending>,
    /// The answer to the last request, while the owner thinks about the grant.
    answer: Vec<u8>,
    text: Vec<u8>,
    exchanges: u32,
}

impl Login {
    pub(super) fn new(preferences: Preferences) -> Self {
        Self {
            negotiation: Negotiation::new(preferences),
            role: Role::Leading,
            progress: Progress::Unknown,
            stage: 0,
            first: None,
            pending: None,
            answer: Vec::new(),
            text: Vec::new(),
            exchanges: 0,
        }
    }

    /// True once a login request has come.
    pub(super) fn has_begun(&self) -> bool {
        self.first.is_some()
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.progress, Progress::Asked | Progress::Complete | Progress::Over)
    }
}

fn current_stage(header: &Header) -> u8 {
    header.flags() >> 2 & 3
}

fn next_stage(header: &Header) -> u8 {
    header.flags() & 3
}

/// The stage number of full feature phase.
const FULL_FEATURE: u8 = 3;

impl Connection {
    /// Lets the initiator try: it authenticates itself as the admission says, and negotiates.
    pub fn admit_login(&mut self, admission: Admission) {
        if self.phase != Phase::Login || !matches!(self.login.progress, Progress::Asked) {
            return;
        }
        let Admission { portal_group_tag, target_alias, authentication, digests, joins } = admission;
        self.login.negotiation.set_digests(digests);
        if let Some(Membership { parameters, numbering }) = joins {
            self.login.negotiation.join(&parameters);
            self.numbers = numbering;
            self.login.role = Role::Joining;
        }
        let announcement =
            (self.session_type == SessionType::Normal).then_some((portal_group_tag, target_alias));
        let verifier = Verifier::new(authentication);
        self.login.progress = Progress::Admitted(Admitted { verifier, announcement });
        self.answer_login();
    }

    /// Begins the session of a login that is complete.
    pub fn grant_login(&mut self, grant: &Grant) {
        //= rfc7143#section-11.13.3: the final response alone shows the handle of a new session.
        if self.phase != Phase::Login || !matches!(self.login.progress, Progress::Complete) {
            return;
        }
        let Some(pending) = self.login.pending.take() else { return };
        self.login.progress = Progress::Over;
        self.parameters = self.login.negotiation.clone().into_parameters();
        if self.login.role == Role::Leading {
            let recovers = self.parameters.max_connections > 1 || self.parameters.error_recovery_level > 0;
            let gaps = if recovers { Gaps::Wait } else { Gaps::Impossible };
            self.numbers.get().set_depth(grant.queue_depth, gaps);
        }
        let text = core::mem::take(&mut self.login.answer);
        self.send_login_response(&pending.header, flag::TRANSIT | FULL_FEATURE, grant.tsih, text);
        self.outgoing.push_back(Outgoing::EnterFullFeature);
    }

    /// Keeps the initiator out.
    pub fn refuse_login(&mut self, status: LoginStatus) {
        if self.phase == Phase::Login {
            self.fail_login(status);
        }
    }

    /// Sends the initiator to another portal, `ADDRESS[:PORT]` (RFC 7143 section 13.8(b)).
    pub fn redirect_login(&mut self, moved: Moved, address: &str) {
        if self.phase == Phase::Login {
            let mut text = Vec::new();
            text::emit(&mut text, "TargetAddress", address);
            self.end_login(LoginStatus::Moved(moved), text);
        }
    }

    /// A login request is complete.
    pub(super) fn on_login(&mut self, header: &Header, data: &[u8]) {
        if let Err(status) = self.check_login(header, data) {
            return self.fail_login(status);
        }
        if header.has(flag::CONTINUE) {
            // More text follows: answer with an empty response of the same stage.
            return self.send_login_response(header, 0, header.u16_at(14), Vec::new());
        }
        let text = core::mem::take(&mut self.login.text);
        let Ok(pairs) = text::parse(&text) else { return self.fail_login(LoginStatus::InitiatorError) };
        self.login.pending = Some(Pending { header: *header, pairs });
        match self.login.progress {
            Progress::Unknown => self.identify(),
            _ => self.answer_login(),
        }
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
        //= rfc7143#section-11.12.3: stage 2 is reserved.
        //= rfc7143#section-6.3(c): a transit goes forward.
        //= rfc7143#section-11.12.2: C and T exclude each other.
        let legal = stage <= 1 && (!transits || (next_stage(header) > stage && next_stage(header) != 2));
        if !legal || stage < self.login.stage || (transits && header.has(flag::CONTINUE)) {
            return Err(LoginStatus::InitiatorError);
        }
        let first = self.login.first.get_or_insert(*header);
        if self.login.exchanges == 1 {
            self.numbers.get().begin(header.cmd_sn());
            self.cid = header.u16_at(20);
        } else if identity(first) != identity(header) {
            //= rfc7143#section-11.12: ISID, TSIH, CID and tag stay what they are during a login.
            return Err(LoginStatus::InvalidDuringLogin);
        }
        self.login.stage = stage;
        self.login.text.extend_from_slice(data);
        Ok(())
    }

    fn identify(&mut self) {
        let Some(pending) = &self.login.pending else { return };
        match login_request(&pending.header, &pending.pairs) {
            Ok(request) => {
                self.session_type = request.session_type;
                if request.session_type == SessionType::Discovery {
                    self.login.negotiation.set_purpose(Purpose::Discovery);
                }
                self.login.progress = Progress::Asked;
                self.events.push_back(Event::LoginRequest(request));
            }
            Err(status) => self.fail_login(status),
        }
    }

    /// Answers the keys of the request at hand, and goes on as far as it asks and may.
    fn answer_login(&mut self) {
        let Some(Pending { header, pairs }) = &self.login.pending else { return };
        let header = *header;
        let mut text = core::mem::take(&mut self.login.answer);
        let answered =
            answer_keys(&mut self.login.progress, &mut self.login.negotiation, &header, pairs, &mut text);
        let satisfied = match answered {
            Ok(satisfied) => satisfied,
            //= rfc7143#section-7.12: a negotiation that fails in the login ends it with a status.
            Err(status) => return self.fail_login(status),
        };
        let stage = current_stage(&header);
        if stage == 1
            && let Some((key, value)) = self.login.negotiation.declaration()
        {
            text::emit(&mut text, key, &value);
        }
        //= rfc7143#section-6.3(a): a stage ends when both ends say so.
        let transits = header.has(flag::TRANSIT) && satisfied;
        if transits && next_stage(&header) == FULL_FEATURE {
            self.login.answer = text;
            return self.complete_login();
        }
        self.login.pending = None;
        let transit = if transits { flag::TRANSIT | next_stage(&header) } else { 0 };
        self.send_login_response(&header, transit, header.u16_at(14), text);
    }

    fn complete_login(&mut self) {
        if self.login.answer.len() > LOGIN_DATA_MAX || !self.login.negotiation.is_satisfied() {
            return self.fail_login(LoginStatus::InitiatorError);
        }
        self.login.progress = Progress::Complete;
        self.events.push_back(Event::LoginComplete);
    }

    fn send_login_response(&mut self, request: &Header, transit: u8, tsih: u16, text: Vec<u8>) {
        if text.len() > LOGIN_DATA_MAX {
            return self.fail_login(LoginStatus::InitiatorError);
        }
        let header = Header::new(opcode::LOGIN_RESPONSE, transit | current_stage(request) << 2)
            .with_isid(request.isid())
            .with_u16(14, tsih)
            .with_itt(request.itt());
        let body = if text.is_empty() { Body::None } else { Body::Inline(text) };
        self.send(header, body);
    }

    pub(super) fn fail_login(&mut self, status: LoginStatus) {
        self.end_login(status, Vec::new());
    }

    fn end_login(&mut self, status: LoginStatus, text: Vec<u8>) {
        debug_assert_eq!(self.phase, Phase::Login);
        let (class, detail) = status.code();
        // A PDU that is no login request is answered as the login that it is in the middle of.
        let at_hand = self.deframer.header();
        let request = match at_hand.opcode() {
            opcode::LOGIN => at_hand,
            _ => self.login.first.unwrap_or(at_hand),
        };
        let header = Header::new(opcode::LOGIN_RESPONSE, request.flags() & 0x0c)
            .with_isid(request.isid())
            .with_u16(14, request.u16_at(14))
            .with_itt(request.itt())
            .with_byte(36, class)
            .with_byte(37, detail);
        self.login.progress = Progress::Over;
        self.send(header, if text.is_empty() { Body::None } else { Body::Inline(text) });
        self.outgoing.push_back(Outgoing::Close(CloseReason::LoginRefused { class, detail }));
    }
}

/// What must not change during a login.
fn identity(header: &Header) -> ([u8; 6], u16, u32, u16) {
    (header.isid(), header.u16_at(14), header.itt(), header.u16_at(20))
}

/// Answers one request's keys; true when the stage at hand may be left.
fn answer_keys(
    progress: &mut Progress,
    negotiation: &mut Negotiation,
    header: &Header,
    pairs: &Pairs,
    text: &mut Vec<u8>,
) -> Result<bool, LoginStatus> {
    let Progress::Admitted(admitted) = progress else { return Err(LoginStatus::InvalidDuringLogin) };
    //= rfc7143#section-13.9: the first response names the portal group.
    if let Some((tag, alias)) = admitted.announcement.take() {
        text::emit(text, "TargetPortalGroupTag", &tag.to_string());
        if !alias.is_empty() {
            //= rfc7143#section-13.6: with the first answer.
            text::emit(text, "TargetAlias", &alias);
        }
    }
    if current_stage(header) == 0 {
        //= rfc7143#section-6.3.2: security that fails is answered.
        admitted.verifier.handle(pairs, text).map_err(|_| LoginStatus::AuthenticationFailure)?;
    } else if !admitted.verifier.is_satisfied() {
        //= rfc7143#section-6.3.1(a): an initiator that skips a security stage that is required is refused.
        return Err(LoginStatus::AuthenticationFailure);
    }
    let pairs = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    for (key, value) in Negotiation::in_order(pairs) {
        match key {
            "InitiatorName" | "InitiatorAlias" | "TargetName" | "SessionType" => {}
            key if chap::is_key(key) && current_stage(header) == 0 => {}
            // The security stage is over.
            key if chap::is_key(key) => return Err(LoginStatus::InitiatorError),
            // Operational keys are answered in whichever stage they come.
            key => {
                let answer = negotiation.respond(key, value).map_err(|_| LoginStatus::InitiatorError)?;
                //= rfc7143#section-6.2.2(a): each key that was offered has its answer, and one.
                if let Some(answer) = answer {
                    text::emit(text, key, &answer);
                }
            }
        }
    }
    Ok(admitted.verifier.is_satisfied())
}

fn login_request(header: &Header, pairs: &Pairs) -> Result<LoginRequest, LoginStatus> {
    let find = |key: &str| pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    //= rfc7143#section-13.5: every session names its initiator.
    let initiator =
        find("InitiatorName").filter(|name| !name.is_empty()).ok_or(LoginStatus::MissingParameter)?;
    //= rfc7143#section-13.21: Normal, where nothing is said.
    let session_type = match find("SessionType").as_deref() {
        None | Some("Normal") => SessionType::Normal,
        Some("Discovery") => SessionType::Discovery,
        Some(_) => return Err(LoginStatus::SessionTypeUnsupported),
    };
    //= rfc7143#section-13.4: a normal session names its target.
    let target = find("TargetName");
    if session_type == SessionType::Normal && target.is_none() {
        return Err(LoginStatus::MissingParameter);
    }
    //= rfc7143#section-4.2.7.1(a): what is no name has no session, and names no target.
    name::check(&initiator).map_err(|_| LoginStatus::InitiatorError)?;
    if target.as_deref().is_some_and(|target| name::check(target).is_err()) {
        return Err(LoginStatus::NotFound);
    }
    //= rfc7143#section-13.7: at most 255 bytes, and no control characters.
    let initiator_alias = find("InitiatorAlias").unwrap_or_default();
    if !name::is_alias(&initiator_alias) {
        return Err(LoginStatus::InitiatorError);
    }
    Ok(LoginRequest {
        session_type,
        initiator,
        initiator_alias,
        target,
        isid: header.isid(),
        tsih: header.u16_at(14),
        cid: header.u16_at(20),
    })
}
