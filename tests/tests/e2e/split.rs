//! A real split: each node went on without the other, one of them by force. What differs is told before anybody picks, and one
//! data set is given up by the operator's word alone.

use std::process::Output;

use serde_json::{Value, json};
use tests::host::{GOOD, Host};
use tests::pair::{LEG, Pair, gemel, must};

use crate::pair::finish;

const HOST: &str = "iqn.2026-11.org.gemel:host";
/// Blocks of 512 bytes, far apart: each is in a granule of its own.
const SHARED: u32 = 0;
const OF_NODE_0: u32 = 20_000;
const OF_NODE_1: u32 = 40_000;

fn write(pair: &Pair, node: usize, block: u32, byte: u8) {
    let mut host = Host::login(&pair.urls[node], HOST);
    host.attentions();
    assert_eq!(host.write(block, byte), GOOD);
}

/// Node 0 goes on alone and is killed; node 1 is promoted by force; node 0 comes back.
fn torn_apart() -> Pair {
    let mut pair = Pair::start();
    write(&pair, 0, SHARED, 1);
    pair.kill(1);
    pair.wait(0, "degrade", |status| status["legs"][1]["in_sync"] == false);
    write(&pair, 0, OF_NODE_0, 0xa0);
    pair.kill(0);
    pair.restart(1);
    pair.wait(1, "standby", |status| status["role"] == "standby");
    must(gemel(pair.node(1), &["promote", "vol0", "--force", "--yes", "--peer-is-down"]));
    write(&pair, 1, OF_NODE_1, 0xb1);
    pair.restart(0);
    for node in [0, 1] {
        pair.wait(node, "a split", |status| {
            status["role"] == "holder" && !status["peer"]["diverged"].is_null()
        });
    }
    pair
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// What both ways of asking have to say: which blocks differ, and who wrote them.
fn check(told: &Value) {
    assert_eq!((&told["relation"], &told["untracked"]), (&json!("split"), &Value::Null), "{told:#}");
    assert_eq!(told["legs"][1]["since"][0]["reason"], "force-promoted", "{told:#}");
    assert_eq!(told["legs"][1]["config"]["forced"], true, "{told:#}");
    let by = |who: &str| {
        let all = told["differences"].as_array().expect("a list");
        let theirs = all.iter().filter(|one| one["by"] == who || one["by"] == "both");
        theirs.map(|one| (one["offset"].as_u64(), one["length"].as_u64())).collect::<Vec<_>>()
    };
    let covers = |who: &str, block: u32| {
        let at = u64::from(block) * 512;
        by(who).iter().any(|(offset, length)| {
            let (offset, length) = (offset.expect("a number"), length.expect("a number"));
            (offset..offset + length).contains(&at)
        })
    };
    assert!(covers("node-0", OF_NODE_0) && covers("node-1", OF_NODE_1), "{told:#}");
    // The two blocks, and nothing else, wherever it is looked.
    let blocks = [OF_NODE_0, OF_NODE_1].map(|block| u64::from(block) * 512 / 4096 * 4096);
    let ranges = blocks.map(|offset| json!({"offset": offset, "length": 4096}));
    assert_eq!(told["verified"]["ranges"], json!(ranges), "{told:#}");
}

#[test]
fn a_split_is_compared_and_resolved_in_favour_of_either_node() {
    for keeps in [0, 1] {
        let pair = torn_apart();
        let other = pair.node(1).socket().display().to_string();
        let diff = |more: &[&str]| {
            let all = [&["--json", "split", "diff", "vol0", "--other", &other, "--verify"], more].concat();
            serde_json::from_str::<Value>(&must(gemel(pair.node(0), &all))).expect("JSON")
        };
        check(&diff(&[]));
        check(&diff(&["--everything"]));
        let told = must(gemel(pair.node(0), &["split", "diff", "vol0", "--other", &other]));
        assert!(told.contains("have diverged") && told.contains("FORCED"), "{told}");

        // Without the word nothing happens, and what it means is said.
        let refused = gemel(pair.node(keeps), &["split", "resolve", "vol0"]);
        assert!(!refused.status.success());
        let refused = text(&refused);
        for words in ["overwritten and cannot be had back", "Nothing has happened", "--yes"] {
            assert!(refused.contains(words), "{refused}");
        }
        let seen = pair.status(keeps)["peer"]["diverged"].clone();
        let params = json!({
            "name": "vol0", "generation": seen["generation"], "nonce": 1, "confirm": true,
        });
        let moved = pair.node(keeps).call("mirror_resolve_split", params).expect_err("another config");
        assert!(moved.to_string().contains("peer-moved"), "{moved}");
        check(&diff(&[]));

        let done = gemel(pair.node(keeps), &["--json", "split", "resolve", "vol0", "--yes", "--wait", "20"]);
        let done: Value = serde_json::from_str(&must(done)).expect("JSON");
        assert!(done["copied_bytes"].as_u64() < Some(LEG / 2), "by delta: {done}");
        pair.wait_in_sync(keeps);
        // Through both nodes the survivor's data set.
        for url in &pair.urls {
            let mut host = Host::login(url, HOST);
            host.attentions();
            let expected = if keeps == 0 { [1, 0xa0, 0] } else { [1, 0, 0xb1] };
            assert_eq!([SHARED, OF_NODE_0, OF_NODE_1].map(|block| host.read(block)), expected.map(Ok));
        }
        let events = must(gemel(pair.node(keeps), &["--json", "events", "vol0"]));
        let events: Vec<Value> = serde_json::from_str(&events).expect("a list");
        let has = |event: &str, reason: &str| {
            events.iter().any(|one| one["event"] == event && one["reason"] == reason)
        };
        assert!(has("split", "split") && has("split-resolving", "command"), "{events:#?}");
        assert!(has("config-changed", "split-resolved") && has("in-sync", "nothing-differs"), "{events:#?}");
        let nothing = gemel(pair.node(keeps), &["split", "resolve", "vol0", "--yes"]);
        assert!(text(&nothing).contains("nothing to resolve"), "{nothing:?}");
        let standby = gemel(pair.node(1 - keeps), &["split", "resolve", "vol0"]);
        assert!(text(&standby).contains("does not serve"), "{standby:?}");
        assert!(finish(pair, keeps) < LEG / 2, "by delta");
    }
}

/// The nodes are down: the legs themselves are asked.
#[test]
fn two_legs_are_compared_without_their_nodes() {
    let mut pair = torn_apart();
    pair.kill(0);
    pair.kill(1);
    let node = tests::node::Node::start(&[]);
    let legs = [pair.leg(0), pair.leg(1)].map(|leg| leg.display().to_string());
    let told = must(gemel(
        &node,
        &["--json", "split", "diff", "--leg", &legs[1], "--leg", &legs[0], "--verify", "--everything"],
    ));
    check(&serde_json::from_str(&told).expect("JSON"));
    let twice = gemel(&node, &["split", "diff", "--leg", &legs[0], "--leg", &legs[0]]);
    assert!(text(&twice).contains("both are leg 0"), "{twice:?}");
    let alone = gemel(&node, &["split", "diff", "--leg", &legs[0]]);
    assert!(text(&alone).contains("name the two legs"), "{alone:?}");
    let blank = node.file("blank", 1 << 20).display().to_string();
    let blank = gemel(&node, &["split", "diff", "--leg", &legs[0], "--leg", &blank]);
    assert!(text(&blank).contains("blank"), "{blank:?}");
}
