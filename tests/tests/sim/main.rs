//! The simulator in `make test`: a bounded number of seeds, the runs that once failed, and that runs repeat.

mod bugs;
mod contention;
mod found;
mod records;
mod split;

use tests::sim::{Coverage, Plan, Runner};

/// Seeds in `make test`; `make sim` runs more.
const SEEDS: u64 = 60;

fn clean(plan: &Plan) {
    let outcome = Runner::new().run(plan);
    assert_eq!(outcome.verdict, Ok(()), "{plan:?}");
}

#[test]
fn the_same_seed_gives_the_same_journal_byte_for_byte() {
    for seed in [3, 14, 15, 92] {
        let journals = [0, 1].map(|_| Runner::new().tell(&Plan::of(seed)).journal);
        assert!(journals[0].lines().count() > 20, "{}", journals[0]);
        assert!(journals[0] == journals[1], "seed {seed}: two runs, two journals");
    }
}

/// A runner that has run other plans before gives the same, too.
#[test]
fn a_run_depends_on_nothing_but_its_plan() {
    let runner = Runner::new();
    let digests: Vec<u64> = (1..9).map(|seed| runner.run(&Plan::of(seed)).digest).collect();
    let again: Vec<u64> = (1..9).rev().map(|seed| runner.run(&Plan::of(seed)).digest).collect();
    assert!(digests.iter().eq(again.iter().rev()), "{digests:x?} and {again:x?}");
}

#[test]
fn seeds_are_clean() {
    let runner = Runner::new();
    let mut coverage = Coverage::default();
    let mut run = |seed| {
        let outcome = runner.run(&Plan::of(seed));
        coverage.add(&outcome.coverage);
        outcome.verdict.err()
    };
    let failed: Vec<_> = (1..=SEEDS).filter_map(|seed| Some((seed, run(seed)?.what))).collect();
    println!("{coverage}{} of the pairs never met in {SEEDS} seeds", coverage.missing().len());
    assert!(failed.is_empty(), "{failed:#?}");
}
