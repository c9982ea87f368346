//! What a failed write or flush of a leg means for the array.
//!
//! Reads are another matter: a read that fails is read from the other leg and rewritten.

use bdev::IoError;
use core::time::Duration;
use engine::Instant;

use crate::format::{ArbiterKind, Config, LegIndex, LegMask, Reason};
use crate::mutation::{Mutation, is_broken};

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureVerdict {
    /// A newer generation holds the leg: stop the front end, acknowledge nothing, become standby. Never a
    /// degrade.
    StepDown,
    /// Nothing is wrong with the leg: send it again, until its deadline.
    Retry,
    /// The leg is not in sync: stop copying to it. The config and the front end do not notice (I14).
    StopResync(Reason),
    /// Take the leg out: arbiter first, own superblock second, marks, then release what waits (R3, R8).
    Degrade(Reason),
    /// Ask the arbiter for the same, and freeze until it answers.
    AskArbiter(Reason),
    /// Freeze I/O with an alarm until the operator decides.
    Freeze(Reason),
    /// The last leg in sync: the error goes to the host, the volume stays.
    Report,
}

/// Decides on a write or flush of `leg` that failed with `error` under `config`.
pub fn on_write_failure(
    arbiter: ArbiterKind,
    config: &Config,
    leg: LegIndex,
    error: IoError,
) -> FailureVerdict {
    let reason = match error {
        IoError::Fenced => return FailureVerdict::StepDown,
        IoError::Busy | IoError::NotReady(_) | IoError::Aborted => return FailureVerdict::Retry,
        IoError::LinkDown => Reason::LinkLost,
        IoError::TimedOut => Reason::TimedOut,
        IoError::Medium { .. }
        | IoError::Os(_)
        | IoError::OutOfRange
        | IoError::Unsupported
        | IoError::ReadOnly
        | IoError::NoSpace
        | IoError::Protocol
        | IoError::Miscompare { .. } => Reason::IoError,
    };
    if !config.in_sync.has(leg) {
        return FailureVerdict::StopResync(reason);
    }
    if config.in_sync == LegMask::only(leg) {
        return FailureVerdict::Report;
    }
    match arbiter {
        ArbiterKind::Biased => FailureVerdict::Degrade(reason),
        ArbiterKind::ClusterManager | ArbiterKind::Etcd => FailureVerdict::AskArbiter(reason),
        ArbiterKind::Manual => FailureVerdict::Freeze(reason),
    }
}

/// Whether the peer's guard has locked a holder out for a reason that it does not know yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Doubt {
    /// No.
    None,
    /// A session that was not fenced for it yet, or a newer generation: the peer's superblock will tell.
    Fenced,
}

/// Whether a holder may make a config without a leg, by itself or by the operator's command. One that is locked out may
/// have been followed by somebody already, and does not go on alone; only an arbiter knows, and says no then (R8).
pub const fn may_exclude(arbiter: ArbiterKind, doubt: Doubt) -> bool {
    match (doubt, arbiter) {
        (Doubt::None, _) | (Doubt::Fenced, ArbiterKind::Etcd) => true,
        (Doubt::Fenced, ArbiterKind::Biased | ArbiterKind::Manual | ArbiterKind::ClusterManager) => false,
    }
}

/// What the failure means for the request that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The leg does not count.
    Irrelevant,
    /// It waits for a config without the leg, or for the leg (R3).
    Wait,
    /// Nothing is wrong with the own leg: it is asked again in a moment.
    Again,
    /// The host gets the error.
    Report,
}

/// Whether a request that failed may wait any longer for a leg without which it cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It may.
    Left,
    /// It has waited as long as hosts may be kept waiting.
    Over,
}

impl Patience {
    /// What is left `stall` after the first failure.
    pub fn since(first: Instant, stall: Duration, now: Instant) -> Self {
        if now < first + stall { Self::Left } else { Self::Over }
    }
}

/// True for a failure that says nothing about the peer's medium: it may be reached again in a moment.
pub const fn is_passing(error: IoError) -> bool {
    matches!(
        error,
        IoError::LinkDown
            | IoError::TimedOut
            | IoError::Fenced
            | IoError::NotReady(_)
            | IoError::Busy
            | IoError::Aborted
    )
}

/// The error as it counts: the own leg that stays busy for too long has failed.
pub const fn matured(own: LegIndex, leg: LegIndex, error: IoError, patience: Patience) -> IoError {
    match (error, patience) {
        (IoError::Busy | IoError::NotReady(_) | IoError::Aborted, Patience::Over)
            if leg as u8 == own as u8 =>
        {
            IoError::TimedOut
        }
        _ => error,
    }
}

/// Judges a write or flush that `leg` failed, for the holder whose own leg is `own`.
pub fn judge(
    arbiter: ArbiterKind,
    config: &Config,
    own: LegIndex,
    leg: LegIndex,
    error: IoError,
    patience: Patience,
) -> Judgement {
    let error = matured(own, leg, error, patience);
    let last = config.in_sync == LegMask::only(leg);
    if last && leg != own && is_passing(error) {
        return if patience == Patience::Left { Judgement::Wait } else { Judgement::Report };
    }
    match on_write_failure(arbiter, config, leg, error) {
        FailureVerdict::Report => Judgement::Report,
        FailureVerdict::StopResync(_) => Judgement::Irrelevant,
        FailureVerdict::Retry if leg == own && config.in_sync.has(leg) => Judgement::Again,
        FailureVerdict::StepDown | FailureVerdict::Retry if !config.in_sync.has(leg) => Judgement::Irrelevant,
        _ if is_broken(Mutation::R3AckWithoutConfig) => Judgement::Irrelevant,
        FailureVerdict::StepDown
        | FailureVerdict::Retry
        | FailureVerdict::Degrade(_)
        | FailureVerdict::AskArbiter(_)
        | FailureVerdict::Freeze(_) => Judgement::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bdev::NotReady;

    const ERRORS: [(IoError, Option<Reason>); 13] = [
        (IoError::Fenced, None),
        (IoError::Busy, None),
        (IoError::NotReady(NotReady::Standby), None),
        (IoError::Aborted, None),
        (IoError::LinkDown, Some(Reason::LinkLost)),
        (IoError::TimedOut, Some(Reason::TimedOut)),
        (IoError::Medium { lba: 7 }, Some(Reason::IoError)),
        (IoError::Os(5), Some(Reason::IoError)),
        (IoError::OutOfRange, Some(Reason::IoError)),
        (IoError::Unsupported, Some(Reason::IoError)),
        (IoError::ReadOnly, Some(Reason::IoError)),
        (IoError::NoSpace, Some(Reason::IoError)),
        (IoError::Protocol, Some(Reason::IoError)),
    ];

    /// A cluster manager's word may be older than the lock, and so may an operator's.
    #[test]
    fn who_is_locked_out_goes_on_alone_by_an_arbiters_word_only() {
        for arbiter in
            [ArbiterKind::Biased, ArbiterKind::Manual, ArbiterKind::ClusterManager, ArbiterKind::Etcd]
        {
            assert!(may_exclude(arbiter, Doubt::None));
            assert_eq!(may_exclude(arbiter, Doubt::Fenced), arbiter == ArbiterKind::Etcd);
        }
    }

    #[test]
    fn every_error_on_every_leg_under_every_policy() {
        for in_sync in [LegMask::ZERO, LegMask::ONE, LegMask::both()] {
            let config = Config::first(1, LegIndex::Zero, in_sync);
            for arbiter in
                [ArbiterKind::Biased, ArbiterKind::Manual, ArbiterKind::ClusterManager, ArbiterKind::Etcd]
            {
                for leg in LegIndex::BOTH {
                    for (error, reason) in ERRORS {
                        check(arbiter, &config, leg, error, reason);
                    }
                }
            }
        }
    }

    fn check(arbiter: ArbiterKind, config: &Config, leg: LegIndex, error: IoError, reason: Option<Reason>) {
        let verdict = on_write_failure(arbiter, config, leg, error);
        let Some(reason) = reason else {
            let wanted =
                if error == IoError::Fenced { FailureVerdict::StepDown } else { FailureVerdict::Retry };
            return assert_eq!(verdict, wanted, "{error:?} never changes a config");
        };
        let wanted = match (config.in_sync.has(leg), config.in_sync == LegMask::both(), arbiter) {
            (false, ..) => FailureVerdict::StopResync(reason),
            (true, false, _) => FailureVerdict::Report,
            (true, true, ArbiterKind::Biased) => FailureVerdict::Degrade(reason),
            (true, true, ArbiterKind::Manual) => FailureVerdict::Freeze(reason),
            (true, true, _) => FailureVerdict::AskArbiter(reason),
        };
        assert_eq!(verdict, wanted, "{arbiter:?} {config:?} {leg:?} {error:?}");
    }

    /// R3: with both legs in sync nothing but a config, or the leg's return, ends the wait.
    #[test]
    fn a_failure_of_a_leg_that_counts_waits_for_a_config() {
        let arbiters =
            [ArbiterKind::Biased, ArbiterKind::Manual, ArbiterKind::ClusterManager, ArbiterKind::Etcd];
        for (arbiter, (error, _)) in arbiters.into_iter().flat_map(|a| ERRORS.map(|error| (a, error))) {
            for leg in LegIndex::BOTH {
                let on = |in_sync, patience| {
                    let config = Config::first(1, LegIndex::Zero, in_sync);
                    judge(arbiter, &config, LegIndex::Zero, leg, error, patience)
                };
                let own = leg == LegIndex::Zero;
                let again = own && matches!(error, IoError::Busy | IoError::NotReady(_) | IoError::Aborted);
                for patience in [Patience::Left, Patience::Over] {
                    let left = patience == Patience::Left;
                    let both = if again && left { Judgement::Again } else { Judgement::Wait };
                    assert_eq!(on(LegMask::both(), patience), both, "{error:?}");
                    let other = on(LegMask::only(leg.other()), patience);
                    assert_eq!(other, Judgement::Irrelevant, "{error:?}");
                    // The last leg: what may pass is waited for, for a time; what has failed is the host's to know.
                    let last = match (own, is_passing(error), left) {
                        (true, ..) if again && left => Judgement::Again,
                        (false, true, true) => Judgement::Wait,
                        (true, ..) if error == IoError::Fenced => Judgement::Wait,
                        _ => Judgement::Report,
                    };
                    assert_eq!(on(LegMask::only(leg), patience), last, "{error:?} {leg:?} {patience:?}");
                }
            }
        }
    }
}
