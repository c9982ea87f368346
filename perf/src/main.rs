//! gemel-perf: measures block devices, compares them, and verifies what they keep.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
