//! When data may go to an extent (R1), and when an extent may leave the log (R4, R6), as decisions over facts.

use thiserror::Error;

use crate::mutation::{Mutation, is_broken};

/// What the disk says of an extent's place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// The transaction that names it is durable.
    Durable,
    /// It is not, or not yet.
    Unwritten,
}

/// R1: data go to an extent, on any leg, only once the transaction that names it is durable.
pub fn may_send(entry: Entry) -> bool {
    entry == Entry::Durable || is_broken(Mutation::R1DataBeforeLog)
}

/// Writes of an extent that have not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Writes {
    /// None.
    Ended,
    /// At least one.
    Pending,
}

/// Where the extent's last writes are on the legs in sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheState {
    /// On stable storage: written so, without a volatile cache below, or flushed since.
    Stable,
    /// Perhaps in a volatile cache.
    Volatile,
}

/// The bitmap pages of the extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Marks {
    /// Every out-of-sync bit that is set in memory is set on disk.
    Durable,
    /// A bit was set since the page was last written.
    Unwritten,
}

/// All that R4 asks about an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExtentFacts {
    /// Pending writes.
    pub writes: Writes,
    /// Caches.
    pub cache: CacheState,
    /// Bitmap pages.
    pub marks: Marks,
}

/// Why an extent stays in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Held {
    /// A write is pending.
    #[error("a write is pending")]
    Busy,
    /// The legs have to be flushed first.
    #[error("the legs were not flushed since the last write")]
    Unflushed,
    /// Bitmap pages have to be written first.
    #[error("its out-of-sync marks are not on disk")]
    Unmarked,
}

/// R4: an extent leaves the log only when no write is pending on it, the legs were flushed since its last
/// write, and its out-of-sync pages are durable.
///
/// # Errors
/// The first reason why it stays.
pub fn may_leave(facts: ExtentFacts) -> Result<(), Held> {
    let ExtentFacts { writes, cache, marks } = facts;
    if writes == Writes::Pending {
        Err(Held::Busy)
    } else if cache == CacheState::Volatile && !is_broken(Mutation::R4LeaveUnflushed) {
        Err(Held::Unflushed)
    } else if marks == Marks::Unwritten && !is_broken(Mutation::R6LeaveUnmarked) {
        Err(Held::Unmarked)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_eight_combinations_lets_go() {
        let mut free = 0;
        for writes in [Writes::Ended, Writes::Pending] {
            for cache in [CacheState::Stable, CacheState::Volatile] {
                for marks in [Marks::Durable, Marks::Unwritten] {
                    let verdict = may_leave(ExtentFacts { writes, cache, marks });
                    let wanted = if writes == Writes::Pending {
                        Err(Held::Busy)
                    } else if cache == CacheState::Volatile {
                        Err(Held::Unflushed)
                    } else if marks == Marks::Unwritten {
                        Err(Held::Unmarked)
                    } else {
                        free += 1;
                        Ok(())
                    };
                    assert_eq!(verdict, wanted);
                }
            }
        }
        assert_eq!(free, 1);
    }
}
