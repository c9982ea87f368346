//! What the arbiter's config says to a node with this superblock.

use crate::format::{Config, Reason, Superblock};

/// How the node's own superblock stands to what the arbiter holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They agree.
    Current,
    /// The arbiter has gone on: this is what counts.
    Behind(Config),
    /// A new array that the arbiter has not heard of yet.
    Vacant,
    /// The arbiter does not know the array, and should: it has lost its data, or it is another one.
    Unknown,
    /// The arbiter's config is older than one that this superblock has seen: it was restored from a backup.
    Older,
}

/// Decides on what the arbiter holds.
pub fn standing(own: &Superblock, holds: Option<&Config>) -> Standing {
    let ours = own.config();
    match holds {
        None if ours.generation() <= 1 && ours.reason == Reason::Created => Standing::Vacant,
        None => Standing::Unknown,
        Some(config) if config.id == ours.id => Standing::Current,
        Some(config) if config.generation() > ours.generation() => Standing::Behind(*config),
        Some(_) => Standing::Older,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tests::example_create;
    use crate::format::{LegIndex, LegMask};

    #[test]
    fn every_combination_has_one_answer() {
        let mut own = example_create(LegIndex::Zero).founder(1);
        assert_eq!(standing(&own, None), Standing::Vacant);
        assert_eq!(standing(&own, Some(own.config())), Standing::Current);
        let first = *own.config();
        let next = first.successor(7, LegIndex::Zero, LegMask::both(), Reason::Restarted).expect("some left");
        assert_eq!(standing(&own, Some(&next)), Standing::Behind(next));
        own.history.push(next);
        assert_eq!(standing(&own, Some(&first)), Standing::Older);
        assert_eq!(standing(&own, None), Standing::Unknown, "it knew the array once");
        let twin = Config { id: crate::format::ConfigId { nonce: 8, ..next.id }, ..next };
        assert_eq!(standing(&own, Some(&twin)), Standing::Older, "not the one that this superblock has seen");
    }
}
