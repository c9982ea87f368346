//! A node that imports another's LUN and exports it again: both directions of the gateway between real processes.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tests::load::{load_on, undisturbed};
use tests::node::{Node, has_tool, pause};
use tests::wire::Wire;

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

/// Handles of the sessions of an import, one for each of its connections.
fn handles(far: &Node) -> Vec<u64> {
    let shown = far.must("iscsi_get_connections", Value::Null);
    let shown = shown.as_array().expect("a list").iter();
    shown.map(|connection| connection["tsih"].as_u64().expect("a number")).collect()
}

#[test]
fn ios_outlive_the_connections_that_they_were_sent_by() {
    let far = Node::start(&[]);
    far.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 65536}));
    let far_url = far.export("m0");
    let portal = far_url.trim_start_matches("iscsi://").split('/').next().expect("a portal").to_owned();
    let wire = Wire::to(portal.parse().expect("an address"));
    let near = Node::start(&[]);
    let import = json!({"name": "r0", "initiator_iqn": "iqn.2026-11.org.gemel:b",
                        "url": far_url.replace(&portal, &wire.near().to_string()),
                        "connections": 3, "error_recovery_level": 2});
    near.must("bdev_iscsi_create", import);
    let near_url = near.export("r0");
    let complete = || {
        (0..100).any(|_| {
            pause(Duration::from_millis(50));
            handles(&far).len() == 3
        })
    };
    assert!(complete(), "{}", near.log());
    let before = handles(&far);
    let load = load_on(&[near_url], "6", "4096");
    pause(Duration::from_millis(500));
    for round in 0..8 {
        pause(Duration::from_millis(400));
        if round % 4 == 3 {
            assert!(wire.reset() >= 2);
        } else {
            wire.reset_newest();
        }
    }
    undisturbed(load);
    assert!(complete(), "{}", near.log());
    assert_eq!(handles(&far), before, "the session never ended: {}", near.log());
    // What is deleted logs out: the far node does not wait for it to come back.
    near.must("iscsi_delete_target_node", json!({"name": "iqn.2026-11.org.gemel:r0"}));
    near.must("bdev_iscsi_delete", json!({"name": "r0"}));
    let left = || {
        (0..20).any(|_| {
            pause(Duration::from_millis(50));
            handles(&far).is_empty()
        })
    };
    assert!(left(), "{:?}", handles(&far));
}
