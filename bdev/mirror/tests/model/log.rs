//! Exhaustive small-scope search over the rules of the intent log (R1, R4, R6) with volatile caches on both
//! legs.
//!
//! Two blocks in two extents, a log of one slot, a holder with its local leg and a remote leg. Every order of
//! writes, flushes, page writes, evictions, a remote restart that loses its cache, and a holder crash that
//! loses memory and cache. Whether data may go to an extent, and whether it may leave, is asked of the very functions
//! that the intent log asks. Breaking any rule must be caught.

use std::collections::{BTreeMap, VecDeque};

use mirror::intent_log::{CacheState, Entry, ExtentFacts, Held, Marks, Writes, may_leave, may_send};
use mirror::mutation::{self, Mutation};

const VALUES: u8 = 3;
const FAULTS: u8 = 3;

/// One block on both legs: what a read sees and what a power cut leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Block {
    local: u8,
    local_durable: u8,
    remote: u8,
    remote_durable: u8,
}

/// A write on its way: to the local leg first, then to the remote one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pending {
    block: usize,
    value: u8,
    at: Leg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Leg {
    None,
    Local,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sync {
    Both,
    HolderOnly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    blocks: [Block; 2],
    pending: Option<Pending>,
    /// The extent in the slot: in memory, and on disk.
    logged: Option<usize>,
    logged_durable: Option<usize>,
    /// Marks by block: in memory, and on disk.
    marks: [bool; 2],
    marks_durable: [bool; 2],
    sync: Sync,
    next_value: u8,
    acknowledged: [u8; 2],
    faults: u8,
}

/// The rule that a run breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// By the switch in the code itself.
    Rule(Mutation),
    /// R4: an extent leaves with a write pending.
    LeavePending,
    /// A degrade does not mark what is logged.
    DegradeUnmarked,
    /// A holder that lost its cache copies from itself.
    HolderIsSource,
    /// R4 in recovery: the survivor is not flushed before the slots are freed.
    SurvivorUnflushed,
}

impl Broken {
    fn may_leave(self, facts: ExtentFacts) -> bool {
        match (self, may_leave(facts)) {
            (_, Ok(())) | (Self::LeavePending, Err(Held::Busy)) => true,
            (_, Err(_)) => false,
        }
    }
}

const START: State = State {
    blocks: [Block { local: 0, local_durable: 0, remote: 0, remote_durable: 0 }; 2],
    pending: None,
    logged: None,
    logged_durable: None,
    marks: [false; 2],
    marks_durable: [false; 2],
    sync: Sync::Both,
    next_value: 1,
    acknowledged: [0; 2],
    faults: 0,
};

impl State {
    fn facts(&self, extent: usize) -> ExtentFacts {
        let block = self.blocks[extent];
        let pending = self.pending.is_some_and(|pending| pending.block == extent);
        let remote_stable = block.remote == block.remote_durable || self.sync == Sync::HolderOnly;
        let stable = block.local == block.local_durable && remote_stable;
        let marked = !self.marks[extent] || self.marks_durable[extent];
        ExtentFacts {
            writes: if pending { Writes::Pending } else { Writes::Ended },
            cache: if stable { CacheState::Stable } else { CacheState::Volatile },
            marks: if marked { Marks::Durable } else { Marks::Unwritten },
        }
    }

    fn successors(self, broken: Broken) -> Vec<(&'static str, Self)> {
        let mut next = Vec::new();
        self.log_steps(broken, &mut next);
        self.write_steps(&mut next);
        for (name, leg) in [("flush local", Leg::Local), ("flush remote", Leg::None)] {
            let mut state = self;
            for block in &mut state.blocks {
                match leg {
                    Leg::Local => block.local_durable = block.local,
                    Leg::None => block.remote_durable = block.remote,
                }
            }
            next.push((name, state));
        }
        if self.faults < FAULTS {
            next.push(("remote restarts", self.remote_restarts(broken)));
            next.push(("holder crashes", self.holder_crashes(broken)));
        }
        if self.sync == Sync::HolderOnly && self.pending.is_none() {
            next.push(("resync", self.resync()));
        }
        next
    }

    fn log_steps(self, broken: Broken, next: &mut Vec<(&'static str, Self)>) {
        match self.logged {
            None => {
                for extent in 0..2 {
                    next.push(("activate", Self { logged: Some(extent), ..self }));
                }
            }
            Some(extent) if self.logged_durable != self.logged => {
                next.push(("transaction durable", Self { logged_durable: Some(extent), ..self }));
            }
            Some(extent) if broken.may_leave(self.facts(extent)) => {
                next.push(("evict", Self { logged: None, logged_durable: None, ..self }));
            }
            Some(_) => {}
        }
        next.push(("page durable", Self { marks_durable: self.marks, ..self }));
    }

    fn write_steps(self, next: &mut Vec<(&'static str, Self)>) {
        let Some(Pending { block, value, at }) = self.pending else {
            let Some(block) = self.logged else { return };
            let durable = self.logged_durable == self.logged;
            let active = may_send(if durable { Entry::Durable } else { Entry::Unwritten });
            if active && self.next_value <= VALUES {
                let pending = Some(Pending { block, value: self.next_value, at: Leg::None });
                let mut state = Self { pending, next_value: self.next_value + 1, ..self };
                state.marks[block] |= self.sync == Sync::HolderOnly;
                next.push(("write", state));
            }
            return;
        };
        let mut state = self;
        match (at, self.sync) {
            (Leg::None, _) => {
                state.blocks[block].local = value;
                state.pending = Some(Pending { block, value, at: Leg::Local });
                next.push(("local leg has it", state));
            }
            (Leg::Local, sync) => {
                if sync == Sync::Both {
                    state.blocks[block].remote = value;
                }
                state.pending = None;
                state.acknowledged[block] = value;
                next.push(("acknowledge", state));
            }
        }
    }

    /// The remote node restarts without its cache; the holder degrades.
    fn remote_restarts(mut self, broken: Broken) -> Self {
        self.faults += 1;
        self.sync = Sync::HolderOnly;
        for block in &mut self.blocks {
            block.remote = block.remote_durable;
        }
        if let Some(extent) = self.logged.filter(|_| broken != Broken::DegradeUnmarked) {
            self.marks[extent] = true;
        }
        self
    }

    /// The holder crashes without its cache, starts again, and settles what its log says.
    fn holder_crashes(mut self, broken: Broken) -> Self {
        self.faults += 1;
        self.pending = None;
        self.marks = self.marks_durable;
        for block in &mut self.blocks {
            block.local = block.local_durable;
        }
        if let Some(extent) = self.logged_durable {
            self.settle(extent, broken);
        }
        self.marks_durable = self.marks;
        (self.logged, self.logged_durable) = (None, None);
        if self.sync == Sync::HolderOnly {
            // A lone leg that lost its cache: what was not flushed is gone, and may be.
            for (acknowledged, block) in self.acknowledged.iter_mut().zip(&self.blocks) {
                *acknowledged = block.local.min(*acknowledged);
            }
        }
        self
    }

    fn settle(&mut self, extent: usize, broken: Broken) {
        let block = &mut self.blocks[extent];
        match self.sync {
            Sync::HolderOnly => self.marks[extent] = true,
            Sync::Both if broken == Broken::HolderIsSource => {
                (block.remote, block.remote_durable) = (block.local, block.local);
            }
            Sync::Both => {
                (block.local, block.local_durable) = (block.remote, block.remote);
                if broken != Broken::SurvivorUnflushed {
                    block.remote_durable = block.remote;
                }
            }
        }
    }

    fn resync(mut self) -> Self {
        for (block, marked) in self.blocks.iter_mut().zip(self.marks) {
            if marked {
                let value = block.local;
                *block = Block { local: value, local_durable: value, remote: value, remote_durable: value };
            }
        }
        Self { marks: [false; 2], marks_durable: [false; 2], sync: Sync::Both, ..self }
    }

    fn violation(&self) -> Option<&'static str> {
        for (at, block) in self.blocks.iter().enumerate() {
            let in_flight = self.pending.is_some_and(|pending| pending.block == at);
            if block.local < self.acknowledged[at] && !in_flight {
                return Some("an acknowledged write is lost");
            }
            if self.sync == Sync::Both && !in_flight && block.local != block.remote {
                return Some("the legs differ in silence (I6)");
            }
            let covered = self.logged_durable == Some(at) || self.marks_durable[at];
            if block.local != block.remote && !covered {
                return Some("the legs differ outside every durable log and bitmap (I5)");
            }
        }
        None
    }
}

/// Searches every state; gives the number of states, or the shortest way to a violation.
fn search(broken: Broken) -> Result<usize, String> {
    let rule = if let Broken::Rule(rule) = broken { Some(rule) } else { None };
    let _broken = mutation::Broken::rule(rule);
    let mut seen = BTreeMap::from([(START, None)]);
    let mut queue = VecDeque::from([START]);
    while let Some(state) = queue.pop_front() {
        for (step, next) in state.successors(broken) {
            if seen.contains_key(&next) {
                continue;
            }
            seen.insert(next, Some((state, step)));
            if let Some(violation) = next.violation() {
                return Err(format!("{violation}: {}", path(&seen, next).join(" > ")));
            }
            queue.push_back(next);
        }
    }
    Ok(seen.len())
}

fn path(seen: &BTreeMap<State, Option<(State, &'static str)>>, mut at: State) -> Vec<&'static str> {
    let mut steps = Vec::new();
    while let Some((before, step)) = seen[&at] {
        steps.push(step);
        at = before;
    }
    steps.reverse();
    steps
}

#[test]
fn the_rules_hold_in_every_state() {
    let states = search(Broken::Nothing).expect("no violation");
    println!("{states} states");
    assert!(states > 10_000, "the search has lost its scope: {states} states");
}

#[test]
fn breaking_any_rule_is_caught() {
    for broken in [
        Broken::Rule(Mutation::R1DataBeforeLog),
        Broken::LeavePending,
        Broken::Rule(Mutation::R4LeaveUnflushed),
        Broken::Rule(Mutation::R6LeaveUnmarked),
        Broken::DegradeUnmarked,
        Broken::HolderIsSource,
        Broken::SurvivorUnflushed,
    ] {
        let caught = search(broken).expect_err("a broken rule goes unnoticed");
        println!("{broken:?}: {caught}");
    }
}
