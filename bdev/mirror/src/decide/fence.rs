//! What a leg does with a fence and with commands of each generation (R10).

use bdev::FenceKey;

/// Answer to a request to fence a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FenceVerdict {
    /// Store this fence durably, abort the commands of everybody else, wait until all that was submitted has ended, then
    /// answer GOOD.
    Raise(FenceKey),
    /// The same node asks for the same generation again, on a new session: nothing to store, but the wait is the same.
    Again,
    /// An older generation, or another node in the same one: refuse.
    Refuse {
        /// The fence that stands.
        stands: FenceKey,
    },
}

/// Decides on a fence. A generation belongs to the node that came first.
pub fn on_fence(stands: FenceKey, asked: FenceKey) -> FenceVerdict {
    if asked.generation > stands.generation {
        FenceVerdict::Raise(asked)
    } else if asked == stands {
        FenceVerdict::Again
    } else {
        FenceVerdict::Refuse { stands }
    }
}

/// Whether a session with this key may change the leg: only the one that the fence lets in.
pub fn may_write(stands: FenceKey, session: Option<FenceKey>) -> Result<(), bdev::IoError> {
    if session == Some(stands) { Ok(()) } else { Err(bdev::IoError::Fenced) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_has_one_answer() {
        for stands in keys() {
            for asked in keys() {
                let wanted = match asked.generation.cmp(&stands.generation) {
                    core::cmp::Ordering::Greater => FenceVerdict::Raise(asked),
                    core::cmp::Ordering::Equal if asked.node == stands.node => FenceVerdict::Again,
                    _ => FenceVerdict::Refuse { stands },
                };
                assert_eq!(on_fence(stands, asked), wanted);
                assert_eq!(may_write(stands, Some(asked)).is_ok(), stands == asked);
            }
            assert_eq!(may_write(stands, None), Err(bdev::IoError::Fenced));
        }
    }

    fn keys() -> impl Iterator<Item = FenceKey> {
        (0..2).flat_map(|node| (3..6).map(move |generation| FenceKey { node, generation }))
    }
}
