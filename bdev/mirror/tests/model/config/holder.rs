//! The holder: changes of the config, one step durable before the next, and the way of the peer's leg back in.

use mirror::decide::{
    EntryVerdict, FullReason, SecondLook, SyncPlan, is_drained, may_write, on_found, on_second_look,
};
use mirror::format::{LegMask, Superblock};

use super::state::{
    Claim, Copying, End, Entry, Hold, Holder, Key, Kind, Medium, Message, Part, Phase, Role, Session, State,
    Waits, Way, What, long, short,
};
use super::{Model, leg_index};

impl Model {
    pub(super) fn holder_steps(&mut self, state: &State, node: usize, holder: &Holder) {
        if matches!(holder.phase, Phase::Leaving(_)) {
            return;
        }
        match holder.change {
            Some(change) => self.change_steps(state, node, holder, change),
            None => self.new_changes(state, node, holder),
        }
        let readable = state.is_connected() && state.legs[1 - node].medium == Medium::Sound;
        if holder.way == Way::Away && holder.phase != Phase::Opening && readable {
            self.look(state, node, holder);
        }
        if holder.way == Way::Emptying && state.has_room() {
            self.send_once(state, node, What::Empty);
        }
        let orphaned = holder.phase == Phase::OpeningPeer
            && self.in_sync(holder) == LegMask::only(leg_index(node).other());
        if orphaned && holder.way != Way::Joined && holder.change.is_none() {
            let mut next = *state;
            leave(&mut next, node, End::Orphaned);
            self.push("is orphaned", node, next);
        }
        let writes = self.has_journal(node, holder) && state.legs[node].medium == Medium::Sound;
        if writes && holder.marks != state.legs[node].marked {
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

    // --- The peer's leg ---

    fn look(&mut self, state: &State, node: usize, holder: &Holder) {
        let who = leg_index(node);
        let own = self.book.get(state.legs[node].sb).clone();
        let truth = self.truth_of(holder);
        let ours = self.says(state, node, holder);
        let found = self.book.found(state.legs[1 - node].sb);
        let theirs = self.book.get(state.legs[1 - node].sb).clone();
        let mut next = *state;
        match on_found(&ours, &found) {
            EntryVerdict::StepDown { .. } | EntryVerdict::TakenOver => {
                leave(&mut next, node, End::Superseded);
                self.push("sees a newer holder", node, next);
            }
            EntryVerdict::Bar(why) if why.is_divergence() && !self.may_split(state) => {
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
                if self.is_beyond(armed.fence) {
                    return;
                }
                let change = self.change(Kind::Arm, (&truth, &armed), &own, node);
                let holder = next.holder_mut(node).expect("it holds");
                holder.peer = Some(state.legs[1 - node].sb);
                (holder.change, holder.way) = (Some(change), Way::Arming(entry_of(plan)));
                self.push("arms", node, next);
            }
            EntryVerdict::Resync(_) => {}
        }
    }

    /// The peer's guard is asked to let nobody else in. What this holder has on the wire is older than that.
    pub(super) fn fence(&mut self, next: &mut State, node: usize, entry: Entry) {
        let (far, holder) = (1 - node, next.holder(node).expect("it holds"));
        if !next.is_connected() {
            return self.lose_peer(next, node);
        }
        let generation = short(self.truth_of(&holder).fence);
        let key = Key(u8::try_from(node).expect("0 or 1"), generation);
        if next.guards[far].fencing.is_some_and(|(_, waits)| waits == Waits::No) {
            // One fence after the other.
            return self.lose_peer(next, node);
        }
        if next.take_fence(far, key) {
            next.holder_mut(node).expect("it holds").way = Way::Fencing(entry);
        } else {
            self.lose_peer(next, node);
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
            Role::Holder(holder) if !matches!(holder.phase, Phase::Leaving(_)) => {
                leave(&mut next, node, End::Superseded);
                self.push("makes way", node, next);
            }
            Role::Hold(_) | Role::Promoting(_) => {
                next.roles[node] = Role::Standby;
                self.push("makes way", node, next);
            }
            Role::Standby
                if is_drained(state.in_flight(node)) && state.legs[node].medium == Medium::Sound =>
            {
                let mut own = self.book.get(state.legs[node].sb).clone();
                if own.fence.generation > long(key.1) {
                    self.refuse_fence(&mut next, node);
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
        if let Role::Hold(hold) = &mut next.roles[node] {
            if hold.claim == Claim::Asked {
                hold.claim = Claim::Granted;
            }
            return;
        }
        let Some(Way::Fencing(entry)) = next.holder(node).map(|holder| holder.way) else { return };
        let far = next.legs[1 - node];
        let theirs = self.book.get(far.sb).clone();
        let holder = next.holder(node).expect("just seen");
        let decided_on = next.holder(node).and_then(|holder| holder.peer).expect("it was found");
        if on_second_look(self.book.get(decided_on), &self.book.found(far.sb)) != SecondLook::Same {
            return self.lose_peer(next, node);
        }
        next.holder_mut(node).expect("it holds").peer = Some(far.sb);
        match entry {
            Entry::Member => self.enter_member(next, node, &theirs),
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

    fn enter_member(&mut self, next: &mut State, node: usize, theirs: &Superblock) {
        let holder = next.holder(node).expect("it holds");
        let truth = self.truth_of(&holder);
        let knows = theirs.history == truth.history && theirs.run_state == truth.run_state;
        if holder.change.is_none() {
            self.resume(next, node);
        }
        let way = next.holder(node).map(|holder| holder.way);
        match (way, knows, holder.change) {
            (Some(Way::Joined), ..) => {}
            // Its number is another model's matter.
            (_, true, _) => joined(next, node),
            (_, false, Some(_)) => self.lose_peer(next, node),
            (_, false, None) => {
                let own = self.book.get(next.legs[node].sb).clone();
                let change = self.change(Kind::Enrol, (&truth, &truth), &own, node);
                let holder = next.holder_mut(node).expect("it holds");
                (holder.change, holder.way) = (Some(change), Way::Enrolling(Entry::Member));
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
            self.lose_peer(&mut next, node);
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

pub(super) const fn takes_superblocks(way: Way) -> bool {
    matches!(way, Way::Enrolling(_) | Way::Emptying | Way::Copying | Way::Rejoining | Way::Joined)
}

/// The peer's leg carries every acknowledged write.
pub(super) fn joined(state: &mut State, node: usize) {
    let holder = state.holder_mut(node).expect("it holds");
    holder.way = Way::Joined;
    if holder.phase == Phase::OpeningPeer {
        holder.phase = Phase::Serving;
    }
}

pub(super) fn serve_without_peer(state: &mut State, node: usize) {
    let holder = state.holder_mut(node).expect("it holds");
    if holder.phase == Phase::OpeningPeer {
        holder.phase = Phase::Serving;
    }
}

impl Model {
    /// The way to the peer's leg is lost: what was on it fails, and begins anew.
    pub(super) fn lose_peer(&self, state: &mut State, node: usize) {
        if let Role::Hold(hold) = &mut state.roles[node] {
            hold.claim = Claim::None;
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
        if holder.copy == Copying::Sent {
            holder.copy = Copying::None;
        }
        self.abandon_peer_step(state, node);
        end_if_quiet(state, node);
    }

    /// Whoever asked for the fence under way is told that somebody else has the leg.
    pub(super) fn refuse_fence(&self, state: &mut State, node: usize) {
        if let Some((_, Waits::Yes)) = state.guards[node].fencing.take() {
            self.lose_peer(state, 1 - node);
        }
    }
}

/// Nothing is acknowledged any more.
pub(super) fn leave(state: &mut State, node: usize, end: End) {
    state.asks[node].take().into_iter().for_each(|ask| state.late = state.late.or(Some(ask)));
    let Some(holder) = state.holder_mut(node) else { return };
    holder.phase = Phase::Leaving(end);
    holder.change = None;
    end_if_quiet(state, node);
}

/// A holder that leaves ends when nothing of its own is on its way to its own leg; and to the peer's, where this node may be the
/// next one that holds.
pub(super) fn end_if_quiet(state: &mut State, node: usize) {
    let Some(holder) = state.holder(node) else { return };
    let Phase::Leaving(end) = holder.phase else { return };
    let writes = holder.write.is_some_and(|write| write.own == Part::Sent);
    let copies = matches!(holder.copy, Copying::Read(_));
    let sent = |message: &Message| usize::from(message.to) != node && message.session == Session::Current;
    if writes || copies || (end == End::Orphaned && state.wire.iter().flatten().any(sent)) {
        return;
    }
    state.roles[node] = match end {
        End::Superseded => Role::Standby,
        End::Orphaned => Role::Hold(Hold::AGAIN),
    };
}
