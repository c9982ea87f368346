//! What is between the nodes: messages that arrive, come late or get lost; nodes that crash; lines that are cut.

use mirror::decide::may_write;

use super::Model;
use super::book::Sb;
use super::holder::end_if_quiet;
use super::state::{
    AGE_MAX, Cause, Claim, Copying, Hold, Line, Medium, Message, Part, Place, Promotion, Role, Session,
    State, Way, What,
};

impl Model {
    pub(super) fn wire_steps(&mut self, state: &State) {
        for at in 0..state.wire.len() {
            let Some(message) = state.wire[at] else { continue };
            if state.wire[..at].contains(&Some(message)) {
                continue;
            }
            match message.at {
                Place::Wire => self.arrive(state, at, message),
                Place::Disk => self.land(state, at, message),
            }
        }
    }

    /// The guard lets it through, or not; what an old session left may also be lost.
    fn arrive(&mut self, state: &State, at: usize, message: Message) {
        let (to, from) = (usize::from(message.to), usize::from(1 - message.to));
        let guard = state.guards[to];
        let mut next = *state;
        if message.session != Session::Current {
            next.wire[at] = None;
            next.tidy();
            self.push("a late message is lost", to, next);
        }
        let key = match message.session {
            Session::Current => guard.key,
            Session::Old => guard.old,
            Session::Former => guard.former,
        };
        let mut next = *state;
        if may_write(guard.stands.into(), key.map(Into::into)).is_ok() {
            next.wire[at] = Some(Message { at: Place::Disk, ..message });
            next.guards[to].age = 0;
        } else {
            next.wire[at] = None;
            if message.session == Session::Current {
                self.lose_peer(&mut next, from);
            }
        }
        next.tidy();
        self.push("a message arrives", to, next);
    }

    fn effect(&self, state: &mut State, to: usize, what: What) {
        if let What::Superblock(said) = what {
            self.observe(state, to, said);
        }
        let leg = &mut state.legs[to];
        match what {
            What::Data(value) | What::Copy(value) => leg.value = value,
            What::Superblock(said) => leg.sb = said,
            What::Empty => (leg.logged, leg.marked) = (false, false),
        }
    }

    /// A standby that the old holder names as the holder begins to serve.
    fn observe(&self, state: &mut State, node: usize, said: Sb) {
        let (before, said) = (self.book.id(state.legs[node].sb), self.book.get(said));
        let given = said.config().id != before && said.config().holder == said.index && said.is_in_sync();
        if given && state.roles[node] == Role::Standby {
            state.roles[node] = Role::Hold(Hold { claim: Claim::None, cause: Cause::Given });
        }
    }

    fn land(&mut self, state: &State, at: usize, message: Message) {
        let (to, from) = (usize::from(message.to), usize::from(1 - message.to));
        let mut next = *state;
        next.wire[at] = None;
        next.tidy();
        if state.legs[to].medium == Medium::Broken {
            if message.session == Session::Current {
                self.lose_peer(&mut next, from);
            }
            return self.push("a message lands nowhere", to, next);
        }
        self.effect(&mut next, to, message.what);
        if message.session == Session::Current {
            self.landed(&mut next, from, message.what);
        }
        end_if_quiet(&mut next, from);
        self.push("a message lands", to, next);
    }

    /// The holder hears that its message has landed.
    fn landed(&mut self, next: &mut State, node: usize, what: What) {
        if let What::Superblock(said) = what {
            return self.peer_durable(next, node, said);
        }
        let Some(holder) = next.holder_mut(node) else { return };
        match what {
            What::Data(value) => {
                if let Some(write) =
                    holder.write.as_mut().filter(|write| write.value == value && write.peer == Part::Sent)
                {
                    write.peer = Part::Done;
                }
            }
            What::Copy(_) if holder.copy == Copying::Sent => {
                (holder.copy, holder.marks) = (Copying::None, false);
            }
            What::Empty if holder.way == Way::Emptying => holder.way = Way::Copying,
            What::Copy(_) | What::Empty | What::Superblock(_) => {}
        }
    }

    // --- The world ---

    pub(super) fn world_steps(&mut self, state: &State) {
        self.tick(state);
        self.mend_media(state);
        self.restore_steps(state);
        if state.spent.crashes < self.scope.crashes {
            for node in 0..2 {
                if state.is_up(node) {
                    self.crash(state, node);
                }
            }
        }
        if state.spent.cuts < self.scope.cuts {
            self.cut(state);
        }
    }

    /// A second passes, where somebody waits for it. What could have passed before makes no difference: the lease and the
    /// wait for its end count from the same message.
    fn tick(&mut self, state: &State) {
        let waits = |node: usize| {
            let fenced = matches!(state.roles[node], Role::Promoting(promoting) if promoting.stage == Promotion::Fenced);
            fenced && state.guards[node].age < AGE_MAX
        };
        if !waits(0) && !waits(1) {
            return;
        }
        let mut next = *state;
        for node in 0..2 {
            if let Some(holder) = next.holder_mut(node) {
                holder.lease = holder.lease.saturating_sub(1);
            }
            let age = &mut next.guards[node].age;
            *age = (*age + 1).min(AGE_MAX);
        }
        if next != *state {
            self.push("a second passes", 0, next);
        }
    }

    /// Power fails at a node: what was on its way to its leg is there, or not.
    fn crash(&mut self, state: &State, node: usize) {
        let mut base = *state;
        base.spent.crashes += 1;
        let mut pending: Vec<What> = Vec::new();
        for message in &mut base.wire {
            if let Some(gone) = message.take_if(|message| usize::from(message.to) == node)
                && gone.at == Place::Disk
            {
                pending.push(gone.what);
            }
        }
        if let Some(write) = state.holder(node).and_then(|holder| holder.write)
            && write.own == Part::Sent
        {
            pending.push(What::Data(write.value));
        }
        if let Some(Copying::Read(value)) = state.holder(node).map(|holder| holder.copy) {
            pending.push(What::Copy(value));
        }
        if base.legs[node].medium == Medium::Broken {
            pending.clear();
        }
        base.roles[node] = Role::Down;
        let guard = &mut base.guards[node];
        (guard.key, guard.old, guard.former, guard.fencing, guard.age) = (None, None, None, None, 0);
        guard.stands = self.book.get(base.legs[node].sb).fence.into();
        base.end_session(1 - node);
        self.lose_peer(&mut base, 1 - node);
        let ask = base.asks[node].take();
        base.late = base.late.or(ask);
        for survives in 0..1_u32 << pending.len() {
            let mut next = base;
            for (at, what) in pending.iter().enumerate() {
                if survives & 1 << at != 0 {
                    self.effect(&mut next, node, *what);
                }
            }
            self.push("crashes", node, next);
        }
    }

    fn cut(&mut self, state: &State) {
        let flipped = |line: Line| if line == Line::Up { Line::Cut } else { Line::Up };
        let mut next = *state;
        next.spent.cuts += 1;
        next.link = flipped(state.link);
        if next.link == Line::Cut {
            for node in 0..2 {
                next.end_session(node);
                self.lose_peer(&mut next, 1 - node);
            }
        }
        self.push(if next.link == Line::Up { "the link heals" } else { "the link is cut" }, 0, next);
        if self.has_arbiter() {
            for node in 0..2 {
                let mut next = *state;
                next.spent.cuts += 1;
                next.reach[node] = flipped(state.reach[node]);
                self.push("the way to the arbiter changes", node, next);
            }
        }
    }

    /// A holder that leaves, and has nothing on its way any more.
    pub(super) fn after_own_write(next: &mut State, node: usize) {
        end_if_quiet(next, node);
    }
}
