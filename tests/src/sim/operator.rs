//! The operator: knows everything, makes no mistakes, and does what the policy leaves to people, or to a cluster manager that
//! fences.

use core::time::Duration;

use gateway::LunMode;
use mirror::command::{Command, Demotion};
use mirror::decide::{HolderState, PromoteMode};
use mirror::format::{ArbiterKind, LegIndex, LegMask};
use mirror::status::RoleKind;

use super::checks;
use super::machine::Life;
use super::setback::SetBack;
use super::world::{Check, World};

impl World {
    pub(crate) fn command(&mut self, node: usize, command: Command) -> bool {
        let now = self.now;
        let machine = &mut self.machines[node];
        if machine.life != Life::Up {
            return false;
        }
        let local = machine.clock.local(now);
        let Some(process) = &mut machine.process else { return false };
        let answer = process.driver.command(command, local);
        machine.wake(now);
        if answer.is_ok() && matches!(command, Command::Promote { .. }) {
            self.retired[node] = None;
        }
        self.note("operator", format_args!("node {node}: {command:?}: {answer:?}"));
        answer.is_ok()
    }

    pub(super) fn role(&self, node: usize) -> Option<RoleKind> {
        self.views[node].map(|view| view.role)
    }

    /// The other node does not serve, and will not: it is dead, or knows that it is not the holder.
    fn is_out_of_the_way(&self, node: usize) -> bool {
        match self.machines[node].life {
            Life::Down(_) => true,
            Life::Still(..) | Life::Stopping(_) => false,
            // It may serve by itself.
            Life::Up if self.alone[node].is_some() && self.role(node) != Some(RoleKind::Standby) => false,
            Life::Up => {
                matches!(self.role(node), Some(RoleKind::Standby | RoleKind::Holding | RoleKind::Failed))
            }
        }
    }

    /// The newest config counts this node's leg, and the leg knows that config.
    pub(crate) fn has_everything(&self, node: usize) -> bool {
        let damage = self.damage[node];
        let newest = self.newest_config();
        let counts = newest.is_some_and(|config| config.in_sync.has(LegIndex::BOTH[node]));
        counts && !damage.leg_lost && !damage.cache_lost
    }

    /// Whatever its cache lost was not acknowledged, or is nowhere else: no other leg counts.
    fn misses_nothing(&self, node: usize) -> bool {
        let Some(newest) = self.newest_config() else { return false };
        let leg = LegIndex::BOTH[node];
        let durable = self.plan.mode == LunMode::SyncDurable && newest.in_sync.has(leg);
        !self.damage[node].leg_lost && (durable || newest.in_sync == LegMask::only(leg))
    }

    /// Promotes the peer by hand, where that loses nothing.
    pub(crate) fn promote_if_right(&mut self, mode: PromoteMode) -> bool {
        self.promote_node_if_right(1 - self.serving, mode)
    }

    fn promote_node_if_right(&mut self, node: usize, mode: PromoteMode) -> bool {
        let stands = self.role(node) == Some(RoleKind::Standby);
        if self.plan.policy == ArbiterKind::Etcd && mode == PromoteMode::Ordinary {
            // The arbiter decides what is right.
            return stands && self.command(node, Command::Promote { mode, holder: HolderState::Unknown });
        }
        let knows = self.newest_config()
            == checks::superblock(&self.machines[node].disk).map(|superblock| *superblock.config());
        if !stands
            || !knows
            || !self.is_out_of_the_way(1 - node)
            || !(self.has_everything(node) || self.misses_nothing(node))
        {
            return false;
        }
        // A holder that comes back meanwhile would serve, too: its machine is kept off.
        if let Life::Down(at) = &mut self.machines[1 - node].life {
            *at = (*at).max(self.now + Duration::from_secs(4));
            self.machines[1 - node].due = *at;
        }
        self.command(node, Command::Promote { mode, holder: HolderState::ConfirmedDown })
    }

    /// The holder's word that its peer has joined may be old: both legs' superblocks say the same of both legs, as they
    /// are now.
    fn knows_both_legs(&self, holder: usize) -> bool {
        let legs = [holder, 1 - holder].map(|node| checks::superblock(&self.machines[node].disk));
        let [Some(own), Some(peer)] = legs else { return false };
        let alive = |node: usize| own.legs[node].incarnation == self.incarnation(node);
        own.peer().uuid == peer.leg && own.config() == peer.config() && alive(0) && alive(1)
    }

    /// Looks at both nodes now and then.
    pub(crate) fn operate(&mut self) -> Check {
        self.operate_record()?;
        // What leaves the log then has to be in the bitmap.
        if self.newest_config().is_some_and(|config| config.in_sync != LegMask::both()) {
            self.look_at_legs("while one leg is out")?;
        }
        if self.split.is_some() {
            return self.operate_split();
        }
        if let Some(node) = self.in_sync() {
            self.serving = node;
            let unnoticed = self.damage.iter().any(|damage| damage.set_back == SetBack::Unnoticed);
            if self.knows_both_legs(node) && !unnoticed {
                self.damage = Default::default();
            }
        }
        if let Some((_, mode)) = self.promote_at.take_if(|(at, _)| *at <= self.now) {
            self.promote_if_right(mode);
        }
        if self.demoted.take_if(|at| *at <= self.now).is_some() {
            self.serve_somewhere();
        }
        if self.plan.policy == ArbiterKind::Etcd {
            return Ok(());
        }
        for node in 0..2 {
            match self.role(node) {
                Some(RoleKind::Frozen) if self.is_out_of_the_way(1 - node) => {
                    self.command(node, Command::Degrade);
                }
                Some(RoleKind::Holding) => self.start_degraded_if_right(node),
                // Its I/O is frozen, and nobody decides: it is not demoted in order.
                Some(RoleKind::Demoting) if self.prng.percent(2) => {
                    self.command(node, Command::Demote(Demotion::AtOnce));
                }
                Some(RoleKind::Standby) => self.manage(node),
                _ => {}
            }
        }
        Ok(())
    }

    /// The peer, or the node that served last. What an arbiter is asked for may come to nothing, and is tried again.
    pub(crate) fn serve_somewhere(&mut self) {
        if !self.promote_if_right(PromoteMode::Ordinary) {
            self.promote_node_if_right(self.serving, PromoteMode::Ordinary);
        }
        let served = (0..2).any(|node| self.role(node) == Some(RoleKind::Holder));
        if self.plan.policy == ArbiterKind::Etcd && !served {
            self.demoted = Some(self.now + Duration::from_secs(1));
        }
    }

    /// A cluster manager sees to it that somebody serves.
    fn manage(&mut self, node: usize) {
        if self.plan.policy == ArbiterKind::ClusterManager && self.prng.percent(30) {
            self.promote_node_if_right(node, PromoteMode::Ordinary);
        }
    }

    /// A node that waits for its peer, which is off and knows nothing newer.
    fn start_degraded_if_right(&mut self, node: usize) {
        let alone = matches!(self.machines[1 - node].life, Life::Down(_));
        let newest = self.newest_config();
        let own = checks::superblock(&self.machines[node].disk).map(|superblock| *superblock.config());
        if alone && newest == own && self.has_everything(node) && self.prng.percent(30) {
            self.command(node, Command::StartDegraded);
        }
    }
}
