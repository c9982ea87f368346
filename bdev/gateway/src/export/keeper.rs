//! Keeps a unit's record (`scsi::kept`) beside its data, where the device can: loads it when this node begins to serve, stores
//! each change before it is in force.
//!
//! ```text
//! unknown --(this node serves)--> loading --> known --(change)--> storing --> known
//!    ^                                |                              |
//!    '-----(failed, or served by the other node meanwhile)-----------'
//!
//! loading --(it cannot be read)--> unreadable --(the operator)--> given up --(still not: an empty one is stored)--> known
//!                                    |    ^                          |
//!                        looked at again--'                          |
//!                                    '------------------------------------(it can be read: a leg is back)--> known
//! ```
//!
//! A record that cannot be read is never taken for an empty one: whom it keeps out is unknown, so everybody stays out.

use std::sync::Arc;

use bdev::{
    Access, AccessState, Bdev, Capabilities, Channel, Completed, Completions, Io, IoError, Op, Power, Shared,
    StateFound, StateHealth, Tag,
};
use core::time::Duration;
use engine::{Core, Instant, Progress};
use scsi::kept::Kept;

/// Between attempts that fail.
const RETRY: Duration = Duration::from_millis(20);
/// How often a record that cannot be read is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What is on its way.
#[derive(Debug)]
enum Work {
    Load {
        epoch: u64,
    },
    /// A record on its way to where it is kept, before it is in force.
    Put {
        epoch: u64,
        kept: Box<Kept>,
    },
    Store,
}

/// What is known of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    Unknown,
    /// It was loaded in this epoch, and is in force.
    Known(u64),
    /// In this epoch it could not be read.
    Unreadable(u64),
    /// The same, and the operator gives it up, unless the next look can read it.
    GivenUp(u64),
}

/// What came of the table.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is in force from now on.
    Loaded(Box<Kept>),
    /// The change that was given is durable, or may be.
    Stored(Result<(), IoError>),
    /// There is a record, and nobody knows what it says.
    Unreadable,
}

/// See the module.
pub(super) struct Keeper {
    bdev: Arc<dyn Bdev>,
    channel: Option<Box<dyn Channel>>,
    record: Record,
    work: Option<Work>,
    to_store: Option<Kept>,
    /// What a loss of power left, or the operator's giving up, and in which epoch; to be stored before it is in force.
    to_put: Option<(u64, Box<Kept>)>,
    not_before: Instant,
    done: Completions,
}

impl Keeper {
    pub(super) fn new(bdev: Arc<dyn Bdev>) -> Self {
        Self {
            bdev,
            channel: None,
            record: Record::Unknown,
            work: None,
            to_store: None,
            to_put: None,
            not_before: Instant::EPOCH,
            done: Completions::new(),
        }
    }

    /// Whether the device keeps anything.
    pub(super) fn keeps(&self) -> bool {
        self.bdev.capabilities().contains(Capabilities::UNIT_STATE)
    }

    /// The epoch in which this node serves, if it does.
    pub(super) fn epoch(&self) -> Option<u64> {
        match self.bdev.access() {
            Access::Local => Some(0),
            Access::Shared(Shared { own: AccessState::Optimized, epoch, .. }) => Some(epoch),
            Access::Shared(_) => None,
        }
    }

    /// Whether the table in force is the unit's.
    pub(super) fn is_known(&self) -> bool {
        !self.keeps() || self.epoch().is_some_and(|epoch| self.record == Record::Known(epoch))
    }

    /// Whether this node serves the unit, and cannot read what is kept of it.
    pub(super) fn is_unreadable(&self) -> bool {
        self.epoch().is_some_and(
            |epoch| matches!(self.record, Record::Unreadable(at) | Record::GivenUp(at) if at == epoch),
        )
    }

    /// Stores an empty record in place of one that cannot be read, unless it can be read before that; false when there is none,
    /// or it is given up already.
    pub(super) fn give_up_record(&mut self) -> bool {
        match self.record {
            Record::Unreadable(epoch) if self.epoch() == Some(epoch) => {
                self.record = Record::GivenUp(epoch);
                self.not_before = Instant::EPOCH;
                true
            }
            Record::Unknown | Record::Known(_) | Record::Unreadable(_) | Record::GivenUp(_) => false,
        }
    }

    /// True once after this node has ceased to serve: what was known is the past.
    pub(super) fn has_ended(&mut self) -> bool {
        let ended = self.keeps() && matches!(self.record, Record::Known(_)) && self.epoch().is_none();
        if ended {
            self.record = Record::Unknown;
        }
        ended
    }

    /// True while a table is on its way.
    pub(super) fn is_storing(&self) -> bool {
        self.to_store.is_some() || matches!(self.work, Some(Work::Store))
    }

    /// Stores a table. One at a time.
    pub(super) fn store(&mut self, kept: Kept) {
        debug_assert!(self.to_store.is_none(), "one change at a time");
        self.to_store = Some(kept);
    }

    /// One turn.
    pub(super) fn poll(&mut self, core: &Core, now: Instant) -> (Progress, Option<Outcome>) {
        if !self.keeps() {
            return (Progress::Idle, None);
        }
        if let Some(channel) = &mut self.channel {
            let _: Progress = channel.poll(now, &mut self.done);
        }
        if let Some(completed) = self.done.pop_front() {
            return (Progress::Busy, self.on_done(completed, now));
        }
        if self.work.is_none() && now >= self.not_before {
            return self.begin(core, now);
        }
        (Progress::Idle, None)
    }

    fn begin(&mut self, core: &Core, now: Instant) -> (Progress, Option<Outcome>) {
        if let Some(kept) = self.to_store.take() {
            if !self.is_known() {
                return (
                    Progress::Busy,
                    Some(Outcome::Stored(Err(IoError::NotReady(bdev::NotReady::Moving)))),
                );
            }
            let started = self.submit(core, &kept, now);
            if started {
                self.work = Some(Work::Store);
            } else {
                self.to_store = Some(kept);
            }
            return (Progress::from_count(usize::from(started)), None);
        }
        if let Some((epoch, kept)) = self.to_put.take().filter(|(epoch, _)| Some(*epoch) == self.epoch()) {
            let started = self.submit(core, &kept, now);
            if started {
                self.work = Some(Work::Put { epoch, kept });
            } else {
                self.to_put = Some((epoch, kept));
            }
            return (Progress::from_count(usize::from(started)), None);
        }
        let (Some(epoch), false) = (self.epoch(), self.is_known()) else {
            return (Progress::Idle, None);
        };
        let Some(into) = core.pool().alloc(Op::STATE_MAX) else { return self.later(now) };
        if !self.send(core, Op::LoadState { into, found: StateFound::default() }, now) {
            return self.later(now);
        }
        self.work = Some(Work::Load { epoch });
        (Progress::Busy, None)
    }

    fn later(&mut self, now: Instant) -> (Progress, Option<Outcome>) {
        self.not_before = now + RETRY;
        (Progress::Idle, None)
    }

    fn submit(&mut self, core: &Core, kept: &Kept, now: Instant) -> bool {
        let record = kept.to_record();
        let Some(mut frame) = core.pool().alloc(record.len()) else {
            self.not_before = now + RETRY;
            return false;
        };
        frame.copy_from_slice(&record);
        self.send(core, Op::StoreState { from: frame.freeze() }, now)
    }

    fn send(&mut self, core: &Core, op: Op, now: Instant) -> bool {
        if self.channel.is_none() {
            self.channel = self.bdev.clone().open(core).ok();
        }
        let Some(channel) = &mut self.channel else { return false };
        match channel.submit(Io::new(op, Tag(0), now), now) {
            Ok(()) => true,
            Err(refused) => {
                let why = refused.why;
                drop(refused.io.complete(Err(why), now));
                self.not_before = now + RETRY;
                false
            }
        }
    }

    fn on_done(&mut self, completed: Completed, now: Instant) -> Option<Outcome> {
        let work = self.work.take()?;
        if completed.result.is_err() {
            self.not_before = now + RETRY;
        }
        match (work, completed.op, completed.result) {
            (Work::Store, _, result) => {
                if result.is_err() {
                    // Whatever is there has to be looked at again.
                    self.record = Record::Unknown;
                }
                Some(Outcome::Stored(result))
            }
            (Work::Load { epoch }, Op::LoadState { into, found }, Ok(())) => {
                let record = into.get(..found.len as usize).filter(|_| found.health == StateHealth::Whole);
                match record.map(Kept::from_record) {
                    Some(Ok(kept)) => self.on_loaded(kept, found.power, epoch),
                    Some(Err(_)) | None => self.on_unreadable(epoch, now),
                }
            }
            (Work::Load { .. }, ..) => None,
            (Work::Put { epoch, kept }, _, Ok(())) => {
                self.record = Record::Known(epoch);
                Some(Outcome::Loaded(kept))
            }
            (Work::Put { .. }, _, Err(_)) => None,
        }
    }

    /// It can be read: nothing is given up.
    fn on_loaded(&mut self, kept: Kept, power: Power, epoch: u64) -> Option<Outcome> {
        let left = match power {
            Power::Kept => None,
            Power::Lost => Some(kept.clone().after_power_loss()).filter(|left| *left != kept),
        };
        if let Some(left) = left {
            self.to_put = Some((epoch, Box::new(left)));
            return None;
        }
        self.record = Record::Known(epoch);
        Some(Outcome::Loaded(Box::new(kept)))
    }

    /// A leg that comes back may have it. Told once.
    fn on_unreadable(&mut self, epoch: u64, now: Instant) -> Option<Outcome> {
        if self.record == Record::GivenUp(epoch) {
            self.to_put = Some((epoch, Box::default()));
            return None;
        }
        self.not_before = now + LOOK_AGAIN;
        let before = core::mem::replace(&mut self.record, Record::Unreadable(epoch));
        (before != self.record).then_some(Outcome::Unreadable)
    }

    /// When to poll next at the latest.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let waits = self.keeps() && self.work.is_none() && (self.to_store.is_some() || !self.is_known());
        let channel = self.channel.as_ref().and_then(|channel| channel.next_deadline());
        Instant::earliest(channel, (waits && self.epoch().is_some()).then_some(self.not_before))
    }
}

impl core::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Keeper")
            .field("record", &self.record)
            .field("work", &self.work)
            .finish_non_exhaustive()
    }
}
