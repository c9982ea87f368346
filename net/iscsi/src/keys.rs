//! The operational keys: one table, one negotiation for both ends (RFC 7143 section 13).
//!
//! A row says how two values combine. The responder answers each offer with the combination; the originator takes the
//! answer and checks that it is one that its offer allows.

mod defined;

use alloc::format;
use alloc::string::{String, ToString};

use crate::digest::Digest;
use crate::text::parse_number;

/// What one end would like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preferences {
    /// Header digest: asked for by an initiator, accepted by a target.
    pub header_digest: DigestPreference,
    /// Data digest, likewise.
    pub data_digest: DigestPreference,
    /// Longest data segment that this end takes, in bytes.
    pub max_recv_data_segment_length: u32,
    /// Longest solicited burst in bytes.
    pub max_burst_length: u32,
    /// Longest unsolicited burst in bytes.
    pub first_burst_length: u32,
    /// Whether writes must wait for an R2T.
    pub initial_r2t: Choice,
    /// Whether commands may carry data.
    pub immediate_data: Choice,
    /// R2Ts outstanding for one task.
    pub max_outstanding_r2t: u32,
    /// Seconds to wait before reconnecting.
    pub default_time2wait: u32,
    /// Seconds that tasks survive a lost connection.
    pub default_time2retain: u32,
    /// iSCSIProtocolLevel (RFC 7144 section 7.1.1): 2 for its task management functions, 1 to do without.
    pub protocol_level: u32,
    /// Connections of one session.
    pub max_connections: u32,
    /// Whether the data PDUs of a sequence must come in order.
    pub data_pdu_in_order: Choice,
    /// Whether the sequences of a task must come in order.
    pub data_sequence_in_order: Choice,
    /// ErrorRecoveryLevel that this end can do.
    pub error_recovery_level: u32,
}

/// A yes or no of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Yes.
    Yes,
    /// No.
    No,
}

impl Choice {
    fn text(self) -> &'static str {
        match self {
            Self::Yes => "Yes",
            Self::No => "No",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "Yes" => Some(Self::Yes),
            "No" => Some(Self::No),
            _ => None,
        }
    }

    /// True for yes.
    pub fn is_yes(self) -> bool {
        self == Self::Yes
    }
}

/// What one end thinks of a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestPreference {
    /// With CRC32C if the other end can.
    Prefer,
    /// Only with CRC32C.
    Require,
    /// Without, if the other end agrees.
    Avoid,
    /// Only without.
    Never,
}

impl DigestPreference {
    fn offer(self) -> &'static str {
        match self {
            Self::Prefer => "CRC32C,None",
            Self::Require => "CRC32C",
            Self::Avoid => "None,CRC32C",
            Self::Never => "None",
        }
    }

    fn accepts(self, digest: Digest) -> bool {
        match digest {
            Digest::Crc32c => self != Self::Never,
            Digest::None => self != Self::Require,
        }
    }
}

/// What one end thinks of both digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digests {
    /// Of header segments.
    pub header: DigestPreference,
    /// Of data segments.
    pub data: DigestPreference,
}

impl Default for Digests {
    fn default() -> Self {
        Self { header: DigestPreference::Avoid, data: DigestPreference::Avoid }
    }
}

impl Default for Preferences {
    fn default() -> Self {
        Self {
            header_digest: DigestPreference::Avoid,
            data_digest: DigestPreference::Avoid,
            max_recv_data_segment_length: 256 << 10,
            max_burst_length: 1 << 20,
            first_burst_length: 256 << 10,
            initial_r2t: Choice::No,
            immediate_data: Choice::Yes,
            max_outstanding_r2t: 4,
            default_time2wait: 2,
            default_time2retain: 0,
            protocol_level: 2,
            max_connections: 1,
            data_pdu_in_order: Choice::Yes,
            data_sequence_in_order: Choice::Yes,
            error_recovery_level: 0,
        }
    }
}

/// What a login agreed on. Immutable once the session is in full feature phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionParameters {
    /// Digest of header segments.
    pub header_digest: Digest,
    /// Digest of data segments.
    pub data_digest: Digest,
    /// Longest data segment that this end takes, in bytes.
    pub max_recv_data_segment_length: u32,
    /// Longest data segment that the peer takes, in bytes.
    pub max_send_data_segment_length: u32,
    /// Longest solicited burst in bytes.
    pub max_burst_length: u32,
    /// Longest unsolicited burst in bytes.
    pub first_burst_length: u32,
    /// Whether writes wait for an R2T.
    pub initial_r2t: Choice,
    /// Whether commands carry data.
    pub immediate_data: Choice,
    /// R2Ts outstanding for one task.
    pub max_outstanding_r2t: u32,
    /// Seconds to wait before reconnecting.
    pub time2wait: u16,
    /// Seconds that tasks survive a lost connection.
    pub time2retain: u16,
    /// iSCSIProtocolLevel (RFC 7144 section 7.1.1).
    pub protocol_level: u32,
    /// Connections of the session.
    pub max_connections: u32,
    /// Whether the data PDUs of a sequence come in order.
    pub data_pdu_in_order: Choice,
    /// Whether the sequences of a task come in order.
    pub data_sequence_in_order: Choice,
    /// ErrorRecoveryLevel.
    pub error_recovery_level: u32,
}

impl SessionParameters {
    /// True where a write may send data before an R2T asks for them.
    pub fn has_unsolicited_data(&self) -> bool {
        self.immediate_data.is_yes() || !self.initial_r2t.is_yes()
    }

    /// The peer takes data segments of another length from now on (RFC 7143 section 13.12 allows that after the login). False:
    /// the value is none.
    #[must_use]
    pub fn redeclare(&mut self, value: &str) -> bool {
        let length = parse_number(value).filter(|length| (512..=LENGTH_MAX).contains(length));
        if let Some(length) = length {
            self.max_send_data_segment_length = length;
        }
        length.is_some()
    }
}

impl Default for SessionParameters {
    /// What holds when nothing was negotiated (the defaults of RFC 7143 section 13).
    fn default() -> Self {
        Self {
            header_digest: Digest::None,
            data_digest: Digest::None,
            max_recv_data_segment_length: 8192,
            max_send_data_segment_length: 8192,
            max_burst_length: 262_144,
            first_burst_length: 65_536,
            initial_r2t: Choice::Yes,
            immediate_data: Choice::Yes,
            max_outstanding_r2t: 1,
            time2wait: 2,
            time2retain: 20,
            protocol_level: 1,
            max_connections: 1,
            data_pdu_in_order: Choice::Yes,
            data_sequence_in_order: Choice::Yes,
            error_recovery_level: 0,
        }
    }
}

/// How a key's values combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The first of the originator's list that the responder accepts.
    List,
    /// Yes when both say yes.
    And,
    /// Yes when one says yes.
    Or,
    /// The smaller, within bounds.
    Minimum(u32, u32),
    /// The larger, within bounds.
    Maximum(u32, u32),
    /// Each end declares its own, within bounds.
    Declare(u32, u32),
    /// Obsolete markers: always "No" (RFC 7143 section 13.25).
    ObsoleteNo,
    /// Obsolete marker intervals: always "Reject" (RFC 7143 section 13.25).
    ObsoleteReject,
}

/// The operational keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    HeaderDigest,
    DataDigest,
    MaxConnections,
    InitialR2T,
    ImmediateData,
    MaxRecvDataSegmentLength,
    MaxBurstLength,
    FirstBurstLength,
    DefaultTime2Wait,
    DefaultTime2Retain,
    MaxOutstandingR2T,
    DataPduInOrder,
    DataSequenceInOrder,
    ErrorRecoveryLevel,
    ProtocolLevel,
    TaskReporting,
    IfMarker,
    OfMarker,
    IfMarkInt,
    OfMarkInt,
}

const LENGTH_MAX: u32 = (1 << 24) - 1;

/// Name, rule and section of RFC 7143 of each key.
const TABLE: [(Key, &str, Rule); 20] = [
    (Key::HeaderDigest, "HeaderDigest", Rule::List), // 13.1
    (Key::DataDigest, "DataDigest", Rule::List),     // 13.1
    (Key::MaxConnections, "MaxConnections", Rule::Minimum(1, 65535)), // 13.2
    (Key::InitialR2T, "InitialR2T", Rule::Or),       // 13.10
    (Key::ImmediateData, "ImmediateData", Rule::And), // 13.11
    (Key::MaxRecvDataSegmentLength, "MaxRecvDataSegmentLength", Rule::Declare(512, LENGTH_MAX)), // 13.12
    (Key::MaxBurstLength, "MaxBurstLength", Rule::Minimum(512, LENGTH_MAX)), // 13.13
    (Key::FirstBurstLength, "FirstBurstLength", Rule::Minimum(512, LENGTH_MAX)), // 13.14
    (Key::DefaultTime2Wait, "DefaultTime2Wait", Rule::Maximum(0, 3600)), // 13.15
    (Key::DefaultTime2Retain, "DefaultTime2Retain", Rule::Minimum(0, 3600)), // 13.16
    (Key::MaxOutstandingR2T, "MaxOutstandingR2T", Rule::Minimum(1, 65535)), // 13.17
    (Key::DataPduInOrder, "DataPDUInOrder", Rule::Or), // 13.18
    (Key::DataSequenceInOrder, "DataSequenceInOrder", Rule::Or), // RFC 7143 section 13.19(a)
    (Key::ErrorRecoveryLevel, "ErrorRecoveryLevel", Rule::Minimum(0, 2)), // 13.20
    (Key::ProtocolLevel, "iSCSIProtocolLevel", Rule::Minimum(0, 31)), // RFC 7143 section 13.24, RFC 7144 section 7.1.1
    (Key::TaskReporting, "TaskReporting", Rule::List),                // 13.23
    (Key::IfMarker, "IFMarker", Rule::ObsoleteNo),                    // 13.25
    (Key::OfMarker, "OFMarker", Rule::ObsoleteNo),                    // 13.25
    (Key::IfMarkInt, "IFMarkInt", Rule::ObsoleteReject),              // 13.25
    (Key::OfMarkInt, "OFMarkInt", Rule::ObsoleteReject),              // 13.25
];

/// How the end of several tasks at once is reported (RFC 7143 section 4.2.3.3): behind a fence, see
/// [`crate::target::Connection::fence`].
const TASK_REPORTING: [&str; 2] = ["ResponseFence", "RFC3720"];

/// What a key that stands in no table, or in none that is asked about here, is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// Nothing: it is taken, and means nothing.
    Silent,
    /// Reject: it is known, and has no place here.
    Misplaced,
    /// NotUnderstood.
    Unknown,
}

/// Says what becomes of a key that is not negotiated.
pub fn stranger(name: &str) -> Stranger {
    match name {
        //= rfc7143#section-13.26.2: nothing depends on it: it is discarded without a word.
        defined::NODE_ARCHITECTURE => Stranger::Silent,
        //= rfc7143#section-6.2(b): every key that the RFC defines is understood.
        name if is_known(name) || defined::is_one(name) => Stranger::Misplaced,
        //= rfc7143#section-6.2(a): unknown keys are answered NotUnderstood.
        _ => Stranger::Unknown,
    }
}

/// True for the name of an operational key.
fn is_known(name: &str) -> bool {
    TABLE.iter().any(|(_, known, _)| *known == name)
}

impl Key {
    /// True for what means nothing in a discovery session (RFC 7143 section 13).
    fn is_of_normal_sessions(self) -> bool {
        use Key as K;
        matches!(
            self,
            K::MaxConnections
                | K::InitialR2T
                | K::ImmediateData
                | K::MaxBurstLength
                | K::FirstBurstLength
                | K::MaxOutstandingR2T
                | K::DataPduInOrder
                | K::DataSequenceInOrder
                | K::TaskReporting
                | K::ProtocolLevel
        )
    }

    /// True for what the first connection of a session settles for all (RFC 7143 section 13: "LO").
    fn is_of_leading_connections(self) -> bool {
        use Key as K;
        let waits = matches!(self, K::DefaultTime2Wait | K::DefaultTime2Retain | K::ErrorRecoveryLevel);
        waits || self.is_of_normal_sessions()
    }
}

/// What a negotiation is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// A session with SCSI.
    #[default]
    Normal,
    /// A session for SendTargets: keys about SCSI data are irrelevant.
    Discovery,
    /// One more connection of a session: what the first one settled stays.
    Joining,
}

/// The state of one end's negotiation.
#[derive(Clone, Debug)]
pub struct Negotiation {
    preferences: Preferences,
    parameters: SessionParameters,
    purpose: Purpose,
    /// Keys settled so far, one bit each: none may be negotiated twice.
    settled: u32,
    declared: bool,
}

/// A value that the protocol does not allow; the login fails with "initiator error".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NegotiationError(pub &'static str);

impl Negotiation {
    /// A negotiation that has not begun.
    pub fn new(preferences: Preferences) -> Self {
        let parameters = SessionParameters {
            max_recv_data_segment_length: preferences.max_recv_data_segment_length,
            ..SessionParameters::default()
        };
        Self { preferences, parameters, purpose: Purpose::Normal, settled: 0, declared: false }
    }

    /// The connection joins a session, whose parameters hold for it too.
    pub fn join(&mut self, session: &SessionParameters) {
        self.purpose = Purpose::Joining;
        self.parameters = SessionParameters {
            header_digest: Digest::None,
            data_digest: Digest::None,
            max_send_data_segment_length: SessionParameters::default().max_send_data_segment_length,
            max_recv_data_segment_length: self.preferences.max_recv_data_segment_length,
            ..session.clone()
        };
    }

    /// Says what the session is for, once that is known.
    pub fn set_purpose(&mut self, purpose: Purpose) {
        self.purpose = purpose;
    }

    /// Says what this end thinks of digests, once it knows whom it talks to.
    pub fn set_digests(&mut self, digests: Digests) {
        self.preferences.header_digest = digests.header;
        self.preferences.data_digest = digests.data;
    }

    /// False while a digest is missing that this end requires: the peer did not offer it.
    pub fn is_satisfied(&self) -> bool {
        self.preferences.header_digest.accepts(self.parameters.header_digest)
            && self.preferences.data_digest.accepts(self.parameters.data_digest)
    }

    /// The keys that an originator offers for a normal session, in order.
    pub fn offers(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        let obsolete = |rule| matches!(rule, Rule::ObsoleteNo | Rule::ObsoleteReject);
        TABLE
            .iter()
            .filter(move |(key, _, rule)| !obsolete(*rule) && *key != Key::TaskReporting)
            .filter(|(key, ..)| *key != Key::ProtocolLevel || self.preferences.protocol_level > 1)
            .filter(|(key, ..)| match self.purpose {
                Purpose::Normal => true,
                Purpose::Discovery => !key.is_of_normal_sessions() && *key != Key::ErrorRecoveryLevel,
                Purpose::Joining => !key.is_of_leading_connections(),
            })
            .map(|(key, name, _)| (*name, self.offer(*key)))
    }

    /// True for a key that this end knows, and does not offer: where the other end names it, it offers it itself.
    pub fn is_peers_offer(&self, name: &str) -> bool {
        is_known(name) && self.offers().all(|(offered, _)| offered != name)
    }

    /// This end's declaration that the peer has not seen yet.
    pub fn declaration(&mut self) -> Option<(&'static str, String)> {
        if self.declared {
            return None;
        }
        self.declared = true;
        Some(("MaxRecvDataSegmentLength", self.ours(Key::MaxRecvDataSegmentLength)))
    }

    /// A request's keys in the order in which they are to be answered: what decides about another key is before it.
    pub fn in_order<'a>(
        pairs: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let decided = |(key, _): &(&str, &str)| matches!(*key, "FirstBurstLength" | "MaxOutstandingR2T");
        pairs.clone().filter(move |pair| !decided(pair)).chain(pairs.filter(decided))
    }

    /// A responder's answer to an offer; `None` when the key wants no answer.
    ///
    /// # Errors
    /// When the key was negotiated before or its value is out of its range.
    pub fn respond(&mut self, name: &str, offer: &str) -> Result<Option<String>, NegotiationError> {
        let Some((key, _, rule)) = TABLE.iter().find(|(_, known, _)| *known == name).copied() else {
            return Ok(match stranger(name) {
                Stranger::Silent => None,
                Stranger::Misplaced => Some("Reject".to_string()),
                Stranger::Unknown => Some("NotUnderstood".to_string()),
            });
        };
        self.settle_once(key)?;
        match rule {
            Rule::ObsoleteNo => return Ok(Some("No".to_string())),
            Rule::ObsoleteReject => return Ok(Some("Reject".to_string())),
            _ if self.purpose == Purpose::Discovery && key.is_of_normal_sessions() => {
                return Ok(Some("Irrelevant".to_string()));
            }
            _ if self.purpose == Purpose::Joining && key.is_of_leading_connections() => {
                return Ok(Some("Reject".to_string()));
            }
            _ => {}
        }
        let combined = self.combine(key, rule, &self.bound(key), offer);
        //= rfc7143#section-13.14(a): where nothing comes unsolicited there is no first burst.
        if key == Key::FirstBurstLength && combined.is_some() && !self.parameters.has_unsolicited_data() {
            return Ok(Some("Irrelevant".to_string()));
        }
        let Some(combined) = combined else {
            return match rule {
                //= rfc7143#section-6.2.1: a list without an acceptable value is answered Reject.
                Rule::List => Ok(Some("Reject".to_string())),
                //= rfc7143#section-6.2.2(b): a value that the key cannot have ends the negotiation.
                _ => Err(NegotiationError("a key's value is out of its range")),
            };
        };
        self.record(key, &combined);
        Ok(if matches!(rule, Rule::Declare(..)) { None } else { Some(combined) })
    }

    /// An originator takes the answer to its offer.
    ///
    /// # Errors
    /// When the answer is not one that the offer allows.
    pub fn conclude(&mut self, name: &str, answer: &str) -> Result<(), NegotiationError> {
        let Some((key, _, rule)) = TABLE.iter().find(|(_, known, _)| *known == name).copied() else {
            return Ok(());
        };
        if matches!(answer, "NotUnderstood" | "Irrelevant") {
            return Ok(());
        }
        if answer == "Reject" {
            return Err(NegotiationError("the target rejected a key"));
        }
        self.settle_once(key)?;
        let combined = self.combine(key, rule, &self.offer(key), answer);
        let combined = combined.ok_or(NegotiationError("the target's answer is out of range"))?;
        // The answer is a combination already: combining it with our offer again must not change it.
        let same = match parse_number(answer) {
            Some(number) => parse_number(&combined) == Some(number),
            None => combined == answer,
        };
        if !same {
            return Err(NegotiationError("the target's answer contradicts the offer"));
        }
        self.record(key, answer);
        Ok(())
    }

    /// What was agreed on.
    pub fn into_parameters(mut self) -> SessionParameters {
        let parameters = &mut self.parameters;
        //= rfc7143#section-13.14(b): FirstBurstLength MUST NOT exceed MaxBurstLength.
        parameters.first_burst_length = parameters.first_burst_length.min(parameters.max_burst_length);
        self.parameters
    }

    fn settle_once(&mut self, key: Key) -> Result<(), NegotiationError> {
        let bit = 1 << key as u32;
        if self.settled & bit != 0 {
            //= rfc7143#section-6.3(b): a key is negotiated once in a login.
            return Err(NegotiationError("a key was negotiated twice"));
        }
        self.settled |= bit;
        Ok(())
    }

    /// This end's value in words.
    fn ours(&self, key: Key) -> String {
        //= rfc7143#section-7.4.1: a discovery session has level 0, whoever asks for more.
        if self.purpose == Purpose::Discovery && key == Key::ErrorRecoveryLevel {
            return "0".to_string();
        }
        let p = &self.preferences;
        let number = match key {
            Key::HeaderDigest => return p.header_digest.offer().to_string(),
            Key::DataDigest => return p.data_digest.offer().to_string(),
            Key::InitialR2T => return p.initial_r2t.text().to_string(),
            Key::ImmediateData => return p.immediate_data.text().to_string(),
            Key::DataPduInOrder => return p.data_pdu_in_order.text().to_string(),
            Key::DataSequenceInOrder => return p.data_sequence_in_order.text().to_string(),
            Key::IfMarker | Key::OfMarker | Key::IfMarkInt | Key::OfMarkInt => return "No".to_string(),
            Key::MaxConnections => p.max_connections,
            Key::MaxRecvDataSegmentLength => p.max_recv_data_segment_length,
            Key::MaxBurstLength => p.max_burst_length,
            Key::FirstBurstLength => p.first_burst_length,
            Key::DefaultTime2Wait => p.default_time2wait,
            Key::DefaultTime2Retain => p.default_time2retain,
            Key::MaxOutstandingR2T => p.max_outstanding_r2t,
            Key::ErrorRecoveryLevel => p.error_recovery_level,
            Key::ProtocolLevel => p.protocol_level,
            Key::TaskReporting => return TASK_REPORTING.join(","),
        };
        format!("{number}")
    }

    /// What an originator offers.
    fn offer(&self, key: Key) -> String {
        let p = &self.preferences;
        match key {
            //= rfc7143#section-13.19(b): one R2T is open at a time where sequences are in order and may come again.
            Key::MaxOutstandingR2T if p.error_recovery_level > 0 && p.data_sequence_in_order.is_yes() => {
                "1".to_string()
            }
            _ => self.ours(key),
        }
    }

    /// What a responder combines an offer with: what was settled before decides.
    fn bound(&self, key: Key) -> String {
        let p = &self.parameters;
        match key {
            Key::MaxOutstandingR2T if p.error_recovery_level > 0 && p.data_sequence_in_order.is_yes() => {
                "1".to_string()
            }
            Key::ErrorRecoveryLevel if p.max_outstanding_r2t > 1 && p.data_sequence_in_order.is_yes() => {
                "0".to_string()
            }
            _ => self.ours(key),
        }
    }

    fn combine(&self, key: Key, rule: Rule, ours: &str, theirs: &str) -> Option<String> {
        let number = |low: u32, high: u32| parse_number(theirs).filter(|value| (low..=high).contains(value));
        let own = || parse_number(ours).expect("our own number");
        match rule {
            Rule::List => self.choose(key, theirs).map(ToString::to_string),
            Rule::And => {
                let both = Choice::parse(theirs)?.is_yes() && ours == "Yes";
                Some(if both { "Yes" } else { "No" }.to_string())
            }
            Rule::Or => {
                let either = Choice::parse(theirs)?.is_yes() || ours == "Yes";
                Some(if either { "Yes" } else { "No" }.to_string())
            }
            Rule::Minimum(low, high) => Some(format!("{}", number(low, high)?.min(own()))),
            Rule::Maximum(low, high) => Some(format!("{}", number(low, high)?.max(own()))),
            Rule::Declare(low, high) => Some(format!("{}", number(low, high)?)),
            Rule::ObsoleteNo | Rule::ObsoleteReject => None,
        }
    }

    fn choose(&self, key: Key, list: &str) -> Option<&'static str> {
        let preference = match key {
            Key::HeaderDigest => self.preferences.header_digest,
            Key::DataDigest => self.preferences.data_digest,
            _ => {
                let known = |name: &str| TASK_REPORTING.into_iter().find(|known| *known == name);
                return list.split(',').find_map(known);
            }
        };
        list.split(',').find_map(|name| match name {
            "CRC32C" if preference.accepts(Digest::Crc32c) => Some("CRC32C"),
            "None" if preference.accepts(Digest::None) => Some("None"),
            _ => None,
        })
    }

    fn record(&mut self, key: Key, value: &str) {
        let digest = if value == "CRC32C" { Digest::Crc32c } else { Digest::None };
        let choice = if value == "Yes" { Choice::Yes } else { Choice::No };
        let number = parse_number(value).unwrap_or(0);
        let parameters = &mut self.parameters;
        match key {
            Key::HeaderDigest => parameters.header_digest = digest,
            Key::DataDigest => parameters.data_digest = digest,
            Key::InitialR2T => parameters.initial_r2t = choice,
            Key::ImmediateData => parameters.immediate_data = choice,
            Key::MaxRecvDataSegmentLength => parameters.max_send_data_segment_length = number,
            Key::MaxBurstLength => parameters.max_burst_length = number,
            Key::FirstBurstLength => parameters.first_burst_length = number,
            Key::MaxOutstandingR2T => parameters.max_outstanding_r2t = number,
            Key::DefaultTime2Wait => parameters.time2wait = u16::try_from(number).unwrap_or(u16::MAX),
            Key::DefaultTime2Retain => parameters.time2retain = u16::try_from(number).unwrap_or(u16::MAX),
            Key::ProtocolLevel => parameters.protocol_level = number,
            Key::MaxConnections => parameters.max_connections = number,
            Key::DataPduInOrder => parameters.data_pdu_in_order = choice,
            Key::DataSequenceInOrder => parameters.data_sequence_in_order = choice,
            Key::ErrorRecoveryLevel => parameters.error_recovery_level = number,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
