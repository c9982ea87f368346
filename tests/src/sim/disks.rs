//! What happens to disks: errors, blocks that rot or are written by mistake, disks that are replaced or set back.

use bdev::sim::SimFault;
use mirror::format::BLOCK_BYTES;
use mirror::format::layout::{BITMAP_OFFSET, LOG_OFFSET, SUPERBLOCK_OFFSET};

use super::checks;
use super::fault::{Fault, Rot, Spoilt, Who};
use super::inflict::Death;
use super::setback::SetBack;
use super::world::{Check, World};

/// What happened to a block of metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damaged {
    Bit,
    Misdirected,
}

impl World {
    pub(crate) fn spoil(&mut self, who: Who, what: Spoilt, count: u32) {
        let fault = match what {
            Spoilt::Reads => SimFault::FailReads { count },
            Spoilt::Writes => SimFault::FailWrites { count },
            Spoilt::Flushes => SimFault::FailFlushes { count },
        };
        for node in self.nodes(who) {
            self.machines[node].disk.inject(fault);
        }
    }

    pub(crate) fn bad_block(&mut self, who: Who) {
        let touched: Vec<u64> = self.history.blocks().collect();
        if touched.is_empty() {
            return;
        }
        let block = touched[self.prng.below(touched.len() as u64) as usize];
        for node in self.nodes(who) {
            if let Some(superblock) = checks::superblock(&self.machines[node].disk) {
                let lba = superblock.layout.data_offset / 512 + block;
                self.machines[node].disk.inject(SimFault::BadBlock { lba });
            }
        }
    }

    /// Only one copy of anything is damaged at a time, and not while a leg has to be believed alone.
    pub(crate) fn damage_metadata(&mut self, who: Who, place: Rot, how: Damaged) -> bool {
        for node in self.nodes(who) {
            let Some(superblock) = checks::superblock(&self.machines[node].disk) else { return false };
            if matches!(place, Rot::UnitState | Rot::UnitStates) {
                self.damage_record(node, place, how);
                continue;
            }
            if self.checks.rotten(node) {
                return false;
            }
            // A block, and another one of its kind.
            let (start, count) = match place {
                Rot::Superblock | Rot::Tail => (SUPERBLOCK_OFFSET, 2),
                Rot::Log => (LOG_OFFSET, 256),
                Rot::Bitmap => (BITMAP_OFFSET, 2),
                Rot::UnitState | Rot::UnitStates => unreachable!("dealt with above"),
            };
            let number = self.prng.below(count);
            let block = |number: u64| start + number % count * BLOCK_BYTES;
            let target = if place == Rot::Tail { superblock.layout.superblock_tail() } else { block(number) };
            self.damage_block(node, target, block(number + 1), how);
            self.checks.rotted(node);
        }
        true
    }

    pub(super) fn damage_block(&mut self, node: usize, target: u64, other: u64, how: Damaged) {
        let disk = &self.machines[node].disk;
        let at = |place: u64| usize::try_from(place).expect("in memory");
        match how {
            Damaged::Bit => {
                let place = at(target + self.prng.below(BLOCK_BYTES));
                let byte = disk.peek(place, 1)[0] ^ 1 << self.prng.below(8);
                disk.poke(place, &[byte]);
            }
            Damaged::Misdirected => disk.poke(at(target), &disk.peek(at(other), at(BLOCK_BYTES))),
        }
    }

    /// The peer's disk is another one afterwards.
    pub(crate) fn exchange(&mut self, fault: Fault) -> Check<bool> {
        let node = 1 - self.serving;
        let holds = self.views[self.serving]
            .is_some_and(|view| view.config.is_some_and(|config| config.holder.index() == self.serving));
        if !self.is_leg_expendable(node) || !holds || !self.machines[1 - node].is_running() {
            return Ok(false);
        }
        let down = match fault {
            Fault::RevertLeg(_) if !self.is_told_apart(node) => return Ok(false),
            Fault::ReplaceDisk(down) | Fault::RevertLeg(down) | Fault::CloneLeg(down) => down,
            _ => return Ok(false),
        };
        self.end_node(node, down, Death::Process);
        self.damage[node].leg_lost = true;
        match fault {
            Fault::ReplaceDisk(_) => self.new_disk(node),
            Fault::CloneLeg(_) => {
                self.new_disk(node);
                self.machines[1 - node].disk.clone_to(&self.machines[node].disk);
            }
            _ => {
                let image = self.backups[node].clone().expect("looked at above").image;
                self.new_disk(node);
                self.machines[node].disk.restore(&image);
                self.damage[node].set_back = SetBack::Unnoticed;
                // The whole machine was rolled back.
                if self.prng.percent(50) {
                    self.machines[node].boot += 1;
                }
            }
        }
        Ok(true)
    }
}
