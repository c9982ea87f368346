//! A pair, an etcd and an initiator with a path to each node, each in a network namespace of its own: what dies or is cut,
//! and what the initiator sees of it. Every block is verified; every outage is printed.

use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use engine::{Clock, MonotonicClock};
use serde_json::{Value, json};
use tests::etcd::Etcd;
use tests::net::{Net, Toward, Way};
use tests::node::{command_at, pause};
use tests::pair::{LEG, Pair, Unusual, gemel, must};

use crate::pair::{finish, verified};

/// How patient everybody is, and what that promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    Default,
    Fast,
}

impl Profile {
    fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Fast => "fast",
        }
    }

    /// The longest outage, in milliseconds.
    fn promise(self) -> f64 {
        match self {
            Self::Default => 5000.0,
            Self::Fast => 1500.0,
        }
    }

    /// How long the initiator waits for a path before it uses the other one.
    fn path_silence_ms(self) -> &'static str {
        match self {
            Self::Default => "1000",
            Self::Fast => "300",
        }
    }
}

/// The order of the fields is the order of their end.
struct Fleet {
    pair: Pair,
    etcd: Etcd,
    net: Net,
    profile: Profile,
}

impl Fleet {
    /// `None`, with a line that says so, where namespaces or etcd cannot be had.
    fn start(profile: Profile) -> Option<Self> {
        let net = Net::start()?;
        let etcd = Etcd::start_in(net.host())?;
        let url = |node: usize| format!("http://{}:2379", net.host_address(Way::Control(node)));
        let urls = [url(0), url(1)];
        let create = ["--policy", "etcd", "--etcd", &urls[0], "--profile", profile.word()];
        let join = ["--etcd", &urls[1], "--profile", profile.word()];
        let unusual = Unusual { create: &create, join: &join, net: Some(&net), ..Unusual::default() };
        let pair = Pair::build(unusual, |_| {}, None);
        pair.wait_in_sync(0);
        Some(Self { pair, etcd, net, profile })
    }

    /// A load on both paths, at work when this returns.
    fn load(&self, seconds: u64) -> Child {
        self.load_with(seconds, &[])
    }

    fn load_with(&self, seconds: u64, more: &[&str]) -> Child {
        static RUNS: AtomicU32 = AtomicU32::new(7_000);
        let run = RUNS.fetch_add(1, Ordering::Relaxed).to_string();
        let load = command_at(&self.net.host(), "gemel-perf")
            .args(["--json", "--depth", "8", "--blocks", "4096", "--reads", "30", "--patience", "60"])
            .args(["--silence-ms", self.profile.path_silence_ms()])
            .args(["--seconds", &seconds.to_string(), "--seed", &run])
            .args(more)
            .args(&self.pair.urls)
            .stdout(Stdio::piped())
            .spawn()
            .expect("gemel-perf is built with the tests");
        let holder = self.holder();
        let writes = |status: &Value| status["counters"]["writes"].as_u64().unwrap_or(0);
        let before = writes(&self.pair.status(holder));
        self.pair.wait(holder, "load", |status| writes(status) > before + 100);
        pause(Duration::from_millis(300));
        load
    }

    /// The longest outage of a load that has lost nothing.
    fn outage(&self, what: &str, load: Child, bound: f64) {
        let report = verified(load);
        let outage = report["longest_stall_ms"].as_f64().expect("a figure");
        println!("outage, {} profile, {what}: {outage:.0} ms (at most {bound:.0} ms)", self.profile.word());
        assert!(outage <= bound, "{what}: {report}");
    }

    fn promised(&self, what: &str, load: Child) {
        self.outage(what, load, self.profile.promise());
    }

    /// Both legs in sync again by a delta, and the same bytes.
    fn settle(self, holder: usize) {
        let Self { pair, etcd, net, .. } = self;
        assert!(finish(pair, holder) < LEG / 2, "by delta");
        drop((etcd, net));
    }

    fn wait_for_holder(&self, node: usize) -> Value {
        self.pair.wait(node, "holder", |status| status["role"] == "holder")
    }

    fn holder(&self) -> usize {
        let holds = |node: &usize| self.pair.status(*node)["role"] == "holder";
        let all: Vec<usize> = [0, 1].into_iter().filter(holds).collect();
        assert_eq!(all.len(), 1, "one holder");
        all[0]
    }
}

fn holder_killed(profile: Profile) {
    let Some(mut fleet) = Fleet::start(profile) else { return };
    let load = fleet.load(7);
    fleet.pair.kill(0);
    fleet.wait_for_holder(1);
    fleet.pair.restart(0);
    fleet.promised("holder killed", load);
    fleet.settle(1);
}

#[test]
fn the_holder_is_killed() {
    holder_killed(Profile::Default);
}

#[test]
fn the_holder_is_killed_with_the_fast_profile() {
    holder_killed(Profile::Fast);
}

/// A zombie: it wakes up with commands under way, believes that it is the holder, and must not acknowledge any.
fn holder_frozen(profile: Profile, frozen: Duration) {
    let Some(fleet) = Fleet::start(profile) else { return };
    let load = fleet.load(frozen.as_secs() + 6);
    fleet.pair.node(0).signal("STOP");
    fleet.wait_for_holder(1);
    pause(frozen);
    fleet.pair.node(0).signal("CONT");
    fleet.promised(&format!("holder frozen for {} s", frozen.as_secs()), load);
    let status = fleet.pair.wait(0, "standby", |status| status["role"] == "standby");
    assert_eq!(status["holder"], 1, "{status:#}");
    fleet.settle(1);
}

#[test]
fn the_holder_is_frozen_for_half_a_minute() {
    holder_frozen(Profile::Default, Duration::from_secs(30));
}

/// Four seconds are eight of its leases, and more than twice what the profile promises: a zombie of any age has as little to say.
#[test]
fn the_holder_is_frozen_for_four_seconds_with_the_fast_profile() {
    holder_frozen(Profile::Fast, Duration::from_secs(4));
}

/// Both live: the holder keeps the array, the peer stands by.
fn link_cut(profile: Profile, toward: Toward) {
    let Some(fleet) = Fleet::start(profile) else { return };
    // Longer than the promise: what is healed comes too late to keep it.
    let (seconds, cut) = match profile {
        Profile::Default => (9, 5500),
        Profile::Fast => (6, 2500),
    };
    let load = fleet.load(seconds);
    fleet.net.cut(Way::Link, toward);
    pause(Duration::from_millis(cut));
    let holder = fleet.holder();
    if toward == Toward::Both {
        assert_eq!(holder, 0);
    }
    fleet.net.heal(Way::Link);
    fleet.promised(&format!("link cut ({toward:?})"), load);
    fleet.settle(holder);
}

#[test]
fn the_link_is_cut() {
    link_cut(Profile::Default, Toward::Both);
}

#[test]
fn the_link_is_cut_with_the_fast_profile() {
    link_cut(Profile::Fast, Toward::Both);
}

#[test]
fn the_link_is_cut_in_one_direction() {
    link_cut(Profile::Default, Toward::Far);
}

#[test]
fn the_link_is_cut_in_one_direction_with_the_fast_profile() {
    link_cut(Profile::Fast, Toward::Far);
}

#[test]
fn the_link_is_cut_in_the_other_direction() {
    link_cut(Profile::Default, Toward::Near);
}

#[test]
fn the_link_is_cut_in_the_other_direction_with_the_fast_profile() {
    link_cut(Profile::Fast, Toward::Near);
}

/// The holder can reach nobody but the initiators: it acknowledges nothing more, and the peer has the array. It answers pings, and its
/// commands wait: an initiator finds the other path by the time that it gives a command, and not by what is healed, which comes later
/// than the promise.
fn holder_cut_off(profile: Profile) {
    let Some(fleet) = Fleet::start(profile) else { return };
    let (command_ms, healed_after) = match profile {
        Profile::Default => ("1000", 3500),
        Profile::Fast => ("300", 2000),
    };
    let load = fleet.load_with(9, &["--command-ms", command_ms]);
    fleet.net.cut(Way::Control(0), Toward::Both);
    fleet.net.cut(Way::Link, Toward::Both);
    fleet.wait_for_holder(1);
    pause(Duration::from_millis(healed_after));
    fleet.net.heal(Way::Link);
    fleet.net.heal(Way::Control(0));
    fleet.promised("holder cut off from all", load);
    fleet.settle(1);
}

#[test]
fn the_holder_is_cut_off_from_its_peer_and_from_etcd() {
    holder_cut_off(Profile::Default);
}

#[test]
fn the_holder_is_cut_off_from_its_peer_and_from_etcd_with_the_fast_profile() {
    holder_cut_off(Profile::Fast);
}

fn etcd_stopped(profile: Profile) {
    let Some(mut fleet) = Fleet::start(profile) else { return };
    let load = fleet.load(4);
    fleet.etcd.kill();
    // Nobody needs it while nothing fails.
    fleet.outage("etcd stopped", load, 1000.0);
    fleet.etcd.restart();
    assert_eq!(finish(fleet.pair, 0), 0);
}

#[test]
fn etcd_is_stopped() {
    etcd_stopped(Profile::Default);
}

#[test]
fn etcd_is_stopped_with_the_fast_profile() {
    etcd_stopped(Profile::Fast);
}

/// Nobody may decide: I/O freezes with an alarm until somebody can, and nothing is lost.
fn etcd_stopped_and_link_cut(profile: Profile) {
    let Some(mut fleet) = Fleet::start(profile) else { return };
    let load = fleet.load(14);
    let clock = MonotonicClock::start();
    let began = clock.now();
    fleet.etcd.kill();
    fleet.net.cut(Way::Link, Toward::Both);
    let frozen = fleet.pair.wait(0, "freeze", |status| status["role"] == "frozen");
    assert!(
        frozen["reason"].as_str().is_some_and(|why| why.contains("waiting for the arbiter")),
        "{frozen:#}"
    );
    pause(Duration::from_millis(4000));
    assert_eq!(fleet.pair.status(1)["role"], "standby");
    fleet.etcd.restart();
    let away = clock.now() - began;
    fleet
        .pair
        .wait(0, "decision", |status| status["role"] == "holder" && status["legs"][1]["in_sync"] == false);
    fleet.net.heal(Way::Link);
    let report = verified(load);
    let frozen = report["longest_stall_ms"].as_f64().expect("a figure");
    let longer = frozen - away.as_secs_f64() * 1000.0;
    println!(
        "frozen while etcd and the link were away: {frozen:.0} ms, of it after etcd was back {longer:.0} ms"
    );
    assert!(frozen > 4000.0 && longer <= fleet.profile.promise(), "{report}");
    let events = must(gemel(fleet.pair.node(0), &["--json", "events"]));
    let events: Vec<Value> = serde_json::from_str(&events).expect("a list");
    let frozen = events.iter().find(|event| event["event"] == "frozen").expect("an alarm");
    assert_eq!((&frozen["severity"], &frozen["reason"]), (&json!("alarm"), &json!("arbiter-silent")));
    fleet.settle(0);
}

#[test]
fn etcd_is_stopped_and_the_link_is_cut() {
    etcd_stopped_and_link_cut(Profile::Default);
}

#[test]
fn etcd_is_stopped_and_the_link_is_cut_with_the_fast_profile() {
    etcd_stopped_and_link_cut(Profile::Fast);
}

fn both_lose_power(profile: Profile) {
    let Some(mut fleet) = Fleet::start(profile) else { return };
    let load = fleet.load(8);
    fleet.pair.kill(0);
    fleet.pair.kill(1);
    fleet.pair.restart(0);
    fleet.pair.restart(1);
    fleet.promised("both nodes killed, both started again", load);
    let holder = fleet.holder();
    fleet.settle(holder);
}

#[test]
fn both_nodes_lose_power() {
    both_lose_power(Profile::Default);
}

#[test]
fn both_nodes_lose_power_with_the_fast_profile() {
    both_lose_power(Profile::Fast);
}

/// There and back, under load: a short pause, both legs in sync all the time, nothing copied.
#[test]
fn a_planned_switchover_is_a_short_pause() {
    let Some(fleet) = Fleet::start(Profile::Default) else { return };
    for from in [0, 1, 0, 1] {
        let load = fleet.load(3);
        must(gemel(fleet.pair.node(from), &["switchover", "vol0"]));
        fleet.outage("planned switchover", load, 200.0);
        let status = fleet.pair.wait_in_sync(1 - from);
        assert_eq!(
            (&status["config_reason"], &status["dirty_bytes"]),
            (&json!("planned switchover"), &json!(0))
        );
    }
    let Fleet { mut pair, .. } = fleet;
    let status = pair.wait_in_sync(0);
    assert_eq!(status["last_resync"], Value::Null, "nothing was copied");
    pair.stop_both(0);
    pair.compare(&status);
}

/// A cluster manager's agent: demote one, promote the other; a demoted node does not come back by itself.
#[test]
fn a_demoted_holder_makes_way_for_the_other() {
    let Some(fleet) = Fleet::start(Profile::Default) else { return };
    let load = fleet.load(5);
    must(gemel(fleet.pair.node(0), &["demote", "vol0"]));
    assert_eq!(fleet.pair.status(0)["reason"], "demoted: promote this node or the other one");
    must(gemel(fleet.pair.node(1), &["promote", "vol0"]));
    fleet.promised("demoted and promoted", load);
    let may = gemel(fleet.pair.node(1), &["--json", "may-promote", "vol0"]);
    assert!(!may.status.success());
    assert!(String::from_utf8_lossy(&may.stdout).contains("\"code\": \"already-holder\""), "{may:?}");
    fleet.settle(1);
}
