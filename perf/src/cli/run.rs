//! `gemel-perf run`.

use std::process::ExitCode;

use clap::Args;
use perf::report::{json, table};
use perf::target::Target;

use super::load::LoadOptions;
use super::output::{Named, OutputOptions};

#[derive(Args)]
pub(crate) struct Options {
    /// `iscsi://ADDRESS[:PORT]/TARGET/LUN`, file:PATH, malloc:SIZE, mirror:SIZE or null:SIZE; several are driven at once.
    #[arg(required = true)]
    targets: Vec<Target>,
    #[command(flatten)]
    load: LoadOptions,
    #[command(flatten)]
    output: OutputOptions,
}

/// Carries it out; the exit status is 2 when operations failed.
pub(crate) fn execute(options: &Options) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let results = options.load.measure(&options.targets, options.load.shape(), "")?;
    let name = results.job.shape.to_string();
    let title = format!("{}: {}, {}", results.targets.join(" "), options.load.words(), name);
    options.output.show(&title, &[Named { name, results: &results }], &json(&results), &table(&results))?;
    Ok(if results.outcome.errors == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) })
}
