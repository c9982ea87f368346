//! Decisions of the mirror that need no state: from facts to one answer.
//!
//! Owner: the array core; pure. Each module decides one question, lists its facts as enums, and is tested for
//! every combination of them (`mirror.md`: changes of config, leg states, R8, R10, R11, I10, I11).

pub mod arbitrate;
pub mod entry;
pub mod failure;
pub mod fence;
pub mod lease;
pub mod order;
pub mod peer;
pub mod promote;
pub mod start;
pub mod takeover;
pub mod unite;

pub use arbitrate::{
    Standing, SwapVerdict, asks_arbiter, informed, on_refused_swap, peers_word, seen_by, standing,
};
pub use entry::{Bar, EntryVerdict, SecondLook, is_taking_over, on_found, on_second_look};
pub use failure::{
    Doubt, FailureVerdict, Judgement, Patience, is_passing, judge, matured, may_exclude, on_write_failure,
};
pub use fence::{FenceVerdict, after_fence, is_drained, may_write, next_generation, on_fence};
pub use lease::{Granted, lease_until, may_read, serves_from};
pub use order::{Able, LastCopy, Novelty, Step, Steps, steps};
pub use peer::{FullReason, PeerVerdict, Refusal, SyncPlan, diverged_plan, on_peer};
pub use promote::{
    DataAge, HolderSession, HolderState, PromoteMode, PromoteRefusal, Promotion, begins_from, may_promote,
};
pub use start::{
    DegradedStart, Differences, HoldReason, LegAge, PeerSight, StandbyReason, StartFacts, StartVerdict,
    Starting, misses_acknowledged, on_diverged, on_start, takes_up,
};
pub use takeover::{TakeoverVerdict, on_word};
pub use unite::unite;

#[cfg(test)]
mod tests;
