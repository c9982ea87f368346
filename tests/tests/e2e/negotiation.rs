//! Every negotiable choice of RFC 7143 section 13 as an administrator makes it, at the target (`iscsi_set_options`) and at an import
//! (`bdev_iscsi_create`): what both agree on, and that data come through whole.

use std::time::Duration;

use engine::{Clock, MonotonicClock};
use serde_json::{Value, json};
use tests::host::{GOOD, Host, check};
use tests::node::{Node, pause};
use tests::wire::Wire;

use super::import::{far, is_up, params, through};

/// Target, import and the outcome of a key that is Yes when one end says so.
const EITHER: [(bool, bool, bool); 4] =
    [(false, false, false), (true, false, true), (false, true, true), (true, true, true)];
/// The same for one that is Yes when both ends say so.
const BOTH: [(bool, bool, bool); 4] =
    [(true, true, true), (true, false, false), (false, true, false), (false, false, false)];
/// Segment, burst and first burst: each command of the load has one burst, or some, or hundreds.
const LENGTHS: [[u64; 3]; 3] = [[512, 1536, 512], [4096, 65_536, 16_384], [262_144, 1 << 20, 1 << 20]];
/// Blocks of a command.
const COMMANDS: [u16; 5] = [1, 9, 100, 600, 2100];

/// A session's two ends, and what comes of it.
struct Meeting {
    target: Value,
    import: Value,
    agreed: Value,
}

/// The value of a key whose outcome is wanted; who says what changes from session to session.
fn says(table: &[(bool, bool, bool); 4], outcome: bool, number: usize) -> (bool, bool, bool) {
    let those: Vec<_> = table.iter().filter(|row| row.2 == outcome).collect();
    *those[number % those.len()]
}

impl Meeting {
    /// Sessions 0 to 47: each outcome of the four choices at each error recovery level, with the rest in turn.
    fn new(number: usize) -> Self {
        let outcome = |bit: usize| number >> bit & 1 == 1;
        let level = number / 16;
        let r2t = says(&EITHER, outcome(0), number / 3);
        let immediate = says(&BOTH, outcome(1), number / 5);
        let pdus = says(&EITHER, outcome(2), number / 7);
        let sequences = says(&EITHER, outcome(3), number / 2);
        let levels = if number.is_multiple_of(3) { (2, level) } else { (level, 2) };
        let lengths = (LENGTHS[number % 3], LENGTHS[number / 3 % 3]);
        let digest =
            if (number + level).is_multiple_of(2) { ("require", "CRC32C") } else { ("never", "None") };
        let outstanding = ([8, 3, 1][number / 2 % 3], [16, 4][number / 4 % 2]);
        let waits = ([0, 1][number / 8 % 2], [0, 2][number / 5 % 2]);
        let retains = ([20, 5][number % 2], [0, 9][number / 4 % 2]);
        let protocols = ([1, 2][number / 9 % 2], [1, 2][number / 2 % 2]);
        let connections = ([1, 4][number / 7 % 2], [1, 3][number / 3 % 2]);
        let side = |end: fn((bool, bool, bool)) -> bool, [segment, burst, first]: [u64; 3]| {
            json!({
                "initial_r2t": end(r2t), "immediate_data": end(immediate), "data_pdu_in_order": end(pdus),
                "data_sequence_in_order": end(sequences), "max_recv_data_segment_length": segment,
                "max_burst_length": burst, "first_burst_length": first,
            })
        };
        let mut target = side(|row| row.0, lengths.0);
        let mut import = side(|row| row.1, lengths.1);
        let both = [
            ("error_recovery_level", levels),
            ("max_outstanding_r2t", outstanding),
            ("default_time2wait", waits),
            ("default_time2retain", retains),
            ("protocol_level", protocols),
        ];
        for (key, (its, ours)) in both {
            (target[key], import[key]) = (json!(its), json!(ours));
        }
        target["max_connections_per_session"] = json!(connections.0);
        import["connections"] = json!(connections.1);
        (import["header_digest"], import["data_digest"]) = (json!(digest.0), json!(digest.0));
        let (its, ours) = lengths;
        // Above level 0 what is in order comes by one R2T at a time; the import says so before it knows the target.
        let one_at_a_time = (levels.1 > 0 && sequences.1) || (level > 0 && sequences.2);
        // Where nothing comes unasked nobody speaks of a first burst, and the default holds.
        let first = if r2t.2 && !immediate.2 { 65_536 } else { its[2].min(ours[2]) };
        let agreed = json!({
            "header_digest": digest.1, "data_digest": digest.1,
            "max_recv_data_segment_length": its[0], "max_send_data_segment_length": ours[0],
            "max_burst_length": its[1].min(ours[1]), "first_burst_length": first.min(its[1]).min(ours[1]),
            "initial_r2t": r2t.2, "immediate_data": immediate.2,
            "max_outstanding_r2t": if one_at_a_time { 1 } else { outstanding.0.min(outstanding.1) },
            "data_pdu_in_order": pdus.2, "data_sequence_in_order": sequences.2,
            "default_time2wait": waits.0.max(waits.1), "default_time2retain": retains.0.min(retains.1),
            "max_connections_per_session": connections.0.min(connections.1),
            "error_recovery_level": level, "protocol_level": protocols.0.min(protocols.1),
        });
        Self { target, import, agreed }
    }
}

/// The connections of an initiator at the target.
fn sessions(far: &Node, initiator: &str) -> Vec<Value> {
    let all = far.must("iscsi_get_connections", Value::Null);
    let its = all.as_array().expect("a list").iter();
    its.filter(|connection| connection["initiator_name"] == initiator).cloned().collect()
}

/// Writes and reads back commands of all lengths.
pub(super) fn carries_data(host: &mut Host, seed: usize, what: &str) {
    let ten = |opcode: u8, blocks: u16| {
        let [high, low] = blocks.to_be_bytes();
        [opcode, 0, 0, 0, 1, 7, 0, high, low, 0]
    };
    for blocks in COMMANDS {
        let data: Vec<u8> =
            (0..usize::from(blocks) * 512).map(|at| (at / 5 + at / 512 + seed) as u8).collect();
        assert_eq!(host.run(&ten(0x2a, blocks), &data), GOOD, "{what}: {blocks} blocks");
        assert!(host.fetch(&ten(0x28, blocks), data.len()) == data, "{what}: other data in {blocks} blocks");
    }
}

#[test]
fn this_initiator_and_this_target_agree_on_every_choice_and_carry_data() {
    let ((far, url, _), near) = (far(), Node::start(&[]));
    let mut front = None;
    for number in 0..48 {
        let Meeting { target, import, agreed } = Meeting::new(number);
        let (name, initiator) = (format!("r{number}"), format!("iqn.2026-11.org.gemel:importer{number}"));
        let what = format!("{number}: the target {target}, the import {import}");
        far.must("iscsi_set_options", target);
        let mut made = params(&name, &url, &import);
        (made["initiator_iqn"], made["silence_ms"]) = (json!(initiator), json!(10_000));
        near.must("bdev_iscsi_create", made);
        assert!(is_up(&near, &name, 500), "{what}: {}", near.log());
        let front = front.get_or_insert_with(|| near.export(&name)).trim_end_matches("/0");
        if number > 0 {
            let node = front.rsplit('/').next().expect("a target");
            near.must(
                "iscsi_target_node_add_lun",
                json!({"name": node, "bdev_name": name, "lun_id": number}),
            );
        }
        let mut host = Host::login(&format!("{front}/{number}"), "iqn.2026-11.org.gemel:host");
        host.attentions();
        carries_data(&mut host, number, &what);
        let sessions = sessions(&far, &initiator);
        assert!(!sessions.is_empty(), "{what}");
        for connection in sessions {
            assert_eq!(connection["negotiated"], agreed, "{what}");
        }
    }
}

#[test]
fn the_targets_choices_are_kept_and_those_that_cannot_be_are_refused() {
    let node = Node::start(&[]);
    let choices = json!({
        "initial_r2t": true, "immediate_data": false, "data_pdu_in_order": false, "data_sequence_in_order": false,
        "max_burst_length": 8192, "first_burst_length": 4096, "max_outstanding_r2t": 7, "protocol_level": 1,
        "default_time2wait": 3, "default_time2retain": 11,
    });
    let refused = |params: Value, why: &str| {
        let refused = node.call("iscsi_set_options", params.clone()).expect_err("refused").to_string();
        assert!(refused.contains(why), "{params}: {refused}");
    };
    refused(json!({"max_burst_length": 511}), "max_burst_length must be 512 to 16777215");
    refused(
        json!({"max_burst_length": 8192}),
        "first_burst_length (262144) must not be more than max_burst_length (8192)",
    );
    refused(json!({"first_burst_length": 2 << 20}), "first_burst_length must be 512 to 1048576");
    refused(json!({"max_outstanding_r2t": 0}), "max_outstanding_r2t must be 1 to 64");
    refused(json!({"protocol_level": 3}), "protocol_level must be 1 to 2");
    refused(json!({"initial_r2t": "Yes"}), "initial_r2t");
    let shows = |node: &Node, choices: &Value| {
        let shown = node.must("iscsi_get_options", Value::Null);
        for (key, value) in choices.as_object().expect("choices") {
            assert_eq!(&shown[key], value, "{key}");
        }
    };
    shows(
        &node,
        &json!({"initial_r2t": false, "max_burst_length": 1 << 20, "data_pdu_in_order": true,
                         "data_sequence_in_order": true, "max_outstanding_r2t": 4, "protocol_level": 2}),
    );
    node.must("iscsi_set_options", choices.clone());
    shows(&node, &choices);
    let saved = node.save_config();
    let (folder, _) = node.stop();
    let node = Node::start_in(folder, &["--config", saved.to_str().expect("a path")]);
    shows(&node, &choices);
}

/// A connection is reset under a session that takes data in any order: how long it takes until a write is done, and whether the session
/// goes on.
fn lost_and_found(time2wait: u64, time2retain: u64) -> (Duration, bool) {
    let (far, url, portal) = far();
    far.must(
        "iscsi_set_options",
        json!({"data_pdu_in_order": false, "data_sequence_in_order": false, "default_time2retain": time2retain}),
    );
    let (wire, near) = (Wire::to(portal), Node::start(&[]));
    let options = json!({
        "error_recovery_level": 2, "default_time2wait": time2wait, "default_time2retain": 3600, "silence_ms": 10_000,
        "data_pdu_in_order": false, "data_sequence_in_order": false, "initial_r2t": true, "max_burst_length": 4096,
        "first_burst_length": 4096,
    });
    near.must("bdev_iscsi_set_options", json!({"timeout_sec": 20}));
    near.must("bdev_iscsi_create", params("r0", &through(&url, portal, wire.near()), &options));
    assert!(is_up(&near, "r0", 500), "{}", near.log());
    let mut host = Host::login(&near.export("r0"), "iqn.2026-11.org.gemel:host");
    host.attentions();
    carries_data(&mut host, 0, "before");
    let before = sessions(&far, super::import::NAME);
    let agreed = &before[0]["negotiated"];
    assert_eq!(
        (&agreed["default_time2wait"], &agreed["default_time2retain"]),
        (&json!(time2wait), &json!(time2retain))
    );
    let clock = MonotonicClock::start();
    assert!(wire.reset() > 0);
    let lost = clock.now();
    let mut refusals = 0;
    // Where the session ends, what it was at is answered at once, and the host tries again.
    while let outcome @ (2, _) = host.write(7, 3) {
        assert_eq!(outcome, check(0x0800), "{}", near.log());
        refusals += 1;
        pause(Duration::from_millis(20));
    }
    let took = clock.now() - lost;
    assert_eq!(host.read(7), Ok(3), "{}", near.log());
    carries_data(&mut host, 1, "afterwards");
    let same = sessions(&far, super::import::NAME)[0]["tsih"] == before[0]["tsih"];
    assert_eq!(same, refusals == 0, "{refusals} writes were refused");
    (took, same)
}

#[test]
fn a_lost_connection_comes_again_after_time2wait_and_its_session_lasts_for_time2retain() {
    let seconds = Duration::from_secs;
    let (took, same) = lost_and_found(2, 20);
    assert!(same && took >= seconds(2) && took < seconds(8), "{took:?}, same: {same}");
    let (took, same) = lost_and_found(0, 20);
    assert!(same && took < seconds(2), "{took:?}, same: {same}");
    let (took, same) = lost_and_found(2, 0);
    assert!(!same && took >= seconds(2) && took < seconds(8), "nothing is retained: {took:?}, same: {same}");
}

/// A target's digests in the administrator's words, and a session over two portals of one group.
#[test]
fn a_target_has_digests_of_its_own_and_a_session_at_two_portals() {
    let (far, near) = (Node::start(&[]), Node::start(&[]));
    far.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 4096}));
    let portal = json!({"host": "127.0.0.1", "port": "0"});
    far.must("iscsi_create_portal_group", json!({"tag": 1, "portals": [portal, portal]}));
    far.must(
        "iscsi_create_initiator_group",
        json!({"tag": 1, "initiators": ["ANY"], "netmasks": ["127.0.0.1"]}),
    );
    let target = |digest: Value| {
        json!({"name": "iqn.2026-11.org.gemel:m0", "alias_name": "m0", "pg_ig_maps": [{"pg_tag": 1, "ig_tag": 1}],
               "luns": [{"bdev_name": "m0", "lun_id": 0}], "queue_depth": 64, "header_digest": digest, "data_digest": "prefer"})
    };
    let refused =
        far.call("iscsi_create_target_node", target(json!("sometimes"))).expect_err("no word").to_string();
    assert!(refused.contains("prefer, require, avoid, never"), "{refused}");
    for (word, shown) in
        [(json!("require"), json!(true)), (json!(false), json!(false)), (json!("never"), json!("never"))]
    {
        far.must("iscsi_create_target_node", target(word));
        let nodes = far.must("iscsi_get_target_nodes", Value::Null);
        assert_eq!((&nodes[0]["header_digest"], &nodes[0]["data_digest"]), (&shown, &json!("prefer")));
        if shown != "never" {
            far.must("iscsi_delete_target_node", json!({"name": "iqn.2026-11.org.gemel:m0"}));
        }
    }
    let groups = far.must("iscsi_get_portal_groups", Value::Null);
    let ports: Vec<&str> =
        (0..2).map(|at| groups[0]["portals"][at]["port"].as_str().expect("a port")).collect();
    let import = |name: &str, header: &str| {
        json!({"name": name, "initiator_iqn": format!("iqn.2026-11.example:{name}"), "connections": 2,
               "url": format!("iscsi://127.0.0.1:{}/iqn.2026-11.org.gemel:m0/0", ports[0]),
               "more_addresses": [format!("127.0.0.1:{}", ports[1])], "header_digest": header, "data_digest": "require"})
    };
    near.must("bdev_iscsi_create", import("r0", "avoid"));
    let at = |far: &Node| -> Vec<Value> {
        let shown = far.must("iscsi_get_connections", Value::Null);
        shown.as_array().expect("a list").iter().map(|one| one["target_addr"].clone()).collect()
    };
    let both = (0..100).any(|_| {
        pause(Duration::from_millis(20));
        let seen = at(&far);
        seen.len() == 2 && seen[0] != seen[1]
    });
    assert!(both, "{:?}", at(&far));
    near.must("bdev_iscsi_create", import("r1", "require"));
    pause(Duration::from_millis(300));
    assert_eq!(at(&far).len(), 2, "who needs a header digest is not let in");
    let bad = near.call(
        "bdev_iscsi_create",
        json!({"name": "r2", "initiator_iqn": "iqn.2026-11.example:r2",
        "url": "iscsi://127.0.0.1/iqn.x/0", "more_addresses": ["nowhere"]}),
    );
    assert!(bad.expect_err("no portal").to_string().contains("more_addresses"));
}
