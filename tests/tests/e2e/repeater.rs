//! A node that imports another's LUN and exports it again: both directions of the gateway between real processes.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tests::node::{Node, has_tool, pause};

fn import(node: &Node, url: &str) {
    node.must(
        "bdev_iscsi_create",
        json!({"name": "r0", "initiator_iqn": "iqn.2026-11.org.gemel:b", "url": url}),
    );
}

/// A write test of libiscsi's suite against a URL.
fn writes_pass(url: &str) -> bool {
    let test = "SCSI.Write10.Simple";
    let run = Command::new("iscsi-test-cu")
        .args(["-n", "--dataloss", "-t", test, url])
        .output()
        .expect("the suite");
    run.status.success() && !String::from_utf8_lossy(&run.stdout).contains("FAILED")
}

#[test]
fn writes_through_a_repeater_reach_the_far_file_and_survive_the_far_nodes_restart() {
    if !has_tool("iscsi-test-cu") {
        return;
    }
    let far = Node::start(&[]);
    let file = far.file("leg", 64 << 20);
    let create = json!({"name": "d0", "filename": file, "block_size": 512, "uuid": "11111111-2222-3333-4444-555555555555"});
    far.must("bdev_uring_create", create);
    let far_url = far.export("d0");
    let near = Node::start(&[]);
    import(&near, &far_url);
    let near_url = near.export("r0");
    // The channel opens with the first session; its first command may still find the link down.
    let passes = |limit: usize| {
        (0..limit).any(|_| {
            pause(Duration::from_millis(200));
            writes_pass(&near_url)
        })
    };
    assert!(passes(20), "{}", near.log());
    let written = far.must("lun_get_list", Value::Null)[0]["bytes_written"].as_u64().expect("a count");
    assert!(written > 0);
    let config = far.save_config();
    let (folder, status) = far.stop();
    assert!(status.success());
    assert!(!writes_pass(&near_url), "nobody answers for a dead node");
    let _far = Node::start_in(folder, &["--config", config.to_str().expect("a path")]);
    assert!(passes(30), "the import came back by itself: {}", near.log());
}
