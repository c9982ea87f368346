//! The logical unit's state: written to every leg that is in sync before it counts (I17).
//!
//! A store is a write of the whole state to all legs alike, and then to their other copies, so that the loss of one copy brings nothing
//! older back; parked and sent again as a flush is (R3). A load writes back
//! what it found before it answers, unless this holder has done so already: what was half stored when a holder died is then
//! on both legs or on none. A leg that comes back gets the state before a config counts it, in place of both copies that it
//! has, whatever they are; from then on stores go to it, too.
//!
//! Where every copy is damaged nobody knows what was stored: whoever loads it is told, until something is stored, or a leg is back
//! that had counted when this holder began. A leg that comes back otherwise is given that as a state like others, so that no older
//! one passes for it.

use std::collections::VecDeque;

use bdev::{Durability, Io, IoError, Op, Power, StateFound, StateHealth, Tag};
use core::time::Duration;
use engine::{Buf, BufMut, Instant, Key, Progress};
use uuid::Uuid;

use super::membership::Entry;
use super::request::{Asker, Errand, Flush, FlushStage, Request, Work};
use super::{Ctx, Holder, Phase, Sides};
use crate::decide::SyncPlan;
use crate::desk::{Purpose, Side};
use crate::format::unit_state::CONTENT_MAX;
use crate::format::{Config, LegMask, UnitState, UnitStateHealth};

/// Until an errand that found no frame looks for one again.
const FRAME_PAUSE: Duration = Duration::from_millis(10);

/// Whether this holder has put the state on every leg that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Confirmed {
    No,
    Yes,
}

/// Which legs counted when this holder began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// Both did, in the config of this generation: both have what was stored until then.
    Both(u64),
    /// One did.
    One,
}

/// A leg that comes back, and what it has of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Returning {
    /// Nothing that is known.
    Nothing,
    /// What it has in the other copy is being replaced, by this delivery.
    Clearing(u64),
    /// The state is on its way, in this delivery.
    Sent(u64),
    /// It has it, and every later one.
    Has,
}

/// The write of an errand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// To the older copy.
    First,
    /// To the other copy.
    Second,
}

/// The newest state, and who waits for it.
#[derive(Debug)]
pub(super) struct Unit {
    /// As it was last issued: stored, or on its way.
    state: UnitState,
    /// What the errand at work writes.
    written: Written,
    before: Before,
    confirmed: Confirmed,
    /// Decided when this holder first knows it.
    power: Power,
    at_work: Option<Key>,
    /// Stores and loads behind the one at work.
    waiting: VecDeque<Key>,
    returning: Returning,
    /// What a leg that comes back has.
    brought: Option<UnitState>,
    /// Writes so far to legs that come back.
    deliveries: u64,
    /// Those that the own disk has not answered.
    own_deliveries: u32,
}

impl Unit {
    /// With the state of the own leg, for a holder that begins with `config`.
    pub(super) fn new(state: UnitState, config: &Config) -> Self {
        let both = config.in_sync == LegMask::both();
        Self {
            state,
            written: Written::Second,
            before: if both { Before::Both(config.generation()) } else { Before::One },
            confirmed: Confirmed::No,
            power: Power::Kept,
            at_work: None,
            waiting: VecDeque::new(),
            returning: Returning::Nothing,
            brought: None,
            deliveries: 0,
            own_deliveries: 0,
        }
    }

    /// The leg that was coming back is lost.
    pub(super) fn forget_returning(&mut self) {
        (self.returning, self.brought) = (Returning::Nothing, None);
    }

    /// A leg that counts was read while this holder opens: the newer state counts.
    fn adopt(&mut self, theirs: UnitState) {
        if theirs.is_newer_than(&self.state) {
            self.state = theirs;
        }
    }

    /// A leg that comes back was read, of the same line: where the state is lost, it has it if it counted when this holder
    /// began, because nothing was stored since.
    fn mend(&mut self, theirs: UnitState, generation: u64) {
        let Before::Both(before) = self.before else { return };
        let known = theirs.health == UnitStateHealth::Whole && theirs.generation <= before;
        if self.state.health == UnitStateHealth::Lost && known {
            let UnitState { seq, generation, .. } = self.state.successor(generation);
            self.state = UnitState { seq: seq.max(theirs.seq), generation, ..theirs };
            self.confirmed = Confirmed::No;
        }
    }

    /// The own leg's copies are damaged, and nobody has written anything since.
    fn is_unwritten(&self) -> bool {
        self.state.health == UnitStateHealth::Lost && self.state.seq == 0
    }

    fn next_delivery(&mut self) -> u64 {
        self.deliveries += 1;
        self.deliveries
    }

    /// Nobody is answered any more.
    pub(super) fn abandon(&mut self) {
        self.waiting.clear();
    }
}

impl Holder {
    /// What the peer's leg has, that comes in this way.
    pub(super) fn take_unit_state(&mut self, entry: Entry, theirs: UnitState) {
        let counts = self.in_sync().has(Side::Peer) && matches!(self.phase, Phase::Opening(_));
        match entry {
            _ if counts => self.unit.adopt(theirs),
            Entry::Resync(SyncPlan::Full(_)) => {}
            Entry::Member | Entry::Resync(SyncPlan::Delta) if self.diverged().is_none() => {
                // An errand answers with what it writes.
                self.unit.brought = Some(theirs);
                self.mend_unit_state();
            }
            Entry::Member | Entry::Resync(SyncPlan::Delta) => {}
        }
    }

    fn mend_unit_state(&mut self) {
        if self.unit.at_work.is_none()
            && let Some(theirs) = self.unit.brought.take()
        {
            let generation = self.config().generation();
            self.unit.mend(theirs, generation);
        }
    }

    /// Boot ids of both nodes, as far as they are known now.
    fn incarnations(&self, ctx: &Ctx<'_>) -> [Uuid; 2] {
        let mut known = [Uuid::nil(); 2];
        known[self.who.index()] = ctx.setup.incarnation;
        let peer = self.who.other();
        let seen = self.peer.as_ref().map(|peer| peer.store.current().own().incarnation);
        known[peer.index()] = seen.unwrap_or(self.truth.legs[peer.index()].incarnation);
        known
    }

    /// Whether both nodes were started anew since the state was written: the unit has lost its power.
    fn power(&self, ctx: &Ctx<'_>) -> Power {
        let then = self.unit.state.incarnations;
        let lost = then.iter().zip(self.incarnations(ctx)).all(|(then, now)| !then.is_nil() && *then != now);
        if lost { Power::Lost } else { Power::Kept }
    }

    /// Every leg that a store goes to.
    pub(super) fn state_sides(&self) -> Sides {
        match self.unit.returning {
            Returning::Nothing | Returning::Clearing(_) => self.in_sync(),
            Returning::Sent(_) | Returning::Has => Sides::all(),
        }
    }

    /// A store or a load: one after the other.
    pub(super) fn begin_errand(&mut self, key: Key, ctx: &mut Ctx<'_>) {
        if !self.unit.waiting.is_empty() || self.try_errand(key, ctx) == Progress::Idle {
            self.set_errand_waiting(key);
            self.unit.waiting.push_back(key);
        }
    }

    /// Idle: it has to wait for its turn, or for a frame.
    fn try_errand(&mut self, key: Key, ctx: &mut Ctx<'_>) -> Progress {
        if self.unit.at_work.is_some() || self.is_copying_state() {
            return Progress::Idle;
        }
        let Some(Work::Flush(flush)) = self.requests.get(key).map(|request| &request.work) else {
            return Progress::Busy;
        };
        let (content, health) = match &flush.errand {
            Errand::Flush(_) => return Progress::Busy,
            // The peer's leg may have it.
            Errand::Load { .. } if self.unit.is_unwritten() && matches!(self.phase, Phase::Opening(_)) => {
                return Progress::Idle;
            }
            // Nothing is written: a medium that reads again tomorrow has it.
            Errand::Load { .. } if self.unit.is_unwritten() => {
                self.reply(key, Ok(()), ctx);
                return Progress::Busy;
            }
            // Where only the peer's leg counts, no lease says that its node has not gone on: that leg is asked.
            Errand::Load { .. }
                if self.unit.confirmed == Confirmed::Yes
                    && self.in_sync().has(Side::Own)
                    && self.may_read(ctx.now()) =>
            {
                self.reply(key, Ok(()), ctx);
                return Progress::Busy;
            }
            // A loss of power is told first, to whoever loads it.
            Errand::Renew { .. } if !self.is_renewal_due(ctx) => {
                self.reply(key, Ok(()), ctx);
                return Progress::Busy;
            }
            Errand::Load { .. } => {
                if self.unit.confirmed == Confirmed::No {
                    self.unit.power = self.power(ctx);
                }
                (self.unit.state.content.clone(), self.unit.state.health)
            }
            Errand::Renew { .. } => (self.unit.state.content.clone(), self.unit.state.health),
            Errand::Store { from, .. } if from.len() > CONTENT_MAX => {
                self.reply(key, Err(IoError::OutOfRange), ctx);
                return Progress::Busy;
            }
            Errand::Store { from, .. } => (from.to_vec(), UnitStateHealth::Whole),
        };
        // A loss of power is told again until whoever was told of it has stored something.
        let untold = self.unit.power == Power::Lost && matches!(flush.errand, Errand::Load { .. });
        let incarnations = if untold { self.unit.state.incarnations } else { self.incarnations(ctx) };
        let next = self.unit.state.successor(self.config().generation());
        let state = UnitState { incarnations, health, content, ..next };
        self.write_state(key, state, Written::First, ctx)
    }

    fn write_state(&mut self, key: Key, state: UnitState, written: Written, ctx: &mut Ctx<'_>) -> Progress {
        let Some(frame) = sealed(&state, ctx) else { return Progress::Idle };
        let offset = state.offset();
        (self.unit.state, self.unit.written, self.unit.at_work) = (state, written, Some(key));
        if let Some(Work::Flush(flush)) = self.requests.get_mut(key).map(|request| &mut request.work) {
            flush.failed = [None; 2];
            flush.errand.set_frame(frame, offset);
        }
        self.send_flush(key, ctx);
        Progress::Busy
    }

    /// Every leg that counts has what an errand wrote: the other copy is next, and then the answer. Where there is no frame for it
    /// the errand begins anew.
    pub(super) fn on_state_written(&mut self, key: Key, ctx: &mut Ctx<'_>) {
        if self.unit.written == Written::Second {
            return self.acknowledge(key, ctx);
        }
        let next = self.unit.state.successor(self.config().generation());
        if self.write_state(key, next, Written::Second, ctx) == Progress::Idle {
            self.unit.at_work = None;
            self.set_errand_waiting(key);
            self.unit.waiting.push_front(key);
        }
    }

    fn set_errand_waiting(&mut self, key: Key) {
        if let Some(Work::Flush(flush)) = self.requests.get_mut(key).map(|request| &mut request.work) {
            flush.stage = FlushStage::Waiting;
        }
    }

    /// The errand at work has ended.
    pub(super) fn end_errand(&mut self, key: Key, errand: &Errand, result: Result<(), IoError>) {
        if self.unit.at_work == Some(key) {
            self.unit.at_work = None;
            self.unit.confirmed = if result.is_ok() { Confirmed::Yes } else { Confirmed::No };
            if result.is_ok() && matches!(errand, Errand::Store { .. }) {
                // Whoever was told of a loss of power has drawn his conclusions.
                self.unit.power = Power::Kept;
            }
        }
        self.mend_unit_state();
    }

    /// What a load found.
    pub(super) fn loaded(&self, into: &mut BufMut) -> StateFound {
        let content = &self.unit.state.content;
        let len = content.len().min(into.len());
        into[..len].copy_from_slice(&content[..len]);
        let health = match self.unit.state.health {
            UnitStateHealth::Whole => StateHealth::Whole,
            UnitStateHealth::Lost => StateHealth::Damaged,
        };
        StateFound { len: u32::try_from(content.len()).expect("bounded"), power: self.unit.power, health }
    }

    /// Errands that waited for their turn, or for a frame.
    pub(super) fn drive_errands(&mut self, ctx: &mut Ctx<'_>) {
        if matches!(self.phase, Phase::Leaving(_) | Phase::Ended(_)) {
            return;
        }
        if let Some(key) = self.unit.waiting.pop_front()
            && self.try_errand(key, ctx) == Progress::Idle
        {
            self.unit.waiting.push_front(key);
        }
        self.renew_state(ctx);
    }

    /// A node that has joined since the state was written keeps the unit's power from now on: the state says so.
    fn is_renewal_due(&self, ctx: &Ctx<'_>) -> bool {
        let told = self.unit.confirmed == Confirmed::Yes && self.unit.power == Power::Kept;
        let serves = self.phase == Phase::Serving && self.is_both() && self.is_joined();
        told && serves && self.unit.state.incarnations != self.incarnations(ctx)
    }

    fn renew_state(&mut self, ctx: &mut Ctx<'_>) {
        let idle = self.unit.at_work.is_none() && self.unit.waiting.is_empty() && !self.is_copying_state();
        if !idle || !self.is_renewal_due(ctx) {
            return;
        }
        let (shell, _) = Io::new(Op::Flush, Tag(0), ctx.now()).detach();
        let work = Work::Flush(Flush::new(Errand::Renew { frame: None }));
        let request = Request { asker: Asker::Holder, shell, work, failing_since: None };
        if let Ok(key) = self.requests.insert(request) {
            self.begin_errand(key, ctx);
        }
    }

    /// When to look for a frame again.
    pub(super) fn errand_deadline(&self, now: Instant) -> Option<Instant> {
        let waits = self.unit.at_work.is_none() && !self.is_copying_state() && !self.unit.waiting.is_empty();
        waits.then_some(now + FRAME_PAUSE)
    }

    // --- A leg that comes back ---

    /// True when the leg that comes back has the state; sends it otherwise.
    pub(super) fn has_state(&mut self, back: Side, ctx: &mut Ctx<'_>) -> bool {
        if self.unit.returning == Returning::Nothing && !self.is_state_on_its_way() {
            if !self.unit.state.has_twin() {
                self.unit.state = self.unit.state.successor(self.config().generation());
            }
            // What it has may be of a line that was given up, under larger numbers.
            let twin = self.unit.state.twin();
            self.send_state(back, &twin, Returning::Clearing, ctx);
        }
        self.unit.returning == Returning::Has
    }

    fn send_state(&mut self, back: Side, state: &UnitState, then: fn(u64) -> Returning, ctx: &mut Ctx<'_>) {
        let Some(frame) = sealed(state, ctx) else {
            self.unit.returning = Returning::Nothing;
            return;
        };
        let delivery = self.unit.next_delivery();
        self.unit.returning = then(delivery);
        self.unit.own_deliveries += u32::from(back == Side::Own);
        ctx.desk.write(back, state.offset(), frame, Durability::Durable, Purpose::UnitState { delivery });
    }

    /// The state is on its way to the leg that comes back.
    fn is_copying_state(&self) -> bool {
        matches!(self.unit.returning, Returning::Clearing(_) | Returning::Sent(_))
    }

    /// True while a leg that comes back has to wait for what others write, so that no two writes are at one copy.
    pub(super) fn is_state_on_its_way(&self) -> bool {
        let behind = self.unit.returning == Returning::Nothing
            && (self.unit.at_work.is_some() || self.unit.own_deliveries != 0);
        self.is_copying_state() || behind
    }

    /// The leg that comes back has answered.
    pub(super) fn on_state_copied(
        &mut self,
        side: Side,
        delivery: u64,
        result: Result<(), IoError>,
        ctx: &mut Ctx<'_>,
    ) {
        self.unit.own_deliveries -= u32::from(side == Side::Own);
        match (self.unit.returning, result) {
            (Returning::Clearing(sent), Ok(())) if sent == delivery => {
                let state = self.unit.state.clone();
                self.send_state(side, &state, Returning::Sent, ctx);
            }
            (Returning::Sent(sent), Ok(())) if sent == delivery => {
                self.unit.returning = Returning::Has;
                self.on_rejoin_flushed(ctx);
            }
            (Returning::Clearing(sent) | Returning::Sent(sent), Err(error)) if sent == delivery => {
                self.unit.returning = Returning::Nothing;
                self.leg_failed(side, error, ctx);
            }
            _ => {}
        }
    }
}

/// The state's copy in a frame; `None` when the pool has none now.
fn sealed(state: &UnitState, ctx: &Ctx<'_>) -> Option<Buf> {
    let bytes = state.encode(ctx.own.current().array);
    let mut frame = ctx.desk.frame(bytes.len())?;
    frame.copy_from_slice(&bytes);
    Some(frame.freeze())
}

impl Errand {
    fn set_frame(&mut self, sealed: Buf, offset: u64) {
        match self {
            Self::Flush(_) => {}
            Self::Store { frame, .. } | Self::Load { frame, .. } | Self::Renew { frame } => {
                *frame = Some((sealed, offset));
            }
        }
    }

    /// As the operation that it was.
    pub(super) fn into_op(self) -> Op {
        match self {
            Self::Flush(_) | Self::Renew { .. } => Op::Flush,
            Self::Store { from, .. } => Op::StoreState { from },
            Self::Load { into, found, .. } => Op::LoadState { into, found },
        }
    }
}
