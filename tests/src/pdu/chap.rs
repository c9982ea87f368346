//! CHAP (RFC 7143 section 12.1.3), against a target that asks for it with the secrets of [`super::SECRETS`].

use md5::{Digest, Md5};

use super::session::{Answer, INITIATOR};
use super::{Case, Login, Outcome, SECRETS, Session, Subject};

/// From security negotiation to operational negotiation.
const TO_OPERATIONAL: u8 = 0x80 | 1;
/// From operational negotiation to full feature phase.
const TO_FULL_FEATURE: u8 = 0x80 | 1 << 2 | 3;

pub(super) const CASES: &[Case] = table! {
    "12.1.3" the_secret_opens
    "12.1.3" both_ends_prove_themselves
    "12.1.3" a_response_may_be_base64
    "12.1.3" the_first_known_algorithm_is_chosen
    "12.1.3" a_wrong_secret_is_refused
    "12.1.3" a_wrong_name_is_refused
    "12.1.3" a_response_of_another_length_is_refused
    "12.1.3" algorithms_of_fancy_are_refused
    "12.1.3" a_response_without_a_challenge_is_refused
    "12.1.3" a_reflected_challenge_is_refused
    "12.1.3" each_login_has_a_challenge_of_its_own
    "12.1.3" none_is_not_enough
    "6.3.1" to_skip_the_stage_is_refused
    "6.3.2" to_leave_in_the_middle_is_refused
};

fn names(subject: &Subject) -> [(&str, &str); 2] {
    [("InitiatorName", INITIATOR), ("TargetName", &subject.target)]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// A binary value in hexadecimal or base64 (RFC 7143 section 6.1).
fn binary(text: &str) -> Result<Vec<u8>, String> {
    let bad = || format!("{text:?} is no binary value");
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let digit = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
        return (0..digits.len()).step_by(2).map(digit).collect::<Option<_>>().ok_or_else(bad);
    }
    let digits = text.strip_prefix("0b").or_else(|| text.strip_prefix("0B")).ok_or_else(bad)?;
    let mut bits = 0_u32;
    let mut bytes = Vec::new();
    for (at, letter) in (1..).zip(digits.trim_end_matches('=').bytes()) {
        let value = ALPHABET.iter().position(|known| *known == letter).ok_or_else(bad)?;
        bits = bits << 6 | u32::try_from(value).expect("below 64");
        if at % 4 != 1 {
            bytes.push((bits >> (6 - (at - 1) % 4 * 2)) as u8);
        }
    }
    Ok(bytes)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut text = "0b".to_owned();
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize] as char;
            text.push(if place <= chunk.len() { letter } else { '=' });
        }
    }
    text
}

fn response(id: u8, secret: &str, challenge: &[u8]) -> Vec<u8> {
    let mut hash = Md5::new();
    hash.update([id]);
    hash.update(secret.as_bytes());
    hash.update(challenge);
    hash.finalize().to_vec()
}

/// A login that has been asked: identifier and challenge.
struct Asked {
    login: Login,
    id: u8,
    challenge: Vec<u8>,
}

fn asked(subject: &Subject) -> Result<Asked, String> {
    let mut login = Login::connect(subject)?;
    let answer =
        login.exchange(TO_OPERATIONAL, &[&names(subject)[..], &[("AuthMethod", "CHAP,None")]].concat())?;
    ensure!(answer.get("AuthMethod") == Some("CHAP"), "{answer:?}");
    ensure!(answer.pdu.flags() & 0x80 == 0, "the stage is left without a proof");
    let answer = login.exchange(0, &[("CHAP_A", "5")])?;
    ensure!(answer.get("CHAP_A") == Some("5"), "{answer:?}");
    let id = answer.get("CHAP_I").and_then(|text| text.parse().ok()).ok_or("CHAP_I is no number")?;
    let challenge = binary(answer.get("CHAP_C").ok_or("no CHAP_C")?)?;
    ensure!((1..=1024).contains(&challenge.len()), "a challenge of {} bytes", challenge.len());
    Ok(Asked { login, id, challenge })
}

/// Answers the challenge with these pairs.
fn prove(asked: &mut Asked, pairs: &[(&str, &str)]) -> Result<Answer, String> {
    asked.login.exchange(TO_OPERATIONAL, pairs)
}

/// Refused as not authenticated, as another fault of the initiator's, or dropped; never let in.
fn refused(answer: Result<Answer, String>) -> Outcome {
    let Ok(answer) = answer else { return Ok(()) };
    ensure!(answer.status() >> 8 == 2, "status {:#06x} {:?}", answer.status(), answer.pairs);
    Ok(())
}

/// Refused with "authentication failure".
fn not_authenticated(answer: Result<Answer, String>) -> Outcome {
    let status = answer?.status();
    ensure!(status == 0x0201, "status {status:#06x}");
    Ok(())
}

fn goes_on(subject: &Subject, mut login: Login, answer: &Answer) -> Outcome {
    ensure!(answer.status() == 0, "status {:#06x}", answer.status());
    ensure!(answer.pdu.flags() & 0x83 == 0x81, "no transit: {answer:?}");
    let last = login.exchange(TO_FULL_FEATURE, &[])?;
    ensure!(last.status() == 0 && last.pdu.flags() & 0x83 == 0x83, "{last:?}");
    let agreed = last.pairs.iter().cloned().collect();
    login.into_session(subject, &last, agreed).barrier().map(|_| ())
}

fn opens(subject: &Subject, write: fn(&[u8]) -> String) -> Outcome {
    let mut asked = asked(subject)?;
    let [name, secret] = SECRETS.initiator;
    let right = write(&response(asked.id, secret, &asked.challenge));
    let answer = prove(&mut asked, &[("CHAP_N", name), ("CHAP_R", &right)])?;
    goes_on(subject, asked.login, &answer)
}

fn the_secret_opens(subject: &Subject) -> Outcome {
    opens(subject, hex)
}

fn a_response_may_be_base64(subject: &Subject) -> Outcome {
    opens(subject, base64)
}

fn both_ends_prove_themselves(subject: &Subject) -> Outcome {
    let mut asked = asked(subject)?;
    let right = hex(&response(asked.id, SECRETS.initiator[1], &asked.challenge));
    let challenge = [0x5a; 16];
    let pairs = [
        ("CHAP_N", SECRETS.initiator[0]),
        ("CHAP_R", &right),
        ("CHAP_I", "77"),
        ("CHAP_C", &hex(&challenge)),
    ];
    let answer = prove(&mut asked, &pairs)?;
    ensure!(answer.get("CHAP_N") == Some(SECRETS.target[0]), "{answer:?}");
    let theirs = binary(answer.get("CHAP_R").ok_or("no CHAP_R")?)?;
    ensure!(theirs == response(77, SECRETS.target[1], &challenge), "the target does not know its secret");
    goes_on(subject, asked.login, &answer)
}

fn the_first_known_algorithm_is_chosen(subject: &Subject) -> Outcome {
    let mut login = Login::connect(subject)?;
    login.exchange(TO_OPERATIONAL, &[&names(subject)[..], &[("AuthMethod", "CHAP")]].concat())?;
    let answer = login.exchange(0, &[("CHAP_A", "217,5")])?;
    ensure!(answer.get("CHAP_A") == Some("5"), "the first known one is 5: {answer:?}");
    Ok(())
}

fn a_wrong_secret_is_refused(subject: &Subject) -> Outcome {
    let mut asked = asked(subject)?;
    let wrong = hex(&response(asked.id, "another-secret-of-it", &asked.challenge));
    not_authenticated(prove(&mut asked, &[("CHAP_N", SECRETS.initiator[0]), ("CHAP_R", &wrong)]))
}

fn a_wrong_name_is_refused(subject: &Subject) -> Outcome {
    let mut asked = asked(subject)?;
    let right = hex(&response(asked.id, SECRETS.initiator[1], &asked.challenge));
    not_authenticated(prove(&mut asked, &[("CHAP_N", "guest"), ("CHAP_R", &right)]))
}

fn a_response_of_another_length_is_refused(subject: &Subject) -> Outcome {
    for len in [0, 15, 17, 2000] {
        let mut asked = asked(subject)?;
        let mut right = response(asked.id, SECRETS.initiator[1], &asked.challenge);
        right.resize(len, 0);
        let text = hex(&right);
        refused(prove(&mut asked, &[("CHAP_N", SECRETS.initiator[0]), ("CHAP_R", &text)]))
            .map_err(|why| format!("{len} bytes: {why}"))?;
    }
    Ok(())
}

fn algorithms_of_fancy_are_refused(subject: &Subject) -> Outcome {
    for list in ["217", "56", "five", ""] {
        let mut login = Login::connect(subject)?;
        login.exchange(TO_OPERATIONAL, &[&names(subject)[..], &[("AuthMethod", "CHAP")]].concat())?;
        let answer = login.exchange(0, &[("CHAP_A", list)]);
        let rejects = answer.as_ref().is_ok_and(|answer| answer.get("CHAP_A") == Some("Reject"));
        if !rejects {
            refused(answer).map_err(|why| format!("CHAP_A={list}: {why}"))?;
        }
    }
    Ok(())
}

fn a_response_without_a_challenge_is_refused(subject: &Subject) -> Outcome {
    let mut login = Login::connect(subject)?;
    login.exchange(TO_OPERATIONAL, &[&names(subject)[..], &[("AuthMethod", "CHAP")]].concat())?;
    let guess = hex(&response(0, SECRETS.initiator[1], &[]));
    refused(login.exchange(TO_OPERATIONAL, &[("CHAP_N", SECRETS.initiator[0]), ("CHAP_R", &guess)]))
}

fn a_reflected_challenge_is_refused(subject: &Subject) -> Outcome {
    let mut asked = asked(subject)?;
    let right = hex(&response(asked.id, SECRETS.initiator[1], &asked.challenge));
    let (id, challenge) = (asked.id.to_string(), hex(&asked.challenge));
    let pairs = [
        ("CHAP_N", SECRETS.initiator[0]),
        ("CHAP_R", &right),
        ("CHAP_I", id.as_str()),
        ("CHAP_C", &challenge),
    ];
    refused(prove(&mut asked, &pairs))
}

fn each_login_has_a_challenge_of_its_own(subject: &Subject) -> Outcome {
    let held = [asked(subject)?, asked(subject)?];
    let later = asked(subject)?;
    let [first, second] = &held;
    let all_differ = first.challenge != second.challenge
        && first.challenge != later.challenge
        && second.challenge != later.challenge;
    ensure!(all_differ, "a challenge is used again");
    ensure!(first.challenge.len() >= 16, "a challenge of {} bytes can be guessed", first.challenge.len());
    Ok(())
}

fn none_is_not_enough(subject: &Subject) -> Outcome {
    let mut login = Login::connect(subject)?;
    let pairs = [&names(subject)[..], &[("AuthMethod", "None")]].concat();
    not_authenticated(login.exchange(TO_OPERATIONAL, &pairs))
}

fn to_skip_the_stage_is_refused(subject: &Subject) -> Outcome {
    not_authenticated(Login::connect(subject)?.exchange(TO_FULL_FEATURE, &names(subject)))?;
    ensure!(Session::open(subject, &[]).is_err(), "a session without a proof");
    Ok(())
}

fn to_leave_in_the_middle_is_refused(subject: &Subject) -> Outcome {
    let mut asked = asked(subject)?;
    let answer = asked.login.exchange(TO_OPERATIONAL, &[]);
    let stays = answer.as_ref().is_ok_and(|answer| answer.status() == 0 && answer.pdu.flags() & 0x80 == 0);
    if !stays {
        refused(answer)?;
        return Ok(());
    }
    refused(asked.login.exchange(TO_FULL_FEATURE, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_values_are_read_as_they_are_written() {
        for len in 0..20_u8 {
            let bytes: Vec<u8> = (0..len).map(|at| at.wrapping_mul(37)).collect();
            assert_eq!(binary(&hex(&bytes)), Ok(bytes.clone()));
            assert_eq!(binary(&base64(&bytes)), Ok(bytes));
        }
        assert_eq!(base64(b"Man"), "0bTWFu");
        assert_eq!(base64(b"Ma"), "0bTWE=");
    }
}
