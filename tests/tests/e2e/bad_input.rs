//! Bad input gets a clear error, and the node goes on.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};
use tests::load::{load_on, verified};
use tests::node::{Node, pause};

fn raw_answer(node: &Node, text: &str) -> String {
    let mut stream = UnixStream::connect(node.socket()).expect("the socket");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    stream.write_all(text.as_bytes()).expect("sent");
    stream.shutdown(std::net::Shutdown::Write).expect("half closed");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer or the end");
    answer
}

#[test]
fn garbage_on_the_portal_costs_its_connection_and_nothing_else() {
    let node = Node::start(&[]);
    node.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 2048}));
    let url = node.export("m0");
    let portal = url.trim_start_matches("iscsi://").split('/').next().expect("a portal");
    for garbage in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0xff; 4096], &[0x43; 48], &[0; 48]] {
        let mut stream = TcpStream::connect(portal).expect("the portal");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        let from = stream.local_addr().expect("connected").to_string();
        stream.write_all(garbage).expect("sent");
        // The node may be quicker with its end.
        let _ = stream.write_all(garbage);
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let is_over =
            ended.as_ref().map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |_| true);
        assert!(is_over && answer.len() < 1000, "{ended:?} after {garbage:x?}");
        let is_told =
            |entry: &Value| entry["type"] == "iscsi_connection_closed" && entry["ctx"] == from.as_str();
        let told = || node.must("notify_get_notifications", Value::Null);
        // The far end hears of it first.
        let came = (0..100).any(|_| {
            pause(Duration::from_millis(20));
            told().as_array().is_some_and(|all| all.iter().any(is_told))
        });
        assert!(came, "{from}: {:#}", told());
    }
    assert!(node.log().contains("closed: the peer broke the protocol"), "{}", node.log());
    verified(load_on(&[url], "1", "64"));
}

/// By position, as JSON-RPC also allows: every method says no, and none falls over.
#[test]
fn parameters_without_names_are_refused_by_every_method() {
    let node = Node::start(&[]);
    let methods = node.must("rpc_get_methods", Value::Null);
    let methods = methods.as_array().expect("a list");
    // More often than there are places for connections.
    for method in methods.iter().chain(methods).filter_map(Value::as_str) {
        for params in [json!(["a", 512, null, "b"]), json!(["u0", "/nonesuch", 512, null]), json!(7)] {
            let error = node.call(method, params).expect_err(method).to_string();
            assert!(error.contains("(code -32602)") || error.contains("(code -1)"), "{method}: {error}");
        }
    }
    assert_eq!(node.must("bdev_get_bdevs", Value::Null), json!([]));
}

#[test]
fn the_control_socket_refuses_with_codes_and_reasons() {
    let node = Node::start(&[]);
    let refused = |method: &str, params: Value, code: i64, word: &str| {
        let error = node.call(method, params).expect_err(method).to_string();
        assert!(error.contains(&format!("(code {code})")) && error.contains(word), "{method}: {error}");
    };
    refused("no_such_method", Value::Null, -32601, "no_such_method");
    refused(
        "bdev_malloc_create",
        json!({"name": "m", "block_size": "x", "num_blocks": 1}),
        -32602,
        "block_size",
    );
    refused("bdev_malloc_create", json!({"block_size": 513, "num_blocks": 1}), -32602, "512 or 4096");
    refused("bdev_malloc_create", json!({"block_size": 512, "num_blocks": 1, "colour": 3}), -32602, "colour");
    refused("spdk_get_version", json!({}), -32602, "takes none");
    refused("bdev_malloc_delete", json!({"name": "ghost"}), -19, "ghost");
    refused("framework_start_init", Value::Null, -1, "framework_start_init");
    refused("iscsi_delete_portal_group", json!({"tag": 9}), -19, "portal group 9");
    node.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 2048}));
    refused(
        "bdev_malloc_create",
        json!({"name": "m0", "block_size": 512, "num_blocks": 2048}),
        -17,
        "exists",
    );
    node.export("m0");
    refused("bdev_malloc_delete", json!({"name": "m0"}), -16, "LUN 0");
    refused("iscsi_delete_initiator_group", json!({"tag": 1}), -16, "iqn.2026-11.org.gemel:m0");
}

#[test]
fn requests_are_framed_as_spdk_frames_them() {
    let node = Node::start(&[]);
    let answer = raw_answer(
        &node,
        "{\"method\":\"spdk_get_version\",\"id\":1}{\"method\":\"spdk_get_version\"}\n{\"method\":\"x\",\"id\":\"b\"}",
    );
    let lines: Vec<Value> = answer.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2, "a notification gets no answer: {answer}");
    assert_eq!(
        (&lines[0]["id"], &lines[1]["id"], &lines[1]["error"]["code"]),
        (&json!(1), &json!("b"), &json!(-32601))
    );
    let batch = raw_answer(&node, "[{\"method\":\"spdk_get_version\",\"id\":1},{\"method\":\"x\",\"id\":2}]");
    assert_eq!(serde_json::from_str::<Value>(&batch).expect("JSON").as_array().map(Vec::len), Some(2));
    assert_eq!(raw_answer(&node, "hello"), "", "no JSON: closed without an answer");
    let bad = raw_answer(&node, "{\"jsonrpc\":\"1.0\",\"method\":\"x\",\"id\":1}");
    assert!(bad.contains("-32600") && bad.contains("\"id\":null"), "{bad}");
}
