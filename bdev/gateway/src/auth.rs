//! Which CHAP a target asks for, as SPDK configures it.

use std::rc::Rc;

use iscsi::chap::{Account, Algorithm, CHALLENGE_LEN, Challenge, Proving, Requirement};

/// Whether CHAP is asked for, and who may log in with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthPolicy {
    /// Whether it is asked for.
    pub requirement: Requirement,
    /// Tag of the authentication group; zero for none.
    pub group: i32,
}

/// Who may log in, and by which hashes.
#[derive(Clone, Debug)]
pub struct AuthGroup {
    /// The users.
    pub users: Rc<[User]>,
    /// The hashes of CHAP that will do.
    pub algorithms: Rc<[Algorithm]>,
}

impl AuthGroup {
    /// A group of users that takes these hashes.
    pub fn new(users: Vec<User>, algorithms: &[Algorithm]) -> Self {
        Self { users: users.into(), algorithms: algorithms.into() }
    }
}

impl From<Vec<User>> for AuthGroup {
    fn from(users: Vec<User>) -> Self {
        Self::new(users, &Algorithm::ALL)
    }
}

/// A user of an authentication group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// What proves him.
    pub account: Account,
    /// Names of the initiators that he may be; of any, where there are none.
    pub initiators: Vec<String>,
}

impl User {
    /// CHAP_N.
    pub fn name(&self) -> &str {
        &self.account.initiator.name
    }

    /// Whether his secret is good for an initiator of this name.
    pub(crate) fn may_be(&self, initiator: &str) -> bool {
        self.initiators.is_empty() || self.initiators.iter().any(|name| name.eq_ignore_ascii_case(initiator))
    }
}

impl From<Account> for User {
    /// One who may be any initiator.
    fn from(account: Account) -> Self {
        Self { account, initiators: Vec::new() }
    }
}

/// How an initiator proves itself with an account.
///
/// # Errors
/// The system has no random source.
pub(crate) fn proving(account: Account, algorithms: Vec<Algorithm>) -> Result<Proving, getrandom::Error> {
    Ok(Proving { account, challenge: challenge()?, algorithms })
}

/// Random bytes that nobody can guess.
///
/// # Errors
/// The system has no random source.
pub(crate) fn secret<const LEN: usize>() -> Result<[u8; LEN], getrandom::Error> {
    let mut random = [0; LEN];
    getrandom::fill(&mut random)?;
    Ok(random)
}

/// A fresh challenge.
///
/// # Errors
/// The system has no random source.
pub(crate) fn challenge() -> Result<Challenge, getrandom::Error> {
    let mut random = [0; CHALLENGE_LEN + 1];
    getrandom::fill(&mut random)?;
    let [id, bytes @ ..] = random;
    Ok(Challenge { id, bytes })
}
