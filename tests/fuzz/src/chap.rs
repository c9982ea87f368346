//! CHAP at both ends, with somebody between them who changes what they say.
//!
//! The input's first byte says who needs what ([`Parties`]), the second which hashes are offered (its low four bits) and
//! which will do (the others). Then come records, one for each message on
//! its way: what becomes of it, a length, and so many bytes. When there are none left, messages pass as they are.

use iscsi::chap::{
    Account, Algorithm, Challenge, Credential, Prover, Proving, Requirement, Secret, Verifier, Verifying,
};
use iscsi::text::{self, Pairs};

/// Messages of the longest exchange: two of the method, two of the algorithm, two of the proofs.
const MESSAGES: usize = 6;

/// Who needs what, and who knows what, as the first byte of an input says.
#[derive(Clone, Copy, Debug)]
struct Parties(u8);

impl Parties {
    /// The initiator asks the target to prove itself.
    const MUTUAL: u8 = 4;
    /// The initiator's secret is another one than the target knows.
    const IMPOSTOR: u8 = 8;
    /// The target's secret is another one than the initiator knows.
    const FALSE_TARGET: u8 = 16;

    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    fn requirement(self) -> Requirement {
        match self.0 & 3 {
            0 => Requirement::Disabled,
            1 => Requirement::Optional,
            2 => Requirement::Required,
            _ => Requirement::Mutual,
        }
    }

    /// The initiator cannot do without CHAP and the target has none, or the other way round, or one of them lies.
    fn agree(self) -> bool {
        let chap = match self.requirement() {
            Requirement::Disabled => return !self.has(Self::MUTUAL),
            Requirement::Mutual => self.has(Self::MUTUAL),
            Requirement::Optional | Requirement::Required => true,
        };
        chap && !self.has(Self::IMPOSTOR) && !(self.has(Self::MUTUAL) && self.has(Self::FALSE_TARGET))
    }
}

fn credential(name: &str, secret: &str) -> Credential {
    let secret = Secret::new(secret.as_bytes().to_vec()).expect("a secret");
    Credential { name: name.to_owned(), secret }
}

/// A challenge that no input can hold the answer to.
fn challenge(id: u8, data: &[u8]) -> Challenge {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64 ^ u64::from(id);
    data.iter().for_each(|byte| sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mut bytes = [id; 32];
    bytes[..8].copy_from_slice(&sum.to_be_bytes());
    Challenge { id, bytes }
}

/// The hashes whose bits are set.
fn algorithms(bits: u8) -> Vec<Algorithm> {
    let chosen = |(place, algorithm): (usize, Algorithm)| ((bits >> place) & 1 != 0).then_some(algorithm);
    Algorithm::ALL.into_iter().enumerate().filter_map(chosen).collect()
}

fn verifier(parties: Parties, accepted: Vec<Algorithm>, data: &[u8]) -> Verifier {
    let secret =
        if parties.has(Parties::FALSE_TARGET) { "a guess at the disk's" } else { "the disk's own secret" };
    let account =
        Account::new(credential("0xhost", "the host's own secret"), Some(credential("disk", secret)));
    let other = Account { initiator: credential("other", "of somebody else"), target: None };
    Verifier::new(Verifying {
        requirement: parties.requirement(),
        accounts: [other, account.expect("two secrets")].into(),
        algorithms: accepted.into(),
        challenge: challenge(7, data),
    })
}

fn prover(parties: Parties, offered: Vec<Algorithm>, data: &[u8]) -> Prover {
    let secret =
        if parties.has(Parties::IMPOSTOR) { "a guess at the host's" } else { "the host's own secret" };
    let target = parties.has(Parties::MUTUAL).then(|| credential("disk", "the disk's own secret"));
    let account = Account::new(credential("0xhost", secret), target).expect("two secrets");
    Prover::new(Some(Proving { account, challenge: challenge(9, data), algorithms: offered }))
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passes,
    /// Its binary values are written in base64, which says the same.
    Rewritten,
    /// Other text takes its place,
    Replaced,
    /// or comes before it.
    Preceded,
}

/// Whoever is between the ends.
struct Meddler<'a> {
    records: &'a [u8],
    /// Nothing was said that an end did not say.
    honest: bool,
}

impl Meddler<'_> {
    fn next(&mut self) -> (Fate, &[u8]) {
        let [fate, rest @ ..] = self.records else { return (Fate::Passes, &[]) };
        let fate = match fate % 4 {
            0 => Fate::Passes,
            1 => Fate::Rewritten,
            2 => Fate::Replaced,
            _ => Fate::Preceded,
        };
        let (len, rest) = match (fate, rest) {
            (Fate::Replaced | Fate::Preceded, [len, rest @ ..]) => (usize::from(*len) * 8, rest),
            (_, rest) => (0, rest),
        };
        let (bytes, after) = rest.split_at(len.min(rest.len()));
        self.records = after;
        (fate, bytes)
    }

    /// The message as the other end gets it; `None` where it is no text any more, which ends a login.
    fn carry(&mut self, message: &[u8]) -> Option<Pairs> {
        let (fate, bytes) = self.next();
        let bytes = bytes.to_vec();
        self.honest &= matches!(fate, Fate::Passes | Fate::Rewritten);
        let mut pairs = match fate {
            Fate::Passes | Fate::Rewritten => Vec::new(),
            Fate::Replaced => return text::parse(&bytes).ok(),
            Fate::Preceded => text::parse(&bytes).ok()?,
        };
        pairs.extend(text::parse(message).expect("what an end says is text"));
        if fate == Fate::Rewritten {
            pairs.iter_mut().filter(|(key, _)| key == "CHAP_R" || key == "CHAP_C").for_each(rewrite);
        }
        Some(pairs)
    }
}

/// Hexadecimal digits as base64.
fn rewrite((_, value): &mut (String, String)) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = value.strip_prefix("0x").expect("an end writes hexadecimal digits");
    let nibbles: Vec<u8> = digits.chars().map(|digit| digit.to_digit(16).expect("a digit") as u8).collect();
    // Three nibbles are two digits; of what is left over the bits go up to the top.
    let two = |three: &[u8]| {
        let bits = three.iter().fold(0_usize, |bits, nibble| (bits << 4) | usize::from(*nibble))
            << (4 * (3 - three.len()));
        [DIGITS[bits >> 6], DIGITS[bits & 63]].into_iter().take(three.len().min(2))
    };
    let text: Vec<u8> = nibbles.chunks(3).flat_map(|three| two(three).collect::<Vec<_>>()).collect();
    *value = format!("0b{}", String::from_utf8(text).expect("ASCII"));
}

/// Nobody is believed who does not know the secret, whatever is done to the messages; who knows it is believed where nothing is done.
pub(super) fn chap(data: &[u8]) {
    let [parties, hashes, records @ ..] = data else { return };
    let parties = Parties(*parties);
    let (offered, accepted) = (algorithms(*hashes), algorithms(hashes >> 4));
    let in_common = offered.iter().any(|algorithm| accepted.contains(algorithm));
    let (mut target, mut initiator) = (verifier(parties, accepted, data), prover(parties, offered, data));
    let mut meddler = Meddler { records, honest: true };
    let failed = talk(&mut target, &mut initiator, &mut meddler).is_none();
    let needed = matches!(parties.requirement(), Requirement::Required | Requirement::Mutual);
    assert!(!(needed && parties.has(Parties::IMPOSTOR) && target.is_satisfied()), "an impostor is let in");
    if parties.has(Parties::MUTUAL) && (parties.has(Parties::FALSE_TARGET) || !target.is_satisfied()) {
        assert!(!initiator.is_done(), "a target is believed that proved nothing");
    }
    if meddler.honest {
        let expected = parties.agree() && (in_common || parties.requirement() == Requirement::Disabled);
        assert_eq!(!failed && target.is_satisfied() && initiator.is_done(), expected, "{parties:?} {failed}");
    }
}

/// `None` when an end gives up.
fn talk(target: &mut Verifier, initiator: &mut Prover, meddler: &mut Meddler<'_>) -> Option<()> {
    let mut message = Vec::new();
    text::emit(&mut message, "AuthMethod", initiator.offer());
    for _ in 0..MESSAGES / 2 {
        let mut answer = Vec::new();
        target.handle(&meddler.carry(&message)?, &mut answer).ok()?;
        message.clear();
        initiator.handle(&meddler.carry(&answer)?, &mut message).ok()?;
        if initiator.is_done() {
            break;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_the_same_bytes_in_base64() {
        for (hex, base64) in [("0x00ffa5", "0bAP+l"), ("0x00ff", "0bAP8"), ("0xa5", "0bpQ")] {
            let mut pair = (String::new(), hex.to_owned());
            rewrite(&mut pair);
            assert_eq!(pair.1, base64);
        }
    }

    /// Each pair of ends that agrees does, by each hash; the others do not, and a replayed challenge is no proof.
    #[test]
    fn every_pair_of_ends_comes_to_its_end() {
        for parties in 0..32 {
            for hashes in (0..=255).step_by(5) {
                chap(&[parties, hashes]);
                chap(&[parties, hashes, 1, 1, 1, 1, 1, 1]);
            }
        }
    }
}
