//! `make sim`: runs seeds on all cores, shrinks what fails, reports what was covered.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use tests::sim::{Coverage, Plan, Runner, Tally, shrink};

/// Runs the simulator.
#[derive(Parser)]
struct Options {
    /// First seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// Run the first seed alone and print its journal.
    #[arg(long)]
    tell: bool,
    /// Break each rule of the mirror in turn, and count the seeds until it is found; `--seeds` is the most for each.
    #[cfg(feature = "mutations")]
    #[arg(long)]
    mutations: bool,
    /// Of them, the one of this name alone; with `--tell`, broken in the run that is told.
    #[cfg(feature = "mutations")]
    #[arg(long)]
    rule: Option<String>,
    /// Of the seeds, those alone whose plans have a fault of this name (a row of the coverage).
    #[arg(long)]
    fault: Option<String>,
    /// Of the seeds, those alone whose hosts contend by reservations.
    #[arg(long)]
    contended: bool,
    /// Do not shrink what fails.
    #[arg(long)]
    no_shrink: bool,
}

/// From so many seeds on, each fault has to meet each phase.
const BROAD: u64 = 5_000;

impl Options {
    /// Whether what is run is to meet everything.
    fn is_broad(&self) -> bool {
        self.seeds >= BROAD && self.fault.is_none() && !self.contended
    }

    fn is_wanted(&self, plan: &Plan) -> bool {
        let has =
            |name: &String| plan.events.iter().any(|event| format!("{:?}", event.fault.point()) == *name);
        self.fault.as_ref().is_none_or(has) && (!self.contended || plan.contenders > 0)
    }
}

/// How often a long run says that it goes on.
const PROGRESS: u64 = 500;

#[derive(Default)]
struct Sum {
    runs: u64,
    coverage: Coverage,
    tally: Tally,
    failed: Vec<(u64, String)>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    // What panics is a finding, and reported as one.
    std::panic::set_hook(Box::new(|_| {}));
    if options.tell {
        #[cfg(feature = "mutations")]
        let _broken = mirror::mutation::Broken::rule(mutations::named(&options));
        let outcome = Runner::new().tell(&Plan::of(options.first));
        print!("{}", outcome.journal);
        return if outcome.verdict.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    #[cfg(feature = "mutations")]
    if options.mutations {
        return mutations::find(&options);
    }
    let sum = run(&options);
    print!("{}", sum.coverage);
    let missing = sum.coverage.missing();
    let missing: Vec<String> =
        missing.iter().map(|(point, phase)| format!("{point:?} in {phase:?}")).collect();
    println!("never met: {}", if missing.is_empty() { "nothing".to_owned() } else { missing.join(", ") });
    println!(
        "seeds {} to {}: {} operations of hosts ({} of them through the standby), {} writes aborted, {} changes of reservations, {} kept out by them, {} seeds failed",
        options.first,
        options.first + options.seeds - 1,
        sum.tally.good,
        sum.tally.passed_on,
        sum.tally.aborted,
        sum.tally.claims,
        sum.tally.kept_out,
        sum.failed.len()
    );
    for (seed, what) in &sum.failed {
        println!("\nseed {seed}: {what}");
        if !options.no_shrink
            && let Some(shrunk) = shrink(&Runner::new(), *seed)
        {
            println!("shrunk to {} faults: {}\n{}", shrunk.events.len(), shrunk.what, shrunk.as_test());
        }
    }
    // So many seeds are to meet everything.
    let is_whole = missing.is_empty() || !options.is_broad();
    if sum.failed.is_empty() && is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(options: &Options) -> Sum {
    let next = AtomicU64::new(options.first);
    let end = options.first + options.seeds;
    let sum = Mutex::new(Sum::default());
    let work = || {
        let runner = Runner::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let plan = Plan::of(seed);
            if !options.is_wanted(&plan) {
                continue;
            }
            let outcome = runner.run(&plan);
            let mut sum = sum.lock().expect("nobody panics with it");
            sum.runs += 1;
            if sum.runs % PROGRESS == 0 {
                eprintln!("{} seeds, {} failed", sum.runs, sum.failed.len());
            }
            sum.coverage.add(&outcome.coverage);
            sum.tally += outcome.tally;
            if let Err(failure) = outcome.verdict {
                eprintln!("seed {seed}: {}", failure.what.lines().next().unwrap_or_default());
                sum.failed.push((seed, failure.what));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(work);
        }
    });
    let mut sum = sum.into_inner().expect("nobody panics with it");
    sum.failed.sort();
    sum
}

#[cfg(feature = "mutations")]
mod mutations {
    use std::process::ExitCode;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use mirror::mutation::{Broken, Mutation};
    use tests::sim::{Plan, Runner, SHOWN_ELSEWHERE};

    use super::Options;

    /// The rule that is asked for by its name.
    pub(super) fn named(options: &Options) -> Option<Mutation> {
        let name = options.rule.as_ref()?;
        Mutation::ALL.into_iter().find(|rule| *name == format!("{rule:?}"))
    }

    /// Breaks each rule until a seed shows it.
    pub(super) fn find(options: &Options) -> ExitCode {
        let mut missed = 0;
        let wanted = |rule: &Mutation| match &options.rule {
            Some(name) => *name == format!("{rule:?}"),
            None => !SHOWN_ELSEWHERE.contains(rule),
        };
        let rules: Vec<Mutation> = Mutation::ALL.into_iter().filter(wanted).collect();
        for &rule in &rules {
            match first(options, rule) {
                Some((seed, what)) => {
                    let line = what.lines().next().unwrap_or_default();
                    println!("{:<22} seed {seed:>4}: {line}", format!("{rule:?}"));
                }
                None => {
                    missed += 1;
                    println!("{:<22} not found in {} seeds", format!("{rule:?}"), options.seeds);
                }
            }
        }
        println!("{} of {} found", rules.len() - missed, rules.len());
        if options.rule.is_none() {
            println!("shown by the exhaustive model or by plans of their own: {SHOWN_ELSEWHERE:?}");
        }
        if missed == 0 && !rules.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// The first seed that fails with the rule broken.
    fn first(options: &Options, rule: Mutation) -> Option<(u64, String)> {
        let (next, found) = (AtomicU64::new(options.first), Mutex::new(None::<(u64, String)>));
        let end = options.first + options.seeds;
        let work = || {
            let runner = Runner::new();
            let run = |seed, broken: Option<Mutation>| {
                let _broken = Broken::rule(broken);
                runner.run(&Plan::of(seed)).verdict
            };
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end {
                    return;
                }
                if !options.is_wanted(&Plan::of(seed)) {
                    continue;
                }
                // A seed that fails without it proves nothing.
                if let Err(failure) = run(seed, Some(rule))
                    && run(seed, None).is_ok()
                {
                    let mut found = found.lock().expect("nobody panics with it");
                    if found.as_ref().is_none_or(|(before, _)| seed < *before) {
                        *found = Some((seed, failure.what));
                    }
                    // Whoever is at an earlier seed comes to its end.
                    next.store(end, Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..options.threads {
                scope.spawn(work);
            }
        });
        found.into_inner().expect("nobody panics with it")
    }
}
