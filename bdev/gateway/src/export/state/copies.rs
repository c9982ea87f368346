//! What is known of copies: for RECEIVE COPY RESULTS, by nexus and list identifier.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use scsi::copy::CopyStatus;

use super::NexusId;

/// Copies that are remembered; the oldest go.
const KEPT_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(in crate::export) struct Copies {
    known: VecDeque<(NexusId, u8, Rc<Cell<CopyStatus>>)>,
}

impl Copies {
    /// Remembers a copy, in place of an earlier one with its identifier.
    pub(in crate::export) fn keep(&mut self, nexus: NexusId, list: u8, status: Rc<Cell<CopyStatus>>) {
        self.known.retain(|(of, id, _)| (*of, *id) != (nexus, list));
        if self.known.len() == KEPT_MAX {
            self.known.pop_front();
        }
        self.known.push_back((nexus, list, status));
    }

    /// How far a copy is, or how it ended.
    pub(in crate::export) fn status(&self, nexus: NexusId, list: u8) -> Option<CopyStatus> {
        self.known.iter().find(|(of, id, _)| (*of, *id) == (nexus, list)).map(|(_, _, status)| status.get())
    }
}
