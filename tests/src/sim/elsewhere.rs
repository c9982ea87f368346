//! Broken rules that the simulator is not asked for.

use mirror::mutation::Mutation;

/// Rules that no early seed shows. A leg that counts alone unflushed takes a power cut in a few milliseconds of one config:
/// plans that are made for it show that. Whole nodes are safe from the former sessions of a node twice: a login with the same name and
/// ISID ends the old session (RFC 7143, session reinstatement) before the new one can fence. `bdev/mirror/tests/model` breaks
/// the second guard alone, and sees it; so it does every wrong order of R8's steps, a half-copied leg that serves, and an arbiter that is believed
/// although it is older than the peer's fence.
pub const SHOWN_ELSEWHERE: [Mutation; 7] = [
    Mutation::R8ArbiterLast,
    Mutation::R8ActBeforeSuperblock,
    Mutation::R8TargetFirst,
    Mutation::R11OldSessionsWrite,
    Mutation::LastCopyUnflushed,
    Mutation::MixtureServes,
    Mutation::FenceUnheard,
];
