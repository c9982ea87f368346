//! gemel-perf as its README shows it, each command for a moment against a node: what it prints and writes is whole, and plausible.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tests::node::{Node, binary, has_tool};

/// Short, and enough to see something.
const SHORT: [&str; 4] = ["--warm-up", "0.1", "--seconds", "0.3"];

fn node_with_ram_disk() -> (Node, String) {
    let node = Node::start(&[]);
    node.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 65536}));
    let url = node.export("m0");
    (node, url)
}

fn text(arguments: &[&str]) -> String {
    let ended = Command::new(binary("gemel-perf")).args(arguments).output().expect("gemel-perf is built");
    let errors = String::from_utf8_lossy(&ended.stderr);
    // Nothing is drawn where there is no terminal.
    assert!(ended.status.success() && errors.is_empty(), "{arguments:?}: {errors}");
    String::from_utf8(ended.stdout).expect("text")
}

fn json(arguments: &[&str]) -> Value {
    let text = text(&[arguments, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_run_measures_every_kind_at_both_ends_and_writes_its_files() {
    let (node, url) = node_with_ram_disk();
    let (socket, prefix) = (node.socket(), node.folder.path().join("run"));
    let (socket, prefix) = (socket.to_str().expect("a path"), prefix.to_str().expect("a path"));
    let mix =
        ["--mix", "read:60,write:30,trim:5,flush:5", "--sizes", "4k:70,64k:30", "--pattern", "zipf:0.9"];
    let ends = ["--sessions", "2", "--depth", "4", "--target-socket", socket, "--output", prefix];
    let report = json(&[&["run", &url][..], &mix, &ends, &SHORT].concat());
    assert_eq!((&report["format"], &report["errors"]), (&json!("gemel-perf/1"), &json!(0)), "{report}");
    let latency = &report["latency_us"];
    let kinds = ["read", "write", "trim", "flush"].map(|kind| number(&latency[kind]["count"]));
    assert!(kinds.iter().all(|count| *count > 0.0), "{latency}");
    assert!((kinds.iter().sum::<f64>() - number(&latency["all"]["count"])).abs() < 0.5, "{latency}");
    let shares =
        report["layers_us"].as_object().expect("layers").values().map(|layer| number(&layer["share"]));
    assert!((shares.sum::<f64>() - 1.0).abs() < 1e-6, "{report}");
    let cpu = &report["cpu"];
    assert!(
        number(&cpu["own"]["us_per_io"]) > 0.0 && number(&cpu["target"]["busy_us_per_io"]) > 0.0,
        "{cpu}"
    );
    let layers = cpu["target"]["layers"].as_array().expect("layers");
    assert!(
        layers.iter().any(|one| one["name"].as_str().is_some_and(|name| name.starts_with("LUN"))),
        "{cpu}"
    );
    let file = |suffix: &str| std::fs::read_to_string(format!("{prefix}{suffix}")).expect(suffix);
    assert_eq!(serde_json::from_str::<Value>(&file(".json")).expect("JSON"), report);
    assert!(file(".svg").starts_with("<svg") && file(".hgrm").contains("Total count"));
}

#[test]
fn an_open_loop_keeps_its_rate_and_a_table_is_for_people() {
    let (_node, url) = node_with_ram_disk();
    let report = json(&[&["run", &url, "--rate", "500", "--arrivals", "even"][..], &SHORT].concat());
    // 150 are to start in 0.3 s, whether the target is quick or not.
    let count = number(&report["latency_us"]["all"]["count"]);
    assert!((148.0..=152.0).contains(&count), "{report}");
    let shown = text(&[&["run", &url, "--depth", "1"][..], &SHORT].concat());
    assert!(
        shown.contains("IOPS") && shown.contains("p99.9") && shown.contains("CPU for each operation"),
        "{shown}"
    );
}

#[test]
fn a_sweep_finds_a_knee_and_a_comparison_says_how_sure_it_is() {
    let (_node, url) = node_with_ram_disk();
    let swept = json(&[&["sweep", &url, "--depths", "1,4,16"][..], &SHORT].concat());
    assert_eq!(swept["runs"].as_array().map(Vec::len), Some(3), "{swept}");
    assert!(swept["knee"].as_u64() < Some(3) && swept["saturation"].as_u64() < Some(3), "{swept}");
    // A device that does nothing is quicker than one behind a wire, whatever the machine is doing.
    let compared =
        json(&[&["compare", &url, "null:64m", "--rounds", "3", "--depth", "1"][..], &SHORT].concat());
    let ratio = &compared["figures"]["iops"]["ratio"];
    let [low, value, high] = ["low", "value", "high"].map(|key| number(&ratio[key]));
    assert!(low <= value && value <= high && low > 1.0, "{ratio}");
    assert_eq!(compared["rounds"].as_array().map(Vec::len), Some(3));
}

#[test]
fn the_machine_itself_is_measured_and_what_cannot_be_driven_is_named() {
    let node = Node::start(&[]);
    let disk = node.file("disk", 1 << 20);
    let disk = disk.to_str().expect("a path");
    let raw = json(&["raw", "--seconds", "0.05", "--file", disk, "--write"]);
    for key in ["tcp_read_polling_us", "tcp_write_blocking_us", "pread_us", "pwrite_us"] {
        assert!(number(&raw[key]["p50"]) > 0.0, "{key} in {raw}");
    }
    assert!(number(&raw["crc32c_bytes_per_second"]) > 0.0 && number(&raw["memcpy_bytes_per_second"]) > 0.0);
    for (arguments, why) in [
        (&["run", "null:1g", "--sizes", "1000"][..], "no multiple of the device's blocks of 512"),
        (&["run", "file:/nonexistent"], "cannot open /nonexistent"),
        (&["run", "disk0"], "is no target: use iscsi://"),
        (&["run", "null:1g", "--target-socket", "/nonexistent"], "control socket /nonexistent"),
        (
            &["run", "iscsi://127.0.0.1:9/iqn.2026-11.example:none/0", "--patience", "0.2"],
            "nothing was served",
        ),
    ] {
        let ended = Command::new(binary("gemel-perf")).args(arguments).output().expect("gemel-perf is built");
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success() && errors.contains(why), "{arguments:?}: {errors}");
    }
}

/// `make compare` in short: this build's target and, where it can run, tgt, and bounds in the same round.
#[test]
fn the_comparison_runs_and_says_what_it_ran() {
    if !has_tool("python3") || !has_tool("taskset") {
        return;
    }
    let folder = tempfile::TempDir::new().expect("a folder");
    let out = folder.path().join("compare.json");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let ended = Command::new(root.join("perf/compare/run.py"))
        .args(["--rounds", "1", "--seconds", "0.2", "--jobs", "random read, depth 1", "--disk", ""])
        .arg("--bin")
        .arg(binary("gemeld").parent().expect("a folder"))
        .arg("--out")
        .arg(&out)
        .output()
        .expect("python3");
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{errors}");
    let report: Value = serde_json::from_slice(&std::fs::read(&out).expect("a report")).expect("JSON");
    let jobs = report["jobs"].as_object().expect("jobs");
    for (name, job) in jobs {
        for ours in ["gemel", "gemel-spin"] {
            let figures = &job["targets"][ours]["iops"];
            assert!(number(&figures["least"]) > 0.0 && figures["least"] == figures["most"], "{name}: {job}");
            if report["targets"] == json!(["gemel", "gemel-spin", "tgt"]) {
                let ratio = &job["ratios"][format!("{ours}/tgt")]["iops"];
                assert!(number(&ratio["value"]) > 0.0, "{name}: {job}");
            }
        }
    }
    assert!(
        jobs.contains_key("4 KiB random read, depth 1") && !jobs.contains_key("4 KiB random write, depth 1")
    );
    assert!(number(&report["raw"]["tcp_read_polling_p50_us"]["median"]) > 0.0, "{report}");
    let shown = String::from_utf8(ended.stdout).expect("text");
    assert!(shown.contains("| bound, in the same rounds |"), "{shown}");
}
