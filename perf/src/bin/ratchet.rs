//! `gemel-ratchet`: what a 4 KiB operation costs in instructions and allocations, and whether that is what it was.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use engine::allocations::CountingAllocator;
use perf::ratchet::Subject;
use perf::ratchet::callgrind;
use perf::ratchet::counts::{Counts, Row, profile};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Counts what 4 KiB operations cost
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Do the operations, and print of each how many and the allocations of each part
    Run {
        /// Only this one, as `ram-read-1`
        subject: Option<String>,
    },
    /// Count them under valgrind; exit status 2 where a count differs from the file's by too much
    Check {
        /// The file of counts
        file: PathBuf,
    },
    /// Count them under valgrind, and write the file
    Write {
        /// The file of counts
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Run { subject } => run(subject.as_deref()),
        Task::Check { file } => check(&file),
        Task::Write { file } => write(&file),
    };
    outcome.unwrap_or_else(|why| {
        eprintln!("gemel-ratchet: {why}");
        ExitCode::FAILURE
    })
}

fn run(only: Option<&str>) -> Result<ExitCode, String> {
    let mut found = false;
    for subject in Subject::all().filter(|subject| only.is_none_or(|only| subject.to_string() == only)) {
        println!("{}", subject.carry_out().line());
        found = true;
    }
    let names: Vec<String> = Subject::all().map(|subject| subject.to_string()).collect();
    if found {
        Ok(ExitCode::SUCCESS)
    } else {
        Err(format!("there is none of that name: {}", names.join(", ")))
    }
}

fn count() -> Result<Vec<Row>, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = std::env::temp_dir().join(format!("gemel-ratchet-{}", std::process::id()));
    std::fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let rows = callgrind::count(&program, &folder);
    // What is left in a temporary folder is no reason to fail.
    let _ = std::fs::remove_dir_all(&folder);
    rows.map_err(|error| error.to_string())
}

fn read(file: &Path) -> Result<Counts, String> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(format!("{}: {error}", file.display())),
    };
    text.parse().map_err(|error| format!("{}: {error}", file.display()))
}

fn check(file: &Path) -> Result<ExitCode, String> {
    let (held, rows) = (read(file)?, count()?);
    rows.iter().for_each(|row| println!("{row}"));
    let wrong = held.judge(&rows);
    wrong.iter().for_each(|line| eprintln!("gemel-ratchet: {line}"));
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn write(file: &Path) -> Result<ExitCode, String> {
    let (held, rows) = (read(file)?, count()?);
    held.judge(&rows).iter().for_each(|line| println!("{line}"));
    let counts = held.with(rows);
    std::fs::write(file, counts.to_string()).map_err(|error| format!("{}: {error}", file.display()))?;
    println!("{}: the rows of {} are those of now", file.display(), profile());
    Ok(ExitCode::SUCCESS)
}
