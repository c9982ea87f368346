//! The own disk under watch: one that hangs neither does an I/O nor fails it, and nobody would ever hear of it.
//!
//! ```text
//! Answers --(an I/O takes longer than a disk may: an alarm)--> Hangs --(it has answered everything)--> Answers
//! ```
//!
//! A holder whose peer's leg counts and is there gives its I/Os up then, and the own leg goes out like one that fails (R3, R8);
//! it is not tried again before the disk has answered everything (`desk.rs`). Where the own leg is the last one, or the peer is
//! away, or a config without the own leg is an operator's or a cluster manager's, hosts wait: nobody could answer them.

use bdev::IoError;
use core::time::Duration;
use engine::Instant;

use super::{Node, Role};
use crate::desk::{OwnDisk, Side};
use crate::events::EventKind;
use crate::holder::Hung;

/// What is not sent to a disk that hangs comes back after so long.
const UNSENT: Duration = Duration::from_millis(10);
/// So often in the time that a disk has, it is looked at.
const LOOKS: u32 = 16;

/// What is known of the own disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct DiskWatch {
    seen: OwnDisk,
    next_look: Instant,
    /// When what was not sent comes back.
    unsent_at: Option<Instant>,
}

impl Default for DiskWatch {
    fn default() -> Self {
        Self { seen: OwnDisk::Answers, next_look: Instant::EPOCH, unsent_at: None }
    }
}

impl Node {
    /// Looks whether the own disk answers, and gives up what it does not where the peer's leg can stand in.
    pub(super) fn watch_own_disk(&mut self) {
        self.settle_unsent();
        let (now, limit) = (self.desk.now, self.setup.timing.disk_timeout);
        if now < self.disk.next_look {
            return;
        }
        self.disk.next_look = now + limit / LOOKS;
        let seen = self.desk.own_disk(limit);
        if seen != core::mem::replace(&mut self.disk.seen, seen) {
            self.note(match seen {
                OwnDisk::Hangs => EventKind::OwnDiskHangs(limit),
                OwnDisk::Answers => EventKind::OwnDiskAnswers,
            });
        }
        if seen == OwnDisk::Hangs {
            self.give_up_on_disk();
        }
    }

    fn give_up_on_disk(&mut self) {
        let Role::Holder(holder) = &self.role else { return };
        let hung = holder.on_own_disk_hung();
        if hung == Hung::Waits {
            return;
        }
        for (purpose, completed) in self.desk.give_up() {
            self.on_answer(Side::Own, purpose, completed);
        }
        if hung == Hung::GoesOut && matches!(self.role, Role::Holder(_)) && self.desk.is_own_unsettled() {
            self.with_holder(|holder, ctx| holder.leg_failed(Side::Own, IoError::TimedOut, ctx));
        }
    }

    /// What was not sent to a disk that hangs comes back in a moment: whoever tries again at once is held up by that.
    fn settle_unsent(&mut self) {
        let now = self.desk.now;
        if !self.desk.has_unsent() || now < *self.disk.unsent_at.get_or_insert(now + UNSENT) {
            return;
        }
        self.disk.unsent_at = None;
        for completed in self.desk.take_unsent() {
            self.on_completed(completed, self.desk.now);
        }
    }

    /// When to look again.
    pub(super) fn disk_deadline(&self) -> Option<Instant> {
        if self.desk.has_unsent() {
            return Some(self.disk.unsent_at.unwrap_or(self.desk.now));
        }
        let busy = self.desk.in_flight(Side::Own) != 0 || self.disk.seen == OwnDisk::Hangs;
        busy.then_some(self.disk.next_look)
    }
}
