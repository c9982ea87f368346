//! Hosts at a holder: one write at a time, through the log, to the legs, to its acknowledgement; and reads.

use core::time::Duration;

use bdev::IoError;
use engine::Instant;
use mirror::decide::{Judgement, Patience, judge, may_read};
use mirror::intent_log::{CacheState, Entry, ExtentFacts, Marks, Writes, may_leave, may_send};

use super::state::{Copying, Holder, Log, Part, Phase, State, Way, What, Write};
use super::{Model, leg_index};

impl Model {
    pub(super) fn write_steps(&mut self, state: &State, node: usize, holder: &Holder) {
        self.heartbeat(state, node, holder);
        self.log_steps(state, node, holder);
        match holder.write {
            None if holder.phase == Phase::Serving => {
                self.accept(state, node, holder);
                self.read(state, node, holder);
                self.copy(state, node, holder);
            }
            None => {}
            Some(write) => self.go_on(state, node, holder, write),
        }
    }

    fn with(&mut self, what: &'static str, state: &State, node: usize, change: impl FnOnce(&mut Holder)) {
        let mut next = *state;
        change(next.holder_mut(node).expect("it holds"));
        self.push(what, node, next);
    }

    // --- The log ---

    fn log_steps(&mut self, state: &State, node: usize, holder: &Holder) {
        if holder.phase == Phase::Leaving {
            return;
        }
        match holder.log {
            Log::Free => {}
            Log::Unwritten => {
                let mut next = *state;
                next.legs[node].logged = true;
                next.holder_mut(node).expect("it holds").log = Log::Durable;
                self.push("writes its log", node, next);
            }
            Log::Durable => {
                let unmarked = holder.marks && !state.legs[node].marked;
                let facts = ExtentFacts {
                    writes: if holder.write.is_some() { Writes::Pending } else { Writes::Ended },
                    cache: CacheState::Stable,
                    marks: if unmarked { Marks::Unwritten } else { Marks::Durable },
                };
                if may_leave(facts).is_ok() {
                    let mut next = *state;
                    next.legs[node].logged = false;
                    next.holder_mut(node).expect("it holds").log = Log::Free;
                    self.push("frees its log", node, next);
                }
            }
        }
    }

    // --- Writes ---

    fn accept(&mut self, state: &State, node: usize, holder: &Holder) {
        if state.next_value > self.scope.writes || holder.copy == Copying::Sent {
            return;
        }
        let mut next = *state;
        let value = state.next_value;
        next.next_value += 1;
        let holder = next.holder_mut(node).expect("it holds");
        holder.write = Some(Write { value, own: Part::Due, peer: Part::Due });
        if holder.log == Log::Free {
            holder.log = Log::Unwritten;
        }
        self.push("takes a write", node, next);
    }

    fn go_on(&mut self, state: &State, node: usize, holder: &Holder, write: Write) {
        let entry = if holder.log == Log::Durable { Entry::Durable } else { Entry::Unwritten };
        if write.own == Part::Due && holder.phase != Phase::Leaving && may_send(entry) {
            self.send_write(state, node, holder, write);
        }
        if write.own == Part::Sent {
            let mut next = *state;
            next.legs[node].value = write.value;
            let holder = next.holder_mut(node).expect("it holds");
            holder.write = Some(Write { own: Part::Done, ..write });
            Self::after_own_write(&mut next, node);
            self.push("its leg has the write", node, next);
        }
        if write.own == Part::Done && holder.phase != Phase::Leaving {
            self.judge_write(state, node, holder, write);
        }
    }

    /// The peer's leg takes it where it counts, and where it is current though it does not count yet (R7).
    fn send_write(&mut self, state: &State, node: usize, holder: &Holder, write: Write) {
        let both = self.is_both(holder);
        let current = matches!(holder.way, Way::Copying | Way::Rejoining);
        let mut next = *state;
        let to_peer = both || (current && !holder.marks);
        let ours = current || holder.way == Way::Joined;
        let peer = match (to_peer, ours) {
            (false, _) => Part::None,
            (true, false) => Part::Failed,
            (true, true) if !state.has_room() => return,
            (true, true) => {
                next.send(1 - node, What::Data(write.value));
                Part::Sent
            }
        };
        let holder = next.holder_mut(node).expect("it holds");
        holder.marks |= peer == Part::None;
        holder.write = Some(Write { own: Part::Sent, peer, ..write });
        self.push("sends the write", node, next);
    }

    /// All legs have answered (R3).
    fn judge_write(&mut self, state: &State, node: usize, holder: &Holder, write: Write) {
        let who = leg_index(node);
        let missed = match write.peer {
            Part::Due | Part::Sent => return,
            Part::Done => false,
            Part::None => true,
            Part::Failed => {
                let config = self.book.get(holder.truth).config();
                match judge(self.scope.policy, config, who, who.other(), IoError::LinkDown, Patience::Left) {
                    Judgement::Irrelevant => true,
                    Judgement::Report | Judgement::Again => return,
                    Judgement::Wait => return self.send_again(state, node, holder, write),
                }
            }
        };
        let mut next = *state;
        let holder = next.holder_mut(node).expect("it holds");
        holder.write = None;
        holder.marks |= missed;
        next.acknowledged = next.acknowledged.max(write.value);
        next.seen = next.seen.max(write.value);
        self.push("acknowledges", node, next);
    }

    /// The leg is back, and still counts.
    fn send_again(&mut self, state: &State, node: usize, holder: &Holder, write: Write) {
        if holder.way == Way::Joined && state.has_room() {
            let mut next = *state;
            next.send(1 - node, What::Data(write.value));
            next.holder_mut(node).expect("it holds").write = Some(Write { peer: Part::Sent, ..write });
            self.push("sends the write again", node, next);
        }
    }

    // --- Reads and copies ---

    fn read(&mut self, state: &State, node: usize, holder: &Holder) {
        let tick = Duration::from_secs(1);
        let now = Instant::EPOCH + tick;
        let lease_until = now + tick * u32::from(holder.lease);
        let config = self.book.get(holder.truth).config();
        if !may_read(config, now, lease_until) {
            return;
        }
        let value = state.legs[node].value;
        if value < state.seen {
            return self.wrong("reads", node, *state, "a read goes back in time (I12, I19)");
        }
        if value > state.seen {
            let mut next = *state;
            next.seen = value;
            self.push("reads", node, next);
        }
    }

    /// Copies the block to the peer's leg, when no write holds it.
    fn copy(&mut self, state: &State, node: usize, holder: &Holder) {
        if holder.way == Way::Copying && holder.marks && holder.copy == Copying::None && state.has_room() {
            let mut next = *state;
            next.send(1 - node, What::Copy(state.legs[node].value));
            next.holder_mut(node).expect("it holds").copy = Copying::Sent;
            self.push("copies", node, next);
        }
        if holder.copy == Copying::Sent && holder.way != Way::Copying {
            self.with("gives the copy up", state, node, |holder| holder.copy = Copying::None);
        }
    }
}
