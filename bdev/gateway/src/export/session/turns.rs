//! A session's turns to hold more than a frame (`long.rs`), and what becomes of one that nothing is done with.
//!
//! ```text
//! waiting --(its turn)--> Collecting --(all data)--> Working --> Answering
//!                              \--(nothing came for STALL, and another host waits)--> Owed --(the rest came)--> BUSY
//! ```
//!
//! A host that stops in the middle of its data, because it is dead or because its network is, holds up no other host for longer than
//! [`STALL`]: its command is ended, and its frames go. Its data cannot be asked for again later: with DataSequenceInOrder, which
//! hosts agree on, only the last sequence may be (RFC 7143 section 13.19), and at error recovery level 0 none. Nor may the status be
//! sent at once: a target waits for the end of the sequence that it has asked for (section 11.4.2). So nothing more is asked for,
//! what is still owed is dropped as it comes, and behind it the command ends with BUSY: nothing of it was done, and it may come
//! again (SAM-5 section 5.3.1). Until then the session has no other turn: what it owes comes before anything else that it sends.
//! Where nothing is owed any more because the connection dies, there is nobody to answer. A host that sends anything at all within
//! [`STALL`] is only slow.

use core::time::Duration;
use std::rc::Rc;

use engine::{Core, Instant, Progress};
use iscsi::TaskId;
use iscsi::target::Response;
use scsi::status;

use super::super::long::{LongCommands, Owner, Ticket, Turn, Wanted};
use super::Session;
use super::jobs::{Job, Stage};
use super::paths::Origin;

/// How long nothing may come of what was asked for, while another host waits for the room.
const STALL: Duration = Duration::from_secs(4);
/// Between looks.
const LOOK: Duration = Duration::from_millis(500);

/// Whether a session has brought what its turns were for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Credit {
    Good,
    /// It owes data of a command that was ended.
    Owing,
}

/// See the module.
pub(super) struct Turns {
    commands: Rc<LongCommands>,
    owner: Owner,
    credit: Credit,
    looked_at: Instant,
}

impl Turns {
    pub(super) fn new(commands: &Rc<LongCommands>) -> Self {
        let (commands, owner) = (commands.clone(), Owner::new("", Origin::Host));
        Self { commands, owner, credit: Credit::Good, looked_at: Instant::EPOCH }
    }

    /// Whose session it is.
    pub(super) fn belong_to(&mut self, initiator: &str, origin: Origin) {
        self.owner = Owner::new(initiator, origin);
    }

    /// Room for a command. It takes its place, if it has none yet, and gathers when it has its turn.
    pub(super) fn take(&self, ticket: &mut Option<Ticket>, core: &Core, wanted: Wanted) -> Turn {
        if self.credit == Credit::Owing {
            *ticket = None;
            return Turn::Later;
        }
        if ticket.is_none() {
            *ticket = Ticket::new(&self.commands, &self.owner, wanted);
        }
        let Some(ticket) = ticket else { return Turn::Never };
        ticket.gather(core.pool()).map_or(Turn::Later, Turn::Come)
    }

    /// When to look next: never, while nobody waits for this session.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.commands.holds_up(&self.owner).then(|| self.looked_at + LOOK)
    }
}

/// How far something is, and since when.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    mark: u64,
    since: Option<Instant>,
}

impl Pace {
    /// True for what has not moved for [`STALL`].
    fn is_stalled(&mut self, mark: u64, now: Instant) -> bool {
        let since = self.since.filter(|_| mark == self.mark);
        *self = Self { mark, since: since.or(Some(now)) };
        since.is_some_and(|since| now >= since + STALL)
    }
}

impl Job {
    /// True for one that was ended and whose initiator still owes data.
    fn owes(&self) -> bool {
        matches!(self.stage, Stage::Owed)
    }
}

impl Session {
    /// Looks at those who have a turn: one who does nothing with it must not hold up another host.
    pub(super) fn watch_turns(&mut self, now: Instant) -> Progress {
        if self.turns.credit == Credit::Owing && !self.jobs.open.values().any(Job::owes) {
            self.turns.credit = Credit::Good;
        }
        if now < self.turns.looked_at + LOOK {
            return Progress::Idle;
        }
        self.turns.looked_at = now;
        let turns = self.jobs.open.iter_mut().filter(|(_, job)| job.ticket.is_some() && job.is_taking());
        let stalled = turns.filter_map(|(task, job)| job.pace.is_stalled(job.arrived, now).then_some(*task));
        let stalled: Vec<TaskId> = stalled.collect();
        if stalled.is_empty() || !self.turns.commands.holds_up(&self.turns.owner) {
            return Progress::Idle;
        }
        stalled.into_iter().for_each(|task| self.give_up(task));
        Progress::Busy
    }

    /// Ends a command whose data do not come.
    fn give_up(&mut self, task: TaskId) {
        if !self.links.give_up_data(task) {
            return;
        }
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        job.answer(None);
        job.stage = Stage::Owed;
        self.turns.credit = Credit::Owing;
    }

    /// All that was owed has come: the command may come again.
    pub(super) fn on_data_over(&mut self, task: TaskId) {
        if self.jobs.open.get(&task).is_some_and(Job::owes) {
            self.respond(task, Response { status: status::BUSY, ..Response::default() });
        }
    }
}
