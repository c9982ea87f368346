//! A verifying load: gemel-perf on a LUN, which reads back every block that it wrote.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::node::binary;
use crate::pair::Pair;

/// Blocks of 4 KiB that a load uses where it is not told otherwise.
pub const BLOCKS: u64 = 4096;
/// Longer than any stall that a test allows: a load that is alone with one path gives up on it only then.
const PATIENCE_MS: &str = "6000";

/// A load over both paths of a pair: what the one refuses, it sends to the other.
///
/// # Panics
/// When gemel-perf was not built.
pub fn load(pair: &Pair, seconds: &str) -> Child {
    load_blocks(pair, seconds, &BLOCKS.to_string())
}

/// The same on so many blocks of 4 KiB.
///
/// # Panics
/// When gemel-perf was not built.
pub fn load_blocks(pair: &Pair, seconds: &str, blocks: &str) -> Child {
    begun(pair, || load_on(&pair.urls, seconds, blocks))
}

/// A load over the path to node 0 alone: no other node hides what that one refuses, and a stall is no error.
///
/// # Panics
/// When gemel-perf was not built.
pub fn load_on_holder(pair: &Pair, seconds: &str) -> Child {
    begun(pair, || start(&pair.urls[..1], seconds, &BLOCKS.to_string(), &["--silence-ms", PATIENCE_MS]))
}

/// A load over these paths.
///
/// # Panics
/// When gemel-perf was not built.
pub fn load_on(urls: &[String], seconds: &str, blocks: &str) -> Child {
    start(urls, seconds, blocks, &[])
}

/// Starts a load, and waits until writes were acknowledged: what the test does next, it does under load.
fn begun(pair: &Pair, start: impl FnOnce() -> Child) -> Child {
    let writes = |status: &Value| status["counters"]["writes"].as_u64().unwrap_or(0);
    let holder = pair.holder();
    let before = writes(&pair.status(holder));
    let load = start();
    pair.wait(holder, "load", |status| writes(status) > before + 20);
    load
}

/// Each load is a run of its own: blocks that an earlier one wrote are strangers to it.
fn start(urls: &[String], seconds: &str, blocks: &str, more: &[&str]) -> Child {
    static RUNS: AtomicU32 = AtomicU32::new(1);
    let run = RUNS.fetch_add(1, Ordering::Relaxed).to_string();
    Command::new(binary("gemel-perf"))
        .args([
            "--json",
            "--depth",
            "8",
            "--reads",
            "30",
            "--blocks",
            blocks,
            "--seconds",
            seconds,
            "--seed",
            &run,
        ])
        .args(more)
        .args(urls)
        .stdout(Stdio::piped())
        .spawn()
        .expect("gemel-perf is built with the tests")
}

/// Waits for a load's end: it has verified what it wrote, and nothing was wrong.
///
/// # Panics
/// When something was.
pub fn verified(load: Child) -> Value {
    let output = load.wait_with_output().expect("the load ends");
    let text = String::from_utf8(output.stdout).expect("text");
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(report["mismatches"], json!([]), "{report}");
    assert!(output.status.success() && report["verified"].as_u64() > Some(0), "{report}");
    report
}

/// Waits for the end of a load that saw no error, and stalls of at most two seconds.
///
/// # Panics
/// When it saw more.
pub fn undisturbed(load: Child) -> Value {
    let report = verified(load);
    let who = std::thread::current();
    println!(
        "{}: stall {} ms, {} blocks verified",
        who.name().unwrap_or_default(),
        report["longest_stall_ms"],
        report["verified"]
    );
    assert_eq!(report["errors"], 0, "{report}");
    assert!(report["longest_stall_ms"].as_f64().is_some_and(|stall| stall < 2000.0), "{report}");
    report
}
