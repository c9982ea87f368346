//! A mirrored pair under a verifying load: holders that die, disks that fail, and what an administrator sees.

use std::process::{Command, Stdio};
use std::time::Duration;

use engine::Prng;
use serde_json::{Value, json};
use tests::load::load_on_holder;
pub(crate) use tests::load::{load, load_on, undisturbed, verified};
use tests::node::{Node, binary, pause};
use tests::pair::{LEG, Pair, Unusual, gemel, must};

/// Both legs in sync again; what the resync copied; then both stopped and compared.
pub(crate) fn finish(pair: Pair, holder: usize) -> u64 {
    pair.finish(holder)
}

/// The seed of a test's own dice: another one each time, printed, and `GEMEL_SEED` repeats one.
fn dice() -> Prng {
    let now = || std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos() as u64;
    let seed = std::env::var("GEMEL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(now);
    println!("GEMEL_SEED={seed}");
    Prng::from_seed(seed)
}

/// Twenty times, at random points.
#[test]
fn a_holder_that_is_killed_is_succeeded_by_hand() {
    let mut pair = Pair::start();
    let mut holder = 0;
    let mut dice = dice();
    for _ in 0..20 {
        let load = load(&pair, "1");
        pause(Duration::from_micros(150_000 + dice.below(700_000)));
        pair.kill(holder);
        let next = 1 - holder;
        // The operator sees that it is gone before he acts: on a busy machine it takes a while until a dead process's connections end.
        let try_again = || {
            pause(Duration::from_millis(100));
            gemel(pair.node(next), &["--json", "promote", "vol0"])
        };
        let mut tried = try_again();
        for _ in 0..20 {
            if tried.status.success() {
                break;
            }
            tried = try_again();
        }
        let promoted: Value = serde_json::from_str(&must(tried)).expect("JSON");
        assert_eq!(promoted["outcome"], "promoted");
        pair.wait(next, "promotion", |status| status["role"] == "holder");
        pair.restart(holder);
        verified(load);
        holder = next;
        pair.wait_in_sync(holder);
    }
    assert!(pair.finish(holder) < LEG / 2, "by delta");
}

#[test]
fn both_killed_at_once_lose_nothing() {
    let mut pair = Pair::start();
    let mut dice = dice();
    for _ in 0..3 {
        let load = load(&pair, "2");
        pause(Duration::from_micros(300_000 + dice.below(900_000)));
        pair.kill(0);
        pair.kill(1);
        pair.restart(1);
        pair.restart(0);
        verified(load);
        pair.wait_in_sync(0);
    }
    assert!(pair.finish(0) < LEG / 2, "by delta");
}

/// Hosts write all the while: the nodes end with success in bounded time, and what was acknowledged is on both legs.
#[test]
fn nodes_that_are_stopped_under_load_end_in_order() {
    let mut pair = Pair::start();
    let mut dice = dice();
    for _ in 0..3 {
        let load = load(&pair, "2");
        pause(Duration::from_micros(300_000 + dice.below(600_000)));
        pair.stop_both(0);
        pair.restart(0);
        pair.restart(1);
        verified(load);
        let status = pair.wait_in_sync(0);
        let copied = status["last_resync"]["copied_bytes"].as_u64().unwrap_or(0);
        assert_eq!(copied, 0, "both were told of the end: {status:#}");
    }
    pair.stop_both(0);
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
    let first = load_on_holder(&pair, "4");
    pause(Duration::from_millis(1000));
    let dead = json!({"name": "EE_base", "io_type": "write", "error_type": "failure", "num": 1_000_000});
    pair.node(0).must("bdev_error_inject_error", dead);
    let status = pair.wait(0, "degrade", |status| status["legs"][0]["in_sync"] == false);
    assert_eq!((&status["role"], &status["legs"][0]["state"]), (&json!("holder"), &json!("faulty")));
    undisturbed(first);
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

/// What a host is told is forced to the medium is there after the power went at both nodes, also where writes are cached.
#[test]
fn a_pair_that_caches_keeps_what_was_forced() {
    let mut pair = Pair::create(&["--durability", "sync-cached"]);
    pair.wait_in_sync(0);
    let luns = pair.node(0).must("lun_get_list", Value::Null);
    assert!(
        luns.as_array().is_some_and(|luns| luns
            .iter()
            .any(|lun| lun["target"] == "iqn.2026-11.org.gemel:vol0" && lun["durability"] == "sync-cached")),
        "{luns:#}"
    );
    let first = load(&pair, "3");
    pair.kill(1);
    pair.wait(0, "degrade", |status| status["legs"][1]["in_sync"] == false);
    pair.restart(1);
    verified(first);
    pair.wait_in_sync(0);
    let second = load(&pair, "2");
    pair.kill(0);
    pair.kill(1);
    pair.restart(1);
    pair.restart(0);
    verified(second);
    assert!(finish(pair, 0) < LEG / 2, "by delta");
}

/// `lun list`: what an administrator sees of a LUN that is in use.
#[test]
fn a_lun_in_use_is_listed_with_all_that_belongs_to_it() {
    let pair = Pair::start();
    let load = load(&pair, "2");
    let table = String::from_utf8(gemel(pair.node(0), &["lun", "list"]).stdout).expect("text");
    verified(load);
    let mut lines = table.lines();
    let columns: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let row = lines
        .find(|line| line.split_whitespace().next() == Some("iqn.2026-11.org.gemel:vol0"))
        .expect("the LUN");
    // Words that belong together: `in use`, `90.9 MiB`.
    let row = ["in use", " B", " KiB", " MiB"]
        .iter()
        .fold(row.to_owned(), |row, word| row.replace(word, &word.replace(' ', "_")));
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells.len(), columns.len(), "{table}");
    let cell = |column: &str| cells[columns.iter().position(|one| *one == column).expect(column)].to_owned();
    let backing = pair.leg(0).display().to_string();
    let shown = ["LUN", "STATUS", "SECTOR", "BACKING", "MODE", "DEPTH", "ACL"].map(cell);
    assert_eq!(shown, ["0", "in_use", "512", &backing, "sync-durable", "128", "ANY"], "{table}");
    assert!(cell("ACTIVE").parse::<u32>().is_ok_and(|active| active <= 8), "{table}");
    assert!(!["0_B", "-"].contains(&cell("WRITTEN").as_str()) && cell("SERIAL").len() == 32, "{table}");
}
