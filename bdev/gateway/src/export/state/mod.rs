//! What is remembered between commands: of a LUN, whom it has to tell what, and how full its storage was; the rest is of the logical
//! unit (`export/logical_unit.rs`), the same through every path to it.
//!
//! Owner: the LUN, on the target's reactor.

mod copies;
mod medium;
mod nexus;
mod ranges;
mod sanitize;
mod standing;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use scsi::thresholds::Watch;

pub(super) use copies::{Copies, Shared};
pub(super) use medium::Medium;
pub(super) use nexus::{NexusId, Nexuses, Resets};
pub(super) use ranges::{Hold, Mode, Ranges, Span};
pub(super) use sanitize::{Running, Turn};
pub(super) use standing::{Dormant, Standing};

/// See the module.
#[derive(Default)]
pub(super) struct State {
    /// Who talks to the unit this way, and what each has to be told.
    pub(super) nexuses: Rc<RefCell<Nexuses>>,
    /// How far the storage is from the thresholds of it.
    pub(super) storage: Cell<Watch>,
}
