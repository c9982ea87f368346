//! Access control with real initiators: who sees what, redirection, and a flood of logins beside a verified load.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use engine::{Clock, MonotonicClock};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tests::host::Host;
use tests::node::{Node, binary, has_tool, pause};
use tests::pair::{gemel, must};

const TARGET: &str = "iqn.2026-11.org.gemel:m0";

fn target() -> (Node, String) {
    let node = Node::start(&[]);
    node.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 65536}));
    let url = node.export("m0");
    (node, url)
}

fn portal(url: &str) -> &str {
    url.rsplit_once("/iqn").expect("a target name").0
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect(program);
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn initiators_see_their_luns_and_targets_alone() {
    if !has_tool("iscsi-ls") {
        return;
    }
    let (node, url) = target();
    node.must("bdev_null_create", json!({"name": "n0", "block_size": 512, "num_blocks": 4096}));
    node.must("iscsi_target_node_add_lun", json!({"name": TARGET, "bdev_name": "n0", "lun_id": 3}));
    let guest = "iqn.2026-11.example:guest";
    must(gemel(&node, &["initiators", "create", "2", "--initiator", guest, "--netmask", "127.0.0.0/8"]));
    must(gemel(&node, &["initiators", "add", "1", "--initiator", &format!("!{guest}")]));
    let listing = |who: &str| output("iscsi-ls", &["-i", who, "-s", portal(&url)]);
    assert!(!listing(guest).contains(TARGET), "kept out by name");
    assert!(listing("iqn.2026-11.example:other").contains("Lun:3"));
    // One group denies: that outweighs the other, which allows.
    let map = ["--portal-group", "1", "--initiator-group", "2"];
    must(gemel(&node, &[&["target", "allow", TARGET], &map[..], &["--luns", "0"]].concat()));
    assert!(!listing(guest).contains(TARGET));
    must(gemel(
        &node,
        &["initiators", "remove", "1", "--initiator", &format!("!{guest}"), "--initiator", "ANY"],
    ));
    let seen = listing(guest);
    assert!(seen.contains("Lun:0") && !seen.contains("Lun:3"), "{seen}");
    assert!(!listing("iqn.2026-11.example:other").contains(TARGET), "nobody lets it in any more");
    let shown = must(gemel(&node, &["target", "list"]));
    assert!(shown.contains("initiator group 2 at portal group 1, LUNs 0"), "{shown}");
    // All of it is in the configuration.
    let before =
        ["iscsi_get_initiator_groups", "iscsi_get_target_nodes"].map(|method| node.must(method, Value::Null));
    let config = node.save_config();
    let (folder, status) = node.stop();
    assert!(status.success());
    let node = Node::start_in(folder, &["--config", config.to_str().expect("a path")]);
    let after =
        ["iscsi_get_initiator_groups", "iscsi_get_target_nodes"].map(|method| node.must(method, Value::Null));
    assert_eq!(after, before);
}

#[test]
fn luns_come_and_go_while_hosts_are_in() {
    let (node, url) = target();
    for name in ["n0", "n1"] {
        node.must("bdev_null_create", json!({"name": name, "block_size": 512, "num_blocks": 4096}));
    }
    let mut host = Host::login(&url, "iqn.2026-11.example:h0");
    must(gemel(&node, &["target", "add-lun", TARGET, "n0", "--read-only"]));
    must(gemel(&node, &["target", "add-lun", TARGET, "n1", "--lun", "7"]));
    assert_eq!(host.attentions(), [0x3f0e], "told once, whatever came");
    let luns = |host: &mut Host| {
        let data = host.fetch(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], 256);
        data[8..8 + usize::from(data[3])].chunks(8).map(|lun| lun[1]).collect::<Vec<u8>>()
    };
    assert_eq!(luns(&mut host), [0, 1, 7]);
    must(gemel(&node, &["target", "remove-lun", TARGET, "1"]));
    assert_eq!(host.attentions(), [0x3f0e]);
    assert_eq!(luns(&mut host), [0, 7]);
    node.must("bdev_null_delete", json!({"name": "n0"}));
    for (lun, why) in [("1", "has no LUN 1"), ("0", "needs LUN 0")] {
        let refused = gemel(&node, &["target", "remove-lun", TARGET, lun]);
        assert!(
            !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains(why),
            "{refused:?}"
        );
    }
    let config = node.save_config();
    let (folder, _) = node.stop();
    let node = Node::start_in(folder, &["--config", config.to_str().expect("a path")]);
    let luns = &node.must("iscsi_get_target_nodes", Value::Null)[0]["luns"];
    assert_eq!(*luns, json!([{"bdev_name": "m0", "lun_id": 0}, {"bdev_name": "n1", "lun_id": 7}]));
}

#[test]
fn what_can_be_read_is_not_given_up() {
    let (node, _) = target();
    let refused = |arguments: &[&str]| {
        let run = gemel(&node, &[&["target", "give-up-unit-state"], arguments].concat());
        assert!(!run.status.success(), "{run:?}");
        String::from_utf8_lossy(&run.stderr).into_owned()
    };
    let cases: [(&[&str], &str); 4] = [
        (&[TARGET, "0"], "confirm"),
        (&[TARGET, "0", "--yes"], "nothing to give up"),
        (&[TARGET, "9", "--yes"], "has no LUN 9"),
        (&["iqn.2026-11.example:nobody", "0", "--yes"], "there is no target"),
    ];
    for (arguments, why) in cases {
        let said = refused(arguments);
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
}

#[test]
fn a_node_asks_a_portal_for_its_targets() {
    let (far, url) = target();
    let address = portal(&url).trim_start_matches("iscsi://");
    let near = Node::start(&[]);
    let told = must(gemel(&near, &["discover", address]));
    assert!(told.contains(TARGET) && told.contains(&format!("{},", address)), "{told}");
    let refused = gemel(&near, &["discover", "127.0.0.1:1"]);
    assert!(!refused.status.success(), "{refused:?}");
    let ask = |address: &str| {
        near.call("bdev_iscsi_discover", json!({"address": address, "initiator_iqn": "iqn.x"}))
    };
    ask("storage.example").expect_err("a name");
    // Who has to prove himself is told so.
    let secrets = json!([{"user": "asker", "secret": "secret-of-the-asker"}]);
    far.must("iscsi_create_auth_group", json!({"tag": 1, "secrets": secrets}));
    far.must("iscsi_set_discovery_auth", json!({"require_chap": true, "chap_group": 1}));
    let refusal = ask(address).expect_err("no secret").to_string();
    assert!(refusal.contains("authentication"), "{refusal}");
    let chap = json!({"user": "asker", "secret": "secret-of-the-asker"});
    let params = json!({"address": address, "initiator_iqn": "iqn.x", "chap": chap});
    let told = near.must("bdev_iscsi_discover", params);
    assert_eq!(told[0]["name"], TARGET);
}

/// A portal that accepts and says nothing keeps nobody but the asker waiting.
#[test]
fn a_silent_portal_holds_up_no_other_call() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound").to_string();
    let node = Node::start(&[]);
    let clock = MonotonicClock::start();
    let ask = || {
        let params = json!({"address": address, "initiator_iqn": "iqn.x", "timeout_ms": 2500});
        let began = clock.now();
        let refusal = node.call("bdev_iscsi_discover", params).expect_err("nobody").to_string();
        assert!(refusal.contains("no answer in time"), "{refusal}");
        clock.now() - began
    };
    std::thread::scope(|scope| {
        let asking = [scope.spawn(ask), scope.spawn(ask)];
        pause(Duration::from_millis(300));
        let began = clock.now();
        node.must("lun_get_list", Value::Null);
        node.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 2048}));
        // One that is over while another begins is not lost.
        let other = json!({"address": "127.0.0.1:1", "initiator_iqn": "iqn.x"});
        node.call("bdev_iscsi_discover", other).expect_err("nobody listens");
        let took = clock.now() - began;
        assert!(took < Duration::from_millis(1500), "{took:?}");
        for asked in asking {
            assert!(asked.join().expect("answered") >= Duration::from_millis(2500));
        }
    });
    node.must("bdev_malloc_delete", json!({"name": "m0"}));
}

#[test]
fn discovery_can_tell_an_address_that_others_reach_it_by() {
    if !has_tool("iscsi-ls") {
        return;
    }
    let (node, url) = target();
    must(gemel(&node, &["portal", "create", "2", "127.0.0.1:0=10.0.2.2:3260"]));
    must(gemel(&node, &["portal", "create", "3", "127.0.0.1:0", "--private"]));
    for group in ["2", "3"] {
        let map = ["--portal-group", group, "--initiator-group", "1"];
        must(gemel(&node, &[&["target", "allow", TARGET], &map[..]].concat()));
    }
    let told = output("iscsi-ls", &[portal(&url)]);
    assert!(told.contains("10.0.2.2:3260,2"), "{told}");
    assert_eq!(told.matches("Portal:").count(), 2, "a private group is not told: {told}");
    let groups = node.must("iscsi_get_portal_groups", Value::Null);
    assert_eq!(
        (&groups[1]["portals"][0]["advertise"], &groups[2]["private"]),
        (&json!("10.0.2.2:3260"), &json!(true))
    );
}

#[test]
fn libiscsi_follows_a_redirection() {
    if !has_tool("iscsi-inq") {
        return;
    }
    let (node, url) = target();
    must(gemel(&node, &["portal", "create", "2", "127.0.0.1:0", "--private"]));
    let map = ["--portal-group", "2", "--initiator-group", "1"];
    must(gemel(&node, &[&["target", "allow", TARGET], &map[..]].concat()));
    let groups = node.must("iscsi_get_portal_groups", Value::Null);
    let second = format!("127.0.0.1:{}", groups[1]["portals"][0]["port"].as_str().expect("a port"));
    must(gemel(&node, &["target", "redirect", TARGET, "--portal-group", "1", "--to", &second]));
    let mut load = perf(&url, 2);
    let there = || {
        let connections = node.must("iscsi_get_connections", Value::Null);
        connections.as_array().expect("a list").iter().any(|one| one["target_addr"] == second.as_str())
    };
    let seen = (0..100).any(|_| {
        pause(Duration::from_millis(20));
        there()
    });
    assert!(seen, "gemel-perf follows");
    assert!(load.wait().expect("the load").success());
    assert!(output("iscsi-inq", &[&url]).contains("Vendor:GEMEL"));
    must(gemel(&node, &["target", "redirect", TARGET, "--portal-group", "1"]));
    assert!(output("iscsi-inq", &[&url]).contains("Vendor:GEMEL"));
}

fn perf(url: &str, seconds: u32) -> Child {
    Command::new(binary("gemel-perf"))
        .args([
            "--json",
            "--depth",
            "8",
            "--blocks",
            "2048",
            "--reads",
            "30",
            "--seconds",
            &seconds.to_string(),
            url,
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("gemel-perf is built with the tests")
}

/// A connection from 127.0.0.2, which says nothing.
fn attack(portal: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into())?;
    socket.connect_timeout(&portal.into(), Duration::from_secs(1))?;
    Ok(socket.into())
}

#[test]
fn a_flood_of_logins_does_not_disturb_a_session_or_keep_others_out() {
    if !has_tool("iscsi-inq") {
        return;
    }
    let (node, url) = target();
    let options = json!({"max_logins": 32, "max_logins_per_address": 16, "logins_per_second": 1000, "login_burst": 2000});
    node.must("iscsi_set_options", options);
    let address: SocketAddr = portal(&url).trim_start_matches("iscsi://").parse().expect("an address");
    let load = perf(&url, 4);
    let over = AtomicBool::new(false);
    let attempts = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The last few hundred stay open: slow logins.
            let mut open = std::collections::VecDeque::new();
            while !over.load(Ordering::Relaxed) {
                attempts.fetch_add(1, Ordering::Relaxed);
                open.extend(attack(address));
                if open.len() > 300 {
                    open.pop_front();
                }
                pause(Duration::from_millis(1));
            }
        });
        pause(Duration::from_secs(1));
        for _ in 0..5 {
            assert!(output("iscsi-inq", &[&url]).contains("Vendor:GEMEL"), "another host logs in");
            let connections = node.must("iscsi_get_connections", Value::Null);
            let count = connections.as_array().expect("a list").len();
            assert!(count <= 16 + 2, "{count} connections");
        }
        let report = load.wait_with_output().expect("the load ends");
        over.store(true, Ordering::Relaxed);
        assert!(report.status.success(), "every block holds what it must");
        let report: Value = serde_json::from_slice(&report.stdout).expect("JSON");
        let stall = report["longest_stall_ms"].as_f64().expect("a time");
        assert!(report["errors"] == 0 && stall < 500.0, "{report}");
    });
    assert!(attempts.load(Ordering::Relaxed) > 500);
}
