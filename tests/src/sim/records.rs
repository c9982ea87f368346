//! The record of the logical unit's state (reservations) rots: it is repaired from its other copy or the other leg, or hosts are
//! kept out until the operator gives it up; it is never taken for an empty one (I17).
//!
//! Where the design promises nothing: both copies of a leg are damaged, and no other leg that counts has it, or its node starts
//! while the array goes on with that leg alone (`ARCHITECTURE.md`, what is absent).

use core::time::Duration;

use bdev::sim::SimBdev;
use engine::Instant;
use mirror::format::layout::{UNIT_STATE_LEN, UNIT_STATE_OFFSET};
use mirror::format::{Config, LegIndex, LegMask, UnitState, UnitStateHealth};

use super::checks;
use super::disks::Damaged;
use super::fault::Rot;
use super::machine::Life;
use super::world::{Check, World};

/// Where the logical unit's state ends on a leg.
const HEAD: usize = 256 << 10;
/// How long an operator waits for a leg that may have the record.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether anybody has the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reach {
    /// It has to come back.
    #[default]
    Kept,
    /// It may be lost for good: then nobody is let in.
    Lost,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// Nodes on whose legs both copies are damaged.
    damaged: [bool; 2],
    reach: Reach,
    /// Since when the target of a node has said that it cannot read the record.
    unreadable: [Option<Instant>; 2],
    /// Since when both legs have been in sync, and it cannot be read all the same.
    in_vain: Option<Instant>,
}

impl Records {
    /// What is on legs now says nothing for a leg that is to be believed alone.
    pub(crate) fn is_whole(&self, node: usize) -> bool {
        !self.damaged[node]
    }

    /// A record that cannot be read is nothing wrong.
    pub(crate) fn may_be_unreadable(&self, node: usize) -> bool {
        self.damaged[node] || self.reach == Reach::Lost
    }
}

/// The newest state on a disk.
pub(crate) fn newest(disk: &SimBdev) -> Option<UnitState> {
    let superblock = checks::superblock(disk)?;
    Some(UnitState::newest(&disk.peek(0, HEAD), superblock.array))
}

impl World {
    /// False where the record on this leg cannot be read.
    fn has_record(&self, node: usize) -> bool {
        newest(&self.machines[node].disk).is_some_and(|state| state.health == UnitStateHealth::Whole)
    }

    pub(crate) fn damage_record(&mut self, node: usize, place: Rot, how: Damaged) {
        let copy = |number: u64| UNIT_STATE_OFFSET + number % 2 * UNIT_STATE_LEN;
        let first = self.prng.below(2);
        self.damage_block(node, copy(first), copy(first + 1), how);
        if place == Rot::UnitStates {
            // Not misdirected as well: that would bring back what was there.
            self.damage_block(node, copy(first + 1), copy(first), Damaged::Bit);
        }
        if self.has_record(node) {
            return;
        }
        self.records.damaged[node] = true;
        // A node that stands by has to have it in the end, and one that serves has it in memory.
        if !self.is_expendable(node) || !self.has_record(1 - node) {
            self.records.reach = Reach::Lost;
        }
    }

    /// A node starts: it has what its leg has, and where that counts alone, nobody else has more.
    pub(crate) fn on_start_with_record(&mut self, node: usize) {
        self.records.unreadable[node] = None;
        if let Some(config) = self.newest_config() {
            self.lose_record_where_alone(node, config);
        }
    }

    /// A node whose leg counts alone has nobody to ask for the record that it lacks.
    pub(crate) fn lose_record_where_alone(&mut self, node: usize, config: Config) {
        if self.records.damaged[node] && config.in_sync == LegMask::only(LegIndex::BOTH[node]) {
            self.records.reach = Reach::Lost;
        }
    }

    /// Its target says that it cannot be read.
    pub(crate) fn on_unreadable(&mut self, node: usize) -> Check {
        self.note(&format!("node {node}"), format_args!("cannot read the unit's record"));
        self.records.unreadable[node] = Some(self.now);
        match self.records.damaged.contains(&true) || self.records.reach == Reach::Lost {
            true => Ok(()),
            false => Err(format!("I17: node {node} cannot read the unit's record, and no leg's is damaged")),
        }
    }

    /// The operator looks after it.
    pub(crate) fn operate_record(&mut self) -> Check {
        for node in 0..2 {
            if self.records.damaged[node] && self.has_record(node) {
                self.note("world", format_args!("the record on the leg of node {node} is whole again"));
                self.records.damaged[node] = false;
            }
            // Whoever was let in was let in with what is there.
            if self.records.unreadable[node].is_some()
                && self.machines[node].life == Life::Up
                && self.has_record(node)
            {
                self.records.unreadable[node] = None;
            }
        }
        let counted = self.counted();
        if !counted.is_empty() && counted.iter().all(|node| self.has_record(*node)) {
            self.records.reach = Reach::Kept;
        }
        let node = self.serving;
        let both = self.in_sync() == Some(node);
        let Some(since) = self.records.unreadable[node].filter(|_| both || self.records.reach == Reach::Lost)
        else {
            self.records.in_vain = None;
            return Ok(());
        };
        let since = since.max(*self.records.in_vain.get_or_insert(self.now));
        if self.now < since + PATIENCE {
            return Ok(());
        }
        if self.records.reach == Reach::Kept {
            return Err(format!("I17: node {node} cannot read the unit's record, and its peer's leg had it"));
        }
        self.give_up_record(node);
        Ok(())
    }

    /// What was granted is lost by the operator's word.
    fn give_up_record(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        let given_up = machine.process.as_mut().is_some_and(|process| process.give_up_record());
        machine.wake(self.now);
        if given_up {
            self.note("operator", format_args!("gives up the unit's record at node {node}"));
            for host in &mut self.hosts {
                (0..2).for_each(|path| host.regrant(path, 0));
            }
        }
        self.records.in_vain = None;
    }

    /// A node answered a host with GOOD: not one that cannot read whom it has to keep out.
    pub(crate) fn check_let_in(&self, node: usize, invoked: Instant) -> Check {
        match self.records.unreadable[node] {
            Some(since) if invoked > since && !self.has_record(node) => {
                Err(format!("I17: node {node} serves a host, and cannot read the unit's record"))
            }
            _ => Ok(()),
        }
    }
}
