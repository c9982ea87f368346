//! What a node does that does not hold: it starts, holds still, stands by, is promoted.

use core::time::Duration;

use bdev::FenceKey;
use engine::Instant;
use mirror::decide::{
    DegradedStart, Differences, Granted, HoldReason, HolderSession, HolderState, PeerSight, PromoteMode,
    Standing, StartFacts, StartVerdict, Starting, TakeoverVerdict, informed, is_drained, may_promote,
    next_generation, on_start, on_word, peers_word, serves_from, standing,
};
use mirror::format::{LegMask, Reason, Superblock};
use mirror::truth::{Fresh, Truth};
use uuid::Uuid;

use super::book::Cfg;
use super::holder::refuse_fence;
use super::state::{
    AGE_MAX, Change, Claim, Copying, Holder, Key, Kind, LEASE, Leg, Line, Log, Phase, Promoting, Promotion,
    Role, State, Step, Way,
};
use super::{Model, leg_index};

/// How a node comes to hold.
pub(super) struct Beginning {
    pub(super) starting: Starting,
    pub(super) reason: Reason,
    pub(super) generation: u64,
    pub(super) behind: Option<Cfg>,
}

impl Model {
    pub(super) fn node_steps(&mut self, state: &State, node: usize) {
        match state.roles[node] {
            Role::Down => self.restart(state, node),
            Role::Hold(claim) => self.start(state, node, claim),
            Role::Standby => self.take_over(state, node),
            Role::Promoting(promoting) => self.promote(state, node, promoting),
            Role::Holder(_) => {}
        }
    }

    fn restart(&mut self, state: &State, node: usize) {
        let mut next = *state;
        let own = self.book.get(state.legs[node].sb);
        next.roles[node] =
            if own.config().holder == own.index { Role::Hold(Claim::None) } else { Role::Standby };
        next.guards[node].stands = own.fence.into();
        self.push("starts", node, next);
    }

    fn informed(&self, own: &Superblock, behind: Option<Cfg>) -> Superblock {
        informed(own, behind.map_or(Standing::Current, |config| Standing::Behind(*self.book.config(config))))
    }

    fn behind(&mut self, standing: Standing) -> Option<Cfg> {
        if let Standing::Behind(config) = standing { Some(self.book.config_number(config)) } else { None }
    }

    /// Looks at the arbiter and at the peer's leg, and serves if that is safe.
    fn start(&mut self, state: &State, node: usize, claim: Claim) {
        let own = self.book.get(state.legs[node].sb).clone();
        let mut behind = None;
        if self.has_arbiter() {
            if state.reach[node] == Line::Cut {
                return;
            }
            match standing(&own, Some(self.book.config(state.arbiter))) {
                Standing::Older | Standing::Unknown | Standing::Vacant => {
                    return self.wrong("looks", node, *state, "the arbiter is older than a leg");
                }
                standing => behind = self.behind(standing),
            }
        }
        let sees = state.is_connected();
        let peer = self.book.found(state.legs[1 - node].sb);
        if sees && !self.has_arbiter() {
            behind = self.behind(peers_word(&own, &peer));
        }
        let informed = self.informed(&own, behind);
        let Leg { logged, marked, .. } = state.legs[node];
        // With the arbiter's word a start without the peer is a matter of time; without one it is the operator's, who does
        // not give that command here.
        let patience: &[DegradedStart] = if self.has_arbiter() {
            &[DegradedStart::Withheld, DegradedStart::Allowed]
        } else {
            &[DegradedStart::Withheld]
        };
        for &degraded in patience {
            let facts = StartFacts {
                own: &informed,
                incarnation: Uuid::from_u128(1),
                differences: if logged || marked { Differences::Possible } else { Differences::None },
                peer: if sees { PeerSight::Seen(&peer) } else { PeerSight::Unseen },
                degraded,
            };
            match on_start(&facts) {
                StartVerdict::Serve(Starting::FromPeer(_)) | StartVerdict::Hold(HoldReason::Split { .. }) => {
                    self.wrong("starts to serve", node, *state, "the legs have diverged (I11)");
                }
                StartVerdict::Hold(_) => {}
                StartVerdict::Standby(_) => {
                    let mut next = *state;
                    next.roles[node] = Role::Standby;
                    self.push("stands by", node, next);
                }
                StartVerdict::Serve(starting)
                    if !self.has_arbiter() && starting != Starting::Alone && claim != Claim::Granted =>
                {
                    if claim == Claim::None {
                        self.claim(state, node, &informed);
                    }
                }
                StartVerdict::Serve(starting) => {
                    let theirs = sees.then(|| self.book.get(state.legs[1 - node].sb));
                    let was_both = informed.config().in_sync == LegMask::both();
                    let reason = if starting == Starting::Alone && was_both {
                        Reason::StartedDegraded
                    } else {
                        Reason::Restarted
                    };
                    let generation = next_generation(&informed, theirs);
                    let beginning = Beginning { starting, reason, generation, behind };
                    self.become_holder("starts to serve", state, node, &beginning);
                }
            }
        }
    }

    /// The own superblock learns a generation, and the peer's guard is asked with it.
    fn claim(&mut self, state: &State, node: usize, informed: &Superblock) {
        let theirs = self.book.get(state.legs[1 - node].sb);
        let generation = next_generation(informed, Some(theirs));
        if generation > self.scope.generations || state.guards[1 - node].fencing.is_some() {
            return;
        }
        let mut own = self.book.get(state.legs[node].sb).clone();
        own.fence = FenceKey { node: leg_index(node).number(), generation };
        let key = Key::from(own.fence);
        let mut next = *state;
        next.legs[node].sb = self.book.number(own);
        raise(&mut next, node, key.1);
        if next.take_fence(1 - node, key) {
            next.roles[node] = Role::Hold(Claim::Asked);
        }
        self.push("claims the peer's leg", node, next);
    }

    /// From here on the node serves, as soon as its first config is durable.
    pub(super) fn become_holder(
        &mut self,
        what: &'static str,
        state: &State,
        node: usize,
        beginning: &Beginning,
    ) {
        let Beginning { starting, reason, generation, behind } = *beginning;
        let (leg, who) = (state.legs[node], leg_index(node));
        let own = self.informed(self.book.get(leg.sb), behind);
        let truth = Truth::of(&own);
        let least = truth.next_generation(self.book.get(leg.sb), None).max(generation);
        let fresh = self.fresh(state, node, least);
        let Ok(opened) = truth.opened(who, starting, reason, Uuid::from_u128(1), fresh) else { return };
        if least > self.scope.generations {
            return;
        }
        let mut next = *state;
        let marks = leg.logged || leg.marked;
        let base = self.book.get(leg.sb).clone();
        let holder = Holder {
            truth: self.book.number(truth.on(&base, who)),
            has: self.book.config_number(*own.config()),
            change: Some(self.change(Kind::Open, &truth, &opened, &base, node, Step::Own)),
            phase: Phase::Opening,
            way: Way::Away,
            peer: None,
            log: if leg.logged { Log::Durable } else { Log::Free },
            marks,
            lease: 0,
            write: None,
            copy: Copying::None,
        };
        next.roles[node] = Role::Holder(holder);
        self.push(what, node, next);
    }

    /// A nonce that no other config of this generation has: the crashes so far tell a node's runs apart.
    pub(super) fn fresh(&self, state: &State, node: usize, generation: u64) -> Fresh {
        let nonce = 10 + 2 * u64::from(state.crashes) + node as u64;
        Fresh { generation, nonce }
    }

    pub(super) fn change(
        &mut self,
        kind: Kind,
        now: &Truth,
        next: &Truth,
        base: &Superblock,
        node: usize,
        first: Step,
    ) -> Change {
        let asks = mirror::decide::asks_arbiter(self.scope.policy, now.config(), next.config());
        let next = self.book.number(next.on(base, leg_index(node)));
        Change { kind, next, step: if asks { Step::Arbiter } else { first } }
    }

    // --- Promotion ---

    /// The holder does not answer, or is frozen, or the operator says so: this node asks for the array.
    fn take_over(&mut self, state: &State, node: usize) {
        if state.guards[node].fencing.is_some() {
            return;
        }
        let own = self.book.get(state.legs[node].sb).clone();
        let mut behind = None;
        if self.has_arbiter() {
            if state.reach[node] == Line::Cut || !own.is_in_sync() {
                return;
            }
            let peer = state.is_connected().then(|| self.book.id(state.legs[1 - node].sb).generation);
            let holds = self.book.config(state.arbiter);
            match on_word(&own, holds, peer, PromoteMode::Ordinary) {
                TakeoverVerdict::Older => {
                    return self.wrong("asks", node, *state, "the arbiter is older than a leg");
                }
                TakeoverVerdict::NotCounted { .. } => return,
                TakeoverVerdict::Ours => {
                    let mut next = *state;
                    next.roles[node] = Role::Hold(Claim::None);
                    return self.push("looks at its own log", node, next);
                }
                TakeoverVerdict::Promote(standing) => behind = self.behind(standing),
            }
        } else if state.is_up(1 - node) {
            // The operator promotes only when the other node is down.
            return;
        }
        let informed = self.informed(&own, behind);
        let ordinary = PromoteMode::Ordinary;
        let Ok(promotion) = may_promote(&informed, ordinary, HolderSession::Absent, HolderState::Unknown)
        else {
            return;
        };
        if promotion.generation > self.scope.generations {
            return;
        }
        let mut next = *state;
        let generation = u8::try_from(promotion.generation).expect("a small scope");
        raise(&mut next, node, generation);
        next.roles[node] = Role::Promoting(Promoting { generation, stage: Promotion::Raised, behind });
        self.push("is promoted", node, next);
    }

    fn promote(&mut self, state: &State, node: usize, promoting: Promoting) {
        let mut next = *state;
        match promoting.stage {
            Promotion::Raised if is_drained(state.in_flight(node)) => {
                let mut own = self.book.get(state.legs[node].sb).clone();
                let number = leg_index(node).number();
                own.fence = FenceKey { node: number, generation: promoting.generation.into() };
                next.legs[node].sb = self.book.number(own);
                next.roles[node] = Role::Promoting(Promoting { stage: Promotion::Fenced, ..promoting });
                self.push("fences its own leg", node, next);
            }
            Promotion::Fenced if lease_is_over(state.guards[node].age) => {
                let reason = if self.has_arbiter() { Reason::TakenOver } else { Reason::Promoted };
                let generation = promoting.generation.into();
                let beginning =
                    Beginning { starting: Starting::Alone, reason, generation, behind: promoting.behind };
                self.become_holder("asks for the array", state, node, &beginning);
            }
            Promotion::Raised | Promotion::Fenced => {}
        }
    }
}

/// The guard refuses older keys from now on, and the fence under way.
pub(super) fn raise(state: &mut State, node: usize, generation: u8) {
    if generation > state.guards[node].stands.1 {
        refuse_fence(state, node);
        state.guards[node].stands = Key(u8::try_from(node).expect("0 or 1"), generation);
    }
}

/// A leg was last let through, or the node began, so many ticks ago.
fn lease_is_over(age: u8) -> bool {
    let tick = Duration::from_secs(1);
    let now = Instant::EPOCH + tick * 100;
    let granted = Granted::At(Instant::EPOCH + tick * (100 - u32::from(age)));
    debug_assert!(age <= AGE_MAX);
    now >= serves_from(granted, tick * u32::from(LEASE))
}
