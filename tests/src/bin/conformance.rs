//! Runs libiscsi's conformance suite against a LUN: `conformance [-t PREFIX] URL [URL2]`. URL2 is a second path to the same LUN.
//!
//! A test that fails where the suite asks of this LUN what the standard does not is told apart, with the reason, and is no failure.

use std::process::ExitCode;

use tests::suite::{Ending, Suite, Tally, excuse};

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut prefix = String::new();
    if arguments.first().is_some_and(|first| first == "-t") {
        arguments.remove(0);
        prefix = if arguments.is_empty() { String::new() } else { arguments.remove(0) };
    }
    let urls: Vec<&str> = arguments.iter().map(String::as_str).filter(|url| !url.is_empty()).collect();
    if urls.is_empty() || urls.len() > 2 {
        eprintln!("usage: conformance [-t PREFIX] URL [URL2]");
        return ExitCode::from(2);
    }
    let Some(suite) = Suite::find() else { return ExitCode::from(2) };
    let lun = suite.properties(urls[0]);
    let mut tally = Tally::default();
    for test in suite.tests().iter().filter(|test| test.starts_with(&prefix)) {
        let excuse = lun.as_ref().and_then(|lun| excuse(test, lun));
        let ending = Ending::new(suite.run(test, &urls), excuse);
        tally.count(&ending);
        println!("{}", ending.line(test));
    }
    println!("{tally}");
    if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
