//! Stopping in order (R12): drain, flush both legs, save the bitmap, free the log, CLEAN on both legs. A switchover and
//! an orderly demotion end a holder the same way; a switchover's last step is a config that names the peer.
//!
//! ```text
//! Draining --(no request, no copy)--> Flushing --> Saving --(bitmap on disk)--> Freeing --(log empty)--> Marking
//! ```
//!
//! A leg that goes away meanwhile is degraded as ever, and the rest goes on without it; a switchover is off then.

use core::time::Duration;
use engine::Instant;

use crate::decide::Able;
use crate::desk::Side;
use crate::events::{EventKind, SwitchoverTrouble};

use super::change::Kind;
use super::journal::FlushFor;
use super::{Ctx, Ending, Farewell, Holder, Phase, Sides};
use crate::command::{Demotion, Refusal};
use crate::mutation::{Mutation, is_broken};

/// How far the stop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// Requests and copies come to their end.
    Draining,
    /// Every leg in sync is flushed.
    Flushing,
    /// The bitmap goes to disk.
    Saving,
    /// The log's slots are freed.
    Freeing,
    /// The superblocks say CLEAN.
    Marking,
}

/// How long a switchover may take before hosts are served here again.
const HAND_OVER: Duration = Duration::from_secs(2);

impl Holder {
    /// Begins to stop. Hosts are answered "not ready" from now on.
    pub(crate) fn close(&mut self, ctx: &mut Ctx<'_>) {
        match self.phase {
            Phase::Serving => self.begin_closing(Farewell::Stop),
            // What was to be a switchover or a demotion ends in a stop as well.
            Phase::Closing(_) if self.farewell == Farewell::Demote => self.farewell = Farewell::Stop,
            Phase::Opening(_) => self.phase = Phase::Leaving(Ending::Superseded),
            Phase::Closing(_) | Phase::Leaving(_) | Phase::Ended(_) => {}
        }
        self.settle(ctx);
    }

    fn begin_closing(&mut self, farewell: Farewell) {
        self.farewell = farewell;
        self.phase = Phase::Closing(Closing::Draining);
    }

    /// Stops being the holder.
    pub(crate) fn demote(&mut self, how: Demotion, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        match (how, self.phase) {
            (_, Phase::Leaving(_) | Phase::Ended(_)) => return Ok(()),
            (Demotion::Orderly, Phase::Serving) => {
                ctx.note(EventKind::Demoting(how));
                self.begin_closing(Farewell::Demote);
            }
            (Demotion::Orderly, Phase::Closing(_)) if self.farewell == Farewell::Demote => {}
            (Demotion::Orderly, Phase::Closing(_)) => return Err(Refusal::Busy),
            (Demotion::AtOnce, _) | (Demotion::Orderly, Phase::Opening(_)) => {
                ctx.note(EventKind::Demoting(how));
                self.leave(Ending::Demoted, ctx);
            }
        }
        self.settle(ctx);
        Ok(())
    }

    /// Gives the array to the peer.
    pub(crate) fn hand_over(&mut self, ctx: &mut Ctx<'_>) -> Result<(), Refusal> {
        if self.phase != Phase::Serving
            || self.change_kind().is_some_and(|kind| !matches!(kind, Kind::Mark | Kind::Remember))
        {
            return Err(Refusal::Busy);
        }
        if !self.is_ready_for_peer() {
            return Err(Refusal::PeerNotInSync);
        }
        ctx.note(EventKind::SwitchingOver);
        self.begin_closing(Farewell::HandOver { until: ctx.now() + HAND_OVER });
        self.settle(ctx);
        Ok(())
    }

    fn is_ready_for_peer(&self) -> bool {
        self.is_both() && self.is_joined() && self.own_failure.is_none() && self.bitmap.is_clear()
    }

    pub(super) fn drive_closing(&mut self, ctx: &mut Ctx<'_>) {
        let Phase::Closing(closing) = self.phase else { return };
        if let Farewell::HandOver { until } = self.farewell {
            self.watch_hand_over(closing, until, ctx);
        }
        if !matches!(self.phase, Phase::Closing(_)) || self.is_lost_member() || self.change.is_some() {
            return;
        }
        match closing {
            Closing::Draining if self.requests.is_empty() && self.resync.is_idle() => {
                if is_broken(Mutation::R12CleanUnflushed) {
                    let ticket = self.log.begin_flush();
                    self.log.end_flush(ticket);
                    self.phase = Phase::Closing(Closing::Saving);
                    return self.drive_closing(ctx);
                }
                self.phase = Phase::Closing(Closing::Flushing);
                self.begin_own_flush(FlushFor::Close, ctx);
            }
            // Another flush was under way, or one failed and its leg is out by now.
            Closing::Flushing if !self.journal.is_flushing() => self.begin_own_flush(FlushFor::Close, ctx),
            Closing::Saving => self.save(ctx),
            // Or the leg that the log was on is out by now.
            Closing::Freeing if self.log.is_freed() || !self.has_journal() => self.mark_clean(ctx),
            Closing::Draining | Closing::Flushing | Closing::Freeing | Closing::Marking => {}
        }
    }

    /// A switchover that cannot be: back to service, as long as nobody else can have been told.
    fn watch_hand_over(&mut self, closing: Closing, until: Instant, ctx: &mut Ctx<'_>) {
        let trouble = match (self.is_both() && self.is_joined(), ctx.now() >= until) {
            (false, _) => SwitchoverTrouble::PeerLost,
            (true, true) => SwitchoverTrouble::TooSlow,
            (true, false) => return,
        };
        match closing {
            Closing::Draining | Closing::Flushing | Closing::Saving => {
                ctx.note(EventKind::SwitchoverAbandoned(trouble));
                self.phase = Phase::Serving;
            }
            // The log is closed, and the arbiter or the peer may have been told: look who holds.
            Closing::Freeing | Closing::Marking if trouble == SwitchoverTrouble::TooSlow => {
                ctx.note(EventKind::SwitchoverAbandoned(trouble));
                self.leave(Ending::Orphaned, ctx);
            }
            // The change that is under way sees it.
            Closing::Marking if self.change.is_some() => {}
            Closing::Freeing | Closing::Marking => {
                ctx.note(EventKind::SwitchoverAbandoned(trouble));
                self.leave(Ending::Orphaned, ctx);
            }
        }
    }

    /// The peer's superblock could not be written, or was and nobody knows.
    pub(super) fn hand_over_cut_off(&mut self, ctx: &mut Ctx<'_>) {
        ctx.note(EventKind::SwitchoverAbandoned(SwitchoverTrouble::PeerLost));
        self.leave(Ending::Orphaned, ctx);
    }

    /// Acknowledges nothing more, and ends when nothing of it is on its way.
    pub(super) fn leave(&mut self, ending: Ending, ctx: &mut Ctx<'_>) {
        ctx.ballot.forget();
        self.change = None;
        self.phase = Phase::Leaving(ending);
        self.drive_leaving(ending, ctx);
    }

    pub(super) fn on_close_flushed(&mut self, ctx: &mut Ctx<'_>) {
        if self.phase == Phase::Closing(Closing::Flushing) {
            self.phase = Phase::Closing(Closing::Saving);
            self.drive_closing(ctx);
        }
    }

    fn save(&mut self, ctx: &mut Ctx<'_>) {
        if !self.has_journal() {
            return self.mark_clean(ctx);
        }
        if self.journal.has_pages_out() || !self.bitmap.is_saved() || !ctx.desk.has_block() {
            return;
        }
        let generation = self.config().generation();
        if let Ok(transaction) = self.log.close(generation, &self.bitmap) {
            self.phase = Phase::Closing(Closing::Freeing);
            let purpose = crate::desk::Purpose::Transaction { seq: transaction.seq };
            ctx.desk.write_block(Side::Own, &transaction.write, purpose);
        }
    }

    fn mark_clean(&mut self, ctx: &mut Ctx<'_>) {
        self.phase = Phase::Closing(Closing::Marking);
        if let Farewell::HandOver { .. } = self.farewell {
            return self.name_peer(ctx);
        }
        let next = self.truth.clean();
        let both = self.in_sync() == Sides::all() && self.is_joined();
        let able = if both { Able::Both } else { Able::Only(Side::Own) };
        self.begin_change(Kind::Close, next, able);
    }

    /// The config that names the peer. Its own superblock is what it acts on: once that says so, this node is out, and
    /// until then nobody else is in. So it comes first.
    fn name_peer(&mut self, ctx: &mut Ctx<'_>) {
        let fresh = self.fresh(0, ctx);
        let Ok(next) = self.truth.handed_over(self.who, fresh) else { return self.exhausted(ctx) };
        self.begin_change(Kind::HandOver, next, Able::Both);
    }
}
