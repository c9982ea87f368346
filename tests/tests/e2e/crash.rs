//! A verifying load while the node dies, stops, or loses its medium: no acknowledged write may be missing afterwards.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tests::load::{load_on, verified};
use tests::node::{Node, binary, pause};

fn file_node() -> (Node, String) {
    let node = Node::start(&[]);
    let file = node.file("leg", 64 << 20);
    node.must("bdev_uring_create", json!({"name": "d0", "filename": file, "block_size": 512}));
    let url = node.export("d0");
    (node, url)
}

#[test]
fn acknowledged_writes_survive_a_kill_under_load() {
    let (mut node, url) = file_node();
    let config = node.save_config();
    let load = load_on(&[url], "6", "2048");
    for _ in 0..3 {
        pause(Duration::from_millis(1200));
        let folder = node.kill();
        node = Node::start_in(folder, &["--config", config.to_str().expect("a path")]);
    }
    let report = verified(load);
    assert!(report["errors"].as_u64() > Some(0), "the kills were noticed: {report}");
}

#[test]
fn a_stopped_node_that_goes_on_costs_a_stall_and_nothing_else() {
    let (node, url) = file_node();
    let load = load_on(&[url], "5", "2048");
    pause(Duration::from_millis(1500));
    node.signal("STOP");
    pause(Duration::from_millis(1500));
    node.signal("CONT");
    let report = verified(load);
    assert!(report["longest_stall_ms"].as_f64() > Some(1000.0), "{report}");
}

#[test]
fn errors_of_the_medium_reach_the_host_and_the_lun_stays() {
    let node = Node::start(&[]);
    node.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 65536}));
    node.must("bdev_error_create", json!({"base_name": "m0"}));
    let url = node.export("EE_m0");
    let load = load_on(&[url], "3", "2048");
    pause(Duration::from_millis(1000));
    let inject = json!({"name": "EE_m0", "io_type": "write", "error_type": "failure", "num": 5});
    node.must("bdev_error_inject_error", inject);
    let report = verified(load);
    assert_eq!(report["errors"], 5, "{report}");
}

#[test]
fn a_lying_medium_is_caught_by_the_load() {
    let node = Node::start(&[]);
    node.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 65536}));
    node.must("bdev_error_create", json!({"base_name": "m0"}));
    let url = node.export("EE_m0");
    let load = Command::new(binary("gemel-perf"))
        .args(["--json", "--depth", "1", "--blocks", "60000", "--seconds", "1", &url])
        .stdout(Stdio::piped())
        .spawn();
    // 60,000 blocks of 4 KiB do not fit: the load says so instead of reporting a success.
    let refused = load.expect("gemel-perf").wait_with_output().expect("the load ends");
    assert_eq!(refused.status.code(), Some(1));
    let inject = json!({"name": "EE_m0", "io_type": "write", "error_type": "lost", "num": 400});
    node.must("bdev_error_inject_error", inject);
    let output = Command::new(binary("gemel-perf"))
        // Reads in between: a lost write that was overwritten since would go unseen.
        .args(["--json", "--depth", "1", "--blocks", "8000", "--reads", "50", "--seconds", "1", &url])
        .output()
        .expect("gemel-perf");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(2), "lost writes are mismatches: {report}");
}
