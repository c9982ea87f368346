//! The command line.

mod compare;
mod load;
mod output;
mod raw;
mod run;
mod sweep;
mod verify;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures block devices over iSCSI or in this process, compares them, and verifies what they keep.
///
/// Without a command it verifies, as `gemel-perf verify` does.
#[derive(Parser)]
#[command(
    name = "gemel-perf",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Program {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    verify: verify::Options,
}

#[derive(Subcommand)]
enum Command {
    /// Measure: latency percentiles, rates, where the time goes, CPU for each operation. Writes and trims DESTROY what is there.
    Run(run::Options),
    /// Measure at rising depths, or rates, and find the knee.
    Sweep(sweep::Options),
    /// Measure two targets in turns and say how they differ, with a confidence interval.
    Compare(compare::Options),
    /// Measure what the machine can do without any target: TCP round trips, pread and pwrite, copies, CRC32C.
    Raw(raw::Options),
    /// Write stamped 4 KiB blocks at random, then read back every block that was written: each must hold its last acknowledged
    /// write or a later one. Several URLs name paths to the same LUN. DESTROYS what is on the LUN.
    Verify(verify::Options),
}

/// The program.
pub(crate) fn main() -> ExitCode {
    let options = Program::parse();
    let result = match &options.command {
        Some(Command::Run(options)) => run::execute(options),
        Some(Command::Sweep(options)) => sweep::execute(options),
        Some(Command::Compare(options)) => compare::execute(options),
        Some(Command::Raw(options)) => raw::execute(options),
        Some(Command::Verify(options)) => verify::execute(options),
        None => verify::execute(&options.verify),
    };
    result.unwrap_or_else(|error| {
        eprintln!("gemel-perf: {error}");
        ExitCode::FAILURE
    })
}

/// Prints a text with a newline. Whoever closed the other end of a pipe has seen what he wanted: that is no error.
fn print(text: &str) -> Result<(), NotPrinted> {
    let mut output = io::stdout().lock();
    match writeln!(output, "{text}").and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(NotPrinted),
    }
}

/// Standard output does not take the report.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the report to standard output: {0}")]
struct NotPrinted(io::Error);

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_the_short_form_verifies() {
        Program::command().debug_assert();
        let parse = |arguments: &[&str]| Program::try_parse_from(arguments).map(|options| options.command);
        let url = "iscsi://127.0.0.1/iqn.2026-11.org.gemel:d0/0";
        assert!(matches!(parse(&["gemel-perf", "--depth", "1", url]), Ok(None)));
        assert!(matches!(parse(&["gemel-perf", "run", "null:1g"]), Ok(Some(Command::Run(_)))));
        assert!(parse(&["gemel-perf"]).is_err() && parse(&["gemel-perf", "run"]).is_err());
        assert!(parse(&["gemel-perf", "run", "--rate", "0", "null:1g"]).is_err());
    }
}
