//! What a node says of its own accord, and where it sends initiators: as the suite's own decoder reads it (RFC 7143 sections 11.9 and
//! 11.13.5).

use std::time::Duration;

use engine::{Clock, MonotonicClock};
use serde_json::{Value, json};
use tests::node::{Node, pause};
use tests::pdu::session::INITIATOR;
use tests::pdu::wire::{NO_TAG, Pdu, Received, back, out};
use tests::pdu::{Login, Session, Subject};

use crate::node;

/// T, then CSG and NSG: from operational negotiation to full feature phase.
const TO_FULL_FEATURE: u8 = 0x87;

/// The next PDU, which is an asynchronous message of this event; its three parameters.
fn event(session: &mut Session, event: u8) -> [u16; 3] {
    let pdu = session.must().expect("an asynchronous message");
    assert_eq!((pdu.opcode(), pdu.flags(), pdu.itt()), (back::ASYNC, 0x80, NO_TAG), "{pdu:?}");
    assert_eq!((pdu.bhs[36], pdu.bhs[37], pdu.data.len()), (event, 0, 0), "{pdu:?}");
    assert_eq!(pdu.bhs[8..16], [0; 8], "the LUN is reserved");
    [38, 40, 42].map(|at| pdu.u16(at))
}

fn must_close(session: &mut Session) {
    match session.receive().expect("an end in order") {
        Received::Closed => {}
        other => panic!("{other:?}"),
    }
}

fn open(subject: &Subject, keys: &[(&str, &str)]) -> Session {
    Session::open(subject, keys).expect("a session")
}

fn set(node: &Node, options: Value) {
    node.must("iscsi_set_options", options);
}

/// One more connection of a session.
fn join(session: &Session, subject: &Subject, cid: u16) -> Session {
    session.again(subject, cid, "65536").expect("a connection")
}

#[test]
fn a_logout_is_asked_for_and_who_stays_is_sent_away() {
    let (node, subject) = node();
    let mut sessions = [open(&subject, &[]), open(&subject, &[("MaxConnections", "2")])];
    let mut joined = join(&sessions[1], &subject, 9);
    node.must("iscsi_target_node_request_logout", json!({"name": subject.target}));
    let clock = MonotonicClock::start();
    let asked = clock.now();
    let [goes, stays] = sessions.each_mut().map(|session| {
        let [first, second, seconds] = event(session, 1);
        assert_eq!((first, second), (0, 0), "reserved");
        (session, u64::from(seconds))
    });
    let itt = goes.0.request(Pdu::new(out::LOGOUT | out::IMMEDIATE, 0x80));
    let answer = goes.0.must_be(back::LOGOUT, itt).expect("an answer");
    assert_eq!(answer.bhs[2], 0, "{answer:?}");
    must_close(goes.0);
    assert_eq!(event(&mut joined, 1), [0, 0, u16::try_from(stays.1).expect("seconds")]);
    // The other one keeps its connections for that time, and is told of each that it is dropped: by its name, with Time2Wait, and nothing
    // is kept.
    stays.0.must_read(0, 1).expect("it may still be used");
    assert_eq!(event(stays.0, 2), [0, 2, 0]);
    assert!(clock.now() - asked >= Duration::from_secs(stays.1).saturating_sub(Duration::from_millis(200)));
    must_close(stays.0);
    joined.cmd_sn = stays.0.cmd_sn;
    assert_eq!(event(&mut joined, 2), [9, 2, 0]);
    must_close(&mut joined);
}

#[test]
fn a_connection_whose_data_do_not_come_is_dropped_by_its_name_and_a_session_with_its_only_one() {
    let (node, subject) = node();
    set(&node, json!({"nop_in_interval": 1, "nop_timeout": 1}));
    let keys =
        [("MaxConnections", "2"), ("InitialR2T", "Yes"), ("ImmediateData", "No"), ("DefaultTime2Wait", "3")];
    let mut first = open(&subject, &keys);
    let mut second = join(&first, &subject, 9);
    let mut alone = open(&subject, &keys);
    let write = |session: &mut Session| {
        let cdb = [0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0];
        let itt = session.request(session.command(0xa1, &cdb, 4096));
        session.must_be(back::R2T, itt).expect("data are asked for");
    };
    write(&mut second);
    write(&mut alone);
    first.cmd_sn = second.cmd_sn;
    // Pings are answered all the while.
    std::thread::scope(|scope| {
        let dropped = scope.spawn(|| {
            assert_eq!(event(&mut second, 2), [9, 3, 0], "the connection, Time2Wait, and nothing is kept");
            must_close(&mut second);
        });
        let ended = scope.spawn(|| {
            assert_eq!(event(&mut alone, 3)[0], 0);
            must_close(&mut alone);
        });
        while !(dropped.is_finished() && ended.is_finished()) {
            first.barrier().expect("it is left alone");
            pause(Duration::from_millis(100));
        }
    });
    // Section 11.14.5: what ended without a status is told by a unit attention.
    let told = first.must_read(0, 1).expect_err("a unit attention");
    assert!(told.contains("6/477f"), "{told}");
    first.must_read(0, 1).expect("the session goes on");
}

#[test]
fn a_segment_length_that_changes_is_negotiated() {
    let (node, subject) = node();
    set(&node, json!({"max_burst_length": 1 << 20}));
    let keys = [("InitialR2T", "Yes"), ("ImmediateData", "No"), ("MaxBurstLength", "1048576")];
    let mut session = open(&subject, &keys);
    let before = session.number("MaxRecvDataSegmentLength").expect("declared");
    set(&node, json!({"max_recv_data_segment_length": before * 2}));
    let [first, second, seconds] = event(&mut session, 4);
    assert!((first, second) == (0, 0) && seconds > 0);
    // An empty request will do.
    let itt = session.request(Pdu::new(out::TEXT, 0x80).put32(20, NO_TAG));
    let answer = session.must_be(back::TEXT, itt).expect("an answer");
    assert_eq!(answer.data, format!("MaxRecvDataSegmentLength={}\0", before * 2).as_bytes());
    // Once said, it is said.
    let itt = session.request(Pdu::new(out::TEXT, 0x80).put32(20, NO_TAG));
    assert!(session.must_be(back::TEXT, itt).expect("an answer").data.is_empty());
    // And it is meant.
    let blocks = u16::try_from(before * 2 / 512).expect("short");
    let mut cdb = [0x2a, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    let itt = session.request(session.command(0xa1, &cdb, before * 2));
    let r2t = session.must_be(back::R2T, itt).expect("data are asked for");
    assert_eq!(r2t.u32(44), before * 2, "in one burst");
    let data = Pdu::new(out::DATA, 0x80)
        .put(8, &r2t.bhs[8..24])
        .put32(28, session.exp_stat_sn())
        .with_data(&vec![7; before as usize * 2]);
    session.link.send(&data);
    assert_eq!(session.must_be(back::RESPONSE, itt).expect("an answer").bhs[3], 0);
    set(&node, json!({"max_recv_data_segment_length": before * 2}));
    assert_eq!(session.barrier().expect("nothing has changed"), []);
    assert_eq!(node.must("iscsi_get_options", Value::Null)["max_recv_data_segment_length"], before * 2);
}

/// The suite lets a target do without an alias; one that has one tells it.
#[test]
fn a_target_tells_the_alias_that_it_has_and_a_portal_has_none() {
    let (_node, subject) = node();
    let names = [("InitiatorName", INITIATOR), ("TargetName", &subject.target), ("SessionType", "Normal")];
    let discovery = [("InitiatorName", INITIATOR), ("SessionType", "Discovery")];
    for (names, alias) in [(&names[..], Some("m0")), (&discovery, None)] {
        let mut login = Login::connect(&subject).expect("a connection");
        let answer = login.exchange(TO_FULL_FEATURE, names).expect("an answer");
        assert_eq!((answer.status(), answer.get("TargetAlias")), (0, alias));
    }
}

#[test]
fn a_redirection_is_for_now_or_for_good_and_says_where_to() {
    let (node, subject) = node();
    for (permanent, status) in [(false, 0x0101), (true, 0x0102)] {
        node.must(
            "iscsi_target_node_set_redirect",
            json!({"name": subject.target, "pg_tag": 1, "redirect_host": "127.0.0.9", "redirect_port": "3261",
                   "permanent": permanent}),
        );
        let mut login = Login::connect(&subject).expect("a connection");
        let names =
            [("InitiatorName", INITIATOR), ("TargetName", &subject.target), ("SessionType", "Normal")];
        let answer = login.exchange(TO_FULL_FEATURE, &names).expect("an answer");
        assert_eq!(answer.status(), status);
        assert_eq!(answer.get("TargetAddress"), Some("127.0.0.9:3261"), "without a portal group tag");
        assert_eq!(answer.pdu.flags() & 0x80, 0, "it does not go on");
        assert!(matches!(login.link.receive(), Ok(Received::Closed)));
        // A discovery session is not sent away.
        let mut login = Login::connect(&subject).expect("a connection");
        let names = [("InitiatorName", INITIATOR), ("SessionType", "Discovery")];
        assert_eq!(login.exchange(TO_FULL_FEATURE, &names).expect("an answer").status(), 0);
    }
    node.must("iscsi_target_node_set_redirect", json!({"name": subject.target, "pg_tag": 1}));
    open(&subject, &[]).must_read(0, 1).expect("back again");
}
