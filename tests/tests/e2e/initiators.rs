//! libiscsi's tools against a file-backed LUN.

use std::net::{Ipv6Addr, TcpListener};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tests::node::{Node, has_tool, pause, skipped_because};

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect(program);
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}

#[test]
fn libiscsi_discovers_and_inspects_a_lun() {
    if !has_tool("iscsi-ls") {
        return;
    }
    let node = Node::start(&[]);
    let file = node.file("leg", 64 << 20);
    node.must("bdev_uring_create", json!({"name": "d0", "filename": file, "block_size": 512}));
    let url = node.export("d0");
    let portal = url.rsplit_once("/iqn").expect("a target name").0;
    let listing = output("iscsi-ls", &["-s", portal]);
    assert!(
        listing.contains("Target:iqn.2026-11.org.gemel:d0") && listing.contains("DIRECT_ACCESS"),
        "{listing}"
    );
    let inquiry = output("iscsi-inq", &[&url]);
    assert!(inquiry.contains("Vendor:GEMEL"), "{inquiry}");
    let serial = output("iscsi-inq", &["-e", "1", "-c", "128", &url]);
    let bdev = node.must("bdev_get_bdevs", json!({"name": "d0"}));
    let uuid = bdev[0]["uuid"].as_str().expect("a uuid").replace('-', "");
    assert!(serial.contains(&uuid), "{serial}");
    let capacity = output("iscsi-readcapacity16", &[&url]);
    assert!(capacity.contains("Total size:67108864"), "{capacity}");
    let luns = node.must("lun_get_list", Value::Null);
    assert!(luns[0]["commands"].as_u64().expect("a count") > 0 && luns[0]["active_commands"] == 0, "{luns}");
}

/// Addresses in brackets, at both ends: libiscsi, this project's own import, and what a discovery tells.
#[test]
fn a_portal_has_an_address_of_ipv6() {
    if !has_tool("iscsi-ls") {
        return;
    }
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return skipped_because("this machine has no IPv6 on loopback");
    }
    let (far, near) = (Node::start(&[]), Node::start(&[]));
    far.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 65536}));
    far.must("iscsi_create_portal_group", json!({"tag": 1, "portals": [{"host": "[::1]", "port": "0"}]}));
    far.must(
        "iscsi_create_initiator_group",
        json!({"tag": 1, "initiators": ["ANY"], "netmasks": ["[::1]/128"]}),
    );
    let target = json!({"name": "iqn.2026-11.org.gemel:m0", "alias_name": "m0", "pg_ig_maps": [{"pg_tag": 1, "ig_tag": 1}],
                        "luns": [{"bdev_name": "m0", "lun_id": 0}], "queue_depth": 64});
    far.must("iscsi_create_target_node", target);
    let groups = far.must("iscsi_get_portal_groups", Value::Null);
    let portal = format!("iscsi://[::1]:{}", groups[0]["portals"][0]["port"].as_str().expect("a port"));
    let url = format!("{portal}/iqn.2026-11.org.gemel:m0/0");
    let listed = output("iscsi-ls", &["--show-luns", &portal]);
    assert!(listed.contains(&format!("Portal:{}", portal.trim_start_matches("iscsi://"))), "{listed}");
    let capacity = output("iscsi-readcapacity16", &[&url]);
    assert!(capacity.contains("Total size:33554432"), "{capacity}");
    let import = json!({"name": "r0", "initiator_iqn": "iqn.2026-11.example:near", "url": url});
    near.must("bdev_iscsi_create", import);
    let is_up = |_: &u32| near.must("bdev_get_bdevs", json!({"name": "r0"}))[0]["num_blocks"] == 65536;
    let waited = (0..200).inspect(|_| pause(Duration::from_millis(20)));
    assert!(waited.into_iter().any(|turn| is_up(&turn)), "{}", near.log());
    let sessions = far.must("iscsi_get_connections", Value::Null);
    assert!(
        sessions[0]["initiator_addr"].as_str().is_some_and(|address| address.starts_with("[::1]:")),
        "{sessions}"
    );
}

#[test]
fn a_node_ends_in_order_while_an_initiator_is_at_work() {
    if !has_tool("iscsi-perf") {
        return;
    }
    let node = Node::start(&[]);
    node.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 65536}));
    let url = node.export("m0");
    let mut load = Command::new("iscsi-perf")
        .args(["-b", "8", "-m", "16", "-r", "-t", "30", &url])
        .spawn()
        .expect("load");
    let busy = || node.must("lun_get_list", Value::Null)[0]["commands"].as_u64().expect("a count") > 1000;
    while !busy() {
        tests::node::pause(std::time::Duration::from_millis(20));
    }
    let (_, status) = node.stop();
    load.kill().expect("the load is ours");
    load.wait().expect("the load ends");
    assert!(status.success());
}
