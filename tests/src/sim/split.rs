//! Promotions by force that lose something: two data sets, both kept and told of, until the operator keeps one (I11).
//!
//! ```text
//! Apart --(the holder has gone on alone)--> Forcing --(the peer serves by force)--> Alone --(the old holder is back)--> Meeting
//!   |                                          ^      --(the split is reported)--> Choosing --(the one that stays serves, and
//!   '--(the peer is back)--> Copying --(half)--'      the operator says so)--> Resolving --(in sync)--> over
//! ```
//!
//! Hosts use one node alone from `Forcing` on: the operator sees to that, as he must where nothing fences. What he is not relied
//! on for is checked all the time, in `apart`; how he keeps one: `resolve`.

mod tear;

use core::time::Duration;

use engine::Instant;
use mirror::command::Command;
use mirror::decide::{HoldReason, HolderState, PromoteMode};
use mirror::events::{Codes, EventKind};
use mirror::format::ConfigId;
use mirror::status::RoleKind;

use super::checks::Side;
use super::fault::{Fault, Gone, Keeps, Upset, Way};
use super::fork::{Acknowledged, DataSet};
use super::host::Registration;
use super::machine::{self, Life};
use super::world::{Check, World};

/// How often the operator looks, with everything at work, before something should have come of it.
const LOOKS: u32 = 400;
/// The same, before there are two data sets: then it is given up.
const FIRST_LOOKS: u32 = 50;
/// Between two commands that were taken.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// The two do not see each other, and the holder goes on alone.
    Apart,
    /// The peer is copied to, and will not be whole.
    Copying,
    /// It is out of the way; its peer is promoted by force.
    Forcing,
    /// That one serves, and the old holder is away.
    Alone,
    /// They see each other.
    Meeting,
    /// The one whose data set stays is to serve, and to see the other one.
    Choosing,
    /// It overwrites the other one.
    Resolving,
}

/// How much of a leg has what was acknowledged without it, when it is promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caught {
    None,
    /// A copy that was cut off: a mixture.
    Some,
}

/// Whether somebody has said that there are two data sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    NotYet,
    ByEvent,
}

/// See the module.
pub(crate) struct Split {
    pub(super) old: usize,
    gone: Gone,
    pub(super) keeps: Keeps,
    pub(super) upset: Upset,
    caught: Caught,
    stage: Stage,
    /// Nothing is done before.
    pub(super) not_before: Instant,
    looks_left: u32,
    pub(super) told: Told,
    /// What was acknowledged when the leg that is promoted last counted for sure.
    had: Option<Acknowledged>,
    /// The data set that hosts do not use.
    pub(super) other: Option<DataSet>,
    /// What hosts had been granted before the promotion.
    pub(super) granted: Vec<Registration>,
}

impl Split {
    /// The node that hosts use.
    pub(super) fn side(&self) -> usize {
        match (self.stage, self.keeps) {
            (Stage::Apart | Stage::Copying, _) | (Stage::Choosing | Stage::Resolving, Keeps::Old) => self.old,
            _ => 1 - self.old,
        }
    }

    /// Whose leg has what hosts were told; `None`: what the newest config says.
    pub(crate) fn counted(&self) -> Option<Vec<usize>> {
        match self.stage {
            Stage::Apart | Stage::Copying => None,
            Stage::Forcing => Some(Vec::new()),
            _ => Some(vec![self.side()]),
        }
    }

    pub(super) fn enter(&mut self, stage: Stage, not_before: Instant) {
        (self.stage, self.not_before, self.looks_left) = (stage, not_before, LOOKS);
    }
}

impl World {
    /// The node that hosts use while there are two data sets, or are about to be.
    pub(crate) fn side_of_hosts(&self) -> Option<usize> {
        self.split.as_ref().map(|split| split.side())
    }

    /// Whose data set a node has.
    pub(crate) fn side_of(&self, node: usize) -> Side {
        match &self.split {
            Some(split) if split.old == node => Side::Old,
            _ => Side::Main,
        }
    }

    /// It may begin to serve at any moment.
    pub(crate) fn is_being_forced(&self, node: usize) -> bool {
        self.split.as_ref().is_some_and(|split| split.stage == Stage::Forcing && node != split.old)
    }

    /// Faults that neither data set is to survive are left out, and those that bring hosts or nodes together too early.
    pub(crate) fn bears_while_split(&self, fault: Fault) -> bool {
        let Some(split) = &self.split else { return true };
        let away = matches!(split.stage, Stage::Forcing | Stage::Alone);
        let here = |who| !away || !self.nodes(who).contains(&split.old);
        match fault {
            Fault::Kill(who, _)
            | Fault::PowerCut(who, _)
            | Fault::Pause(who, ..)
            | Fault::Stop(who, _)
            | Fault::SlowDisk(who, ..)
            | Fault::StickWrites(who, ..)
            | Fault::HangDisk(who, _) => here(who),
            Fault::PauseResync(_) => true,
            Fault::Reset(Way::Nodes) | Fault::Corrupt(_) | Fault::SlowWay(..) | Fault::SlowArbiter(..) => {
                true
            }
            _ => false,
        }
    }

    /// What a node says of its peer's leg.
    pub(super) fn diverged(&self, node: usize) -> Option<ConfigId> {
        self.status(node)?.peer?.diverged
    }

    /// Its status tells of two data sets.
    pub(super) fn says_so(&self, node: usize) -> bool {
        let waits = HoldReason::Split { last_shared: None }.to_string();
        let held =
            self.status(node).is_some_and(|status| status.reason.is_some_and(|reason| reason == waits));
        held || self.diverged(node).is_some()
    }

    pub(crate) fn hear_of_split(&mut self, kind: &EventKind) {
        if let Some(split) = &mut self.split
            && kind.code() == "split"
        {
            split.told = Told::ByEvent;
        }
    }

    // --- The operator ---

    pub(crate) fn operate_split(&mut self) -> Check {
        let Some(mut split) = self.split.take() else { return Ok(()) };
        let going = self.advance_split(&mut split)?;
        if going {
            self.split = Some(split);
        } else {
            self.note("operator", format_args!("one data set is left"));
        }
        Ok(())
    }

    /// False: it is over.
    fn advance_split(&mut self, split: &mut Split) -> Check<bool> {
        let works = |node: usize| self.machines[node].is_running();
        if works(1 - split.old) && (matches!(split.stage, Stage::Forcing | Stage::Alone) || works(split.old))
        {
            split.looks_left -= 1;
        }
        if split.looks_left == 0 {
            if matches!(split.stage, Stage::Apart | Stage::Copying) {
                return Ok(self.give_up(split));
            }
            return Err(format!(
                "liveness: two data sets, {:?} for too long{}",
                split.stage,
                self.describe()
            ));
        }
        if matches!(split.stage, Stage::Meeting | Stage::Choosing) {
            self.check_apart(split)?;
        }
        if self.now < split.not_before {
            return Ok(true);
        }
        match split.stage {
            Stage::Apart => self.go_on_alone(split),
            Stage::Copying => self.copy(split),
            Stage::Forcing => Ok(self.force(split)),
            Stage::Alone => Ok(self.come_back(split)),
            Stage::Meeting => self.choose(split),
            Stage::Choosing => self.give_word(split),
            Stage::Resolving => self.see_to_the_end(split),
        }
    }

    fn force(&mut self, split: &mut Split) -> bool {
        if self.promote(1 - split.old, PromoteMode::Forced) {
            split.not_before = self.now + PATIENCE;
        }
        true
    }

    /// True: it was told so. Whoever does not wait for anything is not told.
    pub(super) fn promote(&mut self, node: usize, mode: PromoteMode) -> bool {
        let waits = matches!(self.role(node), Some(RoleKind::Standby | RoleKind::Holding));
        waits && self.command(node, Command::Promote { mode, holder: HolderState::ConfirmedDown })
    }

    /// The node serves by force: hosts have what its leg holds now, and nothing else.
    pub(crate) fn on_forced(&mut self, node: usize) -> Check {
        let Some(mut split) = self.split.take() else { return Ok(()) };
        let held = self.held(node)?;
        if let Some(had) = &split.had {
            self.history
                .check_had(had, &held)
                .map_err(|why| format!("I10: the leg of node {node}: {why}"))?;
        }
        split.other = Some(self.history.fork(&held, self.now));
        self.note("operator", format_args!("hosts have the data set of node {node}"));
        split.enter(Stage::Alone, self.now + self.a_while());
        self.split = Some(split);
        self.regrant(node)
    }

    fn come_back(&mut self, split: &mut Split) -> bool {
        let old = split.old;
        self.net.heal(machine::address(0), machine::address(1));
        self.pass_arbiter(old, true);
        if let Life::Down(at) = &mut self.machines[old].life {
            *at = self.now;
            self.machines[old].due = self.now;
        }
        split.enter(Stage::Meeting, self.now + self.a_while());
        true
    }
}
