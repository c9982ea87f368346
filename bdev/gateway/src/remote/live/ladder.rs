//! What is done about an I/O that has no answer in its time, while the session itself is alive:
//!
//! ```text
//! late --> ABORT TASK --(complete, or no such task)--> over, and the session goes on
//!             \--(refused, or no answer in time)--> LOGICAL UNIT RESET --(complete)--> all that was under way is over:
//!                                                        |                  what was late fails, what was not is sent again
//!                                                        \--(refused, or no answer in time)--> the session ends
//! ```
//!
//! Owner: the session. Each rung has a time, so that a late I/O comes back within its own time and those of the two rungs. An
//! I/O's buffer stays with its task until the target says that the task is over, or the session is: nothing lands in a buffer that
//! its owner uses again.

use std::collections::VecDeque;

use core::time::Duration;
use engine::Instant;
use iscsi::TaskId;

/// ABORT TASK (RFC 7143 section 11.5.1(a)).
pub(super) const ABORT_TASK: u8 = 1;
/// LOGICAL UNIT RESET.
pub(super) const LOGICAL_UNIT_RESET: u8 = 5;

/// Rungs that wait to be told.
const NEWS_MAX: usize = 64;

/// What was begun for the sake of a late I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// ABORT TASK was sent.
    AbortTask,
    /// LOGICAL UNIT RESET was sent: the abort was refused, or not answered.
    LogicalUnitReset,
    /// The session was dropped: neither helped.
    SessionDrop,
}

/// A management request on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    /// The connection that it went by, and its name there; `None` where no connection could take it.
    request: Option<(u16, TaskId)>,
    /// When it counts as not answered.
    until: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub(in super::super) struct Ladder {
    aborts: Vec<(TaskId, Asked)>,
    /// With the tasks that were under way when it was sent.
    reset: Option<(Asked, Vec<TaskId>)>,
    news: VecDeque<Rung>,
}

/// What an answer to a management request comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// These tasks are over without a status; the first ones of them were late.
    Over(Vec<TaskId>),
    /// It does not help, or is about nothing that is known: [`Ladder::stuck`] tells.
    Nothing,
}

impl Ladder {
    /// An abort was sent, or could not be.
    pub(super) fn abort(&mut self, task: TaskId, request: Option<(u16, TaskId)>, until: Instant) {
        self.aborts.push((task, Asked { request, until }));
        self.tell(Rung::AbortTask);
    }

    /// A reset was sent with these tasks under way.
    pub(super) fn reset(&mut self, request: (u16, TaskId), tasks: Vec<TaskId>, until: Instant) {
        self.reset = Some((Asked { request: Some(request), until }, tasks));
        self.tell(Rung::LogicalUnitReset);
    }

    /// True for a task that an abort was sent for.
    pub(super) fn has_abort(&self, task: TaskId) -> bool {
        self.aborts.iter().any(|(aborted, _)| *aborted == task)
    }

    /// True while a reset is on its way: nothing new is sent, so that nobody has to guess what it swept away.
    pub(super) fn is_resetting(&self) -> bool {
        self.reset.is_some()
    }

    /// A task was answered after all.
    pub(in super::super) fn forget(&mut self, task: TaskId) {
        self.aborts.retain(|(aborted, _)| *aborted != task);
    }

    /// A management request was answered (RFC 7143 section 11.6.1).
    pub(super) fn on_answer(&mut self, request: (u16, TaskId), response: u8, now: Instant) -> Answered {
        let is = |asked: &Asked| asked.request == Some(request);
        if let Some(at) = self.aborts.iter().position(|(_, asked)| is(asked)) {
            //= rfc7143#section-7.11: what is late is aborted, or its connection is ended.
            //= rfc7143#section-11.6.1: complete, and no such task: either way no status comes, on this connection, after the answer.
            if response <= 1 {
                return Answered::Over(vec![self.aborts.swap_remove(at).0]);
            }
            self.aborts[at].1.until = now;
        }
        if let Some((asked, tasks)) = self.reset.take_if(|(asked, _)| is(asked)) {
            if response == 0 {
                self.aborts.clear();
                return Answered::Over(tasks);
            }
            self.reset = Some((Asked { until: now, ..asked }, tasks));
        }
        Answered::Nothing
    }

    /// The rung that did not help by now.
    pub(super) fn stuck(&self, now: Instant) -> Option<Rung> {
        match &self.reset {
            Some((asked, _)) => (now >= asked.until).then_some(Rung::LogicalUnitReset),
            None => self.aborts.iter().any(|(_, asked)| now >= asked.until).then_some(Rung::AbortTask),
        }
    }

    /// When to look again.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match &self.reset {
            Some((asked, _)) => Some(asked.until),
            None => self.aborts.iter().map(|(_, asked)| asked.until).min(),
        }
    }

    /// Notes a rung; of a flood the first ones are told.
    pub(super) fn tell(&mut self, rung: Rung) {
        if self.news.len() < NEWS_MAX {
            self.news.push_back(rung);
        }
    }

    pub(in super::super) fn take_news(&mut self) -> VecDeque<Rung> {
        core::mem::take(&mut self.news)
    }
}

/// How long a target may take to answer each rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RungTimes {
    /// ABORT TASK.
    pub abort: Duration,
    /// LOGICAL UNIT RESET.
    pub reset: Duration,
}

impl Default for RungTimes {
    fn default() -> Self {
        Self { abort: Duration::from_secs(2), reset: Duration::from_secs(3) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::EPOCH;

    fn task(number: u32) -> TaskId {
        TaskId(number)
    }

    #[test]
    fn each_answer_leads_on_or_up() {
        let later = NOW + Duration::from_secs(1);
        for (response, over) in [(0, true), (1, true), (2, false), (5, false), (255, false)] {
            let mut ladder = Ladder::default();
            ladder.abort(task(7), Some((0, task(8))), later);
            assert_eq!((ladder.has_abort(task(7)), ladder.stuck(NOW)), (true, None));
            let nobodys = ladder.on_answer((1, task(8)), 0, NOW);
            assert_eq!(nobodys, Answered::Nothing, "another connection's");
            let answered = ladder.on_answer((0, task(8)), response, NOW);
            match over {
                true => assert_eq!(answered, Answered::Over(vec![task(7)])),
                false => assert_eq!(ladder.stuck(NOW), Some(Rung::AbortTask), "{response}"),
            }
            assert_eq!(ladder.has_abort(task(7)), !over);
        }
    }

    #[test]
    fn silence_leads_up_and_a_late_status_ends_it() {
        let mut ladder = Ladder::default();
        let later = NOW + Duration::from_secs(1);
        ladder.abort(task(7), None, later);
        assert_eq!((ladder.next_deadline(), ladder.stuck(later)), (Some(later), Some(Rung::AbortTask)));
        ladder.forget(task(7));
        assert_eq!((ladder.next_deadline(), ladder.stuck(later)), (None, None));
        ladder.abort(task(9), None, later);
        ladder.reset((0, task(10)), vec![task(9), task(11)], later);
        assert!(ladder.is_resetting());
        assert_eq!((ladder.stuck(NOW), ladder.stuck(later)), (None, Some(Rung::LogicalUnitReset)));
        assert_eq!(ladder.on_answer((0, task(10)), 0, NOW), Answered::Over(vec![task(9), task(11)]));
        assert_eq!((ladder.is_resetting(), ladder.next_deadline()), (false, None));
        let told: Vec<Rung> = ladder.take_news().into();
        assert_eq!(told, [Rung::AbortTask, Rung::AbortTask, Rung::LogicalUnitReset]);
    }
}
