//! `make sim`: runs seeds on all cores, shrinks what fails, reports what was covered.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use tests::sim::{Coverage, Plan, Runner, shrink};

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
    /// Do not shrink what fails.
    #[arg(long)]
    no_shrink: bool,
}

#[derive(Default)]
struct Sum {
    coverage: Coverage,
    operations: u64,
    failed: Vec<(u64, String)>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    // What panics is a finding, and reported as one.
    std::panic::set_hook(Box::new(|_| {}));
    if options.tell {
        let outcome = Runner::new().tell(&Plan::of(options.first));
        print!("{}", outcome.journal);
        return if outcome.verdict.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let sum = run(&options);
    print!("{}", sum.coverage);
    println!(
        "seeds {} to {}: {} operations of hosts, {} failed",
        options.first,
        options.first + options.seeds - 1,
        sum.operations,
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
    if sum.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
            let outcome = runner.run(&Plan::of(seed));
            let mut sum = sum.lock().expect("nobody panics with it");
            sum.coverage.add(&outcome.coverage);
            sum.operations += outcome.operations;
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
