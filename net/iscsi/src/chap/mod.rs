//! CHAP (RFC 7143 section 12.1.3, RFC 1994): the algorithms, the secrets, and the part that each end plays.
//!
//! Owner: a login. Challenges come from the owner, who has a random source. Secrets compare in constant time, are wiped when
//! they are dropped, and show nothing of themselves.

mod prove;
mod value;
mod verify;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use md5::Md5;
use sha1::Sha1;
use sha2::Sha256;
use sha3::Sha3_256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

pub use prove::{Prover, Proving};
pub(crate) use verify::is_key;
pub use verify::{Requirement, Verifier, Verifying};

/// Bytes of a challenge that this end makes.
pub const CHALLENGE_LEN: usize = 32;
/// The longest challenge (RFC 7143 section 12.1.3), in bytes.
pub const CHALLENGE_LEN_MAX: usize = 1024;
/// Shorter secrets can be guessed from a recorded login (RFC 7143 section 9.2.1: 96 bits).
pub const SECRET_LEN_SAFE: usize = 12;
/// The longest secret that is taken, in bytes.
pub const SECRET_LEN_MAX: usize = 255;

/// A hash, by its number in IANA's registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Algorithm {
    /// MD5.
    Md5 = 5,
    /// SHA-1.
    Sha1 = 6,
    /// SHA-256.
    Sha256 = 7,
    /// SHA3-256.
    Sha3 = 8,
}

impl Algorithm {
    /// All, the strongest first.
    pub const ALL: [Self; 4] = [Self::Sha3, Self::Sha256, Self::Sha1, Self::Md5];

    /// Its number.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Its name in IANA's registry.
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA-256",
            Self::Sha3 => "SHA3-256",
        }
    }

    /// The algorithm of a name, in upper or lower case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    /// The algorithm of a number as text: decimal and nothing else.
    fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| match algorithm {
            Self::Md5 => text == "5",
            Self::Sha1 => text == "6",
            Self::Sha256 => text == "7",
            Self::Sha3 => text == "8",
        })
    }

    /// The response to a challenge: the hash of identifier, secret and challenge (RFC 1994 section 4.1).
    fn respond(self, id: u8, secret: &Secret, challenge: &[u8]) -> Vec<u8> {
        let parts = [&[id][..], &secret.0, challenge];
        match self {
            Self::Md5 => hash::<Md5>(parts),
            Self::Sha1 => hash::<Sha1>(parts),
            Self::Sha256 => hash::<Sha256>(parts),
            Self::Sha3 => hash::<Sha3_256>(parts),
        }
    }
}

fn hash<H: sha2::Digest>(parts: [&[u8]; 3]) -> Vec<u8> {
    let mut hasher = H::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().to_vec()
}

fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// A secret of 1 to 255 bytes.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// Not a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a CHAP secret has 1 to 255 bytes")]
pub struct SecretError;

impl Secret {
    /// A secret from its bytes.
    ///
    /// # Errors
    /// None or too many of them.
    pub fn new(bytes: Vec<u8>) -> Result<Self, SecretError> {
        let bytes = Zeroizing::new(bytes);
        if bytes.is_empty() || bytes.len() > SECRET_LEN_MAX { Err(SecretError) } else { Ok(Self(bytes)) }
    }

    /// True when it can be guessed from a recorded login: below 96 bits.
    pub fn is_short(&self) -> bool {
        //= rfc7143#section-9.2.1(b): an administrator who sets such a secret is warned.
        self.0.len() < SECRET_LEN_SAFE
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        same(&self.0, &other.0)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// A name with the secret that proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// CHAP_N: text, whatever it begins with.
    pub name: String,
    /// What proves it.
    pub secret: Secret,
}

/// Who may log in: the initiator's credential, and the target's for mutual CHAP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Proves the initiator to the target.
    pub initiator: Credential,
    /// Proves the target to the initiator.
    pub target: Option<Credential>,
}

/// Why two credentials cannot be one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secrets of the two directions must differ (RFC 7143 section 9.2.1)")]
pub struct SameSecret;

impl Account {
    /// An account.
    ///
    /// # Errors
    /// One secret for both directions: an attacker could have a challenge answered by the end that made it.
    pub fn new(initiator: Credential, target: Option<Credential>) -> Result<Self, SameSecret> {
        match &target {
            //= rfc7143#section-9.2.1(c): the two differ.
            Some(target) if target.secret == initiator.secret => Err(SameSecret),
            _ => Ok(Self { initiator, target }),
        }
    }
}

/// What an end asks the other: fresh for each login, from the owner's random source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// CHAP_I.
    pub id: u8,
    /// CHAP_C.
    pub bytes: [u8; CHALLENGE_LEN],
}

/// Why an authentication failed, in words that hold no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure(pub &'static str);

/// The pairs of one login PDU as the security stage reads them.
fn find<'a>(pairs: &'a [(String, String)], key: &str) -> Option<&'a str> {
    pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

/// CHAP_I: one byte as a number.
fn parse_id(text: &str) -> Result<u8, Failure> {
    let number = crate::text::parse_number(text).and_then(|number| u8::try_from(number).ok());
    number.ok_or(Failure("CHAP_I is no number of one byte"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec()).expect("a secret")
    }

    #[test]
    fn responses_are_the_hashes_that_other_tools_compute() {
        // printf '\x07secretsecretchallenge' | md5sum, sha1sum, sha256sum; hashlib.sha3_256 in Python.
        let hex = |bytes: Vec<u8>| value::encode_hex(&bytes);
        let respond = |algorithm: Algorithm| hex(algorithm.respond(7, &secret("secretsecret"), b"challenge"));
        assert_eq!(respond(Algorithm::Md5), "0x86c83b16dc3ccdec6e4c7abd9ec85125");
        assert_eq!(respond(Algorithm::Sha1), "0xac9ef7104635243448e8a11b17b05fd267de8fdc");
        assert_eq!(
            respond(Algorithm::Sha256),
            "0x414b7380d5220298574e5825b2d3b0c5918df966633e3cba6cf6a7047340485f"
        );
        assert_eq!(
            respond(Algorithm::Sha3),
            "0x9d8275ce5a803290985cd2cc9d852530128a0591ddff55309018b84e7c1e249e"
        );
    }

    #[test]
    fn a_secret_shows_nothing() {
        let account = Account::new(
            Credential { name: "host".into(), secret: secret("very private") },
            Some(Credential { name: "target".into(), secret: secret("other private") }),
        );
        let shown = alloc::format!("{account:?}");
        assert!(shown.contains("host") && !shown.contains("private"), "{shown}");
    }

    #[test]
    fn one_secret_does_not_serve_both_directions() {
        let credential = |name: &str, text: &str| Credential { name: name.into(), secret: secret(text) };
        assert_eq!(
            Account::new(credential("a", "same secret!"), Some(credential("b", "same secret!"))),
            Err(SameSecret)
        );
        assert_eq!(Secret::new(Vec::new()), Err(SecretError));
        assert!(secret("elevenbytes").is_short() && !secret("twelve bytes").is_short());
    }
}
