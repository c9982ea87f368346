//! Keeps a unit's record (`scsi::kept`) beside its data, where the device can: loads it when this node begins to serve, stores
//! each change before it is in force.
//!
//! ```text
//! unknown --(this node serves)--> loading --> known --(change)--> storing --> known
//!    ^                                |                              |
//!    '-----(failed, or served by the other node meanwhile)-----------'
//!
//! loading --(a record that cannot be read)--> unreadable --(the operator gives it up)--> storing an empty one --> known
//! ```
//!
//! A record that cannot be read is never taken for an empty one: whom it keeps out is unknown, so everybody stays out.

use std::sync::Arc;

use bdev::{
    Access, AccessState, Bdev, Capabilities, Channel, Completed, Completions, Io, IoError, Op, Power, Shared,
    StateFound, Tag,
};
use core::time::Duration;
use engine::{Core, Instant, Progress};
use scsi::kept::Kept;

/// Between attempts that fail.
const RETRY: Duration = Duration::from_millis(20);

/// What is on its way.
#[derive(Debug)]
enum Work {
    Load {
        epoch: u64,
    },
    /// What a loss of power left, on its way to where it is kept.
    Cut {
        epoch: u64,
        left: Box<Kept>,
    },
    Store,
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
    /// The epoch in which the table was loaded.
    known: Option<u64>,
    work: Option<Work>,
    to_store: Option<Kept>,
    /// The epoch in which the record could not be read.
    unreadable: Option<u64>,
    /// What a loss of power left, and in which epoch; to be stored before it is in force.
    to_cut: Option<(u64, Kept)>,
    not_before: Instant,
    done: Completions,
}

impl Keeper {
    pub(super) fn new(bdev: Arc<dyn Bdev>) -> Self {
        Self {
            bdev,
            channel: None,
            known: None,
            work: None,
            to_store: None,
            unreadable: None,
            to_cut: None,
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
        !self.keeps() || (self.known.is_some() && self.known == self.epoch())
    }

    /// Whether this node serves the unit, and cannot read what is kept of it.
    pub(super) fn is_unreadable(&self) -> bool {
        self.unreadable.is_some() && self.unreadable == self.epoch()
    }

    /// Stores an empty record in place of one that cannot be read, once; false when there is none.
    pub(super) fn give_up_record(&mut self) -> bool {
        let Some(epoch) = self.unreadable.filter(|_| self.is_unreadable()) else { return false };
        self.unreadable = None;
        self.to_cut = Some((epoch, Kept::default()));
        true
    }

    /// True once after this node has ceased to serve: what was known is the past.
    pub(super) fn has_ended(&mut self) -> bool {
        let ended = self.keeps() && self.known.is_some() && self.epoch().is_none();
        if ended {
            self.known = None;
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
                    Some(Outcome::Stored(Err(IoError::NotReady(bdev::NotReady::Standby)))),
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
        if let Some((epoch, left)) = self.to_cut.take() {
            if self.submit(core, &left, now) {
                self.work = Some(Work::Cut { epoch, left: Box::new(left) });
            }
            return (Progress::Busy, None);
        }
        let (Some(epoch), false, false) = (self.epoch(), self.is_known(), self.is_unreadable()) else {
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
            // Whatever is there has to be looked at again.
            (self.known, self.unreadable) = (None, None);
            self.not_before = now + RETRY;
        }
        match (work, completed.op, completed.result) {
            (Work::Store, _, result) => Some(Outcome::Stored(result)),
            (Work::Load { epoch }, Op::LoadState { into, found }, Ok(())) => {
                match into.get(..found.len as usize).map(Kept::from_record) {
                    Some(Ok(kept)) => self.on_loaded(&kept, found.power, epoch),
                    Some(Err(_)) | None => {
                        self.unreadable = Some(epoch);
                        Some(Outcome::Unreadable)
                    }
                }
            }
            (Work::Cut { epoch, left }, _, Ok(())) => {
                self.known = Some(epoch);
                Some(Outcome::Loaded(left))
            }
            _ => None,
        }
    }

    fn on_loaded(&mut self, kept: &Kept, power: Power, epoch: u64) -> Option<Outcome> {
        let left = match power {
            Power::Kept => kept.clone(),
            Power::Lost => kept.clone().after_power_loss(),
        };
        if left == *kept {
            self.known = Some(epoch);
            return Some(Outcome::Loaded(Box::new(left)));
        }
        self.to_cut = Some((epoch, left));
        None
    }

    /// When to poll next at the latest.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let loads = !self.is_known() && !self.is_unreadable();
        let waits = self.keeps() && self.work.is_none() && (self.to_store.is_some() || loads);
        let channel = self.channel.as_ref().and_then(|channel| channel.next_deadline());
        Instant::earliest(channel, (waits && self.epoch().is_some()).then_some(self.not_before))
    }
}

impl core::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Keeper").field("known", &self.known).field("work", &self.work).finish_non_exhaustive()
    }
}
