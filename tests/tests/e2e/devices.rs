//! Devices on the control socket: SPDK's methods, and what they refuse.

use serde_json::{Value, json};
use tests::host::{GOOD, Host};
use tests::node::{Node, has_tool};
use tests::pair::{Pair, gemel, must};

fn refused(node: &Node, method: &str, params: Value, word: &str) {
    let error = node.call(method, params).expect_err(method).to_string();
    assert!(error.contains(word), "{method}: {error}");
}

fn described(node: &Node, name: &str) -> Value {
    node.must("bdev_get_bdevs", json!({"name": name}))[0].clone()
}

#[test]
fn files_are_opened_as_spdks_aio_does() {
    let node = Node::start(&[]);
    let file = node.file("disk", 8 << 20);
    let aio = |name: &str, more: Value| {
        let mut params = json!({"name": name, "filename": file, "block_size": 512});
        params.as_object_mut().expect("one").extend(more.as_object().expect("one").clone());
        params
    };
    refused(&node, "bdev_aio_create", aio("a0", json!({"nowait": true})), "nowait");
    node.must("bdev_aio_create", aio("a0", json!({"readonly": true, "fallocate": false})));
    let shown = described(&node, "a0");
    assert_eq!(
        (&shown["supported_io_types"]["write"], &shown["supported_io_types"]["unmap"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(
        (&shown["driver_specific"]["aio"]["readonly"], &shown["product_name"]),
        (&json!(true), &json!("URING bdev"))
    );
    refused(&node, "bdev_uring_delete", json!({"name": "a0"}), "bdev_aio_delete");
    node.must("bdev_aio_delete", json!({"name": "a0"}));
    node.must("bdev_aio_create", aio("a0", json!({"fallocate": true})));
    assert_eq!(described(&node, "a0")["supported_io_types"]["unmap"], json!(true));
    let larger = std::fs::OpenOptions::new().write(true).open(&file).expect("the file");
    larger.set_len(16 << 20).expect("grown");
    node.must("bdev_aio_rescan", json!({"name": "a0"}));
    assert_eq!(described(&node, "a0")["num_blocks"], json!(32768));
}

#[test]
fn a_plain_ring_says_that_it_punches_no_holes() {
    let node = Node::start(&["--ring", "plain"]);
    let file = node.file("disk", 8 << 20);
    node.must("bdev_uring_create", json!({"name": "u0", "filename": file}));
    let types = described(&node, "u0")["supported_io_types"].clone();
    assert_eq!((&types["unmap"], &types["write_zeroes"]), (&json!(false), &json!(true)));
    assert!(node.log().contains("io_uring (plain)") && node.log().contains("without"), "{}", node.log());
}

#[test]
fn devices_without_a_medium_change_as_they_are_told() {
    let node = Node::start(&[]);
    node.must("bdev_null_create", json!({"name": "n0", "block_size": 512, "num_blocks": 2048}));
    node.must("bdev_null_resize", json!({"name": "n0", "new_size": 4}));
    assert_eq!(described(&node, "n0")["num_blocks"], json!(8192));
    let delay = json!({"name": "d0", "base_bdev_name": "n0", "avg_read_latency": 10, "p99_read_latency": 5,
                       "avg_write_latency": 1, "p99_write_latency": 2});
    refused(&node, "bdev_delay_create", delay.clone(), "below the average");
    let mut right = delay;
    right["p99_read_latency"] = json!(500);
    node.must("bdev_delay_create", right);
    refused(&node, "bdev_null_resize", json!({"name": "n0", "new_size": 1}), "bdev d0");
    let update = |kind: &str, micros: u64| json!({"delay_bdev_name": "d0", "latency_type": kind, "latency_us": micros});
    refused(&node, "bdev_delay_update_latency", update("avg_read", 501), "below the average");
    node.must("bdev_delay_update_latency", update("avg_read", 100));
    assert_eq!(described(&node, "d0")["driver_specific"]["delay"]["avg_read_latency"], json!(100));
    node.must("bdev_passthru_create", json!({"name": "p0", "base_bdev_name": "d0"}));
    refused(&node, "bdev_malloc_delete", json!({"name": "p0"}), "bdev_passthru_delete");
    refused(&node, "bdev_delay_delete", json!({"name": "d0"}), "bdev p0");
    refused(
        &node,
        "bdev_error_inject_error",
        json!({"name": "p0", "io_type": "read", "error_type": "failure"}),
        "cannot misbehave",
    );
    node.must("bdev_error_create", json!({"base_name": "p0"}));
    let inject = |error: &str| json!({"name": "EE_p0", "io_type": "read", "error_type": error});
    refused(&node, "bdev_error_inject_error", inject("nvme_failure"), "NVMe");
    refused(&node, "bdev_error_inject_error", inject("corrupt_data"), "corrupt_value");
    node.must("bdev_error_inject_error", inject("nomem"));
    node.must("bdev_iscsi_set_options", json!({"timeout_sec": 7}));
    refused(&node, "bdev_iscsi_set_options", json!({"timeout_sec": 0}), "dead peer");
    refused(&node, "bdev_iscsi_set_options", json!({"abort_timeout_ms": 9}), "abort_timeout_ms must be");
    node.must("bdev_iscsi_set_options", json!({"reset_timeout_ms": 400}));
    // All of it is part of the configuration.
    let saved = node.must("framework_get_config", json!({"name": "bdev"}));
    let has = |method: &str, key: &str, value: Value| {
        saved
            .as_array()
            .expect("calls")
            .iter()
            .any(|call| call["method"] == method && call["params"][key] == value)
    };
    assert!(has("bdev_null_create", "num_blocks", json!(8192)), "{saved}");
    assert!(has("bdev_delay_create", "avg_read_latency", json!(100)), "{saved}");
    assert!(has("bdev_iscsi_set_options", "timeout_sec", json!(7)), "{saved}");
    assert!(has("bdev_iscsi_set_options", "reset_timeout_ms", json!(400)), "{saved}");
}

/// CAPACITY DATA HAS CHANGED, for each host (SBC-4 section 4.7).
#[test]
fn hosts_hear_of_a_device_that_grows() {
    let node = Node::start(&[]);
    node.must("bdev_null_create", json!({"name": "n0", "block_size": 512, "num_blocks": 2048}));
    let url = node.export("n0");
    let mut hosts = ["iqn.2026-11.example:a", "iqn.2026-11.example:b"].map(|name| Host::login(&url, name));
    let last_block = |host: &mut Host| host.fetch(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8)[..4].to_vec();
    for host in &mut hosts {
        assert_eq!(last_block(host), 2047u32.to_be_bytes());
    }
    node.must("bdev_null_resize", json!({"name": "n0", "new_size": 4}));
    for host in &mut hosts {
        assert_eq!(host.attentions(), [0x2a09]);
        assert_eq!(last_block(host), 8191u32.to_be_bytes());
    }
}

/// Bytes of the histogram's counts, summed.
fn values(histogram: &Value) -> u64 {
    let output = std::process::Command::new("python3")
        .args(["-c", "import base64,struct,sys; b=base64.b64decode(sys.argv[1]); print(sum(struct.unpack('<%dQ' % (len(b)//8), b)))"])
        .arg(histogram["histogram"].as_str().expect("base64"))
        .output()
        .expect("python3");
    must(output).trim().parse().expect("a number")
}

#[test]
fn histograms_depths_and_limits_of_a_device_under_load() {
    if !has_tool("iscsi-perf") || !has_tool("python3") {
        return;
    }
    let node = Node::start(&[]);
    node.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 65536}));
    let url = node.export("m0");
    refused(&node, "bdev_get_histogram", json!({"name": "m0"}), "bdev_enable_histogram");
    refused(
        &node,
        "bdev_enable_histogram",
        json!({"name": "m0", "enable": true, "opc": "nvme_io"}),
        "nvme_io",
    );
    refused(&node, "bdev_set_qos_limit", json!({"name": "m0"}), "no limit");
    node.must("bdev_enable_histogram", json!({"name": "m0", "enable": true, "opc": "read"}));
    node.must("bdev_set_qd_sampling_period", json!({"name": "m0", "period": 100}));
    node.must("bdev_set_qos_limit", json!({"name": "m0", "rw_ios_per_sec": 1000}));
    node.must("bdev_reset_iostat", json!({"name": "m0"}));
    let perf = std::process::Command::new("iscsi-perf")
        .args(["-m", "16", "-t", "2", &url])
        .output()
        .expect("iscsi-perf");
    assert!(perf.status.success(), "{perf:?}");
    let figures = node.must("bdev_get_iostat", json!({"names": ["m0"]}))["bdevs"][0].clone();
    let reads = figures["num_read_ops"].as_u64().expect("a number");
    // Two seconds, or three with a start and an end: a host's clock and ours.
    assert!((1500..4000).contains(&reads), "{figures}");
    assert_eq!(values(&node.must("bdev_get_histogram", json!({"name": "m0"}))), reads);
    let borders = node.must("bdev_get_histogram_borders", json!({"name": "m0", "borders": [0, 60_000_000]}));
    assert_eq!(borders["borders_count"], json!([0, reads, reads]));
    let busy = figures["io_time"].as_u64().expect("a number");
    assert!(busy > 1_500_000 && figures["weighted_io_time"].as_u64() > Some(8 * busy), "{figures}");
    assert_eq!(described(&node, "m0")["assigned_rate_limits"]["rw_ios_per_sec"], json!(1000));
    let saved = node.must("framework_get_config", json!({"name": "bdev"})).to_string();
    assert!(saved.contains("bdev_set_qos_limit") && saved.contains("bdev_enable_histogram"), "{saved}");
    refused(&node, "bdev_reset_iostat", json!({"name": "m0", "mode": "maxmin"}), "together");
}

fn raid(pair: &Pair, node: usize) -> Value {
    pair.node(node).must("bdev_raid_get_bdevs", json!({"category": "all"}))[0].clone()
}

#[test]
fn a_mirror_is_shown_as_spdk_shows_a_raid1() {
    let mut pair = Pair::start();
    let whole = raid(&pair, 0);
    assert_eq!((&whole["state"], &whole["num_base_bdevs_discovered"]), (&json!("online"), &json!(2)));
    let uuid = described(pair.node(0), "vol0_disk")["uuid"].clone();
    assert_eq!(
        (&whole["base_bdevs_list"][0]["name"], &whole["base_bdevs_list"][0]["uuid"]),
        (&json!("vol0_disk"), &uuid)
    );
    assert_eq!(raid(&pair, 1)["base_bdevs_list"][1]["name"], json!("vol0_disk"), "legs by their numbers");
    assert_eq!(raid(&pair, 1)["state"], json!("offline"), "the standby does not serve");
    pair.kill(1);
    pair.wait(0, "degraded array", |status| status["legs"][1]["in_sync"] == false);
    let degraded = raid(&pair, 0);
    assert_eq!(degraded["num_base_bdevs_operational"], json!(1));
    assert_eq!(degraded["base_bdevs_list"][1]["is_configured"], json!(false), "{degraded}");
    must(gemel(pair.node(0), &["resync", "pause", "vol0"]));
    pair.empty_leg(1);
    pair.restart(1);
    pair.wait(0, "resync", |status| status["resync"].is_object());
    let rebuilding = described(pair.node(0), "vol0")["driver_specific"]["raid"].clone();
    let process = &rebuilding["process"];
    assert_eq!(
        (&process["type"], &process["target"]),
        (&json!("rebuild"), &json!("vol0_peer")),
        "{rebuilding}"
    );
    assert!(process["progress"]["percent"].as_u64().is_some_and(|percent| percent < 100), "{rebuilding}");
    assert_eq!(rebuilding["base_bdevs_list"][1]["is_configured"], json!(true), "{rebuilding}");
    must(gemel(pair.node(0), &["resync", "resume", "vol0"]));
    pair.wait_in_sync(0);
    assert_eq!(raid(&pair, 0)["process"], Value::Null);
}

#[test]
fn raid1_is_a_mirror_of_two_nodes_or_refused_with_what_to_do() {
    let node = Node::start(&[]);
    for (name, blocks) in [("m0", 65536), ("m1", 65536)] {
        node.must("bdev_malloc_create", json!({"name": name, "block_size": 512, "num_blocks": blocks}));
    }
    node.must(
        "bdev_iscsi_create",
        json!({"name": "far", "initiator_iqn": "iqn.2026-11.org.gemel:me",
        "url": "iscsi://127.0.0.1:9/iqn.2026-11.org.gemel:leg/0"}),
    );
    let create = |level: &str, bases: Value, superblock: bool| json!({"name": "r0", "raid_level": level, "base_bdevs": bases, "superblock": superblock});
    refused(&node, "bdev_raid_create", create("raid0", json!(["m0", "m1"]), true), "only raid1");
    refused(&node, "bdev_raid_create", create("raid1", json!(["m0", "far"]), false), "superblock=true");
    refused(&node, "bdev_raid_create", create("raid1", json!(["m0", "m1"]), true), "gemel pair create");
    refused(&node, "bdev_raid_create", create("raid1", json!(["m0", "m1", "far"]), true), "two legs");
    node.must("bdev_raid_create", create("raid1", json!(["m0", "far"]), true));
    let made = node.must("bdev_raid_get_bdevs", json!({"category": "all"}));
    assert_eq!(made[0]["base_bdevs_list"][1]["name"], json!("far"), "{made}");
    refused(&node, "bdev_raid_add_base_bdev", json!({"raid_bdev": "r0", "base_bdev": "m1"}), "pair join");
    refused(&node, "bdev_raid_remove_base_bdev", json!({"name": "far"}), "gemel degrade r0");
    refused(&node, "bdev_malloc_delete", json!({"name": "r0"}), "mirror_delete");
    refused(&node, "bdev_raid_delete", json!({"name": "r0", "clear_sb": true}), "clear_sb");
    refused(&node, "bdev_raid_set_options", json!({"process_max_bandwidth_mb_sec": 5}), "hosts' latency");
    node.must(
        "bdev_raid_set_options",
        json!({"process_window_size_kb": 1024, "process_max_bandwidth_mb_sec": 0}),
    );
    node.must("bdev_raid_delete", json!({"name": "r0"}));
}

/// The run of alike blocks from an address on: how many, and whether they are deallocated (SBC-4 section 5.4).
fn run_at(host: &mut Host, address: u32) -> (u32, bool) {
    let [a, b, c, d] = address.to_be_bytes();
    let data = host.fetch(&[0x9e, 0x12, 0, 0, 0, 0, a, b, c, d, 0, 0, 0, 24, 0, 0], 24);
    let blocks = u32::from_be_bytes(data[16..20].try_into().expect("four bytes"));
    (blocks, data[20] & 0x0f == 1)
}

/// A mirror asks the leg of the node that serves, also for hosts at the other one.
#[test]
fn a_mirror_knows_which_of_its_blocks_are_backed() {
    let pair = Pair::start();
    let mut hosts = [0, 1].map(|node: usize| {
        let mut host = Host::login(&pair.urls[node], &format!("iqn.2026-11.org.gemel:host{node}"));
        host.attentions();
        host
    });
    assert_eq!(hosts[0].write(4096, 7), GOOD);
    for host in &mut hosts {
        let ((before, hole), (_, after)) = (run_at(host, 0), run_at(host, 4096));
        assert!(hole && before <= 4096 && !after, "{before} blocks {hole}, then {after}");
    }
    // UNMAP of what was written and all around it.
    let list =
        [&[0, 22, 0, 16, 0, 0, 0, 0][..], &4000u64.to_be_bytes(), &256u32.to_be_bytes(), &[0; 4]].concat();
    assert_eq!(hosts[1].run(&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &list), GOOD);
    for host in &mut hosts {
        assert!(run_at(host, 4096).1, "it is gone");
    }
    // Once the other node serves, it is asked its own leg.
    must(gemel(pair.node(0), &["switchover", "vol0"]));
    pair.wait(1, "service", |status| status["role"] == "holder");
    hosts[1].attentions();
    assert!(run_at(&mut hosts[1], 4096).1);
}
