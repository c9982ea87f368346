//! Hosts at a holder: one write at a time, through the log, to the legs, to its acknowledgement; and reads.

use core::time::Duration;

use bdev::IoError;
use engine::Instant;
use mirror::decide::{Judgement, Patience, judge, may_read, may_write};
use mirror::format::{Config, LegIndex};
use mirror::intent_log::{CacheState, Entry, ExtentFacts, Marks, Writes, may_leave, may_send};

use super::state::{Copying, Holder, Log, Medium, OwnLeg, Part, Phase, State, Way, What, Write};
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
        let leaves = matches!(holder.phase, Phase::Leaving(_));
        if leaves || !self.has_journal(node, holder) || state.legs[node].medium == Medium::Broken {
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
        if state.next_value > self.scope.writes || holder.copy != Copying::None {
            return;
        }
        let journal = self.has_journal(node, holder);
        let mut next = *state;
        let value = state.next_value;
        next.next_value += 1;
        let holder = next.holder_mut(node).expect("it holds");
        holder.write = Some(Write { value, own: Part::Due, peer: Part::Due });
        if holder.log == Log::Free && journal {
            holder.log = Log::Unwritten;
        }
        self.push("takes a write", node, next);
    }

    fn go_on(&mut self, state: &State, node: usize, holder: &Holder, write: Write) {
        let entry = if holder.log == Log::Durable { Entry::Durable } else { Entry::Unwritten };
        let leaves = matches!(holder.phase, Phase::Leaving(_));
        let logged = may_send(entry) || !self.has_journal(node, holder);
        if write.own == Part::Due && !leaves && logged {
            self.send_write(state, node, holder, write);
        }
        if write.own == Part::Sent && state.legs[node].medium == Medium::Sound {
            let mut next = *state;
            next.legs[node].value = write.value;
            let holder = next.holder_mut(node).expect("it holds");
            holder.write = Some(Write { own: Part::Done, ..write });
            Self::after_own_write(&mut next, node);
            self.push("its leg has the write", node, next);
        }
        if matches!(write.own, Part::Done | Part::Failed | Part::None) && !leaves {
            self.judge_write(state, node, holder, write);
        }
    }

    /// A leg takes it where it counts, and where it is current though it does not count yet (R7).
    fn send_write(&mut self, state: &State, node: usize, holder: &Holder, write: Write) {
        let (who, in_sync) = (leg_index(node), self.in_sync(holder));
        let current = matches!(holder.way, Way::Copying | Way::Rejoining);
        let mut next = *state;
        let to_peer = in_sync.has(who.other()) || (current && !holder.marks);
        let to_own = in_sync.has(who) || (holder.own == OwnLeg::Copying && !holder.marks);
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
        let own = if to_own { Part::Sent } else { Part::None };
        let holder = next.holder_mut(node).expect("it holds");
        holder.marks |= peer == Part::None || own == Part::None;
        holder.write = Some(Write { own, peer, ..write });
        self.push("sends the write", node, next);
    }

    /// All legs have answered (R3).
    fn judge_write(&mut self, state: &State, node: usize, holder: &Holder, write: Write) {
        let who = leg_index(node);
        let failure = |leg: LegIndex| if leg == who { IoError::Os(5) } else { IoError::LinkDown };
        let config = Config { in_sync: self.binding(holder), ..*self.book.get(holder.truth).config() };
        let (mut missed, mut reported) = (false, false);
        for (leg, part) in [(who.other(), write.peer), (who, write.own)] {
            match part {
                Part::Due | Part::Sent => return,
                Part::Done => {}
                Part::None => missed = true,
                Part::Failed => {
                    match judge(self.scope.policy, &config, who, leg, failure(leg), Patience::Left) {
                        Judgement::Irrelevant => missed = true,
                        Judgement::Report => reported = true,
                        Judgement::Wait if leg != who => return self.send_again(state, node, holder, write),
                        Judgement::Wait | Judgement::Again => return,
                    }
                }
            }
        }
        let mut next = *state;
        let holder = next.holder_mut(node).expect("it holds");
        holder.write = None;
        holder.marks |= missed || reported;
        if reported {
            return self.push("reports an error", node, next);
        }
        let line = self.book.line(holder.truth);
        next.acknowledged[line] = next.acknowledged[line].max(write.value);
        next.seen[line] = next.seen[line].max(write.value);
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
        let Some(value) = self.read_from(state, node, holder) else { return };
        let line = self.book.line(holder.truth);
        if value < state.seen[line] {
            return self.wrong("reads", node, *state, "a read goes back in time (I12, I19)");
        }
        if value > state.seen[line] {
            let mut next = *state;
            next.seen[line] = value;
            self.push("reads", node, next);
        }
    }

    /// The own leg where it counts and can be read, or else the peer's where that counts and its guard lets us.
    fn read_from(&self, state: &State, node: usize, holder: &Holder) -> Option<u8> {
        let (who, in_sync) = (leg_index(node), self.in_sync(holder));
        let (own, far) = (&state.legs[node], &state.legs[1 - node]);
        if in_sync.has(who) && own.medium == Medium::Sound {
            return Some(own.value);
        }
        let guard = &state.guards[1 - node];
        let lets_in = may_write(guard.stands.into(), guard.key.map(Into::into)).is_ok();
        let there = holder.way == Way::Joined && lets_in && far.medium == Medium::Sound;
        (in_sync.has(who.other()) && there).then_some(far.value)
    }

    /// Copies the block to the peer's leg, when no write holds it.
    fn copy(&mut self, state: &State, node: usize, holder: &Holder) {
        let able =
            holder.copy == Copying::None && state.has_room() && state.legs[node].medium == Medium::Sound;
        if holder.way == Way::Copying && holder.marks && able {
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
