//! What all paths to a logical unit share on this node, whichever targets and LUN numbers they go through.
//!
//! Owner: the target's reactor. A unit is as old as the first LUN that shows its device, and ends with the last.

use std::cell::{Ref, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use bdev::{Bdev, IoError};
use engine::{Core, Instant, Progress};
use iscsi::TaskId;
use scsi::reservation::{Capabilities, Change, Demand, Nexus, PowerLoss, Refusal, Table};
use uuid::Uuid;

use super::keeper::{Keeper, Kept};

/// A PERSISTENT RESERVE OUT under way.
#[derive(Debug)]
enum Changing {
    /// Nobody is at it.
    No,
    /// A session computes a change.
    Claimed,
    /// The change is on its way to where it is kept, for a task of a connection.
    Storing { by: u64, task: TaskId, change: Change },
}

/// A change that is in force, or failed.
pub(super) struct Changed {
    pub(super) by: u64,
    pub(super) task: TaskId,
    pub(super) outcome: Result<Change, IoError>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct LogicalUnit {
    reservations: RefCell<Table>,
    changing: RefCell<Changing>,
    keeper: RefCell<Keeper>,
}

impl LogicalUnit {
    fn new(bdev: Arc<dyn Bdev>) -> Self {
        Self {
            reservations: RefCell::default(),
            changing: RefCell::new(Changing::No),
            keeper: RefCell::new(Keeper::new(bdev)),
        }
    }

    /// Whether the table in force is the unit's.
    pub(super) fn is_ready(&self) -> bool {
        self.keeper.borrow().is_known()
    }

    /// What the device can do for reservations.
    pub(super) fn capabilities(&self) -> Capabilities {
        let keeps = self.keeper.borrow().keeps();
        Capabilities { power_loss: if keeps { PowerLoss::Persists } else { PowerLoss::Forgets } }
    }

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

    /// Changes the older reservation, which is not kept.
    pub(super) fn change_older<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        change(&mut self.reservations.borrow_mut())
    }

    /// Keeps others from changing the table; false when somebody is at it already.
    pub(super) fn begin_change(&self) -> bool {
        let free = self.is_ready() && matches!(*self.changing.borrow(), Changing::No);
        if free {
            *self.changing.borrow_mut() = Changing::Claimed;
        }
        free
    }

    /// Nothing changes after all.
    pub(super) fn give_up_change(&self) {
        *self.changing.borrow_mut() = Changing::No;
    }

    /// Puts a change in force, once it is kept where the device can: then [`LogicalUnit::poll`] says so.
    pub(super) fn change(&self, by: u64, task: TaskId, change: Change) {
        if self.keeper.borrow().keeps() && change.next != *self.reservations.borrow() {
            self.keeper.borrow_mut().store(change.next.clone());
        }
        *self.changing.borrow_mut() = Changing::Storing { by, task, change };
    }

    fn end_change(&self, result: Result<(), IoError>) -> Option<Changed> {
        match self.changing.replace(Changing::No) {
            Changing::Storing { by, task, change } => {
                let outcome = result.map(|()| change);
                if let Ok(change) = &outcome {
                    *self.reservations.borrow_mut() = change.next.clone();
                }
                Some(Changed { by, task, outcome })
            }
            other => {
                *self.changing.borrow_mut() = other;
                None
            }
        }
    }

    fn poll(&self, core: &Core, now: Instant) -> (Progress, Option<Changed>) {
        let unkept =
            matches!(*self.changing.borrow(), Changing::Storing { .. }) && !self.keeper.borrow().is_storing();
        if unkept {
            return (Progress::Busy, self.end_change(Ok(())));
        }
        let (progress, kept) = self.keeper.borrow_mut().poll(core, now);
        let changed = match kept {
            None => None,
            Some(Kept::Stored(result)) => self.end_change(result),
            Some(Kept::Loaded(table)) => {
                *self.reservations.borrow_mut() = table;
                None
            }
        };
        (progress, changed)
    }
}

/// The units that are shown.
#[derive(Debug, Default)]
pub(super) struct LogicalUnits(BTreeMap<Uuid, Weak<LogicalUnit>>);

impl LogicalUnits {
    /// The unit of a device.
    pub(super) fn of(&mut self, bdev: &Arc<dyn Bdev>) -> Rc<LogicalUnit> {
        self.0.retain(|_, unit| unit.strong_count() > 0);
        if let Some(unit) = self.0.get(&bdev.uuid()).and_then(Weak::upgrade) {
            return unit;
        }
        let unit = Rc::new(LogicalUnit::new(bdev.clone()));
        self.0.insert(bdev.uuid(), Rc::downgrade(&unit));
        unit
    }

    /// One turn: the changes that are in force from now on, with their units.
    pub(super) fn poll(&self, core: &Core, now: Instant) -> (Progress, Vec<(Rc<LogicalUnit>, Changed)>) {
        let (mut progress, mut all) = (Progress::Idle, Vec::new());
        for unit in self.0.values().filter_map(Weak::upgrade) {
            let (moved, changed) = unit.poll(core, now);
            progress |= moved;
            all.extend(changed.map(|changed| (unit, changed)));
        }
        (progress, all)
    }

    /// When to poll next at the latest.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let units = self.0.values().filter_map(Weak::upgrade);
        units.filter_map(|unit| unit.keeper.borrow().next_deadline()).min()
    }
}
