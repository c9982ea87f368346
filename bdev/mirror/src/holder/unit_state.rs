//! The logical unit's state: written to every leg that is in sync before it counts (I17).
//!
//! A store is one write of the whole state, to all legs alike, parked and sent again as a flush is (R3). A load writes back
//! what it found before it answers, unless this holder has done so already: what was half stored when a holder died is then
//! on both legs or on none. A leg that comes back gets the state before a config counts it; from then on stores go to it,
//! too.

use std::collections::VecDeque;

use bdev::{Durability, IoError, Op, Power, StateFound};
use engine::{Buf, BufMut, Key};
use uuid::Uuid;

use super::request::{Errand, FlushStage, Work};
use super::{Ctx, Holder, Phase, Sides};
use crate::desk::{Purpose, Side};
use crate::format::UnitState;
use crate::format::unit_state::CONTENT_MAX;

/// Whether this holder has put the state on every leg that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Confirmed {
    No,
    Yes,
}

/// A leg that comes back, and what it has of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Returning {
    /// Nothing that is known.
    Nothing,
    /// The state of this number is on its way.
    Sent(u64),
    /// It has it, and every later one.
    Has,
}

/// The newest state, and who waits for it.
#[derive(Debug)]
pub(super) struct Unit {
    /// As it was last issued: stored, or on its way.
    state: UnitState,
    confirmed: Confirmed,
    /// Decided when this holder first knows it.
    power: Power,
    at_work: Option<Key>,
    /// Stores and loads behind the one at work.
    waiting: VecDeque<Key>,
    returning: Returning,
}

impl Unit {
    pub(super) fn new(state: UnitState) -> Self {
        Self {
            state,
            confirmed: Confirmed::No,
            power: Power::Kept,
            at_work: None,
            waiting: VecDeque::new(),
            returning: Returning::Nothing,
        }
    }

    /// The leg that was coming back is lost.
    pub(super) fn forget_returning(&mut self) {
        self.returning = Returning::Nothing;
    }

    /// A leg was read while this holder opens: the newer state counts.
    pub(super) fn adopt(&mut self, theirs: UnitState) {
        if theirs.is_newer_than(&self.state) {
            self.state = theirs;
        }
    }

    /// Nobody is answered any more.
    pub(super) fn abandon(&mut self) {
        self.waiting.clear();
    }
}

impl Holder {
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
            Returning::Nothing => self.in_sync(),
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
                self.unit.state.content.clone()
            }
            Errand::Store { from, .. } if from.len() > CONTENT_MAX => {
                return self.reply(key, Err(IoError::OutOfRange), ctx);
            }
            Errand::Store { from, .. } => from.to_vec(),
        };
        let state = UnitState {
            seq: self.unit.state.seq + 1,
            generation: self.config().generation(),
            incarnations: self.incarnations(ctx),
            content: next,
        };
        let Some(frame) = sealed(&state, ctx) else { return self.wait_for_state(key) };
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
            self.unit.confirmed = if result.is_ok() { Confirmed::Yes } else { Confirmed::No };
        }
    }

    /// What a load found.
    pub(super) fn loaded(&self, into: &mut BufMut) -> StateFound {
        let content = &self.unit.state.content;
        let len = content.len().min(into.len());
        into[..len].copy_from_slice(&content[..len]);
        StateFound { len: u32::try_from(content.len()).expect("bounded"), power: self.unit.power }
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
        match self.unit.returning {
            Returning::Has => true,
            Returning::Sent(_) => false,
            Returning::Nothing if self.unit.state.seq == 0 => {
                self.unit.returning = Returning::Has;
                true
            }
            Returning::Nothing => {
                if let Some(frame) = sealed(&self.unit.state, ctx) {
                    self.unit.returning = Returning::Sent(self.unit.state.seq);
                    let purpose = Purpose::UnitState { attempt: self.attempt };
                    ctx.desk.write(back, self.unit.state.offset(), frame, Durability::Durable, purpose);
                }
                false
            }
        }
    }

    /// The state is on its way to the leg that comes back.
    pub(super) fn is_copying_state(&self) -> bool {
        matches!(self.unit.returning, Returning::Sent(_))
    }

    /// The leg that comes back has answered.
    pub(super) fn on_state_copied(
        &mut self,
        side: Side,
        attempt: u32,
        result: Result<(), IoError>,
        ctx: &mut Ctx<'_>,
    ) {
        if attempt != self.attempt || !matches!(self.unit.returning, Returning::Sent(_)) {
            return;
        }
        match result {
            Ok(()) => {
                self.unit.returning = Returning::Has;
                self.on_rejoin_flushed(ctx);
            }
            Err(error) => {
                self.unit.returning = Returning::Nothing;
                self.leg_failed(side, error, ctx);
            }
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
