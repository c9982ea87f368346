//! The dedicated replication NIC: TCP/IP in the nodes' own processes, on interfaces whose kernels have no address. Each party is in a
//! network namespace of its own.

mod trouble;

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::net::{Net, Plug, Toward, Way};
use tests::node::{Node, binary, command_at, has_tool, pause};
use tests::pair::{LEG, Pair, Unusual, gemel};
use tests::tgt::{TARGET, Tgt};

use crate::pair::verified;

/// A pair that replicates over interfaces of its own. The order of the fields is the order of their end.
struct Bench {
    pair: Pair,
    net: Net,
}

impl Bench {
    /// `None`, with a line that says so, where namespaces cannot be had.
    fn start() -> Option<Self> {
        let net = Net::start()?;
        [0, 1].into_iter().for_each(|node| net.dedicate(node));
        Some(Self::on(net))
    }

    /// As [`Bench::start`], where frames can be lost; needs nft as well.
    fn behind_a_switch() -> Option<Self> {
        if !has_tool("nft") {
            return None;
        }
        let net = Net::start()?;
        net.put_switch();
        Some(Self::on(net))
    }

    /// As [`Bench::behind_a_switch`], with a second link, over kernel TCP.
    fn with_two_links() -> Option<Self> {
        if !has_tool("nft") {
            return None;
        }
        let net = Net::start()?;
        net.put_switch();
        net.add_second_link();
        let second = [0, 1].map(|node| format!("{}:3261", net.address(Way::Second, node)));
        let more = [0, 1].map(|node| ["--listen", &second[node], "--peer", &second[1 - node]]);
        Some(Self::with(net, more.each_ref().map(|more| &more[..])))
    }

    fn on(net: Net) -> Self {
        Self::with(net, [&[]; 2])
    }

    /// With more arguments of each node's command.
    fn with(net: Net, more: [&[&str]; 2]) -> Self {
        let nics = [0, 1].map(|node| format!("{}/24", net.address(Way::Link, node)));
        let create = [&["--nic", "repl", "--nic-address", &nics[0]][..], more[0]].concat();
        let join = [&["--nic", "repl", "--nic-address", &nics[1]][..], more[1]].concat();
        let unusual = Unusual { create: &create, join: &join, net: Some(&net), ..Unusual::default() };
        let pair = Pair::build(unusual, |_| {}, None);
        pair.wait_in_sync(0);
        Self { pair, net }
    }

    /// A verifying load on the holder's portal, at work when this returns.
    fn load(&self, seconds: u32) -> Child {
        let load = perf(&self.net.host(), &self.pair.urls[0], seconds);
        let writes = |status: &Value| status["counters"]["writes"].as_u64().unwrap_or(0);
        let before = writes(&self.pair.status(0));
        self.pair.wait(0, "load", |status| writes(status) > before + 100);
        load
    }

    /// The load has lost nothing and waited three seconds at the most; the legs are equal again, by a delta.
    fn heals_by_delta(self, load: Child) {
        let report = verified(load);
        assert!(stall(&report) < 3000.0, "{report}");
        let Self { pair, net } = self;
        assert!(pair.finish(0) < LEG / 2, "by delta");
        drop(net);
    }

    fn link(&self, node: usize) -> Value {
        link(self.pair.node(node))
    }
}

fn perf(place: &[String], url: &str, seconds: u32) -> Child {
    static RUNS: AtomicU32 = AtomicU32::new(9_000);
    let run = RUNS.fetch_add(1, Ordering::Relaxed).to_string();
    command_at(place, "gemel-perf")
        .args(["--json", "--depth", "8", "--blocks", "4096", "--reads", "30", "--silence-ms", "6000"])
        .args(["--seconds", &seconds.to_string(), "--seed", &run, url])
        .stdout(Stdio::piped())
        .spawn()
        .expect("gemel-perf is built with the tests")
}

fn link(node: &Node) -> Value {
    node.must("link_get_links", Value::Null)[0].clone()
}

fn stall(report: &Value) -> f64 {
    report["longest_stall_ms"].as_f64().expect("a figure")
}

#[test]
fn a_pair_mirrors_over_interfaces_of_its_own_and_starts_again_so() {
    let Some(mut bench) = Bench::start() else { return };
    verified(bench.load(2));
    let written = bench.pair.status(0)["counters"]["bytes_written"].as_u64().expect("a figure");
    for node in [0, 1] {
        let link = bench.link(node);
        assert_eq!(
            (&link["state"], &link["device"], &link["mtu"]),
            (&json!("up"), &json!("packet"), &json!(9000))
        );
        assert_eq!(link["peers"][0]["path"], "whole", "{link:#}");
        let counters = &link["counters"];
        let (sent, into) = (&counters["copied_out_bytes"], &counters["copied_in_bytes"]);
        // Each byte was copied once between a socket and the arena.
        let moved = [sent, into][node].as_u64().expect("a figure");
        assert!(moved >= written && moved < written * 2 + (1 << 20), "{written} bytes: {link:#}");
        let wrong = ["checksum_errors", "unusable_frames", "refused_frames"];
        assert!(wrong.iter().all(|key| counters[*key] == 0), "{link:#}");
    }
    let shown = gemel(bench.pair.node(0), &["link", "status"]);
    let shown = String::from_utf8(shown.stdout).expect("text");
    assert!(shown.contains("repl (veth), up") && shown.contains("whole"), "{shown}");
    // Its address is not the kernel's, which would be told to by a ping.
    let refused = bench.pair.node(0).call("link_delete", json!({"name": "repl"})).expect_err("in use");
    assert!(refused.to_string().contains("used by"), "{refused}");
    bench.pair.stop(1);
    bench.pair.restart(1);
    bench.pair.wait_in_sync(0);
    assert_eq!(bench.link(1)["addresses"], json!(["10.61.0.2/24"]));
    bench.pair.stop_both(0);
}

/// AF_XDP in place of packet rings, without a copy where the interface can; here it cannot, and the link says so.
#[test]
fn a_pair_mirrors_over_af_xdp() {
    let Some(net) = Net::start() else { return };
    [0, 1].into_iter().for_each(|node| net.dedicate(node));
    let bench = Bench::with(net, [&["--nic-device", "xdp"]; 2]);
    verified(bench.load(2));
    for node in [0, 1] {
        let link = bench.link(node);
        assert_eq!(
            (&link["device"], &link["peers"][0]["path"]),
            (&json!("xdp-copy"), &json!("whole")),
            "{link:#}"
        );
        let reason = link["fallbacks"][0].as_str().expect("a reason");
        assert!(reason.starts_with("xdp-zero-copy: ") && reason.contains("not supported"), "{reason}");
        let counters = &link["counters"];
        let wrong = ["checksum_errors", "unusable_frames", "refused_frames"];
        assert!(wrong.iter().all(|key| counters[*key] == 0), "{link:#}");
        assert!(counters["received_frames"].as_u64() > Some(100), "{link:#}");
    }
    let Bench { mut pair, net } = bench;
    let status = pair.status(0);
    pair.stop_both(0);
    pair.compare(&status);
    drop(net);
}

/// An interface with several queues cannot be had by AF_XDP: packet rings carry the link, and it says why.
#[test]
fn a_link_that_af_xdp_cannot_have_gets_packet_rings_with_the_reason() {
    let Some((node, net)) = half() else { return };
    net.spread_link(2);
    let params = json!({"name": "l0", "interface": "repl", "addresses": ["10.61.0.1/24"], "device": "xdp"});
    node.must("link_create", params);
    let shown = link(&node);
    assert_eq!((&shown["device"], shown["fallbacks"].as_array().map(Vec::len)), (&json!("packet"), Some(2)));
    for reason in shown["fallbacks"].as_array().into_iter().flatten() {
        assert!(
            reason.as_str().is_some_and(|reason| reason.contains("ethtool -L repl combined 1")),
            "{reason}"
        );
    }
    assert!(node.log().contains("its device is packet; xdp-copy: interface repl has 2 receive queues"));
}

/// An initiator of the same machine's kernel, at the other end of a TAP.
#[test]
fn a_tap_is_a_link_to_the_kernel_of_the_same_machine() {
    let Some((node, net)) = half() else { return };
    net.add_tap(0, "tap0", "10.65.0.1/24");
    let create = |interface: &str, address: &str| {
        let params = json!({"name": "t0", "interface": interface, "addresses": [address], "device": "tap"});
        node.call("link_create", params)
    };
    let refused = |interface: &str, address: &str, words: &str| {
        let error = create(interface, address).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    };
    refused("repl", "10.65.0.2/24", "is no TAP");
    refused("tap0", "10.65.0.1/24", "the kernel has 10.65.0.1 too");
    create("tap0", "10.65.0.2/24").expect("a link");
    export(&node, "10.65.0.2");
    let report = verified(perf(&net.node(0), &format!("iscsi://10.65.0.2/{EXPORTED}/0"), 2));
    assert!(report["iops"].as_f64() > Some(0.0), "{report}");
    let link = link(&node);
    assert_eq!((&link["device"], &link["state"]), (&json!("tap"), &json!("up")), "{link:#}");
    let counters = &link["counters"];
    assert!(
        counters["checksum_errors"] == 0 && counters["copied_in_bytes"].as_u64() > Some(1 << 20),
        "{link:#}"
    );
}

/// While a load runs, its frames are written to a file that Wireshark reads.
#[test]
fn a_link_at_work_is_captured_to_a_file() {
    let Some(bench) = Bench::start() else { return };
    let load = bench.load(3);
    let file = bench.pair.leg(0).with_file_name("link.pcap");
    let arguments = ["link", "capture", "repl", file.to_str().expect("a path"), "--seconds", "1"];
    let said = String::from_utf8(gemel(bench.pair.node(0), &arguments).stdout).expect("text");
    assert!(said.contains("link.pcap: ") && said.contains(" frames"), "{said}");
    let again = gemel(bench.pair.node(0), &arguments);
    assert!(String::from_utf8_lossy(&again.stderr).contains("File exists"), "{again:?}");
    verified(load);
    let bytes = std::fs::read(&file).expect("the file");
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    assert_eq!((number(0), number(20)), (0xa1b2_3c4d, 1), "nanoseconds, Ethernet");
    let (mut at, mut long) = (24, 0);
    while at < bytes.len() {
        let len = number(at + 8) as usize;
        let kind = &bytes[at + 16 + 12..at + 16 + 14];
        assert!(
            [[8, 0], [8, 6]].iter().any(|one| kind == one),
            "IPv4, or a question for a neighbour: {kind:?}"
        );
        long += usize::from(len > 4096);
        at += 16 + len;
    }
    assert_eq!(at, bytes.len(), "whole frames");
    assert!(long > 10, "{long} long frames");
    let trips = &bench.link(0)["round_trips"];
    assert!(trips["count"].as_u64() > Some(100) && trips["p50_us"].as_f64() > Some(0.0), "{trips:#}");
}

/// A peer that stands still, and an interface that goes away and comes back under the node.
#[test]
fn a_peer_that_is_frozen_and_an_interface_that_is_made_anew_come_back_by_delta() {
    let Some(bench) = Bench::start() else { return };
    let load = bench.load(10);
    let alone = |status: &Value| status["legs"][1]["state"] == "missing";
    bench.pair.node(1).signal("STOP");
    bench.pair.wait(0, "degraded", alone);
    pause(Duration::from_millis(1000));
    bench.pair.node(1).signal("CONT");
    bench.pair.wait_in_sync(0);
    bench.net.renew_link();
    for node in [0, 1] {
        let back = |link: &Value| link["state"] == "up" && link["counters"]["carrier_losses"] == 1;
        let found = (0..250).any(|_| {
            pause(Duration::from_millis(20));
            back(&bench.link(node))
        });
        assert!(found, "{:#}", bench.link(node));
    }
    bench.pair.wait_in_sync(0);
    bench.heals_by_delta(load);
}

#[test]
fn a_peer_that_is_killed_comes_back_by_delta() {
    let Some(mut bench) = Bench::start() else { return };
    let load = bench.load(5);
    bench.pair.kill(1);
    bench.pair.wait(0, "degraded", |status| status["legs"][1]["state"] == "missing");
    bench.pair.restart(1);
    bench.heals_by_delta(load);
}

/// As a node's status says.
fn is_alone(status: &Value) -> bool {
    status["legs"][1]["state"] == "missing"
}

#[test]
fn a_wire_that_is_pulled_out_heals_by_delta() {
    let Some(bench) = Bench::start() else { return };
    let load = bench.load(6);
    bench.net.set_plugged(1, Plug::Out);
    let status = bench.pair.wait(0, "degraded", is_alone);
    assert!(
        status["peer"]["cause"].as_str().is_some_and(|cause| cause.contains("Network is down")),
        "{status:#}"
    );
    assert_eq!((&bench.link(0)["state"], &bench.link(1)["state"]), (&json!("no-carrier"), &json!("down")));
    // What it had to send, when the wire went, keeps nobody awake.
    let used = trouble::used_in_a_second(bench.pair.node(1));
    assert!(used < Duration::from_millis(300), "{used:?}");
    bench.net.set_plugged(1, Plug::In);
    bench.pair.wait_in_sync(0);
    let report = verified(load);
    assert!(stall(&report) < 3000.0, "{report}");
    let events = bench.pair.node(0).must("notify_get_notifications", Value::Null);
    let carrier = events.as_array().expect("a list").iter().filter(|event| event["type"] == "link_carrier");
    assert_eq!(carrier.count(), 2, "{events:#}");
    let Bench { pair, net } = bench;
    assert!(pair.finish(0) < LEG / 2, "by delta");
    drop(net);
}

/// One frame in a hundred is lost in each direction: nobody is given up, and nothing takes a retransmission of seconds. Then all are.
#[test]
fn a_switch_that_loses_frames_is_used_all_the_same_and_one_that_loses_all_heals_by_delta() {
    let Some(bench) = Bench::behind_a_switch() else { return };
    let lose = |permille| [0, 1].into_iter().for_each(|node| bench.net.lose_frames(node, permille));
    lose(10);
    let report = verified(bench.load(4));
    let rate = report["iops"].as_f64().expect("a figure");
    println!("1 % of frames lost: longest stall {:.0} ms, {rate:.0} IOPS", stall(&report));
    let status = bench.pair.status(0);
    assert_eq!(status["legs"][1]["in_sync"], true, "{status:#}");
    let counters = &bench.link(0)["counters"];
    assert!(counters["retransmissions"].as_u64() > Some(10), "{counters:#}");
    assert!(stall(&report) < 1000.0, "{report}");
    let load = bench.load(8);
    lose(1000);
    bench.pair.wait(0, "degraded", is_alone);
    lose(0);
    bench.pair.wait_in_sync(0);
    bench.heals_by_delta(load);
}

/// Whether the ways of a node's import to the peer are up: over the link of its own, and over kernel TCP.
fn ways_up(node: &Node) -> [bool; 2] {
    let ways = node.must("link_get_ways", Value::Null);
    assert_eq!((&ways[0]["link"], &ways[1]["link"]), (&json!("repl"), &Value::Null), "{ways:#}");
    [0, 1].map(|way| ways[way]["state"] == "up")
}

/// One of two links is cut, then the other, and a plug is pulled: hosts hardly notice, and no leg is given up.
#[test]
fn a_pair_with_two_links_stays_whole_when_either_is_cut() {
    let Some(bench) = Bench::with_two_links() else { return };
    let nodes = || [0, 1].map(|node| bench.pair.node(node));
    let until = |what: &str, wanted: [bool; 2]| {
        let found = (0..250).any(|_| {
            pause(Duration::from_millis(20));
            nodes().into_iter().all(|node| ways_up(node) == wanted)
        });
        assert!(found, "{what}: {:#}", bench.pair.node(0).must("link_get_ways", Value::Null));
    };
    until("both ways", [true; 2]);
    let generation = bench.pair.status(0)["generation"].clone();
    assert!(generation.is_u64(), "{:#}", bench.pair.status(0));
    let load = bench.load(8);
    [0, 1].into_iter().for_each(|node| bench.net.lose_frames(node, 1000));
    until("the second alone", [false, true]);
    let shown = String::from_utf8(gemel(bench.pair.node(0), &["link", "status"]).stdout).expect("text");
    assert!(shown.contains("repl (veth), up") && shown.contains("10.64.0.2:3261  kernel TCP"), "{shown}");
    [0, 1].into_iter().for_each(|node| bench.net.lose_frames(node, 0));
    until("both again", [true; 2]);
    bench.net.cut(Way::Second, Toward::Both);
    until("the first alone", [true, false]);
    bench.net.heal(Way::Second);
    until("both again", [true; 2]);
    bench.net.set_plugged(1, Plug::Out);
    until("the second alone", [false, true]);
    bench.net.set_plugged(1, Plug::In);
    until("both again", [true; 2]);
    let report = verified(load);
    println!("three cuts: longest stall {:.0} ms", stall(&report));
    assert!(stall(&report) < 1000.0, "{report}");
    let status = bench.pair.status(0);
    assert_eq!(
        (&status["generation"], &status["legs"][1]["in_sync"]),
        (&generation, &json!(true)),
        "{status:#}"
    );
    let events = bench.pair.node(0).must("notify_get_notifications", Value::Null);
    let count =
        |kind: &str| events.as_array().into_iter().flatten().filter(|one| one["type"] == kind).count();
    assert_eq!((count("import_way_lost"), count("import_way_back")), (3, 4), "{events:#}");
    let Bench { mut pair, net } = bench;
    pair.stop_both(0);
    pair.compare(&status);
    drop(net);
}

/// Node 0 has the link to itself; what is in the other namespace uses its kernel's TCP.
fn half() -> Option<(Node, Net)> {
    let net = Net::start()?;
    net.dedicate(0);
    let node = Node::start_at(&net.node(0), TempDir::new_in("/dev/shm").expect("a folder"), &[]);
    Some((node, net))
}

fn make_link(node: &Node, mtu: u32) {
    let address = ["10.61.0.1/24"];
    node.must("link_create", json!({"name": "l0", "interface": "repl", "addresses": address, "mtu": mtu}));
}

#[test]
fn what_cannot_be_a_link_is_refused_in_words() {
    let Some((node, net)) = half() else { return };
    let refused = |interface: &str, address: &str, mtu: u32, words: &str| {
        let params = json!({"name": "l0", "interface": interface, "addresses": [address], "mtu": mtu});
        let error = node.call("link_create", params).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    };
    refused("nonesuch", "10.61.0.1/24", 9000, "no network interface");
    refused("repl", "10.61.0.1", 9000, "ADDRESS/PREFIX");
    refused("repl", "10.61.0.1/24", 9001, "ip link set repl mtu 9001");
    let front = net.address(Way::Front(0), 0);
    refused("repl", &format!("{front}/24"), 9000, "on interface front");
    refused("lo", "10.61.0.1/24", 9000, "no Ethernet");
    make_link(&node, 9000);
    refused("repl", "10.64.0.1/24", 9000, "exists already");
    node.must("link_delete", json!({"name": "l0"}));
    assert_eq!(node.must("link_get_links", Value::Null), json!([]));
    make_link(&node, 1500);
}

const EXPORTED: &str = "iqn.2026-11.org.gemel:m0";

/// A RAM disk of 32 MiB at a portal of this address.
fn export(node: &Node, host: &str) {
    node.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 65536}));
    let portals = [json!({"host": host, "port": "3260"})];
    node.must("iscsi_create_portal_group", json!({"tag": 1, "portals": portals}));
    node.must("iscsi_create_initiator_group", json!({"tag": 1, "initiators": ["ANY"], "netmasks": ["ANY"]}));
    node.must(
        "iscsi_create_target_node",
        json!({"name": EXPORTED, "alias_name": "m0", "pg_ig_maps": [{"pg_tag": 1, "ig_tag": 1}],
               "luns": [{"bdev_name": "m0", "lun_id": 0}], "queue_depth": 64}),
    );
}

/// Another implementation's initiator, over the kernel's TCP, at our target over smoltcp.
#[test]
fn hosts_with_kernel_sockets_use_a_portal_of_a_link() {
    if !has_tool("iscsi-ls") {
        return;
    }
    let Some((node, net)) = half() else { return };
    make_link(&node, 1500);
    export(&node, "10.61.0.1");
    let run = |program: &str, arguments: &[&str]| {
        let [first, rest @ ..] = &net.node(1)[..] else { panic!("a command") };
        let output = Command::new(first).args(rest).arg(program).args(arguments).output().expect(program);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{program}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let listing = run("iscsi-ls", &["-s", "iscsi://10.61.0.1"]);
    assert!(
        listing.contains(&format!("Target:{EXPORTED}")) && listing.contains("DIRECT_ACCESS"),
        "{listing}"
    );
    let url = format!("iscsi://10.61.0.1/{EXPORTED}/0");
    // Long transfers, which both ends send in frames longer than the MTU.
    let report = verified(perf(&net.node(1), &url, 2));
    assert!(report["iops"].as_f64() > Some(0.0), "{report}");
    run("iscsi-perf", &["-b", "256", "-m", "8", "-t", "2", &url]);
    let link = link(&node);
    assert_eq!(link["counters"]["checksum_errors"], 0, "{link:#}");
    assert_eq!(link["peers"], json!([{"host": "10.61.0.2", "path": "whole"}]), "{link:#}");
}

/// What `make soak-link` does with more data: ours and others' TCP on both sides, and whatever moves is verified.
#[test]
fn data_move_between_ours_and_kernel_sockets_without_an_error() {
    if !["tgtd", "iscsi-perf", "python3"].into_iter().all(has_tool) {
        return;
    }
    let Some(net) = Net::start() else { return };
    drop(net);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../perf/soak-link.sh");
    let programs = binary("gemeld");
    let output = Command::new(script)
        .arg("64M")
        .env("BIN", programs.parent().expect("a folder"))
        .output()
        .expect("the script");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("sent again, no error"), "{said}");
}

/// Our initiator over smoltcp at another implementation's target, which uses the kernel's TCP.
#[test]
fn a_target_with_kernel_sockets_is_imported_over_a_link() {
    let Some((node, net)) = half() else { return };
    make_link(&node, 1500);
    let portal = "10.61.0.2:3260".parse().expect("an address");
    let Some(_tgt) = Tgt::start_at(&net.node(1), portal) else { return };
    node.must(
        "bdev_iscsi_create",
        json!({"name": "r0", "initiator_iqn": "iqn.2026-11.example:node", "url": format!("iscsi://{portal}/{TARGET}/1")}),
    );
    let up = (0..500).any(|_| {
        pause(Duration::from_millis(20));
        node.must("bdev_get_bdevs", json!({"name": "r0"}))[0]["num_blocks"] == 131_072
    });
    assert!(up, "{}", node.log());
    // What is written through the node's own portal goes over the link to tgt, and comes back.
    node.must(
        "iscsi_create_portal_group",
        json!({"tag": 1, "portals": [{"host": "127.0.0.1", "port": "3260"}]}),
    );
    node.must("iscsi_create_initiator_group", json!({"tag": 1, "initiators": ["ANY"], "netmasks": ["ANY"]}));
    node.must(
        "iscsi_create_target_node",
        json!({"name": "iqn.2026-11.org.gemel:r0", "alias_name": "r0", "pg_ig_maps": [{"pg_tag": 1, "ig_tag": 1}],
               "luns": [{"bdev_name": "r0", "lun_id": 0}], "queue_depth": 64}),
    );
    verified(perf(&net.node(0), "iscsi://127.0.0.1:3260/iqn.2026-11.org.gemel:r0/0", 2));
    let link = link(&node);
    assert!(link["counters"]["copied_out_bytes"].as_u64() > Some(1 << 20), "{link:#}");
    assert_eq!(link["counters"]["checksum_errors"], 0, "{link:#}");
}
