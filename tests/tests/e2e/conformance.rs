//! libiscsi's conformance suite, one process for each test: what passes must go on passing.

use std::process::Command;

use serde_json::json;
use tests::alone::alone;
use tests::node::{Node, has_tool};

/// Tests of version 1.19.0 that pass on a thin 64 MiB LUN of 512-byte blocks.
const PASSING: &str = include_str!("conformance.txt");

/// The suite's own count says that its one test ran and passed, and it skipped nothing of it. (Before and after each test it
/// looks for reservations, and says that it skips that where a target has none.)
fn passes(text: &str) -> bool {
    let summary = text.lines().find(|line| line.trim_start().starts_with("tests "));
    let counts: Vec<&str> = summary.unwrap_or_default().split_whitespace().skip(1).collect();
    let skipped =
        |line: &str| line.contains("SKIPPED") && !line.contains("PERSISTENT RESERVE IN is not implemented");
    counts.starts_with(&["1", "1", "1", "0"]) && !text.lines().any(skipped)
}

#[test]
fn what_passes_in_libiscsis_suite_goes_on_passing() {
    if !has_tool("iscsi-test-cu") {
        return;
    }
    let _turn = alone();
    let node = Node::start(&[]);
    let file = node.file("leg", 64 << 20);
    node.must("bdev_uring_create", json!({"name": "d0", "filename": file, "block_size": 512}));
    let url = node.export("d0");
    let mut failed = Vec::new();
    let mut passed = 0;
    for test in PASSING.lines() {
        let arguments = ["-n", "--dataloss", "--allow-sanitize", "-V", "-t", test, &url];
        let run = Command::new("timeout")
            .arg("30")
            .arg("iscsi-test-cu")
            .args(arguments)
            .output()
            .expect("the suite");
        let text = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
        if passes(&text) {
            passed += 1;
        } else {
            failed.push(test);
        }
    }
    println!("libiscsi: {passed} passed, {} failed", failed.len());
    assert!(failed.is_empty(), "{failed:#?}");
}
