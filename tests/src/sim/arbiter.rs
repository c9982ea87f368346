//! The arbiter: one config with those that it follows, swapped by those who know it. Questions and answers take their time, and get lost where a way
//! is cut; a swap whose answer was lost has happened. Whatever is asked twice is decided twice.

use core::time::Duration;

use engine::{Instant, Prng};
use mirror::arbiter::{Answer, Ask, Ticket};
use mirror::format::{Config, ConfigFlags, History};

/// Who asked: the node, and which run of it.
pub(crate) type Asker = (usize, u64);

/// An answer on its way.
pub(crate) type Told = (Asker, Ticket, Answer);

pub(crate) struct Arbiter {
    pub(crate) record: Option<History>,
    /// Every record that it ever held, oldest first.
    pub(crate) past: Vec<History>,
    /// Whether each node's questions get there, and its answers back.
    pub(crate) asks_pass: [bool; 2],
    pub(crate) answers_pass: [bool; 2],
    /// Added to each message's time.
    pub(crate) slow: Duration,
    asks: Vec<(Instant, Asker, Ticket, Ask)>,
    answers: Vec<(Instant, Told)>,
    prng: Prng,
}

impl Arbiter {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            record: None,
            past: Vec::new(),
            asks_pass: [true; 2],
            answers_pass: [true; 2],
            slow: Duration::ZERO,
            asks: Vec::new(),
            answers: Vec::new(),
            prng: Prng::from_seed(seed ^ 0xa4b1_7e12),
        }
    }

    /// What counts.
    pub(crate) fn config(&self) -> Option<Config> {
        self.record.map(|record| *record.current())
    }

    fn later(&mut self, now: Instant) -> Instant {
        now + Duration::from_micros(100 + self.prng.below(3000)) + self.slow
    }

    pub(crate) fn ask(&mut self, asker: Asker, ticket: Ticket, ask: Ask, now: Instant) {
        if self.asks_pass[asker.0] {
            let due = self.later(now);
            self.asks.push((due, asker, ticket, ask));
        }
    }

    /// True while a change is asked for or being answered.
    pub(crate) fn is_changing(&self) -> bool {
        let swap = |ask: &Ask| matches!(ask, Ask::Swap { .. });
        self.asks.iter().any(|(_, _, _, ask)| swap(ask))
            || self.answers.iter().any(|(_, (_, _, answer))| *answer == Answer::Swapped)
    }

    /// Configs that are on their way here: each may come to count, whatever becomes of whoever asked.
    pub(crate) fn coming(&self) -> impl Iterator<Item = Config> + '_ {
        self.asks.iter().filter_map(|(_, _, _, ask)| match ask {
            Ask::Swap { next, .. } => Some(*next.current()),
            Ask::Read => None,
        })
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let asks = self.asks.iter().map(|ask| ask.0);
        asks.chain(self.answers.iter().map(|answer| answer.0)).min()
    }

    /// Does what is due; gives the answers that arrive, and what was decided.
    pub(crate) fn advance(&mut self, now: Instant) -> (Vec<Told>, Vec<Config>) {
        let mut decided = Vec::new();
        for (_, asker, ticket, ask) in extract(&mut self.asks, |ask| ask.0 <= now) {
            let answer = self.decide(ask);
            if answer == Answer::Swapped {
                decided.extend(self.config());
            }
            if self.answers_pass[asker.0] {
                let due = self.later(now);
                self.answers.push((due, (asker, ticket, answer)));
            }
        }
        let here = extract(&mut self.answers, |answer| answer.0 <= now);
        (here.into_iter().map(|(_, told)| told).collect(), decided)
    }

    fn decide(&mut self, ask: Ask) -> Answer {
        match ask {
            Ask::Swap { from, next } if from == self.config().map(|config| config.id) => {
                let before = self.config();
                let rises = before.is_none_or(|config| next.current().generation() > config.generation());
                assert!(rises, "I3: generations rise at the arbiter: {before:?} then {next:?}");
                let forced = next.current().flags.contains(ConfigFlags::FORCED);
                let follows = before.is_none_or(|config| next.entries().contains(&config));
                assert!(forced || follows, "a config tells what it follows: {before:?} then {next:?}");
                self.record = Some(*next);
                self.past.push(*next);
                Answer::Swapped
            }
            Ask::Read | Ask::Swap { .. } => Answer::Holds(self.record.map(Box::new)),
        }
    }
}

fn extract<T>(list: &mut Vec<T>, due: impl Fn(&T) -> bool) -> Vec<T> {
    list.extract_if(.., |entry| due(entry)).collect()
}
