//! One initiator's session with a target: its stream, its protocol, its jobs and one channel for each LUN.
//!
//! A session whose stream is gone stays until its I/Os came back: a successor of the same nexus is let in only then, so that
//! nothing of the old session lands after the new one began.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bdev::{Capabilities, Channel, Completed, Completions, Geometry, Io, IoError, Op, Tag};
use engine::{Buf, BufMut, Core, Instant, Progress};
use iscsi::target::{self, Connection, Event, Response, TaskFunction, TaskResponse};
use iscsi::{Protocol, TaskId};
use net::{Stream, StreamStatus};
use scsi::{Sense, Unit, parameter};

use super::job::{self, Fencing, Start, Step};
use super::node::{Lun, Node};
use crate::wire::{self, Buffers, Sender};

/// An initiator that says nothing for this long is pinged,
const QUIET: Duration = Duration::from_secs(15);
/// and when it says nothing for this long its session ends: a dead host must not hold a place for ever.
const SILENT: Duration = Duration::from_secs(45);

/// What a job is at.
enum Stage {
    Collecting(BufMut),
    Working,
    Answering(Option<Buf>),
}

struct Job {
    lun: Rc<Lun>,
    number: u16,
    command: scsi::Command,
    expected_len: u32,
    stage: Stage,
    steps: VecDeque<Step>,
    in_flight: bool,
    aborted: bool,
}

/// A command whose frame the pool could not give yet: the session does not read on.
struct Stalled {
    command: target::Command,
    parsed: scsi::Command,
    lun: Rc<Lun>,
    number: u16,
    len: u32,
}

/// A management request that waits for the tasks that it ends.
struct Management {
    request: TaskId,
    waits_for: Vec<TaskId>,
    response: TaskResponse,
}

/// What a session asks of its target.
pub(super) enum Request {
    /// Somebody wants in.
    Login(target::LoginRequest),
    /// SendTargets.
    SendTargets(TaskId, target::SendTargets),
    /// End the tasks of every session at this LUN (all LUNs when `None`), then answer.
    Reset { request: TaskId, lun: Option<u16> },
}

struct Attached {
    channel: Box<dyn Channel>,
    in_flight: usize,
}

/// A LUN's unit with what it was made from: made again only when the device changes, not for each command.
struct CachedUnit {
    geometry: Geometry,
    capabilities: Capabilities,
    unit: Rc<Unit>,
}

#[derive(Default)]
struct Jobs {
    open: BTreeMap<TaskId, Job>,
}

impl Buffers for Jobs {
    fn store(&mut self, task: TaskId, offset: usize, bytes: &[u8]) {
        let Some(Job { stage: Stage::Collecting(buffer), .. }) = self.open.get_mut(&task) else { return };
        let room = buffer.len().saturating_sub(offset).min(bytes.len());
        if room > 0 {
            buffer[offset..offset + room].copy_from_slice(&bytes[..room]);
        }
    }

    fn load(&self, task: TaskId, offset: usize, len: usize) -> Option<Buf> {
        match self.open.get(&task)?.stage {
            Stage::Answering(Some(ref buf)) if offset + len <= buf.len() => {
                Some(buf.slice(offset..offset + len))
            }
            _ => None,
        }
    }
}

pub(super) struct Session {
    core: Core,
    stream: Box<dyn Stream>,
    connection: Connection,
    jobs: Jobs,
    channels: BTreeMap<u16, Attached>,
    units: BTreeMap<u16, CachedUnit>,
    stalled: Option<Stalled>,
    management: Vec<Management>,
    attention: BTreeMap<u16, VecDeque<Sense>>,
    seen_blocks: BTreeMap<u16, u64>,
    done: Completions,
    sender: Sender,
    logging_out: bool,
    heard_at: Option<Instant>,
    pub(super) node: Option<Rc<Node>>,
    pub(super) who: Option<target::LoginRequest>,
    pub(super) portal_group: i32,
    pub(super) tsih: u16,
}

impl Session {
    pub(super) fn new(
        core: &Core,
        stream: Box<dyn Stream>,
        config: target::Config,
        portal_group: i32,
    ) -> Self {
        Self {
            core: core.clone(),
            stream,
            connection: Connection::new(config),
            jobs: Jobs::default(),
            channels: BTreeMap::new(),
            units: BTreeMap::new(),
            stalled: None,
            management: Vec::new(),
            attention: BTreeMap::new(),
            seen_blocks: BTreeMap::new(),
            done: Completions::new(),
            sender: Sender::default(),
            logging_out: false,
            heard_at: None,
            node: None,
            who: None,
            portal_group,
            tsih: 0,
        }
    }

    pub(super) fn stream(&self) -> &dyn Stream {
        &*self.stream
    }

    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    pub(super) fn is_full_feature(&self) -> bool {
        self.connection.is_full_feature()
    }

    /// True when nothing can come in any more.
    pub(super) fn is_over(&self) -> bool {
        let ended = self.connection.closed().is_some() && !self.stream.is_sending();
        ended || matches!(self.stream.status(), StreamStatus::Closed(_))
    }

    /// True when no I/O is under way.
    pub(super) fn is_drained(&self) -> bool {
        self.channels.values().all(|attached| attached.in_flight == 0)
    }

    /// Ends the session from this side.
    pub(super) fn end(&mut self, why: &'static str) {
        self.connection.drop_connection(why);
        self.stream.close();
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.channels.values().filter_map(|attached| attached.channel.next_deadline()).min()
    }

    /// One turn; pushes what needs the target to `requests`.
    pub(super) fn poll(&mut self, now: Instant, requests: &mut Vec<Request>) -> Progress {
        let mut progress = self.stream.poll(now);
        progress |= self.poll_channels(now);
        if !self.is_over() {
            progress |= self.receive(now, requests);
            self.watch_silence(now);
            self.finish_management();
            progress |= self.transmit();
            // What was pushed leaves in this turn, not in the next.
            progress |= self.stream.poll(now);
            if self.connection.closed().is_some() && !self.stream.is_sending() {
                self.stream.close();
            }
        }
        progress
    }

    fn receive(&mut self, now: Instant, requests: &mut Vec<Request>) -> Progress {
        let mut taken = 0;
        loop {
            self.retry_stalled(now);
            if self.stalled.is_some() {
                break;
            }
            // Stop at each event: its answer may change what the next bytes mean.
            let pending = &mut VecDeque::new();
            let count =
                wire::receive(&mut *self.stream, &mut self.connection, &mut self.jobs, |connection| {
                    pending.extend(connection.poll_event());
                    !pending.is_empty()
                });
            pending.extend(self.connection.poll_event());
            taken += count;
            if count > 0 {
                self.heard_at = Some(now);
            }
            if pending.is_empty() {
                break;
            }
            for event in pending.drain(..) {
                taken += 1;
                self.on_event(event, now, requests);
            }
        }
        Progress::from_count(taken)
    }

    /// Pings a quiet initiator, and ends the session of a silent one.
    fn watch_silence(&mut self, now: Instant) {
        let heard = *self.heard_at.get_or_insert(now);
        if now - heard >= SILENT {
            self.end("the initiator is silent");
        } else if now - heard >= QUIET {
            // Once is enough: a second ping waits for the first one's answer.
            self.connection.ping();
        }
    }

    fn on_event(&mut self, event: Event, now: Instant, requests: &mut Vec<Request>) {
        match event {
            Event::LoginRequest(request) => requests.push(Request::Login(request)),
            Event::LoggedIn | Event::Pong => {}
            Event::Command(command) => self.on_command(command, now),
            Event::DataComplete(task) => self.on_collected(task, now),
            Event::DataLost(task) => self.fail(task, Sense::CRC_ERROR),
            Event::SendTargets { request, which } => requests.push(Request::SendTargets(request, which)),
            Event::TaskManagement { request, lun, function } => {
                self.on_management(request, lun, function, requests);
            }
            Event::LogoutRequest => self.logging_out = true,
        }
    }

    fn unit(&mut self, number: u16, lun: &Lun) -> Rc<Unit> {
        let (geometry, capabilities) = (lun.config.bdev.geometry(), lun.config.bdev.capabilities());
        if let Some(cached) = self.units.get(&number)
            && (cached.geometry, cached.capabilities) == (geometry, capabilities)
        {
            return cached.unit.clone();
        }
        let unit = Rc::new(self.make_unit(lun));
        self.units.insert(number, CachedUnit { geometry, capabilities, unit: unit.clone() });
        unit
    }

    fn make_unit(&self, lun: &Lun) -> Unit {
        let group = self.portal_group;
        let name = self.node.as_ref().map(|node| node.name()).unwrap_or_default();
        lun.config.unit(&format!("{name},t,0x{group:04x}"), u16::try_from(group).unwrap_or(1))
    }

    fn on_command(&mut self, command: target::Command, now: Instant) {
        if self.jobs.open.contains_key(&command.task) {
            return self.end("the initiator reuses the tag of a task that it has just aborted");
        }
        let parsed = match scsi::parse(&command.cdb) {
            Ok(parsed) => parsed,
            Err(sense) => return self.refuse(command.task, sense),
        };
        let number = scsi::lun::decode(command.lun);
        let lun = number.and_then(|number| Some((number, self.node.as_ref()?.lun(number)?)));
        if let scsi::Command::ReportLuns { select, allocation } = parsed {
            return self.report_luns(command.task, select, allocation);
        }
        let Some((number, lun)) = lun else { return self.absent(&command, &parsed) };
        if let Some(sense) = self.take_attention(number, &lun, &parsed) {
            return self.refuse(command.task, sense);
        }
        lun.stats.commands.set(lun.stats.commands.get() + 1);
        let unit = self.unit(number, &lun);
        // An import that was never connected has no size yet.
        let identifies = matches!(parsed, scsi::Command::Inquiry { .. } | scsi::Command::RequestSense { .. });
        if unit.blocks == 0 && !identifies {
            return self.refuse(command.task, Sense::BECOMING_READY);
        }
        let fencing = Fencing::of(lun.config.bdev.capabilities());
        match job::start(&parsed, &unit, lun.config.mode, fencing) {
            Start::Fail(sense) => self.refuse(command.task, sense),
            Start::Data(data) => self.answer_bytes(command.task, &data),
            Start::Collect(len) => {
                self.stalled = Some(Stalled { command, parsed, lun, number, len });
                self.retry_stalled(now);
            }
            Start::Steps(steps) => {
                let job = Job::new(lun, number, parsed, command.expected_len, Stage::Working);
                self.open_job(command.task, Job { steps, ..job });
                self.advance(command.task, now);
            }
        }
    }

    /// A unit attention comes before any command but those that SPC-4 exempts.
    fn take_attention(&mut self, number: u16, lun: &Lun, command: &scsi::Command) -> Option<Sense> {
        let blocks = lun.config.bdev.geometry().blocks;
        if self.seen_blocks.insert(number, blocks).is_some_and(|seen| seen != blocks) {
            self.attention.entry(number).or_default().push_back(Sense::CAPACITY_CHANGED);
        }
        let exempt = matches!(
            command,
            scsi::Command::Inquiry { .. }
                | scsi::Command::ReportLuns { .. }
                | scsi::Command::RequestSense { .. }
        );
        if exempt { None } else { self.attention.get_mut(&number)?.pop_front() }
    }

    fn absent(&mut self, command: &target::Command, parsed: &scsi::Command) {
        match parsed {
            scsi::Command::Inquiry { allocation, .. } => {
                let mut data = scsi::inquiry::absent();
                data.truncate(*allocation as usize);
                self.answer_bytes(command.task, &data);
            }
            _ => self.refuse(command.task, Sense::LUN_NOT_SUPPORTED),
        }
    }

    fn report_luns(&mut self, task: TaskId, select: u8, allocation: u32) {
        let luns: Vec<u64> = match (select, &self.node) {
            (0 | 2, Some(node)) => {
                node.luns.borrow().keys().map(|number| scsi::lun::encode(*number)).collect()
            }
            (1, _) => Vec::new(),
            _ => return self.refuse(task, Sense::invalid_cdb_byte(2)),
        };
        if allocation < 16 {
            return self.refuse(task, Sense::invalid_cdb_byte(6));
        }
        let mut data = parameter::report_luns(&luns);
        data.truncate(allocation as usize);
        self.answer_bytes(task, &data);
    }

    fn retry_stalled(&mut self, now: Instant) {
        let Some(stalled) = &self.stalled else { return };
        let block_size = stalled.lun.config.bdev.geometry().block_size;
        // Fewer bytes than the CDB wants: whole blocks of what comes.
        let moves_blocks = !matches!(
            stalled.parsed,
            scsi::Command::Unmap { .. }
                | scsi::Command::ModeSelect { .. }
                | scsi::Command::PersistentReserveOut { .. }
        );
        let expected = if stalled.command.writes { stalled.command.expected_len } else { 0 };
        let len = match stalled.len.min(expected) {
            len if moves_blocks => len - len % block_size,
            len => len,
        };
        if let Some(sense) = wrong_length(&stalled.parsed, expected, block_size) {
            let task = stalled.command.task;
            self.stalled = None;
            return self.refuse(task, sense);
        }
        if len == 0 {
            return self.move_nothing(now);
        }
        let Some(frame) = self.core.pool().alloc(len as usize) else { return };
        let Some(Stalled { command, parsed, lun, number, .. }) = self.stalled.take() else { return };
        let task = command.task;
        let job = Job::new(lun, number, parsed, command.expected_len, Stage::Collecting(frame));
        self.open_job(task, job);
        self.connection.solicit(task, len);
    }

    /// The initiator expects to move less than a block: nothing is written, and the residual tells it.
    fn move_nothing(&mut self, now: Instant) {
        let Some(Stalled { command, parsed, lun, number, .. }) = self.stalled.take() else { return };
        self.open_job(command.task, Job::new(lun, number, parsed, command.expected_len, Stage::Working));
        self.advance(command.task, now);
    }

    fn open_job(&mut self, task: TaskId, job: Job) {
        job.lun.stats.active.set(job.lun.stats.active.get() + 1);
        self.jobs.open.insert(task, job);
    }

    fn on_collected(&mut self, task: TaskId, now: Instant) {
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        let stage = std::mem::replace(&mut job.stage, Stage::Working);
        let Stage::Collecting(data) = stage else { return };
        let (number, lun, command) = (job.number, job.lun.clone(), job.command);
        let unit = self.unit(number, &lun);
        match job::collected(&command, &unit, lun.config.mode, data, self.core.pool()) {
            Ok(steps) => {
                if let Some(job) = self.jobs.open.get_mut(&task) {
                    job.steps = steps;
                }
                self.advance(task, now);
            }
            Err(sense) => self.fail(task, sense),
        }
    }

    /// Starts the next step of a job, or answers it.
    fn advance(&mut self, task: TaskId, now: Instant) {
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        if !matches!(job.stage, Stage::Working) || job.in_flight {
            return;
        }
        let Some(step) = job.steps.front() else { return self.succeed(task, None) };
        let lun = job.lun.clone();
        let number = job.number;
        let Some(op) = step.op(self.core.pool(), lun.config.bdev.geometry().block_size) else { return };
        let Ok(attached) = attach(&mut self.channels, number, &lun, &self.core) else {
            return self.fail(task, Sense::INTERNAL_FAILURE);
        };
        match attached.channel.submit(Io::new(op, Tag(u64::from(task.0)), now), now) {
            Ok(()) => {
                attached.in_flight += 1;
                job.in_flight = true;
            }
            // The queue is full: the step stays and is tried again next turn.
            Err(refused) if refused.why == IoError::Busy => {
                drop(refused.io.complete(Err(IoError::Busy), now));
            }
            Err(refused) => {
                let why = refused.why;
                drop(refused.io.complete(Err(why), now));
                self.fail_io(task, why);
            }
        }
    }

    fn poll_channels(&mut self, now: Instant) -> Progress {
        let mut progress = Progress::Idle;
        let mut done = std::mem::take(&mut self.done);
        for attached in self.channels.values_mut() {
            let before = done.len();
            progress |= attached.channel.poll(now, &mut done);
            attached.in_flight -= done.len() - before;
        }
        for completed in done.drain(..) {
            self.on_completed(completed, now);
        }
        self.done = done;
        // Steps that found no room or no frame before.
        let waiting: Vec<TaskId> =
            self.jobs.open.iter().filter(|(_, job)| job.is_waiting()).map(|(task, _)| *task).collect();
        for task in waiting {
            self.advance(task, now);
        }
        progress
    }

    fn on_completed(&mut self, completed: Completed, now: Instant) {
        let task = TaskId(u32::try_from(completed.tag.0).expect("tags are task tags"));
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        job.in_flight = false;
        let step = job.steps.pop_front();
        if job.aborted {
            return self.close_job(task);
        }
        if let Err(error) = completed.result {
            let writing = step.as_ref().map_or(crate::translate::Writing::No, Step::writing);
            let format = scsi::SenseFormat::Fixed;
            return self.respond(task, job::io_failure(error, writing, format));
        }
        match (step, completed.op) {
            (Some(Step::Compare(_, wanted)), Op::Read { into, .. }) => {
                if let Err(sense) = job::compare(&into, &wanted) {
                    return self.fail(task, sense);
                }
            }
            (Some(Step::Read(_)), Op::Read { into, .. }) if matches!(job.command, scsi::Command::Read(_)) => {
                return self.succeed(task, Some(into.freeze()));
            }
            _ => {}
        }
        self.advance(task, now);
    }

    fn succeed(&mut self, task: TaskId, data: Option<Buf>) {
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        let block_size = u64::from(job.lun.config.bdev.geometry().block_size);
        let transfer_len = job::transfer_len(&job.command, block_size);
        let moved = transfer_len.min(u64::from(job.expected_len));
        let stats = &job.lun.stats;
        match job.command {
            scsi::Command::Read(_) => stats.read_bytes.set(stats.read_bytes.get() + moved),
            scsi::Command::Write(_) => stats.written_bytes.set(stats.written_bytes.get() + moved),
            _ => {}
        }
        let response = Response { transfer_len, ..Response::default() };
        let available = data.as_ref().map_or(0, |data| u32::try_from(data.len()).expect("a frame is short"));
        job.stage = Stage::Answering(data);
        self.connection.send_data(task, available, response);
    }

    fn respond(&mut self, task: TaskId, response: Response) {
        if let Some(job) = self.jobs.open.get_mut(&task) {
            job.stage = Stage::Answering(None);
            job.steps.clear();
        }
        self.connection.respond(task, response);
    }

    fn fail(&mut self, task: TaskId, sense: Sense) {
        self.respond(task, job::failure(sense, scsi::SenseFormat::Fixed));
    }

    fn fail_io(&mut self, task: TaskId, error: IoError) {
        self.respond(task, job::io_failure(error, crate::translate::Writing::No, scsi::SenseFormat::Fixed));
    }

    /// Ends a command that never became a job.
    fn refuse(&mut self, task: TaskId, sense: Sense) {
        self.connection.respond(task, job::failure(sense, scsi::SenseFormat::Fixed));
    }

    /// Answers a command with bytes that came from no medium.
    fn answer_bytes(&mut self, task: TaskId, data: &[u8]) {
        let response = Response { transfer_len: data.len() as u64, ..Response::default() };
        let frame = (!data.is_empty()).then(|| self.core.pool().alloc(data.len()));
        match frame {
            None => self.connection.respond(task, response),
            Some(None) => {
                let busy = Response { status: scsi::status::BUSY, ..Response::default() };
                self.connection.respond(task, busy);
            }
            Some(Some(mut frame)) => {
                frame.copy_from_slice(data);
                self.answers(task, frame.freeze(), response);
            }
        }
    }

    fn answers(&mut self, task: TaskId, data: Buf, response: Response) {
        let Some(lun) = self.node.as_ref().and_then(|node| node.luns.borrow().values().next().cloned())
        else {
            return self.refuse(task, Sense::LUN_NOT_SUPPORTED);
        };
        let available = u32::try_from(data.len()).expect("a frame is short");
        let stage = Stage::Answering(Some(data));
        self.open_job(task, Job::new(lun, 0, scsi::Command::TestUnitReady, available, stage));
        self.connection.send_data(task, available, response);
    }

    fn transmit(&mut self) -> Progress {
        let sent = self.sender.run(&mut *self.stream, &mut self.connection, &self.jobs, self.core.pool());
        let Ok(mut count) = sent else {
            self.end("internal error: a response without its buffer");
            return Progress::Busy;
        };
        for task in std::mem::take(&mut self.sender.ended) {
            self.close_job(task);
        }
        if self.logging_out && self.jobs.open.is_empty() {
            self.logging_out = false;
            self.connection.finish_logout();
            count += 1;
        }
        Progress::from_count(count)
    }

    fn close_job(&mut self, task: TaskId) {
        if let Some(job) = self.jobs.open.remove(&task) {
            job.lun.stats.active.set(job.lun.stats.active.get().saturating_sub(1));
        }
    }

    // Task management.

    fn on_management(
        &mut self,
        request: TaskId,
        lun: u64,
        function: TaskFunction,
        requests: &mut Vec<Request>,
    ) {
        let number = scsi::lun::decode(lun);
        let exists =
            number.is_some_and(|number| self.node.as_ref().is_some_and(|node| node.lun(number).is_some()));
        let (waits_for, response) = match function {
            TaskFunction::AbortTask(task) if self.jobs.open.contains_key(&task) => {
                (vec![task], TaskResponse::Complete)
            }
            TaskFunction::AbortTask(task) if self.is_stalled(task) => (Vec::new(), TaskResponse::Complete),
            TaskFunction::AbortTask(_) => (Vec::new(), TaskResponse::NoTask),
            TaskFunction::TargetWarmReset | TaskFunction::TargetColdReset => {
                return requests.push(Request::Reset { request, lun: None });
            }
            _ if !exists => (Vec::new(), TaskResponse::NoLun),
            TaskFunction::AbortTaskSet => (self.tasks_of(number), TaskResponse::Complete),
            TaskFunction::LogicalUnitReset | TaskFunction::ClearTaskSet => {
                return requests.push(Request::Reset { request, lun: number });
            }
            TaskFunction::TaskReassign => (Vec::new(), TaskResponse::ReassignUnsupported),
            TaskFunction::ClearAca | TaskFunction::Unknown(_) => (Vec::new(), TaskResponse::Unsupported),
        };
        if let TaskFunction::AbortTask(task) = function {
            // A command that waits for a frame is no job yet.
            self.stalled.take_if(|stalled| stalled.command.task == task);
            self.connection.abort(task);
        }
        for task in &waits_for {
            self.abort(*task);
        }
        self.management.push(Management { request, waits_for, response });
    }

    fn is_stalled(&self, task: TaskId) -> bool {
        self.stalled.as_ref().is_some_and(|stalled| stalled.command.task == task)
    }

    fn tasks_of(&self, number: Option<u16>) -> Vec<TaskId> {
        let at = |job: &Job| number.is_none_or(|number| job.number == number);
        self.jobs.open.iter().filter(|(_, job)| at(job)).map(|(task, _)| *task).collect()
    }

    /// No status is sent for the task any more; an I/O under way is waited for.
    fn abort(&mut self, task: TaskId) {
        self.connection.abort(task);
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        if job.in_flight {
            job.aborted = true;
        } else {
            self.close_job(task);
        }
    }

    /// Ends the tasks at a LUN, or at all; another nexus's reset leaves a unit attention.
    pub(super) fn reset(&mut self, number: Option<u16>, attention: Option<Sense>) {
        for task in self.tasks_of(number) {
            self.abort(task);
        }
        let hit = |stalled: &mut Stalled| number.is_none_or(|number| stalled.number == number);
        if let Some(stalled) = self.stalled.take_if(hit) {
            self.connection.abort(stalled.command.task);
        }
        let (Some(sense), Some(node)) = (attention, &self.node) else { return };
        for lun in node.luns.borrow().keys().filter(|lun| number.is_none_or(|number| number == **lun)) {
            self.attention.entry(*lun).or_default().push_back(sense);
        }
    }

    /// True when no aborted task at the LUN is still at work.
    pub(super) fn is_reset(&self, number: Option<u16>) -> bool {
        let at = |job: &Job| number.is_none_or(|number| job.number == number);
        !self.jobs.open.values().any(|job| job.aborted && at(job))
    }

    fn finish_management(&mut self) {
        let open = &self.jobs.open;
        let ended =
            |management: &mut Management| management.waits_for.iter().all(|task| !open.contains_key(task));
        for management in self.management.extract_if(.., ended) {
            self.connection.respond_task_management(management.request, management.response);
        }
    }
}

/// What is wrong with the length of data that must be exact.
fn wrong_length(command: &scsi::Command, expected: u32, block_size: u32) -> Option<Sense> {
    match command {
        // The data-out buffer of WRITE SAME is one block (SBC-3 section 5.43).
        scsi::Command::WriteSame { .. } if expected != block_size => Some(Sense::INVALID_FIELD_IN_CDB),
        scsi::Command::Unmap { length }
        | scsi::Command::ModeSelect { length, .. }
        | scsi::Command::PersistentReserveOut { length, .. }
            if expected < *length =>
        {
            Some(Sense::PARAMETER_LENGTH)
        }
        _ => None,
    }
}

impl Job {
    fn new(lun: Rc<Lun>, number: u16, command: scsi::Command, expected_len: u32, stage: Stage) -> Self {
        let steps = VecDeque::new();
        Self { lun, number, command, expected_len, stage, steps, in_flight: false, aborted: false }
    }

    fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Working) && !self.in_flight && !self.aborted
    }
}

fn attach<'a>(
    channels: &'a mut BTreeMap<u16, Attached>,
    number: u16,
    lun: &Lun,
    core: &Core,
) -> Result<&'a mut Attached, bdev::OpenError> {
    if let std::collections::btree_map::Entry::Vacant(entry) = channels.entry(number) {
        let channel = lun.config.bdev.clone().open(core)?;
        entry.insert(Attached { channel, in_flight: 0 });
    }
    Ok(channels.get_mut(&number).expect("inserted above"))
}

impl Drop for Session {
    fn drop(&mut self) {
        for job in self.jobs.open.values() {
            job.lun.stats.active.set(job.lun.stats.active.get().saturating_sub(1));
        }
    }
}
