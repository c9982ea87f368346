//! What a login asks of its owner, and what the owner answers.

use alloc::string::String;

use crate::chap::Verifying;
use crate::keys::{Digests, SessionParameters};
use crate::protocol::Moved;
use crate::target::numbers::Numbering;

/// Discovery or normal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionType {
    /// SendTargets only.
    Discovery,
    /// SCSI.
    Normal,
}

/// Who wants in, and to what. Nothing of it is proved yet.
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

/// The owner's answer to a login request: go on, and prove who you are.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Tag of the portal group.
    pub portal_group_tag: u16,
    /// TargetAlias; empty for none.
    pub target_alias: String,
    /// How the initiator has to authenticate itself.
    pub authentication: Verifying,
    /// What the target thinks of digests.
    pub digests: Digests,
    /// The session that the connection joins; `None` for a new one.
    pub joins: Option<Membership>,
}

/// What the connections of a session have in common, see [`crate::target::Connection::membership`].
#[derive(Clone, Debug)]
pub struct Membership {
    pub(in crate::target) parameters: SessionParameters,
    pub(in crate::target) numbering: Numbering,
}

/// The owner's answer to a login that is complete but for its last response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The session's handle, not zero.
    pub tsih: u16,
    /// Numbered commands that may be open at once.
    pub queue_depth: u32,
}

/// Why a login is refused (RFC 7143 section 11.13.5(a)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginStatus {
    /// 0101 or 0102: the target is somewhere else; the address goes with it.
    Moved(Moved),
    /// 0200: initiator error.
    InitiatorError,
    /// 0201: authentication failed.
    AuthenticationFailure,
    /// 0202: this initiator may not use the target.
    AuthorizationFailure,
    /// 0203: no such target here.
    NotFound,
    /// 0204: the target is gone.
    Removed,
    /// 0205: version not supported.
    UnsupportedVersion,
    /// 0206: the session has all the connections that it may have.
    TooManyConnections,
    /// 0207: a required key is missing.
    MissingParameter,
    /// 0208: a second connection cannot be included.
    CannotInclude,
    /// 0209: session type not supported.
    SessionTypeUnsupported,
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
            Self::Moved(how) => how.code(),
            Self::InitiatorError => (2, 0),
            Self::AuthenticationFailure => (2, 1),
            Self::AuthorizationFailure => (2, 2),
            Self::NotFound => (2, 3),
            Self::Removed => (2, 4),
            Self::UnsupportedVersion => (2, 5),
            Self::TooManyConnections => (2, 6),
            Self::MissingParameter => (2, 7),
            Self::CannotInclude => (2, 8),
            Self::SessionTypeUnsupported => (2, 9),
            Self::SessionDoesNotExist => (2, 0x0a),
            Self::InvalidDuringLogin => (2, 0x0b),
            Self::ServiceUnavailable => (3, 1),
            Self::OutOfResources => (3, 2),
        }
    }
}
