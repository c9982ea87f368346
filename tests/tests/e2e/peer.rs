//! A pair whose peer dies, stops, loses its disk, or cannot be reached for a while: hosts wait a moment and see no error, the
//! status names the cause, and no more is copied than differs.

use std::time::Duration;

use crate::events::{events, has};
use serde_json::{Value, json};
use tests::load::{BLOCKS, load_blocks, load_on_holder, undisturbed, verified};
use tests::node::pause;
use tests::pair::{GRANULE, Pair, Unusual};

/// What a degraded status says of node 1's leg, for one of these reasons, and of the way to it.
fn degraded(pair: &Pair, reasons: &[&str]) -> (Value, String) {
    let status = pair.wait(0, "degrade", |status| status["legs"][1]["in_sync"] == false);
    println!("{}, {}: {}", status["legs"][1]["state"], status["config_reason"], status["peer"]);
    assert_eq!(status["role"], "holder");
    assert_eq!(status["legs"][1]["state"], "missing");
    assert!(reasons.iter().any(|reason| status["config_reason"] == *reason), "{status:#}");
    let cause = status["peer"]["cause"].as_str().unwrap_or("nothing").to_owned();
    (status, cause)
}

/// Exactly the granules in which the legs differ, which nobody but the files themselves is asked about.
#[test]
fn what_is_copied_is_what_differs() {
    let mut pair = Pair::start();
    // All over the volume, and at rest when the peer goes.
    verified(load_blocks(&pair, "1", "16384"));
    pair.kill(1);
    degraded(&pair, &["peer unreachable"]);
    verified(load_blocks(&pair, "1", "640"));
    let differing = pair.differing();
    assert_eq!(differing, 640 * 4096 / GRANULE, "every granule that the load used");
    pair.restart(1);
    assert_eq!(pair.finish(0), differing * GRANULE);
}

#[test]
fn a_peer_that_is_killed_costs_a_stall_and_a_delta() {
    let mut pair = Pair::start();
    let load = load_on_holder(&pair, "6");
    pause(Duration::from_millis(1200));
    pair.kill(1);
    let (_, cause) = degraded(&pair, &["peer unreachable"]);
    assert!(cause.starts_with("the connection ended"), "{cause}");
    pause(Duration::from_millis(700));
    pair.restart(1);
    undisturbed(load);
    let copied = pair.finish(0);
    println!("copied {copied} bytes");
    // The load writes whole extents of the intent log: granules and extents come to the same.
    assert!((1..=BLOCKS * 4096).contains(&copied), "{copied}");
}

#[test]
fn a_peer_that_is_stopped_costs_a_stall_and_a_delta() {
    let pair = Pair::start();
    let load = load_on_holder(&pair, "7");
    pause(Duration::from_millis(1000));
    pair.node(1).signal("STOP");
    // Whichever is noticed first: a keep-alive without an answer, or a write without one.
    let (_, cause) = degraded(&pair, &["peer unreachable", "leg missed its deadline"]);
    assert!(cause.contains("silent"), "{cause}");
    pause(Duration::from_millis(500));
    pair.node(1).signal("CONT");
    undisturbed(load);
    assert!((1..=BLOCKS * 4096).contains(&pair.finish(0)));
}

/// How long hosts may have to wait is the administrator's choice.
#[test]
fn a_pair_with_more_patience_rides_out_a_longer_stop() {
    let pair = Pair::create(&["--max-stall-ms", "8000"]);
    let generation = pair.wait_in_sync(0)["generation"].clone();
    let load = load_on_holder(&pair, "6");
    pause(Duration::from_millis(1000));
    pair.node(1).signal("STOP");
    pause(Duration::from_millis(2500));
    pair.node(1).signal("CONT");
    let report = verified(load);
    assert!(report["errors"] == 0 && report["longest_stall_ms"].as_f64() > Some(2000.0), "{report}");
    let status = pair.wait_in_sync(0);
    assert_eq!((&status["generation"], &status["last_resync"]["copied_bytes"]), (&generation, &json!(0)));
    assert_eq!(pair.finish(0), 0);
}

#[test]
fn a_peer_with_an_empty_disk_is_copied_in_full() {
    let mut pair = Pair::start();
    let load = load_on_holder(&pair, "5");
    pause(Duration::from_millis(800));
    pair.kill(1);
    pair.empty_leg(1);
    pair.wait(0, "degrade", |status| status["legs"][1]["in_sync"] == false);
    pair.restart(1);
    undisturbed(load);
    let size = pair.status(0)["data_size"].as_u64().expect("a size");
    assert!(pair.finish(0) >= size);
}

/// A snapshot, a backup or a rolled back machine: an older copy of the leg, taken while the pair was in sync in the config
/// that it still has, in which nothing says so but its superblock's number.
#[test]
fn a_peers_leg_that_is_set_back_is_told_and_copied_in_full() {
    let mut pair = Pair::create(&["--profile", "fast"]);
    let before = pair.wait_in_sync(0);
    verified(load_blocks(&pair, "1", "16384"));
    let old = std::fs::read(pair.leg(1)).expect("the leg");
    // Longer than a superblock keeps its number under load.
    verified(load_blocks(&pair, "3", "16384"));
    let after = pair.wait_in_sync(0);
    println!(
        "generation {} at the copy, {} at the end of its leg",
        before["generation"], after["generation"]
    );
    pair.stop(1);
    pair.wait(0, "degrade", |status| status["legs"][1]["in_sync"] == false);
    std::fs::write(pair.leg(1), old).expect("the leg's file");
    pair.restart(1);
    let size = pair.wait_in_sync(0)["data_size"].as_u64().expect("a size");
    let seen = events(&pair, 0);
    assert!(has(&seen, "full-copy", "leg-reverted"), "{seen:#?}");
    assert!(pair.finish(0) >= size);
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
    let load = load_on_holder(&pair, "5");
    for time in [10, 600] {
        pause(Duration::from_millis(1000));
        peer.must("iscsi_delete_target_node", json!({"name": leg["name"]}));
        pause(Duration::from_millis(time));
        peer.must("iscsi_create_target_node", leg.clone());
    }
    undisturbed(load);
    assert!(pair.finish(0) <= BLOCKS * 4096);
}

#[test]
fn resets_of_the_connection_cost_a_stall_and_at_most_a_delta() {
    let (pair, wire) = Pair::with_wire();
    let load = load_on_holder(&pair, "5");
    let mut ends = 0;
    for _ in 0..6 {
        pause(Duration::from_millis(600));
        ends += wire.reset();
    }
    assert!(ends >= 4, "there was a connection to reset, and it came back: {ends}");
    undisturbed(load);
    assert!(pair.finish(0) <= BLOCKS * 4096);
}

/// Both nodes live, and what was on the wire when it was cut comes late, on a session that the holder has given up.
#[test]
fn a_wire_that_is_cut_and_healed_costs_a_stall_and_a_delta() {
    let (pair, wire) = Pair::with_wire();
    let load = load_on_holder(&pair, "8");
    for time in [100, 400, 1500] {
        pause(Duration::from_millis(700));
        wire.cut();
        pause(Duration::from_millis(time));
        wire.heal();
    }
    undisturbed(load);
    assert!(pair.finish(0) <= BLOCKS * 4096);
}

/// Front end and mirror on reactors of their own: hosts' I/Os cross a ring both ways.
#[test]
fn a_pair_on_two_reactors_each_does_what_one_on_one_does() {
    let mut pair = Pair::build(Unusual { node: &["--cores", "0,1"], ..Unusual::default() }, |_| {}, None);
    pair.wait_in_sync(0);
    let load = load_on_holder(&pair, "4");
    pause(Duration::from_millis(1000));
    pair.kill(1);
    pair.wait(0, "degrade", |status| status["legs"][1]["in_sync"] == false);
    pair.restart(1);
    let channels = pair.node(0).must("thread_get_io_channels", Value::Null);
    undisturbed(load);
    let of = |thread: usize| {
        let names = channels["threads"][thread]["io_channels"].as_array().expect("a list");
        names.iter().filter_map(|channel| channel["name"].as_str()).collect::<Vec<_>>()
    };
    assert!(of(0).contains(&"vol0") && of(1).contains(&"vol0_disk"), "{channels:#}");
    assert!((1..=BLOCKS * 4096).contains(&pair.finish(0)));
}
