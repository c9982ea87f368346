//! What a leg does with a fence and with commands of each generation (R10).

use bdev::FenceKey;

use crate::format::Superblock;
use crate::mutation::{Mutation, is_broken};

/// Answer to a request to fence a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FenceVerdict {
    /// Store this fence durably, abort the commands of everybody else, wait until all that was submitted has
    /// ended, then answer GOOD.
    Raise(FenceKey),
    /// The same node asks for the same generation again, on a new session: the wait is the same, and the
    /// superblock is written all the same, so that its number tells this session from the one before.
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
    let former = |key: FenceKey| key.node == stands.node && is_broken(Mutation::R11OldSessionsWrite);
    let lets_in = session == Some(stands) || session.is_some_and(former);
    if lets_in { Ok(()) } else { Err(bdev::IoError::Fenced) }
}

/// What is left of a session's key when a fence is taken up: nothing. Also in the same generation only one session is
/// the holder's: what an older one still has on the wire must not land after what the new one sends (R11).
pub fn after_fence(session: Option<FenceKey>) -> Option<FenceKey> {
    session.filter(|_| is_broken(Mutation::R11OldSessionsWrite))
}

/// Whether a fence may be stored, and whoever asked be let in: everything that was submitted to the leg under an older
/// one has ended. It cannot be recalled (R10).
pub fn is_drained(in_flight: u32) -> bool {
    in_flight == 0 || is_broken(Mutation::R10FenceUndrained)
}

/// The generation that a node takes next, knowing its own superblock and perhaps the peer's: above everything
/// that either leg has seen, so that no session of a crashed incarnation can pass for the new one (R11).
pub fn next_generation(own: &Superblock, peer: Option<&Superblock>) -> u64 {
    let seen = |superblock: &Superblock| superblock.config().generation().max(superblock.fence.generation);
    seen(own).max(peer.map_or(0, seen)) + 1
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

    #[test]
    fn the_next_generation_is_above_all_that_was_seen() {
        use crate::format::{LegIndex, tests::example_create};
        let mut own = example_create(LegIndex::Zero).founder(1);
        let mut peer = own.clone();
        assert_eq!(next_generation(&own, None), 2);
        peer.fence.generation = 9;
        assert_eq!(next_generation(&own, Some(&peer)), 10);
        own.fence.generation = 12;
        assert_eq!(next_generation(&own, Some(&peer)), 13);
        assert_eq!(own.config().raised_to(13).generation(), 13);
        assert_eq!(own.config().raised_to(0).generation(), 1);
    }

    fn keys() -> impl Iterator<Item = FenceKey> {
        (0..2).flat_map(|node| (3..6).map(move |generation| FenceKey { node, generation }))
    }
}
