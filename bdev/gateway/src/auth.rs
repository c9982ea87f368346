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
    /// The accounts.
    pub accounts: Rc<[Account]>,
    /// The hashes of CHAP that will do.
    pub algorithms: Rc<[Algorithm]>,
}

impl AuthGroup {
    /// A group of accounts that takes these hashes.
    pub fn new(accounts: Vec<Account>, algorithms: &[Algorithm]) -> Self {
        Self { accounts: accounts.into(), algorithms: algorithms.into() }
    }
}

impl From<Vec<Account>> for AuthGroup {
    fn from(accounts: Vec<Account>) -> Self {
        Self::new(accounts, &Algorithm::ALL)
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
