//! Runs this program under valgrind's callgrind, and reads what it wrote.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use thiserror::Error;

use super::counts::Row;
use super::{Counted, Part, Subject};

/// Why nothing was counted.
#[derive(Debug, Error)]
pub enum CallgrindError {
    /// It is not installed.
    #[error("valgrind is not installed: apt-get install valgrind")]
    NoValgrind,
    /// The system's error.
    #[error("{path}: {1}", path = .0.display())]
    Io(PathBuf, io::Error),
    /// The program failed under it.
    #[error("the operations failed under valgrind: {0}")]
    Failed(String),
    /// What it wrote is not what was expected.
    #[error("{path}: {1}", path = .0.display())]
    Format(PathBuf, String),
}

/// glibc copies long ranges by an instruction that counts as one for each byte on some processors and is not used on others.
const TUNABLES: &str =
    "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824";

/// Does all subjects, each with `program run SUBJECT` under callgrind, with files in `folder`.
///
/// # Errors
/// See [`CallgrindError`].
pub fn count(program: &Path, folder: &Path) -> Result<Vec<Row>, CallgrindError> {
    let mut rows = Vec::new();
    for subject in Subject::all() {
        let out = folder.join(subject.to_string());
        let counted = run(program, subject, &out)?;
        let text = std::fs::read_to_string(&out).map_err(|error| CallgrindError::Io(out.clone(), error))?;
        for part in subject.parts() {
            let instructions =
                inclusive(&text, part.function()).map_err(|why| CallgrindError::Format(out.clone(), why))?;
            rows.push(Row::new(subject, *part, instructions, &counted));
        }
    }
    Ok(rows)
}

/// Runs it; gives what it says itself.
fn run(program: &Path, subject: Subject, out: &Path) -> Result<Counted, CallgrindError> {
    let options = ["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*::counted*"];
    valgrind(program, subject, &options, &format!("--callgrind-out-file={}", out.display()))
}

/// Runs it under any of valgrind's tools.
pub(super) fn valgrind(
    program: &Path,
    subject: Subject,
    options: &[&str],
    out: &str,
) -> Result<Counted, CallgrindError> {
    let ended = Command::new("valgrind")
        .args(options)
        .arg(out)
        .arg(program)
        .args(["run", &subject.to_string()])
        .env("GLIBC_TUNABLES", TUNABLES)
        .output()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CallgrindError::NoValgrind,
            _ => CallgrindError::Io("valgrind".into(), error),
        })?;
    match Counted::parse(String::from_utf8_lossy(&ended.stdout).trim_end()) {
        Some(counted) if ended.status.success() => Ok(counted),
        _ => Err(CallgrindError::Failed(String::from_utf8_lossy(&ended.stderr).into_owned())),
    }
}

/// Instructions in calls of the function whose name ends so, with all that it calls.
fn inclusive(text: &str, function: &str) -> Result<u64, String> {
    let mut names = BTreeMap::new();
    let mut callee = None;
    let mut of_call = false;
    let mut sum = 0;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn=")) {
            let (number, name) =
                name.split_once(' ').map_or((name, None), |(number, name)| (number, Some(name)));
            if let Some(name) = name {
                names.insert(number.to_owned(), name.ends_with(function));
            }
            if line.starts_with('c') {
                callee = names.get(number).copied();
            }
        } else if line.starts_with("calls=") {
            of_call = true;
        } else if std::mem::take(&mut of_call) && callee == Some(true) {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok());
            sum += cost.ok_or_else(|| format!("a call without its cost: {line:?}"))?;
        }
    }
    if sum == 0 { Err(format!("no call of {function} was seen")) } else { Ok(sum) }
}

impl Counted {
    /// What `run` prints of each subject.
    pub fn line(&self) -> String {
        let numbers = self.allocations.map(|count| count.to_string());
        format!("{} {}", self.operations, numbers.join(" "))
    }

    fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.split(' ').map(|number| number.parse().ok());
        let operations = numbers.next()??;
        let mut allocations = [0; Part::ALL.len()];
        for count in &mut allocations {
            *count = numbers.next()??;
        }
        (numbers.next().is_none() && operations > 0).then_some(Self { operations, allocations })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "events: Ir\nfn=(1) a::World::counted\n16 5\ncfn=(2) a::World::node_turn\ncalls=3 20\n17 900\n\
                        cfn=(3) a::other\ncalls=1 1\n18 7\n\nfn=(2)\n20 100\ncfn=(2)\ncalls=1 20\n21 40\n\ntotals: 1000\n";

    #[test]
    fn a_functions_calls_are_added_up() {
        assert_eq!(inclusive(TEXT, "::node_turn"), Ok(940));
        assert_eq!(inclusive(TEXT, "::other"), Ok(7));
        inclusive(TEXT, "::counted").expect_err("nobody calls it");
        inclusive("cfn=(1) a\ncalls=1 1\nnothing", "a").expect_err("no cost");
    }

    #[test]
    fn what_is_printed_is_read_back() {
        let counted = Counted { operations: 96, allocations: [1, 2, 3, 4] };
        assert_eq!(Counted::parse(&counted.line()), Some(counted));
        for bad in ["", "96 1 2 3", "96 1 2 3 4 5", "0 1 2 3 4", "x 1 2 3 4"] {
            assert_eq!(Counted::parse(bad), None, "{bad:?}");
        }
    }
}
