//! CHAP between both ends, and against an attacker who writes the login text by hand.

use std::rc::Rc;

use iscsi::chap::{Account, Algorithm, Challenge, Credential, Proving, Requirement, Secret, Verifying};
use iscsi::initiator;
use iscsi::keys::Digests;
use iscsi::pdu::{Header, flag, opcode};
use iscsi::target::{self, Admission, Grant};
use iscsi::text::{self, Pairs};
use iscsi::{Body, CloseReason, Preferences, Protocol};

fn credential(name: &str, secret: &str) -> Credential {
    Credential { name: name.into(), secret: Secret::new(secret.as_bytes().to_vec()).expect("a secret") }
}

fn account(target: Option<&str>) -> Account {
    let target = target.map(|secret| credential("target", secret));
    Account::new(credential("host", "the host's secret"), target).expect("two secrets")
}

fn verifying(requirement: Requirement) -> Verifying {
    let accounts = Rc::new([
        account(Some("the target's secret")),
        Account { initiator: credential("0xhost", "of a name that looks like a number"), target: None },
    ]);
    Verifying {
        requirement,
        accounts,
        algorithms: Algorithm::ALL.into(),
        challenge: Challenge { id: 200, bytes: [0xa5; 32] },
    }
}

fn target() -> target::Connection {
    target::Connection::new(target::Config { preferences: Preferences::default(), queue_depth: 8 })
}

fn on_events(target: &mut target::Connection, verifying: &Verifying) {
    while let Some(event) = target.poll_event() {
        match event {
            target::Event::LoginRequest(_) => target.admit_login(Admission {
                portal_group_tag: 1,
                target_alias: String::new(),
                authentication: verifying.clone(),
                digests: Digests::default(),
                joins: None,
            }),
            target::Event::LoginComplete => target.grant_login(&Grant { tsih: 1, queue_depth: 8 }),
            _ => {}
        }
    }
}

fn carry(from: &mut impl Protocol, to: &mut impl Protocol) -> bool {
    let Some(transmit) = from.poll_transmit() else { return false };
    to.handle_bytes(transmit.head());
    if let Body::Inline(bytes) = &transmit.body {
        to.handle_bytes(bytes);
        to.handle_bytes(iscsi::digest::Trailer::of(bytes, transmit.data_digest).as_bytes());
    }
    true
}

/// Logs in; how it ended at the initiator, `None` for well.
fn log_in(credentials: Option<Proving>, verifying: &Verifying) -> Option<CloseReason> {
    let mut initiator = initiator::Connection::new(initiator::Config {
        alias: None,
        initiator: "iqn.2026-11.example:host".into(),
        target: Some("iqn.2026-11.example:disk".into()),
        isid: [0x80, 1, 2, 3, 4, 5],
        preferences: Preferences::default(),
        credentials,
    });
    let mut target = target();
    loop {
        let mut moved = carry(&mut initiator, &mut target);
        on_events(&mut target, verifying);
        moved |= carry(&mut target, &mut initiator);
        if !moved {
            break;
        }
    }
    assert_eq!(initiator.is_full_feature(), initiator.closed().is_none());
    assert_eq!(initiator.is_full_feature(), target.is_full_feature());
    initiator.closed().cloned()
}

fn proving(account: Account, algorithm: Algorithm) -> Option<Proving> {
    let challenge = Challenge { id: 3, bytes: [0x5a; 32] };
    Some(Proving { account, challenge, algorithms: vec![algorithm] })
}

const REFUSED: Option<CloseReason> = Some(CloseReason::LoginRefused { class: 2, detail: 1 });

#[test]
fn every_algorithm_authenticates_one_or_both_ends() {
    for algorithm in Algorithm::ALL {
        for requirement in [Requirement::Optional, Requirement::Required] {
            assert_eq!(log_in(proving(account(None), algorithm), &verifying(requirement)), None);
        }
        let both = proving(account(Some("the target's secret")), algorithm);
        for requirement in [Requirement::Optional, Requirement::Required, Requirement::Mutual] {
            assert_eq!(log_in(both.clone(), &verifying(requirement)), None);
        }
    }
    let odd = Account { initiator: credential("0xhost", "of a name that looks like a number"), target: None };
    assert_eq!(log_in(proving(odd, Algorithm::Md5), &verifying(Requirement::Required)), None);
}

#[test]
fn who_cannot_prove_himself_stays_out() {
    let wrong = Account { initiator: credential("host", "not the host's secret"), target: None };
    let unknown = Account { initiator: credential("nobody", "the host's secret"), target: None };
    for account in [wrong, unknown] {
        assert_eq!(log_in(proving(account, Algorithm::Sha256), &verifying(Requirement::Optional)), REFUSED);
    }
    assert_eq!(log_in(None, &verifying(Requirement::Required)), REFUSED);
    assert_eq!(log_in(None, &verifying(Requirement::Optional)), None);
    assert_eq!(log_in(proving(account(None), Algorithm::Sha3), &verifying(Requirement::Mutual)), REFUSED);
    // One-way credentials do without where the target has no CHAP; mutual ones do not.
    assert_eq!(log_in(proving(account(None), Algorithm::Sha3), &verifying(Requirement::Disabled)), None);
    let both = proving(account(Some("the target's secret")), Algorithm::Sha3);
    assert_eq!(log_in(both, &verifying(Requirement::Disabled)), REFUSED);
}

#[test]
fn a_target_with_a_wrong_secret_is_left() {
    let both = proving(account(Some("another target's secret")), Algorithm::Sha256);
    let closed = log_in(both, &verifying(Requirement::Required));
    let Some(CloseReason::NotAuthenticated(why)) = closed else { panic!("{closed:?}") };
    assert!(why.contains("secret is wrong"), "{why}");
}

/// A hand-written initiator.
struct Attacker {
    target: target::Connection,
    verifying: Verifying,
}

impl Attacker {
    const NAMES: &str =
        "InitiatorName=iqn.2026-11.example:host\0TargetName=iqn.2026-11.example:disk\0AuthMethod=CHAP,None\0";

    fn new(requirement: Requirement) -> Self {
        let mut attacker = Self { target: target(), verifying: verifying(requirement) };
        let (status, answer) = attacker.say(0, Self::NAMES);
        assert_eq!((status, get(&answer, "AuthMethod")), (0, Some("CHAP")));
        attacker
    }

    /// Sends login text; status and answer.
    fn say(&mut self, flags: u8, text: &str) -> (u16, Pairs) {
        let header = Header::new(opcode::LOGIN, flags).with_immediate().with_data_len(text.len());
        self.target.handle_bytes(&header.0);
        self.target.handle_bytes(text.as_bytes());
        self.target.handle_bytes(&[0; 4][..text.len().wrapping_neg() & 3]);
        on_events(&mut self.target, &self.verifying);
        let Some(transmit) = self.target.poll_transmit() else { return (0xffff, Vec::new()) };
        while self.target.poll_transmit().is_some() {}
        let status = u16::from_be_bytes([transmit.head()[36], transmit.head()[37]]);
        let answer = match &transmit.body {
            Body::Inline(bytes) => text::parse(bytes).expect("text"),
            _ => Vec::new(),
        };
        (status, answer)
    }
}

fn get<'a>(pairs: &'a Pairs, key: &str) -> Option<&'a str> {
    pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

#[test]
fn algorithms_are_numbers_of_a_list() {
    for (list, chosen) in [("5", "5"), ("5,6,7,8", "5"), ("8,7,6,5", "8"), ("9,6,5", "6"), ("7,99", "7")] {
        let (status, answer) = Attacker::new(Requirement::Required).say(0, &format!("CHAP_A={list}\0"));
        assert_eq!((status, get(&answer, "CHAP_A")), (0, Some(chosen)), "{list}");
    }
    for list in ["56", "", "0", "5 ", "0x5", "MD5", "5;6"] {
        let (status, answer) = Attacker::new(Requirement::Required).say(0, &format!("CHAP_A={list}\0"));
        assert_eq!((status, answer), (0x0201, Vec::new()), "{list}");
    }
}

#[test]
fn a_target_takes_the_hashes_that_it_is_told_to() {
    let mut strict = verifying(Requirement::Required);
    strict.algorithms = [Algorithm::Sha3, Algorithm::Sha256].into();
    for (list, chosen) in [("5,6,7,8", "7"), ("8,7", "8"), ("5,8", "8")] {
        let mut attacker = Attacker { target: target(), verifying: strict.clone() };
        attacker.say(0, Attacker::NAMES);
        let (status, answer) = attacker.say(0, &format!("CHAP_A={list}\0"));
        assert_eq!((status, get(&answer, "CHAP_A")), (0, Some(chosen)), "{list}");
    }
    let mut attacker = Attacker { target: target(), verifying: strict };
    attacker.say(0, Attacker::NAMES);
    assert_eq!(attacker.say(0, "CHAP_A=5,6\0"), (0x0201, Vec::new()));
}

#[test]
fn the_targets_own_challenge_does_not_come_back() {
    let mut attacker = Attacker::new(Requirement::Required);
    let (_, answer) = attacker.say(0, "CHAP_A=5\0");
    let challenge = get(&answer, "CHAP_C").expect("a challenge").to_owned();
    // MD5 of c8, "the host's secret" and 32 times a5, in base64: right, but for what follows.
    let right = "CHAP_N=host\0CHAP_R=0byp4EDkFPIb5sMscm0QhdbA==\0";
    let (status, _) = attacker.say(flag::TRANSIT | 1, &format!("{right}CHAP_I=200\0CHAP_C={challenge}\0"));
    assert_eq!(status, 0x0201);
    let mut attacker = Attacker::new(Requirement::Required);
    attacker.say(0, "CHAP_A=5\0");
    let (status, _) = attacker.say(flag::TRANSIT | 1, right);
    assert_eq!(status, 0);
}

#[test]
fn steps_that_are_left_out_or_malformed_fail_the_login() {
    for step in [
        "CHAP_N=host\0",
        "CHAP_R=0x00\0",
        "CHAP_N=host\0CHAP_R=nonsense\0",
        "CHAP_N=host\0CHAP_R=0x\0",
        "CHAP_N=host\0CHAP_R=0x00112233445566778899aabbccddee\0",
        "CHAP_A=5\0",
        "AuthMethod=None\0",
    ] {
        let mut attacker = Attacker::new(Requirement::Required);
        attacker.say(0, "CHAP_A=5\0");
        assert_eq!(attacker.say(flag::TRANSIT | 1, step).0, 0x0201, "{step}");
    }
    let long = format!("CHAP_N=host\0CHAP_R=0b{}\0", "A".repeat(4000));
    let mut attacker = Attacker::new(Requirement::Required);
    attacker.say(0, "CHAP_A=5\0");
    assert_eq!(attacker.say(flag::TRANSIT | 1, &long).0, 0x0201);
    // The operational stage, and full feature phase, are not to be had before.
    for flags in [1 << 2, flag::TRANSIT | 1 << 2 | 3] {
        let mut attacker = Attacker::new(Requirement::Required);
        assert_eq!(attacker.say(flags, "").0, 0x0201);
        assert!(!attacker.target.is_full_feature());
    }
    // Asking to leave the security stage too early is answered without leaving it.
    let mut attacker = Attacker::new(Requirement::Required);
    let (status, answer) = attacker.say(flag::TRANSIT | 3, "CHAP_A=5\0");
    assert_eq!((status, get(&answer, "CHAP_A")), (0, Some("5")));
    assert!(!attacker.target.is_full_feature());
}
