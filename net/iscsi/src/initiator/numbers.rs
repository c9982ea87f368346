//! Command numbers, window and task tags of a session, which its connections share (RFC 7143 section 4.2.2.1).

use alloc::rc::Rc;
use core::cell::Cell;

use crate::pdu::NO_TAG;
use crate::serial;

#[derive(Debug)]
struct Numbers {
    cmd_sn: Cell<u32>,
    max_cmd_sn: Cell<u32>,
    /// The target has every number before this one.
    exp_cmd_sn: Cell<u32>,
    next_tag: Cell<u32>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Numbering(Rc<Numbers>);

impl Numbering {
    pub(super) fn new() -> Self {
        let [cmd_sn, max_cmd_sn, exp_cmd_sn, next_tag] = [1; 4].map(Cell::new);
        Self(Rc::new(Numbers { cmd_sn, max_cmd_sn, exp_cmd_sn, next_tag }))
    }

    /// The number of the next numbered request, which immediate ones show.
    pub(super) fn next(&self) -> u32 {
        self.0.cmd_sn.get()
    }

    pub(super) fn take(&self) -> u32 {
        let cmd_sn = self.0.cmd_sn.get();
        //= rfc7143#section-4.2.2.1(g): numbers are taken in the order of sending.
        self.0.cmd_sn.set(cmd_sn.wrapping_add(1));
        cmd_sn
    }

    /// True while the target takes one more numbered request.
    pub(super) fn is_open(&self) -> bool {
        //= rfc7143#section-4.2.2.1(f): nothing numbered goes out beyond MaxCmdSN.
        serial::before_or_at(self.0.cmd_sn.get(), self.0.max_cmd_sn.get())
    }

    /// The target takes numbers up to this one; its word of before may come late.
    pub(super) fn open_to(&self, max_cmd_sn: u32) {
        if serial::before(self.0.max_cmd_sn.get(), max_cmd_sn) {
            self.0.max_cmd_sn.set(max_cmd_sn);
        }
    }

    /// The target expects this number next; its word of before may come late.
    pub(super) fn acknowledge(&self, exp_cmd_sn: u32) {
        if serial::before(self.0.exp_cmd_sn.get(), exp_cmd_sn) {
            self.0.exp_cmd_sn.set(exp_cmd_sn);
        }
    }

    /// True when the target has the request with this number.
    pub(super) fn has_arrived(&self, cmd_sn: u32) -> bool {
        serial::before(cmd_sn, self.0.exp_cmd_sn.get())
    }

    /// A task tag that no task of the session has: tags come again after four thousand million others.
    pub(super) fn new_tag(&self) -> u32 {
        let tag = self.0.next_tag.get();
        // Zero is the tag of logins.
        let next = if tag.wrapping_add(1) == NO_TAG { 1 } else { tag.wrapping_add(1) };
        self.0.next_tag.set(next);
        tag
    }
}
