//! SPDK's own client (PyPI `spdk` 26.5) against the control socket: calls, save_config, load_config.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tests::node::{Node, binary, skipped_without};
use tests::pair::Pair;

fn client() -> Option<PathBuf> {
    let path = binary("gemeld").parent()?.parent()?.join("spdk-venv/bin/spdk-rpc");
    if path.exists() {
        return Some(path);
    }
    skipped_without("SPDK's client");
    None
}

fn call(node: &Node, arguments: &[&str], input: &str) -> String {
    let output = output(node, arguments, input);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

fn output(node: &Node, arguments: &[&str], input: &str) -> Output {
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
    child.wait_with_output().expect("the client ends")
}

fn answer(node: &Node, arguments: &[&str]) -> Value {
    serde_json::from_str(&call(node, arguments, "")).expect("JSON")
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
    assert_eq!(answer(&node, &["scsi_get_devices"])[0]["device_name"], "iqn.2026-11.org.gemel:s");
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

#[test]
fn spdks_client_looks_at_threads_pollers_and_devices() {
    if client().is_none() {
        return;
    }
    let node = Node::start(&["--cores", "0,1"]);
    let run = |arguments: &[&str]| call(&node, arguments, "");
    run(&["bdev_malloc_create", "-b", "m0", "16", "512"]);
    let url = "iscsi://127.0.0.1:9/iqn.2026-11.org.gemel:leg/0";
    run(&["bdev_iscsi_create", "-b", "far", "-i", "iqn.2026-11.org.gemel:me", "--url", url]);
    let pollers = answer(&node, &["thread_get_pollers"]);
    let names = |index: usize| -> Vec<Value> {
        let list = pollers["threads"][index]["active_pollers"].as_array().expect("pollers");
        list.iter().map(|poller| poller["name"].clone()).collect()
    };
    assert_eq!((names(0), names(1)), (vec![json!("iscsi_target")], vec![json!("import_far")]), "{pollers}");
    assert!(pollers["threads"][0]["active_pollers"][0]["run_count"].as_u64() > Some(0), "{pollers}");
    let stats = answer(&node, &["thread_get_stats"]);
    assert_eq!(stats["threads"][1]["active_pollers_count"], 1);
    let reactors = answer(&node, &["framework_get_reactors"]);
    assert_ne!(reactors["reactors"][0]["tid"], reactors["reactors"][1]["tid"], "{reactors}");
    run(&["thread_set_cpumask", "-i", "2", "-m", "0x3"]);
    run(&["framework_set_scheduler", "static"]);
    run(&["bdev_enable_histogram", "m0", "--histogram"]);
    assert_eq!(answer(&node, &["bdev_get_histogram", "m0"])["granularity"], 7);
    run(&["bdev_set_qd_sampling_period", "m0", "100"]);
    run(&["bdev_set_qos_limit", "m0", "--rw-ios-per-sec", "2000"]);
    assert_eq!(answer(&node, &["sock_get_default_impl"])["impl_name"], "uring");
    for (arguments, word) in [
        (&["thread_set_cpumask", "-i", "2", "-m", "0x1"][..], "--cores"),
        (&["framework_set_scheduler", "dynamic"], "static"),
        (&["trace_get_info"], "bdev_get_latency"),
        (
            &["bdev_nvme_attach_controller", "-b", "n", "-t", "PCIe", "-a", "0000:00:00.0"],
            "bdev_uring_create",
        ),
        (&["bdev_set_options", "-p", "1"], "framework_start_init"),
    ] {
        let refused = output(&node, arguments, "");
        let text = String::from_utf8_lossy(&refused.stdout) + String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && text.contains(word), "{arguments:?}: {text}");
    }
    // The log says what is asked for, once somebody wants to know.
    assert_eq!(answer(&node, &["log_get_flags"])["control"], false);
    run(&["bdev_null_create", "n0", "16", "512"]);
    run(&["log_set_flag", "control"]);
    run(&["bdev_null_create", "n1", "16", "512"]);
    run(&["log_clear_flag", "all"]);
    run(&["bdev_null_create", "n2", "16", "512"]);
    let log = node.log();
    assert!(
        log.contains("bdev_null_create n1: done") && !log.contains(" n0: ") && !log.contains(" n2: "),
        "{log}"
    );
    run(&["log_set_print_level", "WARNING"]);
    assert_eq!(run(&["log_get_print_level"]).trim(), "\"WARNING\"");
    assert_eq!(run(&["log_get_level"]).trim(), "\"NOTICE\"");
    // What may be called changes with framework_start_init.
    let starting = Node::start(&["--wait-for-rpc"]);
    let now = |node: &Node| call(node, &["rpc_get_methods", "-c"], "");
    assert!(now(&starting).contains("bdev_set_options") && !now(&starting).contains("bdev_malloc_create"));
    call(&starting, &["bdev_set_options", "-p", "65535"], "");
    let refused = output(&starting, &["bdev_set_options", "-p", "100"], "");
    assert!(!refused.status.success(), "there is no such pool");
    call(&starting, &["framework_start_init"], "");
    assert!(!now(&starting).contains("bdev_set_options") && now(&starting).contains("bdev_malloc_create"));
}

#[test]
fn spdks_client_saves_and_loads_a_node_that_has_a_mirror() {
    if client().is_none() {
        return;
    }
    let mut pair = Pair::start();
    let raids = answer(pair.node(0), &["bdev_raid_get_bdevs", "online"]);
    assert_eq!(
        (&raids[0]["name"], &raids[0]["num_base_bdevs_operational"]),
        (&json!("vol0"), &json!(2)),
        "{raids}"
    );
    assert_eq!(answer(pair.node(1), &["bdev_raid_get_bdevs", "online"]), json!([]));
    let saved = call(pair.node(0), &["save_config"], "");
    pair.stop(0);
    pair.restart_with(0, &["--wait-for-rpc"]);
    call(pair.node(0), &["load_config"], &saved);
    pair.wait_in_sync(0);
    assert_eq!(call(pair.node(0), &["save_config"], "").trim(), saved.trim());
}
