//! The own leg under the peer's hands: its I/Os go through the guard, and a newer fence ends our own service.

use bdev::hop::ClientId;
use bdev::{Completed, Io, IoError, NotReady, Tag};
use engine::Instant;

use super::hold::StartCause;
use super::{Node, OwnWrite, Role};
use crate::decide::{DataAge, HolderSession, StandbyReason, is_drained};
use crate::events::EventKind;
use crate::format::copies::Numbering;
use crate::format::{ArbiterKind, Superblock};
use crate::guard::FenceStep;

impl Node {
    /// An I/O of the peer on the own leg.
    pub fn on_guarded(&mut self, client: ClientId, io: Io, now: Instant) {
        self.desk.now = now;
        match &mut self.guard {
            Some(guard) if !matches!(self.role, Role::Ending(_) | Role::Stopped | Role::Failed(_)) => {
                guard.on_io(client, io, &mut self.desk, &mut self.guarded);
            }
            _ => {
                let error = IoError::NotReady(NotReady::Starting);
                self.guarded.push_back((client, io.complete(Err(error), now)));
            }
        }
        self.settle();
    }

    /// A session of the peer ended.
    pub fn on_guard_closed(&mut self, client: ClientId, now: Instant) {
        self.desk.now = now;
        if let Some(guard) = &mut self.guard {
            guard.on_closed(client);
        }
    }

    pub(super) fn on_guarded_done(&mut self, client: ClientId, tag: Tag, completed: Completed) {
        let Some(guard) = &mut self.guard else { return };
        guard.on_done(client, tag, completed, self.desk.now, &mut self.guarded);
        while let Some(seen) = self.guard.as_mut().and_then(super::Guard::next_seen) {
            self.observe(seen);
            // Whatever this node knew of its leg: from now on the holder says what it is.
            self.watch.doubt = DataAge::Current;
            if matches!(self.role, Role::Standby(_)) && !self.cause.is_gift() {
                self.begin_standby(StandbyReason::PeerHolds);
            }
        }
    }

    /// The holder wrote our superblock.
    fn observe(&mut self, seen: Superblock) {
        let Some(store) = &mut self.store else { return };
        let before = store.current().config().id;
        store.observe(seen);
        let config = *store.current().config();
        if config.id != before {
            self.note(EventKind::ConfigChanged(config));
        }
        let given = config.id != before && config.holder == self.setup.who && self.own().is_in_sync();
        if given && matches!(self.role, Role::Standby(_)) {
            self.cause = StartCause::Given(self.desk.now);
            self.begin_hold();
        }
    }

    /// Carries a fence on (R10): step down, let everything end, store it, let the peer in.
    pub(super) fn drive_guard(&mut self) {
        let Some(guard) = &mut self.guard else { return };
        if matches!(self.role, Role::Ending(_) | Role::Stopped | Role::Failed(_)) {
            return guard.close(self.desk.now, &mut self.guarded);
        }
        match guard.fence_step() {
            FenceStep::Idle | FenceStep::Waiting => {}
            FenceStep::Granting => guard.grant(self.desk.now, &mut self.guarded),
            FenceStep::Raising(key) => {
                let drained = is_drained(guard.in_flight() + self.desk.own_in_flight());
                self.make_way();
                let quiet = matches!(self.role, Role::Standby(_)) && self.own_write.is_none();
                let (Some(store), Some(guard)) = (&mut self.store, &mut self.guard) else { return };
                if !drained || !quiet || store.is_busy() {
                    return;
                }
                let mut next = store.current().clone();
                if key.generation < next.fence.generation {
                    return guard.give_up(IoError::Fenced, self.desk.now, &mut self.guarded);
                }
                next.fence = key;
                self.own_write = Some(OwnWrite::Fence(key));
                store.begin(Numbering::Fence, next, &mut self.desk);
            }
        }
    }

    /// The peer locked this node out and has gone away, and did not know the config that names this node as the holder: it looks
    /// again. So it is when an old holder, cut off from a switchover, asks for the array while that is being given away.
    pub(super) fn hold_again(&mut self) {
        let (Some(guard), Some(store)) = (&self.guard, &self.store) else { return };
        let own = store.current();
        let unaware = own.fence.generation <= own.config().generation();
        let named = own.config().holder == self.setup.who && own.is_in_sync() && unaware;
        let by_itself = matches!(own.arbiter, ArbiterKind::Biased | ArbiterKind::Manual);
        let idle = self.own_write.is_none() && !store.is_busy() && guard.fence_step() == FenceStep::Idle;
        let absent = guard.holder_session(self.desk.now) == HolderSession::Absent;
        if matches!(self.role, Role::Standby(StandbyReason::PeerHolds))
            && named
            && by_itself
            && idle
            && absent
        {
            self.cause = StartCause::Orphaned;
            self.begin_hold();
        }
    }

    /// The peer takes over: whatever this node was about to do, it stands by.
    fn make_way(&mut self) {
        self.watch.wanted = None;
        match &self.role {
            Role::Holder(_) => self.with_holder(|holder, ctx| {
                holder.step_down(ctx);
                holder.on_tick(ctx);
            }),
            Role::Holding(_) | Role::Promoting(_) => {
                self.cause = StartCause::Again;
                self.begin_standby(StandbyReason::PeerHolds);
            }
            Role::Booting(_) | Role::Standby(_) | Role::Ending(_) | Role::Stopped | Role::Failed(_) => return,
        }
        self.leave_holder();
    }
}
