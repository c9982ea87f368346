//! What a node does that does not hold: it starts, holds still, stands by, is promoted.

use core::time::Duration;

use bdev::FenceKey;
use engine::Instant;
use mirror::decide::{
    DegradedStart, Differences, Granted, HoldReason, HolderSession, HolderState, LegAge, PeerSight,
    PromoteMode, Standing, StartFacts, StartVerdict, Starting, SyncPlan, TakeoverVerdict, begins_from,
    informed, is_drained, may_promote, next_generation, on_diverged, on_start, on_word, peers_word,
    serves_from, standing, takes_up,
};
use mirror::format::{LegMask, Reason, Superblock};
use mirror::truth::{Fresh, Truth};
use uuid::Uuid;

use super::book::{Cfg, Past};
use super::state::{
    AGE_MAX, By, Cause, Claim, Copying, Hold, Holder, Key, Kind, LEASE, Leg, Line, Log, Medium, OwnLeg,
    Phase, Promoting, Promotion, Role, State, Way, long, short,
};
use super::{Model, leg_index};

/// How a node comes to hold.
pub(super) struct Beginning {
    pub(super) starting: Starting,
    pub(super) reason: Reason,
    pub(super) generation: u64,
    pub(super) behind: Option<Past>,
    /// What the arbiter holds.
    pub(super) has: Cfg,
}

impl Model {
    pub(super) fn node_steps(&mut self, state: &State, node: usize) {
        match state.roles[node] {
            _ if state.legs[node].medium == Medium::Broken => {}
            Role::Down => self.restart(state, node),
            Role::Hold(hold) => {
                self.start(state, node, hold);
                self.force(state, node);
            }
            Role::Standby => {
                self.take_over(state, node);
                self.force(state, node);
            }
            Role::Promoting(promoting) => self.promote(state, node, promoting),
            Role::Holder(_) => {}
        }
    }

    fn restart(&mut self, state: &State, node: usize) {
        let mut next = *state;
        let own = self.book.get(state.legs[node].sb);
        next.roles[node] =
            if own.config().holder == own.index { Role::Hold(Hold::AGAIN) } else { Role::Standby };
        next.guards[node].stands = own.fence.into();
        self.push("starts", node, next);
    }

    /// How a superblock stands to what its node has seen the arbiter hold.
    fn standing_of(&self, own: &Superblock, behind: Option<Past>) -> Standing {
        behind.map_or(Standing::Current, |past| standing(own, Some(self.book.past(past))))
    }

    fn behind(&mut self, standing: &Standing) -> Option<Past> {
        match standing {
            Standing::Behind(line) | Standing::Diverged { line, .. } => Some(self.book.past_number(line)),
            Standing::Current | Standing::Vacant | Standing::Unknown | Standing::Older => None,
        }
    }

    /// Looks at the arbiter and at the peer's leg, and serves if that is safe.
    fn start(&mut self, state: &State, node: usize, hold: Hold) {
        let own = self.book.get(state.legs[node].sb).clone();
        let mut behind = None;
        if hold.cause == Cause::Given {
            let mut next = *state;
            next.roles[node] = Role::Hold(Hold { cause: Cause::Late, ..hold });
            self.push("waits for the old holder no longer", node, next);
        }
        if hold.cause != Cause::Again && self.has_arbiter() {
            // What the old holder asked it before it told us is still taken for its answer.
            self.start_with(state, node, hold, None);
        }
        if hold.cause == Cause::Given && self.has_arbiter() {
            return;
        }
        if self.has_arbiter() {
            if state.reach[node] == Line::Cut {
                return;
            }
            match standing(&own, Some(self.book.past(state.arbiter))) {
                Standing::Older | Standing::Unknown | Standing::Vacant => {
                    return self.wrong("looks", node, *state, "the arbiter is older than a leg");
                }
                standing => behind = self.behind(&standing),
            }
        }
        let sees = state.is_connected() && state.legs[1 - node].medium == Medium::Sound;
        let peer = self.book.found(state.legs[1 - node].sb);
        if sees && !self.has_arbiter() {
            behind = self.behind(&peers_word(&own, &peer));
        }
        self.start_with(state, node, hold, behind);
    }

    /// Decides with what is known of the newest config.
    fn start_with(&mut self, state: &State, node: usize, hold: Hold, behind: Option<Past>) {
        let own = self.book.get(state.legs[node].sb).clone();
        let sees = state.is_connected() && state.legs[1 - node].medium == Medium::Sound;
        let peer = self.book.found(state.legs[1 - node].sb);
        let standing = self.standing_of(&own, behind);
        let informed = informed(&own, &standing);
        let Leg { logged, marked, .. } = state.legs[node];
        let taking_up = hold.cause == Cause::Given;
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
                age: LegAge::of(&own, &standing),
                incarnation: Uuid::from_u128(1),
                differences: if logged || marked { Differences::Possible } else { Differences::None },
                peer: if sees { PeerSight::Seen(&peer) } else { PeerSight::Unseen },
                degraded,
            };
            let verdict = match &standing {
                Standing::Diverged { line, last_shared } => on_diverged(&own, line.current(), *last_shared),
                _ => on_start(&facts),
            };
            match verdict {
                // The old holder's superblock is about to name this node as well.
                StartVerdict::Serve(Starting::Resync(_) | Starting::Alone) | StartVerdict::Hold(_)
                    if taking_up => {}
                StartVerdict::Hold(HoldReason::Split { .. }) if !self.may_split(state) => {
                    self.wrong("starts to serve", node, *state, "the legs have diverged (I11)");
                }
                StartVerdict::Hold(_) => {}
                StartVerdict::Standby(_) => {
                    let mut next = *state;
                    next.roles[node] = Role::Standby;
                    self.push("stands by", node, next);
                }
                StartVerdict::Serve(starting)
                    if !self.has_arbiter() && starting != Starting::Alone && hold.claim != Claim::Granted =>
                {
                    if hold.claim == Claim::None {
                        self.claim(state, node, hold, &informed);
                    }
                }
                StartVerdict::Serve(starting) => {
                    let theirs = sees.then(|| self.book.get(state.legs[1 - node].sb));
                    let was_both = informed.config().in_sync == LegMask::both();
                    let reason = match hold.cause {
                        _ if starting == Starting::Alone && was_both => Reason::StartedDegraded,
                        Cause::Given | Cause::Late => Reason::SwitchedOver,
                        Cause::Again => Reason::Restarted,
                    };
                    let generation = if takes_up(starting, reason) {
                        informed.config().generation()
                    } else {
                        next_generation(&informed, theirs)
                    };
                    // Whoever was told by the old holder has not asked.
                    let has = match behind {
                        Some(past) => self.book.newest_number(past),
                        None => self.book.config_number(*own.config()),
                    };
                    let beginning = Beginning { starting, reason, generation, behind, has };
                    self.become_holder("starts to serve", state, node, &beginning);
                }
            }
        }
    }

    /// The own superblock learns a generation, and the peer's guard is asked with it.
    fn claim(&mut self, state: &State, node: usize, hold: Hold, informed: &Superblock) {
        let theirs = self.book.get(state.legs[1 - node].sb);
        let generation = next_generation(informed, Some(theirs));
        if self.is_beyond(generation) || state.guards[1 - node].fencing.is_some() {
            return;
        }
        let mut own = self.book.get(state.legs[node].sb).clone();
        own.fence = FenceKey { node: leg_index(node).number(), generation };
        let key = Key::from(own.fence);
        let mut next = *state;
        next.legs[node].sb = self.book.number(own);
        self.raise(&mut next, node, key.1);
        if next.take_fence(1 - node, key) {
            next.roles[node] = Role::Hold(Hold { claim: Claim::Asked, ..hold });
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
        if let Some(lost) = state.lost {
            return self.holds_by_backup(what, state, node, lost);
        }
        let Beginning { starting, reason, generation, behind, has } = *beginning;
        let (leg, who) = (state.legs[node], leg_index(node));
        let own = self.book.get(leg.sb);
        let own = begins_from(own, &self.standing_of(own, behind), reason);
        let truth = Truth::of(&own);
        let least = truth.next_generation(self.book.get(leg.sb), None).max(generation);
        let fresh = Self::fresh(state, node, least, reason);
        let boot = Uuid::from_u128(1);
        let opened = if takes_up(starting, reason) {
            truth.taken_up(who, boot)
        } else {
            truth.opened(who, starting, reason, boot, fresh).expect("generations left")
        };
        if self.is_beyond(opened.config().generation()) || self.is_beyond(opened.fence) {
            return;
        }
        let mut next = *state;
        let whole = matches!(starting, Starting::FromPeer(SyncPlan::Full(_)));
        let marks = leg.logged || leg.marked || whole;
        let own_leg = match starting {
            Starting::FromPeer(_) => OwnLeg::Copying,
            Starting::Alone | Starting::Both | Starting::Resync(_) => OwnLeg::Counted,
        };
        if reason == Reason::ForcePromoted {
            next.base = Some(leg.value);
        }
        let base = self.book.get(leg.sb).clone();
        let holder = Holder {
            truth: self.book.number(truth.on(&base, who)),
            has,
            change: Some(self.change(Kind::Open, (&truth, &opened), &base, node)),
            suspended: None,
            own: own_leg,
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

    /// A nonce that no other config of this generation has: the crashes so far, and what they were about, tell a node's runs
    /// apart.
    pub(super) fn fresh(state: &State, node: usize, generation: u64, reason: Reason) -> Fresh {
        let nonce = 10 + 2 * u64::from(state.spent.crashes) + node as u64 + 100 * reason as u64;
        Fresh { generation, nonce }
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
            let holds = self.book.past(state.arbiter);
            match on_word(&own, holds, peer, PromoteMode::Ordinary) {
                TakeoverVerdict::Older => {
                    return self.wrong("asks", node, *state, "the arbiter is older than a leg");
                }
                TakeoverVerdict::NotCounted { .. } => return,
                TakeoverVerdict::Diverged { .. } if !self.may_split(state) => {
                    return self.wrong("asks", node, *state, "the legs have diverged (I11)");
                }
                TakeoverVerdict::Diverged { .. } => return,
                TakeoverVerdict::Ours => {
                    let mut next = *state;
                    next.roles[node] = Role::Hold(Hold::AGAIN);
                    return self.push("looks at its own log", node, next);
                }
                TakeoverVerdict::Promote(standing) => behind = self.behind(&standing),
            }
        } else if state.is_up(1 - node) || self.was_left_behind(state, node) {
            // The operator promotes only when the other node is down, and had not gone on without this one.
            return;
        }
        if let Some(lost) = state.lost {
            return self.holds_by_backup("is promoted", state, node, lost);
        }
        self.promote_from(state, node, behind, By::Rule);
    }

    fn was_left_behind(&self, state: &State, node: usize) -> bool {
        let (own, other) = (self.book.get(state.legs[node].sb), self.book.get(state.legs[1 - node].sb));
        let newer = other.config().generation() > own.config().generation();
        newer && !other.config().in_sync.has(own.index)
    }

    /// The operator's word is that this node's data count, whatever they are.
    fn force(&mut self, state: &State, node: usize) {
        if state.lost.is_some()
            || state.spent.forces >= self.scope.forces
            || state.guards[node].fencing.is_some()
        {
            return;
        }
        let own = self.book.get(state.legs[node].sb).clone();
        let mut behind = None;
        if self.has_arbiter() {
            if state.reach[node] == Line::Cut {
                return;
            }
            let TakeoverVerdict::Promote(standing) =
                on_word(&own, self.book.past(state.arbiter), None, PromoteMode::Forced)
            else {
                return;
            };
            behind = self.behind(&standing);
        }
        self.promote_from(state, node, behind, By::Force);
    }

    fn promote_from(&mut self, state: &State, node: usize, behind: Option<Past>, by: By) {
        let own = self.book.get(state.legs[node].sb);
        let (mode, holder) = match by {
            By::Rule => (PromoteMode::Ordinary, HolderState::Unknown),
            By::Force => (PromoteMode::Forced, HolderState::ConfirmedDown),
        };
        let standing = self.standing_of(own, behind);
        let Ok(promotion) = may_promote(own, &standing, mode, HolderSession::Absent, holder) else { return };
        if self.is_beyond(promotion.generation) {
            return;
        }
        let mut next = *state;
        next.spent.forces += u8::from(by == By::Force);
        let generation = short(promotion.generation);
        self.raise(&mut next, node, generation);
        let (stage, has) = (Promotion::Raised, self.book.newest_number(state.arbiter));
        next.roles[node] = Role::Promoting(Promoting { generation, stage, behind, has, by });
        self.push(if by == By::Force { "is promoted by force" } else { "is promoted" }, node, next);
    }

    fn promote(&mut self, state: &State, node: usize, promoting: Promoting) {
        let mut next = *state;
        match promoting.stage {
            Promotion::Raised if is_drained(state.in_flight(node)) => {
                let mut own = self.book.get(state.legs[node].sb).clone();
                let number = leg_index(node).number();
                own.fence = FenceKey { node: number, generation: long(promoting.generation) };
                next.legs[node].sb = self.book.number(own);
                next.roles[node] = Role::Promoting(Promoting { stage: Promotion::Fenced, ..promoting });
                self.push("fences its own leg", node, next);
            }
            Promotion::Fenced if lease_is_over(state.guards[node].age) => {
                let reason = match promoting.by {
                    By::Force => Reason::ForcePromoted,
                    By::Rule if self.has_arbiter() => Reason::TakenOver,
                    By::Rule => Reason::Promoted,
                };
                let Promoting { behind, has, .. } = promoting;
                let (starting, generation) = (Starting::Alone, long(promoting.generation));
                let beginning = Beginning { starting, reason, generation, behind, has };
                self.become_holder("asks for the array", state, node, &beginning);
            }
            Promotion::Raised | Promotion::Fenced => {}
        }
    }
}

impl Model {
    /// The guard refuses older keys from now on, and the fence under way.
    pub(super) fn raise(&self, state: &mut State, node: usize, generation: u8) {
        if generation > state.guards[node].stands.1 {
            self.refuse_fence(state, node);
            state.guards[node].stands = Key(u8::try_from(node).expect("0 or 1"), generation);
        }
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
