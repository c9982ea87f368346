//! I_T nexuses of a LUN: unit attentions that wait for each.
//!
//! A nexus is here from its login, or from its first command at a unit that was added later, until its session is gone.

use std::collections::{BTreeMap, VecDeque};

use scsi::Sense;

/// The target's number of a session.
pub(in crate::export) type NexusId = u64;

/// Attentions that wait for one nexus at the most; the oldest go.
const ATTENTIONS_MAX: usize = 16;
/// Additional sense code of resets and losses of a nexus.
const RESETS: u16 = 0x29;

#[derive(Debug, Default)]
struct Nexus {
    attentions: VecDeque<Sense>,
    resets: Resets,
}

/// Resets and losses of a nexus so far: a command that saw fewer was there before the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::export) struct Resets {
    count: u64,
    last: Option<Sense>,
}

impl Resets {
    /// What ended the commands that had seen these, if anything has since.
    pub(in crate::export) fn since(self, seen: Self) -> Option<Sense> {
        self.last.filter(|_| self.count > seen.count)
    }
}

fn is_reset(sense: Sense) -> bool {
    sense.asc_ascq >> 8 == RESETS
}

/// What a reset says as well. Whatever else waits stays true behind one: another way, another capacity, a registration that is gone.
fn is_covered_by_reset(sense: Sense) -> bool {
    is_reset(sense)
        || [
            Sense::COMMANDS_CLEARED,
            Sense::COMMANDS_CLEARED_BY_PROTOCOL,
            Sense::MODE_CHANGED,
            Sense::LOG_CHANGED,
        ]
        .contains(&sense)
}

/// See the module.
#[derive(Debug, Default)]
pub(in crate::export) struct Nexuses {
    known: BTreeMap<NexusId, Nexus>,
}

impl Nexuses {
    /// A nexus that begins, with what it is told first. That is no reset for the commands that are to come.
    pub(in crate::export) fn enter(&mut self, nexus: NexusId, greeting: Option<Sense>) {
        self.known.entry(nexus).or_default().attentions.extend(greeting);
    }

    /// A nexus that is gone.
    pub(in crate::export) fn leave(&mut self, nexus: NexusId) {
        self.known.remove(&nexus);
    }

    /// Establishes a unit attention for one nexus; one that waits already is not repeated. A reset or a loss of the nexus is told first,
    /// and clears what it covers (SAM-5 section 5.14).
    pub(in crate::export) fn tell(&mut self, nexus: NexusId, sense: Sense) {
        let Nexus { attentions, resets, .. } = self.known.entry(nexus).or_default();
        if is_reset(sense) {
            attentions.retain(|waiting| !is_covered_by_reset(*waiting));
            attentions.push_front(sense);
            *resets = Resets { count: resets.count + 1, last: Some(sense) };
        }
        if attentions.contains(&sense) {
            return;
        }
        if attentions.len() == ATTENTIONS_MAX {
            attentions.pop_front();
        }
        attentions.push_back(sense);
    }

    /// Establishes a unit attention for every nexus.
    pub(in crate::export) fn tell_all(&mut self, sense: Sense) {
        let all: Vec<NexusId> = self.known.keys().copied().collect();
        for nexus in all {
            self.tell(nexus, sense);
        }
    }

    /// Establishes a unit attention for every nexus but one.
    pub(in crate::export) fn tell_others(&mut self, but: NexusId, sense: Sense) {
        let others: Vec<NexusId> = self.known.keys().copied().filter(|nexus| *nexus != but).collect();
        for nexus in others {
            self.tell(nexus, sense);
        }
    }

    /// A unit attention that a nexus knows of by other means.
    pub(in crate::export) fn clear(&mut self, nexus: NexusId, sense: Sense) {
        if let Some(nexus) = self.known.get_mut(&nexus) {
            nexus.attentions.retain(|waiting| *waiting != sense);
        }
    }

    /// The oldest unit attention of a nexus, which is then told.
    pub(in crate::export) fn take(&mut self, nexus: NexusId) -> Option<Sense> {
        self.known.entry(nexus).or_default().attentions.pop_front()
    }

    /// The resets that a nexus has seen.
    pub(in crate::export) fn resets(&self, nexus: NexusId) -> Resets {
        self.known.get(&nexus).map_or_else(Resets::default, |nexus| nexus.resets)
    }

    /// A command that was there before a reset tells of it: no other one has to.
    pub(in crate::export) fn take_reset(&mut self, nexus: NexusId) {
        let Some(Nexus { attentions, .. }) = self.known.get_mut(&nexus) else { return };
        if attentions.front().is_some_and(|sense| is_reset(*sense)) {
            attentions.pop_front();
        }
    }

    /// True while one waits for a nexus.
    pub(in crate::export) fn is_pending(&self, nexus: NexusId) -> bool {
        self.known.get(&nexus).is_some_and(|nexus| !nexus.attentions.is_empty())
    }

    /// What QUERY ASYNCHRONOUS EVENT tells of those that wait for a nexus (SAM-5 section 7.10): whether there is more than one, and
    /// sense key, code and qualifier of the next.
    pub(in crate::export) fn next_event(&self, nexus: NexusId) -> Option<[u8; 3]> {
        let attentions = &self.known.get(&nexus)?.attentions;
        let (next, depth) = (attentions.front()?, if attentions.len() > 1 { 2 } else { 1 });
        let [code, qualifier] = next.asc_ascq.to_be_bytes();
        Some([depth << 4 | next.key as u8, code, qualifier])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_knows_whether_it_was_there_before_a_reset() {
        let mut nexuses = Nexuses::default();
        nexuses.enter(1, None);
        let before = nexuses.resets(1);
        nexuses.tell(1, Sense::MODE_CHANGED);
        assert_eq!(nexuses.resets(1).since(before), None);
        nexuses.tell(1, Sense::INTERNAL_RESET);
        let after = nexuses.resets(1);
        assert_eq!((after.since(before), after.since(after)), (Some(Sense::INTERNAL_RESET), None));
        nexuses.take_reset(1);
        assert_eq!(nexuses.take(1), None, "told by the command");
        nexuses.tell(1, Sense::MODE_CHANGED);
        nexuses.take_reset(1);
        assert_eq!(nexuses.take(1), Some(Sense::MODE_CHANGED), "no reset");
    }

    #[test]
    fn each_nexus_is_told_once() {
        let mut nexuses = Nexuses::default();
        nexuses.enter(1, None);
        nexuses.enter(2, None);
        nexuses.tell_others(1, Sense::MODE_CHANGED);
        nexuses.tell_others(1, Sense::MODE_CHANGED);
        assert_eq!(
            (nexuses.take(1), nexuses.take(2), nexuses.take(2)),
            (None, Some(Sense::MODE_CHANGED), None)
        );
        for sense in [Sense::MODE_CHANGED, Sense::LUN_RESET, Sense::CAPACITY_CHANGED] {
            nexuses.tell(1, sense);
        }
        assert!(nexuses.is_pending(1) && !nexuses.is_pending(2));
        assert_eq!(
            (nexuses.take(1), nexuses.take(1), nexuses.take(1)),
            (Some(Sense::LUN_RESET), Some(Sense::CAPACITY_CHANGED), None)
        );
    }

    /// A way that changed before the unit was reset: the reset does not say which way is the good one now.
    #[test]
    fn a_reset_hides_no_change_that_it_does_not_tell() {
        let mut nexuses = Nexuses::default();
        nexuses.enter(1, Some(Sense::POWER_ON));
        for sense in
            [Sense::ACCESS_STATE_CHANGED, Sense::MODE_CHANGED, Sense::NEXUS_LOSS, Sense::INTERNAL_RESET]
        {
            nexuses.tell(1, sense);
        }
        let told = [0; 3].map(|_| nexuses.take(1));
        assert_eq!(told, [Some(Sense::INTERNAL_RESET), Some(Sense::ACCESS_STATE_CHANGED), None]);
    }
}
