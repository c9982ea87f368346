//! What two ends of iSCSI negotiate (RFC 7143 section 13), as parameters of methods: the target's and an import's.

use iscsi::Preferences;
use iscsi::chap::Algorithm;
use iscsi::keys::{Choice, DigestPreference};
use rpc::RpcError;
use serde::Deserialize;

/// Bytes of bursts and segments (sections 13.12 to 13.14).
pub(super) const LENGTHS: (u32, u32) = (512, (1 << 24) - 1);
/// Seconds of Time2Wait and Time2Retain (sections 13.15 and 13.16).
pub(super) const SECONDS: (u32, u32) = (0, 3600);
/// iSCSIProtocolLevel (RFC 7144 section 7.1.1): that of RFC 7143, or that of RFC 7144.
pub(super) const PROTOCOL_LEVELS: (u32, u32) = (1, 2);

/// A digest in words.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Digest {
    /// With CRC32C if the target can.
    Prefer,
    /// Only with CRC32C.
    Require,
    /// Without, if the target agrees.
    Avoid,
    /// Only without.
    Never,
}

impl Digest {
    /// The word for a preference.
    pub(super) fn word(preference: DigestPreference) -> &'static str {
        match preference {
            DigestPreference::Prefer => "prefer",
            DigestPreference::Require => "require",
            DigestPreference::Avoid => "avoid",
            DigestPreference::Never => "never",
        }
    }
}

impl From<Digest> for DigestPreference {
    fn from(digest: Digest) -> Self {
        match digest {
            Digest::Prefer => Self::Prefer,
            Digest::Require => Self::Require,
            Digest::Avoid => Self::Avoid,
            Digest::Never => Self::Never,
        }
    }
}

/// Hashes of CHAP by their names.
///
/// # Errors
/// There is none, or one that is not known.
pub(super) fn algorithms(names: &[String]) -> Result<Vec<Algorithm>, RpcError> {
    let named = |name: &String| {
        Algorithm::from_name(name).ok_or_else(|| {
            let known = Algorithm::ALL.map(Algorithm::name).join(", ");
            RpcError::invalid_params(format!("chap_algorithms: {name:?} is not known: name some of {known}"))
        })
    };
    match names {
        [] => Err(RpcError::invalid_params("chap_algorithms: without any there is nothing to offer")),
        names => names.iter().map(named).collect(),
    }
}

/// Takes a number that is given.
///
/// # Errors
/// It is outside of its range.
pub(super) fn within<T: PartialOrd + std::fmt::Display + Copy>(
    name: &str,
    value: Option<T>,
    (least, most): (T, T),
    into: &mut T,
) -> Result<(), RpcError> {
    match value {
        None => Ok(()),
        Some(value) if least <= value && value <= most => {
            *into = value;
            Ok(())
        }
        Some(_) => Err(RpcError::invalid_params(format!("{name} must be {least} to {most}"))),
    }
}

/// Takes a yes or no that is given.
pub(super) fn choose(given: Option<bool>, into: &mut Choice) {
    if let Some(yes) = given {
        *into = if yes { Choice::Yes } else { Choice::No };
    }
}

/// What an earlier program took and saved is loaded all the same: a first burst that is longer than any is shortened, and the log says so.
pub(super) fn shorten_first_burst(preferences: &mut Preferences) {
    let Preferences { first_burst_length: first, max_burst_length: most, .. } = *preferences;
    if first > most {
        tracing::warn!("first_burst_length is {most} and not {first}: max_burst_length is no more");
        preferences.first_burst_length = most;
    }
}

/// Checks what one number says of another.
///
/// # Errors
/// The first burst is longer than any may be.
pub(super) fn check_bursts(preferences: &Preferences) -> Result<(), RpcError> {
    let Preferences { first_burst_length: first, max_burst_length: most, .. } = preferences;
    //= rfc7143#section-13.14(b): FirstBurstLength MUST NOT exceed MaxBurstLength.
    if first > most {
        return Err(RpcError::invalid_params(format!(
            "first_burst_length ({first}) must not be more than max_burst_length ({most}): name both"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_burst_is_not_longer_than_any() {
        let bursts = |first_burst_length, max_burst_length| {
            check_bursts(&Preferences { first_burst_length, max_burst_length, ..Preferences::default() })
        };
        assert!(bursts(512, 512).is_ok() && bursts(512, 513).is_ok());
        let refused = bursts(1024, 512).expect_err("longer");
        assert!(refused.message.contains("first_burst_length (1024)"), "{}", refused.message);
        let mut saved =
            Preferences { first_burst_length: 1 << 20, max_burst_length: 1 << 18, ..Preferences::default() };
        shorten_first_burst(&mut saved);
        assert_eq!((saved.first_burst_length, saved.max_burst_length), (1 << 18, 1 << 18));
    }

    #[test]
    fn what_is_not_given_stays() {
        let (mut choice, mut number) = (Choice::No, 7);
        choose(None, &mut choice);
        within("number", None, (1, 9), &mut number).expect("nothing to be wrong");
        assert_eq!((choice, number), (Choice::No, 7));
        choose(Some(true), &mut choice);
        within("number", Some(9), (1, 9), &mut number).expect("the last one");
        assert_eq!((choice, number), (Choice::Yes, 9));
        within("number", Some(10), (1, 9), &mut number).expect_err("beyond");
    }
}
