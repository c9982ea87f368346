//! The results for people.

use core::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use super::Results;
use crate::run::{Layer, Steadiness};

/// The results as text.
pub fn table(results: &Results) -> String {
    let outcome = &results.outcome;
    let job = &results.job;
    let mut text = format!(
        "{}: {}, {}, {}, {}, {} session(s), {:.1} s\n{:.0} IOPS, {:.1} MiB/s, {} errors; the rate was {}\n",
        results.targets.join(" "),
        job.workload.mix,
        job.workload.sizes,
        job.workload.pattern,
        job.shape,
        results.sessions,
        outcome.elapsed.as_secs_f64(),
        outcome.iops(),
        outcome.bytes_per_second() / f64::from(1 << 20),
        outcome.errors,
        rate(outcome.steadiness),
    );
    // Writing to a string does not fail.
    if let Some(error) = &outcome.first_error {
        let _ = writeln!(text, "first error: {error}");
    }
    if outcome.unstarted > 0 {
        let _ = writeln!(
            text,
            "{} operations had arrived and were not started by the end: the target (or this end) does not keep up; latencies are lower bounds",
            outcome.unstarted
        );
    }
    let _ = writeln!(text, "{}", latencies(results));
    let _ = writeln!(text, "{}", layers(results));
    text + &costs(results)
}

fn rate(steadiness: Steadiness) -> String {
    let percent = |share: f64| share * 100.0;
    match steadiness {
        Steadiness::TooShort => "not judged: too few windows".to_owned(),
        Steadiness::Steady(spread) | Steadiness::Unsteady(spread) => format!(
            "{} (range {:.0} %, slope {:.0} % of the mean)",
            steadiness.name(),
            percent(spread.range),
            percent(spread.slope)
        ),
    }
}

fn filled(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn latencies(results: &Results) -> Table {
    let row = |(name, of): (&'static str, crate::run::Latencies)| {
        let figures = [
            of.mean(),
            of.min(),
            of.quantile(0.5),
            of.quantile(0.9),
            of.quantile(0.99),
            of.quantile(0.999),
            of.max(),
        ];
        [name.to_owned(), of.count().to_string()]
            .into_iter()
            .chain(figures.map(|figure| format!("{figure:.1}")))
            .collect()
    };
    let mut all = results.latencies();
    if all.len() == 2 {
        all.remove(0);
    }
    filled(
        &["latency us", "count", "mean", "min", "p50", "p90", "p99", "p99.9", "max"],
        all.into_iter().map(row),
    )
}

fn layers(results: &Results) -> Table {
    let seen = &results.outcome.measurement;
    let whole: f64 = Layer::ALL.iter().map(|layer| seen.layer(*layer).mean()).sum();
    let row = |layer: Layer| {
        let of = seen.layer(layer);
        let share = if whole > 0.0 { 100.0 * of.mean() / whole } else { 0.0 };
        vec![
            layer.name().to_owned(),
            format!("{share:.1} %"),
            format!("{:.1}", of.mean()),
            format!("{:.1}", of.quantile(0.5)),
            format!("{:.1}", of.quantile(0.99)),
        ]
    };
    filled(&["where us", "share", "mean", "p50", "p99"], Layer::ALL.into_iter().map(row))
}

fn costs(results: &Results) -> String {
    let costs = &results.costs;
    let each = |time| results.micros_each(time);
    let mut text = format!(
        "CPU for each operation: here {:.2} us ({:.2} at work)",
        each(costs.own_cpu),
        each(costs.own_busy)
    );
    if let Some(cpu) = costs.far_cpu {
        let _ = write!(text, "; target {:.2} us", each(cpu));
        if let Some(busy) = costs.far_busy {
            let _ = write!(text, " ({:.2} at work)", each(busy));
        }
    }
    for layer in &costs.far_layers {
        let _ = write!(
            text,
            "\ntarget's {} {}: mean {:.1} us of {}",
            layer.name, layer.operation, layer.mean, layer.count
        );
    }
    text
}
