//! The arbiter of the simulation: one config with those that it follows, swapped by those who know it. Questions and answers take their time, and
//! get lost when a node cannot reach it; a swap whose answer was lost has happened.

use std::collections::VecDeque;

use core::time::Duration;
use engine::{Instant, Prng};
use mirror::arbiter::{Answer, Ask, Ticket};
use mirror::format::{Config, ConfigFlags, History};

/// Who asked: the node, and which run of it.
type Asker = (usize, u64);

pub(crate) struct Arbiter {
    pub(crate) record: Option<History>,
    /// Whether each node can reach it.
    pub(crate) reach: [bool; 2],
    /// How much longer each way takes.
    pub(crate) delay: Duration,
    asks: VecDeque<(Instant, Asker, Ticket, Ask)>,
    answers: VecDeque<(Instant, Asker, Ticket, Answer)>,
    prng: Prng,
}

impl Arbiter {
    pub(crate) fn new(seed: u64) -> Self {
        let (asks, answers) = (VecDeque::new(), VecDeque::new());
        let delay = Duration::ZERO;
        Self { record: None, reach: [true; 2], delay, asks, answers, prng: Prng::from_seed(seed ^ 0xa4b1) }
    }

    /// What counts.
    pub(crate) fn config(&self) -> Option<Config> {
        self.record.map(|record| *record.current())
    }

    /// A question or its answer is on its way.
    pub(crate) fn is_asked(&self) -> bool {
        !self.asks.is_empty() || !self.answers.is_empty()
    }

    fn later(&mut self, now: Instant) -> Instant {
        now + self.delay + Duration::from_micros(100 + self.prng.below(3000))
    }

    pub(crate) fn ask(&mut self, asker: Asker, ticket: Ticket, ask: Ask, now: Instant) {
        if self.reach[asker.0] {
            let due = self.later(now);
            self.asks.push_back((due, asker, ticket, ask));
        }
    }

    /// Does what is due; gives the answers that arrive.
    pub(crate) fn step(&mut self, now: Instant) -> Vec<(Asker, Ticket, Answer)> {
        let due: Vec<_> = self.asks.iter().filter(|ask| ask.0 <= now).cloned().collect();
        self.asks.retain(|ask| ask.0 > now);
        for (_, asker, ticket, ask) in due {
            let answer = self.decide(ask);
            if self.reach[asker.0] {
                let due = self.later(now);
                self.answers.push_back((due, asker, ticket, answer));
            }
        }
        let here: Vec<_> = self.answers.iter().filter(|answer| answer.0 <= now).cloned().collect();
        self.answers.retain(|answer| answer.0 > now);
        here.into_iter().map(|(_, asker, ticket, answer)| (asker, ticket, answer)).collect()
    }

    fn decide(&mut self, ask: Ask) -> Answer {
        match ask {
            Ask::Swap { from, next } if from == self.config().map(|config| config.id) => {
                let before = self.config();
                let rises = before.is_none_or(|config| next.current().generation() > config.generation());
                assert!(rises, "generations rise in every store (I3): {before:?} then {next:?}");
                let forced = next.current().flags.contains(ConfigFlags::FORCED);
                let follows = before.is_none_or(|config| next.entries().contains(&config));
                assert!(forced || follows, "a config tells what it follows: {before:?} then {next:?}");
                self.record = Some(*next);
                Answer::Swapped
            }
            Ask::Read | Ask::Swap { .. } => Answer::Holds(self.record.map(Box::new)),
        }
    }
}
