//! A peer's leg that has diverged, and the operator's word that it may be overwritten (I11).
//!
//! ```text
//! None --(seen at the peer)--> Seen --(the operator's word)--> a config above both --> Granted --(there, unchanged)--> resync
//!                               ^                                                         |
//!                               '-------------------------(it went on meanwhile)----------'
//! ```
//!
//! The config comes first: with an arbiter it is the one that says whether this node's data set may be the one that stays,
//! and generations rise in every store (I3), on the leg that is overwritten, too. The word is for the config that the operator
//! has looked at, and does not outlive this holder: after a crash the legs are as diverged as before, or the peer's superblock
//! has our history already and the copy goes on.

use super::change::Kind;
use super::membership::Membership;
use super::{Ctx, Holder, Phase, Sides};
use crate::command::{Overwrite, Refusal};
use crate::decide::{Able, EntryVerdict, FullReason, SyncPlan, diverged_plan};
use crate::events::EventKind;
use crate::format::{ConfigId, Relation, Superblock, compare};
use crate::probe::LegFound;

/// See the module.
#[derive(Debug, Default)]
pub(super) enum Split {
    /// None that this holder knows of.
    #[default]
    None,
    /// The peer's leg as it was last seen.
    Seen(Box<Superblock>),
    /// The leg with this config may be overwritten.
    Granted { theirs: ConfigId, how: Overwrite },
}

impl Holder {
    /// The config of the peer's leg, if that has diverged.
    pub(super) fn diverged(&self) -> Option<ConfigId> {
        match &self.split {
            Split::None => None,
            Split::Seen(theirs) => Some(theirs.config().id),
            Split::Granted { theirs, .. } => Some(*theirs),
        }
    }

    /// The operator's word: this node's data set stays, that of the leg with this config goes.
    pub(crate) fn resolve_split(
        &mut self,
        theirs: ConfigId,
        how: Overwrite,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), Refusal> {
        let seen = match &self.split {
            Split::None => return Err(Refusal::NotSplit),
            // It was given already.
            Split::Granted { theirs: granted, .. } if *granted == theirs => return Ok(()),
            Split::Granted { .. } => return Err(Refusal::PeerMoved),
            Split::Seen(seen) => seen,
        };
        if !matches!(self.membership, Membership::Barred { .. }) {
            return Err(Refusal::NotSplit);
        }
        if seen.config().id != theirs {
            return Err(Refusal::PeerMoved);
        }
        let alone = self.in_sync() == Sides::OWN && self.phase == Phase::Serving;
        if !alone || self.change_kind().is_some() {
            return Err(Refusal::Busy);
        }
        let seen = (**seen).clone();
        let fresh = self.fresh_above(&seen, ctx);
        let Ok(next) = self.known().outranking(self.who, fresh) else {
            self.exhausted(ctx);
            return Err(Refusal::Busy);
        };
        ctx.note(EventKind::SplitResolving { theirs });
        self.begin_change(Kind::Outrank { theirs, how }, next, Able::Both);
        self.settle(ctx);
        Ok(())
    }

    /// The config above both is durable: the next look at the peer's leg lets it in.
    pub(super) fn outranked(&mut self, theirs: ConfigId, how: Overwrite, ctx: &mut Ctx<'_>) {
        self.split = Split::Granted { theirs, how };
        let now = ctx.now();
        if let Membership::Barred { retry_at, .. } = &mut self.membership {
            *retry_at = now;
        }
    }

    /// The peer's superblock has our history: nothing has diverged any more.
    pub(super) fn reunited(&mut self) {
        self.split = Split::None;
    }

    /// What a diverged leg that was found is let in as: not at all, or as a copy of ours.
    pub(super) fn on_diverged(
        &mut self,
        ours: &Superblock,
        found: &LegFound,
        verdict: EntryVerdict,
    ) -> EntryVerdict {
        let diverged = matches!(&verdict, EntryVerdict::Bar(why) if why.is_divergence());
        let LegFound::Leg(leg) = found else {
            self.split = Split::None;
            return verdict;
        };
        if !diverged {
            self.split = Split::None;
            return verdict;
        }
        let theirs = &leg.superblock;
        match self.split {
            Split::Granted { theirs: granted, how } if theirs.config().id == granted => {
                EntryVerdict::Resync(plan(ours, theirs, how))
            }
            _ => {
                self.split = Split::Seen(Box::new(theirs.clone()));
                verdict
            }
        }
    }
}

fn plan(ours: &Superblock, theirs: &Superblock, how: Overwrite) -> SyncPlan {
    let last_shared = match compare(&ours.history, &theirs.history) {
        Relation::Split { last_shared } => last_shared,
        _ => None,
    };
    match how {
        Overwrite::Everything => SyncPlan::Full(FullReason::Ordered),
        Overwrite::Tracked => diverged_plan(ours, theirs, last_shared),
    }
}
