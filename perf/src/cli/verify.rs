//! `gemel-perf verify`: a random 4 KiB load on a LUN over iSCSI that verifies what it wrote, over one path or several.

use std::process::ExitCode;
use std::time::Duration;

use bdev::Channel;
use clap::Args;
use engine::{Core, MonotonicClock, Pool, PoolConfig, RingConfig, RingHandle, Waker};
use gateway::{LunUrl, Remote, RemoteConfig};
use net::tcp::{TcpConfig, TcpNetwork};
use perf::{Load, LoadConfig, Mix, Report};
use serde_json::json;

use super::print;

/// Writes and reads stamped 4 KiB blocks at random, then reads back every block that was written: each must hold its last
/// acknowledged write or a later one. DESTROYS what is on the LUN.
#[derive(Args)]
pub(crate) struct Options {
    /// `iscsi://ADDRESS[:PORT]/TARGET/LUN`; several name paths to the same LUN.
    #[arg(required = true)]
    urls: Vec<LunUrl>,
    /// Seconds of load.
    #[arg(short = 't', long, default_value_t = 10)]
    seconds: u64,
    /// Commands at work.
    #[arg(short = 'q', long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=128))]
    depth: u32,
    /// 4 KiB blocks to use from the LUN's start.
    #[arg(short, long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    blocks: u32,
    /// Reads in a hundred commands.
    #[arg(short = 'M', long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    reads: u8,
    /// Decides the addresses, and names the run in each block.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds that nothing may be served before the load gives up.
    #[arg(long, default_value_t = 30)]
    patience: u64,
    /// Milliseconds without an answer after which a path counts as dead.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    silence_ms: u64,
    /// Milliseconds that a command may take before its path is given up for another one, as a host's own timeout does: a target that
    /// answers pings and no commands is found by nothing else. The path's own five seconds when absent.
    #[arg(long, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    command_ms: Option<u64>,
    /// This end's iSCSI name.
    #[arg(long, default_value = "iqn.2026-11.org.gemel:perf")]
    initiator: String,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// Carries it out.
pub(crate) fn execute(options: &Options) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let report = run(options)?;
    print(&if options.json { as_json(&report) } else { as_text(&report) })?;
    Ok(if report.mismatches.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn run(options: &Options) -> Result<Report, Box<dyn std::error::Error>> {
    let pool = Pool::new(PoolConfig::with_memory(32 << 20))?;
    let ring = RingHandle::new(RingConfig::default(), &pool, Waker::new()?)?;
    let core = Core::new(0, pool, ring);
    let clock = MonotonicClock::start();
    let paths = options.urls.iter().zip(1..).map(|(url, number)| open(url, number, options, &core)).collect();
    let config = LoadConfig {
        depth: options.depth,
        blocks: options.blocks,
        duration: Duration::from_secs(options.seconds),
        mix: Mix(options.reads),
        seed: options.seed,
        patience: Duration::from_secs(options.patience),
        command: options.command_ms.map(Duration::from_millis),
    };
    Ok(Load::new(core, clock, paths, config).run()?)
}

fn open(url: &LunUrl, number: u8, options: &Options, core: &Core) -> Box<dyn Channel> {
    let base = RemoteConfig::new(options.initiator.as_str(), url.target.as_str(), url.portal);
    // Each path is a nexus of its own.
    let isid = [0x80, 0, 0, 0x70, 0x66, number];
    let silence_max = Duration::from_millis(options.silence_ms);
    let config =
        RemoteConfig { lun: url.lun, isid: Some(isid), silence_max, keep_alive: silence_max / 4, ..base };
    let remote = Remote::new(format!("path{number}"), uuid::Uuid::nil(), config);
    remote.open_over(core, Box::new(TcpNetwork::new(core, TcpConfig::default())))
}

fn per_second(report: &Report) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let count = (report.reads + report.writes) as f64;
    count / report.elapsed.as_secs_f64().max(1e-9)
}

fn as_text(report: &Report) -> String {
    let latency = report.latency;
    let mut text = format!(
        "{:.0} IOPS ({} reads, {} writes, {} errors in {:.1?})\n\
         latency mean {:.0?} p50 {:.0?} p99 {:.0?} p99.9 {:.0?} max {:.0?}\n\
         longest stall {:.1?}; {} blocks verified, {} mismatches",
        per_second(report),
        report.reads,
        report.writes,
        report.errors,
        report.elapsed,
        latency.mean,
        latency.p50,
        latency.p99,
        latency.p999,
        latency.max,
        report.longest_stall,
        report.verified,
        report.mismatches.len(),
    );
    for mismatch in report.mismatches.iter().take(20) {
        text += &format!("\n{mismatch}");
    }
    text
}

fn as_json(report: &Report) -> String {
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
    let mismatches: Vec<String> = report.mismatches.iter().map(ToString::to_string).collect();
    json!({
        "iops": per_second(report),
        "reads": report.reads,
        "writes": report.writes,
        "errors": report.errors,
        "seconds": report.elapsed.as_secs_f64(),
        "latency_us": {
            "mean": micros(report.latency.mean), "p50": micros(report.latency.p50), "p99": micros(report.latency.p99),
            "p999": micros(report.latency.p999), "max": micros(report.latency.max),
        },
        "longest_stall_ms": report.longest_stall.as_secs_f64() * 1e3,
        "verified": report.verified,
        "mismatches": mismatches,
    })
    .to_string()
}
