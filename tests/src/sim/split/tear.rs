//! How it comes to two data sets: the holder goes on alone, its peer is copied to or not, and then the holder is out of the way.

use core::time::Duration;

use mirror::command::Command;
use mirror::format::{LegIndex, LegMask};
use mirror::status::RoleKind;

use super::super::checks;
use super::super::fault::{Gone, Keeps, Upset};
use super::super::fork::Acknowledged;
use super::super::host;
use super::super::inflict::Death;
use super::super::machine::{self, Life};
use super::super::world::{Check, Damage, World};
use super::{Caught, FIRST_LOOKS, Split, Stage, Told};

/// Until the operator brings it back.
const AWAY: Duration = Duration::from_secs(3600);
/// How long a write takes the disk of a leg that is not to become whole.
const SLOW_COPY: Duration = Duration::from_millis(50);

impl World {
    /// Both nodes are at work and sound, one serves, and nothing else is about to happen.
    pub(in crate::sim) fn may_be_torn_apart(&self) -> bool {
        let old = self.serving;
        let whole = self.damage.iter().all(|damage| *damage == Damage::default())
            && (0..2).all(|node| self.records.is_whole(node));
        let sound = |machine: &machine::Machine| machine.life == Life::Up && !machine.disk.has_bad_blocks();
        let up = self.machines.iter().all(sound);
        let serves =
            self.role(old) == Some(RoleKind::Holder) && self.role(1 - old) == Some(RoleKind::Standby);
        let holds = self.newest_config().is_some_and(|config| config.holder.index() == old);
        whole && up && serves && holds && self.promote_at.is_none() && self.split.is_none()
    }

    /// Begins; false: the array is not in a state for it.
    pub(crate) fn tear_apart(&mut self, gone: Gone, keeps: Keeps, upset: Upset) -> bool {
        if !self.may_be_torn_apart() {
            return false;
        }
        let old = self.serving;
        for (_, undo) in core::mem::take(&mut self.undos) {
            self.undo(undo);
        }
        let had = self.had_by(1 - old);
        self.keep_apart(old);
        // By itself the peer would take over.
        self.pass_arbiter(1 - old, false);
        if self.prng.percent(40) {
            let down = Duration::from_millis(100 + self.prng.below(2000));
            self.end_node(1 - old, down, Death::Process);
        }
        self.split = Some(Box::new(Split {
            old,
            gone,
            keeps,
            upset,
            caught: if self.prng.percent(35) { Caught::Some } else { Caught::None },
            stage: Stage::Apart,
            not_before: self.now + self.a_while(),
            looks_left: FIRST_LOOKS,
            told: Told::NotYet,
            had,
            other: None,
            granted: Vec::new(),
        }));
        true
    }

    /// What was acknowledged, where this leg has it.
    fn had_by(&self, node: usize) -> Option<Acknowledged> {
        let both = self.newest_config().is_some_and(|config| config.in_sync == LegMask::both());
        (both && self.has_everything(node)).then(|| self.history.all_acknowledged())
    }

    pub(super) fn a_while(&mut self) -> Duration {
        Duration::from_millis(300 + self.prng.below(2700))
    }

    fn keep_apart(&mut self, old: usize) {
        self.net.partition(machine::address(old), machine::address(1 - old));
    }

    pub(super) fn pass_arbiter(&mut self, node: usize, passes: bool) {
        (self.arbiter.asks_pass[node], self.arbiter.answers_pass[node]) = (passes, passes);
    }

    pub(in crate::sim) fn keep_hosts_off(&mut self, node: usize) {
        for host in self.plan.initiators().map(host::address) {
            self.net.reset(host, machine::address(node));
            self.net.partition(host, machine::address(node));
        }
    }

    pub(in crate::sim) fn let_hosts_in(&mut self, node: usize) {
        for host in self.plan.initiators().map(host::address) {
            self.net.heal(host, machine::address(node));
        }
    }

    /// The holder did not go on alone.
    pub(super) fn give_up(&mut self, split: &Split) -> bool {
        self.net.heal(machine::address(0), machine::address(1));
        self.pass_arbiter(1 - split.old, true);
        self.machines[1 - split.old].disk.slow_down(Duration::ZERO);
        false
    }

    pub(super) fn go_on_alone(&mut self, split: &mut Split) -> Check<bool> {
        let old = split.old;
        if self.role(old) == Some(RoleKind::Frozen) {
            self.command(old, Command::Degrade);
        }
        // It died meanwhile: nobody but the operator knows that its peer has not gone on.
        if self.role(old) == Some(RoleKind::Holding) && self.has_everything(old) {
            self.command(old, Command::StartDegraded);
        }
        self.serve_again(old);
        // Its own superblock says so: before that it goes by no such config, whatever the arbiter has heard.
        let alone = LegMask::only(LegIndex::BOTH[old]);
        let own = checks::superblock(&self.machines[old].disk).map(|superblock| *superblock.config());
        let is_alone = own.is_some_and(|config| config.in_sync == alone) && self.newest_config() == own;
        if self.role(old) != Some(RoleKind::Holder) || !is_alone || self.machines[1 - old].life != Life::Up {
            return Ok(true);
        }
        if split.caught == Caught::None {
            return self.leave(split);
        }
        self.machines[1 - old].disk.slow_down(SLOW_COPY);
        self.net.heal(machine::address(0), machine::address(1));
        split.enter(Stage::Copying, self.now);
        split.looks_left = FIRST_LOOKS;
        Ok(true)
    }

    pub(super) fn copy(&mut self, split: &mut Split) -> Check<bool> {
        let alone = LegMask::only(LegIndex::BOTH[split.old]);
        if self.newest_config().is_none_or(|config| config.in_sync != alone) {
            // The copy was over too soon: once more, without.
            split.had = self.had_by(1 - split.old);
            self.machines[1 - split.old].disk.slow_down(Duration::ZERO);
            self.keep_apart(split.old);
            self.pass_arbiter(1 - split.old, false);
            split.caught = Caught::None;
            split.enter(Stage::Apart, self.now);
            split.looks_left = FIRST_LOOKS;
            return Ok(true);
        }
        if !self.views[split.old].is_some_and(|view| view.resync) {
            return Ok(true);
        }
        self.machines[1 - split.old].disk.slow_down(Duration::ZERO);
        self.keep_apart(split.old);
        self.leave(split)
    }

    /// The peer is being copied to: the operator does not wait long.
    pub(crate) fn on_resync(&mut self, node: usize) {
        let Some(split) = &self.split else { return };
        if split.stage == Stage::Copying && node == split.old {
            let soon = self.now + Duration::from_millis(self.prng.below(100));
            self.operator_at = self.operator_at.min(soon);
        }
    }

    /// The holder is out of the way, and hosts cannot reach it.
    fn leave(&mut self, split: &mut Split) -> Check<bool> {
        let old = split.old;
        self.look_at_legs("before a promotion by force")?;
        split.granted = self.hosts.iter().flat_map(host::Host::granted).collect();
        self.keep_hosts_off(old);
        match split.gone {
            Gone::Down => self.end_node(old, AWAY, Death::Process),
            Gone::CutOff => self.pass_arbiter(old, false),
        }
        self.pass_arbiter(1 - old, true);
        self.serving = 1 - old;
        split.enter(Stage::Forcing, self.now + self.a_while());
        Ok(true)
    }
}
