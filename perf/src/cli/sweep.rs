//! `gemel-perf sweep`.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use perf::report::{self, Results};
use perf::run::Loop;
use perf::sweep::{Point, knee, saturation};
use perf::target::Target;
use serde_json::json;

use super::load::LoadOptions;
use super::output::{Named, OutputOptions};

/// Of the offered rate, an open loop that does less does not keep up.
const SUSTAINED: f64 = 0.98;

#[derive(Args)]
pub(crate) struct Options {
    /// `iscsi://ADDRESS[:PORT]/TARGET/LUN`, file:PATH, malloc:SIZE, mirror:SIZE or null:SIZE; several are driven at once.
    #[arg(required = true)]
    targets: Vec<Target>,
    /// Depths to measure at, one after the other.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16,32,64,128", value_parser = clap::value_parser!(u32).range(1..=256))]
    depths: Vec<u32>,
    /// Arrivals a second to measure at, in place of depths.
    #[arg(long, value_delimiter = ',')]
    rates: Vec<f64>,
    #[command(flatten)]
    load: LoadOptions,
    #[command(flatten)]
    output: OutputOptions,
}

/// No load that can be measured.
#[derive(Debug, thiserror::Error)]
#[error("{0} is no rate: use arrivals a second, above zero")]
struct NoRate(f64);

impl Options {
    fn shapes(&self) -> Result<Vec<Loop>, NoRate> {
        if let Some(bad) = self.rates.iter().find(|rate| !(0.001..=1e9).contains(*rate)) {
            return Err(NoRate(*bad));
        }
        Ok(match self.rates.as_slice() {
            [] => self.depths.iter().map(|depth| Loop::Closed { depth: *depth }).collect(),
            rates => rates.iter().map(|rate| self.load.open_loop(*rate)).collect(),
        })
    }
}

/// Carries it out; the exit status is 2 when operations failed.
pub(crate) fn execute(options: &Options) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut runs = Vec::new();
    for shape in options.shapes()? {
        runs.push(options.load.measure(&options.targets, shape, &format!("{}: ", short(shape)))?);
    }
    let points: Vec<Point> = runs.iter().map(point).collect();
    let (knee, saturation) = (knee(&points), saturation(&points));
    let named: Vec<Named<'_>> =
        runs.iter().map(|results| Named { name: short(results.job.shape), results }).collect();
    let targets = runs.first().map(|results| results.targets.join(" ")).unwrap_or_default();
    let title = format!("{targets}: {}", options.load.words());
    let value = json!({
        "format": "gemel-perf-sweep/1",
        "knee": knee,
        "saturation": saturation,
        "sustained": runs.iter().map(sustained).collect::<Vec<_>>(),
        "runs": runs.iter().map(report::json).collect::<Vec<_>>(),
    });
    let text = format!("{title}\n{}", table(&runs, knee, saturation));
    options.output.show(&title, &named, &value, &text)?;
    let errors = runs.iter().any(|results| results.outcome.errors > 0);
    Ok(if errors { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

fn short(shape: Loop) -> String {
    match shape {
        Loop::Closed { depth } => format!("depth {depth}"),
        Loop::Open { rate, .. } => format!("{rate}/s"),
    }
}

fn point(results: &Results) -> Point {
    Point { iops: results.outcome.iops(), mean: results.outcome.measurement.all().mean() }
}

/// Whether the target kept up with an open loop; none of a closed one, which always does.
fn sustained(results: &Results) -> Option<bool> {
    match results.job.shape {
        Loop::Closed { .. } => None,
        Loop::Open { rate, .. } => Some(results.outcome.iops() >= rate * SUSTAINED),
    }
}

fn table(runs: &[Results], knee: Option<usize>, saturation: Option<usize>) -> Table {
    let mut table = Table::new();
    let head =
        ["load", "IOPS", "MiB/s", "mean us", "p50", "p99", "p99.9", "max", "own CPU us", "target CPU us", ""];
    table.load_style(presets::NOTHING).set_header(head);
    for (index, results) in runs.iter().enumerate() {
        let (outcome, all) = (&results.outcome, results.outcome.measurement.all());
        let mut notes = Vec::new();
        notes.extend((knee == Some(index)).then_some("knee"));
        notes.extend((saturation == Some(index)).then_some("saturated"));
        notes.extend((sustained(results) == Some(false)).then_some("does not keep up"));
        notes.extend((outcome.errors > 0).then_some("errors"));
        let far = results.costs.far_cpu.map(|cpu| format!("{:.2}", results.micros_each(cpu)));
        table.add_row([
            short(results.job.shape),
            format!("{:.0}", outcome.iops()),
            format!("{:.1}", outcome.bytes_per_second() / f64::from(1 << 20)),
            format!("{:.1}", all.mean()),
            format!("{:.1}", all.quantile(0.5)),
            format!("{:.1}", all.quantile(0.99)),
            format!("{:.1}", all.quantile(0.999)),
            format!("{:.1}", all.max()),
            format!("{:.2}", results.micros_each(results.costs.own_cpu)),
            far.unwrap_or_default(),
            notes.join(", "),
        ]);
    }
    for column in table.column_iter_mut().skip(1).take(9) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
