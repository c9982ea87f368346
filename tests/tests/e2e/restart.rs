//! What a node starts with: after a clean stop, without its peer, after its leg failed, with a leg that is not its own.

use core::time::Duration;
use std::os::unix::fs::symlink;
use std::path::Path;

use mirror::format::UnitState;
use serde_json::{Value, json};
use tests::host::{GOOD, Host};
use tests::load::{load, load_blocks, verified};
use tests::node::{Node, pause};
use tests::pair::{LEG, Pair, Unusual, gemel, must};
use uuid::Uuid;

/// The own leg fails, hosts write all over the volume, and the node is killed and started on the same disk: everything is
/// copied from the peer before the own leg counts.
#[test]
fn a_holder_that_restarts_after_its_leg_was_out_loses_nothing() {
    let mut pair = on_a_faulty_disk(&[]);
    verified(load_blocks(&pair, "1", "64"));
    let dead = json!({"name": "EE_base", "io_type": "write", "error_type": "failure", "num": 1_000_000});
    pair.node(0).must("bdev_error_inject_error", dead);
    verified(load_blocks(&pair, "2", "16384"));
    let status = pair.status(0);
    assert_eq!((&status["role"], &status["legs"][0]["in_sync"]), (&json!("holder"), &json!(false)));
    assert_eq!(status["counters"]["errors"], 0, "{status:#}");
    pair.kill(0);
    pause(Duration::from_millis(100));
    pair.restart(0);
    let status = pair.wait_in_sync(0);
    assert!(status["last_resync"]["copied_bytes"].as_u64() >= status["data_size"].as_u64(), "{status:#}");
    compare(pair, &status);
}

/// Node 0's leg can misbehave.
fn on_a_faulty_disk(create: &[&str]) -> Pair {
    let prepare = |node: &Node| {
        let file = node.file("base", LEG);
        let file = json!({"name": "base", "filename": file, "block_size": 512});
        node.must("bdev_uring_create", file);
        node.must("bdev_error_create", json!({"base_name": "base"}));
    };
    let unusual = Unusual { leg: Some("bdev:EE_base"), create, ..Unusual::default() };
    let pair = Pair::build(unusual, prepare, None);
    pair.wait_in_sync(0);
    pair
}

/// Ends the pair, and compares the legs.
fn compare(mut pair: Pair, status: &Value) {
    pair.stop_both(0);
    let leg = pair.leg(0);
    symlink(leg.with_file_name("base"), &leg).expect("a name for the leg's file");
    pair.compare(status);
}

/// The holder's disk neither does what it is asked nor fails it: hosts wait as long as a disk may take, and go on over the
/// peer's leg. What it does when it answers again is behind what hosts wrote since.
#[test]
fn a_holder_whose_disk_hangs_goes_on_without_it_and_takes_it_back() {
    let pair = on_a_faulty_disk(&["--disk-timeout-ms", "1500"]);
    let hang = json!({"name": "EE_base", "io_type": "all", "error_type": "pending", "num": 1});
    let under_load = load_blocks(&pair, "6", "256");
    pause(Duration::from_millis(500));
    pair.node(0).must("bdev_error_inject_error", hang);
    let report = verified(under_load);
    assert_eq!(report["errors"], 0, "{report}");
    assert!(report["longest_stall_ms"].as_f64() > Some(1000.0), "it hung: {report}");
    let status = pair.status(0);
    assert_eq!((&status["role"], &status["legs"][0]["in_sync"]), (&json!("holder"), &json!(false)));
    let codes = |status: &Value| -> Vec<String> {
        let events = status["transitions"].as_array().expect("transitions").iter();
        events.filter_map(|event| event["event"].as_str().map(str::to_owned)).collect()
    };
    assert!(codes(&status).iter().any(|code| code == "own-disk-hangs"), "{status:#}");
    let heal = json!({"name": "EE_base", "io_type": "clear", "error_type": "pending"});
    pair.node(0).must("bdev_error_inject_error", heal);
    verified(load_blocks(&pair, "1", "256"));
    let status = pair.wait_in_sync(0);
    assert!(codes(&status).iter().any(|code| code == "own-disk-answers"), "{status:#}");
    compare(pair, &status);
}

/// SIGTERM to both at the same moment: the standby stays until its holder has marked both legs clean.
#[test]
fn two_nodes_that_are_told_to_stop_at_once_need_no_resync() {
    let mut pair = Pair::start();
    verified(load_blocks(&pair, "1", "4096"));
    pair.node(1).signal("TERM");
    pair.node(0).signal("TERM");
    pair.stop_both(1);
    pair.restart(0);
    pair.restart(1);
    let status = pair.wait_in_sync(0);
    assert_eq!(status["last_resync"], Value::Null, "{status:#}");
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
    pair.finish(0);
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
    assert!(pair.finish(0) < LEG / 2);
}

/// Puts a record that a newer program might have left beside the data of a leg.
fn leave_strange_record(leg: &Path, array: Uuid) {
    let mut bytes = std::fs::read(leg).expect("the leg");
    let mut state = UnitState::newest(&bytes[..256 << 10], array);
    assert!(!state.content.is_empty(), "the registration is there");
    (state.seq, state.content) = (state.seq + 1, vec![9; 100]);
    let (at, record) = (usize::try_from(state.offset()).expect("an offset"), state.encode(array));
    bytes[at..at + record.len()].copy_from_slice(&record);
    std::fs::write(leg, bytes).expect("the leg");
}

/// Whom it keeps out nobody knows: hosts wait for the operator, who is told, and gives it up.
#[test]
fn a_record_that_cannot_be_read_keeps_hosts_out_until_it_is_given_up() {
    const REGISTER: [u8; 10] = [0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0];
    const READ_KEYS: [u8; 10] = [0x5e, 0, 0, 0, 0, 0, 0, 0, 8, 0];
    let list = |key: u8| [&[0; 15][..], &[key], &[0; 8]].concat();
    let mut pair = Pair::start();
    let mut host = Host::login(&pair.urls[0], "iqn.2026-11.org.gemel:host");
    host.attentions();
    assert_eq!((host.run(&REGISTER, &list(7)), host.write(0, 1)), (GOOD, GOOD));
    drop(host);
    let array = pair.uuid.parse().expect("an array");
    pair.stop_both(0);
    [0, 1].iter().for_each(|index| leave_strange_record(&pair.leg(*index), array));
    pair.restart(0);
    pair.restart(1);
    pair.wait_in_sync(0);
    let mut host = Host::login(&pair.urls[0], "iqn.2026-11.org.gemel:host");
    let kept_out = (0..100).any(|_| {
        pause(Duration::from_millis(50));
        host.write(0, 2) == (2, 0x0403)
    });
    assert!(kept_out, "manual intervention is required: {}", pair.node(0).log());
    assert_eq!(host.read(0), Err((2, 0x0403)));
    let told = pair.node(0).must("notify_get_notifications", json!({"id": 0, "max": 1000}));
    let alarm = |note: &Value| note["type"] == "unit-state-unreadable" && note["ctx"] == "vol0";
    assert!(told.as_array().is_some_and(|notes| notes.iter().any(alarm)), "{told:#}");
    assert!(pair.node(0).log().contains("gemel target give-up-unit-state"), "{}", pair.node(0).log());
    let target = pair.urls[0].split('/').nth(3).expect("a target").to_owned();
    let give_up = ["target", "give-up-unit-state", &target, "0"];
    let asked = gemel(pair.node(0), &give_up);
    assert!(!asked.status.success(), "without --yes it says what that means");
    assert_eq!(host.write(0, 2), (2, 0x0403));
    must(gemel(pair.node(0), &[&give_up[..], &["--yes"]].concat()));
    let lets_in = (0..100).any(|_| {
        pause(Duration::from_millis(50));
        host.write(0, 3) == GOOD
    });
    assert!(lets_in, "{}", pair.node(0).log());
    assert_eq!((host.read(0), host.fetch(&READ_KEYS, 8)[4..].to_vec()), (Ok(3), vec![0; 4]), "no keys");
    assert_eq!(host.run(&REGISTER, &list(8)), GOOD, "what is registered from now on is kept");
    let listed = gemel(pair.node(0), &["events"]);
    let listed = String::from_utf8_lossy(&listed.stdout);
    assert!(listed.contains("alarm   vol0 unit-state-unreadable (record)"), "{listed}");
    assert!(listed.contains("warning vol0 unit-state-given-up (command)"), "{listed}");
    let again = gemel(pair.node(0), &[&give_up[..], &["--yes"]].concat());
    assert!(String::from_utf8_lossy(&again.stderr).contains("nothing to give up"), "{again:?}");
    drop(host);
    let status = pair.wait_in_sync(0);
    pair.stop_both(0);
    pair.compare(&status);
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
