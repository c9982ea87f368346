//! PDUs that are not as RFC 7143 sections 7 and 11 want them, written by hand: each has a clean answer, and where the RFC lets the
//! connection live, it lives.

use iscsi::chap::{Challenge, Requirement, Verifying};
use iscsi::initiator;
use iscsi::keys::{Choice, Digests};
use iscsi::pdu::{Header, NO_TAG, flag, opcode};
use iscsi::target::{self, Admission, DataFault, Event, Grant, LogoutResponse, Response, TaskResponse};
use iscsi::{Body, CloseReason, OUTGOING_MAX, Preferences, Protocol, TaskId, Want};

/// Reasons of a Reject (RFC 7143 section 11.17.1).
const SNACK: u8 = 0x03;
const PROTOCOL: u8 = 0x04;
const NOT_SUPPORTED: u8 = 0x05;
const TOO_MANY: u8 = 0x06;
const IN_PROGRESS: u8 = 0x07;
const INVALID_FIELD: u8 = 0x09;
const RESOURCES: u8 = 0x0a;

struct Raw {
    target: target::Connection,
    cmd_sn: u32,
    lost: Vec<(TaskId, DataFault)>,
    managing: Managing,
}

/// What the owner does with management requests.
#[derive(PartialEq, Eq)]
enum Managing {
    Answers,
    Waits,
}

fn preferences() -> Preferences {
    Preferences {
        max_burst_length: 2048,
        first_burst_length: 1024,
        max_recv_data_segment_length: 65536,
        error_recovery_level: 2,
        ..Preferences::default()
    }
}

impl Raw {
    /// Before any login.
    fn new() -> Self {
        let target = target::Connection::new(target::Config { preferences: preferences(), queue_depth: 8 });
        Self { target, cmd_sn: 1, lost: Vec::new(), managing: Managing::Answers }
    }

    /// In full feature phase, as an initiator with these preferences brought it there.
    fn logged_in(preferences: Preferences) -> Self {
        Self::with_initiator(preferences).0
    }

    /// The same, with that initiator.
    fn with_initiator(preferences: Preferences) -> (Self, initiator::Connection) {
        let mut raw = Self::new();
        let mut initiator = initiator::Connection::new(initiator::Config {
            initiator: "iqn.2026-11.example:host".into(),
            alias: None,
            target: Some("iqn.2026-11.example:disk".into()),
            isid: [0x80, 1, 2, 3, 4, 5],
            preferences,
            credentials: None,
        });
        while !initiator.is_full_feature() {
            let request = initiator.poll_transmit().expect("a login request");
            raw.give(request.head());
            if let Body::Inline(bytes) = &request.body {
                raw.give(bytes);
                raw.give(&vec![0; bytes.len().wrapping_neg() & 3]);
            }
            raw.on_events();
            let answer = raw.target.poll_transmit().expect("an answer");
            initiator.handle_bytes(answer.head());
            if let Body::Inline(bytes) = &answer.body {
                initiator.handle_bytes(bytes);
                initiator.handle_bytes(&vec![0; bytes.len().wrapping_neg() & 3]);
            }
        }
        assert!(raw.target.poll_transmit().is_none());
        assert!(raw.target.is_full_feature());
        raw.on_events();
        (raw, initiator)
    }

    fn give(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (Want::Bytes(len) | Want::Payload { len, .. }) = self.target.want() else { return };
            let (now, later) = bytes.split_at(len.min(bytes.len()));
            match self.target.want() {
                Want::Payload { .. } => self.target.handle_payload(now),
                _ => self.target.handle_bytes(now),
            }
            self.on_events();
            bytes = later;
        }
    }

    fn on_events(&mut self) {
        while let Some(event) = self.target.poll_event() {
            match event {
                Event::LoginRequest(_) => self.target.admit_login(Admission {
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
                Event::LoginComplete => self.target.grant_login(&Grant { tsih: 7, queue_depth: 8 }),
                Event::Command(command) if command.reads => {}
                // Commands stay open, and want all that they are told of.
                Event::Command(command) => self.target.solicit(command.task, command.expected_len),
                Event::DataComplete(task) => self.target.respond(task, Response::default()),
                Event::DataLost(task, fault) => {
                    self.lost.push((task, fault));
                    self.target.respond(task, Response { status: 2, ..Response::default() });
                }
                Event::TaskManagement { .. } if self.managing == Managing::Waits => {}
                Event::TaskManagement { request, .. } => {
                    self.target.respond_task_management(request, TaskResponse::Unsupported);
                }
                Event::SendTargets { request, .. } => self.target.respond_text(request, Vec::new()),
                Event::LogoutRequest { request, .. } => {
                    self.target.respond_logout(request, LogoutResponse::Closed);
                }
                Event::LoggedIn | Event::Pong | Event::Ended(_) | Event::DataOver(_) => {}
            }
        }
    }

    /// Sends a PDU; gives the headers that come back.
    fn send(&mut self, header: Header, data: &[u8]) -> Vec<Header> {
        self.give(&header.with_data_len(data.len()).0);
        self.give(data);
        self.give(&vec![0; data.len().wrapping_neg() & 3]);
        self.answers()
    }

    fn answers(&mut self) -> Vec<Header> {
        let mut answers = Vec::new();
        while let Some(transmit) = self.target.poll_transmit() {
            answers.push(Header(transmit.head()[..48].try_into().expect("a header")));
            self.on_events();
        }
        answers
    }

    /// A numbered header.
    fn numbered(&mut self, kind: u8, flags: u8, itt: u32) -> Header {
        self.cmd_sn += 1;
        Header::new(kind, flags).with_itt(itt).with_cmd_sn(self.cmd_sn - 1)
    }

    fn command(&mut self, flags: u8, itt: u32, len: u32) -> Header {
        self.numbered(opcode::SCSI_COMMAND, flags, itt).with_edtl(len)
    }

    /// The connection answers a ping.
    fn lives(&mut self) {
        let ping =
            Header::new(opcode::NOP_OUT, flag::FINAL).with_immediate().with_itt(0x7777).with_ttt(NO_TAG);
        let answers = self.send(ping, b"ping");
        assert_eq!(answers.iter().map(Header::opcode).collect::<Vec<_>>(), [opcode::NOP_IN], "{answers:?}");
        assert_eq!((answers[0].itt(), answers[0].data_len()), (0x7777, 4));
    }
}

/// The reason of the only answer, a Reject.
fn rejected(answers: &[Header]) -> u8 {
    let [reject] = answers else { panic!("{answers:?}") };
    assert_eq!((reject.opcode(), reject.itt(), reject.data_len()), (opcode::REJECT, NO_TAG, 48));
    reject.byte(2)
}

const WRITE: u8 = flag::FINAL | flag::WRITE;

#[test]
fn what_cannot_be_done_is_rejected_and_the_connection_lives() {
    let mut raw = Raw::logged_in(Preferences::default());
    for strange in [0x07, 0x1c, 0x1f, opcode::NOP_IN, opcode::R2T, 0x3c] {
        assert_eq!(
            rejected(&raw.send(Header::new(strange, flag::FINAL), b"data")),
            NOT_SUPPORTED,
            "{strange:#x}"
        );
    }
    let snack = Header::new(opcode::SNACK, flag::FINAL).with_itt(1).with_ttt(NO_TAG);
    assert_eq!(rejected(&raw.send(snack, &[])), SNACK, "there is no SNACK at level 0");
    let logout = raw.numbered(opcode::LOGOUT, flag::FINAL | 9, 5);
    assert_eq!(rejected(&raw.send(logout, &[])), INVALID_FIELD, "a reason that there is not");
    let recovery = raw.numbered(opcode::LOGOUT, flag::FINAL | 2, 6);
    let answers = raw.send(recovery, &[]);
    assert_eq!((answers[0].opcode(), answers[0].byte(2)), (opcode::LOGOUT_RESPONSE, 2), "no recovery");
    let stranger = raw.numbered(opcode::LOGOUT, flag::FINAL | 1, 7).with_u16(20, 99);
    let answers = raw.send(stranger, &[]);
    assert_eq!((answers[0].opcode(), answers[0].byte(2)), (opcode::LOGOUT_RESPONSE, 1), "no such connection");
    let both = raw.command(flag::FINAL | flag::READ | flag::WRITE, 8, 512);
    assert_eq!(rejected(&raw.send(both, &[])), NOT_SUPPORTED);
    // The number of a command that is rejected is still to come.
    raw.cmd_sn -= 1;
    let untagged = raw.command(WRITE, NO_TAG, 512);
    assert_eq!(rejected(&raw.send(untagged, &[])), INVALID_FIELD);
    raw.cmd_sn -= 1;
    let data_of_a_read = raw.command(flag::FINAL | flag::READ, 9, 512);
    assert_eq!(rejected(&raw.send(data_of_a_read, &[1; 512])), PROTOCOL);
    raw.cmd_sn -= 1;
    let long_text = raw.numbered(opcode::TEXT, flag::FINAL, 10).with_ttt(NO_TAG);
    assert_eq!(rejected(&raw.send(long_text, &[b'x'; 20_000])), RESOURCES);
    let no_text = raw.numbered(opcode::TEXT, flag::FINAL, 11).with_ttt(NO_TAG);
    assert_eq!(rejected(&raw.send(no_text, b"no pair")), PROTOCOL);
    let both_bits = raw.numbered(opcode::TEXT, flag::FINAL | flag::CONTINUE, 12).with_ttt(NO_TAG);
    assert_eq!(rejected(&raw.send(both_bits, b"SendTargets=")), PROTOCOL);
    raw.lives();
    assert!(raw.target.closed().is_none());
}

#[test]
fn the_number_of_a_rejected_command_is_still_to_come() {
    for plug in [Plug::Command, Plug::Abort] {
        let mut raw = Raw::logged_in(Preferences { initial_r2t: Choice::Yes, ..Preferences::default() });
        let both = raw.command(flag::FINAL | flag::READ | flag::WRITE, 8, 512);
        assert_eq!(rejected(&raw.send(both, &[])), NOT_SUPPORTED);
        let behind = raw.command(WRITE, 9, 512);
        assert_eq!(raw.send(behind, &[]), [], "it waits");
        raw.lives();
        let answers = match plug {
            Plug::Command => raw.send(both.with_flags(0).with_byte(1, WRITE).with_itt(10), &[]),
            Plug::Abort => {
                let abort =
                    Header::new(opcode::TASK_MANAGEMENT, flag::FINAL | 1).with_immediate().with_itt(11);
                let abort = abort.with_ttt(8).with_cmd_sn(raw.cmd_sn).with_max_cmd_sn(both.cmd_sn());
                raw.send(abort, &[])
            }
        };
        let first = match plug {
            Plug::Command => (opcode::R2T, 10),
            Plug::Abort => (opcode::TASK_MANAGEMENT_RESPONSE, 11),
        };
        let kinds: Vec<_> = answers.iter().map(|header| (header.opcode(), header.itt())).collect();
        assert_eq!(kinds, [first, (opcode::R2T, 9)]);
        assert_eq!(answers[1].exp_cmd_sn(), raw.cmd_sn);
    }
}

/// How an initiator fills the place of a rejected command.
#[derive(Clone, Copy)]
enum Plug {
    /// By another one with its number.
    Command,
    /// By an ABORT TASK.
    Abort,
}

#[test]
fn a_window_that_opens_is_told_though_nothing_else_is() {
    let mut raw = Raw::logged_in(Preferences { initial_r2t: Choice::Yes, ..Preferences::default() });
    let hangs = raw.command(flag::FINAL | flag::READ, 1, 512);
    raw.send(hangs, &[]);
    let write = raw.command(WRITE, 2, 512);
    let before = raw.send(write, &[])[0].max_cmd_sn();
    raw.target.abort(TaskId(1));
    let told = raw.answers();
    let [nop] = &told[..] else { panic!("{told:?}") };
    assert_eq!((nop.opcode(), nop.itt(), nop.ttt()), (opcode::NOP_IN, NO_TAG, NO_TAG));
    assert_eq!(nop.max_cmd_sn(), before + 1);
    assert_eq!(raw.answers(), [], "once");
    raw.lives();
}

#[test]
fn requests_outside_the_window_and_data_of_no_task_are_not_there() {
    let mut raw = Raw::logged_in(Preferences::default());
    let old = Header::new(opcode::SCSI_COMMAND, WRITE).with_itt(1).with_cmd_sn(0).with_edtl(512);
    assert_eq!(raw.send(old, &[0; 512]), []);
    let beyond = Header::new(opcode::TEXT, flag::FINAL).with_itt(2).with_ttt(NO_TAG).with_cmd_sn(100);
    assert_eq!(raw.send(beyond, b"SendTargets=\0"), []);
    let stray = Header::new(opcode::DATA_OUT, flag::FINAL).with_itt(3).with_ttt(4);
    assert_eq!(raw.send(stray, &[0; 100]), []);
    let unasked =
        Header::new(opcode::NOP_OUT, flag::FINAL).with_immediate().with_itt(NO_TAG).with_ttt(NO_TAG);
    assert_eq!(raw.send(unasked, &[]), [], "no answer is wanted");
    raw.lives();
}

#[test]
fn a_tag_in_use_is_rejected_and_its_task_goes_on() {
    let preferences =
        Preferences { initial_r2t: Choice::Yes, max_outstanding_r2t: 1, ..Preferences::default() };
    let mut raw = Raw::logged_in(preferences);
    let first = raw.command(WRITE, 1, 3072);
    let r2t = raw.send(first, &[]);
    assert_eq!(r2t[0].opcode(), opcode::R2T);
    // Nor do the data that come with it count as its data.
    let again = raw.command(WRITE, 1, 512);
    assert_eq!(rejected(&raw.send(again, &[9; 1024])), IN_PROGRESS);
    let data = Header::new(opcode::DATA_OUT, flag::FINAL).with_itt(1);
    let next = raw.send(data.with_ttt(r2t[0].ttt()), &[7; 2048]);
    assert_eq!((next[0].opcode(), next[0].buffer_offset()), (opcode::R2T, 2048));
    let answers = raw.send(data.with_ttt(next[0].ttt()).with_buffer_offset(2048), &[7; 1024]);
    assert_eq!((answers[0].opcode(), answers[0].byte(3)), (opcode::SCSI_RESPONSE, 0));
    raw.lives();
}

#[test]
fn data_that_may_not_come_fail_their_command_alone() {
    let strict =
        Preferences { initial_r2t: Choice::Yes, immediate_data: Choice::No, ..Preferences::default() };
    let loose = Preferences::default();
    let data_out = |itt, ttt, data_sn, offset, flags| {
        let header = Header::new(opcode::DATA_OUT, flags).with_itt(itt).with_ttt(ttt);
        header.with_data_sn(data_sn).with_buffer_offset(offset)
    };
    let mut raw = Raw::logged_in(strict);
    let immediate = raw.command(WRITE, 1, 1024);
    raw.send(immediate, &[1; 512]);
    let unsolicited = raw.command(flag::WRITE, 2, 1024);
    raw.send(unsolicited, &[]);
    raw.send(data_out(2, NO_TAG, 0, 0, flag::FINAL), &[1; 512]);
    let plain = raw.command(WRITE, 3, 1024);
    raw.send(plain, &[]);
    raw.send(data_out(3, NO_TAG, 0, 0, flag::FINAL), &[1; 512]);
    let unexpected = [1, 2, 3].map(|itt| (TaskId(itt), DataFault::Unexpected));
    assert_eq!(raw.lost, unexpected);
    raw.lives();

    let mut raw = Raw::logged_in(loose);
    // Beyond FirstBurstLength.
    let long = raw.command(WRITE, 1, 4096);
    raw.send(long, &[1; 1028]);
    // DataSN 1 before 0; an offset that leaves a gap; beyond the burst; too short.
    for (itt, data_sn, offset, len) in [(2, 1, 0, 512), (3, 0, 512, 512), (4, 0, 0, 4096), (5, 0, 0, 100)] {
        let command = raw.command(WRITE, itt, 2048);
        let r2t = raw.send(command, &[]);
        assert_eq!((r2t[0].opcode(), r2t[0].residual()), (opcode::R2T, 2048));
        raw.send(data_out(itt, r2t[0].ttt(), data_sn, offset, flag::FINAL), &vec![1; len]);
    }
    let mut expected = vec![(TaskId(1), DataFault::Unexpected)];
    expected.extend((2..6).map(|itt| (TaskId(itt), DataFault::Amount)));
    assert_eq!(raw.lost, expected);
    raw.lives();
    assert_eq!(raw.target.open_tasks(), 0);
}

#[test]
fn what_breaks_the_format_costs_the_connection() {
    let long = Header::new(opcode::NOP_OUT, flag::FINAL).with_data_len(65537);
    let segments = Header::new(opcode::NOP_OUT, flag::FINAL).with_byte(4, 1);
    let login = Header::new(opcode::LOGIN, 0x87);
    let skipped = Header::new(opcode::SCSI_COMMAND, WRITE).with_itt(1).with_cmd_sn(4);
    for header in [long, segments, login, skipped] {
        let mut raw = Raw::logged_in(Preferences::default());
        raw.give(&header.0);
        raw.give(&[0; 4]);
        assert!(matches!(raw.target.closed(), Some(CloseReason::PeerMisbehaved(_))), "{header:?}");
    }
}

#[test]
fn before_a_login_nothing_else_is_heard_and_during_it_anything_else_ends_it() {
    let mut raw = Raw::new();
    raw.give(&Header::new(opcode::NOP_OUT, flag::FINAL).0);
    assert!(raw.target.closed().is_some() && raw.answers().is_empty());

    let mut raw = Raw::new();
    let text = b"InitiatorName=iqn.2026-11.example:h\0TargetName=iqn.2026-11.example:t\0AuthMethod=None\0";
    let login = Header::new(opcode::LOGIN, 0).with_immediate().with_itt(5).with_isid([0x80, 0, 0, 0, 0, 1]);
    let answers = raw.send(login, text);
    assert_eq!((answers[0].opcode(), answers[0].byte(36)), (opcode::LOGIN_RESPONSE, 0));
    let answers = raw.send(Header::new(opcode::NOP_OUT, flag::FINAL).with_itt(6), &[]);
    let [refusal] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((refusal.opcode(), refusal.itt()), (opcode::LOGIN_RESPONSE, 5));
    assert_eq!((refusal.byte(36), refusal.byte(37)), (2, 0x0b));
    assert!(raw.target.closed().is_some());
}

#[test]
fn immediate_requests_have_a_limit() {
    let mut raw = Raw::logged_in(Preferences::default());
    raw.managing = Managing::Waits;
    let mut manage = |itt| {
        let header = Header::new(opcode::TASK_MANAGEMENT, flag::FINAL | 2).with_immediate();
        raw.send(header.with_itt(itt).with_ttt(NO_TAG), &[])
    };
    assert!((0..64).all(|itt| manage(itt).is_empty()));
    assert_eq!(rejected(&manage(64)), TOO_MANY);
    raw.lives();
}

#[test]
fn a_ping_comes_back_whole_up_to_what_the_initiator_takes() {
    let mut raw =
        Raw::logged_in(Preferences { max_recv_data_segment_length: 32768, ..Preferences::default() });
    for (len, echoed) in [(20_000, 20_000), (40_000, 32_768)] {
        let ping = Header::new(opcode::NOP_OUT, flag::FINAL).with_immediate().with_itt(1).with_ttt(NO_TAG);
        let answers = raw.send(ping, &vec![3; len]);
        assert_eq!(answers[0].data_len(), echoed);
    }
}

/// Pings without end from an initiator that takes no answer: the target stops reading, and goes on when the answers are taken.
#[test]
fn answers_that_nobody_takes_stop_the_reading() {
    let mut raw = Raw::logged_in(preferences());
    let ping = Header::new(opcode::NOP_OUT, flag::FINAL).with_immediate().with_itt(0x55).with_ttt(NO_TAG);
    for _ in 0..2 * OUTGOING_MAX {
        raw.give(&ping.with_data_len(64).0);
        raw.give(&[7; 64]);
    }
    assert_eq!(raw.target.want(), Want::Nothing);
    assert_eq!(raw.answers().len(), OUTGOING_MAX);
    raw.lives();
}

/// Long echoes are bounded in bytes: those that wait to be taken, and those that were sent and may be wanted again.
#[test]
fn echoes_that_nobody_takes_or_acknowledges_are_bounded() {
    const LEN: usize = 64 << 10;
    const BOUND: usize = (256 << 10) / LEN;
    let takes = Preferences { max_recv_data_segment_length: 1 << 18, ..Preferences::default() };
    for level in [0, 1] {
        let mut raw = Raw::logged_in(Preferences { error_recovery_level: level, ..takes });
        let ping = Header::new(opcode::NOP_OUT, flag::FINAL).with_immediate().with_itt(0x55).with_ttt(NO_TAG);
        let mut asked = 0;
        while raw.target.want() != Want::Nothing {
            raw.give(&ping.with_data_len(LEN).0);
            raw.give(&[7; LEN]);
            asked += 1;
        }
        assert_eq!(asked, BOUND, "level {level}");
        let answers = raw.answers();
        assert!(answers.iter().all(|answer| answer.data_len() == LEN));
        assert_eq!(answers.len(), asked);
        raw.lives();
    }
    // What was sent.
    let mut raw = Raw::logged_in(Preferences { error_recovery_level: 1, ..takes });
    let ping = Header::new(opcode::NOP_OUT, flag::FINAL).with_immediate().with_itt(0x55).with_ttt(NO_TAG);
    let mut last = 0;
    for _ in 0..64 {
        last = raw.send(ping, &[7; LEN])[0].stat_sn();
    }
    let mut again = |count: u32| {
        let [high, low] = [(last + 1 - count) >> 16, (last + 1 - count) & 0xffff];
        let half = |word: u32| u16::try_from(word).expect("16 bits");
        let snack = Header::new(opcode::SNACK, flag::FINAL | 1).with_itt(NO_TAG).with_ttt(NO_TAG);
        let snack = snack.with_u16(40, half(high)).with_u16(42, half(low)).with_u16(46, half(count));
        raw.send(snack, &[])
    };
    assert_eq!(again(2).len(), 2);
    assert_eq!(rejected(&again(32)), SNACK, "the oldest were forgotten");
}

/// The status of a task that is ended in the middle of its data says how many PDUs of them came before it.
#[test]
fn a_status_in_place_of_the_rest_of_the_data_counts_those_that_came() {
    let mut raw = Raw::logged_in(Preferences { max_recv_data_segment_length: 512, ..preferences() });
    let read = raw.command(flag::FINAL | flag::READ, 7, 4096);
    raw.send(read, &[]);
    raw.target.send_data(TaskId(7), 4096, Response { transfer_len: 4096, ..Response::default() });
    for data_sn in 0..3 {
        let data = raw.target.poll_transmit().expect("data");
        let header = Header(data.head()[..48].try_into().expect("a header"));
        assert_eq!((header.opcode(), header.data_sn()), (opcode::DATA_IN, data_sn));
    }
    raw.target.terminate(TaskId(7), Response { status: 0x40, ..Response::default() });
    let answers = raw.answers();
    assert_eq!(answers.len(), 1);
    assert_eq!((answers[0].opcode(), answers[0].data_sn()), (opcode::SCSI_RESPONSE, 3), "ExpDataSN");
}

/// A target that pings and takes no answer does not fill the initiator's memory with them.
#[test]
fn an_initiator_that_is_pinged_without_end_ends_the_connection() {
    let (mut raw, mut initiator) = Raw::with_initiator(preferences());
    raw.target.ping();
    let ping = raw.target.poll_transmit().expect("a ping");
    for _ in 0..16 {
        initiator.handle_bytes(ping.head());
    }
    assert!(initiator.is_full_feature(), "so many are answered");
    let answers = core::iter::from_fn(|| initiator.poll_transmit()).count();
    assert_eq!(answers, 16);
    for _ in 0..17 {
        initiator.handle_bytes(ping.head());
    }
    assert!(!initiator.is_full_feature(), "nobody needs more that are not taken");
}
