//! The measurements that scripts take, each for a moment with this build: they run, and what they write is whole. What comes out is no
//! measure of anything here.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::alone::alone;
use tests::node::{binary, has_tool};

/// What a script below `perf/compare/` writes, and what it prints.
fn taken(script: &str, arguments: &[&str]) -> Option<(Value, String)> {
    if !has_tool("python3") || !has_tool("taskset") {
        return None;
    }
    let _alone = alone();
    let folder = tempfile::TempDir::new().expect("a folder");
    let out = folder.path().join("out.json");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let ended = Command::new(root.join("perf/compare").join(script))
        .arg("--bin")
        .arg(binary("gemeld").parent().expect("a folder"))
        .arg(if script == "bench.py" { "--baseline" } else { "--out" })
        .arg(&out)
        .args(arguments)
        .output()
        .expect("python3");
    let shown = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success(), "{script}: {shown}{}", String::from_utf8_lossy(&ended.stderr));
    Some((serde_json::from_slice(&std::fs::read(&out).expect("a report")).expect("JSON"), shown))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn names(figures: &Value) -> Vec<&str> {
    let figures = figures.as_array().expect("figures");
    figures.iter().map(|one| one["name"].as_str().expect("a name")).collect()
}

#[test]
fn mirroring_is_measured_beside_its_bounds() {
    let short = ["--rounds", "1", "--seconds", "0.2", "--leg-mib", "64", "--writes", "100", "--disk", ""];
    let Some((report, shown)) = taken("mirror.py", &short) else { return };
    let round = &report["each"][0];
    assert!(number(&round["write, legs in memory"]["mirrored"]["p50_us"]) > 0.0, "{round}");
    // A log that holds every extent that is written to asks for no transaction.
    let (log, none) = (&round["log"]["wide"]["log"], &round["log"]["wide"]["no log"]);
    let started = |one: &Value| number(&one["transactions_per_write"]);
    assert!(started(none) < 1e-9 && started(log) > 0.0, "{log} {none}");
    let missed = &round["return"]["100"];
    let copied = number(&missed["copied_bytes"]) / number(&missed["expected_bytes"]);
    assert!(copied > 0.2 && copied < 5.0, "{missed}");
    assert!(number(&round["resync"]["idle"]) > 0.0, "{round}");
    let figures = names(&report["figures"]);
    for wanted in ["mirrored write", "intent log", "bytes copied", "raw copy"] {
        assert!(figures.iter().any(|name| name.contains(wanted)), "{wanted}: {figures:?}");
    }
    assert!(shown.contains("| work | measured | its bound |"), "{shown}");
}

#[test]
fn what_a_node_costs_asleep_and_in_a_crowd_is_measured() {
    let short = ["--rounds", "1", "--seconds", "0.2", "--sessions", "4", "--policies", "adaptive", "block"];
    let Some((report, shown)) = taken("idle.py", &short) else { return };
    let figures = names(&report["figures"]);
    for wanted in
        ["with sessions, asleep", "holder of a pair", "--poll adaptive", "--poll block", "beside a hog"]
    {
        assert!(figures.iter().any(|name| name.contains(wanted)), "{wanted}: {figures:?}");
    }
    assert!(shown.contains("| what | median (range) | wanted |"), "{shown}");
}

#[test]
fn growth_is_measured_with_its_slope() {
    let short = ["--sessions", "1", "4", "16", "--luns", "1", "4", "8", "--arrays", "1", "2"];
    let Some((report, _)) = taken("scale.py", &short) else { return };
    let grown = report["grown"].as_object().expect("what grows");
    assert_eq!(grown.len(), 4, "{grown:?}");
    // Each session holds its receive frames for life: two of 64 KiB.
    let frames = number(&grown["sessions"]["slopes"]["frame_bytes"]["each"]);
    assert!((frames - f64::from(2 << 16)).abs() < 4096.0, "{frames}");
    for (name, one) in grown {
        let points = one["points"].as_array().expect("points");
        assert!(points.iter().all(|point| number(&point["seconds"]) > 0.0), "{name}: {points:?}");
    }
}

#[test]
fn a_run_is_compared_with_the_one_that_was_stored() {
    let short = ["--rounds", "2", "--seconds", "0.1"];
    let Some((stored, shown)) = taken("bench.py", &[&short[..], &["--write"]].concat()) else { return };
    assert!(shown.contains("There is no baseline"), "{shown}");
    let folder = tempfile::TempDir::new().expect("a folder");
    let baseline = folder.path().join("bench.json");
    // Of a machine that did a thousand times as much for each round trip.
    let mut before = stored;
    for round in before["each"].as_array_mut().expect("rounds") {
        round["bound"] = (number(&round["bound"]) / 1000.0).into();
    }
    std::fs::write(&baseline, before.to_string()).expect("written");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let ended = Command::new(root.join("perf/compare/bench.py"))
        .arg("--bin")
        .arg(binary("gemeld").parent().expect("a folder"))
        .arg("--baseline")
        .arg(&baseline)
        .args(short)
        .output()
        .expect("python3");
    let shown = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && shown.contains(": SLOWER") && !shown.contains(": faster"), "{shown}");
}
