//! One rule broken on purpose: the proof that a test would notice (feature `mutations`).
//!
//! Owner: tests. Each variant is asked for at one place, where that rule is decided. Without the feature the answer is a
//! constant `false`; a build without debug assertions refuses the feature, so that no production binary can carry it.
//! The switch belongs to the thread: simulated nodes share it, tests that run beside each other do not.

#[cfg(all(feature = "mutations", not(debug_assertions)))]
compile_error!("the feature `mutations` is for tests: a build without debug assertions refuses it");

/// A rule of `mirror.md` or of SPC-4, and how it is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutation {
    /// R1: data go out before the transaction that holds their extent is durable.
    R1DataBeforeLog,
    /// R2: overlapping writes do not wait for each other.
    R2WritesOverlap,
    /// R3: a write that a leg in sync has failed is acknowledged without a config.
    R3AckWithoutConfig,
    /// R4: an extent leaves the log while its last writes are in a volatile cache.
    R4LeaveUnflushed,
    /// R5: marks are cleared before the copy is written.
    R5ClearBeforeCopy,
    /// R5: a copy and a write do not wait for each other.
    R5CopyUnlocked,
    /// R6: an extent leaves the log before its out-of-sync marks are durable.
    R6LeaveUnmarked,
    /// R7: a write of part of a stale granule goes to both legs and clears its mark.
    R7PartClears,
    /// R8: a config that leaves a leg out takes effect without the arbiter.
    R8ActFirst,
    /// R8: the superblock comes first, and the arbiter last.
    R8ArbiterLast,
    /// R8: a config takes effect before a superblock says so.
    R8ActBeforeSuperblock,
    /// R8: a leg that comes back hears that it counts before the holder's own superblock says so.
    R8TargetFirst,
    /// R9: a superblock overwrites the copy that counts.
    R9SameSlot,
    /// R10: a fence does not wait for what was submitted before it.
    R10FenceUndrained,
    /// R11: sessions of a node's former incarnations write on beside the newest one.
    R11OldSessionsWrite,
    /// R11: a restart goes on in the generation of the crashed incarnation.
    R11RestartKeepsGeneration,
    /// R12: an array is marked clean with its last writes in volatile caches.
    R12CleanUnflushed,
    /// A config counts one leg alone while acknowledged writes that two legs had are in that one's cache.
    LastCopyUnflushed,
    /// A degrade does not mark what the leg that is out may not have.
    DegradeWithoutMarks,
    /// A rejoin forgets what the target's own log and bitmap say.
    RejoinWithoutUnion,
    /// A promoted node serves while the read lease that it granted lasts.
    LeaseNotWaitedOut,
    /// A holder reads without a lease.
    ReadWithoutLease,
    /// A leg whose node lost its cache counts as if it had not.
    CacheLossUnseen,
    /// A leg that was set back counts as the one that it was.
    RevertUnseen,
    /// A promotion by force takes configs for its history that have its leg out.
    ForceTakesAll,
    /// A leg that is being copied to serves where the arbiter counts it.
    MixtureServes,
    /// A leg that has diverged is taken for one that is behind, and overwritten without the operator's word.
    SplitUnseen,
    /// A record of the logical unit that cannot be read is taken for an empty one.
    LossUnseen,
    /// An arbiter that is older than the peer's fence on the own leg is believed.
    FenceUnheard,
    /// I17: a change of the logical unit's record is answered when the own leg has it.
    StateOnOneLeg,
    /// PREEMPT AND ABORT is answered with the commands of the preempted nexus going on.
    PreemptWithoutAbort,
}

impl Mutation {
    /// All.
    pub const ALL: [Self; 31] = [
        Self::R1DataBeforeLog,
        Self::R2WritesOverlap,
        Self::R3AckWithoutConfig,
        Self::R4LeaveUnflushed,
        Self::R5ClearBeforeCopy,
        Self::R5CopyUnlocked,
        Self::R6LeaveUnmarked,
        Self::R7PartClears,
        Self::R8ActFirst,
        Self::R8ArbiterLast,
        Self::R8ActBeforeSuperblock,
        Self::R8TargetFirst,
        Self::R9SameSlot,
        Self::R10FenceUndrained,
        Self::R11OldSessionsWrite,
        Self::R11RestartKeepsGeneration,
        Self::R12CleanUnflushed,
        Self::LastCopyUnflushed,
        Self::DegradeWithoutMarks,
        Self::RejoinWithoutUnion,
        Self::LeaseNotWaitedOut,
        Self::ReadWithoutLease,
        Self::CacheLossUnseen,
        Self::RevertUnseen,
        Self::ForceTakesAll,
        Self::MixtureServes,
        Self::SplitUnseen,
        Self::LossUnseen,
        Self::FenceUnheard,
        Self::StateOnOneLeg,
        Self::PreemptWithoutAbort,
    ];
}

/// True while the rule is broken on this thread.
#[cfg(feature = "mutations")]
pub fn is_broken(rule: Mutation) -> bool {
    switch::BROKEN.with(|broken| broken.get() == Some(rule))
}

/// No rule is ever broken in a build without the feature.
#[cfg(not(feature = "mutations"))]
pub const fn is_broken(_: Mutation) -> bool {
    false
}

#[cfg(feature = "mutations")]
mod switch {
    use core::cell::Cell;
    use core::marker::PhantomData;

    use super::Mutation;

    thread_local! {
        pub(super) static BROKEN: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    /// Breaks one rule on this thread for as long as it lives.
    #[derive(Debug)]
    #[must_use = "the rule is broken while this lives"]
    pub struct Broken(PhantomData<*const ()>);

    impl Broken {
        /// Breaks a rule; `None` breaks none.
        ///
        /// # Panics
        /// When one is broken on this thread already.
        pub fn rule(rule: impl Into<Option<Mutation>>) -> Self {
            let before = BROKEN.with(|broken| broken.replace(rule.into()));
            assert_eq!(before, None, "one rule at a time");
            Self(PhantomData)
        }
    }

    impl Drop for Broken {
        fn drop(&mut self) {
            BROKEN.with(|broken| broken.set(None));
        }
    }
}

#[cfg(feature = "mutations")]
pub use switch::Broken;
