//! What a logical unit remembers between commands, the same through every path to it: medium, unit attentions,
//! a sanitize operation, how full its storage was.
//!
//! Owner: the LUN, on the target's reactor.

mod copies;
mod medium;
mod nexus;
mod ranges;
mod sanitize;
mod standing;

use std::cell::{Cell, RefCell};

use scsi::thresholds::Watch;

pub(super) use copies::{Copies, Shared};
pub(super) use medium::Medium;
pub(super) use nexus::{NexusId, Nexuses, Resets};
pub(super) use ranges::{Hold, Mode, Ranges, Span};
pub(super) use sanitize::{Order, Sanitizing};
pub(super) use standing::Standing;

/// See the module.
#[derive(Default)]
pub(super) struct State {
    /// Where the medium is.
    pub(super) medium: Cell<Medium>,
    /// Who talks to the unit, and what each has to be told.
    pub(super) nexuses: RefCell<Nexuses>,
    /// Copies that were asked for here.
    pub(super) copies: RefCell<Copies>,
    /// The sanitize operation.
    pub(super) sanitizing: RefCell<Sanitizing>,
    /// How far the storage is from the thresholds of it.
    pub(super) storage: Cell<Watch>,
}
