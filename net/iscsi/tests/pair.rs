//! Both ends joined without sockets: streams that are split, coalesced, corrupted and cut.

use std::collections::{BTreeMap, VecDeque};

use iscsi::chap::{Challenge, Proving, Requirement, Verifying};
use iscsi::digest::{Digest, Trailer};
use iscsi::initiator::{self, Direction};
use iscsi::keys::{Choice, DigestPreference, Digests};
use iscsi::target::{
    self, Admission, Grant, LoginStatus, LogoutResponse, Response, SendTargets, TaskFunction, TaskResponse,
};
use iscsi::{Body, CloseReason, Preferences, Protocol, TaskId, Transmit, Want};

/// A small generator, so that a failure repeats.
struct Prng(u64);

impl Prng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

type Buffers = BTreeMap<TaskId, Vec<u8>>;

/// One end's bytes on the way.
#[derive(Default)]
struct Wire {
    bytes: VecDeque<u8>,
}

fn put(wire: &mut Wire, transmit: &Transmit, buffers: &Buffers) {
    wire.bytes.extend(transmit.head());
    let data = match &transmit.body {
        Body::None => &[][..],
        Body::Inline(bytes) => bytes,
        Body::Task { task, offset, len } => &buffers[task][*offset as usize..][..*len as usize],
    };
    wire.bytes.extend(data);
    wire.bytes.extend(Trailer::of(data, transmit.data_digest).as_bytes());
}

/// Gives at most `chunk` bytes; false when nothing moved.
fn give(end: &mut impl Protocol, wire: &mut Wire, buffers: &mut Buffers, chunk: usize) -> bool {
    let available = wire.bytes.len().min(chunk);
    match end.want() {
        _ if available == 0 => false,
        Want::Nothing => false,
        Want::Bytes(len) => {
            let bytes: Vec<u8> = wire.bytes.drain(..len.min(available)).collect();
            end.handle_bytes(&bytes);
            true
        }
        Want::Payload { task, offset, len } => {
            let bytes: Vec<u8> = wire.bytes.drain(..len.min(available)).collect();
            if let Some(buffer) = buffers.get_mut(&task) {
                let at = buffer.len().min(offset as usize);
                let fits = buffer.len().saturating_sub(at).min(bytes.len());
                buffer[at..at + fits].copy_from_slice(&bytes[..fits]);
            }
            end.handle_payload(&bytes);
            true
        }
    }
}

struct Pair {
    initiator: initiator::Connection,
    target: target::Connection,
    to_target: Wire,
    to_initiator: Wire,
    initiator_buffers: Buffers,
    target_buffers: Buffers,
    medium: Vec<u8>,
    prng: Prng,
    completed: Vec<(TaskId, initiator::Completion)>,
    events: Vec<initiator::Event>,
    lost: Vec<TaskId>,
    refuse: Option<LoginStatus>,
    authentication: Verifying,
    digests: Digests,
    write_offsets: BTreeMap<TaskId, usize>,
}

impl Pair {
    fn new(initiator: Preferences, target: Preferences, seed: u64) -> Self {
        Self::with(initiator, target, seed, Some("iqn.2026-11.example:disk".into()), None)
    }

    fn with(
        initiator: Preferences,
        target: Preferences,
        seed: u64,
        name: Option<String>,
        credentials: Option<Proving>,
    ) -> Self {
        let config = initiator::Config {
            alias: None,
            initiator: "iqn.2026-11.example:host".into(),
            target: name,
            isid: [0x80, 1, 2, 3, 4, 5],
            preferences: initiator,
            credentials,
        };
        Self {
            initiator: initiator::Connection::new(config),
            target: target::Connection::new(target::Config { preferences: target, queue_depth: 8 }),
            to_target: Wire::default(),
            to_initiator: Wire::default(),
            initiator_buffers: Buffers::new(),
            target_buffers: Buffers::new(),
            medium: (0..1 << 20).map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect(),
            prng: Prng(seed),
            completed: Vec::new(),
            events: Vec::new(),
            lost: Vec::new(),
            refuse: None,
            digests: Digests { header: target.header_digest, data: target.data_digest },
            authentication: Verifying {
                algorithms: iscsi::chap::Algorithm::ALL.into(),
                requirement: Requirement::Disabled,
                accounts: [].into(),
                challenge: Challenge { id: 1, bytes: [1; 32] },
            },
            write_offsets: BTreeMap::new(),
        }
    }

    fn drive(&mut self) {
        let mut moved = true;
        while moved {
            moved = false;
            while let Some(transmit) = self.initiator.poll_transmit() {
                put(&mut self.to_target, &transmit, &self.initiator_buffers);
                moved = true;
            }
            while let Some(transmit) = self.target.poll_transmit() {
                put(&mut self.to_initiator, &transmit, &self.target_buffers);
                moved = true;
            }
            let chunk = 1 + self.prng.below(9000) as usize;
            moved |= give(&mut self.target, &mut self.to_target, &mut self.target_buffers, chunk);
            moved |= self.on_target_events();
            moved |= give(&mut self.initiator, &mut self.to_initiator, &mut self.initiator_buffers, chunk);
            while let Some(event) = self.initiator.poll_event() {
                match event {
                    initiator::Event::Completed(task, completion) => self.completed.push((task, completion)),
                    other => self.events.push(other),
                }
                moved = true;
            }
        }
    }

    fn on_target_events(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.target.poll_event() {
            any = true;
            match event {
                target::Event::LoginRequest(_) => match self.refuse {
                    Some(status) => self.target.refuse_login(status),
                    None => self.target.admit_login(Admission {
                        portal_group_tag: 1,
                        target_alias: "disk".into(),
                        authentication: self.authentication.clone(),
                        digests: self.digests,
                        joins: None,
                    }),
                },
                target::Event::LoginComplete => {
                    self.target.grant_login(&Grant { tsih: 7, queue_depth: 8 });
                }
                target::Event::Command(command) => self.on_command(&command),
                target::Event::DataComplete(task) => self.on_write(task),
                target::Event::DataLost(task, _) => {
                    self.lost.push(task);
                    let response = Response { status: 2, sense: vec![0x70; 18], transfer_len: 0 };
                    self.target.respond(task, response);
                }
                target::Event::SendTargets { request, which } => {
                    let text = match which {
                        SendTargets::All => b"TargetName=x\0TargetAddress=127.0.0.1:3260,1\0".repeat(400),
                        _ => b"TargetName=x\0".to_vec(),
                    };
                    self.target.respond_text(request, text);
                }
                target::Event::TaskManagement { request, function, .. } => {
                    let response = match function {
                        TaskFunction::AbortTask(task) => {
                            self.target.abort(task);
                            TaskResponse::Complete
                        }
                        _ => TaskResponse::Unsupported,
                    };
                    self.target.respond_task_management(request, response);
                }
                target::Event::LogoutRequest { request, .. } => {
                    self.target.respond_logout(request, LogoutResponse::Closed);
                }
                target::Event::LoggedIn
                | target::Event::Pong
                | target::Event::Ended(_)
                | target::Event::DataOver(_) => {}
            }
        }
        any
    }

    /// The test's command set: byte 0 is 'R', 'W' or 'H' (hang); bytes 4 and 8 hold offset and length.
    fn on_command(&mut self, command: &target::Command) {
        let number = |at: usize| u32::from_be_bytes(command.cdb[at..at + 4].try_into().expect("four bytes"));
        let (offset, len) = (number(4) as usize, number(8));
        match command.cdb[0] {
            b'R' | b'W' if offset.saturating_add(len as usize) > self.medium.len() => {
                let response = Response { status: 2, sense: vec![0x70; 18], transfer_len: 0 };
                self.target.respond(command.task, response);
            }
            b'R' => {
                self.target_buffers.insert(command.task, self.medium[offset..][..len as usize].to_vec());
                let response = Response { transfer_len: u64::from(len), ..Response::default() };
                self.target.send_data(command.task, len, response);
            }
            b'W' => {
                self.write_offsets.insert(command.task, offset);
                let mut buffer = self.target.take_early_data(command.task);
                buffer.resize(len as usize, 0);
                self.target_buffers.insert(command.task, buffer);
                self.target.solicit(command.task, len);
            }
            _ => {}
        }
    }

    fn on_write(&mut self, task: TaskId) {
        let data = self.target_buffers.remove(&task).expect("a buffer");
        let offset = self.write_offsets[&task];
        self.medium[offset..offset + data.len()].copy_from_slice(&data);
        let response = Response { transfer_len: data.len() as u64, ..Response::default() };
        self.target.respond(task, response);
    }

    fn submit(
        &mut self,
        kind: u8,
        offset: u32,
        len: u32,
        expected: u32,
    ) -> Result<TaskId, initiator::NotSent> {
        let mut cdb = [0; 16];
        cdb[0] = kind;
        cdb[4..8].copy_from_slice(&offset.to_be_bytes());
        cdb[8..12].copy_from_slice(&len.to_be_bytes());
        let direction = match kind {
            b'R' => Direction::Read,
            b'W' => Direction::Write,
            _ => Direction::None,
        };
        let task = self.initiator.submit(initiator::Command {
            lun: 0,
            cdb,
            direction,
            len: expected,
            attribute: 1,
        })?;
        let fill = self.prng.below(256) as u8;
        let buffer = (0..expected).map(|index| fill.wrapping_add((index / 7) as u8)).collect();
        self.initiator_buffers.insert(task, buffer);
        Ok(task)
    }
}

fn combinations() -> Vec<(Preferences, Preferences)> {
    let mut all = Vec::new();
    for digest in [DigestPreference::Prefer, DigestPreference::Never] {
        for (r2t, immediate) in [
            (Choice::No, Choice::Yes),
            (Choice::No, Choice::No),
            (Choice::Yes, Choice::Yes),
            (Choice::Yes, Choice::No),
        ] {
            for (segment, burst, first) in
                [(512, 1536, 512), (8192, 65536, 16384), (262_144, 1 << 20, 262_144)]
            {
                let initiator = Preferences {
                    header_digest: digest,
                    data_digest: digest,
                    initial_r2t: r2t,
                    immediate_data: immediate,
                    ..Preferences::default()
                };
                let target = Preferences {
                    max_recv_data_segment_length: segment,
                    max_burst_length: burst,
                    first_burst_length: first,
                    ..initiator
                };
                all.push((initiator, target));
                all.push((target, initiator));
            }
        }
    }
    all
}

#[test]
fn random_reads_and_writes_arrive_whole_under_every_combination() {
    for (index, (initiator, target)) in combinations().into_iter().enumerate() {
        let mut pair = Pair::new(initiator, target, index as u64);
        pair.drive();
        assert!(pair.initiator.is_full_feature() && pair.target.is_full_feature(), "combination {index}");
        let digest = pair.initiator.parameters().data_digest;
        assert_eq!(digest == Digest::Crc32c, initiator.data_digest == DigestPreference::Prefer);
        let mut model = pair.medium.clone();
        for _ in 0..12 {
            let offset = pair.prng.below(700_000) as u32;
            let len = 1 + pair.prng.below(300_000) as u32;
            if pair.prng.below(2) == 0 {
                let task = pair.submit(b'W', offset, len, len).expect("window");
                model[offset as usize..][..len as usize].copy_from_slice(&pair.initiator_buffers[&task]);
                pair.drive();
            } else {
                let task = pair.submit(b'R', offset, len, len).expect("window");
                pair.drive();
                let expected = &model[offset as usize..][..len as usize];
                assert!(
                    pair.initiator_buffers[&task] == expected,
                    "combination {index}: read {offset}+{len}"
                );
            }
            let (_, completion) = pair.completed.pop().expect("answered");
            assert_eq!((completion.status, completion.underflow, completion.overflow), (0, 0, 0));
        }
        assert!(pair.medium == model, "combination {index}: the medium holds every write");
    }
}

#[test]
fn residuals_tell_both_kinds_of_mismatch() {
    let mut pair = Pair::new(Preferences::default(), Preferences::default(), 1);
    pair.drive();
    for (kind, len, expected, underflow, overflow) in
        [(b'R', 4096, 8192, 4096, 0), (b'R', 8192, 4096, 0, 4096), (b'W', 4096, 8192, 4096, 0)]
    {
        pair.submit(kind, 0, len, expected).expect("window");
        pair.drive();
        let (_, completion) = pair.completed.pop().expect("answered");
        assert_eq!(
            (completion.underflow, completion.overflow),
            (underflow, overflow),
            "{kind} {len} {expected}"
        );
    }
}

#[test]
fn the_window_closes_when_the_target_is_full_and_abort_opens_it() {
    let mut pair = Pair::new(Preferences::default(), Preferences::default(), 2);
    pair.drive();
    let mut tasks = Vec::new();
    while let Ok(task) = pair.submit(b'H', 0, 0, 0) {
        tasks.push(task);
        pair.drive();
    }
    assert_eq!(tasks.len(), 8);
    assert_eq!(pair.submit(b'H', 0, 0, 0), Err(initiator::NotSent::WindowClosed));
    assert_eq!(pair.initiator.may_submit(), Err(initiator::NotSent::WindowClosed));
    pair.initiator.manage(1, 0, Some(tasks[3]));
    pair.drive();
    assert!(pair.events.iter().any(|event| matches!(event, initiator::Event::TaskManagementDone(_, 0))));
    pair.initiator.ping();
    pair.drive();
    assert!(pair.events.contains(&initiator::Event::Pong), "pings pass a closed window");
    pair.submit(b'H', 0, 0, 0).expect("one place is free");
}

#[test]
fn discovery_lists_targets_over_several_pdus() {
    let small = Preferences { max_recv_data_segment_length: 8192, ..Preferences::default() };
    let mut pair = Pair::with(small, small, 3, None, None);
    pair.drive();
    pair.initiator.send_targets("All");
    pair.drive();
    let text = pair.events.iter().find_map(|event| match event {
        initiator::Event::Text(text) => Some(text.len()),
        _ => None,
    });
    assert_eq!(text, Some(400 * 44));
    pair.initiator.log_out();
    pair.drive();
    assert_eq!(pair.initiator.closed(), Some(&CloseReason::LoggedOut));
    assert_eq!(pair.target.closed(), Some(&CloseReason::LoggedOut));
}

#[test]
fn a_refused_login_says_why() {
    let mut pair = Pair::new(Preferences::default(), Preferences::default(), 4);
    pair.refuse = Some(LoginStatus::AuthorizationFailure);
    pair.drive();
    let closed = CloseReason::LoginRefused { class: 2, detail: 2 };
    assert_eq!(pair.initiator.closed(), Some(&closed));
    assert_eq!(closed.to_string(), "login refused: this initiator may not use the target (status 0x0202)");
}

#[test]
fn damaged_write_data_fail_the_task_and_damaged_headers_the_connection() {
    let digests = Preferences {
        header_digest: DigestPreference::Prefer,
        data_digest: DigestPreference::Prefer,
        ..Preferences::default()
    };
    for (damage_at, task_fails) in [(48 + 4 + 100, true), (20, false)] {
        let mut pair = Pair::new(digests, digests, 5);
        pair.drive();
        pair.submit(b'W', 0, 4096, 4096).expect("window");
        let transmit = pair.initiator.poll_transmit().expect("a command");
        put(&mut pair.to_target, &transmit, &pair.initiator_buffers);
        pair.to_target.bytes[damage_at] ^= 1;
        let before = pair.medium.clone();
        pair.drive();
        assert_eq!(pair.lost.len(), usize::from(task_fails));
        assert!(pair.medium == before, "damaged data are not written");
        if !task_fails {
            assert_eq!(pair.target.closed(), Some(&CloseReason::HeaderDigest));
        }
    }
}

#[test]
fn a_good_answer_without_its_data_is_the_targets_fault() {
    let mut pair = Pair::new(Preferences::default(), Preferences::default(), 6);
    pair.drive();
    let task = pair.submit(b'H', 0, 0, 0).expect("window");
    pair.drive();
    pair.target.respond(task, Response::default());
    pair.drive();
    assert_eq!(pair.completed.len(), 1, "nothing was expected, and nothing came");
    // A command that reads, and a target that answers it as if it did not.
    let mut cdb = [0; 16];
    cdb[0] = b'H';
    let command = initiator::Command { lun: 0, cdb, direction: Direction::Read, len: 512, attribute: 1 };
    let task = pair.initiator.submit(command).expect("window");
    pair.initiator_buffers.insert(task, vec![0; 512]);
    pair.drive();
    pair.target.respond(task, Response { transfer_len: 512, ..Response::default() });
    pair.drive();
    assert_eq!(pair.completed.len(), 1, "what lies in the buffer is nobody's data");
    assert!(pair.initiator.closed().is_some());
}

#[test]
fn a_ping_of_the_target_is_answered_with_what_it_brought() {
    let digest = DigestPreference::Never;
    let preferences = Preferences { header_digest: digest, data_digest: digest, ..Preferences::default() };
    let mut pair = Pair::new(preferences, preferences, 7);
    pair.drive();
    pair.target.ping();
    let ping = pair.target.poll_transmit().expect("a ping");
    // With a LUN and data, which this target has no use for.
    let (mut head, data) = (ping.head().to_vec(), b"are you there?\0\0");
    let ttt = head[20..24].to_vec();
    head[7] = 14;
    head[8..16].copy_from_slice(&[0, 3, 0, 0, 0, 0, 0, 0]);
    pair.to_initiator.bytes.extend([&head[..], data].concat());
    while give(&mut pair.initiator, &mut pair.to_initiator, &mut pair.initiator_buffers, 9000) {}
    let answer = pair.initiator.poll_transmit().expect("an answer");
    let head = answer.head();
    assert_eq!((head[0], &head[8..16]), (0x40, &[0, 3, 0, 0, 0, 0, 0, 0][..]), "NOP-Out, immediate");
    assert_eq!((&head[16..20], &head[20..24]), (&[0xff; 4][..], &ttt[..]));
    let Body::Inline(echo) = &answer.body else { panic!("without data") };
    assert_eq!(echo[..14], data[..14]);
    assert!(pair.initiator.poll_transmit().is_none(), "once");
}

#[test]
fn nothing_that_a_peer_sends_can_break_either_end() {
    for seed in 0..3000 {
        let mut pair = Pair::new(Preferences::default(), Preferences::default(), seed);
        if seed % 3 != 0 {
            pair.drive();
            let _ = pair.submit(b'W', 0, 70_000, 70_000);
            let _ = pair.submit(b'R', 0, 5000, 5000);
        }
        for _ in 0..4 {
            while let Some(transmit) = pair.initiator.poll_transmit() {
                put(&mut pair.to_target, &transmit, &pair.initiator_buffers);
            }
            while let Some(transmit) = pair.target.poll_transmit() {
                put(&mut pair.to_initiator, &transmit, &pair.target_buffers);
            }
            for wire in [&mut pair.to_target, &mut pair.to_initiator] {
                for _ in 0..pair.prng.below(4) {
                    // Mostly headers, where the meaning is.
                    let reach = if pair.prng.below(2) == 0 { 48 } else { wire.bytes.len().max(1) as u64 };
                    let at = pair.prng.below(reach) as usize;
                    let byte = pair.prng.below(256) as u8;
                    match wire.bytes.get_mut(at) {
                        Some(place) => *place = byte,
                        None => wire.bytes.extend((0..48).map(|_| byte)),
                    }
                }
            }
            pair.drive();
        }
    }
}
