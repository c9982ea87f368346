//! The holder's own leg: its medium breaks and is sound again, hosts are served over the peer's, and it is copied to.

use mirror::desk::Side;
use mirror::format::LegMask;

use super::state::{Copying, Holder, Kind, Log, Medium, OwnLeg, Part, Phase, State, Way, Write};
use super::{Model, leg_index};

impl Model {
    /// Log and bitmap are kept on the own leg.
    pub(super) fn has_journal(&self, node: usize, holder: &Holder) -> bool {
        self.in_sync(holder).has(leg_index(node)) || holder.own == OwnLeg::Copying
    }

    pub(super) fn own_leg_steps(&mut self, state: &State, node: usize, holder: &Holder) {
        let medium = state.legs[node].medium;
        let leaves = matches!(holder.phase, Phase::Leaving(_));
        if medium == Medium::Sound && !leaves && state.spent.failures < self.scope.failures {
            let mut next = *state;
            next.spent.failures += 1;
            next.legs[node].medium = Medium::Broken;
            self.push("its medium breaks", node, next);
        }
        if medium == Medium::Broken && holder.log == Log::Unwritten && !leaves {
            let mut next = *state;
            self.own_leg_failed(&mut next, node);
            self.push("cannot write its log", node, next);
        }
        if let Some(write) = holder.write.filter(|write| write.own == Part::Sent)
            && medium == Medium::Broken
        {
            let mut next = *state;
            next.holder_mut(node).expect("it holds").write = Some(Write { own: Part::Failed, ..write });
            self.own_leg_failed(&mut next, node);
            Self::after_own_write(&mut next, node);
            self.push("its leg fails the write", node, next);
        }
        let able = holder.phase == Phase::Serving && holder.way == Way::Joined && holder.change.is_none();
        if holder.own == OwnLeg::Out && able && medium == Medium::Sound {
            let mut next = *state;
            let holder = next.holder_mut(node).expect("it holds");
            holder.own = OwnLeg::Copying;
            holder.log = if state.legs[node].logged { Log::Durable } else { Log::Free };
            self.push("tries its own leg again", node, next);
        }
        self.copy_back(state, node, holder);
    }

    fn copy_back(&mut self, state: &State, node: usize, holder: &Holder) {
        let far = &state.legs[1 - node];
        let idle = holder.copy == Copying::None && holder.write.is_none() && holder.way == Way::Joined;
        if holder.own == OwnLeg::Copying && holder.marks && idle && far.medium == Medium::Sound {
            let mut next = *state;
            next.holder_mut(node).expect("it holds").copy = Copying::Read(far.value);
            self.push("reads what its own leg lacks", node, next);
        }
        let Copying::Read(value) = holder.copy else { return };
        let mut next = *state;
        next.holder_mut(node).expect("it holds").copy = Copying::None;
        if state.legs[node].medium == Medium::Broken {
            self.own_leg_failed(&mut next, node);
        } else {
            next.legs[node].value = value;
            // The way to where it came from was lost meanwhile: copied again.
            next.holder_mut(node).expect("it holds").marks = holder.way != Way::Joined;
        }
        Self::after_own_write(&mut next, node);
        self.push("copies to its own leg", node, next);
    }

    /// As a failure of a leg is judged by: a leg that is about to be counted counts already.
    pub(super) fn binding(&self, holder: &Holder) -> LegMask {
        let rejoins = holder.change.is_some_and(|change| change.kind == Kind::Rejoin(Side::Own));
        if rejoins { LegMask::both() } else { self.in_sync(holder) }
    }

    fn own_leg_failed(&self, state: &mut State, node: usize) {
        let Some(before) = state.holder(node) else { return };
        let binding = self.binding(&before);
        let holder = state.holder_mut(node).expect("it holds");
        if binding == LegMask::both() {
            holder.own = OwnLeg::Failing;
        } else if !binding.has(leg_index(node)) && holder.own == OwnLeg::Copying {
            holder.marks |= holder.write.is_some();
            leave_own_alone(holder);
        }
    }

    /// A medium is replaced, or its way repaired: what was on it is there.
    pub(super) fn mend_media(&mut self, state: &State) {
        for node in 0..2 {
            if state.legs[node].medium == Medium::Broken {
                let mut next = *state;
                next.legs[node].medium = Medium::Sound;
                self.push("its medium is sound again", node, next);
            }
        }
    }
}

/// It is out: nothing waits for its log any more.
pub(super) fn leave_own_alone(holder: &mut Holder) {
    holder.own = OwnLeg::Out;
    if holder.copy != Copying::Sent {
        holder.copy = Copying::None;
    }
    if holder.log == Log::Unwritten {
        holder.log = Log::Free;
    }
}
