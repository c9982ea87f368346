//! The logical unit's state: written to every leg that is in sync before it counts (I17).
//!
//! A store is one write of the whole state, to all legs alike, parked and sent again as a flush is (R3). A load writes back
//! what it found before it answers, unless this holder has done so already: what was half stored when a holder died is then
//! on both legs or on none. A leg that comes back gets the state before a config counts it, in place of both copies that it
//! has, whatever they are; from then on stores go to it, too.
//!
//! Where every copy is damaged nobody knows what was stored: that is a state like others, so that no older one comes back in its
//! place. Whoever loads it is told, until something is stored, or a leg is back that had counted when this holder began.

use std::collections::VecDeque;

use bdev::{Durability, IoError, Op, Power, StateFound, StateHealth};
use engine::{Buf, BufMut, Key};
use uuid::Uuid;

use super::membership::Entry;
use super::request::{Errand, FlushStage, Work};
use super::{Ctx, Holder, Phase, Sides};
use crate::decide::SyncPlan;
use crate::desk::{Purpose, Side};
use crate::format::unit_state::CONTENT_MAX;
use crate::format::{Config, LegMask, UnitState, UnitStateHealth};

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

/// The newest state, and who waits for it.
#[derive(Debug)]
pub(super) struct Unit {
    /// As it was last issued: stored, or on its way.
    state: UnitState,
    /// Number of the state that the errand at work writes.
    written: u64,
    before: Before,
    confirmed: Confirmed,
    /// Decided when this holder first knows it.
    power: Power,
    at_work: Option<Key>,
    /// Stores and loads behind the one at work.
    waiting: VecDeque<Key>,
    returning: Returning,
    /// Writes so far to legs that come back.
    deliveries: u64,
}

impl Unit {
    /// With the state of the own leg, for a holder that begins with `config`.
    pub(super) fn new(state: UnitState, config: &Config) -> Self {
        let both = config.in_sync == LegMask::both();
        Self {
            state,
            written: 0,
            before: if both { Before::Both(config.generation()) } else { Before::One },
            confirmed: Confirmed::No,
            power: Power::Kept,
            at_work: None,
            waiting: VecDeque::new(),
            returning: Returning::Nothing,
            deliveries: 0,
        }
    }

    /// The leg that was coming back is lost.
    pub(super) fn forget_returning(&mut self) {
        self.returning = Returning::Nothing;
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
                let generation = self.config().generation();
                self.unit.mend(theirs, generation);
            }
            Entry::Member | Entry::Resync(SyncPlan::Delta) => {}
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
        if self.unit.at_work.is_some() {
            return self.wait_for_state(key);
        }
        let Some(Work::Flush(flush)) = self.requests.get(key).map(|request| &request.work) else { return };
        let next = match &flush.errand {
            Errand::Flush(_) => return,
            Errand::Load { .. } if self.unit.confirmed == Confirmed::Yes && self.may_read(ctx.now()) => {
                return self.reply(key, Ok(()), ctx);
            }
            Errand::Load { .. } => {
                if self.unit.confirmed == Confirmed::No {
                    self.unit.power = self.power(ctx);
                }
                (self.unit.state.content.clone(), self.unit.state.health)
            }
            Errand::Store { from, .. } if from.len() > CONTENT_MAX => {
                return self.reply(key, Err(IoError::OutOfRange), ctx);
            }
            Errand::Store { from, .. } => (from.to_vec(), UnitStateHealth::Whole),
        };
        let (content, health) = next;
        let next = self.unit.state.successor(self.config().generation());
        let state = UnitState { incarnations: self.incarnations(ctx), health, content, ..next };
        let Some(frame) = sealed(&state, ctx) else { return self.wait_for_state(key) };
        self.unit.written = state.seq;
        self.unit.state = state;
        self.unit.at_work = Some(key);
        if let Some(Work::Flush(flush)) = self.requests.get_mut(key).map(|request| &mut request.work) {
            flush.errand.set_frame(frame, self.unit.state.offset());
        }
        self.send_flush(key, ctx);
    }

    fn wait_for_state(&mut self, key: Key) {
        if let Some(Work::Flush(flush)) = self.requests.get_mut(key).map(|request| &mut request.work) {
            flush.stage = FlushStage::Waiting;
            self.unit.waiting.push_back(key);
        }
    }

    /// The errand at work has ended.
    pub(super) fn end_errand(&mut self, key: Key, result: Result<(), IoError>) {
        if self.unit.at_work == Some(key) {
            self.unit.at_work = None;
            // A leg that came back may have brought another one meanwhile.
            let is_there = result.is_ok() && self.unit.written == self.unit.state.seq;
            self.unit.confirmed = if is_there { Confirmed::Yes } else { Confirmed::No };
        }
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
        if self.unit.at_work.is_some() || matches!(self.phase, Phase::Leaving(_) | Phase::Ended(_)) {
            return;
        }
        if let Some(key) = self.unit.waiting.pop_front() {
            self.begin_errand(key, ctx);
        }
    }

    // --- A leg that comes back ---

    /// True when the leg that comes back has the state; sends it otherwise.
    pub(super) fn has_state(&mut self, back: Side, ctx: &mut Ctx<'_>) -> bool {
        if self.unit.returning == Returning::Nothing {
            if self.unit.state.seq == 0 {
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
        ctx.desk.write(back, state.offset(), frame, Durability::Durable, Purpose::UnitState { delivery });
    }

    /// The state is on its way to the leg that comes back.
    pub(super) fn is_copying_state(&self) -> bool {
        matches!(self.unit.returning, Returning::Clearing(_) | Returning::Sent(_))
    }

    /// The leg that comes back has answered.
    pub(super) fn on_state_copied(
        &mut self,
        side: Side,
        delivery: u64,
        result: Result<(), IoError>,
        ctx: &mut Ctx<'_>,
    ) {
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
            Self::Store { frame, .. } | Self::Load { frame, .. } => *frame = Some((sealed, offset)),
        }
    }

    /// As the operation that it was.
    pub(super) fn into_op(self) -> Op {
        match self {
            Self::Flush(_) => Op::Flush,
            Self::Store { from, .. } => Op::StoreState { from },
            Self::Load { into, found, .. } => Op::LoadState { into, found },
        }
    }
}
