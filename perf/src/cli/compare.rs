//! `gemel-perf compare`.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use perf::compare::{Ratio, Verdict, median, ratio};
use perf::report::{self, Results};
use perf::target::Target;
use serde_json::{Map, Value, json};

use super::load::LoadOptions;
use super::output::{Named, OutputOptions};

#[derive(Args)]
pub(crate) struct Options {
    /// `iscsi://ADDRESS[:PORT]/TARGET/LUN`, file:PATH, malloc:SIZE, mirror:SIZE or null:SIZE.
    a: Target,
    /// What to compare with it.
    b: Target,
    /// How often each is measured, in turns, and each first as often as second.
    #[arg(short = 'n', long = "rounds", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    #[command(flatten)]
    load: LoadOptions,
    #[command(flatten)]
    output: OutputOptions,
}

/// A figure that is compared.
struct Figure {
    name: &'static str,
    of: fn(&Results) -> f64,
}

const FIGURES: [Figure; 6] = [
    Figure { name: "iops", of: |results| results.outcome.iops() },
    Figure { name: "mean_us", of: |results| results.outcome.measurement.all().mean() },
    Figure { name: "p50_us", of: |results| results.outcome.measurement.all().quantile(0.5) },
    Figure { name: "p99_us", of: |results| results.outcome.measurement.all().quantile(0.99) },
    Figure { name: "p999_us", of: |results| results.outcome.measurement.all().quantile(0.999) },
    Figure { name: "own_cpu_us_per_io", of: |results| results.micros_each(results.costs.own_cpu) },
];

struct Compared {
    name: &'static str,
    a: f64,
    b: f64,
    ratio: Option<Ratio>,
}

/// Carries it out; the exit status is 2 when operations failed.
pub(crate) fn execute(options: &Options) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let rounds = options.measure()?;
    let compared: Vec<Compared> = FIGURES.iter().map(|figure| compared(figure, &rounds)).collect();
    let title =
        format!("A {} and B {}: {}, {}", options.a, options.b, options.load.words(), options.load.shape());
    // Of each target's rounds the one with the median rate.
    let middle = |of: fn(&(Results, Results)) -> &Results| {
        let mut order: Vec<&Results> = rounds.iter().map(of).collect();
        order.sort_by(|a, b| a.outcome.iops().total_cmp(&b.outcome.iops()));
        order[order.len() / 2]
    };
    let named = [
        Named { name: format!("A {}", options.a), results: middle(|round| &round.0) },
        Named { name: format!("B {}", options.b), results: middle(|round| &round.1) },
    ];
    let ratios: Map<String, Value> = compared.iter().map(|one| (one.name.to_owned(), one.json())).collect();
    let round = |(a, b): &(Results, Results)| json!({"a": report::json(a), "b": report::json(b)});
    let value = json!({
        "format": "gemel-perf-compare/1",
        "a": options.a.to_string(),
        "b": options.b.to_string(),
        "figures": ratios,
        "rounds": rounds.iter().map(round).collect::<Vec<_>>(),
    });
    let text = format!("{title}\nmedians of {} interleaved rounds\n{}", rounds.len(), table(&compared));
    options.output.show(&title, &named, &value, &text)?;
    let errors = rounds.iter().any(|(a, b)| a.outcome.errors + b.outcome.errors > 0);
    Ok(if errors { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

impl Options {
    fn measure(&self) -> Result<Vec<(Results, Results)>, Box<dyn std::error::Error>> {
        let mut rounds = Vec::new();
        for number in 1..=self.rounds {
            let run = |target: &Target, name: &str| {
                let label = format!("{number}/{} {name}: ", self.rounds);
                self.load.measure(core::slice::from_ref(target), self.load.shape(), &label)
            };
            rounds.push(if number.is_multiple_of(2) {
                let b = run(&self.b, "B")?;
                (run(&self.a, "A")?, b)
            } else {
                (run(&self.a, "A")?, run(&self.b, "B")?)
            });
        }
        Ok(rounds)
    }
}

fn compared(figure: &Figure, rounds: &[(Results, Results)]) -> Compared {
    let pairs: Vec<(f64, f64)> = rounds.iter().map(|(a, b)| ((figure.of)(a), (figure.of)(b))).collect();
    let (a, b): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    Compared { name: figure.name, a: median(&a), b: median(&b), ratio: ratio(&pairs, 1) }
}

impl Compared {
    fn json(&self) -> Value {
        let ratio =
            self.ratio.map(|ratio| json!({"value": ratio.value, "low": ratio.low, "high": ratio.high}));
        json!({"a": self.a, "b": self.b, "ratio": ratio})
    }
}

fn table(compared: &[Compared]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["median", "A", "B", "B/A", "95 % from", "to", ""]);
    for one in compared {
        let ratio = one.ratio.map_or([String::new(), String::new(), String::new()], |ratio| {
            [ratio.value, ratio.low, ratio.high].map(|value| format!("{value:.3}"))
        });
        let verdict = match one.ratio.map(|ratio| ratio.verdict()) {
            Some(Verdict::Larger) => "B's is larger",
            Some(Verdict::Smaller) => "B's is smaller",
            Some(Verdict::NotTold) => "not told apart",
            None => "",
        };
        let figures = [format!("{:.1}", one.a), format!("{:.1}", one.b)];
        let row = core::iter::once(one.name.to_owned()).chain(figures).chain(ratio);
        table.add_row(row.chain(core::iter::once(verdict.to_owned())));
    }
    for column in table.column_iter_mut().skip(1).take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
