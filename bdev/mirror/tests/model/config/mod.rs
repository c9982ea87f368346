//! Exhaustive small-scope search over the config and fencing protocol (R1, R3, R8, R10, R11, the union at rejoin, the
//! read lease): two nodes, one block, an arbiter, messages that come late or never.
//!
//! Besides writes, crashes and lines that are cut there are what an operator does (a planned switchover, a promotion by force)
//! and a holder's medium that breaks: hosts are served through the peer's leg then, and a change may be suspended while the
//! world moves on. Each has a bound of its own in a [`Scope`].
//!
//! What a node says of the array is a real superblock, and every decision is asked of the function that production asks:
//! how to start, whether to promote, what a found leg is, the next config of each change, fences, leases, when a write is
//! acknowledged, what a rejoin copies, in which order a change becomes known. The model has the events between them and
//! nothing else.
//!
//! In every state: each leg that the newest config counts has every acknowledged write (I2), no read goes back (I12, I19),
//! legs that differ are named in a durable log or bitmap (I5), one config for each generation (I3), nothing diverges
//! (I11). Force begins a second line of configs: each holds for itself, and what the first acknowledged is not overwritten for
//! the second. An arbiter that is restored from a backup is looked at in one respect alone (`restored.rs`).

mod book;
mod change;
mod hand_over;
mod holder;
mod node;
mod own_leg;
mod restored;
mod seen;
mod state;
mod wire;
mod write;

use std::collections::{BTreeSet, VecDeque};

use mirror::format::{ArbiterKind, Config, LegIndex};
use mirror::mutation::{Broken, Mutation};

use book::{Book, Records};
use seen::Seen;
use state::{
    Copying, Guard, Holder, Key, LEASE, Leg, Line, Log, MESSAGES, Medium, OwnLeg, Phase, Role, Spent, State,
    Way, short,
};

/// How far a search goes.
#[derive(Clone, Copy, Debug)]
struct Scope {
    policy: ArbiterKind,
    records: Records,
    /// Writes of hosts, crashes of nodes, changes of a line.
    writes: u8,
    crashes: u8,
    cuts: u8,
    /// Planned switchovers, promotions by force, media that break under a holder.
    switchovers: u8,
    forces: u8,
    failures: u8,
    /// Backups that take the place of what the arbiter has.
    restores: u8,
    /// No config beyond this generation.
    generations: u64,
}

/// One event.
type Label = (&'static str, u8);

/// What a state leads to.
struct Model {
    scope: Scope,
    book: Book,
    next: Vec<(Label, State, Option<&'static str>)>,
}

fn leg_index(node: usize) -> LegIndex {
    LegIndex::BOTH[node]
}

impl Model {
    fn new(scope: Scope) -> (Self, State) {
        let (mut book, superblocks) = Book::new(scope.policy, scope.records);
        let arbiter = book.past_of(superblocks[0]);
        let has = book.newest_number(arbiter);
        let key = Key(0, 2);
        let leg = |sb| Leg { sb, value: 0, logged: false, marked: false, medium: Medium::Sound };
        let guard = |key: Option<Key>| Guard {
            stands: Key(0, 2),
            key,
            old: None,
            former: None,
            fencing: None,
            age: 0,
        };
        let holder = Holder {
            truth: superblocks[0],
            has,
            change: None,
            suspended: None,
            own: OwnLeg::Counted,
            phase: Phase::Serving,
            way: Way::Joined,
            peer: Some(superblocks[1]),
            log: Log::Free,
            marks: false,
            lease: LEASE,
            write: None,
            copy: Copying::None,
        };
        let start = State {
            legs: superblocks.map(leg),
            roles: [Role::Holder(holder), Role::Standby],
            guards: [guard(None), guard(Some(key))],
            wire: [None; MESSAGES],
            arbiter,
            backup: None,
            lost: None,
            asks: [None; 2],
            late: None,
            link: Line::Up,
            reach: [Line::Up; 2],
            acknowledged: [0; 2],
            seen: [0; 2],
            base: None,
            next_value: 1,
            spent: Spent::default(),
        };
        (Self { scope, book, next: Vec::new() }, start)
    }

    fn has_arbiter(&self) -> bool {
        self.scope.policy == ArbiterKind::Etcd
    }

    /// True where legs may be seen to have diverged: after a promotion by force; and without an arbiter where a holder wrote
    /// down a config before its peer heard of it, died, and the operator promoted the peer. Nothing is overwritten then.
    fn may_split(&self, state: &State) -> bool {
        state.base.is_some() || !self.has_arbiter()
    }

    /// True where the scope ends.
    fn is_beyond(&self, generation: u64) -> bool {
        generation & 0xffff_ffff > self.scope.generations
    }

    fn push(&mut self, what: &'static str, node: usize, mut state: State) {
        for node in 0..2 {
            // Only a node that could be promoted counts.
            if !matches!(state.roles[node], Role::Standby | Role::Promoting(_)) {
                state.guards[node].age = 0;
            }
            // A holder that serves binds its own guard.
            if state.holder(node).is_some_and(|holder| holder.phase == Phase::Serving) {
                let fence = self.book.get(state.legs[node].sb).fence.generation;
                self.raise(&mut state, node, short(fence));
            }
        }
        self.next.push(((what, u8::try_from(node).expect("0 or 1")), state, None));
    }

    /// An event that must not be.
    fn wrong(&mut self, what: &'static str, node: usize, state: State, why: &'static str) {
        // What an arbiter that has lost the newest says is wrong, and not what a node makes of it.
        if state.lost.is_none() {
            self.report(what, node, state, why);
        }
    }

    fn report(&mut self, what: &'static str, node: usize, state: State, why: &'static str) {
        self.next.push(((what, u8::try_from(node).expect("0 or 1")), state, Some(why)));
    }

    fn expand(&mut self, state: &State) {
        self.next.clear();
        for node in 0..2 {
            self.node_steps(state, node);
            self.fence_steps(state, node);
            if let Some(holder) = state.holder(node) {
                self.holder_steps(state, node, &holder);
                self.own_leg_steps(state, node, &holder);
                self.hand_over_steps(state, node, &holder);
                self.write_steps(state, node, &holder);
            }
        }
        self.wire_steps(state);
        self.arbiter_steps(state);
        self.world_steps(state);
    }

    /// What must hold in every state.
    fn violation(&self, state: &State) -> Option<&'static str> {
        if state.lost.is_some() {
            return None;
        }
        let [a, b] = &state.legs;
        let (ours, theirs) = (self.book.get(a.sb).config(), self.book.get(b.sb).config());
        let one_line = self.book.line(a.sb) == self.book.line(b.sb);
        if one_line && ours.generation() == theirs.generation() && ours.id != theirs.id {
            return Some("two configs of one generation (I3)");
        }
        for line in 0..2 {
            if let Some(violation) = self.line_violation(state, line) {
                return Some(violation);
            }
        }
        self.split_violation(state)
    }

    /// The newest config of a line, as far as a leg or the arbiter has it.
    fn newest(&self, state: &State, line: usize) -> Option<Config> {
        if self.has_arbiter() && self.book.line_of_past(state.arbiter) == line {
            return Some(*self.book.past(state.arbiter).current());
        }
        state.legs.iter().filter_map(|leg| self.book.newest_of(leg.sb, line)).max_by_key(Config::generation)
    }

    fn line_violation(&self, state: &State, line: usize) -> Option<&'static str> {
        let newest = self.newest(state, line)?;
        let on = |node: usize| self.book.line(state.legs[node].sb) == line;
        // A leg can be promoted when the newest config and its own superblock count it. While a rejoin is on its way the
        // arbiter counts the target, and its own superblock does not.
        let behind = |node: usize| {
            let counts =
                newest.in_sync.has(leg_index(node)) && self.book.get(state.legs[node].sb).is_in_sync();
            on(node) && counts && state.legs[node].value < state.acknowledged[line]
        };
        if behind(0) || behind(1) {
            return Some("a leg that counts lacks an acknowledged write (I2)");
        }
        let [a, b] = &state.legs;
        let named = a.logged || a.marked || b.logged || b.marked;
        if on(0) && on(1) && a.value != b.value && !named && !self.is_copied_whole(state) {
            return Some("the legs differ outside every durable log and bitmap (I5)");
        }
        None
    }

    /// One leg is out, and the superblock that says so does not say that anything tells what it misses.
    fn is_copied_whole(&self, state: &State) -> bool {
        let newest = state.legs.iter().map(|leg| self.book.get(leg.sb));
        let newest = newest.max_by_key(|superblock| superblock.config().generation()).expect("two legs");
        LegIndex::BOTH
            .into_iter()
            .any(|leg| !newest.config().in_sync.has(leg) && newest.legs[leg.index()].tracked_since == 0)
    }

    /// What was acknowledged and is not in the line that force began is on a leg of the other line, until the operator says
    /// that it may go. Here he never does.
    fn split_violation(&self, state: &State) -> Option<&'static str> {
        let base = state.base?;
        let lines = state.legs.map(|leg| self.book.line(leg.sb));
        let kept = |node: usize| lines[node] == 0 && state.legs[node].value >= state.acknowledged[0];
        let lost = lines.contains(&1) && state.acknowledged[0] > base && !kept(0) && !kept(1);
        lost.then_some("what force left behind is overwritten, and nobody was asked (I11)")
    }
}

/// What a search found: its size, and the kinds of events on the way.
struct Found {
    states: usize,
    events: BTreeSet<&'static str>,
}

/// Searches every state of a scope; or gives the shortest way to a violation.
fn search(scope: Scope, rule: Option<Mutation>) -> Result<Found, String> {
    let _broken = Broken::rule(rule);
    let (mut model, start) = Model::new(scope);
    let mut seen = Seen::default();
    seen.insert(&start);
    // By state, in the order in which they were found: where it came from, by which event.
    let mut origins: Vec<(u32, Label)> = vec![(0, ("start", 0))];
    let mut queue = VecDeque::from([(start, 0_u32)]);
    let mut events = BTreeSet::new();
    while let Some((state, at)) = queue.pop_front() {
        // An assertion of the code itself is a violation too.
        let expand = std::panic::AssertUnwindSafe(|| model.expand(&state));
        if std::panic::catch_unwind(expand).is_err() {
            return Err(format!(
                "a panic, after {} states: {}\n{state:#?}",
                origins.len(),
                path(&origins, at)
            ));
        }
        for (label, next, wrong) in std::mem::take(&mut model.next) {
            if !seen.insert(&next) && wrong.is_none() {
                continue;
            }
            events.insert(label.0);
            origins.push((at, label));
            let number = u32::try_from(origins.len() - 1).expect("a small scope");
            if let Some(violation) = wrong.or_else(|| model.violation(&next)) {
                let way = path(&origins, number);
                let (states, events) = (origins.len(), way.split(" > ").count());
                return Err(format!("{violation}: {events} events, after {states} states: {way}\n{next:#?}"));
            }
            queue.push_back((next, number));
        }
    }
    Ok(Found { states: origins.len(), events })
}

fn path(origins: &[(u32, Label)], mut at: u32) -> String {
    let mut labels = Vec::new();
    while at != 0 {
        let (from, (what, node)) = origins[at as usize];
        labels.push(format!("{node} {what}"));
        at = from;
    }
    labels.reverse();
    labels.join(" > ")
}

#[cfg(test)]
mod tests;
