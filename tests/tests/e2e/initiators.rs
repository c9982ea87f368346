//! libiscsi's tools against a file-backed LUN.

use std::process::Command;

use serde_json::{Value, json};
use tests::node::{Node, has_tool};

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
