//! The arbiter as a node sees it: whoever orders the generations of an array (`mirror.md`, changes of config).
//!
//! Owner: the node. It holds one config for each array, with those that it follows, and replaces it when asked by somebody who
//! knows what it holds. The node asks one thing at a time; whoever runs the node carries the question, and may bring the answer
//! late, or never: a swap without an answer may have happened, and is asked again.

use core::time::Duration;
use engine::Instant;

use crate::format::{ConfigId, History};

/// Names a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Which config is it?
    Read,
    /// Put `next` in place of `from`, if that is what is there; `None`: nothing is there.
    Swap {
        /// What has to be there.
        from: Option<ConfigId>,
        /// What to put there: a config, and what it follows. Whoever learns it here may never hear of those otherwise.
        next: Box<History>,
    },
}

/// For whom a question is asked: an answer says nothing to whoever comes after him.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A node that looks for its peer before it serves.
    Hold,
    /// A standby that would take over.
    Standby,
    /// A holder that changes to this config.
    Change(ConfigId),
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This is there; a swap has not happened.
    Holds(Option<Box<History>>),
    /// The swap has happened.
    Swapped,
    /// No answer in time, or no sense in it: in words, for the operator.
    Unknown(String),
}

/// After this long without an answer nobody waits for it any more.
const PATIENCE: Duration = Duration::from_millis(2000);
/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(250);
/// Within this time everybody who wants something of an arbiter that answers again has asked it.
pub(crate) const ASKED_AGAIN: Duration = PATIENCE.saturating_add(PAUSE);

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Free,
    /// Nobody has taken it yet.
    Asking(Ask),
    /// Under way.
    Asked,
}

/// The node's one question.
#[derive(Debug)]
pub(crate) struct Ballot {
    ticket: Ticket,
    asker: Asker,
    state: State,
    asked_at: Instant,
    not_before: Instant,
}

impl Ballot {
    pub(crate) fn new() -> Self {
        let never = Instant::EPOCH;
        let state = State::Free;
        Self { ticket: Ticket(0), asker: Asker::Hold, state, asked_at: never, not_before: never }
    }

    /// True when something may be asked.
    pub(crate) fn is_free(&self, now: Instant) -> bool {
        self.state == State::Free && now >= self.not_before
    }

    /// Asks; the answer will carry the ticket.
    pub(crate) fn ask(&mut self, asker: Asker, ask: Ask, now: Instant) {
        debug_assert!(self.state == State::Free, "one question at a time");
        self.ticket = Ticket(self.ticket.0 + 1);
        self.asker = asker;
        (self.state, self.asked_at) = (State::Asking(ask), now);
    }

    /// The question, for whoever carries it.
    pub(crate) fn take(&mut self) -> Option<(Ticket, Ask)> {
        match core::mem::replace(&mut self.state, State::Asked) {
            State::Asking(ask) => Some((self.ticket, ask)),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Whose the answer is; nobody's, unless it is to the question that is open.
    pub(crate) fn accept(&mut self, ticket: Ticket, answer: &Answer, now: Instant) -> Option<Asker> {
        if ticket != self.ticket || self.state == State::Free {
            return None;
        }
        self.state = State::Free;
        if let Answer::Unknown(_) = answer {
            self.not_before = now + PAUSE;
        }
        Some(self.asker)
    }

    /// Nobody needs the answer any more.
    pub(crate) fn forget(&mut self) {
        self.state = State::Free;
    }

    /// The question's ticket, when its answer is overdue.
    pub(crate) fn overdue(&self, now: Instant) -> Option<Ticket> {
        (self.state != State::Free && now >= self.asked_at + PATIENCE).then_some(self.ticket)
    }

    /// Leaves the arbiter alone for a while.
    pub(crate) fn pause(&mut self, now: Instant) {
        self.not_before = now + PAUSE;
    }

    /// When to look again at the latest.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Free => Some(self.not_before).filter(|at| *at > now),
            State::Asking(_) | State::Asked => Some(self.asked_at + PATIENCE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_question_at_a_time_and_late_answers_are_nobodys() {
        let now = Instant::EPOCH + Duration::from_secs(1);
        let mut ballot = Ballot::new();
        assert!(ballot.is_free(now) && ballot.take().is_none());
        ballot.ask(Asker::Hold, Ask::Read, now);
        assert!(!ballot.is_free(now));
        let (first, ask) = ballot.take().expect("asked");
        assert_eq!((ask, ballot.take()), (Ask::Read, None));
        assert_eq!(ballot.overdue(now), None);
        assert_eq!(ballot.overdue(now + PATIENCE), Some(first));
        ballot.forget();
        ballot.ask(Asker::Standby, Ask::Read, now);
        let (second, _) = ballot.take().expect("asked");
        assert_eq!(ballot.accept(first, &Answer::Swapped, now), None, "nobody waits for it");
        let asker = ballot.accept(second, &Answer::Unknown("slow".to_owned()), now);
        assert_eq!(asker, Some(Asker::Standby));
        assert_eq!(ballot.accept(second, &Answer::Swapped, now), None, "once");
        assert!(!ballot.is_free(now) && ballot.is_free(now + PAUSE));
        assert_eq!(ballot.next_deadline(now), Some(now + PAUSE));
        assert_eq!(ballot.next_deadline(now + PAUSE), None, "nothing is due for ever");
    }
}
