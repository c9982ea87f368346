//! A saved configuration makes the same node again, and what cannot be loaded is said.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tests::node::{Node, binary};

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
    let gemel = |node: &Node, arguments: &[&str]| {
        Command::new(binary("gemel")).arg("-s").arg(node.socket()).args(arguments).output().expect("gemel")
    };
    let objects = |node: &Node| {
        ["bdev_get_bdevs", "iscsi_get_portal_groups", "iscsi_get_initiator_groups", "iscsi_get_target_nodes"]
            .map(|method| node.must(method, Value::Null))
    };
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
