//! A session's turns to hold more than a frame (`long.rs`), and what becomes of one that nothing is done with.
//!
//! ```text
//! waiting --(its turn)--> Collecting --(all data)--> Working --> Answering
//!                              \--(nothing came for STALL, and another session waits)--> Owed --(the rest came)--> BUSY
//! ```
//!
//! A host that stops in the middle of its data, because it is dead or because its network is, holds up no other session for longer than
//! [`STALL`]: its command is ended, and its frames go. Its data cannot be asked for again later: with DataSequenceInOrder, which
//! hosts agree on, only the last sequence may be (RFC 7143 section 13.19), and at error recovery level 0 none. Nor may the status be
//! sent at once: a target waits for the end of the sequence that it has asked for (section 11.4.2). So nothing more is asked for,
//! what is still owed is dropped as it comes, and behind it the command ends with BUSY: nothing of it was done, and it may come
//! again (SAM-5 section 5.3.1). Until then the session has no other turn: what it owes comes before anything else that it sends.
//! Where nothing is owed any more because the connection dies, there is nobody to answer. A host that sends any of its data within
//! [`STALL`], or takes any of what is sent before it is asked for them, is only slow.
//!
//! What is read has its turn as long as its frames are held: by the job, or by the socket's queue when the job has ended. A host
//! that takes nothing for [`STALL`] loses its connection, because nothing else gives back what is in the queue; it logs in again, and
//! repeats what was not answered. From error recovery level 1 on data are kept until the host acknowledges their status; it is asked
//! to while another host waits. If it does not, or does not come back to a connection that it has lost, they are forgotten: a SNACK
//! for them is rejected, and a task that cannot go on is cleared, as where there is no room for them (`lost.rs`).

use core::time::Duration;
use std::rc::Rc;

use engine::{Core, Instant, Progress};
use iscsi::TaskId;
use iscsi::target::Response;
use scsi::status;

use super::super::long::{LongCommands, Owner, Ticket, Turn, Wanted};
use super::super::state::NexusId;
use super::Session;
use super::jobs::{Job, Stage};
use super::links::Link;
use super::management::Aborter;
use super::paths::Origin;
use crate::payload::Payload;

/// How long nothing may come of what was asked for, while another session waits for the room.
pub(super) const STALL: Duration = Duration::from_secs(4);
/// Between looks.
pub(super) const LOOK: Duration = Duration::from_millis(500);

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
    /// Of jobs that have ended, as long as the socket has their data.
    leaving: Vec<Leaving>,
    looked_at: Instant,
}

/// Data on their way out, with the turn that is theirs.
struct Leaving {
    data: Payload,
    _ticket: Ticket,
}

impl Turns {
    pub(super) fn new(commands: &Rc<LongCommands>, id: NexusId) -> Self {
        let (commands, owner) = (commands.clone(), Owner::new("", id, Origin::Host));
        Self { commands, owner, credit: Credit::Good, leaving: Vec::new(), looked_at: Instant::EPOCH }
    }

    /// Whose session it is.
    pub(super) fn belong_to(&mut self, initiator: &str, id: NexusId, origin: Origin) {
        self.owner = Owner::new(initiator, id, origin);
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

    /// Keeps the turn of a job that has ended, as long as others have its data.
    pub(super) fn keep(&mut self, ticket: Ticket, data: Payload) {
        self.leaving.push(Leaving { data, _ticket: ticket });
    }

    /// Gives back the turns whose data are out.
    pub(super) fn settle(&mut self) -> Progress {
        let before = self.leaving.len();
        self.leaving.retain(|leaving| leaving.data.is_shared());
        Progress::from_count(before - self.leaving.len())
    }

    /// True while this session keeps another one waiting.
    fn hold_up_others(&self) -> bool {
        self.commands.holds_up(&self.owner)
    }

    /// When to look next: never, while nobody waits for this session.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.hold_up_others().then(|| self.looked_at + LOOK)
    }
}

/// How far something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mark {
    #[default]
    Nothing,
    /// Bytes that an initiator has sent of what it was asked for, and that it has taken while there is more for it: it may not have been
    /// asked yet.
    Moved { arrived: u64, taken: u64 },
    /// An answer waits for its acknowledgement.
    Answered,
    /// It waits for a connection.
    Lost,
}

/// How far something is, and since when.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    mark: Mark,
    since: Option<Instant>,
}

impl Pace {
    /// True for a command for which nothing has come for [`STALL`], nor for any other of its session, and whose initiator takes nothing.
    pub(super) fn brings_nothing(&mut self, arrived: u64, taken: u64, now: Instant) -> bool {
        self.is_stalled(Mark::Moved { arrived, taken }, now)
    }

    /// Since when nothing has come of what a session's initiator was asked for.
    pub(super) fn nothing_since(&mut self, arrived: u64, now: Instant) -> Instant {
        self.rests_since(Mark::Moved { arrived, taken: 0 }, now)
    }

    /// True for what has not moved for [`STALL`].
    fn is_stalled(&mut self, mark: Mark, now: Instant) -> bool {
        now >= self.rests_since(mark, now) + STALL
    }

    /// Since when it has been as far as it is.
    fn rests_since(&mut self, mark: Mark, now: Instant) -> Instant {
        let since = self.since.filter(|_| mark == self.mark).unwrap_or(now);
        *self = Self { mark, since: Some(since) };
        since
    }
}

/// What becomes of a command that has a turn and does nothing with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    /// Its data do not come.
    GiveUp,
    /// Its status is not acknowledged.
    Forget,
    /// Its connection is gone, and nobody takes it over.
    Clear,
}

impl Job {
    /// True for one that was ended and whose initiator still owes data.
    fn owes(&self) -> bool {
        matches!(self.stage, Stage::Owed)
    }
}

impl Link {
    /// True when its initiator has taken nothing for [`STALL`].
    fn is_jammed(&mut self, now: Instant) -> bool {
        if !self.stream.is_sending() {
            self.pace = Pace::default();
            return false;
        }
        self.pace.is_stalled(Mark::Moved { arrived: 0, taken: self.stream.sent() }, now)
    }
}

impl Session {
    /// Looks at those who have a turn: one who does nothing with it must not hold up another one.
    pub(super) fn watch_turns(&mut self, now: Instant) -> Progress {
        if self.turns.credit == Credit::Owing && !self.jobs.open.values().any(Job::owes) {
            self.turns.credit = Credit::Good;
        }
        if now < self.turns.looked_at + LOOK {
            return Progress::Idle;
        }
        self.turns.looked_at = now;
        let stalled = self.stalled_turns(now);
        let jammed: Vec<usize> =
            (0..self.links.len()).filter(|index| self.links.at(*index).is_jammed(now)).collect();
        if !self.turns.hold_up_others() {
            return Progress::Idle;
        }
        let answers = |job: &Job| job.ticket.is_some() && matches!(job.stage, Stage::Answering(_));
        if self.jobs.open.values().any(answers) || !self.turns.leaving.is_empty() {
            self.ask_to_acknowledge();
            for index in jammed {
                self.links.at(index).end("the initiator does not take what it reads, and others wait");
            }
        }
        for (task, remedy) in &stalled {
            match remedy {
                Remedy::GiveUp => self.give_up(*task),
                Remedy::Forget => {
                    self.links.abort(*task);
                    self.close_job(*task, now);
                }
                Remedy::Clear => self.clear_tasks(vec![*task], now),
            }
        }
        Progress::from_count(stalled.len())
    }

    /// When to look next: never, where nobody is left to be looked at.
    pub(super) fn turns_deadline(&self) -> Option<Instant> {
        self.turns.deadline().filter(|_| !self.is_over())
    }

    /// The session is over and waits for its devices: what is at work there ends with the I/O that it is at, and everything else ends
    /// now and holds up nobody. What may be at the peer ends there (`barrier.rs`).
    pub(super) fn end_waiting(&mut self, now: Instant) -> Progress {
        let open = self.jobs.open.iter().filter(|(_, job)| !job.aborted && !job.may_be_at_peer());
        let mut ending: Vec<TaskId> = open.map(|(task, _)| *task).collect();
        ending.extend(self.stalled.take().map(|stalled| stalled.task()));
        for task in &ending {
            self.abort(*task, Aborter::Itself, now);
        }
        Progress::from_count(ending.len())
    }

    /// Commands with a turn that have not moved for [`STALL`].
    fn stalled_turns(&mut self, now: Instant) -> Vec<(TaskId, Remedy)> {
        let (links, arrived) = (&self.links, self.jobs.arrived);
        let turns = self.jobs.open.iter_mut().filter(|(_, job)| job.ticket.is_some());
        let stalled = turns.filter_map(|(task, job)| {
            let (mark, remedy) = match &job.stage {
                Stage::Collecting(_) => {
                    (Mark::Moved { arrived, taken: links.taken_by_owner(*task) }, Remedy::GiveUp)
                }
                Stage::Answering(_) if links.has_lost(*task) => (Mark::Lost, Remedy::Clear),
                // As long as the socket has the data, it is to say how fast they go.
                Stage::Answering(data)
                    if !links.is_open(*task) && !data.as_ref().is_some_and(Payload::is_shared) =>
                {
                    (Mark::Answered, Remedy::Forget)
                }
                _ => {
                    job.pace = Pace::default();
                    return None;
                }
            };
            job.pace.is_stalled(mark, now).then_some((*task, remedy))
        });
        stalled.collect()
    }

    /// Ends a command whose data do not come.
    pub(super) fn give_up(&mut self, task: TaskId) {
        if !self.links.give_up_data(task) {
            return;
        }
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        job.answer(None);
        job.stage = Stage::Owed;
        self.jobs.charge(task, 0);
        self.turns.credit = Credit::Owing;
    }

    /// All that was owed has come: the command may come again.
    pub(super) fn on_data_over(&mut self, task: TaskId) {
        if self.jobs.open.get(&task).is_some_and(Job::owes) {
            self.respond(task, Response { status: status::BUSY, ..Response::default() });
        }
    }
}
