//! What all paths to a logical unit share on this node, whichever targets and LUN numbers they go through.
//!
//! Owner: the target's reactor. A unit is as old as the first LUN that shows its device, and ends with the last.

use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use bdev::{Bdev, IoError};
use engine::{Core, Instant, Progress};
use iscsi::TaskId;
use scsi::Sense;
use scsi::identifying::Identifying;
use scsi::kept::Kept;
use scsi::mode::Modes;
use scsi::reservation::{Capabilities, Change, Demand, Nexus, PowerLoss, Refusal, Table};
use scsi::task_set::TaskSet;
use uuid::Uuid;

use super::keeper::{Keeper, Outcome};
use super::state::{Ranges, Span};
use super::tokens::Watched;

/// A change of what a unit keeps.
#[derive(Clone, Debug)]
pub(super) enum Alteration {
    /// PERSISTENT RESERVE OUT.
    Reservations(Change),
    /// MODE SELECT.
    Modes(Modes),
    /// SET IDENTIFYING INFORMATION.
    Identifying(Identifying),
}

impl Alteration {
    /// Puts it in force.
    fn apply(&self, kept: &mut Kept) {
        match self {
            Self::Reservations(change) => kept.reservations = change.next.clone(),
            Self::Modes(modes) => kept.modes = *modes,
            Self::Identifying(identifying) => kept.identifying = identifying.clone(),
        }
    }

    /// What every other nexus is told.
    pub(super) fn attention(&self) -> Option<Sense> {
        match self {
            Self::Reservations(_) => None,
            Self::Modes(_) => Some(Sense::MODE_CHANGED),
            Self::Identifying(_) => Some(Sense::IDENTIFIER_CHANGED),
        }
    }
}

/// Whether a reset changed what is kept, so that it has to be stored again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    Yes,
    Stale,
}

/// A change under way.
#[derive(Debug)]
enum Changing {
    /// Nobody is at it.
    No,
    /// A session computes a change.
    Claimed,
    /// The change is on its way to where it is kept, for a task of a connection.
    Storing { by: u64, task: TaskId, change: Box<Alteration> },
}

/// What became of a unit.
pub(super) enum News {
    /// A change is in force, or failed.
    Changed(Changed),
    /// This node serves it from now on, with what is kept of it: for a host that is a reset.
    TakenUp,
    /// This node does not serve it any more.
    GivenUp,
    /// This node serves it, and what is kept of it cannot be read: nobody may use it.
    Unreadable,
}

/// A change that is in force, or failed.
pub(super) struct Changed {
    pub(super) by: u64,
    pub(super) task: TaskId,
    pub(super) outcome: Result<Box<Alteration>, IoError>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct LogicalUnit {
    kept: RefCell<Kept>,
    stored: Cell<Stored>,
    changing: RefCell<Changing>,
    keeper: RefCell<Keeper>,
    /// Blocks that commands are at, through whichever path they came.
    pub(super) ranges: RefCell<Ranges>,
    /// Commands of all nexuses: TST is zero.
    pub(super) tasks: RefCell<TaskSet>,
    /// Blocks that tokens stand for.
    watched: RefCell<Vec<Weak<Watched>>>,
}

impl LogicalUnit {
    fn new(bdev: Arc<dyn Bdev>) -> Self {
        Self {
            kept: RefCell::default(),
            stored: Cell::new(Stored::Yes),
            changing: RefCell::new(Changing::No),
            keeper: RefCell::new(Keeper::new(bdev)),
            ranges: RefCell::default(),
            tasks: RefCell::default(),
            watched: RefCell::default(),
        }
    }

    /// Whether the table in force is the unit's.
    pub(super) fn is_ready(&self) -> bool {
        self.keeper.borrow().is_known()
    }

    /// Whether nobody may use it, because what is kept of it cannot be read.
    pub(super) fn is_unreadable(&self) -> bool {
        self.keeper.borrow().is_unreadable()
    }

    /// Gives up what is kept of it and cannot be read; false when that can be read.
    pub(super) fn give_up_record(&self) -> bool {
        self.keeper.borrow_mut().give_up_record()
    }

    /// The epoch in which this node serves, if it does.
    pub(super) fn epoch(&self) -> Option<u64> {
        self.keeper.borrow().epoch()
    }

    /// Has a token told when its blocks change.
    pub(super) fn watch(&self, watched: &Rc<Watched>) {
        let mut all = self.watched.borrow_mut();
        all.retain(|other| other.strong_count() > 0);
        all.push(Rc::downgrade(watched));
    }

    /// Blocks are about to be changed.
    pub(super) fn on_change(&self, changed: Span) {
        let watched = self.watched.borrow();
        watched.iter().filter_map(Weak::upgrade).for_each(|watched| watched.on_change(changed));
    }

    /// What the device can do for reservations.
    pub(super) fn capabilities(&self) -> Capabilities {
        let keeps = self.keeper.borrow().keeps();
        Capabilities { power_loss: if keeps { PowerLoss::Persists } else { PowerLoss::Forgets } }
    }

    /// What is in force.
    pub(super) fn kept(&self) -> Ref<'_, Kept> {
        self.kept.borrow()
    }

    /// The reservations in force.
    pub(super) fn reservations(&self) -> Ref<'_, Table> {
        Ref::map(self.kept.borrow(), |kept| &kept.reservations)
    }

    /// The mode parameters, in force and saved.
    pub(super) fn modes(&self) -> Modes {
        self.kept.borrow().modes
    }

    /// The mode parameters in force.
    pub(super) fn settings(&self) -> scsi::mode::Settings {
        self.modes().current
    }

    /// The unit was reset: the older reservation goes, saved mode parameters are in force again.
    pub(super) fn reset(&self) {
        let mut kept = self.kept.borrow_mut();
        kept.reservations.reset();
        let modes = kept.modes.reset();
        if std::mem::replace(&mut kept.modes, modes) != modes {
            self.stored.set(Stored::Stale);
        }
    }

    /// Whether a nexus's command may go on.
    ///
    /// # Errors
    /// The reservation conflict.
    pub(super) fn admit(&self, nexus: &Nexus, demand: Demand) -> Result<(), Refusal> {
        self.kept.borrow().reservations.admit(nexus, demand)
    }

    /// Changes the older reservation, which is not kept.
    pub(super) fn change_older<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        change(&mut self.kept.borrow_mut().reservations)
    }

    /// Keeps others from changing what is kept; false when somebody is at it already.
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
    pub(super) fn change(&self, by: u64, task: TaskId, change: Box<Alteration>) {
        let mut next = self.kept.borrow().clone();
        change.apply(&mut next);
        if self.keeper.borrow().keeps() && next != *self.kept.borrow() {
            self.keeper.borrow_mut().store(next);
        }
        *self.changing.borrow_mut() = Changing::Storing { by, task, change };
    }

    fn end_change(&self, result: Result<(), IoError>) -> Option<Changed> {
        match self.changing.replace(Changing::No) {
            Changing::Storing { by, task, change } => {
                let outcome = result.map(|()| change);
                if let Ok(change) = &outcome {
                    change.apply(&mut self.kept.borrow_mut());
                }
                Some(Changed { by, task, outcome })
            }
            other => {
                *self.changing.borrow_mut() = other;
                None
            }
        }
    }

    /// What a reset changed is stored, too, when nothing else is.
    fn store_again(&self) {
        let idle = matches!(*self.changing.borrow(), Changing::No) && !self.keeper.borrow().is_storing();
        if self.stored.get() == Stored::Stale && idle && self.is_ready() {
            self.stored.set(Stored::Yes);
            if self.keeper.borrow().keeps() {
                self.keeper.borrow_mut().store(self.kept.borrow().clone());
            }
        }
    }

    fn poll(&self, core: &Core, now: Instant) -> (Progress, Option<News>) {
        let unkept =
            matches!(*self.changing.borrow(), Changing::Storing { .. }) && !self.keeper.borrow().is_storing();
        if unkept {
            return (Progress::Busy, self.end_change(Ok(())).map(News::Changed));
        }
        if self.keeper.borrow_mut().has_ended() {
            return (Progress::Busy, Some(News::GivenUp));
        }
        self.store_again();
        let (progress, kept) = self.keeper.borrow_mut().poll(core, now);
        let news = match kept {
            None => None,
            Some(Outcome::Stored(result)) => {
                if result.is_err() {
                    self.stored.set(Stored::Stale);
                }
                self.end_change(result).map(News::Changed)
            }
            Some(Outcome::Unreadable) => Some(News::Unreadable),
            Some(Outcome::Loaded(kept)) => {
                *self.kept.borrow_mut() = kept;
                self.stored.set(Stored::Yes);
                Some(News::TakenUp)
            }
        };
        (progress, news)
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

    /// One turn: what became of which units.
    pub(super) fn poll(&self, core: &Core, now: Instant) -> (Progress, Vec<(Rc<LogicalUnit>, News)>) {
        let (mut progress, mut all) = (Progress::Idle, Vec::new());
        for unit in self.0.values().filter_map(Weak::upgrade) {
            let (moved, news) = unit.poll(core, now);
            progress |= moved;
            all.extend(news.map(|news| (unit, news)));
        }
        (progress, all)
    }

    /// When to poll next at the latest.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let units = self.0.values().filter_map(Weak::upgrade);
        units.filter_map(|unit| unit.keeper.borrow().next_deadline()).min()
    }
}
