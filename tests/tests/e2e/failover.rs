//! Automatic failover: a pair whose generations an etcd orders, under a verifying load with a path to each node.

use std::time::Duration;

use serde_json::{Value, json};
use tests::etcd::Etcd;
use tests::host::{GOOD, Host};
use tests::load::load_on_holder;
use tests::node::{Node, pause};
use tests::pair::{LEG, Pair, gemel};

use crate::pair::{finish, load, undisturbed, verified};

/// What etcd holds of the pair's array.
/// What etcd holds: a config, and what it follows.
pub(crate) fn record(etcd: &Etcd, pair: &Pair) -> Value {
    let text = etcd.ctl(&["get", "--print-value-only", &key(pair)]);
    serde_json::from_str(&text.expect("etcd answers")).expect("a record")
}

/// Where.
pub(crate) fn key(pair: &Pair) -> String {
    format!("/gemel/arrays/{}", pair.uuid)
}

/// Its config.
pub(crate) fn config(etcd: &Etcd, pair: &Pair) -> Value {
    record(etcd, pair)["config"].take()
}

#[test]
fn a_holder_that_is_killed_is_taken_over_by_itself() {
    let Some(etcd) = Etcd::start() else { return };
    let (mut pair, _wire) = Pair::arbitrated(&etcd);
    let mut holder = 0;
    let mut stalls = Vec::new();
    for round in 0..4_u64 {
        let load = load(&pair, "6");
        pause(Duration::from_millis(400 + round * 137));
        pair.kill(holder);
        let next = 1 - holder;
        pair.wait(next, "takeover", |status| status["role"] == "holder");
        pair.restart(holder);
        let report = verified(load);
        stalls.push(report["longest_stall_ms"].as_f64().expect("a figure"));
        holder = next;
        let status = pair.wait_in_sync(holder);
        let record = config(&etcd, &pair);
        assert_eq!((&record["generation"], &record["holder"]), (&status["generation"], &json!(holder)));
        assert_eq!(record["in_sync"], json!([0, 1]), "{record}");
    }
    println!("outages: {stalls:.0?} ms");
    assert!(stalls.iter().all(|stall| *stall < 5000.0), "{stalls:?}");
    assert!(finish(pair, holder) < LEG / 2, "by delta");
}

/// A zombie: it wakes up, believes that it is the holder, and must not acknowledge anything.
#[test]
fn a_holder_that_is_frozen_and_continued_has_lost_the_array() {
    let Some(etcd) = Etcd::start() else { return };
    let (pair, _wire) = Pair::arbitrated(&etcd);
    let load = load(&pair, "14");
    pause(Duration::from_millis(800));
    pair.node(0).signal("STOP");
    pair.wait(1, "takeover", |status| status["role"] == "holder");
    pause(Duration::from_millis(4000));
    pair.node(0).signal("CONT");
    let report = verified(load);
    assert!(report["longest_stall_ms"].as_f64() < Some(5000.0), "{report}");
    assert_eq!(pair.wait(0, "standby", |status| status["role"] == "standby")["holder"], 1);
    assert!(finish(pair, 1) < LEG / 2, "by delta");
}

/// A host that waits as long as it takes, with a write and a read at the frozen node. Whatever it is told in the end is true of the
/// array that the other node serves meanwhile.
#[test]
fn a_zombie_tells_a_patient_host_nothing_but_the_truth() {
    const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 2, 0, 0, 1, 0];
    let Some(etcd) = Etcd::start() else { return };
    let (pair, _wire) = Pair::arbitrated(&etcd);
    let login = |node: usize| {
        let mut host = Host::login(&pair.urls[node], "iqn.2026-11.org.gemel:patient");
        host.attentions();
        host
    };
    let mut old = login(0);
    assert_eq!((old.write(1, 0xa1), old.write(2, 0xa2)), (GOOD, GOOD));
    pair.node(0).signal("STOP");
    // They are in the node's socket when it wakes up.
    let (write, read) = (old.send_write(1, 0xbb), old.send(&READ, &[], 512));
    pair.wait(1, "takeover", |status| status["role"] == "holder");
    let mut new = login(1);
    assert_eq!((new.write(1, 0xc1), new.write(2, 0xc2)), (GOOD, GOOD));
    pair.node(0).signal("CONT");
    let (write, read) = (old.end_if_any(write), old.end_if_any(read));
    let written = if matches!(write, Some((GOOD, _))) { 0xbb } else { 0xc1 };
    assert_eq!((new.read(1), new.read(2)), (Ok(written), Ok(0xc2)), "{write:?}");
    if let Some((GOOD, data)) = &read {
        assert!(data.iter().all(|byte| *byte == 0xc2), "a read from before the takeover: {:02x}", data[0]);
    }
    println!("the write: {:?}, the read: {:?}", write.map(|(end, _)| end), read.map(|(end, _)| end));
    pair.wait(0, "standby", |status| status["role"] == "standby" && status["holder"] == 1);
    finish(pair, 1);
}

#[test]
fn a_link_that_is_cut_leaves_the_array_with_its_holder() {
    let Some(etcd) = Etcd::start() else { return };
    let (pair, wire) = Pair::arbitrated(&etcd);
    let load = load_on_holder(&pair, "8");
    pause(Duration::from_millis(800));
    wire.cut();
    pair.wait(0, "degrade", |status| status["legs"][1]["in_sync"] == false);
    assert_eq!(config(&etcd, &pair)["in_sync"], json!([0]));
    pause(Duration::from_millis(4500));
    assert_eq!(pair.status(1)["role"], "standby");
    wire.heal();
    undisturbed(load);
    assert!(finish(pair, 0) < LEG / 2, "by delta");
}

/// Nobody notices while both legs are well; a failure meanwhile freezes, and never guesses.
#[test]
fn an_etcd_that_is_gone_is_missed_only_when_something_fails() {
    let Some(mut etcd) = Etcd::start() else { return };
    let (mut pair, _wire) = Pair::arbitrated(&etcd);
    let first = load(&pair, "3");
    etcd.kill();
    undisturbed(first);
    let second = load(&pair, "4");
    pause(Duration::from_millis(500));
    pair.kill(1);
    pause(Duration::from_millis(3000));
    let status = pair.status(0);
    assert_eq!(
        (&status["legs"][1]["in_sync"], &status["role"], &status["reason"]),
        (&json!(true), &json!("frozen"), &json!("peer unreachable; waiting for the arbiter"))
    );
    etcd.restart();
    verified(second);
    assert_eq!(config(&etcd, &pair)["in_sync"], json!([0]));
    pair.restart(1);
    assert!(finish(pair, 0) < LEG / 2, "by delta");
}

#[test]
fn both_killed_at_once_go_on_without_a_command() {
    let Some(etcd) = Etcd::start() else { return };
    let (mut pair, _wire) = Pair::arbitrated(&etcd);
    verified(load(&pair, "1"));
    pair.kill(0);
    pair.kill(1);
    // The holder alone: etcd says that nobody else has gone on.
    pair.restart(0);
    pair.wait(0, "service", |status| status["role"] == "holder");
    verified(load(&pair, "1"));
    pair.restart(1);
    assert!(finish(pair, 0) < LEG / 2, "by delta");
}

#[test]
fn policies_that_cannot_be_had_are_refused_with_the_reason() {
    let node = Node::start(&[]);
    node.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 131_072}));
    node.must("bdev_malloc_create", json!({"name": "m1", "block_size": 512, "num_blocks": 131_072}));
    let create = |more: Value| {
        let mut params = json!({"name": "vol0", "leg": "m0", "peer": "m1", "index": 0});
        for (key, value) in more.as_object().expect("parameters") {
            params[key] = value.clone();
        }
        node.call("mirror_create", params).expect_err("refused").to_string()
    };
    assert!(create(json!({"policy": "heartbeat"})).contains("both would go on"));
    assert!(create(json!({"policy": "etcd"})).contains("endpoints"));
    let etcd = |etcd: Value| create(json!({"policy": "etcd", "etcd": etcd}));
    assert!(etcd(json!({"endpoints": ["localhost:2379"]})).contains("is no http:// or https:// URL"));
    let url = json!(["http://127.0.0.1:1"]);
    assert!(etcd(json!({"endpoints": url, "user": "a"})).contains("go together"));
    assert!(etcd(json!({"endpoints": url, "ca_file": "/nonexistent"})).contains("cannot use /nonexistent"));
    assert_eq!(node.must("mirror_get_status", json!({})), json!([]));
    let status = gemel(&node, &["status"]);
    assert!(status.status.success());
    // And at the command line.
    let [leg, secrets] =
        ["leg.img:128M", "vol0.chap"].map(|name| node.folder.path().join(name).display().to_string());
    let told = gemel(
        &node,
        &[
            "pair",
            "create",
            "vol0",
            "--policy",
            "heartbeat",
            "--leg",
            &leg,
            "--secret-file",
            &secrets,
            "--listen",
            "127.0.0.1:0",
            "--peer",
            "127.0.0.1:1",
            "--portal",
            "127.0.0.1:0",
        ],
    );
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("both would go on"), "{told}");
    assert_eq!(node.must("mirror_get_status", json!({})), json!([]));
}
