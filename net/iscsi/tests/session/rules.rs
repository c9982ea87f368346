//! What two ends' preferences come to, by the rules of RFC 7143 sections 12.1 and 13: written apart from the product's table.

use iscsi::chap::{Account, Algorithm, Challenge, Credential, Proving, Requirement, Secret, Verifying};
use iscsi::digest::Digest;
use iscsi::keys::{Choice, DigestPreference};
use iscsi::{Preferences, SessionParameters};

pub(crate) const CHOICES: [Choice; 2] = [Choice::Yes, Choice::No];
pub(crate) const DIGESTS: [DigestPreference; 4] =
    [DigestPreference::Prefer, DigestPreference::Require, DigestPreference::Avoid, DigestPreference::Never];
pub(crate) const REQUIREMENTS: [Requirement; 4] =
    [Requirement::Disabled, Requirement::Optional, Requirement::Required, Requirement::Mutual];
pub(crate) const PROOFS: [Proof; 3] = [Proof::Nothing, Proof::Own, Proof::Mutual];

/// How an initiator proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Not at all.
    Nothing,
    /// With its secret.
    Own,
    /// So, and the target has to do the same.
    Mutual,
}

fn account(target: bool) -> Account {
    let credential = |name: &str| Credential {
        name: name.into(),
        secret: Secret::new(format!("the secret of {name}").into_bytes()).expect("a secret"),
    };
    Account::new(credential("host"), target.then(|| credential("disk"))).expect("two secrets")
}

impl Proof {
    pub(crate) fn credentials(self, algorithms: Vec<Algorithm>) -> Option<Proving> {
        let challenge = Challenge { id: 2, bytes: [2; 32] };
        let with = |target| Proving { account: account(target), challenge, algorithms };
        match self {
            Self::Nothing => None,
            Self::Own => Some(with(false)),
            Self::Mutual => Some(with(true)),
        }
    }

    /// Whether that will do for a target with this requirement, which will do for the initiator.
    pub(crate) fn satisfies(self, requirement: Requirement) -> bool {
        match requirement {
            Requirement::Disabled => self != Self::Mutual,
            Requirement::Optional => true,
            Requirement::Required => self != Self::Nothing,
            Requirement::Mutual => self == Self::Mutual,
        }
    }
}

pub(crate) fn authentication(requirement: Requirement) -> Verifying {
    Verifying {
        algorithms: iscsi::chap::Algorithm::ALL.into(),
        requirement,
        accounts: [account(true)].into(),
        challenge: Challenge { id: 1, bytes: [1; 32] },
    }
}

fn either(a: Choice, b: Choice) -> Choice {
    if a.is_yes() || b.is_yes() { Choice::Yes } else { Choice::No }
}

fn both(a: Choice, b: Choice) -> Choice {
    if a.is_yes() && b.is_yes() { Choice::Yes } else { Choice::No }
}

/// The first of the initiator's list that the target takes.
fn digest(initiator: DigestPreference, target: DigestPreference) -> Option<Digest> {
    use DigestPreference::{Avoid, Never, Prefer, Require};
    let list: &[Digest] = match initiator {
        Prefer => &[Digest::Crc32c, Digest::None],
        Require => &[Digest::Crc32c],
        Avoid => &[Digest::None, Digest::Crc32c],
        Never => &[Digest::None],
    };
    let takes = |digest: &&Digest| match target {
        Require => **digest == Digest::Crc32c,
        Never => **digest == Digest::None,
        Prefer | Avoid => true,
    };
    list.iter().find(takes).copied()
}

/// What both ends have agreed on, as the initiator sees it; `None`: no session.
pub(crate) fn agreed(initiator: &Preferences, target: &Preferences) -> Option<SessionParameters> {
    let max_burst_length = initiator.max_burst_length.min(target.max_burst_length);
    let initial_r2t = either(initiator.initial_r2t, target.initial_r2t);
    let immediate_data = both(initiator.immediate_data, target.immediate_data);
    // Where nothing comes unsolicited the key is irrelevant, and its default stays.
    let first_burst_length = match (initial_r2t, immediate_data) {
        (Choice::Yes, Choice::No) => 65_536,
        _ => initiator.first_burst_length.min(target.first_burst_length),
    };
    let level = initiator.error_recovery_level.min(target.error_recovery_level);
    let sequences = either(initiator.data_sequence_in_order, target.data_sequence_in_order);
    // What comes again comes in order only where one R2T is open; whoever would have it so offers one before it knows the other end.
    let would = initiator.error_recovery_level > 0 && initiator.data_sequence_in_order.is_yes();
    let max_outstanding_r2t = match would || (level > 0 && sequences.is_yes()) {
        true => 1,
        false => initiator.max_outstanding_r2t.min(target.max_outstanding_r2t),
    };
    let seconds = |value: u32| u16::try_from(value).expect("an hour at the most");
    Some(SessionParameters {
        header_digest: digest(initiator.header_digest, target.header_digest)?,
        data_digest: digest(initiator.data_digest, target.data_digest)?,
        max_recv_data_segment_length: initiator.max_recv_data_segment_length,
        max_send_data_segment_length: target.max_recv_data_segment_length,
        max_burst_length,
        first_burst_length: first_burst_length.min(max_burst_length),
        initial_r2t,
        immediate_data,
        max_outstanding_r2t,
        data_pdu_in_order: either(initiator.data_pdu_in_order, target.data_pdu_in_order),
        data_sequence_in_order: sequences,
        max_connections: initiator.max_connections.min(target.max_connections),
        error_recovery_level: level,
        time2wait: seconds(initiator.default_time2wait.max(target.default_time2wait)),
        time2retain: seconds(initiator.default_time2retain.min(target.default_time2retain)),
        protocol_level: initiator.protocol_level.min(target.protocol_level),
    })
}

/// The same as the target sees it.
pub(crate) fn seen_by_target(agreed: &SessionParameters) -> SessionParameters {
    SessionParameters {
        max_recv_data_segment_length: agreed.max_send_data_segment_length,
        max_send_data_segment_length: agreed.max_recv_data_segment_length,
        ..agreed.clone()
    }
}
