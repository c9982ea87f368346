//! What is known of copies: for RECEIVE COPY STATUS and RECEIVE ROD TOKEN INFORMATION, by nexus and list identifier.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use scsi::Sense;
use scsi::copy::{CopyState, CopyStatus};

use super::super::crowd::oldest_of_most;
use super::NexusId;

/// Copies that are remembered; those that have ended go, the oldest of the nexus that has the most.
const KEPT_MAX: usize = 64;

/// A copy's status, shared with whoever carries it out.
pub(in crate::export) type Shared = Rc<RefCell<CopyStatus>>;

/// See the module.
#[derive(Debug, Default)]
pub(in crate::export) struct Copies {
    known: VecDeque<(NexusId, u32, Shared)>,
}

impl Copies {
    /// Remembers a copy, in place of an earlier one with its identifier.
    ///
    /// # Errors
    /// That one goes on still, or as many as are remembered do.
    pub(in crate::export) fn keep(&mut self, nexus: NexusId, list: u32, status: Shared) -> Result<(), Sense> {
        if self.find(nexus, list).is_some_and(|known| known.borrow().state.is_in_progress()) {
            return Err(Sense::OPERATION_IN_PROGRESS);
        }
        self.known.retain(|(of, id, _)| (*of, *id) != (nexus, list));
        if self.known.len() == KEPT_MAX {
            let ended = |entry: &&(NexusId, u32, Shared)| !entry.2.borrow().state.is_in_progress();
            let known = self.known.iter().enumerate();
            let owners = known.filter(|(_, entry)| ended(entry)).map(|(at, (of, ..))| (at, *of));
            let spare = oldest_of_most(owners).ok_or(Sense::OPERATION_IN_PROGRESS)?;
            self.known.remove(spare);
        }
        self.known.push_back((nexus, list, status));
        Ok(())
    }

    fn find(&self, nexus: NexusId, list: u32) -> Option<&Shared> {
        self.known.iter().find(|(of, id, _)| (*of, *id) == (nexus, list)).map(|(.., status)| status)
    }

    /// How far a copy is, or how it ended.
    pub(in crate::export) fn status(&self, nexus: NexusId, list: u32) -> Option<CopyStatus> {
        self.find(nexus, list).map(|status| status.borrow().clone())
    }

    /// COPY OPERATION ABORT: one that goes on ends before its next I/O. False when there is no such copy.
    pub(in crate::export) fn terminate(&self, nexus: NexusId, list: u32) -> bool {
        let Some(status) = self.find(nexus, list) else { return false };
        let mut status = status.borrow_mut();
        if status.state.is_in_progress() {
            status.state = CopyState::Terminated;
        }
        true
    }

    /// A nexus is gone, and nobody can ask for its copies.
    pub(in crate::export) fn forget(&mut self, nexus: NexusId) {
        self.known.retain(|(of, ..)| *of != nexus);
    }

    /// The logical unit was reset.
    pub(in crate::export) fn clear(&mut self) {
        self.known.clear();
    }
}
