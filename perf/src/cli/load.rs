//! The options of loads that measure.

use core::time::Duration;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use engine::{Clock, Core, IdlePolicy, MonotonicClock, Pool, PoolConfig, RingConfig, RingHandle, Waker};
use iscsi::keys::DigestPreference;
use perf::cost::{FarEnd, Probe};
use perf::report::{Live, Results};
use perf::run::{Job, Loop, Spacing, run};
use perf::target::{OpenOptions, Target, open};
use perf::workload::{ByteSize, Kind, Pattern, Weighted, Workload};

type Failure = Box<dyn std::error::Error>;

/// Digests of iSCSI sessions.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Digests {
    /// None, where the target agrees.
    None,
    /// CRC32C of headers and data, where the target can.
    Crc32c,
}

/// What to do to the targets, and how.
#[derive(Args, Clone)]
pub(crate) struct LoadOptions {
    /// Shares of read, write, trim and flush, as read:70,write:30.
    #[arg(short, long, default_value = "read")]
    mix: Weighted<Kind>,
    /// Shares of lengths, as 4k:70,64k:30; multiples of the smallest.
    #[arg(short = 'b', long, default_value = "4k")]
    sizes: Weighted<ByteSize>,
    /// Where: sequential, random, zipf or zipf:THETA.
    #[arg(short, long, default_value = "random")]
    pattern: Pattern,
    /// Bytes to use from the device's start [default: all].
    #[arg(long)]
    span: Option<ByteSize>,
    /// Operations at work at each session; of an open loop, at the most [default: 16, with --rate 256].
    #[arg(short = 'q', long, value_parser = clap::value_parser!(u32).range(1..=256))]
    depth: Option<u32>,
    /// Open loop: operations a second that arrive at all sessions together, whatever the target does.
    #[arg(short, long, value_parser = positive)]
    rate: Option<f64>,
    /// How arrivals of an open loop are spaced: poisson or even.
    #[arg(long, default_value = "poisson")]
    arrivals: Spacing,
    /// Sessions at each target.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    sessions: u16,
    /// Seconds before anything counts.
    #[arg(short, long, default_value_t = 1.0, value_parser = seconds)]
    warm_up: f64,
    /// After that, seconds to wait at the most for a steady rate (SNIA's criteria over five windows of a second) [default: none].
    #[arg(long, value_parser = seconds)]
    settle: Option<f64>,
    /// Seconds to measure.
    #[arg(short = 't', long = "seconds", default_value_t = 10.0, value_parser = positive)]
    time: f64,
    /// Decides kinds, places, lengths and arrivals.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds that nothing may be served before the load gives up.
    #[arg(long, default_value_t = 30.0, value_parser = positive)]
    patience: f64,
    /// Seconds that a command may take at an iSCSI target.
    #[arg(long, default_value_t = 30.0, value_parser = positive)]
    io_timeout: f64,
    /// Digests of iSCSI sessions.
    #[arg(long, value_enum, default_value_t = Digests::None)]
    digests: Digests,
    /// This end's iSCSI name.
    #[arg(long, default_value = "iqn.2026-11.org.gemel:perf")]
    initiator: String,
    /// What this end does while nothing comes back: spin, yield, adaptive:MICROSECONDS (polls so long, then sleeps) or block.
    #[arg(long, default_value = "adaptive:10000")]
    poll: IdlePolicy,
    /// Process of the target, on this machine: its CPU time for each operation is shown.
    #[arg(long)]
    target_pid: Option<u32>,
    /// Control socket of a target that is a gemeld: its CPU time and its own layers' latencies are shown.
    #[arg(long)]
    target_socket: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| (0.0..=1e6).contains(number));
    number.ok_or_else(|| "use seconds from 0 to 1000000".to_owned())
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| *number >= 0.001 && *number <= 1e9);
    number.ok_or_else(|| "use a number from 0.001 to 1e9".to_owned())
}

const DEPTH: u32 = 16;
const DEPTH_OPEN: u32 = 256;

impl LoadOptions {
    /// The job; `shape` in place of what `--depth` and `--rate` say.
    fn job(&self, shape: Loop) -> Job {
        Job {
            workload: Workload {
                mix: self.mix.clone(),
                sizes: self.sizes.clone(),
                pattern: self.pattern,
                span: self.span,
            },
            shape,
            warm_up: Duration::from_secs_f64(self.warm_up),
            settle: self.settle.map(Duration::from_secs_f64),
            time: Duration::from_secs_f64(self.time),
            seed: self.seed,
            patience: Duration::from_secs_f64(self.patience),
        }
    }

    /// What `--depth` and `--rate` say.
    pub(crate) fn shape(&self) -> Loop {
        match self.rate {
            None => Loop::Closed { depth: self.depth.unwrap_or(DEPTH) },
            Some(rate) => self.open_loop(rate),
        }
    }

    /// What is asked for, in words.
    pub(crate) fn words(&self) -> String {
        format!("{}, {}, {}, {} session(s)", self.mix, self.sizes, self.pattern, self.sessions)
    }

    /// An open loop of another rate.
    pub(crate) fn open_loop(&self, rate: f64) -> Loop {
        Loop::Open { rate, spacing: self.arrivals, depth: self.depth.unwrap_or(DEPTH_OPEN) }
    }

    /// Runs it once on sessions of its own.
    pub(crate) fn measure(&self, targets: &[Target], shape: Loop, label: &str) -> Result<Results, Failure> {
        let far = FarEnd { pid: self.target_pid, socket: self.target_socket.clone() };
        let job = self.job(shape);
        let mut live = Live::new(Probe::new(far)?, job.time, label);
        let core = self.core(targets.len(), shape.depth())?;
        let clock = MonotonicClock::start();
        let opened = open(targets, &self.open_options(), &core, clock.now())?;
        let outcome = run(core, clock, opened, job.clone(), self.poll, &mut live);
        let costs = live.into_inner().costs();
        let targets = targets.iter().map(ToString::to_string).collect();
        Ok(Results { targets, sessions: self.sessions, job, outcome: outcome?, costs })
    }

    fn open_options(&self) -> OpenOptions {
        let digests = match self.digests {
            Digests::None => DigestPreference::Avoid,
            Digests::Crc32c => DigestPreference::Prefer,
        };
        OpenOptions {
            sessions: self.sessions,
            initiator: self.initiator.clone(),
            digests,
            io_timeout: Duration::from_secs_f64(self.io_timeout),
        }
    }

    /// A core with a ring, and a buffer for each operation that may be at work.
    fn core(&self, targets: usize, depth: u32) -> Result<Core, Failure> {
        let sessions = targets * usize::from(self.sessions);
        let operations = sessions * depth as usize;
        let longest = self.sizes.values().map(ByteSize::bytes).max().unwrap_or(0);
        let class = [4 << 10, 64 << 10].iter().position(|size| longest <= *size).unwrap_or(2);
        // What sessions receive and send besides.
        let mut frames = [2048 + 32 * sessions, 128 + 16 * sessions, 8 + sessions];
        frames[class] += operations;
        let pages = engine::Pages::PreferHuge;
        let pool = Pool::new(PoolConfig { frames, pages })?;
        let ring = RingHandle::new(RingConfig::default(), &pool, Waker::new()?)?;
        Ok(Core::new(0, pool, ring))
    }
}
