//! A mirrored pair under a verifying load: nodes that die, stop, lose their disk or come back.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tests::node::{Node, binary, pause};
use tests::pair::{LEG, Pair, Unusual, gemel};

/// A run of its own on the pair's LUN: blocks that an earlier one wrote are strangers to it.
pub(crate) fn load(pair: &Pair, seconds: &str) -> Child {
    load_on(&pair.urls, seconds, "4096")
}

/// A load on so many blocks of 4 KiB.
pub(crate) fn load_blocks(pair: &Pair, seconds: &str, blocks: &str) -> Child {
    load_on(&pair.urls, seconds, blocks)
}

pub(crate) fn load_on(urls: &[String], seconds: &str, blocks: &str) -> Child {
    static RUNS: AtomicU32 = AtomicU32::new(1);
    let run = RUNS.fetch_add(1, Ordering::Relaxed).to_string();
    Command::new(binary("gemel-perf"))
        .args([
            "--json",
            "--depth",
            "8",
            "--blocks",
            blocks,
            "--reads",
            "30",
            "--seconds",
            seconds,
            "--seed",
            &run,
        ])
        .args(urls)
        .stdout(Stdio::piped())
        .spawn()
        .expect("gemel-perf is built with the tests")
}

pub(crate) fn verified(load: Child) -> Value {
    let output = load.wait_with_output().expect("the load ends");
    let text = String::from_utf8(output.stdout).expect("text");
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(report["mismatches"], json!([]), "{report}");
    assert!(output.status.success() && report["verified"].as_u64() > Some(0), "{report}");
    report
}

/// Waits for the end of a load that saw a stall of at most two seconds and no error of the holder, node 0.
pub(crate) fn undisturbed(pair: &Pair, load: Child) {
    let report = verified(load);
    // While nothing is answered the load also tries the standby, which refuses: only the holder's errors count.
    assert_eq!(pair.status(0)["counters"]["errors"], 0, "{report}");
    assert!(report["longest_stall_ms"].as_f64().is_some_and(|stall| stall < 2000.0), "{report}");
}

/// Both legs in sync again; what the resync copied; then both stopped and compared.
pub(crate) fn finish(mut pair: Pair, holder: usize) -> u64 {
    let status = pair.wait_in_sync(holder);
    pair.stop_both(holder);
    pair.compare(&status);
    status["last_resync"]["copied_bytes"].as_u64().expect("a resync ended")
}

#[test]
fn a_peer_that_is_killed_costs_a_stall_and_a_delta() {
    let mut pair = Pair::start();
    let load = load(&pair, "6");
    pause(Duration::from_millis(1200));
    pair.kill(1);
    let status = pair.wait(0, "degrade", |status| status["legs"][1]["in_sync"] == false);
    assert_eq!(
        (&status["legs"][1]["state"], &status["config_reason"]),
        (&json!("missing"), &json!("peer unreachable"))
    );
    pause(Duration::from_millis(700));
    pair.restart(1);
    undisturbed(&pair, load);
    // What was out of sync when the copy began, in granules, with the extents of both logs.
    let status = pair.wait_in_sync(0);
    let (copied, total) = (&status["last_resync"]["copied_bytes"], &status["last_resync"]["total_bytes"]);
    println!("copied {copied} bytes of {total} out of sync");
    assert!(copied.as_u64() <= total.as_u64().map(|total| total + total / 10), "{copied} of {total}");
    assert!((1..LEG / 2).contains(&finish(pair, 0)));
}

#[test]
fn a_peer_that_is_stopped_costs_a_stall_and_a_delta() {
    let pair = Pair::start();
    let load = load(&pair, "7");
    pause(Duration::from_millis(1000));
    pair.node(1).signal("STOP");
    let status = pair.wait(0, "degrade", |status| status["legs"][1]["in_sync"] == false);
    println!("{}", status["transitions"]);
    pause(Duration::from_millis(500));
    pair.node(1).signal("CONT");
    undisturbed(&pair, load);
    assert!(finish(pair, 0) < LEG / 2);
}

/// How long hosts may have to wait is the administrator's choice.
#[test]
fn a_pair_with_more_patience_rides_out_a_longer_stop() {
    let pair = Pair::create(&["--max-stall-ms", "8000"]);
    let generation = pair.wait_in_sync(0)["generation"].clone();
    let load = load(&pair, "6");
    pause(Duration::from_millis(1000));
    pair.node(1).signal("STOP");
    pause(Duration::from_millis(2500));
    pair.node(1).signal("CONT");
    let report = verified(load);
    assert!(report["longest_stall_ms"].as_f64() > Some(2000.0), "{report}");
    let status = pair.wait_in_sync(0);
    assert_eq!((&status["generation"], &status["last_resync"]["copied_bytes"]), (&generation, &json!(0)));
    assert_eq!(finish(pair, 0), 0);
}

#[test]
fn a_peer_with_an_empty_disk_is_copied_in_full() {
    let mut pair = Pair::start();
    let load = load(&pair, "5");
    pause(Duration::from_millis(800));
    pair.kill(1);
    pair.empty_leg(1);
    pair.wait(0, "degrade", |status| status["legs"][1]["in_sync"] == false);
    pair.restart(1);
    undisturbed(&pair, load);
    let size = pair.status(0)["data_size"].as_u64().expect("a size");
    assert!(finish(pair, 0) >= size);
}

/// Twenty times, at points that the load decides.
#[test]
fn a_holder_that_is_killed_is_succeeded_by_hand() {
    let mut pair = Pair::start();
    let mut holder = 0;
    for round in 0..20_u64 {
        let load = load(&pair, "1");
        pause(Duration::from_millis(200 + round * 37 % 700));
        pair.kill(holder);
        let next = 1 - holder;
        // The operator sees that it is gone before he acts.
        pause(Duration::from_millis(100));
        let promoted = gemel(pair.node(next), &["promote", "vol0"]);
        assert!(promoted.status.success(), "{}", String::from_utf8_lossy(&promoted.stderr));
        pair.wait(next, "promotion", |status| status["role"] == "holder");
        pair.restart(holder);
        verified(load);
        holder = next;
        pair.wait_in_sync(holder);
    }
    assert!(finish(pair, holder) < LEG / 2, "by delta");
}

#[test]
fn both_killed_at_once_lose_nothing() {
    let mut pair = Pair::start();
    for _ in 0..3 {
        let load = load(&pair, "2");
        pause(Duration::from_millis(900));
        pair.kill(0);
        pair.kill(1);
        pair.restart(1);
        pair.restart(0);
        verified(load);
        pair.wait_in_sync(0);
    }
    assert!(finish(pair, 0) < LEG / 2, "by delta");
}

#[test]
fn a_clean_stop_and_start_needs_no_resync() {
    let mut pair = Pair::start();
    verified(load(&pair, "1"));
    pair.stop_both(0);
    pair.restart(0);
    let held =
        pair.wait(0, "hold", |status| status["role"] == "consistent-hold" && status["reason"].is_string());
    assert!(
        held["reason"].as_str().is_some_and(|reason| reason.contains("start degraded by command")),
        "{held}"
    );
    pair.restart(1);
    let status = pair.wait_in_sync(0);
    assert_eq!(status["last_resync"], Value::Null, "{status:#}");
}

#[test]
fn a_start_without_the_peer_is_the_operators_or_the_policys() {
    let mut pair = Pair::create(&["--degraded-start-ms", "700"]);
    pair.wait_in_sync(0);
    verified(load(&pair, "1"));
    pair.kill(0);
    pair.kill(1);
    // Node 0 has the policy.
    pair.restart(0);
    let status = pair.wait(0, "service", |status| status["role"] == "holder");
    assert_eq!(status["config_reason"], "started without the peer");
    let refused = gemel(pair.node(0), &["start-degraded", "vol0"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("nothing to start"));
    verified(load(&pair, "1"));
    pair.restart(1);
    finish(pair, 0);
}

#[test]
fn a_start_without_the_peer_by_command_says_so() {
    let mut pair = Pair::start();
    verified(load(&pair, "1"));
    pair.kill(0);
    pair.kill(1);
    pair.restart(0);
    pair.wait(0, "hold", |status| status["role"] == "consistent-hold" && status["reason"].is_string());
    assert!(gemel(pair.node(0), &["start-degraded", "vol0"]).status.success());
    let status = pair.wait(0, "service", |status| status["role"] == "holder");
    assert_eq!(status["config_reason"], "started without the peer");
    verified(load(&pair, "1"));
    assert!(gemel(pair.node(0), &["resync", "pause", "vol0"]).status.success());
    pair.restart(1);
    let paused = pair.wait(0, "resync", |status| status["resync"].is_object());
    assert!(paused["resync_paused"] == true && paused["dirty_bytes"].as_u64() > Some(0), "{paused:#}");
    assert!(gemel(pair.node(0), &["resync", "resume", "vol0"]).status.success());
    assert!(finish(pair, 0) < LEG / 2);
}

#[test]
fn refusals_say_why() {
    let pair = Pair::start();
    let words = |index: usize, arguments: &[&str]| {
        let output = gemel(pair.node(index), arguments);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).expect("text")
    };
    assert!(words(1, &["promote", "vol0"]).contains("the holder is alive"));
    assert!(words(0, &["promote", "vol0"]).contains("the holder already"));
    assert!(words(0, &["degrade", "vol0"]).contains("in sync"));
    assert!(words(1, &["degrade", "vol0"]).contains("not the holder"));
    assert!(words(0, &["promote", "nonesuch"]).contains("no bdev"));
    let raid = pair.node(0).must("bdev_raid_get_bdevs", json!({"category": "online"}));
    assert_eq!(
        (&raid[0]["raid_level"], &raid[0]["num_base_bdevs_operational"]),
        (&json!("raid1"), &json!(2))
    );
    let text = String::from_utf8(gemel(pair.node(0), &["status"]).stdout).expect("text");
    assert!(text.contains("[2/2] [UU]"), "{text}");
}

#[test]
fn a_foreign_or_torn_leg_is_refused_and_nothing_is_written() {
    let mut pair = Pair::start();
    pair.stop_both(0);
    let mut other = Pair::start();
    other.stop_both(0);
    // A leg of another array, and one with both superblocks torn.
    std::fs::copy(other.leg(1), pair.leg(1)).expect("a copy");
    let mut torn = std::fs::read(pair.leg(0)).expect("the leg");
    for slot in [64 << 10, 68 << 10] {
        torn[slot + 1000..slot + 3000].fill(0xa5);
    }
    std::fs::write(pair.leg(0), &torn).expect("the leg");
    let before = [0, 1].map(|index| std::fs::read(pair.leg(index)).expect("the leg"));
    for (index, words) in [(0, "both superblocks of the leg are damaged"), (1, "is a leg of array vol0")] {
        pair.restart(index);
        let status = pair.wait(index, "refusal", |status| status["role"] == "failed");
        assert!(status["reason"].as_str().is_some_and(|reason| reason.contains(words)), "{status:#}");
    }
    pair.kill(0);
    pair.kill(1);
    let after = [0, 1].map(|index| std::fs::read(pair.leg(index)).expect("the leg"));
    assert!(before == after, "nothing was written");
}

/// One leg alone, on a device that fails when told to.
#[test]
fn the_last_legs_error_reaches_the_host_and_the_volume_stays() {
    let node = Node::start(&[]);
    node.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 131_072}));
    node.must("bdev_error_create", json!({"base_name": "m0"}));
    let nobody = json!({"name": "peer", "initiator_iqn": "iqn.2026-11.org.gemel:a",
                        "url": "iscsi://127.0.0.1:1/iqn.2026-11.org.gemel:nobody/0"});
    node.must("bdev_iscsi_create", nobody);
    node.must("mirror_create", json!({"name": "vol0", "leg": "EE_m0", "peer": "peer", "index": 0}));
    let status = || node.must("mirror_get_status", json!({"name": "vol0"}))[0].clone();
    while status()["role"] != "holder" {
        pause(Duration::from_millis(20));
    }
    let load = load_on(&[node.export("vol0")], "3", "4096");
    pause(Duration::from_millis(1000));
    let inject = json!({"name": "EE_m0", "io_type": "write", "error_type": "failure", "num": 5});
    node.must("bdev_error_inject_error", inject);
    let report = verified(load);
    let errors = report["errors"].as_u64().expect("a figure");
    // A failed write of the intent log fails every write that waits for it.
    assert!((1..=40).contains(&errors), "{report}");
    assert_eq!(status()["role"], "holder", "{}", status());
}

/// The peer ends the session under load, and takes the next one a moment later.
#[test]
fn a_connection_that_ends_costs_a_stall_and_at_most_a_delta() {
    let pair = Pair::start();
    let peer = pair.node(1);
    let config = peer.must("framework_get_config", json!({"name": "iscsi"}));
    let is_leg = |call: &&Value| {
        call["method"] == "iscsi_create_target_node"
            && call["params"]["name"].as_str().is_some_and(|n| n.ends_with(".leg1"))
    };
    let leg =
        config.as_array().and_then(|calls| calls.iter().find(is_leg)).expect("the leg's target")["params"]
            .clone();
    let load = load(&pair, "5");
    for time in [10, 600] {
        pause(Duration::from_millis(1000));
        peer.must("iscsi_delete_target_node", json!({"name": leg["name"]}));
        pause(Duration::from_millis(time));
        peer.must("iscsi_create_target_node", leg.clone());
    }
    undisturbed(&pair, load);
    assert!(finish(pair, 0) < LEG / 2);
}

#[test]
fn resets_of_the_connection_cost_a_stall_and_at_most_a_delta() {
    let (pair, wire) = Pair::with_wire();
    let load = load(&pair, "5");
    for _ in 0..6 {
        pause(Duration::from_millis(600));
        wire.reset();
    }
    undisturbed(&pair, load);
    assert!(finish(pair, 0) < LEG / 2);
}

/// Both nodes live, and what was on the wire when it was cut comes late, on a session that the holder has given up.
#[test]
fn a_wire_that_is_cut_and_healed_costs_a_stall_and_a_delta() {
    let (pair, wire) = Pair::with_wire();
    let load = load(&pair, "8");
    for time in [100, 400, 1500] {
        pause(Duration::from_millis(700));
        wire.cut();
        pause(Duration::from_millis(time));
        wire.heal();
    }
    undisturbed(&pair, load);
    assert!(finish(pair, 0) < LEG / 2);
}

/// Front end and mirror on reactors of their own: hosts' I/Os cross a ring both ways.
#[test]
fn a_pair_on_two_reactors_each_does_what_one_on_one_does() {
    let mut pair = Pair::build(Unusual { node: &["--cores", "0,1"], ..Unusual::default() }, |_| {}, None);
    pair.wait_in_sync(0);
    let load = load(&pair, "4");
    pause(Duration::from_millis(1000));
    pair.kill(1);
    pair.wait(0, "degrade", |status| status["legs"][1]["in_sync"] == false);
    pair.restart(1);
    let channels = pair.node(0).must("thread_get_io_channels", Value::Null);
    undisturbed(&pair, load);
    let of = |thread: usize| {
        let names = channels["threads"][thread]["io_channels"].as_array().expect("a list");
        names.iter().filter_map(|channel| channel["name"].as_str()).collect::<Vec<_>>()
    };
    assert!(of(0).contains(&"vol0") && of(1).contains(&"vol0_disk"), "{channels:#}");
    assert!((1..LEG / 2).contains(&finish(pair, 0)));
}

/// The own leg fails: the hosts do not notice, the peer's leg has everything, and with a new disk and a promotion
/// everything is as before, with the parts exchanged.
#[test]
fn a_holders_disk_that_dies_is_replaced_while_hosts_go_on() {
    let prepare = |node: &Node| {
        let file = node.file("base", LEG);
        let file = json!({"name": "base", "filename": file, "block_size": 512});
        node.must("bdev_uring_create", file);
        node.must("bdev_error_create", json!({"base_name": "base"}));
    };
    let unusual = Unusual { leg: Some("bdev:EE_base"), ..Unusual::default() };
    let mut pair = Pair::build(unusual, prepare, None);
    pair.wait_in_sync(0);
    let first = load(&pair, "4");
    pause(Duration::from_millis(1000));
    let dead = json!({"name": "EE_base", "io_type": "write", "error_type": "failure", "num": 1_000_000});
    pair.node(0).must("bdev_error_inject_error", dead);
    let status = pair.wait(0, "degrade", |status| status["legs"][0]["in_sync"] == false);
    assert_eq!((&status["role"], &status["legs"][0]["state"]), (&json!("holder"), &json!("faulty")));
    undisturbed(&pair, first);
    pair.kill(0);
    pair.empty_file(0, "base");
    pause(Duration::from_millis(100));
    let promoted = gemel(pair.node(1), &["promote", "vol0"]);
    assert!(promoted.status.success(), "{}", String::from_utf8_lossy(&promoted.stderr));
    pair.wait(1, "promotion", |status| status["role"] == "holder");
    let second = load(&pair, "3");
    pair.restart(0);
    verified(second);
    let status = pair.wait_in_sync(1);
    assert!(status["last_resync"]["copied_bytes"].as_u64() >= status["data_size"].as_u64(), "{status:#}");
}

#[test]
fn a_pair_that_cannot_be_made_leaves_nothing_behind() {
    let node = Node::start(&[]);
    let before = node.must("bdev_get_bdevs", Value::Null);
    let leg = format!("{}:{LEG}", node.folder.path().join("leg").display());
    let secrets = node.folder.path().join("vol0.chap");
    let secrets = secrets.to_str().expect("a path");
    let mut arguments = vec!["pair", "create", "vol0", "--leg", &leg, "--listen", "127.0.0.1:0"];
    arguments.extend(["--secret-file", secrets]);
    // An address that this machine does not have: the last step fails.
    arguments.extend(["--peer", "127.0.0.1:1", "--portal", "192.0.2.1:3260"]);
    let refused = gemel(&node, &arguments);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("cannot listen on 192.0.2.1:3260"), "{words}");
    assert_eq!(node.must("bdev_get_bdevs", Value::Null), before);
    // A leg with no room for what a leg needs.
    let small = format!("{}:1M", node.folder.path().join("small").display());
    let mut arguments = vec!["pair", "create", "vol0", "--leg", &small, "--listen", "127.0.0.1:0"];
    arguments.extend(["--secret-file", secrets]);
    arguments.extend(["--peer", "127.0.0.1:1", "--portal", "127.0.0.1:0"]);
    let refused = gemel(&node, &arguments);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("it needs at least"), "{words}");
    assert_eq!(node.must("bdev_get_bdevs", Value::Null), before);
    let groups = ["iscsi_get_portal_groups", "iscsi_get_initiator_groups", "iscsi_get_auth_groups"];
    for method in groups.into_iter().chain(["iscsi_get_target_nodes"]) {
        assert_eq!(node.must(method, Value::Null), json!([]), "{method}");
    }
}

/// What an administrator looks at while it runs.
#[test]
fn status_is_refreshed_and_latencies_show_each_layer() {
    let pair = Pair::start();
    let load = load(&pair, "3");
    let mut watch = Command::new(binary("gemel"))
        .arg("--socket")
        .arg(pair.node(0).socket())
        .args(["status", "--watch"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("gemel is built with the tests");
    pause(Duration::from_millis(2500));
    watch.kill().expect("it runs");
    let output = watch.wait_with_output().expect("it ended");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.matches("[2/2] [UU]").count() >= 2, "refreshed each second: {text}");
    verified(load);
    let text = String::from_utf8(gemel(pair.node(0), &["latency"]).stdout).expect("text");
    for layer in ["LUN", "Mirror", "vol0_disk", "vol0_peer"] {
        let line = text.lines().find(|line| line.contains(layer) && line.contains("write"));
        assert!(line.is_some(), "{layer}: {text}");
    }
}
