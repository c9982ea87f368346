//! A saved configuration makes the same node again, and what cannot be loaded is said.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::node::{Node, binary};
use tests::pair::{gemel, must};

fn objects(node: &Node) -> [Value; 4] {
    ["bdev_get_bdevs", "iscsi_get_portal_groups", "iscsi_get_initiator_groups", "iscsi_get_target_nodes"]
        .map(|method| node.must(method, Value::Null))
}

#[test]
fn a_saved_configuration_makes_the_same_node_again() {
    let node = Node::start(&[]);
    let file = node.file("leg", 16 << 20);
    node.must("bdev_uring_create", json!({"name": "d0", "filename": file, "block_size": 4096}));
    node.must("bdev_error_create", json!({"base_name": "d0"}));
    node.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 2048}));
    let url = node.export("EE_d0");
    node.must("iscsi_target_node_add_lun", json!({"name": "iqn.2026-11.org.gemel:EE_d0", "bdev_name": "m0"}));
    let saved = node.save_config();
    let before = objects(&node);
    let (folder, status) = node.stop();
    assert!(status.success());
    let node = Node::start_in(folder, &["--config", saved.to_str().expect("a path")]);
    assert_eq!(objects(&node), before, "{url}");
    let table = gemel(&node, &["lun", "list"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("iqn.2026-11.org.gemel:EE_d0") && table.contains("1 MiB"), "{table}");
}

#[test]
fn a_configuration_that_cannot_be_loaded_ends_the_node_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config.json");
    let run = |text: &str| {
        std::fs::write(&config, text).expect("written");
        let output = Command::new(binary("gemeld"))
            .arg("--socket")
            .arg(folder.path().join("socket"))
            .args(["--memory", "16", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .output()
            .expect("gemeld");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let missing = json!({"subsystems": [{"subsystem": "bdev", "config": [
        {"method": "bdev_uring_create", "params": {"name": "d0", "filename": "/nonexistent/leg", "block_size": 512}}]}]});
    let said = run(&missing.to_string());
    assert!(said.contains("/nonexistent/leg") && said.contains("No such file"), "{said}");
    let said = run("{");
    assert!(said.contains("is no JSON"), "{said}");
    let said = run("{}");
    assert!(said.contains("subsystems"), "{said}");
    assert!(!folder.path().join("socket").exists(), "nothing is left behind");
}

/// Before FirstBurstLength was held to MaxBurstLength, a node saved what it had been told.
#[test]
fn a_configuration_of_an_earlier_program_loads_with_a_first_burst_that_fits() {
    let folder = TempDir::new().expect("a folder");
    let config = folder.path().join("config.json");
    let call = json!({"method": "iscsi_set_options", "params": {"first_burst_length": 1 << 20, "max_burst_length": 65536}});
    let text = json!({"subsystems": [{"subsystem": "iscsi", "config": [call]}]}).to_string();
    std::fs::write(&config, text).expect("written");
    let node = Node::start_in(folder, &["--config", config.to_str().expect("a path")]);
    let options = node.must("iscsi_get_options", Value::Null);
    assert_eq!(
        (&options["first_burst_length"], &options["max_burst_length"]),
        (&json!(65536), &json!(65536))
    );
    assert!(node.log().contains("first_burst_length is 65536 and not 1048576"), "{}", node.log());
    // Whoever asks for it now is told.
    let refused = node.call("iscsi_set_options", json!({"first_burst_length": 1 << 20})).expect_err("longer");
    assert!(refused.to_string().contains("must not be more"), "{refused}");
}

/// What no method can read ends the start before anything is made.
#[test]
fn a_call_that_cannot_be_read_is_told_before_any_is_made() {
    let folder = TempDir::new().expect("a folder");
    let (config, leg) = (folder.path().join("config.json"), folder.path().join("capture"));
    let calls = json!([
        {"method": "bdev_uring_create", "params": {"name": "d0", "filename": leg, "block_size": 512}},
        {"method": "bdev_malloc_create", "params": {"name": "m0", "block_sise": 512, "num_blocks": 2048}},
    ]);
    std::fs::write(&config, json!({"subsystems": [{"subsystem": "bdev", "config": calls}]}).to_string())
        .expect("written");
    let output = Command::new(binary("gemeld"))
        .arg("--socket")
        .arg(folder.path().join("socket"))
        .args(["--memory", "16", "--config"])
        .arg(&config)
        .output()
        .expect("gemeld");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("block_sise"),
        "{said}, and not of the file that is missing"
    );
}

#[test]
fn a_second_node_does_not_take_the_socket_or_the_file_of_the_first() {
    let first = Node::start(&[]);
    let second = Command::new(binary("gemeld")).arg("--socket").arg(first.socket()).output().expect("gemeld");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("in use by another process"), "{said}");
    let file = first.file("leg", 1 << 20);
    let create = json!({"name": "d0", "filename": file, "block_size": 512});
    first.must("bdev_uring_create", create.clone());
    let other = Node::start(&[]);
    let said = other.call("bdev_uring_create", create).expect_err("locked").to_string();
    assert!(said.contains("another process"), "{said}");
}

#[test]
fn a_node_that_keeps_its_configuration_is_the_same_after_a_crash() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("node.json");
    let arguments = ["--config", file.to_str().expect("a path"), "--write-back"];
    let node = Node::start_in(folder, &arguments);
    assert_eq!(node.must("node_get_config_file", Value::Null)["write_back"], true);
    node.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 2048}));
    node.must("bdev_null_create", json!({"name": "n0", "block_size": 512, "num_blocks": 2048}));
    node.must("bdev_null_delete", json!({"name": "n0"}));
    node.export("m0");
    let before = objects(&node);
    let node = Node::start_in(node.kill(), &arguments);
    assert_eq!(objects(&node), before);
    let other = Node::start(&["--config", "/nonexistent/folder/node.json", "--write-back"]);
    other.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 2048}));
    let state = other.must("node_get_config_file", Value::Null);
    assert!(state["error"].as_str().is_some_and(|error| error.contains("No such file")), "{state}");
}

#[test]
fn a_running_node_takes_a_configuration_and_says_what_it_left_out() {
    let node = Node::start(&[]);
    let load = |text: String| {
        let file = node.folder.path().join("load.json");
        std::fs::write(&file, text).expect("written");
        gemel(&node, &["--json", "config", "load", file.to_str().expect("a path")])
    };
    let config = |calls: Value| json!({"subsystems": [{"subsystem": "bdev", "config": calls}]}).to_string();
    let malloc = json!({"method": "bdev_malloc_create", "params": {"name": "m0", "block_size": 512, "num_blocks": 2048}});
    let tuned = json!({"method": "bdev_nvme_set_options", "params": {"action_on_timeout": "none"}});
    let loaded: Value = serde_json::from_str(&must(load(config(json!([tuned, [malloc]]))))).expect("JSON");
    assert_eq!(
        (&loaded["calls"], &loaded["left_out"][0]["what"]),
        (&json!(1), &json!("bdev_nvme_set_options"))
    );
    let failed = load(config(json!([malloc])));
    assert!(!failed.status.success());
    let error: Value = serde_json::from_slice(&failed.stdout).expect("errors are JSON, too");
    assert_eq!(
        (&error["error"]["kind"], &error["error"]["code"]),
        (&json!("refused"), &json!(-17)),
        "{error}"
    );
    let late = load(config(
        json!([{"method": "bdev_set_options", "params": {}}, {"method": "framework_start_init"}]),
    ));
    assert!(String::from_utf8_lossy(&late.stdout).contains("gemeld --config"), "{late:?}");
}

#[test]
fn watching_as_json_is_one_line_a_look() {
    let node = Node::start(&[]);
    let mut watch = Command::new(binary("gemel"))
        .arg("-s")
        .arg(node.socket())
        .args(["--json", "status", "--watch"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("gemel");
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    for _ in 0..2 {
        let line = lines.next().expect("a look").expect("text");
        assert_eq!(serde_json::from_str::<Value>(&line).expect("JSON"), json!([]));
    }
    watch.kill().expect("ours");
    watch.wait().expect("it ends");
}
