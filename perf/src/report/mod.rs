//! What a load is shown as: a table, JSON, an HdrHistogram percentile log, a chart.

mod chart;
mod hgrm;
mod json;
mod live;
mod table;

use crate::cost::Costs;
use crate::run::{Job, Latencies, Outcome};

pub use chart::{Series, chart};
pub use hgrm::hgrm;
pub use json::json;
pub use live::Live;
pub use table::table;

/// A load and what came of it.
#[derive(Clone, Debug)]
pub struct Results {
    /// What was driven.
    pub targets: Vec<String>,
    /// Sessions at each.
    pub sessions: u16,
    /// How.
    pub job: Job,
    /// What was seen.
    pub outcome: Outcome,
    /// What it cost.
    pub costs: Costs,
}

impl Results {
    /// Latencies of all operations, and of each kind that there was.
    fn latencies(&self) -> Vec<(&'static str, Latencies)> {
        let kinds = crate::workload::Kind::ALL;
        let of = |kind: crate::workload::Kind| Some((kind.name(), self.outcome.of(kind)?.clone()));
        core::iter::once(("all", self.outcome.measurement.all()))
            .chain(kinds.into_iter().filter_map(of))
            .collect()
    }

    /// Microseconds of a time for each operation that ended well; zero where there was none.
    #[expect(clippy::cast_precision_loss, reason = "a mean")]
    pub fn micros_each(&self, time: core::time::Duration) -> f64 {
        let operations = self.outcome.measurement.total().operations;
        if operations == 0 { 0.0 } else { time.as_secs_f64() * 1e6 / operations as f64 }
    }
}
