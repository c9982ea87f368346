//! A pair under a real Pacemaker: what the cluster makes of nodes that die, are fenced, are moved or do not answer, with a load that
//! verifies every block.

use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tests::net::{Net, Toward, Way};
use tests::node::{command_at, pause};
use tests::pacemaker::{Cluster, NAMES};
use tests::pair::{Pair, Unusual, gemel, must};

use crate::pair::verified;

const EXCLUDED: &str = "gemel-vol0-excluded";

/// The order of the fields is the order of their end.
struct Managed {
    cluster: Cluster,
    pair: Pair,
    net: Net,
}

impl Managed {
    /// `None` where namespaces or Pacemaker cannot be had.
    fn start() -> Option<Self> {
        if !Cluster::is_ready() {
            return None;
        }
        let net = Net::start()?;
        let unusual = Unusual { create: &["--policy", "external"], net: Some(&net), ..Unusual::default() };
        let mut pair = Pair::build(unusual, |_| {}, None);
        must(gemel(pair.node(0), &["promote", "vol0"]));
        pair.wait_in_sync(0);
        pair.stop_both(0);
        let mut cluster = Cluster::start(&net, [pair.config(0), pair.config(1)]);
        cluster.wait("a holder", 60, |cluster| holder(cluster).is_some());
        // Until the holder's next monitor its peer counts as out.
        cluster.wait("both to take part", 60, |cluster| {
            ![0, 1].into_iter().any(|index| is_excluded(cluster, index))
        });
        Some(Self { cluster, pair, net })
    }

    /// A load on both paths, for so many seconds.
    fn load(&self, seconds: u32) -> Child {
        static RUNS: AtomicU32 = AtomicU32::new(8_000);
        let run = RUNS.fetch_add(1, Ordering::Relaxed).to_string();
        let load = command_at(&self.net.host(), "gemel-perf")
            .args(["--json", "--depth", "8", "--blocks", "4096", "--reads", "30", "--patience", "120"])
            .args(["--silence-ms", "1000", "--seconds", &seconds.to_string(), "--seed", &run])
            .args(&self.pair.urls)
            .stdout(Stdio::piped())
            .spawn();
        let load = load.expect("gemel-perf is built with the tests");
        pause(Duration::from_secs(1));
        load
    }

    fn wait_for(&mut self, index: usize, legs: usize) {
        let what = format!("{} as the holder with {legs} legs", NAMES[index]);
        self.cluster.wait(&what, 90, |cluster| cluster.serves_with(index, legs));
    }

    fn is_excluded(&self, index: usize) -> bool {
        is_excluded(&self.cluster, index)
    }

    /// The load is over, and nothing is lost.
    fn check(&self, what: &str, load: Child) {
        let report = verified(load);
        let outage = report["longest_stall_ms"].as_f64().expect("a figure");
        println!("outage under Pacemaker, {what}: {outage:.0} ms");
        assert!(outage < 60_000.0, "{report}");
    }
}

/// Whether the cluster has written down that a node must not be promoted, wherever that can be asked.
fn is_excluded(cluster: &Cluster, index: usize) -> bool {
    let asked =
        ["crm_attribute", "--node", NAMES[index], "--name", EXCLUDED, "--lifetime", "forever", "--query"];
    [0, 1].into_iter().any(|at| cluster.run(at, &asked).status.success())
}

/// Who serves with both legs.
fn holder(cluster: &Cluster) -> Option<usize> {
    [0, 1].into_iter().find(|index| cluster.serves_with(*index, 2))
}

#[test]
fn a_cluster_fences_promotes_and_takes_back() {
    let Some(mut managed) = Managed::start() else { return };
    let first = holder(&managed.cluster).expect("one");
    let second = 1 - first;

    // The holder loses its power: it is fenced, and the other one promoted.
    let load = managed.load(14);
    managed.cluster.power_off(first);
    managed.wait_for(second, 1);
    assert_eq!(managed.cluster.fenced, [NAMES[first]]);
    assert!(managed.is_excluded(first), "who misses writes must not be promoted");
    managed.check("the holder's power is cut", load);
    managed.cluster.power_on(first);
    managed.wait_for(second, 2);

    // The standby does: the holder stands still until it was fenced, writes down that it is out, and goes on.
    let load = managed.load(16);
    managed.cluster.power_off(first);
    managed.wait_for(second, 1);
    assert_eq!(managed.cluster.fenced, [NAMES[first]; 2]);
    assert!(managed.is_excluded(first), "who is out must not be promoted");
    managed.check("the standby's power is cut", load);
    managed.cluster.power_on(first);
    managed.wait_for(second, 2);
    managed.cluster.wait("the peer's part again", 60, |cluster| !is_excluded(cluster, first));

    // The operator moves the array; nobody is fenced and nothing is copied.
    let load = managed.load(9);
    managed.cluster.must(second, &["crm_resource", "--resource", "vol0-clone", "--ban", "--promoted"]);
    managed.wait_for(first, 2);
    managed.check("the operator moves the array", load);
    managed.cluster.must(second, &["crm_resource", "--resource", "vol0-clone", "--clear"]);
    assert_eq!(managed.cluster.fenced.len(), 2);
}

#[test]
fn a_cluster_that_is_whole_goes_on_without_the_link_and_fences_a_holder_that_is_stuck() {
    let Some(mut managed) = Managed::start() else { return };
    let first = holder(&managed.cluster).expect("one");
    let second = 1 - first;

    // The replication link alone is lost: both nodes are members as ever, and nobody is fenced.
    let load = managed.load(12);
    managed.net.cut(Way::Link, Toward::Both);
    managed.wait_for(first, 1);
    assert!(managed.is_excluded(second), "who is out must not be promoted");
    pause(Duration::from_secs(3));
    managed.net.heal(Way::Link);
    managed.wait_for(first, 2);
    managed.check("the replication link is lost", load);
    assert_eq!(managed.cluster.fenced, [""; 0]);

    // A holder that does not answer cannot be demoted: it is killed, the node is fenced, and the other one serves.
    let load = managed.load(30);
    managed.cluster.must(first, &["pkill", "-STOP", "gemeld"]);
    managed.wait_for(second, 1);
    managed.check("the holder is stuck", load);
    assert!(managed.cluster.fenced.contains(&NAMES[first]), "{:?}", managed.cluster.fenced);
}

/// The old holder comes back, and the link does not: what the other one has acknowledged since is not here, so nobody serves until that
/// one is back.
#[test]
fn a_cluster_does_not_promote_who_was_left_behind() {
    let Some(mut managed) = Managed::start() else { return };
    let first = holder(&managed.cluster).expect("one");
    let second = 1 - first;
    managed.cluster.power_off(first);
    managed.wait_for(second, 1);
    managed.net.cut(Way::Link, Toward::Both);
    managed.cluster.power_on(first);
    managed.cluster.wait("two members", 60, |cluster| cluster.shows(second, "Online: [ one two ]"));
    managed.cluster.wait("a standby", 60, |cluster| !cluster.status(first)["role"].is_null());
    let load = managed.load(2);
    managed.check("the old holder is back, and the link is not", load);
    managed.cluster.power_off(second);
    managed.cluster.wait("the fence", 60, |cluster| cluster.fenced.len() == 2);
    for _ in 0..15 {
        pause(Duration::from_secs(1));
        assert_ne!(managed.cluster.status(first)["role"], "holder");
    }
    managed.net.heal(Way::Link);
    managed.cluster.power_on(second);
    managed.wait_for(second, 2);
}
