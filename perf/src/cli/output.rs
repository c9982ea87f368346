//! Where results go.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::Args;
use perf::report::{Results, Series, chart, hgrm};
use serde_json::Value;

use super::print;

/// Where results go.
#[derive(Args, Clone)]
pub(crate) struct OutputOptions {
    /// Print JSON (perf/README.md says which) in place of tables.
    #[arg(long)]
    json: bool,
    /// Write PREFIX.json, PREFIX.svg (latency over percentiles) and PREFIX.hgrm (HdrHistogram's percentile log; one for each
    /// run, with its number, where there are several).
    #[arg(short, long, value_name = "PREFIX")]
    output: Option<PathBuf>,
}

/// A file of results cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {source}", path = path.display())]
struct NotWritten {
    path: PathBuf,
    source: io::Error,
}

/// A run with its name in charts.
pub(crate) struct Named<'a> {
    pub(crate) name: String,
    pub(crate) results: &'a Results,
}

impl OutputOptions {
    /// Writes the files and prints the report.
    pub(crate) fn show(
        &self,
        title: &str,
        runs: &[Named<'_>],
        json: &Value,
        text: &str,
    ) -> Result<(), Box<dyn std::error::Error>> {
        if let Some(prefix) = &self.output {
            write(prefix, ".json", &format!("{json:#}\n"))?;
            let series: Vec<Series> = runs
                .iter()
                .map(|run| Series::new(&run.name, &run.results.outcome.measurement.all()))
                .collect();
            write(prefix, ".svg", &chart(title, &series))?;
            for (number, run) in (1..).zip(runs) {
                let number = if runs.len() == 1 { String::new() } else { format!(".{number}") };
                write(prefix, &format!("{number}.hgrm"), &hgrm(&run.results.outcome.measurement.all()))?;
            }
        }
        print(&if self.json { json.to_string() } else { text.to_owned() })?;
        Ok(())
    }
}

fn write(prefix: &Path, suffix: &str, text: &str) -> Result<(), NotWritten> {
    let mut path = OsString::from(prefix);
    path.push(suffix);
    let path = PathBuf::from(path);
    fs::write(&path, text).map_err(|source| NotWritten { path, source })
}
