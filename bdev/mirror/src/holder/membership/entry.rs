//! How the peer's leg comes in: probed, fenced, looked at once more, marked, enrolled, emptied, copied to.

use std::collections::VecDeque;

use bdev::{Completed, FenceKey, IoError};

use super::super::change::Kind;
use super::super::{Ctx, Doubt, Holder};
use super::{Differences, Entry, Membership, Outstanding, PeerLeg};
use crate::bitmap::{ClearedBy, Urgency};
use crate::decide::{
    Able, Bar, EntryVerdict, Refusal, SecondLook, SyncPlan, on_found, on_second_look, unite,
};
use crate::desk::{Purpose, Side};
use crate::events::{BarCause, EventKind};
use crate::format::copies::Numbering;
use crate::format::{ArbiterKind, BlockWrite, Reason, Superblock};
use crate::intent_log::emptying;
use crate::probe::LegFound;
use crate::range::ByteRange;
use crate::reader::{Reader, Reading, differences, found, unit_state};
use crate::store::Store;

impl Holder {
    pub(super) fn on_reading(&mut self, job: u32, completed: &Completed, ctx: &mut Ctx<'_>) {
        let (Membership::Probing(reader) | Membership::Loading(_, reader)) = &mut self.membership else {
            return;
        };
        match reader.on_done(job, completed, ctx.desk) {
            Reading::Continues => {}
            Reading::Lost(error) => self.lose_peer(error, ctx),
            Reading::Done(images) => {
                let leg = found(self.peer_size, &images, ctx.setup.array);
                match self.membership {
                    Membership::Loading(entry, _) => self.on_loaded(entry, &leg, &images, ctx),
                    _ => self.on_probed(&leg, ctx),
                }
            }
        }
    }

    pub(super) fn on_probed(&mut self, leg: &LegFound, ctx: &mut Ctx<'_>) {
        // What we say about the array may be newer than our own superblock, when our leg is the one that failed.
        let ours = self.says(leg, ctx.own.current());
        let verdict = on_found(&ours, leg);
        let verdict = self.on_diverged(&ours, leg, verdict);
        let verdict = self.as_blocks_allow(verdict, ctx);
        if verdict != EntryVerdict::TakenOver {
            self.doubt = Doubt::None;
        }
        let entry = match verdict {
            EntryVerdict::Member => Entry::Member,
            EntryVerdict::Resync(plan) => Entry::Resync(plan),
            EntryVerdict::TakenOver => {
                ctx.note(EventKind::PeerTakesOver);
                return self.step_down(ctx);
            }
            EntryVerdict::StepDown { newer } => {
                ctx.note(EventKind::PeerWentOn { generation: newer.generation() });
                return self.step_down(ctx);
            }
            EntryVerdict::Bar(why) => {
                let split = why.is_split();
                self.bar(why.into(), ctx);
                match split {
                    // Whoever was promoted by force has the arbiter's word, and this node has not.
                    true if self.is_outranked(leg) => self.step_down(ctx),
                    true => self.remember_split(),
                    false => {}
                }
                return;
            }
        };
        let LegFound::Leg(leg) = leg else { return };
        if entry != Entry::Member && self.change.is_some() {
            // Later. What is remembered of the peer is what it was, not what was just found: that may have been set back.
            return self.enter(Membership::Away);
        }
        self.peer = Some(PeerLeg { store: Store::peer(leg.superblock.clone(), self.attempt) });
        self.enter(Membership::Arming(entry));
        match entry {
            Entry::Member => self.fence(entry, ctx),
            Entry::Resync(plan) => self.arm(plan, &leg.superblock, ctx),
        }
    }

    /// A leg whose device has larger blocks than the array is not let in: it would miss writes that it says it has.
    fn as_blocks_allow(&self, verdict: EntryVerdict, ctx: &Ctx<'_>) -> EntryVerdict {
        match (verdict, self.layout.check_blocks(ctx.desk.block_size(Side::Peer))) {
            (EntryVerdict::Member | EntryVerdict::Resync(_), Err(error)) => {
                EntryVerdict::Bar(Bar::Refused(Refusal::Blocks(error)))
            }
            (verdict, _) => verdict,
        }
    }

    /// The arbiter knows the config of the diverged leg, and ours no longer.
    fn is_outranked(&self, found: &LegFound) -> bool {
        let LegFound::Leg(leg) = found else { return false };
        let theirs = leg.superblock.config().generation();
        self.arbiter == ArbiterKind::Etcd && theirs > self.config().generation()
    }

    /// The own superblock says that the legs have diverged.
    fn remember_split(&mut self) {
        let next = self.truth.split(self.who);
        if self.change_kind().is_none() && next != self.truth {
            self.begin_change(Kind::Track, next, Able::Both);
        }
    }

    pub(super) fn bar(&mut self, why: BarCause, ctx: &mut Ctx<'_>) {
        ctx.note(EventKind::PeerBarred(why.clone()));
        self.bar_peer(why, ctx);
    }

    /// The own superblock says which generation comes, before the peer's guard hears of it (R8).
    pub(super) fn arm(&mut self, plan: SyncPlan, theirs: &Superblock, ctx: &mut Ctx<'_>) {
        if let SyncPlan::Full(why) = plan {
            ctx.note(EventKind::FullCopy(why));
        }
        let next = self.truth.armed(self.who, plan, ctx.own.current(), theirs);
        self.begin_change(Kind::Arm, next, Able::Both);
    }

    pub(super) fn fence(&mut self, entry: Entry, ctx: &mut Ctx<'_>) {
        let key = FenceKey { node: self.who.number(), generation: self.truth.fence };
        ctx.desk.fence(key, Purpose::Fence { attempt: self.attempt });
        self.enter(Membership::Fencing(entry));
    }

    pub(super) fn on_fenced(&mut self, result: Result<(), IoError>, ctx: &mut Ctx<'_>) {
        let Membership::Fencing(entry) = self.membership else { return };
        match result {
            Ok(()) => {
                let layout = self.peer.as_ref().map_or(self.layout, |peer| peer.store.current().layout);
                let mut reader = match entry {
                    Entry::Member => Reader::of_identity(Side::Peer, self.attempt, self.peer_size),
                    Entry::Resync(_) => {
                        Reader::of_everything(Side::Peer, self.attempt, self.peer_size, &layout)
                    }
                };
                reader.poke(ctx.desk);
                self.enter(Membership::Loading(entry, Box::new(reader)));
            }
            // Somebody has a newer generation: look again, the superblock says who.
            Err(IoError::Fenced) => self.look_who_is_there(ctx),
            Err(error) => self.lose_peer(error, ctx),
        }
    }

    pub(super) fn on_loaded(&mut self, entry: Entry, leg: &LegFound, images: &[Vec<u8>], ctx: &mut Ctx<'_>) {
        let look = self.peer.as_ref().map(|peer| on_second_look(peer.store.current(), leg));
        let theirs = match (look, leg) {
            (Some(SecondLook::Same), LegFound::Leg(found)) => &found.superblock,
            (Some(SecondLook::WentOn), _) => return self.go_away(Reason::LinkLost, ctx),
            _ => return self.bar(BarCause::Changed, ctx),
        };
        self.peer = Some(PeerLeg { store: Store::peer(theirs.clone(), self.attempt) });
        let theirs_unit = unit_state(images, theirs.array);
        self.take_unit_state(entry, theirs_unit);
        match entry {
            Entry::Member => self.enter_member(theirs, ctx),
            Entry::Resync(plan) => {
                let (log, bitmap) = differences(images, theirs);
                unite(&mut self.bitmap, plan, &log, &bitmap, self.layout.log.extent_shift);
                self.enter(Membership::Marking(plan, Some(Box::new(Differences { log, bitmap }))));
            }
        }
    }

    pub(super) fn enter_member(&mut self, theirs: &Superblock, ctx: &mut Ctx<'_>) {
        let knows = theirs.history == self.truth.history && theirs.run_state == self.truth.run_state;
        if self.change.is_some() {
            return if knows { self.join_unmarked(theirs, ctx) } else { self.go_away(Reason::LinkLost, ctx) };
        }
        self.resume(theirs, ctx);
        if self.is_joined() {
            return self.mark_soon(ctx);
        }
        self.enter(Membership::Enrolling(Entry::Member, None));
        self.begin_enrolment(ctx);
    }

    pub(super) fn enrol(&mut self, ctx: &mut Ctx<'_>) {
        let Membership::Marking(plan, differences) = &mut self.membership else { return };
        let next = Membership::Enrolling(Entry::Resync(*plan), differences.take());
        self.enter(next);
        self.begin_change(Kind::Enrol, self.marked(Numbering::Mark.adds(), ctx), Able::Only(Side::Peer));
        self.drive_change(ctx);
    }

    /// One of our own changes took effect.
    pub(in crate::holder) fn membership_changed(&mut self, kind: Kind, ctx: &mut Ctx<'_>) {
        match (kind, &mut self.membership) {
            (Kind::Arm, Membership::Arming(entry)) => {
                let entry = *entry;
                self.fence(entry, ctx);
            }
            (Kind::Enrol, Membership::Enrolling(Entry::Member, _)) => self.joined(ctx),
            (Kind::Enrol, Membership::Enrolling(Entry::Resync(_), differences)) => {
                let differences = differences.take();
                self.reunited();
                if let Some(differences) = differences {
                    self.begin_emptying(*differences, ctx);
                }
                self.track();
            }
            _ => {}
        }
    }

    /// The bitmap says everything about the peer's leg from now on, so that a copy that is cut off can go on.
    pub(super) fn track(&mut self) {
        let seen = self.peer.as_ref().map(|peer| peer.store.current().seq);
        let next = self.truth.tracked(self.who, seen);
        self.begin_change(Kind::Track, next, Able::Both);
    }

    pub(super) fn begin_emptying(&mut self, differences: Differences, ctx: &Ctx<'_>) {
        let Differences { log, mut bitmap } = differences;
        let generation = self.config().generation();
        let ring = emptying(ctx.own.current().array, self.layout.log, &log, generation)
            .map(|transaction| transaction.write);
        let mut blocks: VecDeque<BlockWrite> = ring.collect();
        bitmap.clear(ByteRange::new(0, self.layout.data_size), ClearedBy::Operator);
        while let Some(page) = bitmap.next_page(Urgency::Everything, generation) {
            blocks.push_back(page.write);
            bitmap.on_durable(page.page);
        }
        self.enter(Membership::Emptying(blocks));
        self.emptying = Outstanding::No;
    }

    pub(super) fn empty_next(&mut self, ctx: &mut Ctx<'_>) {
        if self.emptying == Outstanding::Yes {
            return;
        }
        let tracking = self.change_kind() == Some(Kind::Track);
        let Membership::Emptying(blocks) = &mut self.membership else { return };
        match blocks.front() {
            // Until the own superblock knows this session, a copy of the leg from before it could pass for the leg.
            None if tracking => {}
            None => {
                ctx.note(EventKind::ResyncBegun { bytes: self.bitmap.set_bytes() });
                self.enter(Membership::Copying);
                self.next_heartbeat = ctx.now();
            }
            Some(write) if ctx.desk.has_block() => {
                ctx.desk.write_block(Side::Peer, write, Purpose::Emptying { attempt: self.attempt });
                blocks.pop_front();
                self.emptying = Outstanding::Yes;
            }
            Some(_) => {}
        }
    }

    pub(super) fn on_emptied(&mut self, result: Result<(), IoError>, ctx: &mut Ctx<'_>) {
        self.emptying = Outstanding::No;
        match result {
            Ok(()) => self.empty_next(ctx),
            Err(error) => self.lose_peer(error, ctx),
        }
    }

    /// Both legs were flushed after the last copy.
    pub(in crate::holder) fn on_rejoin_flushed(&mut self, ctx: &mut Ctx<'_>) {
        if !self.bitmap.is_clear() || self.change.is_some() || !self.resync.is_idle() {
            return;
        }
        let back = match self.membership {
            Membership::Copying => Side::Peer,
            Membership::Joined if self.copy_target() == Some(Side::Own) => Side::Own,
            _ => return,
        };
        if !self.has_state(back, ctx) {
            return;
        }
        if back == Side::Peer {
            self.enter(Membership::Rejoining);
        }
        self.begin_rejoin(back, ctx);
    }

    /// The peer's leg carries every acknowledged write.
    pub(in crate::holder) fn joined(&mut self, ctx: &mut Ctx<'_>) {
        self.enter(Membership::Joined);
        ctx.note(EventKind::PeerJoined);
        self.unit.forget_returning();
        self.lost_since = None;
        self.thaw(ctx);
        self.next_heartbeat = ctx.now();
        self.unpark(ctx);
    }
}
