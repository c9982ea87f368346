//! SPDK's own client (PyPI `spdk` 26.5) against the control socket: calls, save_config, load_config.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use tests::node::{Node, binary, skipped_without};

fn client() -> Option<PathBuf> {
    let path = binary("gemeld").parent()?.parent()?.join("spdk-venv/bin/spdk-rpc");
    if path.exists() {
        return Some(path);
    }
    skipped_without("SPDK's client");
    None
}

fn call(node: &Node, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(client().expect("looked for before"))
        .arg("-s")
        .arg(node.socket())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the client");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("taken");
    let output = child.wait_with_output().expect("the client ends");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn spdks_client_builds_a_target_saves_it_and_loads_it_into_another_node() {
    if client().is_none() {
        return;
    }
    let node = Node::start(&[]);
    let file = node.file("leg", 16 << 20);
    let file = file.to_str().expect("a path");
    let run = |arguments: &[&str]| call(&node, arguments, "");
    run(&["bdev_malloc_create", "-b", "m0", "16", "512"]);
    run(&["bdev_null_create", "n0", "16", "512"]);
    run(&["bdev_uring_create", file, "u0", "512"]);
    run(&["iscsi_create_portal_group", "1", "127.0.0.1:0"]);
    run(&["iscsi_create_initiator_group", "2", "ANY", "127.0.0.0/8"]);
    run(&["iscsi_create_target_node", "iqn.2026-11.org.gemel:s", "alias", "u0:0 m0:1", "1:2", "64", "-d"]);
    assert!(run(&["rpc_get_methods"]).contains("iscsi_create_target_node"));
    let figures: Value = serde_json::from_str(&run(&["bdev_get_iostat", "--names", "m0"])).expect("JSON");
    assert_eq!((&figures["bdevs"][0]["name"], &figures["bdevs"][0]["bytes_read"]), (&"m0".into(), &0.into()));
    for method in
        ["framework_get_reactors", "framework_get_scheduler", "thread_get_stats", "thread_get_io_channels"]
    {
        run(&[method]);
    }
    let saved = run(&["save_config"]);
    let targets = |node: &Node| -> Value {
        serde_json::from_str(&call(node, &["iscsi_get_target_nodes"], "")).expect("JSON")
    };
    let before = targets(&node);
    let (_folder, status) = node.stop();
    assert!(status.success());
    let fresh = Node::start(&["--wait-for-rpc"]);
    call(&fresh, &["load_config"], &saved);
    assert_eq!(targets(&fresh), before);
    assert_eq!(call(&fresh, &["save_config"], "").trim(), saved.trim());
}
