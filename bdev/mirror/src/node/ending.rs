//! The end of a node that is told to stop: what is on its way to its own leg ends, then the leg is flushed (R12), whatever the
//! node was about to be. Writes of an earlier process may be in the leg's cache, and the power may go next.
//!
//! ```text
//! Draining --(nothing on its way to the own leg)--> Flushing --(answered)--> Stopped
//! ```

use bdev::IoError;

use super::{Node, Role};
use crate::desk::{Purpose, Side};
use crate::events::EventKind;

/// How far the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// I/Os on the own leg come to their end; the peer's are refused from now on.
    Draining,
    /// The own leg is flushed.
    Flushing,
}

impl Node {
    /// Begins to end.
    pub(super) fn end(&mut self) {
        self.role = Role::Ending(Last::Draining);
    }

    pub(super) fn drive_end(&mut self) {
        let quiet = self.desk.in_flight(Side::Own) == 0 && self.own_write.is_none();
        if quiet && matches!(self.role, Role::Ending(Last::Draining)) {
            self.role = Role::Ending(Last::Flushing);
            self.desk.flush(Side::Own, Purpose::LastFlush);
        }
    }

    /// A flush that failed has been reported; a node that is to stop does.
    pub(super) fn on_last_flush(&mut self, result: Result<(), IoError>) {
        if let Err(error) = result {
            self.note(EventKind::OwnLegFailed(error));
        }
        self.stopped();
    }
}
