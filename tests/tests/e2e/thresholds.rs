//! Soft thresholds of thin provisioning: what administrators and hosts set, and when hosts are told.

use std::time::Duration;

use serde_json::{Value, json};
use tests::host::{GOOD, Host};
use tests::node::{Node, pause};
use tests::pair::{Pair, gemel, must};

const HOST: &str = "iqn.2026-11.org.gemel:host";
/// THIN PROVISIONING SOFT THRESHOLD REACHED.
const REACHED: u16 = 0x3807;
/// Blocks of a threshold set.
const SET: u32 = 1 << 11;

/// Fills threshold sets, with WRITE SAME(10); what the host is told meanwhile.
fn fill(host: &mut Host, sets: std::ops::Range<u32>) -> Vec<u16> {
    let mut told = Vec::new();
    for set in sets {
        let [a, b, c, d] = (set * SET).to_be_bytes();
        loop {
            match host.run(&[0x41, 0, a, b, c, d, 0, 8, 0, 0], &[7; 512]) {
                GOOD => break,
                (_, REACHED) => told.push(REACHED),
                other => panic!("{other:x?}"),
            }
        }
    }
    told
}

/// Available and used threshold sets, as the logical block provisioning log page counts them.
fn counts(host: &mut Host) -> [u32; 2] {
    let page = host.fetch(&[0x4d, 0, 0x4c, 0, 0, 0, 0, 0, 28, 0], 28);
    [8, 20].map(|at| u32::from_be_bytes(page[at..at + 4].try_into().expect("four bytes")))
}

/// What a host is told within a few seconds.
fn told(host: &mut Host) -> Vec<u16> {
    for _ in 0..50 {
        let told = host.attentions();
        if !told.is_empty() {
            return told;
        }
        pause(Duration::from_millis(100));
    }
    Vec::new()
}

/// Time for a look at the storage.
fn look() {
    pause(Duration::from_millis(1300));
}

#[test]
fn an_administrator_has_hosts_told_before_a_file_is_full() {
    let node = Node::start(&[]);
    let file = node.file("disk", 16 << 20);
    node.must("bdev_uring_create", json!({"name": "d0", "filename": file, "block_size": 512}));
    let url = node.export("d0");
    let name = "iqn.2026-11.org.gemel:d0";
    node.must("iscsi_delete_target_node", json!({"name": name}));
    let target = |percent: u8| {
        json!({"name": name, "alias_name": "d0", "pg_ig_maps": [{"pg_tag": 1, "ig_tag": 1}], "queue_depth": 64,
               "luns": [{"bdev_name": "d0", "lun_id": 0, "soft_threshold_percent": percent}]})
    };
    let error = node.call("iscsi_create_target_node", target(101)).expect_err("no share").to_string();
    assert!(error.contains("1 to 100"), "{error}");
    node.must("iscsi_create_target_node", target(25));
    let mut hosts = [HOST, "iqn.2026-11.org.gemel:other"].map(|name| Host::login(&url, name));
    // The default values of the mode page are the administrator's: LBPERE, and a quarter of 16 sets.
    let recovery = hosts[0].fetch(&[0x1a, 0x08, 0x01, 0, 32, 0], 16);
    let page = hosts[0].fetch(&[0x5a, 0x08, 0x9c, 2, 0, 0, 0, 0, 40, 0], 40);
    assert_eq!((recovery[4 + 7], &page[8 + 16..8 + 24]), (0x80, &[0x81, 2, 0, 0, 0, 0, 0, 4][..]));
    look();
    fill(&mut hosts[0], 0..3);
    look();
    assert_eq!(hosts[0].attentions(), [0u16; 0], "below");
    let early = fill(&mut hosts[0], 3..6);
    let told_first = if early.is_empty() { told(&mut hosts[0]) } else { early };
    assert_eq!([told_first, told(&mut hosts[1])], [[REACHED], [REACHED]]);
    let [available, used] = counts(&mut hosts[0]);
    assert!(used >= 6 && available > 0, "{available}, {used}");
    // UNMAP gives it back to the file system, and a second crossing is told, too.
    let [a, b, c, d] = (6 * SET).to_be_bytes();
    let list = [0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d, 0, 0, 0, 0];
    assert_eq!(hosts[0].run(&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &list), GOOD);
    look();
    assert!(counts(&mut hosts[0])[1] <= 1, "{:?}", counts(&mut hosts[0]));
    fill(&mut hosts[0], 0..6);
    assert_eq!(told(&mut hosts[1]), [REACHED]);
}

/// A host sets a threshold at one node, is told of it at both, and finds it again when the other one has taken over.
#[test]
fn thresholds_go_with_a_mirror() {
    let pair = Pair::start();
    let holder = pair.holder();
    pair.wait_in_sync(holder);
    let mut paths = [0, 1].map(|node| Host::login(&pair.urls[node], HOST));
    paths.iter_mut().for_each(|path| drop(path.attentions()));
    let before = counts(&mut paths[holder])[1];
    let mut page = vec![0x5c, 0x02, 0, 28, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let count = before + 4;
    page.extend([&[0x81, 2, 0, 0][..], &count.to_be_bytes(), &[0, 1, 0, 0, 0, 0, 0, 0]].concat());
    // Saved, with LBPERE.
    let list = [&[0; 4][..], &[0x01, 10, 0xc0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0], &page].concat();
    let cdb = [0x15, 0x11, 0, 0, u8::try_from(list.len()).expect("short"), 0];
    assert_eq!(paths[1 - holder].run(&cdb, &list), GOOD, "through the node that stands by");
    assert_eq!(paths[holder].attentions(), [0x2a01], "mode parameters changed");
    look();
    let early = fill(&mut paths[holder], 0..8);
    let told_there = if early.is_empty() { told(&mut paths[holder]) } else { early };
    assert_eq!(told_there, [REACHED]);
    assert_eq!(told(&mut paths[1 - holder]), [REACHED]);
    let used = counts(&mut paths[1 - holder])[1];
    assert!(used >= before + 8, "{used} after {before}");
    let saved = paths[holder].fetch(&[0x5a, 0x08, 0xdc, 2, 0, 0, 0, 0, 40, 0], 40);
    assert_eq!(saved[8 + 16..8 + 24], page[16..24]);

    let next = 1 - holder;
    must(gemel(pair.node(holder), &["switchover", "vol0"]));
    pair.wait(next, "the switchover", |status: &Value| status["role"] == "holder");
    paths[next].attentions();
    let kept = paths[next].fetch(&[0x5a, 0x08, 0x1c, 2, 0, 0, 0, 0, 40, 0], 40);
    assert_eq!(kept[8 + 16..8 + 24], page[16..24]);
    look();
    assert_eq!(paths[next].attentions(), [0u16; 0], "it saw no crossing");
}
