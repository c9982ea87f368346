//! Automatic promotion: the holder is gone from this leg, and the arbiter is asked for the array.
//!
//! ```text
//! Watching --(holder absent for a while)--> Looking --(at the peer's leg, if it is there)--> Asking
//!     ^                                                                                       |
//!     '--(the holder is back, or the arbiter says no)-----------------------------------------+--> a promotion
//! ```
//!
//! The question comes before the fence: a node that cannot reach the arbiter locks nobody out. The look comes before
//! the question: an arbiter that is older than the peer's leg was restored from a backup.

use bdev::{Completed, Link};
use engine::Instant;

use super::{Node, Role};
use crate::arbiter::{ASKED_AGAIN, Answer, Ask, Asker, Ticket};
use crate::decide::{
    DataAge, HolderSession, HolderState, PromoteMode, PromoteRefusal, StandbyReason, Standing,
    TakeoverVerdict, on_word, seen_by,
};
use crate::events::EventKind;
use crate::format::{ArbiterKind, ConfigId};
use crate::probe::LegFound;
use crate::reader::{Reader, Reading, found};

/// What the operator wants, if it was not the node's own idea.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) mode: PromoteMode,
    pub(super) holder: HolderState,
}

/// What was found at the peer.
#[derive(Debug, Default)]
enum Sight {
    /// Not looked yet.
    #[default]
    None,
    /// On its way.
    Looking(Box<Reader>),
    /// The generation of the peer's config; `None`: nothing could be seen.
    Seen(Option<u64>),
}

/// Whether the arbiter answered when it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Heard {
    #[default]
    Yes,
    /// It was silent, or what it said was lost or old. A holder that waited for it as well is to be first when it is right again:
    /// it is asked twice.
    No,
}

/// What a standby knows of its chances.
#[derive(Debug, Default)]
pub(super) struct Watch {
    absent_since: Option<Instant>,
    heard: Heard,
    pub(super) wanted: Option<Wanted>,
    /// The newest generation that this node has heard of from the arbiter, or seen at its peer: an arbiter that is older than that was
    /// restored from a backup.
    pub(super) newest: u64,
    /// What was known of this leg's age when the operator's promotion ended a hold.
    pub(super) doubt: DataAge,
    sight: Sight,
}

impl Watch {
    /// Nothing is wrong before then.
    pub(super) fn leave_alone_until(&mut self, then: Instant) {
        self.absent_since = Some(then);
    }
}

impl Node {
    /// True when somebody outside orders this array's generations.
    pub(super) fn is_arbitrated(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.current().arbiter == ArbiterKind::Etcd)
    }

    /// The next question for the arbiter. Its answer goes to [`Node::on_arbiter`].
    pub fn next_ask(&mut self) -> Option<(Ticket, Ask)> {
        self.ballot.take()
    }

    /// The arbiter's answer.
    pub fn on_arbiter(&mut self, ticket: Ticket, answer: Answer, now: Instant) {
        self.desk.now = now;
        let Some(asker) = self.ballot.accept(ticket, &answer, now) else { return };
        if let Answer::Holds(Some(line)) = &answer {
            self.hear_of(line.current().generation());
        }
        match (asker, &mut self.role) {
            (Asker::Change(next), Role::Holder(_)) => {
                self.with_holder(|holder, ctx| holder.on_arbiter(next, answer, ctx));
            }
            (Asker::Hold, Role::Holding(hold)) => hold.arbiter = Some(answer),
            (Asker::Standby, Role::Standby(_)) => self.on_takeover_answer(answer),
            // The node is something else by now.
            (Asker::Change(_) | Asker::Hold | Asker::Standby, _) => {}
        }
        self.settle();
    }

    pub(super) fn hear_of(&mut self, generation: u64) {
        self.watch.newest = self.watch.newest.max(generation);
    }

    /// A question without an answer for too long.
    pub(super) fn drive_ballot(&mut self) {
        if let Some(ticket) = self.ballot.overdue(self.desk.now) {
            let now = self.desk.now;
            self.on_arbiter(ticket, Answer::Unknown("no answer in time".to_owned()), now);
        }
    }

    pub(super) fn drive_standby(&mut self) {
        if !self.is_arbitrated() || !self.may_take_over() {
            (self.watch.absent_since, self.watch.sight) = (None, Sight::None);
            return;
        }
        let now = self.desk.now;
        let since = *self.watch.absent_since.get_or_insert(now);
        let due = now >= since + self.setup.timing.takeover || self.watch.wanted.is_some();
        if !due {
            return;
        }
        match &mut self.watch.sight {
            Sight::None => {
                let reader = self.peer_reader();
                self.watch.sight = reader.map_or(Sight::Seen(None), Sight::Looking);
            }
            Sight::Looking(reader) => reader.poke(&mut self.desk),
            Sight::Seen(_) if self.ballot.is_free(now) => self.ballot.ask(Asker::Standby, Ask::Read, now),
            Sight::Seen(_) => {}
        }
    }

    /// Part of the look at the peer's leg.
    pub(super) fn on_standby_read(&mut self, job: u32, completed: &Completed) {
        let Sight::Looking(reader) = &mut self.watch.sight else { return };
        match reader.on_done(job, completed, &mut self.desk) {
            Reading::Continues => {}
            Reading::Lost(_) => self.watch.sight = Sight::Seen(None),
            Reading::Done(images) => {
                let Link::Up { geometry, .. } = &self.link else {
                    self.watch.sight = Sight::Seen(None);
                    return;
                };
                let generation = match found(geometry.bytes(), &images, self.setup.array) {
                    LegFound::Leg(leg) => Some(leg.superblock.config().generation()),
                    LegFound::Blank | LegFound::Refused(_) => None,
                };
                self.watch.sight = Sight::Seen(generation);
            }
        }
    }

    /// The holder is not at work here, and this leg has everything.
    fn may_take_over(&self) -> bool {
        let (Some(guard), Some(store)) = (&self.guard, &self.store) else { return false };
        let idle = self.own_write.is_none()
            && !store.is_busy()
            && guard.fence_step() == crate::guard::FenceStep::Idle;
        let absent = guard.holder_session(self.desk.now) == HolderSession::Absent;
        let demoted = matches!(self.role, Role::Standby(StandbyReason::Demoted));
        idle && (self.watch.wanted.is_some() || (absent && !demoted && store.current().is_in_sync()))
    }

    fn on_takeover_answer(&mut self, answer: Answer) {
        let wanted = self.watch.wanted.take();
        let sight = core::mem::take(&mut self.watch.sight);
        // A no is asked about again after a while.
        self.watch.absent_since = Some(self.desk.now);
        let mode = wanted.map_or(PromoteMode::Ordinary, |wanted| wanted.mode);
        let holder = wanted.map_or(HolderState::Unknown, |wanted| wanted.holder);
        let line = match answer {
            Answer::Holds(Some(line)) => line,
            // By force the operator says that what the arbiter has lost, or has from a backup, does not count.
            Answer::Holds(None) if mode == PromoteMode::Forced => {
                return self.promote_or_say(mode, holder, Standing::Unknown, None);
            }
            Answer::Holds(None) => {
                self.watch.heard = Heard::No;
                return self.note(EventKind::ArbiterVacant);
            }
            Answer::Swapped => return,
            Answer::Unknown(why) => {
                self.watch.heard = Heard::No;
                return self.note(EventKind::ArbiterSilent(why));
            }
        };
        let peer = if let Sight::Seen(peer) = sight { peer } else { None };
        let peer = peer.max(Some(self.watch.newest));
        let (verdict, config) = (on_word(self.own(), &line, peer, mode), *line.current());
        let is_older = matches!(verdict, TakeoverVerdict::Older);
        if !is_older && wanted.is_none() && self.watch.heard == Heard::No {
            self.watch.heard = Heard::Yes;
            return self.watch.leave_alone_until(self.desk.now + ASKED_AGAIN);
        }
        let standing = match verdict {
            TakeoverVerdict::Older => {
                self.watch.heard = Heard::No;
                let expected = peer.unwrap_or(0).max(seen_by(self.own()));
                return self.note(EventKind::ArbiterOlder { expected });
            }
            TakeoverVerdict::Ours => {
                self.note(EventKind::NamedHolder { generation: config.generation() });
                return self.begin_hold();
            }
            TakeoverVerdict::NotCounted { newer } => {
                self.note(EventKind::PromotionRefused(PromoteRefusal::NotInSync.into()));
                return self.begin_standby(StandbyReason::PeerIsNewer { newer });
            }
            TakeoverVerdict::Diverged { newer } => {
                self.note(EventKind::PromotionRefused(PromoteRefusal::Split.into()));
                return self.begin_standby(StandbyReason::Diverged { newer });
            }
            TakeoverVerdict::Promote(standing) => standing,
        };
        self.promote_or_say(mode, holder, standing, Some(config.id));
    }

    fn promote_or_say(
        &mut self,
        mode: PromoteMode,
        holder: HolderState,
        standing: Standing,
        arbiter_has: Option<ConfigId>,
    ) {
        if let Err(refusal) = self.promote_from(mode, holder, standing, arbiter_has) {
            self.note(EventKind::PromotionRefused(refusal));
        }
    }
}
