//! A planned switchover: hosts are refused, what is under way ends, and a config names the peer.

use mirror::format::{LegMask, Reason};

use super::holder::leave;
use super::state::{Copying, End, Holder, Kind, Log, OwnLeg, Phase, Role, State, Way};
use super::{Model, leg_index};

impl Model {
    pub(super) fn hand_over_steps(&mut self, state: &State, node: usize, holder: &Holder) {
        let ready = self.in_sync(holder) == LegMask::both() && holder.way == Way::Joined;
        let mut next = *state;
        match holder.phase {
            Phase::Serving => {
                let sound = holder.own == OwnLeg::Counted && !holder.marks && holder.change.is_none();
                if ready && sound && state.spent.switchovers < self.scope.switchovers {
                    next.spent.switchovers += 1;
                    next.holder_mut(node).expect("it holds").phase = Phase::Closing;
                    self.push("begins a switchover", node, next);
                }
            }
            Phase::Closing => match holder.change {
                Some(change) if change.kind == Kind::HandOver => {
                    // It takes too long: the arbiter or the peer may have been told.
                    leave(&mut next, node, End::Orphaned);
                    self.push("gives the switchover up", node, next);
                }
                Some(_) => {}
                None if !ready => {
                    next.holder_mut(node).expect("it holds").phase = Phase::Serving;
                    self.push("gives the switchover up", node, next);
                }
                None => self.name_peer(state, node, holder),
            },
            Phase::Opening | Phase::OpeningPeer | Phase::Leaving(_) => {}
        }
    }

    fn name_peer(&mut self, state: &State, node: usize, holder: &Holder) {
        let leg = &state.legs[node];
        let clean = holder.write.is_none() && holder.copy == Copying::None && !holder.marks;
        let freed = holder.log == Log::Free && !leg.logged && !leg.marked;
        let (truth, own) = (self.truth_of(holder), self.book.get(leg.sb).clone());
        let peer = holder.peer.map(|peer| self.book.get(peer).clone());
        let generation = self.known(holder).next_generation(&own, peer.as_ref());
        if !clean || !freed || self.is_beyond(generation) {
            return;
        }
        let fresh = Self::fresh(state, node, generation, Reason::SwitchedOver);
        let named = truth.handed_over(leg_index(node), fresh).expect("generations left");
        let change = self.change(Kind::HandOver, (&truth, &named), &own, node);
        self.begin("names the peer", state, node, change, holder.way);
    }

    /// The peer knows, and this node's superblock does too.
    pub(super) fn handed_over(next: &mut State, node: usize) {
        next.roles[node] = Role::Standby;
    }
}
