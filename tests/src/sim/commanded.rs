//! Faults that are somebody's wish: the operator's, who has a holder stand by, a resync wait, or a node start without its peer, and a
//! host's, who wants the other node to serve.

use core::time::Duration;

use mirror::command::{Command, Demotion};
use mirror::holder::resync::Throttle;
use mirror::status::RoleKind;

use super::checks;
use super::inflict::{Death, Undo};
use super::machine::Life;
use super::world::{Check, World};

impl World {
    /// One of the two serves again soon: the peer where it has everything.
    pub(super) fn demote(&mut self, how: Demotion) {
        let node = self.serving;
        let role = self.status(node).map(|status| status.role);
        if !self.command(node, Command::Demote(how)) {
            return;
        }
        self.demoted = Some(self.now + Duration::from_millis(300 + self.prng.below(2000)));
        // Another one has not served, and is left to serve by itself.
        if matches!(role, Some(RoleKind::Holder | RoleKind::Frozen | RoleKind::Holding | RoleKind::Opening)) {
            self.retired[node] = Some(self.machines[node].run);
        }
    }

    /// Whoever was taken out of service serves when somebody says so, or after its peer has.
    pub(super) fn check_retired(&mut self, node: usize, role: RoleKind) -> Check {
        if role != RoleKind::Holder {
            return Ok(());
        }
        self.retired[1 - node] = None;
        match self.retired[node] {
            Some(run) if run == self.machines[node].run => {
                Err(format!("node {node} was demoted, and serves though nobody promoted it"))
            }
            _ => Ok(()),
        }
    }

    /// Both nodes die. The holder, which has everything, is back soon and goes on without its peer by itself, which comes later.
    pub(super) fn start_alone(&mut self, after: Duration) -> Check<bool> {
        let (node, peer) = (self.serving, 1 - self.serving);
        let own = checks::superblock(&self.machines[node].disk).map(|superblock| *superblock.config());
        let newest = self.newest_config();
        let holds = newest.is_some_and(|config| config.holder.index() == node) && newest == own;
        let busy = self.promote_at.is_some() || self.demoted.is_some();
        let served = self.role(node) == Some(RoleKind::Holder);
        if !holds || !served || busy || !self.has_everything(node) || !self.records.is_whole(node) {
            return Ok(false);
        }
        self.look_at_legs("before both nodes die")?;
        let (soon, late) = (50 + self.prng.below(300), 3000 + self.prng.below(3000));
        self.end_node(node, Duration::from_millis(soon), Death::Process);
        self.end_node(peer, after + Duration::from_millis(late), Death::Process);
        self.alone[node] = Some(after);
        Ok(true)
    }

    /// Whoever contends asks for it, if anybody does.
    pub(super) fn choose_group(&mut self) -> bool {
        let other = 1 - self.serving;
        self.contenders.first_mut().is_some_and(|contender| contender.choose(other))
    }

    /// Resyncs go on.
    pub(super) fn resume(&mut self) {
        for node in 0..2 {
            let still = matches!(self.machines[node].life, Life::Still(..));
            if self.machines[node].is_running() {
                self.command(node, Command::Resync(Throttle::Running));
            } else if still {
                self.undos.push((self.now + Duration::from_millis(100), Undo::Resume));
            }
        }
    }
}
