//! A run from beginning to end: created, under load and faults, healed, quiet.

use core::time::Duration;

use mirror::format::ArbiterKind;
use mirror::status::RoleKind;

use super::checks;
use super::contender::{Aim, Contender};
use super::fault::{Fault, Still};
use super::host::{Host, Mode};
use super::inflict::Undo;
use super::machine::{self, Life};
use super::tally::Tally;
use super::world::{Check, World};

const SECOND: Duration = Duration::from_secs(1);

/// Longer than a target keeps what a lost session sent (Time2Retain).
const KEPT: Duration = Duration::from_secs(25);

impl World {
    /// All of it.
    pub(crate) fn play(&mut self) -> Check {
        self.create()?;
        self.safety()?;
        self.heal();
        self.converge()?;
        self.quiet()
    }

    /// What became of everybody's operations.
    pub(crate) fn tally(&self) -> Tally {
        let contenders = self.contenders.iter().map(|contender| contender.tally);
        self.hosts.iter().map(|host| host.tally).chain(contenders).sum()
    }

    fn create(&mut self) -> Check {
        self.hosts.iter_mut().for_each(|host| host.due = engine::Instant::FAR_FUTURE);
        self.contenders.iter_mut().for_each(|contender| contender.due = engine::Instant::FAR_FUTURE);
        self.start(0);
        self.start(1);
        if !self.run(20 * SECOND, |world| world.in_sync().is_some())? {
            return Err(format!("liveness: a new array does not come in sync{}", self.describe()));
        }
        let superblock = checks::superblock(&self.machines[0].disk).ok_or("no superblock")?;
        self.granules = superblock.layout.granules();
        self.note("world", format_args!("in sync: load and faults begin"));
        Ok(())
    }

    fn safety(&mut self) -> Check {
        let reverts = self.plan.events.iter().any(|event| matches!(event.fault, Fault::RevertLeg(_)));
        if reverts {
            self.back_up();
        }
        self.began = self.now;
        self.events = self.plan.events.iter().copied().collect();
        self.hosts.iter_mut().for_each(|host| host.due = self.now);
        self.contenders.iter_mut().for_each(|contender| contender.due = self.now);
        self.run(self.plan.length, |_| false)?;
        // What strikes late, and what goes on for minutes, belongs to this phase, too.
        let busy = |world: &mut Self| {
            let still = |machine: &machine::Machine| matches!(machine.life, Life::Still(..));
            let hung = world.undos.iter().any(|(_, undo)| matches!(undo, Undo::WakeDisk(_)));
            world.waiting.is_empty() && world.split.is_none() && !hung && !world.machines.iter().any(still)
        };
        self.run(400 * SECOND, busy)?;
        self.look_at_legs("at the end of the load")
    }

    /// Everything that was done to the array is over; what is broken is replaced.
    fn heal(&mut self) {
        self.note("world", format_args!("everything is healed"));
        self.events.clear();
        self.waiting.clear();
        for (_, undo) in core::mem::take(&mut self.undos) {
            self.undo(undo);
        }
        for node in 0..2 {
            self.machines[node].disk.heal();
            if let Life::Still(how, _) = self.machines[node].life {
                if how == Still::Machine {
                    self.net.thaw(machine::address(node));
                }
                (self.machines[node].life, self.machines[node].due) = (Life::Up, self.now);
            }
        }
        self.resume();
        self.repair_arbiter();
    }

    /// The operator restores what an arbiter has lost: the newest config that a leg knows.
    fn repair_arbiter(&mut self) {
        if self.plan.policy != ArbiterKind::Etcd {
            return;
        }
        let newest = self.newest_config();
        if newest != self.arbiter.config() {
            self.note("operator", format_args!("the arbiter is restored to {newest:?}"));
            self.arbiter.record = self.newest_record();
        }
    }

    /// Liveness: one node serves, and both legs come in sync.
    fn converge(&mut self) -> Check {
        for round in 0..6 {
            if self.settle()? {
                return Ok(());
            }
            self.note("operator", format_args!("round {round}: not in sync{}", self.describe()));
            self.mend_by_hand();
        }
        Err(format!("liveness: the array does not come in sync{}", self.describe()))
    }

    /// Waits until both legs have been in sync for a while: a change that was asked for long ago may still come.
    fn settle(&mut self) -> Check<bool> {
        let mut since = None;
        self.run(30 * SECOND, |world| {
            since = world.in_sync().and(since.or(Some(world.now)));
            since.is_some_and(|since| world.now >= since + SECOND / 2)
        })
    }

    /// What an operator would do for an array that does not come in sync by itself.
    fn mend_by_hand(&mut self) {
        // A disk that hung may have had a newer config all along.
        self.repair_arbiter();
        for node in 0..2 {
            self.machines[node].disk.heal();
            let failed = self.views[node].is_some_and(|view| view.role == RoleKind::Failed);
            let lost = self.damage[node].leg_lost;
            if failed && !lost && !core::mem::replace(&mut self.second_chances[node], true) {
                // What it could not read may be there now that the disk is well.
                self.note("operator", format_args!("node {node}: its leg cannot be used: once more"));
                self.end_process(node, self.now + SECOND);
                return;
            }
            if failed && (lost || self.has_everything(1 - node)) {
                self.note("operator", format_args!("node {node}: its leg cannot be used: a new disk"));
                self.end_process(node, self.now + SECOND);
                self.new_disk(node);
                self.damage[node].leg_lost = true;
                return;
            }
        }
        if self.plan.policy != ArbiterKind::Etcd {
            self.serve_somewhere();
        }
    }

    /// The load ends; every block is read once more through the front end; the legs are compared.
    fn quiet(&mut self) -> Check {
        self.hosts.iter_mut().for_each(|host| host.mode = Mode::Drain);
        self.clear_reservations()?;
        if !self.run(30 * SECOND, |world| world.hosts.iter().all(Host::is_quiet))? {
            return Err(format!("liveness: a host waits for an answer{}", self.describe()));
        }
        let blocks: Vec<u64> = self.history.blocks().collect();
        self.hosts[0].read_all(blocks);
        if !self.run(60 * SECOND, |world| world.hosts[0].is_quiet())? {
            return Err(format!("liveness: the last reads are not answered{}", self.describe()));
        }
        if !self.settle()? {
            return Err(format!("liveness: in sync no more{}", self.describe()));
        }
        self.check_equal()?;
        self.check_reservations()?;
        self.look_at_legs("at the end")?;
        self.history.check().map_err(|why| format!("I1: {why}"))?;
        let Tally { good, passed_on, bad, aborted, .. } = self.tally();
        let keys = self.hosts.iter().flat_map(Host::granted).count();
        self.note(
            "world",
            format_args!(
                "over: {good} operations answered, {passed_on} through the standby, {bad} failed, {aborted} of them aborted, {keys} keys kept"
            ),
        );
        Ok(())
    }

    /// Whoever contended for the unit leaves it to all.
    fn clear_reservations(&mut self) -> Check {
        if self.contenders.is_empty() {
            return Ok(());
        }
        self.rest()?;
        if self.orders.is_lossy() {
            self.run(KEPT, |_| false)?;
            self.orders.lost_are_over()?;
        }
        (self.contenders[0].aim, self.contenders[0].due) = (Aim::Clear, self.now);
        if !self.run(30 * SECOND, |world| world.orders.is_free())? {
            return Err(format!("liveness: reservations are not cleared{}", self.orders.describe()));
        }
        self.rest()
    }

    fn rest(&mut self) -> Check {
        self.contenders.iter_mut().for_each(|contender| contender.aim = Aim::Rest);
        match self.run(30 * SECOND, |world| world.contenders.iter().all(Contender::is_quiet))? {
            true => Ok(()),
            false => Err(format!("liveness: a contender waits for an answer{}", self.describe())),
        }
    }
}
