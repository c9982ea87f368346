//! The arbiter's answer to a change (R8).

use super::{Change, Kind, Stage};
use crate::arbiter::Answer;
use crate::decide::{Step, SwapVerdict, on_refused_swap};
use crate::events::{ArbiterTrouble, EventKind, FreezeCause};
use crate::format::{ConfigId, History};
use crate::holder::{Ctx, Holder};

impl Holder {
    /// The arbiter answered whether this config may be.
    pub(crate) fn on_arbiter(&mut self, asked: ConfigId, answer: Answer, ctx: &mut Ctx<'_>) {
        let is_asked = |change: &&mut Change| {
            change.steps.next() == Some(Step::Arbiter) && change.next.config().id == asked
        };
        let Some(change) = self.change.as_mut().filter(is_asked) else { return };
        change.stage = Stage::Ready;
        let next = *change.next.config();
        let now = *self.truth.config();
        match answer {
            Answer::Swapped => self.on_arbitrated(next.id, ctx),
            Answer::Holds(holds) => {
                match on_refused_swap(&now, &next, holds.as_deref().map(History::current)) {
                    SwapVerdict::Done => self.on_arbitrated(next.id, ctx),
                    SwapVerdict::Lost(config) => {
                        let (holder, generation) = (config.holder, config.generation());
                        ctx.note(EventKind::ArbiterDecided { holder, generation });
                        return self.step_down(ctx);
                    }
                    SwapVerdict::Older => {
                        let expected = now.generation();
                        let (event, trouble) = match holds {
                            Some(_) => (EventKind::ArbiterOlder { expected }, ArbiterTrouble::Older),
                            None => (EventKind::ArbiterVacant, ArbiterTrouble::Vacant),
                        };
                        ctx.note(event);
                        ctx.ballot.pause(ctx.desk.now);
                        self.freeze_for_arbiter(trouble, ctx);
                    }
                }
            }
            Answer::Unknown(why) => {
                ctx.note(EventKind::ArbiterSilent(why));
                self.freeze_for_arbiter(ArbiterTrouble::Silent, ctx);
            }
        }
        self.settle(ctx);
    }

    pub(super) fn on_arbitrated(&mut self, id: ConfigId, ctx: &mut Ctx<'_>) {
        self.arbiter_has = Some(id);
        self.on_step(ctx);
    }

    /// A leg is gone, and nobody says that this node may go on without it: nobody guesses.
    pub(super) fn freeze_for_arbiter(&mut self, trouble: ArbiterTrouble, ctx: &mut Ctx<'_>) {
        if let Some(Kind::Degrade { reason, .. }) = self.change.as_ref().map(|change| change.kind) {
            self.freeze(FreezeCause::Arbiter(reason, trouble), ctx);
        }
    }

    /// Waits for the arbiter.
    pub(in crate::holder) fn is_arbitrating(&self) -> bool {
        self.change.as_ref().is_some_and(|change| change.steps.next() == Some(Step::Arbiter))
    }
}
