//! What became of hosts' operations.

use core::iter::Sum;
use core::ops::AddAssign;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answered with GOOD.
    pub good: u64,
    /// Of them, answered by the node that did not serve.
    pub passed_on: u64,
    /// Not.
    pub bad: u64,
    /// Of them, writes that their hosts aborted, and that are known to be over.
    pub aborted: u64,
    /// Commands about reservations that were answered with GOOD.
    pub claims: u64,
    /// Reads and writes that a reservation kept out.
    pub kept_out: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.good += more.good;
        self.passed_on += more.passed_on;
        self.bad += more.bad;
        self.aborted += more.aborted;
        self.claims += more.claims;
        self.kept_out += more.kept_out;
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, next| {
            sum += next;
            sum
        })
    }
}
