//! What both legs are told: the config with its history, the legs' records, the run state, the fence.

use bdev::FenceKey;

use crate::format::{Config, History, LegIndex, LegRecord, RunState, Superblock};

/// What the holder says about the array: the same on both legs.
#[derive(Clone, Debug)]
pub(crate) struct Truth {
    pub(crate) history: History,
    pub(crate) legs: [LegRecord; 2],
    pub(crate) run_state: RunState,
    /// The generation that both legs accept, this node's.
    pub(crate) fence: u64,
}

impl Truth {
    pub(super) fn of(superblock: &Superblock) -> Self {
        let Superblock { history, legs, run_state, fence, .. } = superblock;
        Self { history: *history, legs: *legs, run_state: *run_state, fence: fence.generation }
    }

    pub(crate) fn config(&self) -> &Config {
        self.history.current()
    }

    /// A leg's superblock that says so.
    pub(super) fn on(&self, base: &Superblock, who: LegIndex) -> Superblock {
        let mut next = base.clone();
        (next.history, next.legs, next.run_state) = (self.history, self.legs, self.run_state);
        next.fence = next.fence.max_generation(who, self.fence);
        next
    }
}

trait MaxGeneration {
    fn max_generation(self, who: LegIndex, generation: u64) -> Self;
}

impl MaxGeneration for FenceKey {
    /// A fence never falls.
    fn max_generation(self, who: LegIndex, generation: u64) -> Self {
        if generation > self.generation { Self { node: who.number(), generation } } else { self }
    }
}
