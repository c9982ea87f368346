//! Changes of a holder: one at a time, by the steps that production walks (R8), and what each does when it takes effect.

use mirror::decide::{Able, LastCopy, Novelty, Step, SwapVerdict, on_refused_swap, steps};
use mirror::desk::Side;
use mirror::format::{LegMask, Reason, Superblock};
use mirror::truth::Truth;

use super::book::Sb;
use super::holder::{joined, leave, serve_without_peer, takes_superblocks};
use super::own_leg::leave_own_alone;
use super::state::{
    Ask, Change, Copying, End, Entry, Holder, Kind, Line, Medium, OwnLeg, Phase, Sent, State, Way, What,
};
use super::{Model, leg_index};

const fn novelty(kind: Kind) -> Novelty {
    match kind {
        Kind::Open => Novelty::Open,
        Kind::Degrade(out) => Novelty::Degrade { out },
        Kind::Arm => Novelty::Arm,
        Kind::Enrol => Novelty::Enrol,
        Kind::Rejoin(_) => Novelty::Rejoin,
        Kind::HandOver => Novelty::HandOver,
    }
}

impl Model {
    pub(super) fn truth_of(&self, holder: &Holder) -> Truth {
        Truth::of(self.book.get(holder.truth))
    }

    /// With a config in its history that somebody else may have heard of.
    pub(super) fn known(&self, holder: &Holder) -> Truth {
        let mut known = self.truth_of(holder);
        if let Some(suspended) = holder.suspended {
            known.history.push(*self.book.get(suspended.next).config());
        }
        known
    }

    pub(super) fn is_both(&self, holder: &Holder) -> bool {
        self.in_sync(holder) == LegMask::both()
    }

    pub(super) fn in_sync(&self, holder: &Holder) -> LegMask {
        self.book.get(holder.truth).config().in_sync
    }

    /// A change from one truth to the next, whose superblock is based on `base`.
    pub(super) fn change(
        &mut self,
        kind: Kind,
        (now, next): (&Truth, &Truth),
        base: &Superblock,
        node: usize,
    ) -> Change {
        // What is remembered of numbers is another model's matter: the own leg has nothing to hear of an enrolment.
        let able = if kind == Kind::Enrol { Able::Only(Side::Peer) } else { Able::Both };
        let configs = (now.config(), next.config());
        let steps = steps(novelty(kind), able, self.scope.policy, configs, LastCopy::No);
        let next = self.book.number(next.on(base, leg_index(node)));
        Change { kind, next, steps, sent: Sent::No }
    }

    // --- Beginning ---

    pub(super) fn new_changes(&mut self, state: &State, node: usize, holder: &Holder) {
        let who = leg_index(node);
        let (truth, known) = (self.truth_of(holder), self.known(holder));
        let own = self.book.get(state.legs[node].sb).clone();
        let peer = holder.peer.map(|peer| self.book.get(peer).clone());
        let generation = known.next_generation(&own, peer.as_ref());
        let fresh = |reason| Self::fresh(state, node, generation, reason);
        let lost = !matches!(holder.way, Way::Joined | Way::Rejoining);
        let failing = holder.own == OwnLeg::Failing && holder.way == Way::Joined;
        let out = if failing { Side::Own } else { Side::Peer };
        if self.is_both(holder) && (lost || failing) && !self.is_beyond(generation) {
            let (leg, reason) =
                if failing { (who, Reason::IoError) } else { (who.other(), Reason::LinkLost) };
            let next =
                known.degraded(who, leg, reason, peer.as_ref(), fresh(reason)).expect("generations left");
            let change = self.change(Kind::Degrade(out), (&truth, &next), &own, node);
            self.begin("degrades", state, node, change, holder.way);
        }
        let marked = !holder.marks || state.legs[node].marked;
        if holder.way == Way::Marking && marked {
            let change = self.change(Kind::Enrol, (&truth, &truth), &own, node);
            self.begin("enrols the peer", state, node, change, Way::Enrolling(Entry::Delta));
        }
        let back = match (holder.way, holder.own) {
            (Way::Copying, _) => Side::Peer,
            (Way::Joined, OwnLeg::Copying) => Side::Own,
            _ => return,
        };
        if !holder.marks && holder.copy == Copying::None && !self.is_beyond(generation) {
            let next = known.rejoined(who, peer.as_ref(), fresh(Reason::Rejoined)).expect("generations left");
            let change = self.change(Kind::Rejoin(back), (&truth, &next), &own, node);
            let way = if back == Side::Peer { Way::Rejoining } else { holder.way };
            self.begin("rejoins", state, node, change, way);
        }
    }

    pub(super) fn begin(&mut self, what: &'static str, state: &State, node: usize, change: Change, way: Way) {
        let mut next = *state;
        let holder = next.holder_mut(node).expect("it holds");
        (holder.change, holder.way) = (Some(change), way);
        self.push(what, node, next);
    }

    // --- Steps ---

    pub(super) fn change_steps(&mut self, state: &State, node: usize, holder: &Holder, change: Change) {
        let mut next = *state;
        match change.steps.next() {
            Some(Step::Arbiter) if state.asks[node].is_none() => {
                next.asks[node] = Some(Ask { from: holder.has, next: self.book.past_of(change.next) });
                self.push("asks the arbiter", node, next);
            }
            Some(Step::Act) => {
                self.advance(&mut next, node);
                self.push("acts", node, next);
            }
            Some(Step::Leg(Side::Own)) if state.legs[node].medium == Medium::Broken => {
                self.own_superblock_failed(state, node, change);
            }
            Some(Step::Leg(Side::Own)) => {
                let own = self.book.get(state.legs[node].sb).clone();
                let said = Truth::of(self.book.get(change.next)).on(&own, leg_index(node));
                next.legs[node].sb = self.book.number(said);
                self.done(&mut next, node);
                self.push("writes its superblock", node, next);
            }
            Some(Step::Leg(Side::Peer)) if change.sent == Sent::No => {
                let takes = takes_superblocks(holder.way);
                let Some(theirs) = holder.peer.filter(|_| takes) else {
                    self.abandon_peer_step(&mut next, node);
                    return self.push("leaves the peer uninformed", node, next);
                };
                if state.has_room() {
                    let theirs = self.book.get(theirs).clone();
                    let said = Truth::of(self.book.get(change.next)).on(&theirs, leg_index(node));
                    next.send(1 - node, What::Superblock(self.book.number(said)));
                    let sent = Some(Change { sent: Sent::Yes, ..change });
                    next.holder_mut(node).expect("it holds").change = sent;
                    self.push("writes the peer's superblock", node, next);
                }
            }
            Some(Step::Arbiter | Step::Leg(_) | Step::Flush(_)) | None => {}
        }
    }

    /// The step that was due is done.
    fn done(&mut self, next: &mut State, node: usize) {
        if let Some(change) = next.holder_mut(node).and_then(|holder| holder.change.as_mut()) {
            change.steps.done();
            change.sent = Sent::No;
        }
        self.advance(next, node);
    }

    /// It takes effect where that is due, and is over where nothing is left.
    fn advance(&mut self, next: &mut State, node: usize) {
        let Some(holder) = next.holder_mut(node) else { return };
        let Some(mut change) = holder.change else { return };
        let acts = change.is_at(Step::Act);
        if acts {
            change.steps.done();
        }
        let over = change.steps.next().is_none();
        holder.change = (!over).then_some(change);
        if acts || over {
            holder.truth = change.next;
            self.forget_suspended(next, node);
        }
        if acts {
            self.acts(next, node, change);
        }
        if over {
            self.is_over(next, node, change);
        }
    }

    fn forget_suspended(&self, next: &mut State, node: usize) {
        let holder = next.holder_mut(node).expect("it holds");
        let now = self.book.id(holder.truth).generation;
        let is_old = |suspended: &mut Change| self.book.id(suspended.next).generation < now;
        holder.suspended.take_if(is_old);
    }

    /// It is the truth now.
    fn acts(&mut self, next: &mut State, node: usize, change: Change) {
        let in_sync = self.in_sync(&next.holder(node).expect("it holds"));
        let holder = next.holder_mut(node).expect("it holds");
        match change.kind {
            Kind::Open => {
                let alone = in_sync == LegMask::only(leg_index(node));
                holder.phase = if alone { Phase::Serving } else { Phase::OpeningPeer };
            }
            Kind::Degrade(out) => {
                holder.marks |= holder.write.is_some();
                if out == Side::Own {
                    leave_own_alone(holder);
                } else {
                    holder.own = if holder.own == OwnLeg::Failing { OwnLeg::Counted } else { holder.own };
                    self.lose_peer(next, node);
                    serve_without_peer(next, node);
                }
            }
            Kind::Rejoin(back) => {
                holder.own = OwnLeg::Counted;
                let sound = !holder.marks && matches!(holder.way, Way::Rejoining | Way::Joined);
                if sound {
                    return;
                }
                holder.change = None;
                if back == Side::Own && holder.marks {
                    holder.own = OwnLeg::Failing;
                }
                if holder.way == Way::Rejoining {
                    self.lose_peer(next, node);
                }
            }
            Kind::Arm => {
                if let Way::Arming(entry) = holder.way {
                    self.fence(next, node, entry);
                }
            }
            Kind::Enrol | Kind::HandOver => {}
        }
    }

    /// Everybody knows who is to know.
    fn is_over(&mut self, next: &mut State, node: usize, change: Change) {
        let holder = next.holder_mut(node).expect("it holds");
        match (change.kind, holder.way) {
            (Kind::Enrol, Way::Enrolling(Entry::Member))
            | (Kind::Rejoin(_), Way::Rejoining | Way::Joined) => {
                joined(next, node);
            }
            (Kind::Enrol, Way::Enrolling(_)) => holder.way = Way::Emptying,
            (Kind::HandOver, _) => Self::handed_over(next, node),
            _ => {}
        }
    }

    /// The peer's superblock says so.
    pub(super) fn peer_durable(&mut self, next: &mut State, node: usize, said: Sb) {
        let Some(holder) = next.holder_mut(node) else { return };
        holder.peer = Some(said);
        if holder.change.is_some_and(|change| change.sent == Sent::Yes) {
            self.done(next, node);
        }
    }

    /// The peer went away before it took its step: what is durable stands, the rest is off.
    pub(super) fn abandon_peer_step(&self, next: &mut State, node: usize) {
        let etcd = self.has_arbiter();
        let Some(holder) = next.holder_mut(node) else { return };
        let Some(change) = holder.change.take_if(|change| change.is_at(Step::Leg(Side::Peer))) else {
            return;
        };
        match change.kind {
            Kind::HandOver => leave(next, node, End::Orphaned),
            // The peer may have it, and the arbiter has it.
            Kind::Degrade(_) if change.sent == Sent::Yes || etcd => {
                holder.suspended = Some(Change { sent: Sent::No, ..change });
            }
            _ => {}
        }
    }

    /// The peer has come back with the suspended config: it counts, and goes on.
    pub(super) fn resume(&mut self, next: &mut State, node: usize) {
        let holder = next.holder(node).expect("it holds");
        let Some(suspended) = holder.suspended else { return };
        if self.book.id(suspended.next) != self.book.id(next.legs[1 - node].sb) {
            return;
        }
        let change = Change { steps: suspended.steps.resumed(), ..suspended };
        let holder = next.holder_mut(node).expect("it holds");
        (holder.suspended, holder.truth, holder.change) = (None, change.next, Some(change));
        joined(next, node);
        self.acts(next, node, change);
    }

    /// What the holder says to a leg that was found: where that has the suspended config, that one.
    pub(super) fn says(&self, state: &State, node: usize, holder: &Holder) -> Superblock {
        let theirs = self.book.id(state.legs[1 - node].sb);
        let suspended = holder.suspended.filter(|change| self.book.id(change.next) == theirs);
        let said = Truth::of(self.book.get(suspended.map_or(holder.truth, |change| change.next)));
        said.on(self.book.get(state.legs[node].sb), leg_index(node))
    }

    /// The medium does not take the own superblock.
    fn own_superblock_failed(&mut self, state: &State, node: usize, change: Change) {
        let mut next = *state;
        let holder = next.holder_mut(node).expect("it holds");
        match change.kind {
            // The peer's says so, and this one is out.
            Kind::Degrade(Side::Own) => holder.change = None,
            Kind::Rejoin(Side::Own) => {
                (holder.truth, holder.change, holder.own) = (change.next, None, OwnLeg::Failing);
            }
            // Tried again.
            _ => return,
        }
        self.push("cannot write its superblock", node, next);
    }

    // --- The arbiter ---

    pub(super) fn arbiter_steps(&mut self, state: &State) {
        for node in 0..2 {
            let Some(ask) = state.asks[node] else { continue };
            if state.reach[node] == Line::Cut {
                let mut next = *state;
                next.asks[node] = None;
                self.push("gets no answer", node, next);
                continue;
            }
            let mut next = *state;
            next.asks[node] = None;
            let swapped = self.swap(&mut next, ask);
            self.push("loses the arbiter's answer", node, next);
            self.answer(next, node, ask, swapped);
        }
        if let Some(ask) = state.late {
            let mut next = State { late: None, ..*state };
            self.push("a late swap is lost", 0, next);
            if self.swap(&mut next, ask) {
                self.push("a late swap happens", 0, next);
            }
        }
    }

    /// True when the arbiter holds what is asked for from now on.
    fn swap(&mut self, next: &mut State, ask: Ask) -> bool {
        let happens = self.book.is_there(next.arbiter, ask.from);
        if happens {
            next.arbiter = ask.next;
            if !self.book.follows(ask.next, ask.from) {
                self.wrong("swaps", 0, *next, "a config does not follow what it replaces");
            }
        }
        happens
    }

    fn answer(&mut self, mut next: State, node: usize, ask: Ask, swapped: bool) {
        let Some(holder) = next.holder(node) else { return };
        if !holder.change.is_some_and(|change| change.is_at(Step::Arbiter)) {
            return;
        }
        let now = *self.book.get(holder.truth).config();
        let wanted = *self.book.past(ask.next).current();
        let verdict = if swapped {
            SwapVerdict::Done
        } else {
            on_refused_swap(&now, &wanted, Some(self.book.past(next.arbiter).current()))
        };
        match verdict {
            SwapVerdict::Done => {
                next.holder_mut(node).expect("it holds").has = self.book.newest_number(ask.next);
                self.done(&mut next, node);
                self.push("gets the arbiter's yes", node, next);
            }
            SwapVerdict::Lost(_) => {
                leave(&mut next, node, End::Superseded);
                self.push("gets the arbiter's no", node, next);
            }
            SwapVerdict::Older => {
                self.wrong("gets the arbiter's no", node, next, "the arbiter is older than a leg");
            }
        }
    }
}
