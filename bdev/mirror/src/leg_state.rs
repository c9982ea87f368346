//! How a leg's recorded state changes (`mirror.md`, leg states). The config is the authority on who is in
//! sync; the state tells people, and a later start, why.

use crate::format::{LegState, Reason};

/// What happens to a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LegEvent {
    /// Its node formatted it.
    Formatted,
    /// The holder begins to bring it in sync.
    SyncBegun,
    /// A config counts it in sync.
    SyncDone,
    /// It cannot be reached.
    Lost,
    /// It reports errors.
    Failed,
    /// A config was made without it, or it was seen again after one.
    Excluded,
    /// Its history is not ours.
    Diverged,
}

impl LegEvent {
    /// All.
    pub const ALL: [Self; 7] = [
        Self::Formatted,
        Self::SyncBegun,
        Self::SyncDone,
        Self::Lost,
        Self::Failed,
        Self::Excluded,
        Self::Diverged,
    ];

    /// What a config without the leg, made for this reason, is to the leg.
    pub const fn of_exclusion(reason: Reason) -> Self {
        match reason {
            Reason::IoError | Reason::BadRanges => Self::Failed,
            Reason::LinkLost | Reason::TimedOut | Reason::StartedDegraded => Self::Lost,
            Reason::Created
            | Reason::Restarted
            | Reason::Removed
            | Reason::Rejoined
            | Reason::Promoted
            | Reason::ForcePromoted
            | Reason::SwitchedOver
            | Reason::TakenOver
            | Reason::SplitResolved => Self::Excluded,
        }
    }
}

/// The state after an event; the same state where the event does not concern it.
pub const fn after(state: LegState, event: LegEvent) -> LegState {
    use LegState as S;
    match (state, event) {
        // A place that nobody took stays so until a leg is formatted for it.
        (S::Spare, LegEvent::Formatted) => S::Joining,
        (S::Spare, LegEvent::Lost | LegEvent::Failed | LegEvent::Excluded) => S::Spare,
        // Whatever was there before, these say what is there now.
        (_, LegEvent::SyncBegun) => S::Syncing,
        (_, LegEvent::Diverged) => S::Split,
        (_, LegEvent::SyncDone) => S::InSync,
        (S::Joining | S::Syncing, LegEvent::Failed) => S::Faulty,
        // A copy that was cut off leaves a mixture; so does one whose leg went away.
        (S::Syncing, LegEvent::Lost | LegEvent::Excluded) => S::Stale,
        (S::InSync | S::Missing | S::Stale | S::Faulty, LegEvent::Lost) => S::Missing,
        (S::InSync | S::Missing | S::Stale | S::Faulty, LegEvent::Failed) => S::Faulty,
        (S::InSync | S::Missing | S::Stale | S::Faulty, LegEvent::Excluded) => S::Stale,
        // Only the operator ends a split: with a new leg, or with his word that this one may be overwritten.
        (S::Split | S::InSync | S::Missing | S::Stale | S::Faulty | S::Syncing, LegEvent::Formatted) => {
            S::Joining
        }
        (state @ (S::Joining | S::Split), _) => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table, one line for each state, one letter for each event's result.
    const TABLE: &str = "\
Spare   : Joining Syncing InSync Spare Spare Spare Split
Joining : Joining Syncing InSync Joining Faulty Joining Split
Syncing : Joining Syncing InSync Stale Faulty Stale Split
InSync  : Joining Syncing InSync Missing Faulty Stale Split
Missing : Joining Syncing InSync Missing Faulty Stale Split
Faulty  : Joining Syncing InSync Missing Faulty Stale Split
Stale   : Joining Syncing InSync Missing Faulty Stale Split
Split   : Joining Syncing InSync Split Split Split Split
";

    #[test]
    fn the_table_is_as_written() {
        let mut table = String::new();
        for state in LegState::ALL {
            let next = LegEvent::ALL.map(|event| format!("{:?}", after(state, event))).join(" ");
            table += &format!("{:8}: {next}\n", format!("{state:?}"));
        }
        assert_eq!(table, TABLE);
    }

    #[test]
    fn a_mixture_is_never_taken_for_a_state_of_the_past() {
        // `missing` says "what it had when it went", which a half-copied leg does not.
        for event in [LegEvent::Lost, LegEvent::Excluded] {
            assert_eq!(after(LegState::Syncing, event), LegState::Stale);
        }
    }
}
