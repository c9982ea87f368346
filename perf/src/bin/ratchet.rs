//! `gemel-ratchet`: what a 4 KiB operation costs in instructions and allocations, and whether that is what it was.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use engine::allocations::CountingAllocator;
use perf::ratchet::Subject;
use perf::ratchet::callgrind::{self, CallgrindError};
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
    /// Print how often the payload is copied in user space, and by whom
    Copies {
        /// Which, as `mirror-write-hot-1`
        subject: String,
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
        Task::Copies { subject } => copies(&subject),
        Task::Check { file } => check(&file),
        Task::Write { file } => write(&file),
    };
    outcome.unwrap_or_else(|why| {
        eprintln!("gemel-ratchet: {why}");
        ExitCode::FAILURE
    })
}

fn run(only: Option<&str>) -> Result<ExitCode, String> {
    match only {
        None => Subject::all().for_each(|subject| println!("{}", subject.carry_out().line())),
        Some(name) => println!("{}", named(name)?.carry_out().line()),
    }
    Ok(ExitCode::SUCCESS)
}

fn named(name: &str) -> Result<Subject, String> {
    let names = || Subject::all().map(|subject| subject.to_string()).collect::<Vec<_>>().join(", ");
    let found = Subject::all().find(|subject| subject.to_string() == name);
    found.ok_or_else(|| format!("there is none of that name: {}", names()))
}

/// Under valgrind, which writes into a folder that is gone afterwards.
fn with_folder<T>(count: impl FnOnce(&Path, &Path) -> Result<T, CallgrindError>) -> Result<T, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = std::env::temp_dir().join(format!("gemel-ratchet-{}", std::process::id()));
    std::fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let counted = count(&program, &folder);
    // What is left in a temporary folder is no reason to fail.
    let _ = std::fs::remove_dir_all(&folder);
    counted.map_err(|error| error.to_string())
}

fn count() -> Result<Vec<Row>, String> {
    with_folder(callgrind::count)
}

fn copies(name: &str) -> Result<ExitCode, String> {
    let subject = named(name)?;
    let counted = with_folder(|program, folder| perf::ratchet::copies::count(program, subject, folder))?;
    counted.iter().for_each(|copies| println!("{copies}"));
    Ok(ExitCode::SUCCESS)
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
