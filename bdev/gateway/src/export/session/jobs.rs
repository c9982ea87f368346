//! Jobs: commands that take I/Os or data, from their first step to their status on the wire.

use std::collections::BTreeMap;

use bdev::{AccessState, Channel, Completed, Io, IoError, Tag};
use engine::{Core, Instant, Pool, Progress};
use iscsi::target::Response;
use iscsi::{TaskId, TaskMap};
use scsi::Sense;

use super::super::job::{self, After, Step, Steps};
use super::super::long::{Ticket, Turn, Wanted};
use super::super::node::{Lun, Place, port_group};
use super::super::state::Standing;
use super::Session;
use super::commands::{refusal, sense_format};
use super::dormant::Arrival;
use super::footing::Footing;
use super::frames::{Parked, may_hold};
use super::management::Hears;
use super::paths::Passage;
use super::reservation;
use super::turns::Pace;
use crate::payload::{FRAME, Parts, Payload, PayloadMut};
use crate::translate::Writing;
use crate::wire::Buffers;

/// What a job is at.
pub(super) enum Stage {
    /// There is no frame for its data yet.
    Parked(Parked),
    Collecting(PayloadMut),
    /// It was ended before all of its data had come; it is answered when nothing more comes of them.
    Owed,
    Working,
    Answering(Option<Payload>),
}

pub(super) struct Job {
    /// `None` for commands about all LUNs, or about one that is not there.
    pub(super) place: Option<Place>,
    began: Instant,
    pub(super) command: scsi::Command,
    pub(super) expected_len: u32,
    pub(super) stage: Stage,
    pub(super) steps: Steps,
    pub(super) in_flight: bool,
    pub(super) aborted: bool,
    /// How its nexus hears of that.
    pub(super) hears_of_end: Hears,
    /// How it ends, whatever comes of the I/O that is under way.
    pub(super) verdict: Option<Sense>,
    /// Bytes of the frame that it holds for the initiator.
    charge: usize,
    /// Its turn to hold more than a frame, as long as it does.
    pub(super) ticket: Option<Ticket>,
    /// When the initiator was asked for its data.
    pub(super) asked_at: Instant,
    /// Since when nothing has come of them.
    pub(super) pace: Pace,
    /// What the step that it is at has.
    pub(super) footing: Footing,
    /// Its place in the unit's task set, until it is answered; of one that is not carried out here, in `passage`.
    pub(super) standing: Option<Standing>,
    /// Of a command that waits for others of the unit.
    pub(super) dormant: Option<Box<Arrival>>,
    /// Of a command that is not carried out here, or not yet.
    pub(super) passage: Option<Box<Passage>>,
}

impl Job {
    /// True while data of the initiator are awaited.
    pub(super) fn is_collecting(&self) -> bool {
        matches!(self.stage, Stage::Parked(_) | Stage::Collecting(_) | Stage::Owed)
    }

    /// True while the initiator has been asked for data.
    pub(super) fn is_taking(&self) -> bool {
        matches!(self.stage, Stage::Collecting(_) | Stage::Owed)
    }
}

#[derive(Default)]
pub(super) struct Jobs {
    pub(super) open: TaskMap<Job>,
    /// Bytes of frames whose time the initiator decides (`frames.rs`).
    pub(super) held: usize,
    /// Bytes that have come of what the initiator was asked for.
    pub(super) arrived: u64,
}

impl Jobs {
    /// True while something of a job is under way here: an I/O, or a change of what a unit keeps.
    pub(super) fn is_at_work(&self) -> bool {
        self.open.values().any(|job| job.in_flight && job.passage.is_none())
    }

    /// A job holds a frame for `len` bytes, in place of what it held before; zero for none. What is more than a frame has its own bound.
    pub(super) fn charge(&mut self, task: TaskId, len: usize) {
        let Some(job) = self.open.get_mut(&task) else { return };
        let data = if (1..=FRAME).contains(&len) { Pool::frame_bytes(len) } else { 0 };
        let charge = data + job.footing.scratch.as_ref().map_or(0, |frame| Pool::frame_bytes(frame.len()));
        self.held = self.held + charge - std::mem::replace(&mut job.charge, charge);
    }

    /// A job is over.
    pub(super) fn remove(&mut self, task: TaskId) -> Option<Job> {
        let job = self.open.remove(&task)?;
        self.held -= job.charge;
        Some(job)
    }
}

impl Buffers for Jobs {
    fn store(&mut self, task: TaskId, offset: usize, bytes: &[u8]) {
        let Some(job) = self.open.get_mut(&task) else { return };
        match &mut job.stage {
            Stage::Collecting(buffer) => {
                self.arrived += bytes.len() as u64;
                buffer.store(offset, bytes);
            }
            Stage::Parked(parked) => parked.store(offset, bytes),
            // Its host sends, all the same.
            Stage::Owed => self.arrived += bytes.len() as u64,
            Stage::Working | Stage::Answering(_) => {}
        }
    }

    fn load(&self, task: TaskId, offset: usize, len: usize) -> Option<Parts> {
        match &self.open.get(&task)?.stage {
            Stage::Answering(Some(data)) => data.part(offset, len),
            _ => None,
        }
    }
}

pub(super) struct Attached {
    pub(super) channel: Box<dyn Channel>,
    pub(super) in_flight: usize,
}

impl Session {
    pub(super) fn open_job(&mut self, task: TaskId, job: Job) {
        if let Some(Place { lun, .. }) = &job.place {
            lun.stats.active.set(lun.stats.active.get() + 1);
        }
        self.jobs.open.insert(task, job);
    }

    /// Starts the next step of a job, or answers it.
    pub(super) fn advance(&mut self, task: TaskId, now: Instant) {
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        if !matches!(job.stage, Stage::Working) || job.in_flight {
            return;
        }
        if job.passage.is_some() {
            return self.dispatch(task, now);
        }
        let Some(step) = job.steps.front() else { return self.succeed(task, None) };
        match step {
            Step::Reserve(_) => return self.reserve_out(task, now),
            Step::Alter(_) => return self.alter(task, now),
            Step::Report(..) => return self.report_reservations(task),
            Step::Conflict => return self.respond(task, reservation::conflict()),
            _ => {}
        }
        let Some(place) = step.place().or(job.place.as_ref()).cloned() else { return };
        if let Err(sense) = step.check(self.nexus.as_deref()) {
            return self.fail(task, sense);
        }
        // What is not there any more is not opened again.
        if !self.node.as_ref().is_some_and(|node| node.has(&place)) {
            return self.fail(task, Sense::LUN_NOT_SUPPORTED);
        }
        let Place { number, lun } = place;
        let sanitizing = lun.unit.sanitize_refusal();
        match (step, sanitizing) {
            (Step::Sanitized, None) => return self.succeed(task, None),
            (Step::Sanitized, Some(sense)) if sense.progress.is_some() => return,
            (_, Some(sense)) => return self.fail(task, sense),
            (_, None) => {}
        }
        if let Step::ReadLong(reading) = step
            && !reading.has_room()
        {
            // Before its place at the blocks: nobody with a turn waits for one without.
            let len = reading.len();
            match self.turns.take(&mut job.ticket, &self.core, Wanted::data(len)) {
                Turn::Come(room) => reading.take_room(room.data),
                Turn::Later => return,
                Turn::Never => return self.fail(task, Sense::INVALID_FIELD_IN_CDB),
            }
        }
        // An initiator that does not take what it has read reads no more.
        let reads = matches!(step, Step::Read(_));
        let len = (job.expected_len as usize).clamp(1, engine::BUF_LEN_MAX);
        if reads && !job.footing.has_frames() && !may_hold(self.jobs.held, self.core.pool(), len) {
            return self.ask_to_acknowledge();
        }
        if !job.footing.is_complete(step, &lun, self.core.pool()) {
            // It keeps its frame as long as whoever is before it at the blocks likes.
            if reads && job.footing.has_frames() {
                self.jobs.charge(task, len);
            }
            return;
        }
        if let Step::Populate(populating) = step {
            let Some(node) = self.node.clone() else { return };
            let by = (&Place { number, lun }, self.nexus.as_deref());
            return match populating.make(&node, by, now) {
                Ok(()) => self.succeed(task, None),
                Err(sense) => self.fail(task, sense),
            };
        }
        let (tag, sending) = (Tag(u64::from(task.0)), (step, &mut job.footing));
        match send(&mut self.channels, &self.core, (number, &lun), sending, tag, now) {
            Sent::Submitted => {
                if matches!(step, Step::HandOver) {
                    lun.unit.chosen.set(Some(port_group(lun.config.bdev.access().side().other())));
                    self.access_states.ask(number, AccessState::NonOptimized, now);
                }
                job.in_flight = true;
                if reads {
                    self.jobs.charge(task, 0);
                }
            }
            // The step stays and is tried again next turn.
            Sent::Later => {}
            Sent::NoChannel => self.fail(task, Sense::INTERNAL_FAILURE),
            Sent::Refused(why) => self.fail_io(task, why),
        }
    }

    pub(super) fn poll_channels(&mut self, now: Instant) -> Progress {
        let mut progress = Progress::Idle;
        let mut done = std::mem::take(&mut self.done);
        for attached in self.channels.values_mut().chain(&mut self.leaving) {
            let before = done.len();
            progress |= attached.channel.poll(now, &mut done);
            attached.in_flight -= done.len() - before;
        }
        self.leaving.retain(|attached| attached.in_flight > 0);
        for completed in done.drain(..) {
            if let Some(completed) = self.on_background(completed, now) {
                self.on_completed(completed, now);
            }
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

    pub(super) fn on_completed(&mut self, mut completed: Completed, now: Instant) {
        let task = TaskId(u32::try_from(completed.tag.0).expect("tags are task tags"));
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        job.in_flight = false;
        let step = job.steps.pop_front();
        if job.aborted {
            return self.close_job(task, now);
        }
        if let Some(sense) = job.verdict {
            return self.fail(task, sense);
        }
        let Some(step) = step else { return };
        if job.asks_who_serves() && matches!(completed.result, Err(IoError::Medium { .. })) {
            // A node that finds the block bad serves.
            completed.result = Ok(());
        }
        match step.finish(completed, &mut job.footing.scratch) {
            After::Done => {
                job.footing.leave();
                self.advance(task, now);
            }
            After::Again(step) => {
                job.steps.push_front(step);
                self.advance(task, now);
            }
            After::Next(step) => {
                job.footing.leave();
                job.steps.push_front(step);
                self.advance(task, now);
            }
            After::Data(data) => self.succeed(task, Some(data)),
            After::Bytes(bytes) => self.succeed_with(task, &bytes),
            After::Fail(sense) => {
                self.on_choice_refused(task);
                self.fail(task, sense);
            }
            After::FailIo(error, writing) => {
                self.count_error(task, error, writing);
                let format = sense_format(self.place_of(task));
                self.respond(task, job::io_failure(error, writing, format));
            }
        }
    }

    fn count_error(&self, task: TaskId, error: IoError, writing: Writing) {
        let Some(job) = self.jobs.open.get(&task) else { return };
        if let Some(Place { lun, .. }) = &job.place {
            lun.stats.count_error(&job.command, error, writing);
        }
    }

    /// Answers with bytes that steps found.
    fn succeed_with(&mut self, task: TaskId, bytes: &[u8]) {
        let Some(mut frame) = self.core.pool().alloc(bytes.len().max(1)) else {
            return self.respond(task, Response { status: scsi::status::BUSY, ..Response::default() });
        };
        frame[..bytes.len()].copy_from_slice(bytes);
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        let len = u32::try_from(bytes.len()).expect("a frame is short");
        job.answer(Some(frame.freeze().into()));
        self.links.send_data(task, len, Response { transfer_len: u64::from(len), ..Response::default() });
    }

    /// Where a task is.
    fn place_of(&self, task: TaskId) -> Option<&Place> {
        self.jobs.open.get(&task)?.place.as_ref()
    }

    pub(super) fn succeed(&mut self, task: TaskId, data: Option<Payload>) {
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        let Some(Place { lun, .. }) = &job.place else { return };
        let block_size = u64::from(lun.config.bdev.geometry().block_size);
        let transfer_len = job::transfer_len(&job.command, block_size);
        let moved = transfer_len.min(u64::from(job.expected_len));
        let stats = &lun.stats;
        stats.count_moved(&job.command, moved, block_size);
        let response = Response { transfer_len, ..Response::default() };
        let available = data.as_ref().map_or(0, Payload::len);
        job.answer(data);
        self.jobs.charge(task, available);
        let available = u32::try_from(available).expect("no longer than a command may");
        self.links.send_data(task, available, response);
    }

    pub(super) fn respond(&mut self, task: TaskId, response: Response) {
        if let Some(job) = self.jobs.open.get_mut(&task) {
            job.answer(None);
            job.steps.clear();
        }
        self.jobs.charge(task, 0);
        self.links.respond(task, response);
    }

    pub(super) fn fail(&mut self, task: TaskId, sense: Sense) {
        let refusal = refusal(sense, self.place_of(task));
        self.respond(task, refusal);
    }

    pub(super) fn fail_io(&mut self, task: TaskId, error: IoError) {
        let format = sense_format(self.place_of(task));
        self.respond(task, job::io_failure(error, Writing::No, format));
    }

    /// The status is on its way, or nobody waits for it any more.
    pub(super) fn close_job(&mut self, task: TaskId, now: Instant) {
        if let Some(job) = self.jobs.remove(task) {
            job.leave();
            if job.hears_of_end != Hears::Nothing {
                self.silence(task, job.hears_of_end);
            }
            if !job.aborted {
                job.account(now);
            }
            if let (Some(ticket), Stage::Answering(Some(data))) = (job.ticket, job.stage)
                && data.is_shared()
            {
                self.turns.keep(ticket, data);
            }
        }
    }
}

impl Job {
    pub(super) fn new(
        place: Option<Place>,
        command: scsi::Command,
        expected_len: u32,
        stage: Stage,
        began: Instant,
    ) -> Self {
        let steps = Steps::default();
        Self {
            place,
            began,
            command,
            expected_len,
            stage,
            steps,
            in_flight: false,
            aborted: false,
            hears_of_end: Hears::Nothing,
            verdict: None,
            charge: 0,
            ticket: None,
            asked_at: began,
            pace: Pace::default(),
            footing: Footing::default(),
            standing: None,
            dormant: None,
            passage: None,
        }
    }

    /// The job of a command that is carried out here.
    pub(super) fn of(arrival: Arrival, place: Place, parsed: scsi::Command, stage: Stage) -> Self {
        let job = Self::new(Some(place), parsed, arrival.command.expected_len, stage, arrival.at);
        Self { standing: arrival.standing, ..job }
    }

    /// It has ended: what it held others up with goes.
    pub(super) fn answer(&mut self, data: Option<Payload>) {
        if data.is_none() {
            self.ticket = None;
        }
        self.stage = Stage::Answering(data);
        self.footing = Footing::default();
        (self.standing, self.dormant, self.passage) = (None, None, None);
    }

    /// Bytes of the buffer that it holds.
    pub(super) fn buffer_len(&self) -> usize {
        match &self.stage {
            Stage::Parked(parked) => parked.held(),
            Stage::Collecting(buffer) => buffer.len(),
            Stage::Answering(Some(data)) => data.len(),
            Stage::Working => self.expected_len as usize,
            Stage::Answering(None) | Stage::Owed => 0,
        }
    }

    /// It is told to be over while a write of it is still on its way to the medium: whatever comes for those blocks is done behind it.
    pub(super) fn shield(&mut self) {
        if let Some(step) = self.steps.front() {
            self.footing.shield(step);
        }
    }

    /// The read that has ended was to show whether this node serves: an answer out of the unit's table follows.
    fn asks_who_serves(&self) -> bool {
        matches!(self.steps.front(), Some(Step::Conflict | Step::Report(..)))
    }

    fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Working) && !self.in_flight && !self.aborted && self.dormant.is_none()
    }

    /// How it ends when such a place is not there any more for its initiator; `None` when it has nothing to do there.
    pub(super) fn end_without(&self, at: &dyn Fn(&Place) -> bool) -> Option<Sense> {
        if self.place.as_ref().is_some_and(at) {
            return Some(Sense::LUN_NOT_SUPPORTED);
        }
        self.copies_at(at).then_some(Sense::COPY_TARGET_UNREACHABLE)
    }

    /// Whether it copies from such a place, or to one, now or later.
    pub(super) fn copies_at(&self, at: &dyn Fn(&Place) -> bool) -> bool {
        self.steps.iter().any(|step| step.touches(at))
    }

    /// Whether it has been ended while its last I/O is under way, which may be at such a place.
    pub(super) fn is_ending_at(&self, at: &dyn Fn(&Place) -> bool) -> bool {
        let is_there = || self.place.as_ref().is_some_and(at);
        (self.aborted && is_there()) || (self.in_flight && self.verdict.is_some() && self.copies_at(at))
    }

    /// The LUN has one open command less.
    pub(super) fn leave(&self) {
        if let Some(Place { lun, .. }) = &self.place {
            lun.stats.active.set(lun.stats.active.get().saturating_sub(1));
        }
    }

    /// Service time: from the command to its status.
    fn account(&self, now: Instant) {
        let Some(Place { lun, .. }) = &self.place else { return };
        lun.stats.count_time(&self.command, now.saturating_since(self.began));
    }
}

/// What became of a step's I/O.
pub(super) enum Sent {
    /// It is under way.
    Submitted,
    /// There was no frame, or the queue is full.
    Later,
    /// The device cannot be opened.
    NoChannel,
    /// The device does not take it.
    Refused(IoError),
}

/// Sends a step's I/O, which is ready, to a LUN.
pub(super) fn send(
    channels: &mut BTreeMap<u16, Attached>,
    core: &Core,
    (number, lun): (u16, &Lun),
    (step, footing): (&Step, &mut Footing),
    tag: Tag,
    now: Instant,
) -> Sent {
    let Some(op) = footing.take_op() else { return Sent::Later };
    let Ok(attached) = attach(channels, number, lun, core) else { return Sent::NoChannel };
    if let Some(range) = step.changes() {
        lun.unit.on_change(range.into());
    }
    match attached.channel.submit(Io::new(op, tag, now), now) {
        Ok(()) => {
            attached.in_flight += 1;
            Sent::Submitted
        }
        Err(refused) => {
            let why = refused.why;
            footing.put_back(refused.io.complete(Err(why), now).op);
            if why == IoError::Busy { Sent::Later } else { Sent::Refused(why) }
        }
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
