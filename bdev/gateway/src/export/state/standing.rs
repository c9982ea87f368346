//! A command's place in its unit's task set, given back when dropped.

use std::rc::Rc;

use scsi::task_set::{Attribute, Member};

use super::super::logical_unit::LogicalUnit;

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
}

impl Drop for Standing {
    fn drop(&mut self) {
        if let Some(member) = self.member.take() {
            self.unit.tasks.borrow_mut().leave(member);
        }
    }
}
