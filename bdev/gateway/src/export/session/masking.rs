//! The LUNs that show in a session, when they become others while it runs.

use std::rc::Rc;

use iscsi::TaskId;
use scsi::{Removal, Sense};

use super::super::logical_unit::LogicalUnit;
use super::super::node::{Lun, Node, Place};
use super::jobs::Stage;
use super::{Origin, Session};
use crate::access::LunMask;

impl Session {
    /// Shows these LUNs from now on. Commands at those that are gone end; of what is left, the initiator is told that there is
    /// something new to REPORT (SPC-4 section 6.33).
    pub(in crate::export) fn show(&mut self, mask: LunMask) {
        let Some(node) = self.node.clone().filter(|_| self.mask != mask) else { return };
        let before = std::mem::replace(&mut self.mask, mask);
        let luns: Vec<(u16, Rc<Lun>)> =
            node.luns.borrow().iter().map(|(number, lun)| (*number, lun.clone())).collect();
        let (gone, left): (Vec<_>, Vec<_>) = luns
            .into_iter()
            .filter(|(number, _)| before.shows(*number))
            .partition(|(number, _)| !self.mask.shows(*number));
        for (number, lun) in gone {
            self.hide(number, &lun);
        }
        for (_, lun) in left {
            lun.state.nexuses.borrow_mut().tell(self.id, Sense::LUNS_CHANGED);
        }
    }

    /// True for a session with a target.
    pub(in crate::export) fn is_at(&self, node: &Rc<Node>) -> bool {
        self.tsih != 0 && self.node.as_ref().is_some_and(|own| Rc::ptr_eq(own, node))
    }

    /// The target has one LUN more.
    pub(in crate::export) fn on_lun_added(&mut self, number: u16, lun: &Rc<Lun>) {
        let told = self.origin == Origin::Host;
        lun.state.nexuses.borrow_mut().enter(self.id, told.then_some(Sense::POWER_ON));
        if self.mask.shows(number) {
            self.tell_of_inventory(number);
        }
    }

    /// The target has one LUN less. Its channel goes when nothing is under way there, and nothing that is known of it is true of the
    /// next one with its number.
    pub(in crate::export) fn on_lun_removed(&mut self, number: u16, lun: &Rc<Lun>) {
        if self.mask.shows(number) {
            self.hide(number, lun);
            self.tell_of_inventory(number);
        } else {
            // A token of it may be in use all the same.
            self.leave(lun);
        }
        self.leaving.extend(self.channels.remove(&number));
        self.units.remove(&number);
        self.seen_blocks.remove(&number);
        self.access_states.forget(number);
    }

    /// Whom the peer relays it tells itself.
    fn tell_of_inventory(&self, changed: u16) {
        let Some(node) = self.node.as_ref().filter(|_| self.origin == Origin::Host) else { return };
        let luns = node.luns.borrow();
        let shown = luns.iter().filter(|(number, _)| **number != changed && self.mask.shows(**number));
        for (_, lun) in shown {
            lun.state.nexuses.borrow_mut().tell(self.id, Sense::LUNS_CHANGED);
        }
    }

    /// A LUN is gone: so is what the nexus has there, but for its registration, which another path of its may use.
    fn hide(&mut self, number: u16, lun: &Rc<Lun>) {
        self.leave(lun);
        if let Some(stalled) = self.stalled.take_if(|stalled| stalled.place.number == number) {
            self.refuse(stalled.task(), Sense::LUN_NOT_SUPPORTED, Some(&stalled.place));
        }
        if let Some(nexus) = &self.nexus {
            lun.unit.change_older(|table| table.forget_older(nexus));
        }
        lun.unit.set_removal(self.id, Removal::Allowed);
    }

    /// Ends what is under way at a LUN: commands there, and copies from it or to it by commands at others.
    fn leave(&mut self, lun: &Rc<Lun>) {
        let at = |place: &Place| Rc::ptr_eq(&place.lun, lun);
        let open = self.jobs.open.iter();
        let ends = open.filter_map(|(task, job)| Some((*task, job.end_without(&at)?)));
        let ends: Vec<(TaskId, Sense)> = ends.collect();
        for (task, sense) in ends {
            self.end_with(task, sense);
        }
        self.abort_background(&lun.unit);
    }

    /// Ends copies from a unit or to it, of commands at other ones: the nexus was preempted there, or the unit reset.
    pub(in crate::export) fn end_copies(&mut self, unit: &Rc<LogicalUnit>) {
        let at = |place: &Place| Rc::ptr_eq(&place.lun.unit, unit);
        let open = self.jobs.open.iter();
        let copies: Vec<TaskId> = open.filter(|(_, job)| job.copies_at(&at)).map(|(task, _)| *task).collect();
        for task in copies {
            self.end_with(task, Sense::COPY_TARGET_UNREACHABLE);
        }
    }

    /// Ends a command so, once an I/O that is under way has come back, or cannot land any more; an answer that is on its way already
    /// stays.
    fn end_with(&mut self, task: TaskId, sense: Sense) {
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        if job.in_flight || job.is_astray() {
            job.in_flight = true;
            job.verdict = Some(sense);
        } else if !matches!(job.stage, Stage::Answering(_)) {
            self.fail(task, sense);
        }
    }
}
