//! A session of several connections without sockets: a small target with a medium, an initiator, and a wire each way for each
//! connection. Bytes move in random pieces from random wires, and may be damaged on the way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use iscsi::chap::{Challenge, Proving, Requirement, Verifying};
use iscsi::digest::Trailer;
use iscsi::initiator::{self, Direction};
use iscsi::keys::Digests;
use iscsi::target::{
    self, Admission, DataFault, Event, Grant, Logout, LogoutResponse, Response, SendTargets, TaskFunction,
    TaskResponse,
};
use iscsi::{Preferences, Protocol, TaskId, Want};

use crate::disorder::{Disorder, Packet};

/// A small generator, so that a failure repeats.
pub(crate) struct Prng(pub(crate) u64);

impl Prng {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

pub(crate) type Buffers = BTreeMap<TaskId, Vec<u8>>;

/// One direction of one connection.
#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) bytes: VecDeque<u8>,
}

/// How many in a thousand data segments are damaged.
#[derive(Clone, Copy)]
pub(crate) struct Damage(pub(crate) u64);

pub(crate) fn put(wire: &mut Wire, packet: &Packet, damage: Damage, prng: &mut Prng) {
    wire.bytes.extend(packet.head());
    let begin = wire.bytes.len();
    wire.bytes.extend(&packet.data);
    wire.bytes.extend(Trailer::of(&packet.data, packet.data_digest).as_bytes());
    if !packet.data.is_empty() && prng.below(1000) < damage.0 {
        let at = begin + prng.below(packet.data.len() as u64) as usize;
        wire.bytes[at] ^= 1 << prng.below(8);
    }
}

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

/// One connection with both ends.
pub(crate) struct Link {
    pub(crate) initiator: initiator::Connection,
    pub(crate) target: target::Connection,
    pub(crate) to_target: Wire,
    pub(crate) to_initiator: Wire,
    cut: bool,
    standing: Standing,
}

/// What a connection is to its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// They belong to it.
    Allegiant,
    /// It was removed for recovery.
    Removed,
}

pub(crate) struct World {
    pub(crate) links: Vec<Link>,
    pub(crate) preferences: (Preferences, Preferences),
    pub(crate) prng: Prng,
    pub(crate) damage: Damage,
    /// Changes the order in which data come, where that is so.
    pub(crate) disorder: Option<Disorder>,
    pub(crate) medium: Vec<u8>,
    pub(crate) initiator_buffers: Buffers,
    pub(crate) target_buffers: Buffers,
    write_offsets: BTreeMap<TaskId, usize>,
    /// The numbers of commands in the order in which the target saw them: byte 12 of their CDBs.
    pub(crate) order: Vec<u32>,
    pub(crate) completed: BTreeMap<TaskId, initiator::Completion>,
    pub(crate) events: Vec<initiator::Event>,
    pub(crate) aborted: BTreeSet<TaskId>,
    /// What the target found wrong with data.
    pub(crate) faults: Vec<DataFault>,
    /// Connections that are gone, which keep their tasks.
    pub(crate) lost: Vec<Link>,
    /// How many in a hundred commands are answered at once; the others wait for their turn.
    pub(crate) promptness: u64,
    /// How the initiator proves who it is, and what the target asks for.
    pub(crate) credentials: Option<Proving>,
    pub(crate) authentication: Verifying,
    /// The portal group that the next connections come by.
    pub(crate) portal_group: u16,
    working: Vec<Work>,
    submitted: u32,
}

/// A command that the target is at.
struct Work {
    task: TaskId,
    /// Bytes that it reads.
    reads: u32,
    response: Response,
}

impl World {
    /// A session of one connection, logged in.
    pub(crate) fn new(initiator: Preferences, target: Preferences, seed: u64) -> Self {
        let mut world = Self::bare(initiator, target, seed);
        world.lead();
        assert!(world.links[0].initiator.is_full_feature(), "{:?}", world.links[0].initiator.closed());
        world
    }

    /// No connection yet: [`World::lead`] makes the first.
    pub(crate) fn bare(initiator: Preferences, target: Preferences, seed: u64) -> Self {
        Self {
            links: Vec::new(),
            preferences: (initiator, target),
            prng: Prng(seed),
            damage: Damage(0),
            disorder: None,
            medium: (0..1 << 20).map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect(),
            initiator_buffers: Buffers::new(),
            target_buffers: Buffers::new(),
            write_offsets: BTreeMap::new(),
            order: Vec::new(),
            completed: BTreeMap::new(),
            events: Vec::new(),
            aborted: BTreeSet::new(),
            faults: Vec::new(),
            lost: Vec::new(),
            promptness: 100,
            credentials: None,
            authentication: Verifying {
                algorithms: iscsi::chap::Algorithm::ALL.into(),
                requirement: Requirement::Disabled,
                accounts: [].into(),
                challenge: Challenge { id: 1, bytes: [1; 32] },
            },
            portal_group: 1,
            working: Vec::new(),
            submitted: 0,
        }
    }

    fn config(&self) -> initiator::Config {
        initiator::Config {
            alias: None,
            initiator: "iqn.2026-11.example:host".into(),
            target: Some("iqn.2026-11.example:disk".into()),
            isid: [0x80, 1, 2, 3, 4, 5],
            preferences: self.preferences.0,
            credentials: self.credentials.clone(),
        }
    }

    /// Makes the first connection, and logs in as far as that goes.
    pub(crate) fn lead(&mut self) {
        self.connect(initiator::Connection::new(self.config()));
        self.drive();
    }

    fn connect(&mut self, initiator: initiator::Connection) {
        let target =
            target::Connection::new(target::Config { preferences: self.preferences.1, queue_depth: 1 });
        let (to_target, to_initiator) = Default::default();
        self.links.push(Link {
            initiator,
            target,
            to_target,
            to_initiator,
            cut: false,
            standing: Standing::Allegiant,
        });
    }

    /// One more connection; it is in full feature phase after [`World::drive`].
    pub(crate) fn join(&mut self, cid: u16) {
        let joining = initiator::Connection::joining(self.config(), &self.links[0].initiator, cid);
        self.connect(joining);
    }

    /// A connection is gone, with what was on its way.
    pub(crate) fn kill(&mut self, index: usize) {
        let mut link = self.links.remove(index);
        link.initiator.drop_connection("cut");
        link.target.drop_connection("cut");
        self.lost.push(link);
    }

    /// The identifier of the connection that was lost last comes again.
    pub(crate) fn reinstate(&mut self) {
        let lost = &self.lost.last().expect("one").initiator;
        let again = initiator::Connection::joining(self.config(), lost, lost.cid());
        self.connect(again);
    }

    /// A connection takes the tasks of the one that was lost last.
    pub(crate) fn take_over(&mut self, index: usize) {
        let lost = &mut self.lost.last_mut().expect("one").initiator;
        self.links[index].initiator.take_over(lost);
    }

    /// Nothing comes through a connection from now on.
    pub(crate) fn cut(&mut self, link: usize, cut: bool) {
        self.links[link].cut = cut;
    }

    /// Changes bytes on their way, mostly of headers, where the meaning is.
    pub(crate) fn scramble(&mut self) {
        for link in &mut self.links {
            while let Some(transmit) = link.initiator.poll_transmit() {
                let packet = Packet::new(&transmit, &self.initiator_buffers);
                put(&mut link.to_target, &packet, Damage(0), &mut self.prng);
            }
            for _ in 0..self.prng.below(4) {
                let bytes = &mut link.to_target.bytes;
                let reach = if self.prng.below(2) == 0 { 48 } else { bytes.len().max(1) as u64 };
                let (at, byte) = (self.prng.below(reach) as usize, self.prng.below(256) as u8);
                match bytes.get_mut(at) {
                    Some(place) => *place = byte,
                    None => bytes.extend([byte; 48]),
                }
            }
        }
    }

    /// Puts what a connection's initiator says on its way.
    pub(crate) fn send_only(&mut self, index: usize) {
        let link = &mut self.links[index];
        while let Some(transmit) = link.initiator.poll_transmit() {
            let packet = Packet::new(&transmit, &self.initiator_buffers);
            put(&mut link.to_target, &packet, Damage(0), &mut self.prng);
        }
    }

    /// Moves bytes until nothing moves.
    pub(crate) fn drive(&mut self) {
        loop {
            for _ in 0..self.links.len() {
                let link = self.prng.below(self.links.len() as u64) as usize;
                self.step(link);
            }
            let moved = (0..self.links.len()).filter(|link| self.step(*link)).count();
            if moved == 0 && !self.work() {
                return;
            }
        }
    }

    /// Moves so many pieces.
    pub(crate) fn drive_for(&mut self, pieces: u64) {
        for _ in 0..pieces {
            let link = self.prng.below(self.links.len() as u64) as usize;
            self.step(link);
            if self.prng.below(8) == 0 {
                self.work();
            }
        }
    }

    /// Answers one of the commands that wait for that.
    fn work(&mut self) -> bool {
        if self.working.is_empty() {
            return false;
        }
        let at = self.prng.below(self.working.len() as u64) as usize;
        let Work { task, reads, response } = self.working.swap_remove(at);
        self.answer(task, reads, response);
        true
    }

    fn answer(&mut self, task: TaskId, reads: u32, response: Response) {
        let all = self.links.iter_mut().chain(&mut self.lost).map(|link| &mut link.target);
        let Some(target) = all.into_iter().find(|target| target.keeps(task)) else { return };
        match reads {
            0 => target.respond(task, response),
            _ => target.send_data(task, reads, response),
        }
    }

    /// Answers now, or later.
    fn finish(&mut self, task: TaskId, reads: u32, response: Response) {
        if self.prng.below(100) < self.promptness {
            self.answer(task, reads, response);
        } else {
            self.working.push(Work { task, reads, response });
        }
    }

    /// Moves everything of a connection but what the initiator would receive of an answered task.
    pub(crate) fn drive_target_only(&mut self, index: usize) {
        while self.links[index].target.open_tasks() > 0 || self.order.is_empty() {
            let link = &mut self.links[index];
            while let Some(transmit) = link.initiator.poll_transmit() {
                let packet = Packet::new(&transmit, &self.initiator_buffers);
                put(&mut link.to_target, &packet, Damage(0), &mut self.prng);
            }
            give(&mut link.target, &mut link.to_target, &mut self.target_buffers, 9000);
            while self.on_target_event(index) {}
            let link = &mut self.links[index];
            while let Some(transmit) = link.target.poll_transmit() {
                let packet = Packet::new(&transmit, &self.target_buffers);
                put(&mut link.to_initiator, &packet, Damage(0), &mut self.prng);
            }
            let answered = link.target.open_tasks() == 0 && !self.order.is_empty();
            while !answered
                && give(&mut link.initiator, &mut link.to_initiator, &mut self.initiator_buffers, 9000)
            {
            }
        }
    }

    fn step(&mut self, index: usize) -> bool {
        let chunk = 1 + self.prng.below(9000) as usize;
        let mut moved = false;
        let link = &mut self.links[index];
        if link.cut {
            return false;
        }
        let mut packets = Vec::new();
        while let Some(transmit) = link.initiator.poll_transmit() {
            packets.push(Packet::new(&transmit, &self.initiator_buffers));
        }
        moved |= !packets.is_empty();
        if let Some(disorder) = &mut self.disorder {
            disorder.apply(&mut packets, link.initiator.parameters(), &mut self.prng);
        }
        for packet in packets {
            put(&mut link.to_target, &packet, self.damage, &mut self.prng);
        }
        moved |= give(&mut link.target, &mut link.to_target, &mut self.target_buffers, chunk);
        // A request may let those of other connections have their turn.
        while (0..self.links.len()).any(|index| self.on_target_event(index)) {
            moved = true;
        }
        let link = &mut self.links[index];
        let mut packets = Vec::new();
        while let Some(transmit) = link.target.poll_transmit() {
            packets.push(Packet::new(&transmit, &self.target_buffers));
            if let Some(task) = transmit.ends {
                self.target_buffers.remove(&task);
            }
        }
        moved |= !packets.is_empty();
        if let Some(disorder) = &mut self.disorder {
            disorder.apply(&mut packets, link.target.parameters(), &mut self.prng);
        }
        for packet in packets {
            put(&mut link.to_initiator, &packet, self.damage, &mut self.prng);
        }
        moved |= give(&mut link.initiator, &mut link.to_initiator, &mut self.initiator_buffers, chunk);
        while let Some(event) = link.initiator.poll_event() {
            moved = true;
            match event {
                initiator::Event::Completed(task, completion) => {
                    assert!(self.completed.insert(task, completion).is_none(), "answered twice");
                }
                other => self.events.push(other),
            }
        }
        moved
    }

    fn on_target_event(&mut self, index: usize) -> bool {
        let Some(event) = self.links[index].target.poll_event() else { return false };
        match event {
            Event::LoginRequest(request) => {
                let known = self
                    .links
                    .iter()
                    .chain(&self.lost)
                    .find(|link| link.initiator.is_full_feature() || link.target.closed().is_some());
                let joins = known.filter(|_| request.tsih != 0).map(|link| link.target.membership());
                self.links[index].target.admit_login(Admission {
                    portal_group_tag: self.portal_group,
                    target_alias: "disk".into(),
                    authentication: self.authentication.clone(),
                    digests: Digests {
                        header: self.preferences.1.header_digest,
                        data: self.preferences.1.data_digest,
                    },
                    joins,
                });
            }
            Event::LoginComplete => {
                let cid = self.links[index].target.cid();
                let same = self.lost.iter_mut().filter(|link| link.target.cid() == cid);
                same.for_each(|link| link.standing = Standing::Removed);
                self.links[index].target.grant_login(&Grant { tsih: 7, queue_depth: 8 });
            }
            Event::Command(command) => self.on_command(index, &command),
            Event::DataComplete(task) => self.on_write(task),
            Event::DataLost(task, fault) => {
                self.faults.push(fault);
                let response = Response { status: 2, sense: vec![0x70; 18], transfer_len: 0 };
                self.links[index].target.respond(task, response);
            }
            Event::SendTargets { request, which } => {
                let name: &[u8] = match which {
                    SendTargets::Session => b"TargetName=own\0",
                    _ => b"TargetName=other\0",
                };
                self.links[index].target.respond_text(request, name.to_vec());
            }
            Event::TaskManagement { request, function, .. } => self.on_management(index, request, function),
            Event::LogoutRequest { request, what } => self.on_logout(index, request, what),
            Event::Ended(task) => drop(self.target_buffers.remove(&task)),
            Event::LoggedIn | Event::Pong | Event::DataOver(_) => {}
        }
        true
    }

    fn on_management(&mut self, index: usize, request: TaskId, function: TaskFunction) {
        if let TaskFunction::TaskReassign { task, exp_data_sn } = function {
            return self.on_reassign(index, request, task, exp_data_sn);
        }
        let ended: Vec<TaskId> = match function {
            TaskFunction::AbortTask(task) => vec![task],
            _ => self.links.iter().flat_map(|link| link.target.tasks().collect::<Vec<_>>()).collect(),
        };
        for task in ended {
            self.links.iter_mut().for_each(|link| link.target.abort(task));
            self.aborted.insert(task);
        }
        self.links[index].target.respond_task_management(request, TaskResponse::Complete);
    }

    fn on_reassign(&mut self, index: usize, request: TaskId, task: TaskId, exp_data_sn: u32) {
        let lost = self.lost.iter_mut().find(|link| link.target.keeps(task));
        let (response, orphan) = match lost {
            _ if !self.links[index].target.reassigns() => (TaskResponse::ReassignUnsupported, None),
            _ if self.links.iter().any(|link| link.target.keeps(task)) => {
                (TaskResponse::StillAllegiant, None)
            }
            None => (TaskResponse::NoTask, None),
            Some(link) if link.standing == Standing::Allegiant => (TaskResponse::StillAllegiant, None),
            Some(link) => (TaskResponse::Complete, link.target.release(task)),
        };
        let target = &mut self.links[index].target;
        target.respond_task_management(request, response);
        if let Some(orphan) = orphan {
            target.adopt(orphan, exp_data_sn);
        }
    }

    fn on_logout(&mut self, index: usize, request: TaskId, what: Logout) {
        let of = |cid| self.links.iter().position(|link| link.target.cid() == cid);
        let response = match what {
            Logout::Session => LogoutResponse::Closed,
            Logout::Recovery(cid) => match self.lost.iter_mut().rfind(|link| link.target.cid() == cid) {
                None => LogoutResponse::NoConnection,
                Some(link) => {
                    link.standing = Standing::Removed;
                    LogoutResponse::Closed
                }
            },
            Logout::Connection(cid) => match of(cid) {
                None => LogoutResponse::NoConnection,
                Some(other) if other != index => {
                    let gone = &mut self.links[other].target;
                    let tasks: Vec<TaskId> = gone.tasks().collect();
                    tasks.into_iter().for_each(|task| gone.abort(task));
                    gone.drop_connection("logged out by another connection");
                    LogoutResponse::Closed
                }
                Some(_) => LogoutResponse::Closed,
            },
        };
        self.links[index].target.respond_logout(request, response);
    }

    /// The test's command set: byte 0 is 'R', 'W' or 'H' (hang); bytes 4 and 8 hold offset and length.
    fn on_command(&mut self, index: usize, command: &target::Command) {
        let number = |at: usize| u32::from_be_bytes(command.cdb[at..at + 4].try_into().expect("four bytes"));
        let (offset, len) = (number(4) as usize, number(8));
        self.order.push(number(12));
        let target = &mut self.links[index].target;
        match command.cdb[0] {
            b'R' | b'W' if offset.saturating_add(len as usize) > self.medium.len() => {
                let response = Response { status: 2, sense: vec![0x70; 18], transfer_len: 0 };
                target.respond(command.task, response);
            }
            b'R' => {
                self.target_buffers.insert(command.task, self.medium[offset..][..len as usize].to_vec());
                let response = Response { transfer_len: u64::from(len), ..Response::default() };
                self.finish(command.task, len, response);
            }
            b'W' => {
                self.write_offsets.insert(command.task, offset);
                let mut buffer = vec![0; len as usize];
                let early = target.take_early_data(command.task);
                buffer[..early.len()].copy_from_slice(&early);
                self.target_buffers.insert(command.task, buffer);
                target.solicit(command.task, len);
            }
            _ => {}
        }
    }

    fn on_write(&mut self, task: TaskId) {
        let data = self.target_buffers.remove(&task).expect("a buffer");
        let offset = self.write_offsets[&task];
        self.medium[offset..offset + data.len()].copy_from_slice(&data);
        let response = Response { transfer_len: data.len() as u64, ..Response::default() };
        self.finish(task, 0, response);
    }

    /// Sends a command on a connection.
    pub(crate) fn submit(
        &mut self,
        link: usize,
        kind: u8,
        offset: u32,
        len: u32,
    ) -> Result<TaskId, initiator::NotSent> {
        let mut cdb = [0; 16];
        cdb[0] = kind;
        cdb[4..8].copy_from_slice(&offset.to_be_bytes());
        cdb[8..12].copy_from_slice(&len.to_be_bytes());
        cdb[12..16].copy_from_slice(&self.submitted.to_be_bytes());
        let direction = match kind {
            b'R' => Direction::Read,
            b'W' => Direction::Write,
            _ => Direction::None,
        };
        let command =
            initiator::Command { lun: 0, cdb, direction, len, attribute: initiator::Command::SIMPLE };
        let task = self.links[link].initiator.submit(command)?;
        self.submitted += 1;
        let fill = self.prng.below(256) as u8;
        let buffer = (0..len).map(|index| fill.wrapping_add((index / 7) as u8)).collect();
        self.initiator_buffers.insert(task, buffer);
        Ok(task)
    }
}
