//! Decisions of the mirror that need no state: from facts to one answer.
//!
//! Owner: the array core; pure. Each module decides one question, lists its facts as enums, and is tested for
//! every combination of them (`mirror.md`: changes of config, leg states, R8, R10, R11, I10, I11).

pub mod arbitrate;
pub mod failure;
pub mod fence;
pub mod peer;
pub mod promote;
pub mod start;

pub use arbitrate::{Standing, standing};
pub use failure::{FailureVerdict, on_write_failure};
pub use fence::{FenceVerdict, may_write, next_generation, on_fence};
pub use peer::{FullReason, PeerVerdict, Refusal, SyncPlan, on_peer};
pub use promote::{DataAge, HolderSession, HolderState, PromoteMode, PromoteRefusal, Promotion, may_promote};
pub use start::{
    DegradedStart, Differences, HoldReason, PeerSight, StandbyReason, StartFacts, StartVerdict, Starting,
    on_start,
};

#[cfg(test)]
mod tests;
