//! Runs plans, one after the other, on one thread.

use std::panic::{AssertUnwindSafe, catch_unwind};

use engine::{Core, Pages, Pool, PoolConfig};

use super::coverage::Coverage;
use super::journal::{Journal, Keep};
use super::plan::Plan;
use super::tally::Tally;
use super::world::World;

/// A rule that was broken, or a panic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What, in words.
    pub what: String,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Clean, or the first failure.
    pub verdict: Result<(), Failure>,
    /// The journal, if it was kept.
    pub journal: String,
    /// Of the journal: equal for equal runs.
    pub digest: u64,
    /// Faults and what they met.
    pub coverage: Coverage,
    /// What became of hosts' operations.
    pub tally: Tally,
}

/// What runs share: memory that is mapped once.
#[derive(Debug)]
pub struct Runner {
    core: Core,
}

impl Default for Runner {
    fn default() -> Self {
        Self::new()
    }
}

impl Runner {
    /// With memory for one run at a time.
    ///
    /// # Panics
    /// When the machine has none left.
    pub fn new() -> Self {
        let config = PoolConfig { frames: [4096, 512, 32], pages: Pages::Ordinary };
        Self { core: Core::for_tests(Pool::new(config).expect("80 MiB")) }
    }

    /// Runs a plan; the journal is its digest alone.
    pub fn run(&self, plan: &Plan) -> Outcome {
        self.play(plan, Keep::Digest)
    }

    /// Runs a plan and keeps its journal.
    pub fn tell(&self, plan: &Plan) -> Outcome {
        self.play(plan, Keep::Text)
    }

    fn play(&self, plan: &Plan, keep: Keep) -> Outcome {
        let journal = Journal::new(keep);
        journal.line(engine::Instant::EPOCH, "plan", format_args!("{plan:?}"));
        let free = self.free_frames();
        let (mut coverage, mut tally) = (Coverage::default(), Tally::default());
        let played = catch_unwind(AssertUnwindSafe(|| {
            let mut world = World::new(plan.clone(), &self.core, journal.clone());
            let verdict = world.play();
            coverage = world.coverage.clone();
            tally = world.tally();
            verdict
        }));
        let verdict = match played {
            Ok(Ok(())) if self.free_frames() != free => Err(Failure { what: "frames were lost".to_owned() }),
            Ok(verdict) => verdict.map_err(|what| Failure { what }),
            Err(panic) => Err(Failure { what: words(&*panic) }),
        };
        if let Err(Failure { what }) = &verdict {
            journal.line(engine::Instant::EPOCH, "failure", format_args!("{what}"));
        }
        Outcome { verdict, journal: journal.text(), digest: journal.digest(), coverage, tally }
    }

    fn free_frames(&self) -> [usize; 3] {
        self.core.pool().stats().map(|class| class.free)
    }
}

fn words(panic: &(dyn core::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("without a word"))
}
