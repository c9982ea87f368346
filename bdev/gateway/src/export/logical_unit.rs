//! What all paths to a logical unit share on this node, whichever targets and LUN numbers they go through.
//!
//! Owner: the target's reactor. A unit is as old as the first LUN that shows its device, and ends with the last.

use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use scsi::reservation::{Demand, Nexus, Refusal, Table};
use uuid::Uuid;

/// Whether a change of the reservation table is on its way to where it must be durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Changing {
    #[default]
    No,
    Yes,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct LogicalUnit {
    reservations: RefCell<Table>,
    changing: Cell<Changing>,
}

impl LogicalUnit {
    /// The table in force.
    pub(super) fn reservations(&self) -> Ref<'_, Table> {
        self.reservations.borrow()
    }

    /// Whether a nexus's command may go on.
    ///
    /// # Errors
    /// The reservation conflict.
    pub(super) fn admit(&self, nexus: &Nexus, demand: Demand) -> Result<(), Refusal> {
        self.reservations.borrow().admit(nexus, demand)
    }

    /// Changes the older reservation, which is not durable.
    pub(super) fn change_older<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        change(&mut self.reservations.borrow_mut())
    }

    /// Keeps others from changing the table; false when somebody is at it already.
    pub(super) fn begin_change(&self) -> bool {
        self.changing.replace(Changing::Yes) == Changing::No
    }

    /// Lets the next one at it, with another table in force or the same as before.
    pub(super) fn end_change(&self, next: Option<Table>) {
        self.changing.set(Changing::No);
        if let Some(next) = next {
            *self.reservations.borrow_mut() = next;
        }
    }
}

/// The units that are shown.
#[derive(Debug, Default)]
pub(super) struct LogicalUnits(BTreeMap<Uuid, Weak<LogicalUnit>>);

impl LogicalUnits {
    /// The unit of a device.
    pub(super) fn of(&mut self, device: Uuid) -> Rc<LogicalUnit> {
        self.0.retain(|_, unit| unit.strong_count() > 0);
        if let Some(unit) = self.0.get(&device).and_then(Weak::upgrade) {
            return unit;
        }
        let unit = Rc::new(LogicalUnit::default());
        self.0.insert(device, Rc::downgrade(&unit));
        unit
    }
}
