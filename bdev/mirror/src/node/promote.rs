//! Promotion by hand (R8, R10, R11): fence the own leg, let everything end, wait out the lease that was
//! granted to the old holder, take a new generation with this leg alone.

use bdev::{Completed, FenceKey, IoError};
use engine::Instant;

use super::hold::StartCause;
use super::{Node, OwnWrite, Role, Wanted};
use crate::command::Refusal;
use crate::decide::{
    DataAge, Granted, HolderState, PromoteMode, PromoteRefusal, Promotion, StandbyReason, Standing, Starting,
    is_drained, may_promote, serves_from,
};
use crate::desk::Side;
use crate::events::EventKind;
use crate::format::copies::Numbering;
use crate::format::{ConfigId, Reason};
use crate::guard::FenceStep;
use crate::reader::{Reader, Reading, differences};

/// A promotion under way.
pub(super) struct Promoting {
    promotion: Promotion,
    mode: PromoteMode,
    standing: Standing,
    arbiter_has: Option<ConfigId>,
    stage: Stage,
}

enum Stage {
    /// The own superblock takes the fence, once the own leg is quiet.
    Fencing,
    /// The old holder may still serve reads until then.
    Waiting(Instant),
    /// The own log and bitmap, as the old holder left them.
    Loading(Box<Reader>),
}

impl Node {
    pub(super) fn promote(&mut self, mode: PromoteMode, holder: HolderState) -> Result<(), Refusal> {
        if self.store.is_none() {
            return Err(Refusal::NoLeg);
        }
        if self.resumes_now(mode) {
            if self.own_write.is_some() {
                return Err(Refusal::Busy);
            }
            self.cause = StartCause::Promoted;
            self.begin_hold();
            return Ok(());
        }
        if let Role::Holding(hold) = &self.role
            && self.resumes(mode)
        {
            return Err(hold.waits());
        }
        if !self.is_arbitrated() {
            return self.promote_from(mode, holder, Standing::Current, None);
        }
        self.outlook(mode, holder, &self.known(), self.doubt())?;
        // The arbiter first: its config is what the promotion starts from. What is known meanwhile stays known.
        self.watch.wanted = Some(Wanted { mode, holder });
        if let Role::Holding(hold) = &self.role {
            self.watch.doubt = hold.age();
            self.begin_standby(StandbyReason::AskingArbiter);
        }
        Ok(())
    }

    /// Promotes from a config that is known to be the newest, as far as anybody can tell.
    pub(super) fn promote_from(
        &mut self,
        mode: PromoteMode,
        holder: HolderState,
        standing: Standing,
        arbiter_has: Option<ConfigId>,
    ) -> Result<(), Refusal> {
        if self.own_write.is_some() {
            return Err(Refusal::Busy);
        }
        if self.store.is_none() {
            return Err(Refusal::NoLeg);
        }
        let promotion = match self.is_arbitrated() {
            true => self.outlook(mode, holder, &standing, self.watch.doubt)?,
            false => self.outlook(mode, holder, &self.known(), self.doubt())?,
        };
        let Some(guard) = &mut self.guard else { return Err(Refusal::NoLeg) };
        // A fence of the peer that is under way comes first.
        if guard.fence_step() != FenceStep::Idle {
            return Err(Refusal::Busy);
        }
        let key = FenceKey { node: self.setup.who.number(), generation: promotion.generation };
        // From this moment the old holder is locked out.
        guard.raise(key, self.desk.now, &mut self.guarded);
        let Promotion { generation, data } = promotion;
        self.note(EventKind::Promoting { generation, mode, data });
        self.role = Role::Promoting(Box::new(Promoting {
            promotion,
            mode,
            standing,
            arbiter_has,
            stage: Stage::Fencing,
        }));
        Ok(())
    }

    /// Whether a promotion may go ahead, with what is known beyond the superblock of how old this leg is.
    pub(super) fn outlook(
        &self,
        mode: PromoteMode,
        holder: HolderState,
        standing: &Standing,
        doubt: DataAge,
    ) -> Result<Promotion, Refusal> {
        let promotion = may_promote(self.own(), standing, mode, self.holder_session(), holder);
        let promotion = promotion.map_err(|why| self.as_refusal(why))?;
        let data = promotion.data.max(doubt);
        if mode == PromoteMode::Ordinary && data > DataAge::Unproven {
            return Err(PromoteRefusal::NotInSync.into());
        }
        Ok(Promotion { data, ..promotion })
    }

    /// Who holds by config is not the holder before it serves.
    fn as_refusal(&self, why: PromoteRefusal) -> Refusal {
        match (why, &self.role) {
            (PromoteRefusal::AlreadyHolder, Role::Holding(hold)) => hold.waits(),
            (PromoteRefusal::AlreadyHolder, _) => Refusal::Waiting,
            (why, _) => why.into(),
        }
    }

    pub(super) fn drive_promotion(&mut self) {
        let quiet = is_drained(self.desk.in_flight(Side::Own)) && self.own_write.is_none();
        let now = self.desk.now;
        let layout = self.own().layout;
        let job = self.next_job();
        let Role::Promoting(promoting) = &mut self.role else { return };
        match &mut promoting.stage {
            Stage::Fencing if quiet => {
                let generation = promoting.promotion.generation;
                let Some(store) = &mut self.store else { return };
                let mut next = store.current().clone();
                next.fence = FenceKey { node: self.setup.who.number(), generation };
                self.own_write = Some(OwnWrite::Promotion(next.fence));
                store.begin(Numbering::Write, next, &mut self.desk);
            }
            Stage::Waiting(until) if now >= *until => {
                let size = self.own_geometry.bytes();
                let mut reader = Reader::of_everything(Side::Own, job, size, &layout);
                reader.poke(&mut self.desk);
                promoting.stage = Stage::Loading(Box::new(reader));
            }
            Stage::Loading(reader) => reader.poke(&mut self.desk),
            Stage::Fencing | Stage::Waiting(_) => {}
        }
    }

    /// The own superblock has the fence: now the lease.
    pub(super) fn on_promotion_fenced(&mut self) {
        let granted = self.guard.as_ref().and_then(super::Guard::last_granted);
        let granted = granted.map_or(Granted::NotSince(self.began), Granted::At);
        let until = serves_from(granted, self.setup.timing.lease);
        if let Role::Promoting(promoting) = &mut self.role {
            promoting.stage = Stage::Waiting(until);
        }
    }

    /// The own superblock does not have the fence.
    pub(super) fn on_promotion_unwritten(&mut self, key: FenceKey, error: IoError) {
        self.note(EventKind::PromotionFailed(error));
        let before = self.own().fence;
        if let Some(guard) = &mut self.guard {
            guard.take_back(key, before);
        }
        if matches!(self.role, Role::Promoting(_)) {
            self.begin_standby(StandbyReason::PeerHolds);
        }
    }

    pub(super) fn on_promotion_read(&mut self, job: u32, completed: &Completed) {
        let Role::Promoting(promoting) = &mut self.role else { return };
        let Stage::Loading(reader) = &mut promoting.stage else { return };
        match reader.on_done(job, completed, &mut self.desk) {
            Reading::Continues => {}
            Reading::Lost(error) => {
                self.note(EventKind::PromotionFailed(error));
                self.begin_standby(StandbyReason::PeerHolds);
            }
            Reading::Done(images) => {
                let Promoting { mode, arbiter_has, .. } = **promoting;
                let standing = promoting.standing.clone();
                let generation = promoting.promotion.generation;
                let reason = match mode {
                    PromoteMode::Ordinary if self.is_arbitrated() => Reason::TakenOver,
                    PromoteMode::Ordinary => Reason::Promoted,
                    PromoteMode::Forced => Reason::ForcePromoted,
                };
                let (log, bitmap) = differences(&images, self.own());
                self.take_unit_state(&images);
                self.become_holder(
                    Starting::Alone,
                    reason,
                    (generation, standing, arbiter_has),
                    &log,
                    bitmap,
                );
            }
        }
    }
}
