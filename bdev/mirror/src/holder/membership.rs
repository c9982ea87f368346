//! The peer's leg, as the holder sees it: from "the link is up" to "in sync", and back.
//!
//! ```text
//! Away --> Probing --(a leg of ours)--> Arming --> Fencing --> Loading --+--(member)--> Enrolling --> Joined
//!   ^         '--(refused)--> Barred                                     '--(resync)--> Marking --> Enrolling
//!   |                                                                                     |
//!   '---- from everywhere: link down, error, new session          Rejoining <-- Copying <-- Emptying
//!                                                                     '--> Joined
//! ```
//!
//! Identity and generation are checked at every connect, before and after the fence; nothing is read or
//! written on a leg that is not fenced for us. A leg is copied to only after its own superblock says so, and
//! after the union of both bitmaps and both logs is durable on ours.

use std::collections::VecDeque;

use bdev::{Completed, FenceKey, IoError, Link, LinkDown};
use engine::Instant;

use super::change::Kind;
use super::read::heartbeat_range;
use super::{Ctx, Doubt, Freeze, Holder, Phase, Sides};
use crate::bitmap::{Bitmap, ClearedBy, Urgency};
use crate::decide::{PeerVerdict, SyncPlan, on_peer};
use crate::desk::{Purpose, Side};
use crate::format::{BlockWrite, LegFlags, Reason, Superblock};
use crate::intent_log::{Replay, emptying};
use crate::leg_state::{LegEvent, after};
use crate::probe::LegFound;
use crate::reader::{Reader, Reading, differences, found};
use crate::setup::Setup;
use crate::store::Store;

/// See the module.
#[derive(Debug)]
pub(crate) enum Membership {
    /// Not reachable.
    Away,
    /// What is there?
    Probing(Box<Reader>),
    /// Nothing that may be touched, or broken.
    Barred {
        /// In words.
        why: String,
        /// What a config without it would say.
        reason: Reason,
        /// When to look again.
        retry_at: Instant,
    },
    /// The own superblock learns the generation of the fence.
    Arming(Entry),
    /// The peer's guard is asked to let nobody else in.
    Fencing(Entry),
    /// Once more: what is there, now that nobody else can write it?
    Loading(Entry, Box<Reader>),
    /// The union of what may differ goes to the own leg.
    Marking(SyncPlan, Box<Differences>),
    /// The peer's superblock learns the config.
    Enrolling(Entry, Option<Box<Differences>>),
    /// The peer's log and bitmap, now part of ours, are emptied.
    Emptying(VecDeque<BlockWrite>),
    /// The resync runs; writes go to both legs where the peer's is current.
    Copying,
    /// Nothing differs: the config with both is on its way.
    Rejoining,
    /// In sync.
    Joined,
}

/// How a leg comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The config counts it and it has everything.
    Member,
    /// It has to be brought in sync.
    Resync(SyncPlan),
}

/// What the peer's own log and bitmap say.
#[derive(Debug)]
pub(crate) struct Differences {
    log: Replay,
    bitmap: Bitmap,
}

/// The peer's leg, fenced for us.
#[derive(Debug)]
pub(crate) struct PeerLeg {
    pub(super) store: Store,
}

impl Membership {
    /// In words, with the cause where something is wrong.
    pub(crate) fn in_words(&self) -> (&'static str, Option<String>) {
        match self {
            Self::Away => ("unreachable", None),
            Self::Probing(_) => ("probing", None),
            Self::Barred { why, .. } => ("refused", Some(why.clone())),
            Self::Arming(_)
            | Self::Fencing(_)
            | Self::Loading(..)
            | Self::Marking(..)
            | Self::Enrolling(..)
            | Self::Emptying(_) => ("joining", None),
            Self::Copying | Self::Rejoining => ("resync", None),
            Self::Joined => ("joined", None),
        }
    }

    /// Whether its superblock is ours to write.
    pub(super) const fn takes_superblocks(&self) -> bool {
        matches!(
            self,
            Self::Enrolling(..) | Self::Emptying(_) | Self::Copying | Self::Rejoining | Self::Joined
        )
    }
}

fn reason_of(error: IoError) -> Reason {
    match error {
        IoError::LinkDown | IoError::NotReady(_) | IoError::Aborted | IoError::Busy => Reason::LinkLost,
        IoError::TimedOut => Reason::TimedOut,
        _ => Reason::IoError,
    }
}

impl Holder {
    // --- Facts ---

    pub(super) fn is_joined(&self) -> bool {
        matches!(self.membership, Membership::Joined)
    }

    /// Everything that the bitmap does not mark is the same on the peer's leg: writes go to it too.
    pub(super) fn is_target_current(&self) -> bool {
        matches!(self.membership, Membership::Copying | Membership::Rejoining)
    }

    /// The peer's leg is fenced for us, and takes what we write.
    pub(super) fn is_peer_ours(&self) -> bool {
        self.is_joined() || self.is_target_current()
    }

    pub(super) fn membership_waits_for_marks(&self) -> bool {
        matches!(self.membership, Membership::Marking(..))
    }

    pub(super) fn membership_own_failure(&self) -> Option<Reason> {
        self.own_failure
    }

    /// Why the peer, which the config counts, has to go; `None` while there is hope.
    pub(super) fn peer_to_drop(&self, ctx: &Ctx<'_>) -> Option<Reason> {
        match &self.membership {
            Membership::Joined | Membership::Rejoining => None,
            Membership::Barred { reason, .. } => Some(*reason),
            _ => {
                let since = self.lost_since?;
                (ctx.now() >= since + ctx.setup.timing.grace).then_some(self.lost_reason)
            }
        }
    }

    pub(super) fn membership_deadline(&self, link: &Link, setup: &Setup) -> Option<Instant> {
        let grace = self.lost_since.filter(|_| self.is_both()).map(|since| since + setup.timing.grace);
        let next = match &self.membership {
            Membership::Away if link.is_up() => Some(self.next_probe),
            Membership::Barred { retry_at, .. } => Some(*retry_at),
            Membership::Copying | Membership::Rejoining | Membership::Joined => Some(self.next_heartbeat),
            _ => None,
        };
        let journal = Some(self.journal.retry_at()).filter(|at| *at != Instant::EPOCH);
        Instant::earliest(Instant::earliest(grace, next), journal)
    }

    // --- The link ---

    /// Starts to look for the peer, which the config may count already.
    pub(super) fn expect_peer(&mut self, ctx: &mut Ctx<'_>) {
        if self.in_sync().has(Side::Peer) {
            self.lost_since = Some(ctx.now());
        }
        self.watch_link(ctx);
    }

    pub(super) fn watch_link(&mut self, ctx: &mut Ctx<'_>) {
        if matches!(self.phase, Phase::Leaving(_) | Phase::Ended(_) | Phase::Opening(super::Opening::Config))
        {
            return;
        }
        match ctx.link {
            Link::Down(why) => self.on_link_down(&why.clone(), ctx),
            Link::Up { session, geometry, .. } => {
                if self.session != Some(*session) {
                    self.on_link_down(&LinkDown::Lost("a new session".to_owned()), ctx);
                    self.session = Some(*session);
                    ctx.desk.set_peer_block_size(geometry.block_size);
                    self.peer_size = geometry.bytes();
                }
                self.probe_if_due(ctx);
            }
        }
    }

    fn on_link_down(&mut self, why: &LinkDown, ctx: &mut Ctx<'_>) {
        self.session = None;
        if !matches!(self.membership, Membership::Away) {
            let words = match why {
                LinkDown::Connecting => "not connected yet".to_owned(),
                LinkDown::Silent => "no sign of life".to_owned(),
                LinkDown::Lost(words) | LinkDown::Refused(words) => words.clone(),
            };
            ctx.note(format!("the peer's leg is unreachable: {words}"));
            self.go_away(Reason::LinkLost, ctx);
        }
    }

    fn probe_if_due(&mut self, ctx: &mut Ctx<'_>) {
        let due = match &self.membership {
            Membership::Away => ctx.now() >= self.next_probe,
            Membership::Barred { retry_at, .. } => ctx.now() >= *retry_at && !self.in_sync().has(Side::Peer),
            _ => false,
        };
        if !due || !self.wants_peer() {
            return;
        }
        self.next_probe = ctx.now() + core::time::Duration::from_millis(100);
        self.attempt += 1;
        let mut reader = Reader::of_identity(Side::Peer, self.attempt, self.peer_size);
        reader.poke(ctx.desk);
        self.membership = Membership::Probing(Box::new(reader));
    }

    /// A stop has no use for a peer that is not in the config any more.
    fn wants_peer(&self) -> bool {
        self.in_sync().has(Side::Peer) || !matches!(self.phase, Phase::Closing(_))
    }

    /// An I/O on the peer's leg failed in a way that ends the session with it.
    pub(super) fn lose_peer(&mut self, error: IoError, ctx: &mut Ctx<'_>) {
        match error {
            IoError::Fenced => self.look_who_is_there(ctx),
            IoError::LinkDown
            | IoError::TimedOut
            | IoError::NotReady(_)
            | IoError::Aborted
            | IoError::Busy => {
                ctx.note(format!("the peer's leg: {error}"));
                self.go_away(reason_of(error), ctx);
            }
            _ => {
                ctx.note(format!("the peer's leg reports: {error}"));
                self.go_away(Reason::IoError, ctx);
                self.membership = Membership::Barred {
                    why: error.to_string(),
                    reason: Reason::IoError,
                    retry_at: ctx.now() + ctx.setup.timing.retry,
                };
            }
        }
    }

    /// The peer's guard does not know us: a new session, or a newer generation. Its superblock says which.
    fn look_who_is_there(&mut self, ctx: &mut Ctx<'_>) {
        if self.in_sync().has(Side::Peer) {
            self.doubt = Doubt::Fenced;
        }
        self.go_away(Reason::LinkLost, ctx);
    }

    fn go_away(&mut self, reason: Reason, ctx: &mut Ctx<'_>) {
        if self.is_target_current() {
            self.mark_exposed();
        }
        if self.in_sync().has(Side::Peer) && self.lost_since.is_none() {
            self.lost_since = Some(ctx.now());
            self.lost_reason = reason;
        }
        self.attempt += 1;
        self.resync.cut_off();
        self.membership = Membership::Away;
        self.abandon_peer_step(ctx);
    }

    /// A config without the peer is durable: whatever it was about to be, it begins anew.
    pub(super) fn drop_member(&mut self, ctx: &mut Ctx<'_>) {
        self.lost_since = None;
        if !matches!(self.membership, Membership::Barred { .. }) {
            self.go_away(Reason::LinkLost, ctx);
        }
    }

    /// A leg failed an I/O.
    pub(super) fn leg_failed(&mut self, side: Side, error: IoError, ctx: &mut Ctx<'_>) {
        match side {
            Side::Peer if matches!(self.membership, Membership::Away | Membership::Barred { .. }) => {}
            Side::Peer => self.lose_peer(error, ctx),
            Side::Own => {
                if self.own_failure.is_none() {
                    ctx.note(format!("this node's leg reports: {error}"));
                    self.own_failure = Some(reason_of(error));
                }
            }
        }
    }

    pub(super) fn bar_peer(&mut self, why: &str, ctx: &mut Ctx<'_>) {
        self.go_away(Reason::IoError, ctx);
        let retry_at = ctx.now() + ctx.setup.timing.retry;
        self.membership = Membership::Barred { why: why.to_owned(), reason: Reason::LinkLost, retry_at };
    }

    // --- Coming in ---

    /// Goes on where a state waits for something other than an I/O.
    pub(super) fn drive_membership(&mut self, ctx: &mut Ctx<'_>) {
        match &mut self.membership {
            Membership::Probing(reader) | Membership::Loading(_, reader) => reader.poke(ctx.desk),
            Membership::Marking(..) if self.change.is_none() && self.bitmap.is_all_durable() => {
                self.enrol(ctx);
            }
            Membership::Emptying(_) => self.empty_next(ctx),
            _ => {}
        }
        self.heartbeat(ctx);
    }

    /// A part of the way is done.
    pub(super) fn on_membership(&mut self, purpose: Purpose, completed: &Completed, ctx: &mut Ctx<'_>) {
        match purpose {
            Purpose::Read { job } if job == self.attempt => self.on_reading(job, completed, ctx),
            Purpose::Fence { attempt } if attempt == self.attempt => self.on_fenced(completed.result, ctx),
            Purpose::Emptying { attempt } if attempt == self.attempt => {
                self.on_emptied(completed.result, ctx);
            }
            Purpose::Heartbeat { attempt, sent } if attempt == self.attempt => {
                self.on_heartbeat(sent, completed.result, ctx);
            }
            _ => {}
        }
    }

    fn on_reading(&mut self, job: u32, completed: &Completed, ctx: &mut Ctx<'_>) {
        let (Membership::Probing(reader) | Membership::Loading(_, reader)) = &mut self.membership else {
            return;
        };
        match reader.on_done(job, completed, ctx.desk) {
            Reading::Continues => {}
            Reading::Lost(error) => self.lose_peer(error, ctx),
            Reading::Done(images) => {
                let leg = found(self.peer_size, &images, ctx.setup.array);
                match core::mem::replace(&mut self.membership, Membership::Away) {
                    Membership::Loading(entry, _) => self.on_loaded(entry, &leg, &images, ctx),
                    _ => self.on_probed(&leg, ctx),
                }
            }
        }
    }

    fn verdict(&self, leg: &LegFound, ctx: &Ctx<'_>) -> PeerVerdict {
        // What we say about the array may be newer than our own superblock, when our leg is the one that failed.
        on_peer(&self.truth.on(ctx.own.current(), self.who), leg)
    }

    /// The peer has fenced its own leg, and is on its way to a newer config.
    fn is_taking_over(&self, leg: &LegFound) -> bool {
        let LegFound::Leg(leg) = leg else { return false };
        let FenceKey { node, generation } = leg.superblock.fence;
        self.in_sync().has(Side::Peer) && node != self.who.number() && generation > self.truth.fence
    }

    fn on_probed(&mut self, leg: &LegFound, ctx: &mut Ctx<'_>) {
        if self.is_taking_over(leg) {
            ctx.note("the peer takes over");
            return self.step_down(ctx);
        }
        self.doubt = Doubt::None;
        let entry = match self.verdict(leg, ctx) {
            PeerVerdict::Member => Entry::Member,
            // The first config of this start counts the peer, and the peer does not know it yet.
            PeerVerdict::Resync(SyncPlan::Delta) if self.may_enter_as_member(leg) => Entry::Member,
            PeerVerdict::Resync(plan) => Entry::Resync(plan),
            PeerVerdict::StepDown { newer } => {
                ctx.note(format!("the peer went on in generation {}", newer.generation()));
                return self.step_down(ctx);
            }
            PeerVerdict::Split { .. } => {
                return self
                    .bar("the two legs have diverged: nothing is overwritten; choose one side by hand", ctx);
            }
            PeerVerdict::Refuse(refusal) => return self.bar(&refusal.to_string(), ctx),
        };
        let LegFound::Leg(leg) = leg else { return };
        if matches!(entry, Entry::Resync(_)) && self.in_sync().has(Side::Peer) {
            return self.bar("the leg at the peer is not the one that was in sync", ctx);
        }
        self.peer = Some(PeerLeg { store: Store::peer(leg.superblock.clone(), self.attempt) });
        self.membership = Membership::Arming(entry);
        match entry {
            Entry::Member => self.fence(entry, ctx),
            Entry::Resync(plan) => self.arm(plan, &leg.superblock, ctx),
        }
    }

    /// While this holder opens with both legs, the peer's superblock is one config behind.
    fn may_enter_as_member(&self, leg: &LegFound) -> bool {
        let LegFound::Leg(leg) = leg else { return false };
        let theirs = &leg.superblock;
        let behind_by_this_start = self.truth.history.entries().get(1) == Some(theirs.config());
        let kept = !theirs.own().flags.contains(LegFlags::VOLATILE_CACHE)
            || self.truth.legs[self.who.other().index()].incarnation == theirs.own().incarnation;
        matches!(self.phase, Phase::Opening(_))
            && self.in_sync().has(Side::Peer)
            && behind_by_this_start
            && kept
    }

    fn bar(&mut self, why: &str, ctx: &mut Ctx<'_>) {
        ctx.note(format!("the peer's leg is refused: {why}"));
        self.bar_peer(why, ctx);
    }

    /// The own superblock says which generation comes, before the peer's guard hears of it (R8).
    fn arm(&mut self, plan: SyncPlan, theirs: &Superblock, ctx: &mut Ctx<'_>) {
        if self.change.is_some() {
            self.membership = Membership::Away;
            return;
        }
        let mut next = self.truth.clone();
        next.fence = crate::decide::next_generation(ctx.own.current(), Some(theirs)).max(next.fence + 1);
        let record = Self::record_mut(&mut next, self.who.other());
        record.state = after(record.state, LegEvent::SyncBegun);
        (record.uuid, record.flags) = (theirs.leg, theirs.own().flags);
        (record.incarnation, record.seen_seq) = (theirs.own().incarnation, theirs.seq);
        if let SyncPlan::Full(why) = plan {
            record.tracked_since = 0;
            ctx.note(format!("the peer's leg is copied in full: {why}"));
        }
        self.begin_change(Kind::Arm, next, &[Side::Own]);
    }

    fn fence(&mut self, entry: Entry, ctx: &mut Ctx<'_>) {
        let key = FenceKey { node: self.who.number(), generation: self.truth.fence };
        ctx.desk.fence(key, Purpose::Fence { attempt: self.attempt });
        self.membership = Membership::Fencing(entry);
    }

    fn on_fenced(&mut self, result: Result<(), IoError>, ctx: &mut Ctx<'_>) {
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
                self.membership = Membership::Loading(entry, Box::new(reader));
            }
            // Somebody has a newer generation: look again, the superblock says who.
            Err(IoError::Fenced) => self.look_who_is_there(ctx),
            Err(error) => self.lose_peer(error, ctx),
        }
    }

    fn on_loaded(&mut self, entry: Entry, leg: &LegFound, images: &[Vec<u8>], ctx: &mut Ctx<'_>) {
        let known = self.peer.as_ref().map(|peer| peer.store.current().leg);
        let LegFound::Leg(found) = leg else { return self.bar("the leg changed while it was fenced", ctx) };
        let theirs = &found.superblock;
        if known != Some(theirs.leg) || !theirs.layout.same_array(&self.layout) {
            return self.bar("the leg changed while it was fenced", ctx);
        }
        self.peer = Some(PeerLeg { store: Store::peer(theirs.clone(), self.attempt) });
        match entry {
            Entry::Member => self.enter_member(theirs, ctx),
            Entry::Resync(plan) => {
                let (log, bitmap) = differences(images, theirs);
                self.unite(plan, &log, &bitmap);
                self.membership = Membership::Marking(plan, Box::new(Differences { log, bitmap }));
            }
        }
    }

    fn enter_member(&mut self, theirs: &Superblock, ctx: &mut Ctx<'_>) {
        if theirs.history == self.truth.history {
            return self.joined(ctx);
        }
        if self.change.is_some() {
            return self.go_away(Reason::LinkLost, ctx);
        }
        self.membership = Membership::Enrolling(Entry::Member, None);
        self.begin_change(Kind::Enrol, self.truth.clone(), &[Side::Peer]);
    }

    /// Everything that may differ: our bitmap has our log in it already; now theirs.
    fn unite(&mut self, plan: SyncPlan, log: &Replay, bitmap: &Bitmap) {
        match (plan, log) {
            (SyncPlan::Full(_), _) | (_, Replay::Unreadable { .. }) => {
                self.bitmap.set_all();
            }
            (SyncPlan::Delta, Replay::Table(table)) => {
                self.bitmap.union(bitmap);
                let shift = self.layout.log.extent_shift;
                for extent in table.extents() {
                    let range = crate::range::ByteRange::new(u64::from(extent) << shift, 1 << shift);
                    self.bitmap.set(range);
                }
            }
        }
    }

    fn enrol(&mut self, ctx: &mut Ctx<'_>) {
        let Membership::Marking(plan, differences) =
            core::mem::replace(&mut self.membership, Membership::Away)
        else {
            return;
        };
        self.membership = Membership::Enrolling(Entry::Resync(plan), Some(differences));
        self.begin_change(Kind::Enrol, self.truth.clone(), &[Side::Peer]);
        self.drive_change(ctx);
    }

    /// One of our own changes took effect.
    pub(super) fn membership_changed(&mut self, kind: Kind, ctx: &mut Ctx<'_>) {
        match (kind, core::mem::replace(&mut self.membership, Membership::Away)) {
            (Kind::Arm, Membership::Arming(entry)) => self.fence(entry, ctx),
            (Kind::Enrol, Membership::Enrolling(Entry::Member, _)) => self.joined(ctx),
            (Kind::Enrol, Membership::Enrolling(Entry::Resync(plan), Some(differences))) => {
                self.begin_emptying(*differences, ctx);
                if matches!(plan, SyncPlan::Full(_)) {
                    self.track();
                }
            }
            (_, other) => self.membership = other,
        }
    }

    /// The bitmap says everything about the peer's leg from now on, so that a copy that is cut off can go on.
    fn track(&mut self) {
        let mut next = self.truth.clone();
        let generation = self.config().generation();
        Self::record_mut(&mut next, self.who.other()).tracked_since = generation;
        self.begin_change(Kind::Track, next, &[Side::Own]);
    }

    fn begin_emptying(&mut self, differences: Differences, ctx: &Ctx<'_>) {
        let Differences { log, mut bitmap } = differences;
        let generation = self.config().generation();
        let ring = emptying(ctx.own.current().array, self.layout.log, &log, generation)
            .map(|transaction| transaction.write);
        let mut blocks: VecDeque<BlockWrite> = ring.collect();
        bitmap.clear(crate::range::ByteRange::new(0, self.layout.data_size), ClearedBy::Operator);
        while let Some(page) = bitmap.next_page(Urgency::Everything, generation) {
            blocks.push_back(page.write);
            bitmap.on_durable(page.page);
        }
        self.membership = Membership::Emptying(blocks);
        self.emptying = Outstanding::No;
    }

    fn empty_next(&mut self, ctx: &mut Ctx<'_>) {
        if self.emptying == Outstanding::Yes {
            return;
        }
        let Membership::Emptying(blocks) = &mut self.membership else { return };
        match blocks.front() {
            None => {
                ctx.note(format!("resync begins: {} bytes are out of sync", self.bitmap.set_bytes()));
                self.membership = Membership::Copying;
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

    fn on_emptied(&mut self, result: Result<(), IoError>, ctx: &mut Ctx<'_>) {
        self.emptying = Outstanding::No;
        match result {
            Ok(()) => self.empty_next(ctx),
            Err(error) => self.lose_peer(error, ctx),
        }
    }

    /// Both legs were flushed after the last copy.
    pub(super) fn on_rejoin_flushed(&mut self, ctx: &mut Ctx<'_>) {
        if !self.bitmap.is_clear() || self.change.is_some() || !self.resync.is_idle() {
            return;
        }
        match self.membership {
            Membership::Copying => {
                self.membership = Membership::Rejoining;
                self.begin_rejoin(Side::Peer, ctx);
            }
            Membership::Joined if self.in_sync() == Sides::PEER => self.begin_rejoin(Side::Own, ctx),
            _ => {}
        }
    }

    /// The peer's leg carries every acknowledged write.
    pub(super) fn joined(&mut self, ctx: &mut Ctx<'_>) {
        self.membership = Membership::Joined;
        self.lost_since = None;
        self.freeze = Freeze::Flowing;
        self.next_heartbeat = ctx.now();
        self.unpark(ctx);
    }

    // --- The lease ---

    fn heartbeat(&mut self, ctx: &mut Ctx<'_>) {
        let beats =
            matches!(self.membership, Membership::Copying | Membership::Rejoining | Membership::Joined);
        if !beats || ctx.now() < self.next_heartbeat {
            return;
        }
        let range = heartbeat_range();
        let place = self.on_leg(Side::Peer, range);
        let Some(frame) = ctx.desk.frame(usize::try_from(range.len).expect("a block")) else { return };
        let sent = ctx.now();
        self.next_heartbeat = sent + ctx.setup.timing.heartbeat;
        ctx.desk.read(Side::Peer, place, frame, Purpose::Heartbeat { attempt: self.attempt, sent });
    }

    fn on_heartbeat(&mut self, sent: Instant, result: Result<(), IoError>, ctx: &mut Ctx<'_>) {
        match result {
            Ok(()) => self.lease_until = self.lease_until.max(sent + ctx.setup.timing.lease),
            // The block is bad, and the peer alive: a read of the host will find it.
            Err(IoError::Medium { .. }) => {
                self.lease_until = self.lease_until.max(sent + ctx.setup.timing.lease);
            }
            Err(error) => self.lose_peer(error, ctx),
        }
    }
}

/// Whether something is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outstanding {
    No,
    Yes,
}
