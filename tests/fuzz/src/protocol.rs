//! iSCSI: bytes of a stream, text of a login, whole connections at either end.

use iscsi::chap::{Challenge, Requirement, Verifying};
use iscsi::deframe::{Deframer, Sink, Step};
use iscsi::digest::Digest;
use iscsi::keys::{Digests, Negotiation};
use iscsi::target::{self, Admission, Grant, LogoutResponse, Response, TaskFunction, TaskResponse};
use iscsi::{Preferences, Protocol, Want, initiator, text};

use super::session;

/// The first byte of an input: which digests, and in what pieces the rest comes.
fn options(first: u8) -> (Digest, Digest, usize) {
    let digest = |bit: u8| if first & bit != 0 { Digest::Crc32c } else { Digest::None };
    (digest(1), digest(2), usize::from(first >> 2).max(1))
}

/// What a deframer made of a stream.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Pdu([u8; 48], Vec<u8>, Vec<u8>),
    DamagedData([u8; 48]),
    DamagedHeader,
}

fn deframe(first: u8, stream: &[u8], piece: usize) -> Vec<Found> {
    let (header_digest, data_digest, _) = options(first);
    let mut deframer = Deframer::new();
    deframer.set_digests(header_digest, data_digest);
    let mut found = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let Want::Bytes(wanted) = deframer.want() else { panic!("it wants nothing") };
        assert!(wanted > 0 && wanted < 1 << 25, "it wants {wanted} bytes");
        let (now, later) = rest.split_at(wanted.min(piece).min(rest.len()));
        rest = later;
        let mut step = deframer.handle(now);
        if step == Step::Header {
            step = deframer.accept(Sink::Internal);
        }
        let header = deframer.header();
        match step {
            Step::Header => panic!("a header twice"),
            Step::More => {}
            Step::Pdu => {
                let data = deframer.take_data();
                assert_eq!(data.len(), header.data_len());
                assert_eq!(deframer.ahs().len(), header.ahs_len());
                found.push(Found::Pdu(header.0, deframer.ahs().to_vec(), data));
            }
            Step::DataDigestError => found.push(Found::DamagedData(header.0)),
            Step::HeaderDigestError => {
                found.push(Found::DamagedHeader);
                break;
            }
        }
    }
    found
}

/// The same PDUs come of a stream in whatever pieces it comes.
pub(super) fn deframer(data: &[u8]) {
    let Some((first, stream)) = data.split_first() else { return };
    let (.., piece) = options(*first);
    assert_eq!(deframe(*first, stream, piece), deframe(*first, stream, usize::MAX));
}

/// Text is parsed as it is emitted; every offer has an answer that the other end can take, or an error.
pub(super) fn login_keys(data: &[u8]) {
    let Ok(pairs) = text::parse(data) else { return };
    let mut again = Vec::new();
    pairs.iter().for_each(|(key, value)| text::emit(&mut again, key, value));
    assert_eq!(text::parse(&again).as_ref(), Ok(&pairs));
    let mut responder = Negotiation::new(Preferences::default());
    let mut originator = Negotiation::new(Preferences::default());
    for (key, value) in &pairs {
        if let Ok(Some(answer)) = responder.respond(key, value) {
            assert!(!answer.is_empty() && answer.len() < 256, "{key}={value}: {answer:?}");
        }
        // As an answer to an offer of ours.
        let _ = originator.conclude(key, value);
    }
    let parameters = responder.into_parameters();
    assert!(parameters.first_burst_length <= parameters.max_burst_length);
    assert!(parameters.max_send_data_segment_length >= 512);
    let parameters = originator.into_parameters();
    assert!(parameters.first_burst_length <= parameters.max_burst_length);
}

/// Both ends of a connection, each with an owner that answers at once, take any stream: the first bit of the input says which, the second
/// whether it is one of a session of several.
pub(super) fn connection(data: &[u8]) {
    let Some((first, stream)) = data.split_first() else { return };
    let (.., piece) = options(*first);
    match first & 3 {
        0 => target_end(stream, piece),
        1 => initiator_end(stream, piece),
        2 => session::target_session(stream, piece),
        _ => session::initiator_session(stream, piece),
    }
}

/// Gives an end the next piece of a stream; what is left of it.
pub(super) fn give<'a>(end: &mut impl Protocol, stream: &'a [u8], piece: usize) -> &'a [u8] {
    let (wanted, is_payload) = match end.want() {
        Want::Bytes(len) => (len, false),
        Want::Payload { len, .. } => (len, true),
        Want::Nothing => return &[],
    };
    let (now, later) = stream.split_at(wanted.min(piece).min(stream.len()));
    if is_payload {
        end.handle_payload(now);
    } else {
        end.handle_bytes(now);
    }
    later
}

fn target_end(mut stream: &[u8], piece: usize) {
    let config = target::Config { preferences: Preferences::default(), queue_depth: 8 };
    let mut end = target::Connection::new(config);
    while !stream.is_empty() {
        stream = give(&mut end, stream, piece);
        loop {
            while let Some(event) = end.poll_event() {
                answer(&mut end, event);
            }
            let Some(transmit) = end.poll_transmit() else { break };
            assert!(transmit.head().len() >= 48);
        }
    }
    assert!(end.closed().is_none() || end.want() == Want::Nothing);
}

/// Of the second byte of a CDB: the data of the command are asked for, and then given up.
const GIVEN_UP: u8 = 0x80;

fn answer(end: &mut target::Connection, event: target::Event) {
    let response =
        |status: u8, moved: u32| Response { status, sense: Vec::new(), transfer_len: moved.into() };
    match event {
        target::Event::LoginRequest(_) => end.admit_login(Admission {
            portal_group_tag: 1,
            target_alias: String::new(),
            authentication: Verifying {
                algorithms: iscsi::chap::Algorithm::ALL.into(),
                requirement: Requirement::Disabled,
                accounts: [].into(),
                challenge: Challenge { id: 1, bytes: [1; 32] },
            },
            digests: Digests::default(),
            joins: None,
        }),
        target::Event::LoginComplete => end.grant_login(&Grant { tsih: 7, queue_depth: 8 }),
        target::Event::Command(command) if command.writes => {
            end.solicit(command.task, command.expected_len.min(4096));
            if command.cdb[1] & GIVEN_UP != 0 {
                end.give_up_data(command.task);
            }
        }
        target::Event::Command(command) => {
            let len = command.expected_len.min(8192);
            end.send_data(command.task, len, response(command.cdb[0] & 2, len));
        }
        target::Event::DataComplete(task) => end.respond(task, response(0, 4096)),
        target::Event::DataLost(task, _) => end.respond(task, response(2, 0)),
        target::Event::DataOver(task) => end.respond(task, response(8, 0)),
        target::Event::SendTargets { request, .. } => {
            end.respond_text(request, b"TargetName=x\0".repeat(700));
        }
        target::Event::TaskManagement { request, function, .. } => {
            if let TaskFunction::AbortTask(task) = function {
                end.abort(task);
            }
            end.respond_task_management(request, TaskResponse::Complete);
        }
        target::Event::LogoutRequest { request, .. } => end.respond_logout(request, LogoutResponse::Closed),
        target::Event::LoggedIn | target::Event::Pong | target::Event::Ended(_) => {}
    }
}

fn initiator_end(mut stream: &[u8], piece: usize) {
    let mut end = initiator::Connection::new(initiator::Config {
        initiator: "iqn.2026-11.example:host".to_owned(),
        alias: None,
        target: Some("iqn.2026-11.example:disk".to_owned()),
        isid: [0x80, 1, 2, 3, 4, 5],
        preferences: Preferences::default(),
        credentials: None,
    });
    let mut cdb = [0_u8; 16];
    while !stream.is_empty() {
        stream = give(&mut end, stream, piece);
        while let Some(event) = end.poll_event() {
            if let initiator::Event::LoggedIn | initiator::Event::Completed(..) = event {
                for (direction, len) in
                    [(initiator::Direction::Write, 65536), (initiator::Direction::Read, 8192)]
                {
                    cdb[0] = cdb[0].wrapping_add(1);
                    let _ = end.submit(initiator::Command { lun: 0, cdb, direction, len, attribute: 1 });
                }
            }
        }
        while let Some(transmit) = end.poll_transmit() {
            assert!(transmit.head().len() >= 48);
        }
    }
}
