//! What the holder says about the array, the same on both legs, and what it says next: the configs that follow each
//! other, and what each leg's record remembers of them.
//!
//! Owner: the holder. Pure: each transition gives the next truth, and the holder carries it to the arbiter and the legs in
//! the order that R8 asks for.

use bdev::FenceKey;
use uuid::Uuid;

use crate::decide::{Starting, SyncPlan, next_generation};
use crate::format::config::GenerationsExhausted;
use crate::format::{Config, History, LegIndex, LegMask, LegRecord, Reason, RunState, Superblock};
use crate::leg_state::{LegEvent, after};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    /// The configs; the first is the current one.
    pub history: History,
    /// The records of leg 0 and leg 1.
    pub legs: [LegRecord; 2],
    /// In service, or stopped in order.
    pub run_state: RunState,
    /// The generation that both legs accept, the holder's.
    pub fence: u64,
}

/// What a new config needs from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// A generation above everything that either leg has seen.
    pub generation: u64,
    /// A random number.
    pub nonce: u64,
}

impl Truth {
    /// What a superblock says.
    pub fn of(superblock: &Superblock) -> Self {
        let Superblock { history, legs, run_state, fence, .. } = superblock;
        Self { history: *history, legs: *legs, run_state: *run_state, fence: fence.generation }
    }

    /// The current config.
    pub fn config(&self) -> &Config {
        self.history.current()
    }

    /// A leg's superblock that says so, for the holder `who`.
    pub fn on(&self, base: &Superblock, who: LegIndex) -> Superblock {
        let mut next = base.hearing(&self.history);
        (next.legs, next.run_state) = (self.legs, self.run_state);
        next.fence = next.fence.max_generation(who, self.fence);
        next
    }

    /// The next generation: above everything that this truth and either leg have seen (R11).
    pub fn next_generation(&self, own: &Superblock, peer: Option<&Superblock>) -> u64 {
        next_generation(own, peer).max(self.fence.max(self.config().generation()) + 1)
    }

    fn record_mut(&mut self, leg: LegIndex) -> &mut LegRecord {
        &mut self.legs[leg.index()]
    }

    fn configured(
        &self,
        who: LegIndex,
        in_sync: LegMask,
        reason: Reason,
        fresh: Fresh,
    ) -> Result<Self, GenerationsExhausted> {
        let config = self.config().successor(fresh.nonce, who, in_sync, reason)?;
        let mut next = self.clone();
        next.history.push(config.raised_to(fresh.generation));
        Ok(next)
    }

    /// The first config of the holder `who`, and who is in sync in it (R11).
    ///
    /// # Errors
    /// [`GenerationsExhausted`].
    pub fn opened(
        &self,
        who: LegIndex,
        starting: Starting,
        reason: Reason,
        incarnation: Uuid,
        fresh: Fresh,
    ) -> Result<Self, GenerationsExhausted> {
        let in_sync = match starting {
            Starting::Both => LegMask::both(),
            Starting::FromPeer(_) => LegMask::only(who.other()),
            Starting::Alone | Starting::Resync(_) => LegMask::only(who),
        };
        let tracked = self.tracked_from(who, None);
        let was_both = self.config().in_sync == LegMask::both();
        let mut next = self.configured(who, in_sync, reason, fresh)?;
        next.run_state = next.run_state.in_service();
        next.fence = next.config().generation().max(next.fence);
        if !in_sync.has(who.other()) && was_both {
            let peer = next.record_mut(who.other());
            peer.tracked_since = tracked;
            peer.state = after(peer.state, LegEvent::of_exclusion(reason));
        }
        let own = next.record_mut(who);
        own.incarnation = incarnation;
        if let Starting::FromPeer(SyncPlan::Full(_)) = starting {
            next.forget_tracking();
        }
        let own = next.record_mut(who);
        let event = if in_sync.has(who) { LegEvent::SyncDone } else { LegEvent::SyncBegun };
        own.state = after(own.state, event);
        Ok(next)
    }

    /// The config of a switchover by the holder `who`: its peer holds, with everything in sync and nothing under way.
    ///
    /// # Errors
    /// [`GenerationsExhausted`].
    pub fn handed_over(&self, who: LegIndex, fresh: Fresh) -> Result<Self, GenerationsExhausted> {
        let next = self.configured(who.other(), LegMask::both(), Reason::SwitchedOver, fresh)?;
        Ok(next.clean())
    }

    /// The peer gave the array to `who`: the config is there already, and nobody has served in it yet. Its first holder is
    /// no restart (R11).
    #[must_use]
    pub fn taken_up(&self, who: LegIndex, incarnation: Uuid) -> Self {
        let mut next = self.clone();
        next.run_state = next.run_state.in_service();
        next.fence = next.config().generation().max(next.fence);
        next.record_mut(who).incarnation = incarnation;
        next
    }

    /// A config without the leg `out`; `peer` is what the holder last knew of its peer's superblock.
    ///
    /// # Errors
    /// [`GenerationsExhausted`].
    pub fn degraded(
        &self,
        who: LegIndex,
        out: LegIndex,
        reason: Reason,
        peer: Option<&Superblock>,
        fresh: Fresh,
    ) -> Result<Self, GenerationsExhausted> {
        let tracked = self.tracked_from(who, peer);
        let mut next = self.configured(who, LegMask::only(out.other()), reason, fresh)?;
        let record = next.record_mut(out);
        record.state = after(record.state, LegEvent::of_exclusion(reason));
        if out == who {
            next.forget_tracking();
        } else {
            record.tracked_since = tracked;
            record.seen_seq =
                peer.filter(|peer| is_as_seen(record, peer)).map_or(record.seen_seq, |peer| peer.seq);
        }
        Ok(next)
    }

    /// Nothing on disk tracks in what the legs differ while the holder's own is out: the log and the bitmap are on it.
    fn forget_tracking(&mut self) {
        self.legs.iter_mut().for_each(|leg| leg.tracked_since = 0);
    }

    /// The config that the peer's leg may still have, such that everything since is in the log or the bitmap: ours,
    /// or an older one where the peer has not learned ours yet. One that this holder has not met has at least that in
    /// which it came in sync.
    fn tracked_from(&self, who: LegIndex, peer: Option<&Superblock>) -> u64 {
        let ours = self.config().generation();
        let record = &self.legs[who.other().index()];
        let has = peer
            .filter(|peer| is_as_seen(record, peer))
            .map_or(record.tracked_since, |peer| peer.config().generation());
        if has == 0 { ours } else { has.min(ours) }
    }

    /// The generation that the peer's leg is about to be fenced with, before its guard hears of it (R8), and what was
    /// found there.
    #[must_use]
    pub fn armed(&self, who: LegIndex, plan: SyncPlan, own: &Superblock, theirs: &Superblock) -> Self {
        let mut next = self.clone();
        next.fence = next_generation(own, Some(theirs)).max(next.fence + 1);
        let record = next.record_mut(who.other());
        record.state = after(record.state, LegEvent::SyncBegun);
        (record.uuid, record.flags) = (theirs.leg, theirs.own().flags);
        (record.incarnation, record.seen_seq) = (theirs.own().incarnation, theirs.seq);
        if let SyncPlan::Full(_) = plan {
            record.tracked_since = 0;
        }
        next
    }

    /// The bitmap says everything about the peer's leg from now on, whose superblock, number `seen`, has this config: one
    /// that is found older was set back, and misses what was copied to it since.
    #[must_use]
    pub fn tracked(&self, who: LegIndex, seen: Option<u64>) -> Self {
        let mut next = self.clone();
        let generation = self.config().generation();
        let record = next.record_mut(who.other());
        record.tracked_since = generation;
        record.seen_seq = seen.unwrap_or(record.seen_seq);
        next
    }

    /// What is remembered of both legs' superblocks before the peer's leg is relied on, by their numbers: `own` is durable,
    /// and `theirs` is the peer's of this session. A leg that is found with a lower one was set back to what it was before.
    #[must_use]
    pub fn marked(&self, who: LegIndex, own: u64, theirs: u64) -> Self {
        let mut next = self.clone();
        for (leg, number) in [(who, own), (who.other(), theirs)] {
            let record = next.record_mut(leg);
            record.seen_seq = record.seen_seq.max(number);
        }
        next
    }

    /// A config with both legs; `theirs` is the peer's superblock.
    ///
    /// # Errors
    /// [`GenerationsExhausted`].
    pub fn rejoined(
        &self,
        who: LegIndex,
        theirs: Option<&Superblock>,
        fresh: Fresh,
    ) -> Result<Self, GenerationsExhausted> {
        let mut next = self.configured(who, LegMask::both(), Reason::Rejoined, fresh)?;
        let generation = next.config().generation();
        for leg in &mut next.legs {
            leg.state = after(leg.state, LegEvent::SyncDone);
            leg.tracked_since = generation;
        }
        if let Some(theirs) = theirs {
            let record = next.record_mut(who.other());
            (record.incarnation, record.seen_seq) = (theirs.own().incarnation, theirs.seq);
        }
        Ok(next)
    }

    /// Writes are acknowledged from now on that may be in the legs' caches alone.
    #[must_use]
    pub fn cached(&self) -> Self {
        Self { run_state: RunState::Cached, ..self.clone() }
    }

    /// The peer's leg has gone its own way: for people, and for a start without it.
    #[must_use]
    pub fn split(&self, who: LegIndex) -> Self {
        let mut next = self.clone();
        let record = next.record_mut(who.other());
        record.state = after(record.state, LegEvent::Diverged);
        next
    }

    /// A config above a leg that has diverged: its holder `who` alone, as before.
    ///
    /// # Errors
    /// [`GenerationsExhausted`].
    pub fn outranking(&self, who: LegIndex, fresh: Fresh) -> Result<Self, GenerationsExhausted> {
        self.configured(who, LegMask::only(who), Reason::SplitResolved, fresh)
    }

    /// Stopped in order (R12).
    #[must_use]
    pub fn clean(&self) -> Self {
        Self { run_state: RunState::Clean, ..self.clone() }
    }
}

/// True for the superblock of the leg that was seen last, or a later one: not of another leg, or of one that was set back.
fn is_as_seen(record: &LegRecord, peer: &Superblock) -> bool {
    peer.leg == record.uuid && peer.seq >= record.seen_seq
}

trait MaxGeneration {
    fn max_generation(self, who: LegIndex, generation: u64) -> Self;
}

impl MaxGeneration for FenceKey {
    /// A fence never falls.
    fn max_generation(self, who: LegIndex, generation: u64) -> Self {
        if generation > self.generation { Self { node: who.number(), generation } } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tests::example_create;

    /// What is remembered of either leg rises, and nothing else changes.
    #[test]
    fn marks_do_not_fall() {
        let truth = Truth::of(&example_create(LegIndex::Zero).founder(1));
        let marked = truth.marked(LegIndex::Zero, 7, 9);
        assert_eq!(marked.legs.map(|leg| leg.seen_seq), [7, 9]);
        assert_eq!(marked.marked(LegIndex::Zero, 6, 8), marked);
        assert_eq!(marked.marked(LegIndex::One, 10, 8).legs.map(|leg| leg.seen_seq), [8, 10]);
        let forgotten = Truth { legs: truth.legs, ..marked };
        assert_eq!(forgotten, truth);
    }
}
