//! The target's part: it asks, checks the answer, and proves itself when it is asked in turn.
//!
//! ```text
//! Method --(AuthMethod chosen: None)----------------------------------> Done
//!   \-----(CHAP)--> Algorithm --(CHAP_A)--> Challenged --(CHAP_N, CHAP_R right)--> Done
//! ```
//!
//! Anything else fails the login. The answer to a mutual challenge is computed only after the initiator has proved itself.

use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::{Account, Algorithm, CHALLENGE_LEN_MAX, Challenge, Failure, find, parse_id, same, value};
use crate::text::{Pairs, emit};

/// Whether an initiator must authenticate itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Requirement {
    /// There is no CHAP here.
    #[default]
    Disabled,
    /// The initiator chooses.
    Optional,
    /// It must.
    Required,
    /// It must, and it must ask the target to do the same.
    Mutual,
}

impl Requirement {
    fn accepts_none(self) -> bool {
        matches!(self, Self::Disabled | Self::Optional)
    }
}

/// What the owner of a login decided about its authentication.
#[derive(Clone, Debug)]
pub struct Verifying {
    /// Whether the initiator must authenticate itself.
    pub requirement: Requirement,
    /// Who may.
    pub accounts: Rc<[Account]>,
    /// The hashes that will do.
    pub algorithms: Rc<[Algorithm]>,
    /// What it is asked.
    pub challenge: Challenge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Method,
    Algorithm,
    Challenged(Algorithm),
    Done,
}

/// See the module.
#[derive(Debug)]
pub struct Verifier {
    with: Verifying,
    state: State,
}

impl Verifier {
    /// A verifier that has heard nothing yet.
    pub fn new(with: Verifying) -> Self {
        Self { with, state: State::Method }
    }

    /// True when the login may leave the security stage: the initiator is authenticated, or does not have to be.
    pub fn is_satisfied(&self) -> bool {
        match self.state {
            State::Done => true,
            // An initiator that offers no method, or begins with the operational stage, offers None.
            State::Method => self.with.requirement.accepts_none(),
            State::Algorithm | State::Challenged(_) => false,
        }
    }

    /// Takes the keys of a request of the security stage; appends the answers.
    ///
    /// # Errors
    /// The login fails with "authentication failure".
    pub fn handle(&mut self, pairs: &Pairs, answer: &mut Vec<u8>) -> Result<(), Failure> {
        let next = match self.state {
            State::Method => self.choose_method(pairs, answer)?,
            State::Algorithm => self.choose_algorithm(pairs, answer)?,
            State::Challenged(algorithm) => self.check(algorithm, pairs, answer)?,
            State::Done if pairs.iter().any(|(key, _)| is_key(key)) => {
                return Err(Failure("an authentication key after the authentication"));
            }
            State::Done => State::Done,
        };
        self.state = next;
        Ok(())
    }

    fn choose_method(&self, pairs: &Pairs, answer: &mut Vec<u8>) -> Result<State, Failure> {
        if pairs.iter().any(|(key, _)| key.starts_with("CHAP_")) {
            return Err(Failure("a CHAP key before AuthMethod was agreed on"));
        }
        let Some(offers) = find(pairs, "AuthMethod") else { return Ok(State::Method) };
        let requirement = self.with.requirement;
        let chosen = offers.split(',').find_map(|method| match method {
            "CHAP" if requirement != Requirement::Disabled => Some(("CHAP", State::Algorithm)),
            "None" if requirement.accepts_none() => Some(("None", State::Done)),
            _ => None,
        });
        let (method, next) = chosen.ok_or(Failure("no authentication method in common"))?;
        emit(answer, "AuthMethod", method);
        Ok(next)
    }

    fn choose_algorithm(&self, pairs: &Pairs, answer: &mut Vec<u8>) -> Result<State, Failure> {
        let offers = find(pairs, "CHAP_A").ok_or(Failure("CHAP_A is missing"))?;
        //= rfc7143#section-12.1.3: the initiator lists them in the order of its preference; the first that will do is taken.
        let will_do = |algorithm: &Algorithm| self.with.algorithms.contains(algorithm);
        let algorithm = offers.split(',').filter_map(Algorithm::from_text).find(will_do);
        let algorithm = algorithm.ok_or(Failure("no CHAP algorithm in common"))?;
        emit(answer, "CHAP_A", &algorithm.number().to_string());
        emit(answer, "CHAP_I", &self.with.challenge.id.to_string());
        emit(answer, "CHAP_C", &value::encode_hex(&self.with.challenge.bytes));
        Ok(State::Challenged(algorithm))
    }

    fn check(&self, algorithm: Algorithm, pairs: &Pairs, answer: &mut Vec<u8>) -> Result<State, Failure> {
        //= rfc7143#section-12.1.3(b): what is missing, malformed or wrong fails the login.
        let name = find(pairs, "CHAP_N").ok_or(Failure("CHAP_N is missing"))?;
        let response = find(pairs, "CHAP_R").ok_or(Failure("CHAP_R is missing"))?;
        let response =
            value::decode(response, CHALLENGE_LEN_MAX).ok_or(Failure("CHAP_R is no binary value"))?;
        let Challenge { id, bytes } = &self.with.challenge;
        let account = self.with.accounts.iter().find(|account| account.initiator.name == name);
        let right =
            |account: &&Account| same(&algorithm.respond(*id, &account.initiator.secret, bytes), &response);
        //= rfc7143#section-12.1.3(a): the secret opens.
        let account = account.filter(right).ok_or(Failure("an unknown user or a wrong secret"))?;
        self.prove(account, algorithm, pairs, answer)?;
        Ok(State::Done)
    }

    /// Answers the initiator's own challenge.
    fn prove(
        &self,
        account: &Account,
        algorithm: Algorithm,
        pairs: &Pairs,
        answer: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let (id, challenge) = match (find(pairs, "CHAP_I"), find(pairs, "CHAP_C")) {
            (Some(id), Some(challenge)) => (parse_id(id)?, challenge),
            (None, None) if self.with.requirement == Requirement::Mutual => {
                return Err(Failure("the initiator did not ask for mutual CHAP"));
            }
            (None, None) => return Ok(()),
            _ => return Err(Failure("CHAP_I and CHAP_C belong together")),
        };
        let challenge =
            value::decode(challenge, CHALLENGE_LEN_MAX).ok_or(Failure("CHAP_C is no binary value"))?;
        //= rfc7143#section-9.2.1(a): a responder MUST check that its own challenge does not come back.
        if same(&challenge, &self.with.challenge.bytes) {
            return Err(Failure("the target's own challenge was reflected"));
        }
        let own = account.target.as_ref().ok_or(Failure("the account has no secret of the target"))?;
        emit(answer, "CHAP_N", &own.name);
        emit(answer, "CHAP_R", &value::encode_hex(&algorithm.respond(id, &own.secret, &challenge)));
        Ok(())
    }
}

/// True for the keys that are answered here.
pub(crate) fn is_key(key: &str) -> bool {
    key == "AuthMethod" || key.starts_with("CHAP_")
}
