//! What a node starts with after its leg failed, and after both were told to stop at once.

use core::time::Duration;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};
use tests::node::{Node, pause};
use tests::pair::{LEG, Pair, Unusual};

use super::pair::{load_blocks, verified};

/// The own leg fails, hosts write all over the volume, and the node is killed and started on the same disk: everything is
/// copied from the peer before the own leg counts.
#[test]
fn a_holder_that_restarts_after_its_leg_was_out_loses_nothing() {
    let prepare = |node: &Node| {
        let file = node.file("base", LEG);
        let file = json!({"name": "base", "filename": file, "block_size": 512});
        node.must("bdev_uring_create", file);
        node.must("bdev_error_create", json!({"base_name": "base"}));
    };
    let unusual = Unusual { leg: Some("bdev:EE_base"), ..Unusual::default() };
    let mut pair = Pair::build(unusual, prepare, None);
    pair.wait_in_sync(0);
    verified(load_blocks(&pair, "1", "64"));
    let dead = json!({"name": "EE_base", "io_type": "write", "error_type": "failure", "num": 1_000_000});
    pair.node(0).must("bdev_error_inject_error", dead);
    verified(load_blocks(&pair, "2", "16384"));
    let status = pair.status(0);
    assert_eq!((&status["role"], &status["legs"][0]["in_sync"]), (&json!("holder"), &json!(false)));
    assert_eq!(status["counters"]["errors"], 0, "{status:#}");
    pair.kill(0);
    pause(Duration::from_millis(100));
    pair.restart(0);
    let status = pair.wait_in_sync(0);
    assert!(status["last_resync"]["copied_bytes"].as_u64() >= status["data_size"].as_u64(), "{status:#}");
    pair.stop_both(0);
    let leg = pair.leg(0);
    symlink(leg.with_file_name("base"), &leg).expect("a name for the leg's file");
    pair.compare(&status);
}

/// SIGTERM to both at the same moment: the standby stays until its holder has marked both legs clean.
#[test]
fn two_nodes_that_are_told_to_stop_at_once_need_no_resync() {
    let mut pair = Pair::start();
    verified(load_blocks(&pair, "1", "4096"));
    pair.node(1).signal("TERM");
    pair.node(0).signal("TERM");
    pair.stop_both(1);
    pair.restart(0);
    pair.restart(1);
    let status = pair.wait_in_sync(0);
    assert_eq!(status["last_resync"], Value::Null, "{status:#}");
}
