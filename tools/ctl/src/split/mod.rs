//! `gemel split`: two legs that have diverged. What they differ in, before anybody picks; and the choice of one of them.

mod diff;
mod resolve;
mod source;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::{Failure, Options};

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Split {
    /// Say in what the two data sets differ, as the legs' own logs and bitmaps have it; `--verify` reads and compares. Of two
    /// nodes (`--other`), or of two legs whose nodes are down (`--leg` twice). Changes nothing.
    Diff(Diff),
    /// Keep the data set of the node that is asked, and overwrite that of the other one. Says what that means; does it only
    /// with --yes.
    Resolve(Resolve),
}

/// `split diff`.
#[derive(Args)]
pub(crate) struct Diff {
    /// The mirror, for nodes that run.
    #[arg(required_unless_present = "leg", conflicts_with = "leg")]
    name: Option<String>,
    /// The other node's control socket (one of another machine comes over `ssh -L`).
    #[arg(long, required_unless_present = "leg", conflicts_with = "leg")]
    other: Option<PathBuf>,
    /// A leg's device or file; twice.
    #[arg(long, num_args = 1)]
    leg: Vec<PathBuf>,
    /// Read what may differ on both legs, and say which 4 KiB blocks do.
    #[arg(long)]
    verify: bool,
    /// Read everything, whatever the logs and bitmaps say.
    #[arg(long, requires = "verify")]
    everything: bool,
    /// How many ranges to print.
    #[arg(long, default_value_t = 20)]
    ranges: usize,
}

/// `split resolve`.
#[derive(Args)]
pub(crate) struct Resolve {
    /// The mirror.
    name: String,
    /// Copy everything, whatever the logs and bitmaps say.
    #[arg(long)]
    full: bool,
    /// The consequences are understood.
    #[arg(long)]
    yes: bool,
    /// Seconds to wait until the other leg is in sync; 0: do not wait.
    #[arg(long, default_value_t = 0)]
    wait: u64,
}

/// Runs it; the text for the administrator.
pub(crate) fn run(options: &Options, split: &Split) -> Result<String, Failure> {
    match split {
        Split::Diff(ask) => diff::run(options, ask),
        Split::Resolve(ask) => resolve::run(options, ask),
    }
}
