//! Events: every change of a mirror leaves one that a program can read.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tests::host::Host;
use tests::node::{Node, binary, pause};
use tests::pair::{Pair, gemel, must};

#[test]
fn a_node_shows_its_limits_and_how_much_of_them_is_used() {
    let node = Node::start(&[]);
    node.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 65536}));
    let url = node.export("m0");
    let used = |what: &str| {
        let shown = node.must("node_get_limits", Value::Null);
        let all = shown["target"].as_array().expect("a list").clone();
        let one = all.iter().find(|one| one["name"] == what).expect("a limit").clone();
        assert!(one["limit"].as_u64() > Some(0), "{shown}");
        assert!(shown["memory"]["frames"].as_array().is_some_and(|classes| !classes.is_empty()), "{shown}");
        one["used"].as_u64()
    };
    assert_eq!((used("connections"), used("sessions")), (Some(0), Some(0)));
    let host = Host::login(&url, "iqn.2026-11.org.gemel:host");
    assert_eq!((used("connections"), used("sessions")), (Some(1), Some(1)));
    let text = must(gemel(&node, &["limits"]));
    assert!(text.contains("sessions") && text.contains("frames of"), "{text}");
    drop(host);
}

/// `gemel ... | head`: the reader of a pipe is gone before something is printed.
#[test]
fn a_reader_that_is_gone_is_no_error() {
    let node = Node::start(&[]);
    node.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 65536}));
    let url = node.export("m0");
    let socket = node.socket().to_str().expect("a path").to_owned();
    let runs: [(&str, &[&str]); 4] = [
        ("gemel", &["--socket", &socket, "bdev", "list"]),
        ("gemel", &["--socket", &socket, "status", "--watch"]),
        ("gemel", &["--socket", &socket, "--json", "rpc", "no_such_method"]),
        ("gemel-perf", &["--seconds", "1", "--blocks", "64", &url]),
    ];
    for (program, arguments) in runs {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ended = Command::new(binary(program)).args(arguments).stdout(writer).output().expect("built");
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{program} {arguments:?}");
        let code = if arguments.contains(&"no_such_method") { 1 } else { 0 };
        assert_eq!(ended.status.code(), Some(code), "{program} {arguments:?}");
    }
}

pub(crate) fn events(pair: &Pair, node: usize) -> Vec<Value> {
    let text = must(gemel(pair.node(node), &["--json", "events", "vol0"]));
    serde_json::from_str(&text).expect("a list")
}

pub(crate) fn has(events: &[Value], event: &str, reason: &str) -> bool {
    events.iter().any(|one| one["event"] == event && one["reason"] == reason)
}

#[test]
fn a_lost_peer_and_its_return_leave_events_on_both_nodes() {
    let mut pair = Pair::start();
    let mut follower = Command::new(binary("gemel"))
        .arg("--socket")
        .arg(pair.node(0).socket())
        .args(["--json", "events", "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("gemel is built with the tests");
    pair.kill(1);
    pair.wait(0, "degrade", |status| status["legs"][1]["in_sync"] == false);
    pair.restart(1);
    pair.wait_in_sync(0);

    let seen = events(&pair, 0);
    for (event, reason) in [
        ("formatting", "new-array"),
        ("serving", "config-durable"),
        ("peer-unreachable", "link-lost"),
        ("config-changed", "link-lost"),
        ("resync-begun", "bits-set"),
        ("config-changed", "rejoined"),
        ("in-sync", "nothing-differs"),
        ("peer-joined", "in-sync"),
    ] {
        assert!(has(&seen, event, reason), "no {event} ({reason}) in {seen:#?}");
    }
    let ids: Vec<_> = seen.iter().map(|event| event["id"].as_u64().expect("an id")).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    let lost = seen.iter().find(|event| event["reason"] == "link-lost" && event["event"] == "config-changed");
    let lost = lost.expect("just seen");
    assert_eq!((&lost["severity"], &lost["data"]["in_sync"]), (&json!("warning"), &json!([0])), "{lost}");
    // The standby learns of each config, and says so.
    assert!(has(&events(&pair, 1), "config-changed", "rejoined"), "{:#?}", events(&pair, 1));

    let lines = BufReader::new(follower.stdout.take().expect("piped")).lines();
    let followed = lines.map(|line| serde_json::from_str::<Value>(&line.expect("text")).expect("JSON"));
    let caught: Vec<Value> = followed.take(seen.len()).collect();
    assert_eq!(caught, seen, "the follower sees the same");
    follower.kill().expect("it runs");
    follower.wait().expect("a child");

    let types = pair.node(0).must("notify_get_types", Value::Null);
    let notes = pair.node(0).must("notify_get_notifications", json!({"id": 0, "max": 1000}));
    let notes = notes.as_array().expect("a list");
    assert!(notes.iter().all(|note| types.as_array().expect("a list").contains(&note["type"])), "{notes:?}");
    assert!(notes.iter().any(|note| note["type"] == "bdev_register" && note["ctx"] == "vol0"), "{notes:?}");
    let from = pair.node(0).must("notify_get_notifications", json!({"id": 2, "max": 1}));
    assert_eq!((from[0]["id"].as_u64(), from.as_array().map(Vec::len)), (Some(2), Some(1)));
}

fn soon(mut done: impl FnMut() -> bool) -> bool {
    (0..500).any(|_| {
        pause(Duration::from_millis(10));
        done()
    })
}

/// A command that vanishes in the far node's storage, seen from a host of the near one.
#[test]
fn an_io_that_hangs_behind_an_import_is_aborted_and_told_rung_by_rung() {
    let (far, near) = (Node::start(&[]), Node::start(&[]));
    far.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 65536}));
    far.must("bdev_error_create", json!({"base_name": "m0"}));
    let url = far.export("EE_m0");
    let options = json!({"timeout_sec": 1, "abort_timeout_ms": 400, "reset_timeout_ms": 400});
    near.must("bdev_iscsi_set_options", options);
    let import = json!({"name": "r0", "initiator_iqn": "iqn.2026-11.example:near", "url": url});
    near.must("bdev_iscsi_create", import);
    let up = || near.must("bdev_get_bdevs", json!({"name": "r0"}))[0]["num_blocks"] == 65536;
    assert!(soon(up), "{}", near.log());
    let mut host = Host::login(&near.export("r0"), "iqn.2026-11.example:host");
    assert_eq!(host.write(0, 1), (0, 0));
    let hang = json!({"name": "EE_m0", "io_type": "write", "error_type": "pending"});
    let heal = json!({"name": "EE_m0", "io_type": "clear", "error_type": "pending"});
    let told = || -> Vec<String> {
        let all = near.must("notify_get_notifications", json!({"id": 0, "max": 1000}));
        let of_import = |note: &&Value| note["type"].as_str().is_some_and(|kind| kind.starts_with("import_"));
        let late: Vec<Value> = all.as_array().expect("a list").iter().filter(of_import).cloned().collect();
        assert!(late.iter().all(|note| note["ctx"] == "r0"), "{late:?}");
        late.iter().map(|note| note["type"].as_str().expect("a word").replace("import_", "")).collect()
    };
    // The abort waits for the storage, and is answered when that is well again.
    far.must("bdev_error_inject_error", hang.clone());
    let write = host.send_write(0, 2);
    assert!(soon(|| told() == ["abort_task"]), "{:?}", told());
    far.must("bdev_error_inject_error", heal.clone());
    assert_ne!(host.end(write).0, (0, 0), "a write that was aborted");
    assert_eq!(host.write(0, 3), (0, 0));
    assert_eq!(told(), ["abort_task"]);
    // Storage that stays as it is: the whole way up.
    far.must("bdev_error_inject_error", hang);
    let write = host.send_write(0, 4);
    assert_ne!(host.end(write).0, (0, 0));
    assert_eq!(told()[1..], ["abort_task", "lun_reset", "session_drop"]);
    far.must("bdev_error_inject_error", heal);
    assert!(soon(|| host.write(0, 5) == (0, 0)), "{}", near.log());
    assert_eq!(host.read(0), Ok(5));
}
