//! What an import is told by the options of `bdev_iscsi_create`: what goes over the wire for each, and that data come through whole.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::{Clock, MonotonicClock};
use serde_json::{Value, json};
use tests::host::{GOOD, Host};
use tests::node::{Node, pause};
use tests::wire::Wire;

pub(super) const NAME: &str = "iqn.2026-11.org.gemel:importer";
pub(super) const BLOCKS: u64 = 65536;

/// Passes connections on, and keeps what both ends say.
struct Tap {
    near: SocketAddr,
    said: Arc<Mutex<Vec<u8>>>,
}

fn pump(mut from: TcpStream, mut to: TcpStream, said: &Mutex<Vec<u8>>) {
    let mut bytes = [0; 65536];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        said.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes[..count]);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(std::net::Shutdown::Both), to.shutdown(std::net::Shutdown::Both));
}

impl Tap {
    fn on(far: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let near = listener.local_addr().expect("bound");
        let said = Arc::new(Mutex::new(Vec::new()));
        let kept = said.clone();
        std::thread::spawn(move || {
            while let Ok((host, _)) = listener.accept() {
                let Ok(target) = TcpStream::connect(far) else { continue };
                let ends = [host.try_clone(), target.try_clone()].map(|end| end.expect("a handle"));
                let [host_again, target_again] = ends;
                for (from, to) in [(host, target_again), (target, host_again)] {
                    let kept = kept.clone();
                    std::thread::spawn(move || pump(from, to, &kept));
                }
            }
        });
        Self { near, said }
    }

    /// The key and value pairs since the last look.
    fn pairs(&self) -> Vec<String> {
        let said = std::mem::take(&mut *self.said.lock().unwrap_or_else(PoisonError::into_inner));
        let words = said.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok());
        words.filter(|word| word.contains('=')).map(str::to_owned).collect()
    }
}

pub(super) fn far() -> (Node, String, SocketAddr) {
    let far = Node::start(&[]);
    far.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": BLOCKS}));
    let url = far.export("m0");
    let portal = url.trim_start_matches("iscsi://").split('/').next().expect("a portal");
    let portal = portal.parse().expect("an address");
    (far, url, portal)
}

pub(super) fn through(url: &str, portal: SocketAddr, near: SocketAddr) -> String {
    url.replace(&portal.to_string(), &near.to_string())
}

/// The parameters of an import of this URL, with these options.
pub(super) fn params(name: &str, url: &str, options: &Value) -> Value {
    let mut params = json!({"name": name, "initiator_iqn": NAME, "url": url});
    for (key, value) in options.as_object().expect("options") {
        params[key] = value.clone();
    }
    params
}

pub(super) fn is_up(node: &Node, name: &str, looks: u32) -> bool {
    (0..looks).any(|_| {
        pause(Duration::from_millis(20));
        node.must("bdev_get_bdevs", json!({"name": name}))[0]["num_blocks"] == BLOCKS
    })
}

/// Writes and reads back 64 KiB through an import, and 128 times a block.
fn carries_data(node: &Node, name: &str) {
    let mut host = Host::login(&node.export(name), "iqn.2026-11.org.gemel:host");
    host.attentions();
    let data: Vec<u8> = (0..65536_u32).map(|at| (at / 7) as u8).collect();
    let ten = |opcode: u8| [opcode, 0, 0, 0, 4, 0, 0, 0, 128, 0];
    assert_eq!(host.run(&ten(0x2a), &data), GOOD, "{name}: {}", node.log());
    assert!(host.fetch(&ten(0x28), data.len()) == data, "{name}: other data");
}

#[test]
fn each_option_is_what_goes_over_the_wire() {
    let (far, url, portal) = far();
    let tap = Tap::on(portal);
    let url = through(&url, portal, tap.near);
    // Options, and what the import offers for them.
    let cases: [(Value, &[&str]); 7] = [
        (
            json!({"header_digest": "require", "data_digest": "require"}),
            &["HeaderDigest=CRC32C", "DataDigest=CRC32C"],
        ),
        (
            json!({"header_digest": "prefer", "data_digest": "avoid"}),
            &["HeaderDigest=CRC32C,None", "DataDigest=None,CRC32C"],
        ),
        (
            json!({"header_digest": "never", "data_digest": "never"}),
            &["HeaderDigest=None", "DataDigest=None"],
        ),
        (json!({"initial_r2t": true, "immediate_data": false}), &["InitialR2T=Yes", "ImmediateData=No"]),
        (
            json!({"max_burst_length": 8192, "first_burst_length": 4096, "max_recv_data_segment_length": 2048,
                   "max_outstanding_r2t": 3, "initial_r2t": false, "immediate_data": true}),
            &[
                "MaxBurstLength=8192",
                "FirstBurstLength=4096",
                "MaxRecvDataSegmentLength=2048",
                "MaxOutstandingR2T=3",
                "InitialR2T=No",
                "ImmediateData=Yes",
            ],
        ),
        (json!({"error_recovery_level": 2, "connections": 2}), &["ErrorRecoveryLevel=2", "MaxConnections=2"]),
        (
            json!({"data_pdu_in_order": false, "data_sequence_in_order": false, "protocol_level": 2,
                   "default_time2wait": 1, "default_time2retain": 7, "error_recovery_level": 2}),
            &[
                "DataPDUInOrder=No",
                "DataSequenceInOrder=No",
                "iSCSIProtocolLevel=2",
                "DefaultTime2Wait=1",
                "DefaultTime2Retain=7",
            ],
        ),
    ];
    for (number, (options, offers)) in cases.iter().enumerate() {
        let (near, name) = (Node::start(&[]), format!("r{number}"));
        tap.pairs();
        near.must("bdev_iscsi_create", params(&name, &url, options));
        assert!(is_up(&near, &name, 250), "{options}: {}", near.log());
        let pairs = tap.pairs();
        for offer in *offers {
            assert!(pairs.iter().any(|pair| pair.ends_with(offer)), "{options}: no {offer} in {pairs:?}");
        }
        assert!(pairs.iter().any(|pair| pair.ends_with(&format!("InitiatorName={NAME}"))), "{pairs:?}");
        carries_data(&near, &name);
    }
    drop(far);
}

#[test]
fn both_ends_must_agree() {
    let (far, url, portal) = far();
    let near = Node::start(&[]);
    let target = "iqn.2026-11.org.gemel:m0";
    far.must(
        "iscsi_create_auth_group",
        json!({"tag": 1, "secrets": [
        {"user": "host", "secret": "a-secret-of-hosts", "muser": "disk", "msecret": "a-secret-of-disks"}]}),
    );
    far.must(
        "iscsi_target_node_set_auth",
        json!({"name": target, "mutual_chap": true, "require_chap": true, "chap_group": 1}),
    );
    let chap = |secret: &str, msecret: &str| {
        json!({"chap": {"user": "host", "secret": secret, "muser": "disk", "msecret": msecret},
               "chap_algorithms": ["SHA3-256", "SHA-256"]})
    };
    let wrong = [
        json!({}),
        chap("another-of-hosts!", "a-secret-of-disks"),
        chap("a-secret-of-hosts", "another-of-disks!"),
    ];
    for (number, options) in wrong.iter().enumerate() {
        let name = format!("w{number}");
        near.must("bdev_iscsi_create", params(&name, &url, options));
        assert!(!is_up(&near, &name, 25), "{options}");
        near.must("bdev_iscsi_delete", json!({"name": name}));
    }
    let tap = Tap::on(portal);
    let right = chap("a-secret-of-hosts", "a-secret-of-disks");
    near.must("bdev_iscsi_create", params("right", &through(&url, portal, tap.near), &right));
    assert!(is_up(&near, "right", 250), "{}", near.log());
    let pairs = tap.pairs();
    assert!(pairs.iter().any(|pair| pair.ends_with("CHAP_A=8,7")), "in this order: {pairs:?}");
    assert!(pairs.iter().all(|pair| !pair.contains("-of-")), "no secret goes over the wire");
    carries_data(&near, "right");
}

/// `silence_ms`: how soon a far end that says nothing counts as dead.
#[test]
fn a_silent_far_end_is_noticed_in_the_time_that_is_said() {
    let (_far, url, portal) = far();
    let wire = Wire::to(portal);
    let near = Node::start(&[]);
    let url = through(&url, portal, wire.near());
    near.must("bdev_iscsi_create", params("quick", &url, &json!({"silence_ms": 400})));
    assert!(is_up(&near, "quick", 250), "{}", near.log());
    let mut host = Host::login(&near.export("quick"), "iqn.2026-11.org.gemel:host");
    host.attentions();
    assert_eq!(host.write(0, 1), GOOD);
    wire.cut();
    let clock = MonotonicClock::start();
    let cut = clock.now();
    assert_ne!(host.write(0, 2), GOOD);
    // An I/O has half a minute, unless the session ends before.
    let took = clock.now() - cut;
    assert!(took < Duration::from_secs(10), "{took:?}");
    wire.heal();
    let back = (0..100).any(|_| {
        pause(Duration::from_millis(50));
        host.write(0, 3) == GOOD
    });
    assert!(back, "{}", near.log());
}

#[test]
fn an_option_that_cannot_be_is_refused_by_its_name() {
    let near = Node::start(&[]);
    let url = "iscsi://127.0.0.1:3260/iqn.2026-11.example:t0/0";
    let cases = [
        (json!({"error_recovery_level": 3}), "error_recovery_level must be 0, 1 or 2"),
        (json!({"connections": 0}), "connections must be 1 to 16"),
        (json!({"connections": 17}), "connections must be 1 to 16"),
        (json!({"max_burst_length": 511}), "max_burst_length must be 512 to 16777215"),
        (json!({"first_burst_length": 16_777_216}), "first_burst_length must be 512 to 16777215"),
        (json!({"max_recv_data_segment_length": 0}), "max_recv_data_segment_length must be 512 to 16777215"),
        (json!({"max_outstanding_r2t": 0}), "max_outstanding_r2t must be 1 to 65535"),
        (json!({"default_time2wait": 3601}), "default_time2wait must be 0 to 3600"),
        (json!({"default_time2retain": 3601}), "default_time2retain must be 0 to 3600"),
        (json!({"protocol_level": 0}), "protocol_level must be 1 to 2"),
        (
            json!({"first_burst_length": 2048, "max_burst_length": 1024}),
            "first_burst_length (2048) must not be",
        ),
        (json!({"chap_algorithms": []}), "chap_algorithms"),
        (json!({"chap_algorithms": ["SHA-0"]}), "SHA-0"),
        (json!({"header_digest": "sometimes"}), "sometimes"),
        (json!({"silence_ms": 0}), "silence_ms"),
        (json!({"initiator_iqn": "nobody"}), "initiator_iqn"),
        (json!({"url": "iscsi://nowhere"}), "iscsi://nowhere"),
        (json!({"uuid": "none"}), "uuid"),
        (json!({"colour": "blue"}), "colour"),
    ];
    for (options, why) in cases {
        let refused = near.call("bdev_iscsi_create", params("r0", url, &options)).expect_err("refused");
        assert!(refused.to_string().contains(why), "{options}: {refused}");
    }
    assert_eq!(near.must("bdev_get_bdevs", Value::Null), json!([]));
}
