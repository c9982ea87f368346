//! The holder: changes of the config, one step durable before the next, and the way of the peer's leg back in.

use mirror::decide::{
    EntryVerdict, FullReason, SwapVerdict, SyncPlan, is_drained, may_write, on_found, on_refused_swap,
};
use mirror::format::{LegMask, Reason};
use mirror::truth::Truth;

use super::state::{
    Ask, Change, Claim, Copying, Entry, Holder, Key, Kind, Line, Part, Phase, Role, State, Step, Waits, Way,
    What,
};
use super::{Model, leg_index};

impl Model {
    pub(super) fn truth_of(&self, holder: &Holder) -> Truth {
        Truth::of(self.book.get(holder.truth))
    }

    pub(super) fn is_both(&self, holder: &Holder) -> bool {
        self.book.get(holder.truth).config().in_sync == LegMask::both()
    }

    pub(super) fn holder_steps(&mut self, state: &State, node: usize, holder: &Holder) {
        if holder.phase == Phase::Leaving {
            return;
        }
        match holder.change {
            Some(change) => self.change_steps(state, node, holder, change),
            None => self.new_changes(state, node, holder),
        }
        if holder.way == Way::Away && holder.phase != Phase::Opening && state.is_connected() {
            self.look(state, node, holder);
        }
        if holder.way == Way::Emptying && state.has_room() {
            self.send_once(state, node, What::Empty);
        }
        if holder.marks != state.legs[node].marked {
            let mut next = *state;
            next.legs[node].marked = holder.marks;
            self.push("writes its marks", node, next);
        }
    }

    fn send_once(&mut self, state: &State, node: usize, what: What) {
        let mut next = *state;
        let there = |message: &super::state::Message| message.what == what;
        if !state.wire.iter().flatten().any(there) {
            next.send(1 - node, what);
            self.push("empties the peer's log", node, next);
        }
    }

    // --- Changes ---

    fn new_changes(&mut self, state: &State, node: usize, holder: &Holder) {
        let who = leg_index(node);
        let truth = self.truth_of(holder);
        let own = self.book.get(state.legs[node].sb).clone();
        let peer = holder.peer.map(|peer| self.book.get(peer).clone());
        let generation = truth.next_generation(&own, peer.as_ref());
        let fresh = self.fresh(state, node, generation);
        let lost = !matches!(holder.way, Way::Joined | Way::Rejoining);
        if self.is_both(holder) && lost && generation <= self.scope.generations {
            let next = truth.degraded(who, who.other(), Reason::LinkLost, peer.as_ref(), fresh);
            let change = next.map(|next| self.change(Kind::Degrade, &truth, &next, &own, node, Step::Own));
            self.begin("degrades", state, node, change.expect("generations left"), holder.way);
        }
        let marked = !holder.marks || state.legs[node].marked;
        if holder.way == Way::Marking && marked {
            let change = self.change(Kind::Enrol, &truth, &truth, &own, node, Step::Peer);
            self.begin("enrols the peer", state, node, change, Way::Enrolling(Entry::Delta));
        }
        let clear = holder.way == Way::Copying && !holder.marks && holder.copy == Copying::None;
        if clear && generation <= self.scope.generations {
            let next = truth.rejoined(who, peer.as_ref(), fresh).expect("generations left");
            let change = self.change(Kind::Rejoin, &truth, &next, &own, node, Step::Own);
            self.begin("rejoins", state, node, change, Way::Rejoining);
        }
    }

    fn begin(&mut self, what: &'static str, state: &State, node: usize, change: Change, way: Way) {
        let mut next = *state;
        let holder = next.holder_mut(node).expect("it holds");
        (holder.change, holder.way) = (Some(change), way);
        self.push(what, node, next);
    }

    fn change_steps(&mut self, state: &State, node: usize, holder: &Holder, change: Change) {
        match change.step {
            Step::Arbiter if state.asks[node].is_none() => {
                let mut next = *state;
                let asked = *self.book.get(change.next).config();
                next.asks[node] = Some(Ask { from: holder.has, next: self.book.config_number(asked) });
                self.push("asks the arbiter", node, next);
            }
            Step::Own => {
                let mut next = *state;
                let own = self.book.get(state.legs[node].sb).clone();
                let said = Truth::of(self.book.get(change.next)).on(&own, leg_index(node));
                next.legs[node].sb = self.book.number(said);
                self.own_durable(&mut next, node, change);
                self.push("writes its superblock", node, next);
            }
            Step::Peer if takes_superblocks(holder.way) && holder.peer.is_some() => {
                if state.has_room() {
                    let mut next = *state;
                    let theirs = self.book.get(holder.peer.expect("just seen")).clone();
                    let said = Truth::of(self.book.get(change.next)).on(&theirs, leg_index(node));
                    next.send(1 - node, What::Superblock(self.book.number(said)));
                    let sent = Some(Change { step: Step::PeerSent, ..change });
                    next.holder_mut(node).expect("it holds").change = sent;
                    self.push("writes the peer's superblock", node, next);
                }
            }
            Step::Peer => {
                let mut next = *state;
                next.holder_mut(node).expect("it holds").change = None;
                self.push("leaves the peer uninformed", node, next);
            }
            Step::Arbiter | Step::PeerSent => {}
        }
    }

    /// The own superblock says so: it is the truth now, and takes effect.
    fn own_durable(&mut self, next: &mut State, node: usize, change: Change) {
        let said = change.next;
        let both = self.book.get(said).config().in_sync == LegMask::both();
        let holder = next.holder_mut(node).expect("it holds");
        (holder.truth, holder.change) = (said, None);
        match change.kind {
            Kind::Open => holder.phase = if both { Phase::OpeningPeer } else { Phase::Serving },
            Kind::Degrade => {
                holder.marks |= holder.write.is_some();
                lose_peer(next, node);
                serve_without_peer(next, node);
            }
            Kind::Rejoin => {
                let sound = !holder.marks && matches!(holder.way, Way::Rejoining | Way::Joined);
                holder.change = sound.then_some(Change { step: Step::Peer, ..change });
            }
            Kind::Arm => {
                if let Way::Arming(entry) = holder.way {
                    self.fence(next, node, entry);
                }
            }
            Kind::Enrol => {}
        }
    }

    /// The peer's superblock says so.
    pub(super) fn peer_durable(&mut self, next: &mut State, node: usize, said: super::book::Sb) {
        let Some(holder) = next.holder_mut(node) else { return };
        holder.peer = Some(said);
        let Some(change) = holder.change.filter(|change| change.step == Step::PeerSent) else { return };
        holder.change = None;
        match (change.kind, holder.way) {
            (Kind::Enrol, Way::Enrolling(Entry::Member)) | (Kind::Rejoin, Way::Rejoining | Way::Joined) => {
                joined(next, node);
            }
            (Kind::Enrol, Way::Enrolling(_)) => holder.way = Way::Emptying,
            _ => {}
        }
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
            let swapped = state.arbiter == ask.from;
            if swapped {
                next.arbiter = ask.next;
            }
            self.push("loses the arbiter's answer", node, next);
            self.answer(next, node, ask, swapped);
        }
        if let Some(ask) = state.late {
            let mut next = State { late: None, ..*state };
            self.push("a late swap is lost", 0, next);
            if state.arbiter == ask.from {
                next.arbiter = ask.next;
                self.push("a late swap happens", 0, next);
            }
        }
    }

    fn answer(&mut self, mut next: State, node: usize, ask: Ask, swapped: bool) {
        let Some(holder) = next.holder(node) else { return };
        let Some(change) = holder.change.filter(|change| change.step == Step::Arbiter) else { return };
        let now = *self.book.get(holder.truth).config();
        let wanted = *self.book.config(ask.next);
        let verdict = if swapped {
            SwapVerdict::Done
        } else {
            on_refused_swap(&now, &wanted, Some(self.book.config(next.arbiter)))
        };
        match verdict {
            SwapVerdict::Done => {
                let holder = next.holder_mut(node).expect("it holds");
                (holder.has, holder.change) = (ask.next, Some(Change { step: Step::Own, ..change }));
                self.push("gets the arbiter's yes", node, next);
            }
            SwapVerdict::Lost(_) => {
                step_down(&mut next, node);
                self.push("gets the arbiter's no", node, next);
            }
            SwapVerdict::Older => {
                self.wrong("gets the arbiter's no", node, next, "the arbiter is older than a leg");
            }
        }
    }

    // --- The peer's leg ---

    fn look(&mut self, state: &State, node: usize, holder: &Holder) {
        let who = leg_index(node);
        let own = self.book.get(state.legs[node].sb).clone();
        let truth = self.truth_of(holder);
        let found = self.book.found(state.legs[1 - node].sb);
        let theirs = self.book.get(state.legs[1 - node].sb).clone();
        let mut next = *state;
        match on_found(&truth.on(&own, who), &found) {
            EntryVerdict::StepDown { .. } | EntryVerdict::TakenOver => {
                step_down(&mut next, node);
                self.push("sees a newer holder", node, next);
            }
            EntryVerdict::Bar(mirror::decide::Bar::Split) => {
                self.wrong("looks at the peer", node, next, "the legs have diverged (I11)");
            }
            EntryVerdict::Bar(_) => {}
            EntryVerdict::Member => {
                next.holder_mut(node).expect("it holds").peer = Some(state.legs[1 - node].sb);
                self.fence(&mut next, node, Entry::Member);
                self.push("fences a member", node, next);
            }
            EntryVerdict::Resync(plan) if holder.change.is_none() => {
                let armed = truth.armed(who, plan, &own, &theirs);
                if armed.fence > self.scope.generations {
                    return;
                }
                let change = self.change(Kind::Arm, &truth, &armed, &own, node, Step::Own);
                let holder = next.holder_mut(node).expect("it holds");
                holder.peer = Some(state.legs[1 - node].sb);
                (holder.change, holder.way) = (Some(change), Way::Arming(entry_of(plan)));
                self.push("arms", node, next);
            }
            EntryVerdict::Resync(_) => {}
        }
    }

    /// The peer's guard is asked to let nobody else in. What this holder has on the wire is older than that.
    fn fence(&mut self, next: &mut State, node: usize, entry: Entry) {
        let (far, holder) = (1 - node, next.holder(node).expect("it holds"));
        if !next.is_connected() {
            return lose_peer(next, node);
        }
        let generation = u8::try_from(self.truth_of(&holder).fence).expect("a small scope");
        let key = Key(u8::try_from(node).expect("0 or 1"), generation);
        if next.guards[far].fencing.is_some_and(|(_, waits)| waits == Waits::No) {
            // One fence after the other.
            return lose_peer(next, node);
        }
        if next.take_fence(far, key) {
            next.holder_mut(node).expect("it holds").way = Way::Fencing(entry);
        } else {
            lose_peer(next, node);
        }
    }

    /// What the guard of `node` does with a fence under way (R10).
    pub(super) fn fence_steps(&mut self, state: &State, node: usize) {
        let Some((key, waits)) = state.guards[node].fencing else { return };
        let stored = Key::from(self.book.get(state.legs[node].sb).fence) == key;
        let mut next = *state;
        if stored {
            if is_drained(state.in_flight(node)) {
                let guard = &mut next.guards[node];
                (guard.fencing, guard.age) = (None, 0);
                if waits == Waits::Yes {
                    guard.key = Some(key);
                    self.let_in(&mut next, 1 - node);
                }
                self.push("lets the peer in", node, next);
            }
            return;
        }
        match state.roles[node] {
            Role::Holder(holder) if holder.phase != Phase::Leaving => {
                step_down(&mut next, node);
                self.push("makes way", node, next);
            }
            Role::Hold(_) | Role::Promoting(_) => {
                next.roles[node] = Role::Standby;
                self.push("makes way", node, next);
            }
            Role::Standby if is_drained(state.in_flight(node)) => {
                let mut own = self.book.get(state.legs[node].sb).clone();
                if own.fence.generation > u64::from(key.1) {
                    refuse_fence(&mut next, node);
                    return self.push("refuses a fence", node, next);
                }
                own.fence = key.into();
                next.legs[node].sb = self.book.number(own);
                self.push("stores a fence", node, next);
            }
            Role::Standby | Role::Holder(_) | Role::Down => {}
        }
    }

    /// The peer's leg is fenced for us: once more, what is there?
    fn let_in(&mut self, next: &mut State, node: usize) {
        if next.roles[node] == Role::Hold(Claim::Asked) {
            next.roles[node] = Role::Hold(Claim::Granted);
            return;
        }
        let Some(Way::Fencing(entry)) = next.holder(node).map(|holder| holder.way) else { return };
        let far = next.legs[1 - node];
        let theirs = self.book.get(far.sb).clone();
        let holder = next.holder(node).expect("just seen");
        let truth = self.truth_of(&holder);
        next.holder_mut(node).expect("it holds").peer = Some(far.sb);
        match entry {
            Entry::Member if theirs.history == truth.history => joined(next, node),
            Entry::Member if holder.change.is_some() => lose_peer(next, node),
            Entry::Member => {
                let own = self.book.get(next.legs[node].sb).clone();
                let change = self.change(Kind::Enrol, &truth, &truth, &own, node, Step::Peer);
                let holder = next.holder_mut(node).expect("it holds");
                (holder.change, holder.way) = (Some(change), Way::Enrolling(Entry::Member));
            }
            Entry::Delta | Entry::Full => {
                let plan = match entry {
                    Entry::Full => SyncPlan::Full(FullReason::Reverted),
                    Entry::Delta | Entry::Member => SyncPlan::Delta,
                };
                let marks = self.book.unite(holder.marks, plan, far.logged, far.marked);
                let holder = next.holder_mut(node).expect("it holds");
                (holder.marks, holder.way) = (marks, Way::Marking);
            }
        }
    }

    /// The lease is renewed; or the guard does not know us any more.
    pub(super) fn heartbeat(&mut self, state: &State, node: usize, holder: &Holder) {
        if !matches!(holder.way, Way::Copying | Way::Rejoining | Way::Joined) || !state.is_connected() {
            return;
        }
        let mut next = *state;
        let guard = &mut next.guards[1 - node];
        if may_write(guard.stands.into(), guard.key.map(Into::into)).is_ok() {
            guard.age = 0;
            next.holder_mut(node).expect("it holds").lease = super::LEASE;
            if next != *state {
                self.push("renews its lease", node, next);
            }
        } else {
            lose_peer(&mut next, node);
            self.push("is locked out", node, next);
        }
    }
}

const fn entry_of(plan: SyncPlan) -> Entry {
    match plan {
        SyncPlan::Delta => Entry::Delta,
        SyncPlan::Full(_) => Entry::Full,
    }
}

const fn takes_superblocks(way: Way) -> bool {
    matches!(way, Way::Enrolling(_) | Way::Emptying | Way::Copying | Way::Rejoining | Way::Joined)
}

/// The peer's leg carries every acknowledged write.
fn joined(state: &mut State, node: usize) {
    let holder = state.holder_mut(node).expect("it holds");
    holder.way = Way::Joined;
    if holder.phase == Phase::OpeningPeer {
        holder.phase = Phase::Serving;
    }
}

fn serve_without_peer(state: &mut State, node: usize) {
    let holder = state.holder_mut(node).expect("it holds");
    if holder.phase == Phase::OpeningPeer {
        holder.phase = Phase::Serving;
    }
}

/// The way to the peer's leg is lost: what was on it fails, and begins anew.
pub(super) fn lose_peer(state: &mut State, node: usize) {
    if let Role::Hold(claim) = &mut state.roles[node] {
        *claim = Claim::None;
    }
    let Some(holder) = state.holder_mut(node) else { return };
    let pending = holder.write.is_some();
    if matches!(holder.way, Way::Copying | Way::Rejoining) && pending {
        holder.marks = true;
    }
    if let Some(write) = &mut holder.write
        && write.peer == Part::Sent
    {
        write.peer = Part::Failed;
    }
    holder.way = Way::Away;
    holder.copy = Copying::None;
    if holder.change.is_some_and(|change| matches!(change.step, Step::Peer | Step::PeerSent)) {
        holder.change = None;
    }
}

/// A newer generation is at work: nothing is acknowledged any more.
pub(super) fn step_down(state: &mut State, node: usize) {
    state.asks[node].take().into_iter().for_each(|ask| state.late = state.late.or(Some(ask)));
    let Some(holder) = state.holder_mut(node) else { return };
    holder.phase = Phase::Leaving;
    holder.change = None;
    leave(state, node);
}

/// A holder that leaves ends when nothing of its own is on its way to its own leg.
pub(super) fn leave(state: &mut State, node: usize) {
    let Some(holder) = state.holder(node) else { return };
    let quiet = holder.write.is_none_or(|write| write.own != Part::Sent);
    if holder.phase == Phase::Leaving && quiet {
        state.roles[node] = Role::Standby;
    }
}

/// Whoever asked for the fence under way is told that somebody else has the leg.
pub(super) fn refuse_fence(state: &mut State, node: usize) {
    if let Some((_, Waits::Yes)) = state.guards[node].fencing.take() {
        lose_peer(state, 1 - node);
    }
}
