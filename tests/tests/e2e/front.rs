//! The front end of a pair: both nodes show one LUN, the one that does not serve passes commands on, and reservations outlive
//! whoever serves.

use std::time::Duration;

use serde_json::json;
use tests::etcd::Etcd;
use tests::host::{CONFLICT, GOOD, Host, ReserveOut, check};
use tests::node::{has_tool, pause};
use tests::pair::{LEG, Pair, Unusual, gemel, must};
use tests::suite::{Suite, Verdict};

use crate::pair::{finish, load_on, verified};

/// Of libiscsi's suite: what it asks of reservations. Over a pair that nothing has happened to, `conformance` runs it.
const RESERVATIONS: [&str; 3] = ["Prin", "Prout", "Reserve6."];
fn reservations_pass(suite: &Suite, pair: &Pair) {
    let tests = suite.tests();
    let is_of = |test: &&String| RESERVATIONS.iter().any(|family| test.starts_with(family));
    let chosen: Vec<&String> = tests.iter().filter(is_of).collect();
    assert!(chosen.len() > 20, "the suite has them: {chosen:?}");
    for (path, url) in pair.urls.iter().enumerate() {
        for test in &chosen {
            assert_eq!(suite.run(test, &[url]), Verdict::Passed, "{test} through node {path}");
        }
    }
    println!("{} reservation tests passed through each node", chosen.len());
    let both = [pair.urls[0].as_str(), pair.urls[1].as_str()];
    assert_eq!(suite.run("MultipathIO.Simple", &both), Verdict::Passed);
}

const WRITE_EXCLUSIVE_REGISTRANTS_ONLY: u8 = 5;
const EXCLUSIVE_ACCESS: u8 = 3;
const HOST_A: &str = "iqn.2026-11.org.gemel:host-a";
const HOST_B: &str = "iqn.2026-11.org.gemel:host-b";

/// A host with a path to each node, registered through both.
struct TwoPaths {
    paths: [Host; 2],
    keys: [u64; 2],
}

impl TwoPaths {
    fn register(pair: &Pair, name: &str, keys: [u64; 2]) -> Self {
        let mut paths = pair.urls.each_ref().map(|url| Host::login(url, name));
        for (path, key) in paths.iter_mut().zip(keys) {
            path.attentions();
            assert_eq!(path.reserve_out(ReserveOut::Register, 0, 0, key), GOOD);
        }
        Self { paths, keys }
    }

    /// A new session with a node that is back.
    fn reconnect(&mut self, pair: &Pair, node: usize, name: &str) {
        self.paths[node] = Host::login(&pair.urls[node], name);
        self.paths[node].attentions();
    }
}

/// One reservation, before its holder's node is killed, while the other one alone serves it, and through both afterwards.
fn held_across_a_takeover(pair: &mut Pair, holder: usize, kind: u8, reserved_at: usize) {
    let (next, keys) = (1 - holder, [0xa0 + holder as u64, 0xb0 + holder as u64]);
    let mut a = TwoPaths::register(pair, HOST_A, keys);
    let mut b = [0, 1].map(|node| Host::login(&pair.urls[node], HOST_B));
    let key = a.keys[reserved_at];
    assert_eq!(a.paths[reserved_at].reserve_out(ReserveOut::Reserve, kind, key, 0), GOOD);
    for stranger in &mut b {
        stranger.attentions();
        assert_eq!(stranger.write(1, 0xbb), CONFLICT);
    }
    assert_eq!(a.paths[reserved_at].write(1, 0xa1), GOOD);
    let before = (a.paths[next].keys(), a.paths[next].reservation());
    assert_eq!(before.1, Some((key, kind)));

    pair.kill(holder);
    pair.wait(next, "takeover", |status| status["role"] == "holder");
    // The host that was told nothing yet is told that the unit was reset, and that it is reached in another way.
    let told = a.paths[next].attentions();
    assert!(told.contains(&0x2904) && told.contains(&0x2a06), "{told:04x?}");
    assert_eq!((a.paths[next].keys(), a.paths[next].reservation()), before, "type {kind}");
    b[next].attentions();
    assert_eq!((b[next].write(1, 0xbb), a.paths[next].write(1, 0xa2)), (CONFLICT, GOOD), "type {kind}");
    let mut late = Host::login(&pair.urls[next], "iqn.2026-11.org.gemel:host-c");
    assert_eq!(late.write(1, 0xcc), CONFLICT, "a host that comes now");
    let exclusive = kind == EXCLUSIVE_ACCESS;
    assert_eq!(b[next].read(1), if exclusive { Err(CONFLICT) } else { Ok(0xa2) });

    pair.restart(holder);
    pair.wait_in_sync(next);
    a.reconnect(pair, holder, HOST_A);
    b[holder] = Host::login(&pair.urls[holder], HOST_B);
    b[holder].attentions();
    assert_eq!(
        (a.paths[holder].keys(), a.paths[holder].reservation()),
        before,
        "through the node that is back"
    );
    assert_eq!(b[holder].write(1, 0xbb), CONFLICT);
    assert_eq!(a.paths[next].read(1), Ok(0xa2));
    // Unregistered hosts may not clear it; its owner may, through either node.
    assert_eq!(b[next].reserve_out(ReserveOut::Clear, 0, 0, 0), CONFLICT);
    assert_eq!(a.paths[next].reserve_out(ReserveOut::Clear, 0, a.keys[next], 0), GOOD);
    assert_eq!((b[holder].write(1, 0xb1), a.paths[next].read(1)), (GOOD, Ok(0xb1)));
}

#[test]
fn reservations_are_held_across_takeovers_and_pass_the_suite_afterwards() {
    let Some(etcd) = Etcd::start() else { return };
    let suite = Suite::find();
    let (mut pair, _wire) = Pair::arbitrated(&etcd);
    // With registrants alone any path of the host will do; an exclusive one has to be held through the node that stays.
    held_across_a_takeover(&mut pair, 0, WRITE_EXCLUSIVE_REGISTRANTS_ONLY, 0);
    held_across_a_takeover(&mut pair, 1, EXCLUSIVE_ACCESS, 0);
    if let Some(suite) = &suite {
        reservations_pass(suite, &pair);
    }
}

/// Once PREEMPT AND ABORT has status, nothing that the preempted host had under way at the other node lands any more.
#[test]
fn preempt_and_abort_leaves_no_hole_between_the_nodes() {
    const BLOCKS: u32 = 16;
    let pair = Pair::start();
    // The preempted host is at the node that serves, and at the one that does not.
    for (victim_at, by_at) in [(0, 1), (1, 0)] {
        let mut victim = Host::login(&pair.urls[victim_at], HOST_B);
        let mut by = Host::login(&pair.urls[by_at], HOST_A);
        assert_eq!(by.reserve_out(ReserveOut::Register, 0, 0, 1), GOOD);
        for round in 0..20_u8 {
            let (theirs, ours) = (0x40 + round, 0x80 + round);
            victim.attentions();
            assert_eq!(victim.reserve_out(ReserveOut::Register, 0, 0, 2), GOOD);
            assert_eq!(victim.reserve_out(ReserveOut::Reserve, EXCLUSIVE_ACCESS, 2, 0), GOOD);
            by.attentions();
            assert_eq!(by.write(0, ours), CONFLICT);
            for block in 0..BLOCKS {
                victim.send_write(block, theirs);
            }
            let preempt = by.reserve_out(ReserveOut::PreemptAndAbort, EXCLUSIVE_ACCESS, 1, 2);
            assert_eq!(preempt, GOOD, "round {round}");
            for block in 0..BLOCKS {
                assert_eq!(by.write(block, ours), GOOD);
            }
            let told = victim.attentions();
            assert!(told.contains(&0x2a05), "registrations preempted: {told:04x?}");
            assert_eq!(victim.write(0, theirs), CONFLICT);
            for block in 0..BLOCKS {
                assert_eq!(by.read(block), Ok(ours), "round {round}, block {block}");
            }
            assert_eq!(by.reserve_out(ReserveOut::Release, EXCLUSIVE_ACCESS, 1, 0), GOOD);
        }
        assert_eq!(by.reserve_out(ReserveOut::Clear, 0, 1, 0), GOOD);
    }
}

/// SPC-2's RESERVE(6) is not kept beside the data: it goes with a takeover, and with a switchover, and every host is told of
/// a reset before it does anything else.
#[test]
fn older_reservations_go_with_a_reset_when_the_array_moves() {
    const RESERVE: [u8; 6] = [0x16, 0, 0, 0, 0, 0];
    let Some(etcd) = Etcd::start() else { return };
    let (mut pair, _wire) = Pair::arbitrated(&etcd);
    let places = [(0, "host-a"), (1, "host-b"), (1, "host-c")];
    let mut hosts =
        places.map(|(node, name)| Host::login(&pair.urls[node], &format!("iqn.2026-11.org.gemel:{name}")));
    for host in &mut hosts {
        host.attentions();
    }
    assert_eq!(
        (hosts[1].command(&RESERVE), hosts[0].write(1, 1), hosts[2].write(1, 1)),
        (GOOD, CONFLICT, CONFLICT)
    );
    must(gemel(pair.node(0), &["switchover", "vol0"]));
    pair.wait_in_sync(1);
    for host in &mut hosts {
        assert_eq!(host.ready(), check(0x2904));
        host.attentions();
        assert_eq!(host.write(1, 1), GOOD);
    }
    assert_eq!((hosts[2].command(&RESERVE), hosts[1].write(1, 1)), (GOOD, CONFLICT));
    pair.kill(1);
    pair.wait(0, "takeover", |status| status["role"] == "holder");
    assert!(hosts[0].attentions().contains(&0x2904));
    assert_eq!(hosts[0].write(1, 2), GOOD, "whoever reserved it has lost its nexus");
}

/// SET TARGET PORT GROUPS, where the pair lets hosts choose: the array goes to and fro under a load that loses nothing.
#[test]
fn hosts_choose_the_node_where_they_may() {
    const EXPLICIT: u8 = 0x30;
    let explicit = ["--alua", "explicit"];
    let mut pair =
        Pair::build(Unusual { create: &explicit, join: &explicit, ..Unusual::default() }, |_| {}, None);
    pair.wait_in_sync(0);
    let mut hosts = [0, 1].map(|node| Host::login(&pair.urls[node], HOST_A));
    let load = load_on(&pair.urls, "6", "4096");
    // A node knows that a host chose when the command came by it: at the one that serves, or through the other one to it.
    let rounds = [(0, 2, [1, 0]), (0, 1, [1, 1]), (1, 2, [1, 1]), (1, 1, [0, 1])];
    for (round, (host, group, set_by)) in rounds.into_iter().enumerate() {
        hosts[host].attentions();
        assert_eq!(hosts[host].fetch(&[0x12, 0, 0, 0, 96, 0], 96)[5] & 0x30, EXPLICIT);
        let list = [0, 0, 0, 0, 0, 0, 0, group];
        assert_eq!(
            hosts[host].run(&[0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], &list),
            GOOD,
            "round {round}"
        );
        let serves = usize::from(group) - 1;
        pair.wait(serves, "the switchover", |status| status["role"] == "holder");
        pair.wait_in_sync(serves);
        for (host, set_by) in hosts.iter_mut().zip(set_by) {
            host.attentions();
            let groups = host.fetch(&[0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], 64);
            let best: Vec<u8> = groups[4..]
                .chunks_exact(12)
                .filter(|group| group[0] & 15 == 0)
                .map(|group| group[3])
                .collect();
            assert_eq!(best, [group], "round {round}");
            let codes: Vec<u8> = groups[4..].chunks_exact(12).map(|group| group[5]).collect();
            assert_eq!(codes, [set_by; 2], "round {round}");
        }
    }
    // What ends with the reset that a move is to hosts, the load has sent again.
    let report = verified(load);
    println!("longest stall over four switchovers by hosts: {} ms", report["longest_stall_ms"]);
    assert!(report["longest_stall_ms"].as_f64().is_some_and(|stall| stall < 1000.0), "{report}");
    let status = pair.wait_in_sync(0);
    pair.stop_both(0);
    pair.compare(&status);
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
