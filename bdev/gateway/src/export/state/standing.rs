//! A command's place in its unit's task set, given back when dropped.

use std::rc::Rc;

use scsi::task_set::{Attribute, Member};

use super::super::logical_unit::LogicalUnit;
use super::NexusId;

/// See the module.
pub(in crate::export) struct Standing {
    unit: Rc<LogicalUnit>,
    /// Absent for a moment, when it is given back.
    member: Option<Member>,
}

impl Standing {
    pub(in crate::export) fn enter(unit: &Rc<LogicalUnit>, attribute: Attribute) -> Self {
        let member = unit.tasks.borrow_mut().enter(attribute);
        Self { unit: unit.clone(), member: Some(member) }
    }

    /// True when the command may be carried out.
    pub(in crate::export) fn is_enabled(&self) -> bool {
        self.member.as_ref().is_none_or(|member| self.unit.tasks.borrow().is_enabled(member))
    }

    /// True while somebody else's command waits for others of the unit, and may wait for this one.
    pub(in crate::export) fn holds_up_others(&self, own: NexusId) -> bool {
        self.unit.dormant.borrow().iter().any(|other| *other != own)
            && self.member.as_ref().is_some_and(|member| self.unit.tasks.borrow().is_waited_for(member))
    }
}

/// A command that waits for others of its unit, as long as it does.
pub(in crate::export) struct Dormant {
    unit: Rc<LogicalUnit>,
    whose: NexusId,
}

impl Dormant {
    pub(in crate::export) fn new(unit: &Rc<LogicalUnit>, whose: NexusId) -> Self {
        unit.dormant.borrow_mut().push(whose);
        Self { unit: unit.clone(), whose }
    }
}

impl Drop for Dormant {
    fn drop(&mut self) {
        let mut dormant = self.unit.dormant.borrow_mut();
        if let Some(at) = dormant.iter().position(|other| *other == self.whose) {
            dormant.swap_remove(at);
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        if let Some(member) = self.member.take() {
            self.unit.tasks.borrow_mut().leave(member);
        }
    }
}
