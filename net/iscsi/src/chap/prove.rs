//! The initiator's part: it answers, and asks in turn for mutual CHAP.
//!
//! ```text
//! Method --(AuthMethod=None, where that will do)-----------------------> Done
//!   \-----(CHAP)--> Algorithm --(CHAP_A, CHAP_I, CHAP_C)--> Answered --(target proved itself, or need not)--> Done
//! ```

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Account, Algorithm, CHALLENGE_LEN_MAX, Challenge, Failure, find, parse_id, same, value};
use crate::text::{Pairs, emit};

/// How an initiator authenticates itself.
#[derive(Clone, Debug)]
pub struct Proving {
    /// Its own credential; with the target's, the target must prove itself too.
    pub account: Account,
    /// What the target is asked: fresh for each login.
    pub challenge: Challenge,
    /// Hashes to offer, the preferred first.
    pub algorithms: Vec<Algorithm>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Method,
    Algorithm,
    /// With the response that the target must give, where it must.
    Answered(Option<Vec<u8>>),
    Done,
}

/// See the module.
#[derive(Debug)]
pub struct Prover {
    with: Option<Proving>,
    state: State,
}

impl Prover {
    /// A prover that has said nothing yet; with `None`, one that only accepts AuthMethod=None.
    pub fn new(with: Option<Proving>) -> Self {
        Self { with, state: State::Method }
    }

    /// The methods to offer. A target that must prove itself is not offered to do without.
    pub fn offer(&self) -> &'static str {
        match &self.with {
            None => "None",
            Some(Proving { account: Account { target: Some(_), .. }, .. }) => "CHAP",
            Some(_) => "CHAP,None",
        }
    }

    /// True when the login may ask to leave the security stage with what it sends next.
    pub fn may_transit(&self) -> bool {
        matches!(self.state, State::Answered(_) | State::Done) || self.with.is_none()
    }

    /// True when nothing is missing any more.
    pub fn is_done(&self) -> bool {
        self.state == State::Done || (self.state == State::Method && self.with.is_none())
    }

    /// Takes the keys of a response of the security stage; appends what to send next.
    ///
    /// # Errors
    /// The target cannot be logged in to with these credentials, or did not prove itself.
    pub fn handle(&mut self, pairs: &Pairs, request: &mut Vec<u8>) -> Result<(), Failure> {
        let state = core::mem::replace(&mut self.state, State::Method);
        self.state = match state {
            State::Method => self.on_method(pairs, request)?,
            State::Algorithm => self.on_challenge(pairs, request)?,
            State::Answered(wanted) => self.on_answer(wanted, pairs)?,
            State::Done => State::Done,
        };
        Ok(())
    }

    fn on_method(&self, pairs: &Pairs, request: &mut Vec<u8>) -> Result<State, Failure> {
        let mutual = self.with.as_ref().is_some_and(|with| with.account.target.is_some());
        match (find(pairs, "AuthMethod"), &self.with) {
            (Some("CHAP"), Some(with)) => {
                let numbers: Vec<String> =
                    with.algorithms.iter().map(|algorithm| algorithm.number().to_string()).collect();
                emit(request, "CHAP_A", &numbers.join(","));
                Ok(State::Algorithm)
            }
            (None | Some("None"), _) if !mutual => Ok(State::Done),
            (None | Some("None"), _) => Err(Failure("the target does not authenticate itself")),
            (Some("Reject"), _) => Err(Failure("the target rejects the authentication methods")),
            _ => Err(Failure("the target wants an authentication that was not offered")),
        }
    }

    fn on_challenge(&self, pairs: &Pairs, request: &mut Vec<u8>) -> Result<State, Failure> {
        let with = self.with.as_ref().ok_or(Failure("there are no credentials"))?;
        let value = |key| find(pairs, key).ok_or(Failure("CHAP_A, CHAP_I or CHAP_C is missing"));
        let algorithm = Algorithm::from_text(value("CHAP_A")?);
        let algorithm = algorithm.filter(|chosen| with.algorithms.contains(chosen));
        let algorithm = algorithm.ok_or(Failure("the target chose a CHAP algorithm that was not offered"))?;
        let id = parse_id(value("CHAP_I")?)?;
        let challenge = value::decode(value("CHAP_C")?, CHALLENGE_LEN_MAX);
        let challenge = challenge.ok_or(Failure("CHAP_C is no binary value"))?;
        if same(&challenge, &with.challenge.bytes) {
            return Err(Failure("the initiator's own challenge was reflected"));
        }
        let own = &with.account.initiator;
        emit(request, "CHAP_N", &own.name);
        emit(request, "CHAP_R", &value::encode_hex(&algorithm.respond(id, &own.secret, &challenge)));
        let wanted = with.account.target.as_ref().map(|target| {
            let Challenge { id, bytes } = &with.challenge;
            emit(request, "CHAP_I", &id.to_string());
            emit(request, "CHAP_C", &value::encode_hex(bytes));
            algorithm.respond(*id, &target.secret, bytes)
        });
        Ok(State::Answered(wanted))
    }

    fn on_answer(&self, wanted: Option<Vec<u8>>, pairs: &Pairs) -> Result<State, Failure> {
        let Some(wanted) = wanted else { return Ok(State::Done) };
        let target = self.with.as_ref().and_then(|with| with.account.target.as_ref());
        let name = find(pairs, "CHAP_N").ok_or(Failure("the target did not authenticate itself"))?;
        let response = find(pairs, "CHAP_R").and_then(|text| value::decode(text, CHALLENGE_LEN_MAX));
        let response = response.ok_or(Failure("the target did not authenticate itself"))?;
        let right = target.is_some_and(|target| target.name == name) && same(&wanted, &response);
        if right { Ok(State::Done) } else { Err(Failure("the target's name or secret is wrong")) }
    }
}
