//! Consistent-hold: this node was the holder, and looks for its peer before it serves, because the peer may
//! have gone on without it.

use bdev::{Completed, FenceKey};
use core::time::Duration;
use engine::Instant;

use super::claim::{Claim, is_promoting};
use super::{Node, Role, Run};
use crate::arbiter::{Answer, Ask, Asker};
use crate::bitmap::Bitmap;
use crate::command::Refusal;
use crate::decide::{
    DataAge, DegradedStart, Differences, HoldReason, LegAge, PeerSight, StandbyReason, Standing, StartFacts,
    StartVerdict, Starting, informed, next_generation, on_diverged, on_start, peers_word, standing, takes_up,
};
use crate::desk::Side;
use crate::events::EventKind;
use crate::format::{Config, ConfigId, LegMask, Reason, Superblock};
use crate::guard::FenceStep;
use crate::holder::{Ctx, Holder, Inheritance};
use crate::intent_log::{IntentLog, Replay};
use crate::probe::LegFound;
use crate::reader::{Reader, Reading, found};
use crate::setup::DegradedPolicy;

/// How often the peer is looked at.
const LOOK: Duration = Duration::from_millis(300);
/// A node that was just given the array looks faster, for so long: the old holder is about to say that it knows.
const TAKE_UP_LOOK: Duration = Duration::from_millis(5);
const TAKE_UP: Duration = Duration::from_millis(500);
/// How often the arbiter is asked meanwhile.
const ASK: Duration = Duration::from_millis(500);
/// With the arbiter's word that nobody else has gone on, the peer gets this long to be seen.
const PEER_SIGHT: Duration = Duration::from_secs(2);

/// Why a node that its own superblock names as the holder begins to serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StartCause {
    /// It did before.
    #[default]
    Again,
    /// The old holder gave it the array, then.
    Given(Instant),
    /// The operator or a cluster manager said so.
    Promoted,
    /// It did until a moment ago, and does not know whether the peer was told to: it never goes on alone by itself.
    Orphaned,
}

/// Whether the peer's leg was looked at over the link as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Looked {
    #[default]
    NotYet,
    /// Whatever came of it.
    Once,
}

impl StartCause {
    /// True when the old holder said so.
    pub(super) fn is_gift(self) -> bool {
        matches!(self, Self::Given(_))
    }
}

/// What is known while holding.
pub(super) struct Hold {
    /// Since when.
    began: Instant,
    looked: Looked,
    log: Replay,
    bitmap: Bitmap,
    reader: Option<Box<Reader>>,
    pub(super) seen: Option<LegFound>,
    next_look: Instant,
    pub(super) reason: Option<HoldReason>,
    age: DataAge,
    /// What the arbiter last said.
    pub(super) arbiter: Option<Answer>,
    next_ask: Instant,
    pub(super) claim: Claim,
    /// Since when the peer seems to be on its way to become the holder.
    promoting_since: Option<Instant>,
}

impl Hold {
    pub(super) fn new(log: Replay, bitmap: Bitmap, began: Instant) -> Self {
        Self {
            began,
            looked: Looked::default(),
            log,
            bitmap,
            reader: None,
            seen: None,
            next_look: Instant::EPOCH,
            reason: None,
            age: DataAge::Unproven,
            arbiter: None,
            next_ask: Instant::EPOCH,
            claim: Claim::None,
            promoting_since: None,
        }
    }

    /// What was seen is old: the next look decides.
    pub(super) fn look_now(&mut self) {
        (self.reader, self.seen, self.next_look) = (None, None, Instant::EPOCH);
    }

    /// As [`Hold::look_now`], after a while.
    pub(super) fn look_later(&mut self, now: Instant) {
        (self.reader, self.seen, self.next_look) = (None, None, now + LOOK);
    }

    /// How old the own leg is, as far as looking and asking has shown: what was shown once stays so when nobody answers any more.
    pub(super) fn age(&self) -> DataAge {
        self.age
    }

    fn give(&mut self, reason: HoldReason) {
        let shown = match &reason {
            HoldReason::SetBack
            | HoldReason::SetBackAlone
            | HoldReason::CacheLost
            | HoldReason::OwnLegExcluded
            | HoldReason::Split { .. } => DataAge::Past,
            _ => DataAge::Unproven,
        };
        self.age = self.age.max(shown);
        self.reason = Some(reason);
    }

    /// What an operator is told who wants it to serve.
    pub(super) fn waits(&self) -> Refusal {
        match self.reason {
            Some(HoldReason::Split { .. }) => Refusal::Split,
            Some(HoldReason::OwnLegExcluded) => Refusal::OwnLegOut,
            Some(
                HoldReason::ArbiterUnasked
                | HoldReason::ArbiterUnreachable(_)
                | HoldReason::ArbiterOlder
                | HoldReason::ArbiterVacant,
            ) => Refusal::ArbiterFirst,
            Some(
                HoldReason::PeerUnseen
                | HoldReason::PeerRefused(_)
                | HoldReason::CacheLost
                | HoldReason::SetBack
                | HoldReason::SetBackAlone
                | HoldReason::PeerPromoting,
            )
            | None => Refusal::Waiting,
        }
    }

    /// The operator has been told that the own leg is an older copy of itself.
    fn tells_of_age(&self) -> bool {
        matches!(self.reason, Some(HoldReason::SetBack | HoldReason::SetBackAlone))
    }

    fn differences(&self) -> Differences {
        if self.log.is_empty() && self.bitmap.is_clear() { Differences::None } else { Differences::Possible }
    }
}

impl Node {
    pub(super) fn drive_hold(&mut self) {
        if self.run == Run::Stopping {
            return self.end();
        }
        self.allow_by_policy();
        let now = self.desk.now;
        let up = self.link.is_up();
        let taking_up = self.is_taking_up();
        let Role::Holding(hold) = &mut self.role else { return };
        match &mut hold.reader {
            Some(reader) => reader.poke(&mut self.desk),
            None if up && now >= hold.next_look => {
                hold.next_look = now + if taking_up { TAKE_UP_LOOK } else { LOOK };
                let reader = self.peer_reader();
                if let Role::Holding(hold) = &mut self.role {
                    hold.reader = reader;
                }
            }
            None if !up => (hold.seen, hold.claim, hold.looked) = (None, Claim::None, Looked::NotYet),
            None => {}
        }
        self.ask_while_holding();
        self.decide_start();
    }

    fn ask_while_holding(&mut self) {
        let now = self.desk.now;
        let (arbitrated, taking_up) = (self.is_arbitrated(), self.is_taking_up());
        let Role::Holding(hold) = &mut self.role else { return };
        if arbitrated && !taking_up && now >= hold.next_ask && self.ballot.is_free(now) {
            hold.next_ask = now + ASK;
            self.ballot.ask(Asker::Hold, Ask::Read, now);
        }
    }

    fn allow_by_policy(&mut self) {
        let Role::Holding(hold) = &self.role else { return };
        if let DegradedPolicy::After(time) = self.setup.degraded
            && self.cause != StartCause::Orphaned
            && !hold.tells_of_age()
            && self.desk.now >= hold.began + time
        {
            self.degraded = DegradedStart::Allowed;
        }
    }

    /// By the operator's command, where that changes anything.
    pub(super) fn start_degraded(&mut self) -> Result<(), Refusal> {
        let Role::Holding(hold) = &self.role else { return Err(Refusal::NotHolding) };
        match hold.waits() {
            Refusal::Waiting => self.degraded = DegradedStart::Allowed,
            other => return Err(other),
        }
        Ok(())
    }

    pub(super) fn on_hold_read(&mut self, side: Side, job: u32, completed: &Completed) {
        let Role::Holding(hold) = &mut self.role else { return };
        let Some(reader) = hold.reader.as_mut().filter(|_| side == Side::Peer) else { return };
        match reader.on_done(job, completed, &mut self.desk) {
            Reading::Continues => {}
            Reading::Lost(_) => (hold.reader, hold.seen, hold.looked) = (None, None, Looked::Once),
            Reading::Done(images) => {
                (hold.reader, hold.looked) = (None, Looked::Once);
                let size =
                    if let bdev::Link::Up { geometry, .. } = self.link { geometry.bytes() } else { return };
                hold.seen = Some(found(size, &images, self.setup.array));
                self.decide_start();
            }
        }
    }

    fn decide_start(&mut self) {
        let Role::Holding(hold) = &self.role else { return };
        let fencing = self.guard.as_ref().is_some_and(|guard| guard.fence_step() != FenceStep::Idle);
        if self.own_write.is_some() || fencing || self.is_claiming() {
            return;
        }
        let standing = match self.standing(hold) {
            Ok(standing) => standing,
            Err(reason) => return self.keep_holding(reason),
        };
        let own = informed(self.own(), &standing);
        let age = LegAge::of(self.own(), &standing);
        if age == LegAge::SetBack && !hold.tells_of_age() {
            // Whoever allowed a start without the peer did not know of this.
            self.degraded = DegradedStart::Withheld;
        }
        let Role::Holding(hold) = &self.role else { return };
        let sure = self.is_arbitrated() && self.desk.now >= hold.began + PEER_SIGHT;
        let facts = StartFacts {
            own: &own,
            age,
            incarnation: self.setup.incarnation,
            differences: hold.differences(),
            peer: hold.seen.as_ref().map_or(PeerSight::Unseen, PeerSight::Seen),
            degraded: if sure { self.degraded.max(DegradedStart::Arbitrated) } else { self.degraded },
        };
        // Who can be looked at is, before he is left behind.
        let both = own.config().in_sync == LegMask::both();
        let blind = both && self.link.is_up() && hold.looked == Looked::NotYet;
        let verdict = match &standing {
            Standing::Diverged { line, last_shared } => on_diverged(&own, line.current(), *last_shared),
            _ => on_start(&facts),
        };
        match verdict {
            StartVerdict::Serve(Starting::Alone) if blind => {}
            // The old holder's superblock is about to name this node as well: then there is nothing to copy.
            StartVerdict::Serve(Starting::Resync(_) | Starting::Alone) if self.is_taking_up() => {}
            StartVerdict::Hold(_) if self.is_taking_up() => {}
            StartVerdict::Serve(_) if self.waits_for_promotion(&own) => {
                self.keep_holding(HoldReason::PeerPromoting);
            }
            StartVerdict::Serve(starting) => {
                if self.is_claimed(starting, &own) {
                    self.begin_service(starting, standing);
                }
            }
            StartVerdict::Standby(reason) => {
                if let StandbyReason::PeerIsNewer { newer } | StandbyReason::Diverged { newer } = reason {
                    self.hear_of(newer.generation());
                }
                self.cause = StartCause::Again;
                self.begin_standby(reason);
            }
            StartVerdict::Hold(reason) => self.keep_holding(reason),
        }
    }

    /// The peer has locked this node out and is about to say in whose favour; for a while it is left to it.
    fn waits_for_promotion(&mut self, own: &Superblock) -> bool {
        let (now, lease) = (self.desk.now, self.setup.timing.lease);
        let arbitrated = self.is_arbitrated();
        let Role::Holding(hold) = &mut self.role else { return false };
        let promoting = matches!(&hold.seen, Some(LegFound::Leg(leg)) if is_promoting(own, &leg.superblock));
        if !promoting || arbitrated {
            hold.promoting_since = None;
            return false;
        }
        now < *hold.promoting_since.get_or_insert(now) + 2 * lease
    }

    pub(super) fn is_taking_up(&self) -> bool {
        matches!(self.cause, StartCause::Given(at) if self.desk.now < at + TAKE_UP)
    }

    /// How the own superblock stands to what the arbiter holds.
    fn standing(&self, hold: &Hold) -> Result<Standing, HoldReason> {
        if !self.is_arbitrated() {
            let word = hold.seen.as_ref().map(|found| peers_word(self.own(), found));
            return Ok(word.unwrap_or(Standing::Current));
        }
        match &hold.arbiter {
            None | Some(Answer::Swapped) => Err(HoldReason::ArbiterUnasked),
            Some(Answer::Unknown(why)) => Err(HoldReason::ArbiterUnreachable(why.clone())),
            Some(Answer::Holds(Some(line))) if line.current().generation() < self.watch.newest => {
                Err(HoldReason::ArbiterOlder)
            }
            Some(Answer::Holds(line)) => match standing(self.own(), line.as_deref()) {
                Standing::Older => Err(HoldReason::ArbiterOlder),
                Standing::Unknown => Err(HoldReason::ArbiterVacant),
                standing => Ok(standing),
            },
        }
    }

    fn keep_holding(&mut self, reason: HoldReason) {
        if let Role::Holding(hold) = &mut self.role {
            hold.give(reason.clone());
        }
        if reason != HoldReason::ArbiterUnasked {
            self.note(EventKind::Holding(reason));
        }
    }

    fn begin_service(&mut self, starting: Starting, standing: Standing) {
        let own = informed(self.own(), &standing);
        let was_both = own.config().in_sync == LegMask::both();
        let role = core::mem::replace(&mut self.role, Role::Standby(StandbyReason::PeerHolds));
        let Role::Holding(hold) = role else { return };
        let reason = match (starting, core::mem::take(&mut self.cause)) {
            (Starting::Alone, _) if was_both => Reason::StartedDegraded,
            (_, StartCause::Given(_)) => Reason::SwitchedOver,
            (_, StartCause::Promoted) => Reason::Promoted,
            (_, StartCause::Again | StartCause::Orphaned) => Reason::Restarted,
        };
        let peer = match &hold.seen {
            Some(LegFound::Leg(leg)) => Some(&leg.superblock),
            _ => None,
        };
        // What was given is served in the generation that names it; anything else is a restart (R11).
        let generation =
            if takes_up(starting, reason) { own.config().generation() } else { next_generation(&own, peer) };
        let Hold { log, bitmap, arbiter, .. } = *hold;
        let arbiter_has = match arbiter {
            Some(Answer::Holds(line)) => line.map(|line| line.current().id),
            _ => None,
        };
        self.become_holder(starting, reason, (generation, standing, arbiter_has), &log, bitmap);
    }

    /// From here on this node serves, as soon as its first config is durable.
    pub(super) fn become_holder(
        &mut self,
        starting: Starting,
        reason: Reason,
        (generation, standing, arbiter_has): (u64, Standing, Option<ConfigId>),
        log: &Replay,
        mut bitmap: Bitmap,
    ) {
        // What was known of a hold, and asked in it, is a thing of the past.
        self.watch.doubt = DataAge::Current;
        self.ballot.forget();
        let Superblock { array, layout, .. } = *self.own();
        let log = IntentLog::resume(array, layout.log, log, &mut bitmap);
        let unit = self.unit.clone();
        let inheritance =
            Inheritance { log, bitmap, starting, reason, generation, standing, arbiter_has, unit };
        let mut ctx = Ctx {
            desk: &mut self.desk,
            own: self.store.as_mut().expect("a leg is known"),
            front: &mut self.front,
            prng: &mut self.prng,
            events: &mut self.events,
            ballot: &mut self.ballot,
            setup: &self.setup,
            link: &self.link,
        };
        let holder = Holder::begin(inheritance, &mut ctx);
        debug_assert!(
            holder.config().generation() <= Config::joining(self.setup.who).generation().max(generation)
        );
        self.role = Role::Holder(Box::new(holder));
        // Whoever asks for less from now on comes too late.
        let key = FenceKey { node: self.setup.who.number(), generation };
        if let Some(guard) = &mut self.guard {
            guard.raise(key, self.desk.now, &mut self.guarded);
        }
    }
}
