//! iSCSI sessions of several connections, at any error recovery level, at either end.
//!
//! The input's first byte says which end, and in what pieces bytes come; the second what this end negotiates for ([`Terms`]). Then come
//! records: a connection's number and what becomes of it, a length, and so many bytes. A connection that gets bytes and is not there is made;
//! one that is cut leaves its tasks to whoever takes them.

use iscsi::chap::{Account, Algorithm, Challenge, Credential, Proving, Requirement, Secret, Verifying};
use iscsi::keys::{Choice, Digests};
use iscsi::target::{self, Admission, Grant, Logout, LogoutResponse, Response, TaskFunction, TaskResponse};
use iscsi::{Preferences, Protocol, Transmit, initiator};

use super::protocol::give;

/// Of an operation code: the command is answered when it has gone on at another connection.
const LATE: u8 = 0x80;
/// Of the byte after it: the data of the command are asked for, and then given up.
const GIVEN_UP: u8 = 0x80;
/// Connections of a session.
const CONNECTIONS: usize = 4;
/// The session's handle.
const TSIH: u16 = 7;
/// Connections that are gone and whose tasks are kept.
const LOST_MAX: usize = 8;

/// What a record does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Bytes,
    Cut,
}

struct Record<'a> {
    slot: usize,
    act: Act,
    bytes: &'a [u8],
}

/// The records of an input.
fn records(mut input: &[u8]) -> impl Iterator<Item = Record<'_>> {
    std::iter::from_fn(move || {
        let [first, len, rest @ ..] = input else { return None };
        let (bytes, after) = rest.split_at(usize::from(*len).min(rest.len()));
        input = after;
        let act = if first & 0x80 != 0 { Act::Cut } else { Act::Bytes };
        Some(Record { slot: usize::from(*first) % CONNECTIONS, act, bytes })
    })
}

/// What an end negotiates for, and how it authenticates, as one byte of the input says: three error recovery levels times the choices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Terms(u8);

impl Terms {
    /// Data PDUs of a sequence may come in any order.
    const ANY_PDU: u8 = 1;
    /// Sequences may.
    const ANY_SEQUENCE: u8 = 2;
    /// A session has one connection, not four.
    const ALONE: u8 = 4;
    /// The initiator authenticates itself,
    const CHAP: u8 = 8;
    /// and the target does.
    const MUTUAL: u8 = 16;
    /// All data of a write wait for an R2T.
    const ASKED: u8 = 32;

    /// Terms of a level with choices.
    #[cfg(test)]
    fn of(level: u8, choices: u8) -> Self {
        Self(choices * 3 + level)
    }

    fn has(self, choice: u8) -> bool {
        (self.0 / 3) & choice != 0
    }

    fn preferences(self) -> Preferences {
        let unless = |choice| if self.has(choice) { Choice::No } else { Choice::Yes };
        Preferences {
            error_recovery_level: u32::from(self.0 % 3),
            max_connections: if self.has(Self::ALONE) { 1 } else { 4 },
            default_time2retain: 20,
            data_pdu_in_order: unless(Self::ANY_PDU),
            data_sequence_in_order: unless(Self::ANY_SEQUENCE),
            initial_r2t: if self.has(Self::ASKED) { Choice::Yes } else { Choice::No },
            ..Preferences::default()
        }
    }

    fn account(self) -> Account {
        let credential = |name: &str, secret: &str| Credential {
            name: name.to_owned(),
            secret: Secret::new(secret.as_bytes().to_vec()).expect("a secret"),
        };
        let target = self.has(Self::MUTUAL).then(|| credential("disk", "what the disk knows"));
        Account::new(credential("host", "what the host knows"), target).expect("two secrets")
    }

    fn verifying(self) -> Verifying {
        let requirement = match (self.has(Self::CHAP), self.has(Self::MUTUAL)) {
            (false, _) => Requirement::Disabled,
            (true, false) => Requirement::Required,
            (true, true) => Requirement::Mutual,
        };
        let challenge = Challenge { id: 1, bytes: [1; 32] };
        let accounts = [self.account()].into();
        Verifying { requirement, accounts, algorithms: Algorithm::ALL.into(), challenge }
    }

    fn proving(self) -> Option<Proving> {
        let challenge = Challenge { id: 2, bytes: [2; 32] };
        let proving = Proving { account: self.account(), challenge, algorithms: Algorithm::ALL.to_vec() };
        self.has(Self::CHAP).then_some(proving)
    }
}

/// What an end sends.
fn look(_: usize, transmit: &Transmit) {
    assert!(transmit.head().len() >= 48);
}

/// See the module.
pub(super) fn target_session(input: &[u8], piece: usize) {
    let Some((terms, input)) = input.split_first() else { return };
    let mut session = TargetSession::on(Terms(*terms));
    for Record { slot, act, mut bytes } in records(input) {
        match act {
            Act::Cut => session.cut(slot),
            Act::Bytes => {
                session.open(slot);
            }
        }
        while !bytes.is_empty() && session.live[slot].is_some() {
            if let Some(end) = &mut session.live[slot] {
                bytes = give(end, bytes, piece);
            }
            session.settle(&mut look);
        }
        session.settle(&mut look);
    }
}

struct TargetSession {
    terms: Terms,
    live: [Option<target::Connection>; CONNECTIONS],
    lost: Vec<target::Connection>,
}

impl TargetSession {
    fn on(terms: Terms) -> Self {
        Self { terms, live: Default::default(), lost: Vec::new() }
    }

    /// The connection at a place, which is made if there is none.
    fn open(&mut self, slot: usize) -> &mut target::Connection {
        let config = target::Config { preferences: self.terms.preferences(), queue_depth: 8 };
        self.live[slot].get_or_insert_with(|| target::Connection::new(config))
    }

    fn settle(&mut self, sent: &mut impl FnMut(usize, &Transmit)) {
        loop {
            let mut moved = false;
            for slot in 0..CONNECTIONS {
                while let Some(event) = self.live[slot].as_mut().and_then(target::Connection::poll_event) {
                    moved = true;
                    self.answer(slot, event);
                }
                let Some(end) = &mut self.live[slot] else { continue };
                while let Some(transmit) = end.poll_transmit() {
                    moved = true;
                    sent(slot, &transmit);
                }
                if end.closed().is_some() {
                    self.cut(slot);
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// A connection is gone; where tasks are kept, so is what belongs to it.
    fn cut(&mut self, slot: usize) {
        let Some(mut end) = self.live[slot].take() else { return };
        end.drop_connection("cut");
        if end.is_full_feature() || end.reassigns() {
            self.lost.push(end);
        }
        if self.lost.len() > LOST_MAX {
            self.lost.remove(0);
        }
    }

    /// What a connection that logs in joins: its session, where it names one that is there.
    fn joins(&mut self, slot: usize, who: &target::LoginRequest) -> Option<target::Membership> {
        let others = |index: &usize| *index != slot;
        let same = |end: &target::Connection| end.is_full_feature() && end.cid() == who.cid;
        let replaced =
            (0..CONNECTIONS).filter(others).find(|index| self.live[*index].as_ref().is_some_and(same));
        let members = || self.live.iter().flatten().filter(|end| end.is_full_feature());
        let membership = members().next().map(target::Connection::membership).filter(|_| who.tsih == TSIH);
        if let (Some(replaced), true) = (replaced, membership.is_some()) {
            self.cut(replaced);
        }
        membership
    }

    fn answer(&mut self, slot: usize, event: target::Event) {
        let joins = match &event {
            target::Event::LoginRequest(who) => self.joins(slot, who),
            _ => None,
        };
        let Some(end) = &mut self.live[slot] else { return };
        let response =
            |status: u8, moved: u32| Response { status, sense: Vec::new(), transfer_len: moved.into() };
        match event {
            target::Event::LoginRequest(_) => end.admit_login(Admission {
                portal_group_tag: 1,
                target_alias: String::new(),
                authentication: self.terms.verifying(),
                digests: Digests::default(),
                joins,
            }),
            target::Event::LoginComplete => end.grant_login(&Grant { tsih: TSIH, queue_depth: 8 }),
            target::Event::Command(command) if command.writes => {
                let _ = end.take_early_data(command.task);
                end.solicit(command.task, command.expected_len.min(4096));
                if command.cdb[1] & GIVEN_UP != 0 {
                    end.give_up_data(command.task);
                }
            }
            target::Event::Command(command) if command.cdb[0] & LATE != 0 => {}
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
            target::Event::TaskManagement { request, function, .. } => self.manage(slot, request, function),
            target::Event::LogoutRequest { request, what } => self.log_out(slot, request, what),
            target::Event::LoggedIn | target::Event::Pong | target::Event::Ended(_) => {}
        }
    }

    fn manage(&mut self, slot: usize, request: iscsi::TaskId, function: TaskFunction) {
        let answer = match function {
            TaskFunction::AbortTask(task) => {
                self.live.iter_mut().flatten().chain(&mut self.lost).for_each(|end| end.abort(task));
                TaskResponse::Complete
            }
            TaskFunction::TaskReassign { task, exp_data_sn } => {
                return self.reassign(slot, request, (task, exp_data_sn));
            }
            _ => TaskResponse::Complete,
        };
        if let Some(end) = &mut self.live[slot] {
            end.respond_task_management(request, answer);
        }
    }

    fn reassign(&mut self, slot: usize, request: iscsi::TaskId, (task, exp_data_sn): (iscsi::TaskId, u32)) {
        let allegiant = self.live.iter().flatten().any(|end| end.keeps(task));
        let Some(taker) = &mut self.live[slot] else { return };
        let lost = self.lost.iter_mut().find(|end| end.keeps(task));
        let (answer, orphan) = match lost {
            _ if !taker.reassigns() => (TaskResponse::ReassignUnsupported, None),
            _ if allegiant => (TaskResponse::StillAllegiant, None),
            None => (TaskResponse::NoTask, None),
            Some(lost) => (TaskResponse::Complete, lost.release(task)),
        };
        taker.respond_task_management(request, answer);
        if let Some(orphan) = orphan {
            taker.adopt(orphan, exp_data_sn);
            assert!(taker.keeps(task));
            let response = Response { status: 0, sense: Vec::new(), transfer_len: 512 };
            taker.send_data(task, 512, response);
        }
    }

    fn log_out(&mut self, slot: usize, request: iscsi::TaskId, what: Logout) {
        let Some(end) = &mut self.live[slot] else { return };
        let known = match what {
            Logout::Session => true,
            Logout::Connection(cid) | Logout::Recovery(cid) if cid == end.cid() => true,
            Logout::Connection(cid) | Logout::Recovery(cid) => {
                let others = (0..CONNECTIONS).filter(|index| *index != slot);
                let is_it = |end: &target::Connection| end.cid() == cid;
                let named = others.into_iter().find(|index| self.live[*index].as_ref().is_some_and(is_it));
                named.into_iter().for_each(|index| self.cut(index));
                named.is_some()
            }
        };
        let answer = if known { LogoutResponse::Closed } else { LogoutResponse::NoConnection };
        if let Some(end) = &mut self.live[slot] {
            end.respond_logout(request, answer);
        }
    }
}

/// See the module.
pub(super) fn initiator_session(input: &[u8], piece: usize) {
    let Some((terms, input)) = input.split_first() else { return };
    let mut session = InitiatorSession::on(Terms(*terms));
    for Record { slot, act, mut bytes } in records(input) {
        if act == Act::Cut {
            session.cut(slot);
        }
        session.open(slot);
        while !bytes.is_empty() && session.live[slot].is_some() {
            if let Some(end) = &mut session.live[slot] {
                bytes = give(end, bytes, piece);
            }
            session.settle(&mut look);
        }
    }
}

struct InitiatorSession {
    terms: Terms,
    live: [Option<initiator::Connection>; CONNECTIONS],
    /// Tasks that went on at another connection.
    taken_over: usize,
    /// What was at a place before, until the next one there has its tasks.
    lost: [Option<initiator::Connection>; CONNECTIONS],
}

impl InitiatorSession {
    fn on(terms: Terms) -> Self {
        Self { terms, live: Default::default(), taken_over: 0, lost: Default::default() }
    }

    fn config(&self) -> initiator::Config {
        initiator::Config {
            initiator: "iqn.2026-11.example:host".to_owned(),
            alias: None,
            target: Some("iqn.2026-11.example:disk".to_owned()),
            isid: [0x80, 1, 2, 3, 4, 5],
            preferences: self.terms.preferences(),
            credentials: self.terms.proving(),
        }
    }

    /// A connection at a place: the session's first, or one that joins it.
    fn open(&mut self, slot: usize) {
        if self.live[slot].is_some() {
            return;
        }
        let config = self.config();
        let cid = u16::try_from(slot).expect("few");
        let leading = self.live.iter().flatten().find(|end| end.is_full_feature());
        self.live[slot] = match leading {
            Some(leading) => Some(initiator::Connection::joining(config, leading, cid)),
            None if slot == 0 && self.live.iter().all(Option::is_none) => {
                Some(initiator::Connection::new(config))
            }
            None => None,
        };
    }

    fn cut(&mut self, slot: usize) {
        let Some(mut end) = self.live[slot].take() else { return };
        end.drop_connection("cut");
        if end.reassigns() {
            self.lost[slot] = Some(end);
        }
    }

    fn settle(&mut self, sent: &mut impl FnMut(usize, &Transmit)) {
        for slot in 0..CONNECTIONS {
            while let Some(event) = self.live[slot].as_mut().and_then(initiator::Connection::poll_event) {
                let Some(end) = &mut self.live[slot] else { continue };
                if event == initiator::Event::LoggedIn
                    && let Some(lost) = &mut self.lost[slot]
                {
                    self.taken_over += lost.open_tasks();
                    end.take_over(lost);
                    assert_eq!(lost.open_tasks(), 0);
                    self.lost[slot] = None;
                }
                submit(end, &event);
            }
            let Some(end) = &mut self.live[slot] else { continue };
            while let Some(transmit) = end.poll_transmit() {
                sent(slot, &transmit);
            }
            if end.closed().is_some() {
                self.cut(slot);
            }
        }
    }
}

/// A write, and a read that the target does not answer before it is reassigned; behind each answer another read.
fn submit(end: &mut initiator::Connection, event: &initiator::Event) {
    let commands: &[(u8, initiator::Direction, u32)] = match event {
        initiator::Event::LoggedIn => {
            &[(1, initiator::Direction::Write, 512), (LATE, initiator::Direction::Read, 512)]
        }
        initiator::Event::Completed(..) => &[(1, initiator::Direction::Read, 128)],
        _ => &[],
    };
    for (opcode, direction, len) in commands.iter().copied() {
        let _ = end.submit(initiator::Command { lun: 0, cdb: [opcode; 16], direction, len, attribute: 1 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use iscsi::Body;

    /// What both ends get of each other, as inputs of the target: the target's and the initiator's.
    struct Talk {
        target: TargetSession,
        initiator: InitiatorSession,
        inputs: [Vec<u8>; 2],
    }

    fn on_the_wire(transmit: &Transmit) -> Vec<u8> {
        let mut bytes = transmit.head().to_vec();
        match &transmit.body {
            Body::None => {}
            Body::Inline(data) => bytes.extend(data),
            Body::Task { len, .. } => bytes.resize(bytes.len() + *len as usize, 0),
        }
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn record(input: &mut Vec<u8>, slot: usize, bytes: &[u8]) {
        for piece in bytes.chunks(255) {
            input.push(u8::try_from(slot).expect("few"));
            input.push(u8::try_from(piece.len()).expect("short"));
            input.extend(piece);
        }
    }

    impl Talk {
        fn on(terms: Terms) -> Self {
            Self {
                target: TargetSession::on(terms),
                initiator: InitiatorSession::on(terms),
                inputs: [vec![0xfe, terms.0], vec![0xff, terms.0]],
            }
        }

        /// Each end hears what the other says, so many times.
        fn go_on(&mut self, rounds: usize) {
            for _ in 0..rounds {
                let mut said = Vec::new();
                self.initiator.settle(&mut |slot, transmit| said.push((slot, on_the_wire(transmit))));
                for (slot, bytes) in said {
                    record(&mut self.inputs[0], slot, &bytes);
                    let end = self.target.open(slot);
                    let mut rest = &bytes[..];
                    while !rest.is_empty() {
                        rest = give(end, rest, usize::MAX);
                    }
                }
                let mut said = Vec::new();
                self.target.settle(&mut |slot, transmit| said.push((slot, on_the_wire(transmit))));
                for (slot, bytes) in said {
                    record(&mut self.inputs[1], slot, &bytes);
                    let Some(end) = &mut self.initiator.live[slot] else { continue };
                    let mut rest = &bytes[..];
                    while !rest.is_empty() {
                        rest = give(end, rest, usize::MAX);
                    }
                }
            }
        }

        fn cut(&mut self, slot: usize) {
            self.inputs
                .iter_mut()
                .for_each(|input| input.extend([0x80 | u8::try_from(slot).expect("few"), 0]));
            self.target.cut(slot);
            self.initiator.cut(slot);
        }
    }

    /// Two connections log in, commands go over each, the second is cut while they are under way, and comes again.
    fn talk(terms: Terms) -> Talk {
        let mut talk = Talk::on(terms);
        talk.initiator.open(0);
        talk.go_on(6);
        if terms.has(Terms::ALONE) {
            return talk;
        }
        talk.initiator.open(1);
        talk.go_on(6);
        talk.cut(1);
        talk.initiator.open(1);
        talk.go_on(7);
        talk
    }

    /// The corpus has it; it leads as far as it should.
    fn corpus_has(talk: &Talk, name: &str) {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/connection");
        for (input, end) in talk.inputs.iter().zip(["target", "initiator"]) {
            let path = folder.join(format!("session-{end}-{name}"));
            if std::env::var_os("GEMEL_WRITE_SEEDS").is_some() {
                std::fs::write(&path, input).expect("a file");
            }
            assert!(path.exists(), "{}: GEMEL_WRITE_SEEDS=1 writes it", path.display());
        }
    }

    #[test]
    fn sessions_of_the_corpus_go_on_where_a_connection_was_cut() {
        for level in 0..3 {
            let talk = talk(Terms::of(level, 0));
            for slot in [0, 1] {
                let ends = (&talk.target.live[slot], &talk.initiator.live[slot]);
                let (Some(target), Some(initiator)) = ends else { panic!("level {level}: {slot} is gone") };
                assert!(target.is_full_feature() && initiator.is_full_feature(), "level {level}: {slot}");
                let agreed = initiator.parameters();
                assert_eq!(agreed.error_recovery_level, u32::from(level));
            }
            let taken = talk.initiator.taken_over;
            assert_eq!(taken > 0, level == 2, "level {level}: {taken} tasks went on");
            corpus_has(&talk, &level.to_string());
        }
    }

    /// What an input can choose is agreed on: data in any order, one connection, CHAP of either kind.
    #[test]
    fn the_choices_of_an_input_are_agreed_on() {
        let all = Terms::ANY_PDU | Terms::ANY_SEQUENCE | Terms::ASKED;
        let named = [
            ("any-order", all),
            ("chap", Terms::CHAP | Terms::ALONE),
            ("mutual-chap", Terms::CHAP | Terms::MUTUAL | all),
        ];
        for (level, (name, choices)) in (0..3).flat_map(|level| named.map(|named| (level, named))) {
            let terms = Terms::of(level, choices);
            let talk = talk(terms);
            let Some(initiator) = &talk.initiator.live[0] else { panic!("{name} {level}: no session") };
            assert!(initiator.is_full_feature(), "{name} {level}: {:?}", initiator.closed());
            let (agreed, any) = (initiator.parameters(), terms.has(Terms::ANY_PDU));
            assert_eq!(agreed.data_pdu_in_order.is_yes(), !any, "{name} {level}");
            assert_eq!(agreed.data_sequence_in_order.is_yes(), !any, "{name} {level}");
            assert_eq!(agreed.initial_r2t.is_yes(), any, "{name} {level}");
            assert_eq!(agreed.max_connections, if terms.has(Terms::ALONE) { 1 } else { 4 });
            corpus_has(&talk, &format!("{name}-{level}"));
        }
    }

    #[test]
    fn records_are_found_in_an_input() {
        let found: Vec<_> = records(&[1, 2, 9, 8, 0x82, 0, 7, 5, 1])
            .map(|Record { slot, act, bytes }| (slot, act, bytes.to_vec()))
            .collect();
        assert_eq!(found, [(1, Act::Bytes, vec![9, 8]), (2, Act::Cut, vec![]), (3, Act::Bytes, vec![1])]);
    }
}
