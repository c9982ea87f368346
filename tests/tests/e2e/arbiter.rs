//! etcd as its users run it: several endpoints, TLS, client certificates, users; slow, gone, or restored from a backup.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};
use tests::etcd::{Cluster, Etcd};
use tests::node::pause;
use tests::pair::{LEG, Pair, Unusual, gemel};

use crate::failover::{config, key, record};
use crate::pair::{finish, load, undisturbed, verified};

fn arguments<'a>(endpoints: &'a str, credentials: &'a [String]) -> (Vec<&'a str>, Vec<&'a str>) {
    let etcd = ["--etcd", endpoints].into_iter().chain(credentials.iter().map(String::as_str));
    let join: Vec<&str> = etcd.collect();
    let create = ["--policy", "etcd"].into_iter().chain(join.iter().copied()).collect();
    (create, join)
}

fn pair(endpoints: &str, credentials: &[String]) -> Pair {
    let (create, join) = arguments(endpoints, credentials);
    Pair::build(Unusual { create: &create, join: &join, ..Unusual::default() }, |_| {}, None)
}

fn has_event(pair: &Pair, node: usize, event: &str, words: &str) -> bool {
    let events = pair.node(node).must("mirror_get_events", json!({"name": "vol0"}));
    let events = events.as_array().expect("a list");
    events
        .iter()
        .any(|one| one["event"] == event && one["text"].as_str().is_some_and(|text| text.contains(words)))
}

fn wait_for_event(pair: &Pair, node: usize, event: &str, words: &str) {
    pair.wait(node, &format!("{event} with {words:?}"), |_| has_event(pair, node, event, words));
}

/// One endpoint is dead, one takes connections and says nothing, and the last one works.
#[test]
fn endpoints_that_do_not_work_are_passed_over() {
    let Some(etcd) = Etcd::start() else { return };
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let silent = format!("http://{}", silent.local_addr().expect("bound"));
    let mut pair = pair(&format!("http://127.0.0.1:1,{silent},{}", etcd.url()), &[]);
    pair.wait_in_sync(0);
    let load = load(&pair, "6");
    pause(Duration::from_millis(500));
    pair.kill(0);
    pair.wait(1, "takeover", |status| status["role"] == "holder");
    pair.restart(0);
    verified(load);
    assert!(finish(pair, 1) < LEG / 2, "by delta");
}

/// Certificates in both directions, a user and his password, a token that runs out and one that etcd forgot.
#[test]
fn tls_users_and_tokens_are_as_etcd_has_them() {
    let Some(mut etcd) = Etcd::start_closed() else { return };
    let mut pair = pair(&etcd.url(), &etcd.credentials());
    pair.wait_in_sync(0);
    assert_eq!(config(&etcd, &pair)["in_sync"], json!([0, 1]));
    // Tokens last a second here.
    pause(Duration::from_millis(2500));
    pair.kill(1);
    pair.wait(0, "degrade", |status| status["legs"][1]["in_sync"] == false);
    assert_eq!(config(&etcd, &pair)["in_sync"], json!([0]));
    // The new process knows no token of the old one.
    etcd.kill();
    etcd.restart();
    pair.restart(1);
    pair.wait_in_sync(0);
    assert_eq!(config(&etcd, &pair)["in_sync"], json!([0, 1]));
    assert!(!has_event(&pair, 0, "arbiter-silent", ""), "not once");
    verified(load(&pair, "1"));
    assert_eq!(finish(pair, 0), 0);
}

/// As etcd is run in earnest: three members. The one that leads dies in the moment in which the holder does, and another one has to be
/// elected before anybody can take over. Without a majority nothing is decided and nothing is lost.
#[test]
fn the_leader_of_three_dies_with_the_holder_and_then_the_majority() {
    let Some(mut etcd) = Cluster::start() else { return };
    let mut pair = pair(&etcd.urls(), &[]);
    pair.wait_in_sync(0);
    let first = load(&pair, "8");
    pause(Duration::from_millis(500));
    let leader = etcd.leader();
    pair.kill(0);
    etcd.kill(leader);
    pair.wait(1, "takeover", |status| status["role"] == "holder");
    pair.restart(0);
    let report = verified(first);
    let stall = report["longest_stall_ms"].as_f64().expect("a figure");
    println!("outage, holder and etcd's leader killed: {stall:.0} ms");
    // A failover, and an election by etcd's own patience, which starts over where votes are split.
    assert!(stall <= 10_000.0, "{report}");
    pair.wait_in_sync(1);

    let second = load(&pair, "8");
    pause(Duration::from_millis(500));
    let next = etcd.leader();
    etcd.kill(next);
    pair.kill(0);
    wait_for_event(&pair, 1, "frozen", "waiting for the arbiter");
    pause(Duration::from_millis(1000));
    assert_eq!(pair.status(1)["role"], "frozen", "one of three decides nothing");
    etcd.restart(leader);
    pair.wait(1, "degrade", |status| status["legs"][0]["in_sync"] == false && status["role"] == "holder");
    verified(second);
    pair.restart(0);
    assert!(finish(pair, 1) < LEG / 2, "by delta");
}

/// What is wrong is said in words, and the array does not start.
#[test]
fn wrong_credentials_are_told_apart() {
    let Some(etcd) = Etcd::start_closed() else { return };
    let good = etcd.credentials();
    let with = |key: &str, value: &str| {
        let at = good.iter().position(|one| one == key).expect("there");
        let mut changed = good.clone();
        changed[at + 1] = etcd.file(value).display().to_string();
        changed
    };
    std::fs::write(etcd.file("wrong"), "not the password").expect("a file");
    let cases = [
        (with("--etcd-ca", "stranger.pem"), "certificate"),
        (with("--etcd-password-file", "wrong"), "authentication failed"),
        (good[..6].to_vec(), "user name is empty"),
        (good[..2].iter().chain(&good[6..]).cloned().collect(), "ertificate"),
    ];
    for (credentials, words) in cases {
        let pair = pair(&etcd.url(), &credentials);
        let held = pair.wait(0, "a hold with a reason", |status| {
            let reason = status["reason"].as_str().unwrap_or("");
            status["role"] == "consistent-hold" && reason.contains("the arbiter does not answer")
        });
        assert!(held["reason"].as_str().is_some_and(|reason| reason.contains(words)), "{words}: {held:#}");
        assert!(has_event(&pair, 0, "holding", words), "{words}");
    }
}

#[test]
fn an_etcd_without_its_json_gateway_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // As etcd with --enable-grpc-gateway=false.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\nConnection: close\r\n\r\nnot found",
            );
        }
    });
    let pair = pair(&url, &[]);
    let held = pair.wait(0, "a hold with a reason", |status| status["role"] == "consistent-hold");
    assert!(
        held["reason"].as_str().is_some_and(|reason| reason.contains("--enable-grpc-gateway")),
        "{held:#}"
    );
}

/// A slow etcd delays what needs it, and nothing else.
#[test]
fn an_etcd_that_stands_still_for_a_while_is_waited_for() {
    let Some(etcd) = Etcd::start() else { return };
    let mut pair = pair(&etcd.url(), &[]);
    pair.wait_in_sync(0);
    let first = load(&pair, "2");
    etcd.signal("STOP");
    undisturbed(first);
    let second = load(&pair, "6");
    pause(Duration::from_millis(500));
    pair.kill(1);
    wait_for_event(&pair, 0, "frozen", "waiting for the arbiter");
    assert_eq!(pair.status(0)["role"], "frozen");
    etcd.signal("CONT");
    pair.wait(0, "degrade", |status| status["legs"][1]["in_sync"] == false && status["role"] == "holder");
    wait_for_event(&pair, 0, "thawed", "");
    verified(second);
    pair.restart(1);
    assert!(finish(pair, 0) < LEG / 2, "by delta");
}

/// As nodes find it that were upgraded: the program before stored the config alone. And one that goes beyond what this one knows.
#[test]
fn a_record_of_another_program_is_read_and_replaced_or_named() {
    let Some(etcd) = Etcd::start() else { return };
    let mut pair = pair(&etcd.url(), &[]);
    pair.wait_in_sync(0);
    let put = |pair: &Pair, record: &Value| {
        etcd.ctl(&["put", &key(pair), &record.to_string()]).expect("etcd takes it");
    };
    let old = config(&etcd, &pair);
    put(&pair, &old);
    let first = load(&pair, "6");
    pause(Duration::from_millis(500));
    pair.kill(0);
    pair.wait(1, "takeover", |status| status["role"] == "holder");
    let new = record(&etcd, &pair);
    assert_eq!((&new["config"]["holder"], &new["follows"][0]), (&json!(1), &old));
    assert_eq!(new["complete"], true, "{new:#}");
    pair.restart(0);
    verified(first);
    pair.wait_in_sync(1);
    let right = record(&etcd, &pair);
    let mut unknown = right.clone();
    unknown["quorum"] = json!(3);
    put(&pair, &unknown);
    let second = load(&pair, "6");
    pause(Duration::from_millis(500));
    pair.kill(0);
    wait_for_event(&pair, 1, "arbiter-silent", "a newer one's record");
    assert_eq!(pair.status(1)["role"], "frozen");
    put(&pair, &right);
    pair.wait(1, "degrade", |status| status["legs"][0]["in_sync"] == false && status["role"] == "holder");
    verified(second);
    pair.restart(0);
    assert!(finish(pair, 1) < LEG / 2, "by delta");
}

/// A lower generation than a leg has seen is refused by whoever sees it; force is the way out.
#[test]
fn an_etcd_restored_from_a_backup_is_not_believed() {
    let Some(mut etcd) = Etcd::start() else { return };
    let mut pair = pair(&etcd.url(), &[]);
    pair.wait_in_sync(0);
    etcd.back_up();
    pair.kill(1);
    pair.wait(0, "degrade", |status| status["legs"][1]["in_sync"] == false);
    verified(load(&pair, "1"));
    etcd.restore();
    // The holder goes on; what needs a new generation stands still, with an alarm.
    pair.restart(1);
    wait_for_event(&pair, 0, "arbiter-older", "restored from a backup");
    verified(load(&pair, "1"));
    // A standby that misses writes is told by the peer's leg that etcd is old, and does not take over.
    pair.kill(0);
    pause(Duration::from_millis(4000));
    assert_ne!(pair.status(1)["role"], "holder");
    // The holder does not start on a lower generation either.
    pair.restart(0);
    let held = pair.wait(0, "a hold", |status| status["role"] == "consistent-hold");
    pair.wait(0, "the reason", |status| status["reason"].as_str().is_some_and(|why| why.contains("backup")));
    let refused = gemel(pair.node(0), &["may-promote", "vol0"]);
    assert!(!refused.status.success(), "{held}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("arbiter-first:"), "{refused:?}");
    let told = gemel(pair.node(0), &["promote", "vol0", "--force"]);
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("2^32") && told.contains("FORCED") && told.contains("Add --yes"), "{told}");
    let told = pair.node(0).must("mirror_promote", json!({"name": "vol0", "force": true}));
    assert_eq!(told["begun"], false, "{told:#}");
    assert!(told["consequences"].to_string().contains("2^32"), "{told:#}");
    let done = gemel(pair.node(0), &["promote", "vol0", "--force", "--yes"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let status = pair.wait_in_sync(0);
    assert!(status["generation"].as_u64() > Some(1 << 32), "{status:#}");
    assert_eq!(config(&etcd, &pair)["generation"], status["generation"]);
    verified(load(&pair, "1"));
    let _: Value = status;
    finish(pair, 0);
}
