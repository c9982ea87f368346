//! Makes a failing plan small: fewer faults, fewer writes.

use super::plan::Plan;
use super::runner::Runner;

/// What is left of a failing plan.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The plan.
    pub plan: Plan,
    /// Which of the seed's events it has.
    pub events: Vec<usize>,
    /// How it fails.
    pub what: String,
}

impl Shrunk {
    /// A test of it, to be named and kept.
    pub fn as_test(&self) -> String {
        let (seed, ops) = (self.plan.seed, self.plan.load.ops);
        format!(
            "#[test]\nfn seed_{seed}() {{\n    clean(&Plan::of({seed}).only(&{:?}, {ops}));\n}}\n",
            self.events
        )
    }
}

/// Takes away what is not needed for the plan of `seed` to fail, whatever the failure; `None` when it does not fail.
pub fn shrink(runner: &Runner, seed: u64) -> Option<Shrunk> {
    let whole = Plan::of(seed);
    let fails = |events: &[usize], ops: u64| {
        let outcome = runner.run(&whole.clone().only(events, ops));
        outcome.verdict.err().map(|failure| failure.what)
    };
    let mut events: Vec<usize> = (0..whole.events.len()).collect();
    let mut ops = whole.load.ops;
    let mut what = fails(&events, ops)?;
    let mut at = 0;
    while at < events.len() {
        let mut fewer = events.clone();
        fewer.remove(at);
        match fails(&fewer, ops) {
            Some(still) => (events, what) = (fewer, still),
            None => at += 1,
        }
    }
    let mut step = ops / 2;
    while step > 0 {
        match fails(&events, ops - step) {
            Some(still) if ops > step => (ops, what) = (ops - step, still),
            _ => step /= 2,
        }
        step = step.min(ops / 2);
    }
    Some(Shrunk { plan: whole.only(&events, ops), events, what })
}
