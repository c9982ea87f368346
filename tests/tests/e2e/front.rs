//! The front end of a pair: both nodes show one LUN, the one that does not serve passes commands on, and reservations outlive
//! whoever serves.

use std::time::Duration;

use serde_json::json;
use tests::etcd::Etcd;
use tests::node::{has_tool, pause};
use tests::pair::{LEG, Pair};
use tests::suite::{Suite, Verdict};

use crate::pair::{finish, load_on, verified};

/// Of libiscsi's suite: reservations, and what it asks of two paths.
const RESERVATIONS: [&str; 12] = [
    "PrinReadKeys.Truncate",
    "PrinReportCapabilities.Simple",
    "ProutRegister.Simple",
    "ProutReserve.AccessEA",
    "ProutReserve.AccessWERO",
    "ProutReserve.OwnershipEA",
    "ProutReserve.OwnershipWEAR",
    "ProutClear.Simple",
    "ProutPreempt.RemoveRegistration",
    "Reserve6.2Initiators",
    "Reserve6.Logout",
    "Reserve6.LUNReset",
];

fn reservations_pass(suite: &Suite, pair: &Pair, when: &str) {
    for (path, url) in pair.urls.iter().enumerate() {
        for test in RESERVATIONS {
            assert_eq!(suite.run(test, &[url]), Verdict::Passed, "{test} through node {path}, {when}");
        }
    }
    let both = [pair.urls[0].as_str(), pair.urls[1].as_str()];
    assert_eq!(suite.run("MultipathIO.Simple", &both), Verdict::Passed, "{when}");
}

#[test]
fn reservations_work_before_and_after_a_takeover() {
    let (Some(etcd), Some(suite)) = (Etcd::start(), Suite::find()) else { return };
    let (mut pair, _wire) = Pair::arbitrated(&etcd);
    reservations_pass(&suite, &pair, "before");
    pair.kill(0);
    pair.wait(1, "takeover", |status| status["role"] == "holder");
    pair.restart(0);
    pair.wait_in_sync(1);
    reservations_pass(&suite, &pair, "after");
}

/// Its session goes on; its commands are held while nobody serves.
#[test]
fn a_host_with_a_path_to_the_standby_alone_rides_out_a_takeover() {
    let Some(etcd) = Etcd::start() else { return };
    let (mut pair, _wire) = Pair::arbitrated(&etcd);
    let path = [pair.urls[1].clone()];
    let load = load_on(&path, "6", "4096");
    pause(Duration::from_millis(800));
    pair.kill(0);
    pair.wait(1, "takeover", |status| status["role"] == "holder");
    let report = verified(load);
    println!("outage through the standby: {} ms", report["longest_stall_ms"]);
    assert!(report["longest_stall_ms"].as_f64() < Some(5000.0), "{report}");
    assert_eq!(report["errors"], 0, "{report}");
    pair.restart(0);
    pair.wait_in_sync(1);
    assert!(finish(pair, 1) < LEG / 2, "by delta");
}

#[test]
fn both_nodes_show_one_lun_through_ports_of_their_own() {
    if !has_tool("iscsi-inq") {
        return;
    }
    let pair = Pair::start();
    let page = |node: usize, page: &str| {
        let arguments = ["-e", "1", "-c", page, &pair.urls[node]];
        let run = std::process::Command::new("iscsi-inq").args(arguments).output().expect("iscsi-inq");
        String::from_utf8_lossy(&run.stdout).into_owned()
    };
    assert_eq!(page(0, "128"), page(1, "128"), "serial number");
    let designators = [page(0, "131"), page(1, "131")];
    assert_ne!(designators[0], designators[1], "the ports differ");
    let unit = |text: &str| {
        text.split("DEVICE DESIGNATOR")
            .filter(|one| one.contains("LOGICAL_UNIT"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let [first, second] = designators.each_ref().map(|text| unit(text));
    assert!(first.len() >= 2 && first == second, "{designators:#?}");
    let configured = pair.node(1).must("iscsi_get_target_nodes", json!(null));
    assert!(configured.to_string().contains("\"standby\":\"forward\""), "{configured}");
}
