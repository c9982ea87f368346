//! This project's initiator against tgt: every negotiable choice, both digests, CHAP. A verifying load judges the data.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use engine::{Core, MonotonicClock, Pool, PoolConfig, RingConfig, RingHandle, Waker};
use gateway::{Remote, RemoteConfig};
use iscsi::chap::{Account, Algorithm, Credential, Secret};
use iscsi::keys::{Choice, DigestPreference};
use net::tcp::{TcpConfig, TcpNetwork};
use perf::{Load, LoadConfig, Mix, Report};
use serde_json::json;
use tests::host::Host;
use tests::node::{Node, pause};
use tests::pair::gemel;
use tests::tgt::{TARGET, Tgt};

use super::negotiation::carries_data;

fn config(tgt: &Tgt) -> RemoteConfig {
    RemoteConfig { lun: 1, ..RemoteConfig::new("iqn.2026-11.example:initiator", TARGET, tgt.portal) }
}

/// A short verified load over one session.
fn run(config: RemoteConfig, seed: u64) -> Result<Report, String> {
    let pool = Pool::new(PoolConfig::with_memory(16 << 20)).expect("memory");
    let ring = RingHandle::new(RingConfig::default(), &pool, Waker::new().expect("a waker")).expect("a ring");
    let core = Core::new(0, pool, ring);
    let remote = Remote::new("r0", uuid::Uuid::nil(), config);
    let channel = remote.open_over(&core, Box::new(TcpNetwork::new(&core, TcpConfig::default())));
    let load = LoadConfig {
        depth: 8,
        blocks: 128,
        duration: Duration::from_millis(150),
        mix: Mix(40),
        seed,
        patience: Duration::from_secs(2),
        command: None,
    };
    Load::new(core, MonotonicClock::start(), vec![channel], load).run().map_err(|error| error.to_string())
}

fn must_run(config: RemoteConfig, seed: u64, what: &str) {
    let report = run(config, seed).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(report.reads > 0 && report.writes > 0 && report.errors == 0, "{what}: {} errors", report.errors);
    assert!(report.mismatches.is_empty(), "{what}: {:?}", report.mismatches);
}

#[test]
fn every_negotiable_choice_carries_data_whole() {
    let Some(tgt) = Tgt::start() else { return };
    let mut seed = 0;
    for digest in [DigestPreference::Never, DigestPreference::Require] {
        tgt.set_digests(if digest == DigestPreference::Require { "CRC32C" } else { "None" });
        for (initial_r2t, immediate_data) in [
            (Choice::No, Choice::Yes),
            (Choice::No, Choice::No),
            (Choice::Yes, Choice::Yes),
            (Choice::Yes, Choice::No),
        ] {
            for (segment, burst, first) in [(512, 1024, 512), (2048, 8192, 4096), (262_144, 1 << 20, 65_536)]
            {
                seed += 1;
                let mut config = config(&tgt);
                let preferences = &mut config.preferences;
                (preferences.header_digest, preferences.data_digest) = (digest, digest);
                (preferences.initial_r2t, preferences.immediate_data) = (initial_r2t, immediate_data);
                preferences.max_recv_data_segment_length = segment;
                (preferences.max_burst_length, preferences.first_burst_length) = (burst, first);
                let what = format!("{digest:?} {initial_r2t:?} {immediate_data:?} {segment}/{burst}/{first}");
                must_run(config, seed, &what);
            }
        }
    }
}

/// What the choices above leave out, each value with each of the digests. tgt agrees to no recovery, and to data in order alone: what
/// this end asks for beyond that has to come down to it.
#[test]
fn what_tgt_does_not_agree_to_is_done_without() {
    let Some(tgt) = Tgt::start() else { return };
    let digests = [("None", DigestPreference::Avoid), ("CRC32C", DigestPreference::Prefer)];
    let choices = [Choice::Yes, Choice::No];
    for number in 0..24_usize {
        let (header, data) = (digests[number % 2], digests[number / 2 % 2]);
        tgt.set("HeaderDigest", header.0);
        tgt.set("DataDigest", data.0);
        let outstanding = [1, 8][number / 4 % 2];
        tgt.set("MaxOutstandingR2T", &outstanding.to_string());
        let mut config = config(&tgt);
        let preferences = &mut config.preferences;
        (preferences.header_digest, preferences.data_digest) = (header.1, data.1);
        // Many R2Ts for each write.
        (preferences.initial_r2t, preferences.immediate_data) = (Choice::Yes, choices[number / 3 % 2]);
        (preferences.max_burst_length, preferences.first_burst_length) = (4096, 512);
        preferences.max_outstanding_r2t = 8;
        preferences.data_pdu_in_order = choices[number / 8 % 2];
        preferences.data_sequence_in_order = choices[number / 5 % 2];
        preferences.error_recovery_level = number as u32 % 3;
        preferences.max_connections = [1, 2][number / 6 % 2];
        preferences.default_time2wait = [0, 1][number / 7 % 2];
        preferences.default_time2retain = [0, 20][number / 9 % 2];
        preferences.protocol_level = [1, 2][number / 10 % 2];
        let what = format!("{number}: {preferences:?}");
        must_run(config, 100 + number as u64, &what);
    }
}

const HOST: [&str; 2] = ["host", "the-hosts-secret"];
const DISK: [&str; 2] = ["disk", "the-disks-secret"];

fn account(initiator: [&str; 2], target: Option<[&str; 2]>) -> Account {
    let credential = |[name, secret]: [&str; 2]| Credential {
        name: name.into(),
        secret: Secret::new(secret.as_bytes().to_vec()).expect("a secret"),
    };
    Account::new(credential(initiator), target.map(credential)).expect("two secrets")
}

#[test]
fn chap_with_md5_opens_the_door_both_ways_and_nothing_else_does() {
    let Some(tgt) = Tgt::start() else { return };
    let (host, disk) = (HOST, DISK);
    tgt.require_chap(host, disk);
    // Each run has a seed of its own: what it finds of another's would look like its own from before.
    for (seed, (who, opens)) in (300..).zip([
        (None, false),
        (Some(account(host, None)), true),
        (Some(account(host, Some(disk))), true),
        (Some(account(["host", "another-secret"], None)), false),
        (Some(account(host, Some(["disk", "another-secret"]))), false),
        (Some(account(host, Some(["disc", disk[1]]))), false),
    ]) {
        let what = format!("{who:?}");
        // tgt knows MD5 and SHA-1 alone, and gives the latter the number of SHA-256.
        let config = RemoteConfig { account: who, algorithms: vec![Algorithm::Md5], ..config(&tgt) };
        match opens {
            true => must_run(config, seed, &what),
            false => assert!(run(config, seed).is_err(), "{what} is let in"),
        }
    }
}

#[test]
fn a_node_that_is_told_to_offer_md5_imports_a_lun_of_tgt_with_mutual_chap() {
    let Some(tgt) = Tgt::start() else { return };
    tgt.require_chap(HOST, DISK);
    let node = Node::start(&[]);
    let mut import = json!({
        "name": "r0", "initiator_iqn": "iqn.2026-11.example:node", "url": format!("iscsi://{}/{TARGET}/1", tgt.portal),
        "chap": {"user": HOST[0], "secret": HOST[1], "muser": DISK[0], "msecret": DISK[1]},
        "chap_algorithms": ["MD4"],
    });
    let refused = node.call("bdev_iscsi_create", import.clone()).expect_err("no such hash").to_string();
    assert!(refused.contains("MD4") && refused.contains("SHA-256"), "{refused}");
    import["chap_algorithms"] = json!(["md5"]);
    node.must("bdev_iscsi_create", import);
    let up = (0..200).any(|_| {
        pause(Duration::from_millis(20));
        node.must("bdev_get_bdevs", json!({"name": "r0"}))[0]["num_blocks"] == 131_072
    });
    assert!(up, "{}", node.log());
}

/// tgt gives SHA-1 the number of SHA-256: a discovery has to be told what to offer, as an import has.
#[test]
fn tgt_is_discovered_with_chap() {
    let Some(tgt) = Tgt::start() else { return };
    tgt.require_chap_of_discovery(HOST, DISK);
    let node = Node::start(&[]);
    let file = node.folder.path().join("secrets");
    std::fs::write(&file, format!("{}\n{}\n", HOST.join(" "), DISK.join(" "))).expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("mode");
    let (file, portal) = (file.to_str().expect("a path"), tgt.portal.to_string());
    let ask = |with: &[&str]| {
        let output = gemel(&node, &[&["discover", &portal], with].concat());
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let user = ["--user", HOST[0], "--secret-file", file, "--chap-algorithms", "MD5"];
    let mutual = [&user[..], &["--target-user", DISK[0], "--target-secret-file", file]].concat();
    assert!(ask(&[]).contains("uthentication"), "{}", ask(&[]));
    assert!(ask(&user).contains(TARGET), "{}", ask(&user));
    assert!(ask(&mutual).contains(TARGET), "{}", ask(&mutual));
}

#[test]
fn a_node_imports_a_lun_of_tgt_with_every_option() {
    let Some(tgt) = Tgt::start() else { return };
    tgt.set("MaxOutstandingR2T", "8");
    let near = Node::start(&[]);
    let url = format!("iscsi://{}/{TARGET}/1", tgt.portal);
    let every = |yes: bool, level: u32| {
        json!({
            "name": format!("r{level}"), "initiator_iqn": format!("iqn.2026-11.example:node{level}"), "url": url,
            "initial_r2t": yes, "immediate_data": !yes, "data_pdu_in_order": yes, "data_sequence_in_order": !yes,
            "max_burst_length": 8192, "first_burst_length": 4096, "max_recv_data_segment_length": 2048,
            "max_outstanding_r2t": 8, "default_time2wait": 1, "default_time2retain": 20, "protocol_level": 1 + level % 2,
            "error_recovery_level": level, "connections": 2, "header_digest": "avoid", "data_digest": "avoid",
            "silence_ms": 10_000,
        })
    };
    let mut front = None;
    for (lun, (yes, level)) in [(false, 0), (true, 1), (false, 2)].into_iter().enumerate() {
        near.must("bdev_iscsi_create", every(yes, level));
        let name = format!("r{level}");
        let up = (0..200).any(|_| {
            pause(Duration::from_millis(20));
            near.must("bdev_get_bdevs", json!({"name": name}))[0]["num_blocks"] == 131_072
        });
        assert!(up, "{}", near.log());
        let front = front.get_or_insert_with(|| near.export(&name)).trim_end_matches("/0");
        if lun > 0 {
            let node = front.rsplit('/').next().expect("a target");
            near.must("iscsi_target_node_add_lun", json!({"name": node, "bdev_name": name, "lun_id": lun}));
        }
        let mut host = Host::login(&format!("{front}/{lun}"), "iqn.2026-11.org.gemel:host");
        host.attentions();
        carries_data(&mut host, lun, &format!("level {level}: {}", every(yes, level)));
    }
}

#[test]
fn sessions_that_come_again_replace_their_predecessors() {
    let Some(tgt) = Tgt::start() else { return };
    for seed in 0..3 {
        must_run(config(&tgt), 200 + seed, "again");
    }
    let sessions = tgt.must(&["--op", "show", "--mode", "target"]);
    assert!(sessions.matches("I_T nexus:").count() <= 1, "{sessions}");
}
