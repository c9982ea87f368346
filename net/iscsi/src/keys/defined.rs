//! Keys that RFC 7143 defines and nobody negotiates here: those of names, addresses and sessions, and of authentication.

/// Sections 12 and 13, and appendix C, without what [`super::TABLE`] has.
const OTHERS: [&str; 24] = [
    "AuthMethod",
    "CHAP_A",
    "CHAP_C",
    "CHAP_I",
    "CHAP_N",
    "CHAP_R",
    "KRB_AP_REP",
    "KRB_AP_REQ",
    "SRP_A",
    "SRP_B",
    "SRP_GROUP",
    "SRP_HM",
    "SRP_M",
    "SRP_U",
    "SRP_s",
    "TargetAuth",
    "SendTargets",
    "TargetName",
    "InitiatorName",
    "TargetAlias",
    "InitiatorAlias",
    "TargetAddress",
    "TargetPortalGroupTag",
    "SessionType",
];

/// What a node is made of: a declaration that nothing may depend on.
pub(super) const NODE_ARCHITECTURE: &str = "X#NodeArchitecture";

/// True for a key that is known, though it has no place where it came.
pub(super) fn is_one(name: &str) -> bool {
    OTHERS.contains(&name)
}
