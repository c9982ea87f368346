//! Every change of state is told: what a node is, why, with which config, and whether its peer takes part leaves an event since the
//! state before, with a code for machines.

use bdev::AccessState;
use mirror::decide::HoldReason;
use mirror::events::{Codes, EventKind};
use mirror::format::ConfigId;
use mirror::status::{PeerSight, RoleKind, Status};

use super::world::{Check, World};

/// How far a peer's leg takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Out,
    Resync,
    Joined,
}

impl Part {
    fn of(sight: PeerSight) -> Self {
        match sight {
            PeerSight::Unreachable | PeerSight::Probing | PeerSight::Refused | PeerSight::Joining => {
                Self::Out
            }
            PeerSight::Resync => Self::Resync,
            PeerSight::Joined => Self::Joined,
        }
    }
}

/// A process's state, as far as each of its changes is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    run: u64,
    role: RoleKind,
    reason: Option<String>,
    config: Option<ConfigId>,
    part: Option<Part>,
    access: AccessState,
}

/// What a node was when it was last looked at, and the events since it became that.
#[derive(Debug, Default)]
pub(crate) struct Told {
    state: Option<State>,
    /// The last reason that was told of each role.
    reasons: Vec<(RoleKind, String)>,
    since: Vec<EventKind>,
    /// This run has said that it stops: it goes on with what it is at, first.
    stopping: bool,
}

impl Told {
    /// It has told this.
    pub(crate) fn hear(&mut self, event: &EventKind) {
        self.since.push(event.clone());
    }

    fn has(&self, codes: &[&str]) -> bool {
        self.since.iter().any(|event| codes.contains(&event.code()))
    }

    /// What is missing, if anything is.
    fn look(&mut self, state: State) -> Result<(), String> {
        let before = self.state.replace(state.clone()).filter(|before| before.run == state.run);
        let Some(before) = before else {
            *self = Self { state: self.state.take(), ..Self::default() };
            self.reasons = state.reason.map(|reason| (state.role, reason)).into_iter().collect();
            return Ok(());
        };
        self.stopping |= self.has(&["stopping"]);
        let told = self.of_role(&before, &state).and_then(|()| self.of_config(&before, &state));
        let told = told.and_then(|()| self.of_peer(&before, &state));
        let told = told.and_then(|()| self.of_access(&before, &state));
        if before != state {
            self.since.clear();
        }
        told
    }

    fn of_role(&mut self, before: &State, now: &State) -> Result<(), String> {
        let codes = announcements(now.role);
        // One that holds still says so when it knows why.
        let passes = match now.role {
            RoleKind::Holding => true,
            RoleKind::Stopping => self.stopping,
            _ => codes.is_empty(),
        };
        let asking = HoldReason::ArbiterUnasked.to_string();
        let is_silent = match before.role {
            RoleKind::Starting => true,
            RoleKind::Holding => before.reason.as_ref().is_none_or(|it| *it == asking),
            _ => false,
        };
        // A start that comes to nothing before it knew why it waits leaves nothing: the node is what it has said that it is.
        let as_before = is_silent
            && self.reasons.iter().any(|(role, last)| *role == now.role && Some(last) == now.reason.as_ref());
        if before.role != now.role && !passes && !as_before && !self.has(codes) {
            return Err(format!("it went from {:?} to {:?}", before.role, now.role));
        }
        let reason = now.reason.as_ref().filter(|reason| gives_reasons(now.role) && **reason != asking);
        let Some(reason) = reason else { return Ok(()) };
        let last = self.reasons.iter_mut().find(|(role, _)| *role == now.role);
        match last {
            Some((_, last)) if last == reason => return Ok(()),
            Some((_, last)) => last.clone_from(reason),
            None => self.reasons.push((now.role, reason.clone())),
        }
        if self.has(codes) { Ok(()) } else { Err(format!("it is {:?}, because: {reason}", now.role)) }
    }

    fn of_config(&self, before: &State, now: &State) -> Result<(), String> {
        let Some(config) = now.config.filter(|_| before.config.is_some() && before.config != now.config)
        else {
            return Ok(());
        };
        let told = |event: &EventKind| matches!(event, EventKind::ConfigChanged(it) | EventKind::ConfigAdopted(it) if it.id == config);
        if self.since.iter().any(told) { Ok(()) } else { Err(format!("its config is {config:?}")) }
    }

    fn of_peer(&self, before: &State, now: &State) -> Result<(), String> {
        let (Some(was), Some(is)) = (before.part, now.part) else { return Ok(()) };
        let codes: &[&str] = match (was, is) {
            _ if was == is => return Ok(()),
            (_, Part::Joined) => &["peer-joined", "in-sync"],
            (_, Part::Resync) => &["resync-begun"],
            (_, Part::Out) => &[
                "peer-unreachable",
                "peer-failed",
                "peer-barred",
                "split",
                "config-changed",
                "resync-stopped",
            ],
        };
        if self.has(codes) { Ok(()) } else { Err(format!("its peer went from {was:?} to {is:?}")) }
    }

    /// Of a node that stays a standby: how its ports are. Of others it goes with what they are.
    fn of_access(&self, before: &State, now: &State) -> Result<(), String> {
        let stands_by = before.role == RoleKind::Standby && now.role == RoleKind::Standby;
        if !stands_by || before.access == now.access || self.has(of_standby(now.access)) {
            return Ok(());
        }
        Err(format!("its ports went from {:?} to {:?}", before.access, now.access))
    }
}

/// The codes of which one says that a standby's ports have become this.
fn of_standby(access: AccessState) -> &'static [&'static str] {
    match access {
        AccessState::NonOptimized => &["holder-heard"],
        AccessState::Transitioning => &["holder-silent"],
        AccessState::Unavailable => &["nobody-serves"],
        _ => &[],
    }
}

/// The codes of which one says that a node has become this; none for what it passes through.
fn announcements(role: RoleKind) -> &'static [&'static str] {
    match role {
        RoleKind::Starting | RoleKind::Opening => &[],
        RoleKind::Holding => &["holding", "split"],
        RoleKind::Standby => &[
            "standing-by",
            "split",
            "stepping-down",
            "demoting",
            "switchover-abandoned",
            "orphaned",
            "stopping",
        ],
        RoleKind::Promoting => &["promoting"],
        RoleKind::Holder => &["serving", "thawed", "switchover-abandoned"],
        RoleKind::Frozen => &["frozen"],
        RoleKind::SwitchingOver => &["switching-over"],
        RoleKind::Demoting => &["demoting"],
        RoleKind::Stopping => &["stopping"],
        RoleKind::Stopped => &["stopped"],
        RoleKind::Failed => &["leg-unusable"],
    }
}

const fn gives_reasons(role: RoleKind) -> bool {
    matches!(role, RoleKind::Holding | RoleKind::Standby | RoleKind::Frozen | RoleKind::Failed)
}

impl World {
    pub(crate) fn look_what_is_told(&mut self, node: usize, status: &Status) -> Check {
        let state = State {
            run: self.machines[node].run,
            role: status.role,
            reason: status.reason.clone(),
            config: status.config.map(|config| config.id),
            part: status.peer.as_ref().map(|peer| Part::of(peer.sight)),
            access: status.access,
        };
        let told = self.told[node].look(state);
        told.map_err(|what| format!("node {node} says nothing of a change: {what}"))
    }
}

#[cfg(test)]
mod tests {
    use mirror::decide::StandbyReason;

    use super::*;

    fn state(role: RoleKind, reason: &str) -> State {
        let reason = Some(reason.to_owned()).filter(|reason| !reason.is_empty());
        State { run: 1, role, reason, config: None, part: None, access: AccessState::Transitioning }
    }

    #[test]
    fn a_change_that_nobody_tells_of_is_missed() {
        let mut told = Told::default();
        assert_eq!(told.look(state(RoleKind::Starting, "")), Ok(()), "how it begins");
        let holds = StandbyReason::PeerHolds.to_string();
        assert!(told.look(state(RoleKind::Standby, &holds)).is_err(), "silent");
        told.hear(&EventKind::StandingBy(StandbyReason::Demoted));
        let demoted = StandbyReason::Demoted.to_string();
        assert_eq!(told.look(state(RoleKind::Standby, &demoted)), Ok(()));
        assert!(told.look(state(RoleKind::Standby, &holds)).is_err(), "another reason");
        told.hear(&EventKind::Stopping);
        assert_eq!(told.look(state(RoleKind::Standby, &holds)), Ok(()));
        assert_eq!(told.look(state(RoleKind::Stopping, "")), Ok(()), "it said so before");
        assert!(told.look(state(RoleKind::Stopped, "")).is_err());
    }

    #[test]
    fn so_is_a_standby_that_loses_its_holder() {
        let with = |access| State { access, ..state(RoleKind::Standby, "") };
        let mut told = Told::default();
        assert_eq!(told.look(with(AccessState::NonOptimized)), Ok(()));
        assert!(told.look(with(AccessState::Transitioning)).is_err());
        told.hear(&EventKind::NobodyServes);
        assert_eq!(told.look(with(AccessState::Unavailable)), Ok(()));
    }

    #[test]
    fn so_is_a_peer_that_takes_part_no_more() {
        let with = |part| State { part: Some(part), ..state(RoleKind::Holder, "") };
        let mut told = Told::default();
        assert_eq!(told.look(with(Part::Joined)), Ok(()));
        assert!(told.look(with(Part::Out)).is_err());
        told.hear(&EventKind::PeerJoined);
        assert_eq!(told.look(with(Part::Joined)), Ok(()));
    }
}
