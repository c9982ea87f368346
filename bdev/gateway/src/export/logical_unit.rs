//! What all paths to a logical unit share on this node, whichever targets and LUN numbers they go through.
//!
//! Owner: the target's reactor. A unit is as old as the first LUN that shows its device, and ends with the last.

use std::cell::{Cell, Ref, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use bdev::{Bdev, IoError, Op};
use engine::{Core, Instant, Progress};
use iscsi::TaskId;
use scsi::identifying::Identifying;
use scsi::kept::Kept;
use scsi::mode::Modes;
use scsi::reservation::{Capabilities, Change, Demand, Nexus, PowerLoss, Refusal, Table};
use scsi::sanitization::Sanitization;
use scsi::task_set::TaskSet;
use scsi::{Removal, Sense};
use uuid::Uuid;

use super::keeper::{Keeper, Outcome};
use super::lun::{LunOptions, LunProvisioning};
use super::sanitizing::Sanitizing;
use super::state::{Copies, Medium, NexusId, Nexuses, Ranges, Span};
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
    /// SANITIZE, and what becomes of it.
    Sanitization(Option<Sanitization>),
}

/// Everything fits beside the data but the pattern of a sanitize operation, while which nothing else changes.
const _: () = assert!(Kept::RECORD_MAX - Sanitization::RECORD_MAX <= Op::STATE_MAX);

impl Alteration {
    /// Puts it in force.
    fn apply(&self, kept: &mut Kept) {
        match self {
            Self::Reservations(change) => kept.reservations = change.next.clone(),
            Self::Modes(modes) => kept.modes = *modes,
            Self::Identifying(identifying) => kept.identifying = identifying.clone(),
            Self::Sanitization(sanitization) => kept.sanitization.clone_from(sanitization),
        }
    }

    /// What every other nexus is told.
    pub(super) fn attention(&self) -> Option<Sense> {
        match self {
            Self::Reservations(_) | Self::Sanitization(_) => None,
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
    /// The change is on its way to where it is kept.
    Storing { by: Option<Asker>, change: Box<Alteration> },
}

/// The session that wants a change, and its task; nobody where the unit changes by itself.
pub(super) type Asker = (u64, TaskId);

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
    pub(super) by: Option<Asker>,
    pub(super) outcome: Result<Box<Alteration>, IoError>,
}

/// See the module.
pub(super) struct LogicalUnit {
    pub(super) bdev: Arc<dyn Bdev>,
    kept: RefCell<Kept>,
    stored: Cell<Stored>,
    changing: RefCell<Changing>,
    keeper: RefCell<Keeper>,
    /// Blocks that commands are at, through whichever path they came.
    pub(super) ranges: RefCell<Ranges>,
    /// Commands of all nexuses: TST is zero.
    pub(super) tasks: RefCell<TaskSet>,
    /// Of each command that waits for others there, whose it is.
    pub(super) dormant: RefCell<Vec<NexusId>>,
    /// Blocks that tokens stand for.
    watched: RefCell<Vec<Weak<Watched>>>,
    /// Where the medium is.
    pub(super) medium: Cell<Medium>,
    /// The nexuses that prevent its removal.
    prevented: RefCell<BTreeSet<NexusId>>,
    /// The target port group that a host chose here last.
    pub(super) chosen: Cell<Option<u16>>,
    /// Copies that were asked for here.
    pub(super) copies: RefCell<Copies>,
    /// The sanitize operation, and the bytes a second that it may write.
    pub(super) sanitizing: RefCell<Sanitizing>,
    pub(super) sanitize_rate: Cell<Option<NonZeroU64>>,
    /// Thick, where one of its LUNs is.
    pub(super) provisioning: Cell<LunProvisioning>,
    /// Who talks to it through which LUN.
    listeners: RefCell<Vec<Weak<RefCell<Nexuses>>>>,
}

impl LogicalUnit {
    fn new(bdev: Arc<dyn Bdev>) -> Self {
        Self {
            kept: RefCell::default(),
            stored: Cell::new(Stored::Yes),
            changing: RefCell::new(Changing::No),
            keeper: RefCell::new(Keeper::new(bdev.clone())),
            bdev,
            ranges: RefCell::default(),
            tasks: RefCell::default(),
            dormant: RefCell::default(),
            watched: RefCell::default(),
            medium: Cell::default(),
            prevented: RefCell::default(),
            chosen: Cell::default(),
            copies: RefCell::default(),
            sanitizing: RefCell::default(),
            sanitize_rate: Cell::default(),
            provisioning: Cell::default(),
            listeners: RefCell::default(),
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

    /// Whether what is kept still fits beside the data after a change; of reservations it always does, see above.
    pub(super) fn has_room_for(&self, change: &Alteration) -> bool {
        let mut next = self.kept.borrow().clone();
        change.apply(&mut next);
        !self.keeper.borrow().keeps() || next.to_record().len() <= Op::STATE_MAX
    }

    /// Nothing changes after all.
    pub(super) fn give_up_change(&self) {
        *self.changing.borrow_mut() = Changing::No;
    }

    /// A LUN shows the unit.
    pub(super) fn listen(&self, nexuses: &Rc<RefCell<Nexuses>>, options: &LunOptions) {
        let mut all = self.listeners.borrow_mut();
        all.retain(|other| other.strong_count() > 0);
        all.push(Rc::downgrade(nexuses));
        if options.sanitize_rate.is_some() {
            self.sanitize_rate.set(options.sanitize_rate);
        }
        if options.provisioning == LunProvisioning::Thick {
            self.provisioning.set(LunProvisioning::Thick);
        }
    }

    /// Establishes a unit attention for every nexus but one, whatever LUN it goes through.
    pub(super) fn tell_others(&self, but: NexusId, sense: Sense) {
        for nexuses in self.listeners.borrow().iter().filter_map(Weak::upgrade) {
            nexuses.borrow_mut().tell_others(but, sense);
        }
    }

    /// What a nexus says of the medium's removal.
    pub(super) fn set_removal(&self, nexus: NexusId, removal: Removal) {
        let mut prevented = self.prevented.borrow_mut();
        match removal {
            Removal::Prevented => prevented.insert(nexus),
            Removal::Allowed => prevented.remove(&nexus),
        };
    }

    /// Removal is prevented as long as one nexus prevents it (SPC-4 section 6.14).
    pub(super) fn removal(&self) -> Removal {
        if self.prevented.borrow().is_empty() { Removal::Allowed } else { Removal::Prevented }
    }

    /// A nexus is gone: what it prevented is allowed, and nobody can ask for its copies.
    pub(super) fn forget_nexus(&self, nexus: NexusId) {
        self.set_removal(nexus, Removal::Allowed);
        self.copies.borrow_mut().forget(nexus);
    }

    /// A reset: nothing is prevented any more, and no copy is known.
    pub(super) fn forget_all(&self) {
        self.prevented.borrow_mut().clear();
        self.copies.borrow_mut().clear();
    }

    /// True while a change is stored that the unit makes by itself.
    pub(super) fn is_recording(&self) -> bool {
        matches!(&*self.changing.borrow(), Changing::Storing { by: None, .. })
    }

    /// Puts a change in force, once it is kept where the device can: then [`LogicalUnit::poll`] says so.
    pub(super) fn change(&self, by: Option<Asker>, change: Box<Alteration>) {
        let mut next = self.kept.borrow().clone();
        change.apply(&mut next);
        if self.keeper.borrow().keeps() && next != *self.kept.borrow() {
            self.keeper.borrow_mut().store(next);
        }
        *self.changing.borrow_mut() = Changing::Storing { by, change };
    }

    fn end_change(&self, result: Result<(), IoError>) -> Option<Changed> {
        match self.changing.replace(Changing::No) {
            Changing::Storing { by, change } => {
                let outcome = result.map(|()| change);
                if let Ok(change) = &outcome {
                    change.apply(&mut self.kept.borrow_mut());
                }
                Some(Changed { by, outcome })
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
                *self.kept.borrow_mut() = *kept;
                self.stored.set(Stored::Yes);
                Some(News::TakenUp)
            }
        };
        (progress, news)
    }
}

/// The units that are shown.
#[derive(Default)]
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
            progress |= moved | unit.poll_sanitize(core, now);
            all.extend(news.map(|news| (unit, news)));
        }
        (progress, all)
    }

    /// When to poll next at the latest.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let units = self.0.values().filter_map(Weak::upgrade);
        let next = |unit: Rc<LogicalUnit>| {
            Instant::earliest(unit.keeper.borrow().next_deadline(), unit.sanitize_deadline())
        };
        units.filter_map(next).min()
    }
}
