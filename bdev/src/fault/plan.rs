//! What shall go wrong: shared between a device's channels and its controller.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::core::time::Duration;

use crate::request::Op;

/// Which operations a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultTarget {
    /// Reads.
    Read,
    /// Writes and zeroing.
    Write,
    /// Flushes.
    Flush,
    /// Discards.
    Discard,
}

impl FaultTarget {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Flush, Self::Discard];

    pub(super) fn of(op: &Op) -> Option<Self> {
        match op {
            Op::Read { .. } => Some(Self::Read),
            Op::Write { .. } | Op::WriteZeroes { .. } | Op::CompareAndWrite { .. } => Some(Self::Write),
            Op::Flush => Some(Self::Flush),
            Op::Discard { .. } => Some(Self::Discard),
            Op::Fence { .. }
            | Op::StoreState { .. }
            | Op::LoadState { .. }
            | Op::HandOver
            | Op::CryptoErase
            | Op::BlockStatus { .. } => None,
        }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails with a medium error at its first block.
    Error,
    /// The operation is refused as busy.
    Busy,
    /// The operation is not answered until the fault is cleared.
    Silence,
    /// A write is answered as good and not done. Another operation is done.
    Lost,
    /// The first half of a write (in whole blocks, at least none) is done, and it is answered as good.
    Torn,
    /// One byte of the data is another on its way.
    Corrupt {
        /// Which byte of the operation's data; none beyond its end.
        offset: u32,
        /// What it becomes.
        value: u8,
    },
}

/// How much longer operations take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// Ninety-nine in a hundred.
    pub usual: Duration,
    /// One in a hundred.
    pub tail: Duration,
}

/// Faults armed on a device; clones share them.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    shared: Arc<Mutex<Armed>>,
}

#[derive(Debug, Default)]
struct Armed {
    faults: BTreeMap<FaultTarget, (Fault, u32)>,
    delays: BTreeMap<FaultTarget, Delay>,
    delayed: u64,
}

impl FaultPlan {
    fn armed(&self) -> MutexGuard<'_, Armed> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next `count` operations of the kind go wrong; [`u32::MAX`] is without end.
    pub fn arm(&self, target: FaultTarget, fault: Fault, count: u32) {
        if count == 0 {
            self.clear(target);
        } else {
            self.armed().faults.insert(target, (fault, count));
        }
    }

    /// Nothing of the kind goes wrong any more; silent operations are carried out.
    pub fn clear(&self, target: FaultTarget) {
        self.armed().faults.remove(&target);
    }

    /// What is armed for the kind, and for how many operations.
    pub fn get(&self, target: FaultTarget) -> Option<(Fault, u32)> {
        self.armed().faults.get(&target).copied()
    }

    /// Operations of the kind take this much longer.
    pub fn set_latency(&self, target: FaultTarget, latency: Duration) {
        self.set_delay(target, Delay { usual: latency, tail: latency });
    }

    /// Operations of the kind take longer, one in a hundred longest.
    pub fn set_delay(&self, target: FaultTarget, delay: Delay) {
        self.armed().delays.insert(target, delay);
    }

    /// How much longer operations of the kind take.
    pub fn delay(&self, target: FaultTarget) -> Delay {
        self.armed().delays.get(&target).copied().unwrap_or_default()
    }

    /// The fault that strikes this operation.
    pub(super) fn draw(&self, target: FaultTarget) -> Option<Fault> {
        let mut armed = self.armed();
        let (fault, count) = armed.faults.get_mut(&target)?;
        let drawn = *fault;
        // Silence lasts until it is cleared: the count bounds nothing that an operator could wait for.
        if drawn != Fault::Silence && *count != u32::MAX {
            *count -= 1;
            if *count == 0 {
                armed.faults.remove(&target);
            }
        }
        Some(drawn)
    }

    /// How much longer this operation takes.
    pub(super) fn draw_delay(&self, target: FaultTarget) -> Duration {
        let mut armed = self.armed();
        let Some(delay) = armed.delays.get(&target).copied() else { return Duration::ZERO };
        armed.delayed += 1;
        if armed.delayed.is_multiple_of(100) { delay.tail } else { delay.usual }
    }

    pub(super) fn is_silent(&self, target: FaultTarget) -> bool {
        matches!(self.armed().faults.get(&target), Some((Fault::Silence, _)))
    }
}
