//! `gemel-perf raw`.

use core::time::Duration;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use perf::raw::{Access, Exchange, Through, Waiting, crc, file, memcpy, ping_pong};
use perf::run::Latencies;
use perf::workload::ByteSize;
use serde_json::{Map, Value, json};

use super::print;

/// A basic header segment (RFC 7143 section 11.2.1).
const HEADER: usize = 48;

#[derive(Args)]
pub(crate) struct Options {
    /// Bytes of an operation.
    #[arg(short = 'b', long, default_value = "4k")]
    size: ByteSize,
    /// Seconds of each measurement.
    #[arg(short = 't', long, default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// A file or block device to read, one operation at a time.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Write it as well. DESTROYS what is there.
    #[arg(long, requires = "file")]
    write: bool,
    /// Print JSON in place of text.
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| (0.001..=3600.0).contains(number));
    number.ok_or_else(|| "use seconds from 0.001 to 3600".to_owned())
}

/// Carries it out.
pub(crate) fn execute(options: &Options) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let time = Duration::from_secs_f64(options.seconds);
    let longest = engine::BUF_LEN_MAX as u64;
    let size = Some(options.size.bytes()).filter(|size| (1..=longest).contains(size));
    let size = usize::try_from(size.ok_or(format!("use a size from 1 to {longest} bytes"))?)?;
    let mut figures = Map::new();
    figures.insert("format".into(), json!("gemel-perf-raw/1"));
    figures.insert("bytes".into(), json!(size));
    figures.insert("memcpy_cached_bytes_per_second".into(), json!(memcpy(time, size, size)));
    figures.insert("memcpy_bytes_per_second".into(), json!(memcpy(time, size, 64 << 20)));
    figures.insert("crc32c_bytes_per_second".into(), json!(crc(time, size)));
    for (name, exchange) in [
        ("read", Exchange { request: HEADER, reply: HEADER + size }),
        ("write", Exchange { request: HEADER + size, reply: HEADER }),
    ] {
        for (how, waiting) in [("polling", Waiting::Polling), ("blocking", Waiting::Blocking)] {
            let seen = ping_pong(time, exchange, waiting)?;
            figures.insert(format!("tcp_{name}_{how}_us"), latencies(&seen));
        }
    }
    if let Some(path) = &options.file {
        let kinds = [Some(("pread_us", Access::Read)), options.write.then_some(("pwrite_us", Access::Write))];
        for (name, access) in kinds.into_iter().flatten() {
            let (through, seen) =
                file(path, access, size, time).map_err(|error| format!("{}: {error}", path.display()))?;
            figures.insert("direct".into(), json!(through == Through::Direct));
            figures.insert(name.into(), latencies(&seen));
        }
    }
    print(&if options.json { Value::Object(figures).to_string() } else { text(&figures) })?;
    Ok(ExitCode::SUCCESS)
}

fn latencies(of: &Latencies) -> Value {
    json!({"count": of.count(), "mean": of.mean(), "p50": of.quantile(0.5), "p99": of.quantile(0.99)})
}

fn text(figures: &Map<String, Value>) -> String {
    let line = |(name, value): (&String, &Value)| match (value.as_object(), value.as_f64()) {
        (Some(of), _) => {
            let of = |key: &str| of[key].as_f64().unwrap_or(0.0);
            format!("{name:32} mean {:.1} p50 {:.1} p99 {:.1}", of("mean"), of("p50"), of("p99"))
        }
        (None, Some(rate)) if name.ends_with("per_second") => format!("{name:32} {:.2} GB/s", rate / 1e9),
        _ => format!("{name:32} {value}"),
    };
    figures.iter().map(line).collect::<Vec<_>>().join("\n")
}
