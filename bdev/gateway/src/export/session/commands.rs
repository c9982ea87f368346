//! Commands as they come in: which LUN, what stands in their way, and what becomes of them.

use std::rc::Rc;

use bdev::{Capabilities, Geometry};
use engine::Instant;
use iscsi::TaskId;
use iscsi::target::{self, Response};
use scsi::{Sense, Unit, parameter};

use super::super::job::{self, Fencing, Start};
use super::super::node::Lun;
use super::Session;
use super::jobs::{Job, Place, Stage};

/// A command whose frame the pool could not give yet: the session does not read on.
pub(super) struct Stalled {
    pub(super) command: target::Command,
    parsed: scsi::Command,
    pub(super) place: Place,
    len: u32,
    began: Instant,
}

/// A LUN's unit with what it was made from: made again only when the device changes, not for each command.
pub(super) struct CachedUnit {
    geometry: Geometry,
    capabilities: Capabilities,
    unit: Rc<Unit>,
}

impl Session {
    pub(super) fn unit(&mut self, number: u16, lun: &Lun) -> Rc<Unit> {
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

    pub(super) fn make_unit(&self, lun: &Lun) -> Unit {
        let group = self.portal_group;
        let name = self.node.as_ref().map(|node| node.name()).unwrap_or_default();
        lun.config.unit(&format!("{name},t,0x{group:04x}"), u16::try_from(group).unwrap_or(1))
    }

    pub(super) fn on_command(&mut self, command: target::Command, now: Instant) {
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
            return self.report_luns(command.task, select, allocation, now);
        }
        let Some((number, lun)) = lun else { return self.absent(&command, &parsed, now) };
        if let Some(sense) = self.take_attention(number, &lun, &parsed) {
            return self.refuse(command.task, sense);
        }
        lun.stats.commands.set(lun.stats.commands.get() + 1);
        if self.is_kept_out(command.task, &command.cdb, &lun) {
            return;
        }
        let unit = self.unit(number, &lun);
        // An import that was never connected has no size yet.
        let identifies = matches!(parsed, scsi::Command::Inquiry { .. } | scsi::Command::RequestSense { .. });
        if unit.blocks == 0 && !identifies {
            return self.refuse(command.task, Sense::BECOMING_READY);
        }
        let fencing = Fencing::of(lun.config.bdev.capabilities());
        if let (scsi::Command::Reservation(request), Fencing::Impossible) = (parsed, fencing) {
            let place = Place { number, lun: lun.clone() };
            if self.on_reservation(command.task, request, &place, now) {
                return;
            }
        }
        match job::start(&parsed, &unit, lun.config.mode, fencing) {
            Start::Fail(sense) => self.refuse(command.task, sense),
            Start::Data(data) => self.answer_bytes(command.task, Some(Place { number, lun }), &data, now),
            Start::Collect(len) => {
                let place = Place { number, lun };
                self.stalled = Some(Stalled { command, parsed, place, len, began: now });
                self.retry_stalled(now);
            }
            Start::Steps(steps) => {
                let place = Some(Place { number, lun });
                let mut job = Job::new(place, parsed, command.expected_len, Stage::Working, now);
                job.steps = steps;
                self.open_job(command.task, job);
                self.advance(command.task, now);
            }
        }
    }

    /// A unit attention comes before any command but those that SPC-4 exempts.
    pub(super) fn take_attention(
        &mut self,
        number: u16,
        lun: &Lun,
        command: &scsi::Command,
    ) -> Option<Sense> {
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

    pub(super) fn absent(&mut self, command: &target::Command, parsed: &scsi::Command, now: Instant) {
        match parsed {
            scsi::Command::Inquiry { allocation, .. } => {
                let mut data = scsi::inquiry::absent();
                data.truncate(*allocation as usize);
                self.answer_bytes(command.task, None, &data, now);
            }
            _ => self.refuse(command.task, Sense::LUN_NOT_SUPPORTED),
        }
    }

    pub(super) fn report_luns(&mut self, task: TaskId, select: u8, allocation: u32, now: Instant) {
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
        self.answer_bytes(task, None, &data, now);
    }

    pub(super) fn retry_stalled(&mut self, now: Instant) {
        let Some(stalled) = &self.stalled else { return };
        let block_size = stalled.place.lun.config.bdev.geometry().block_size;
        // Fewer bytes than the CDB wants: whole blocks of what comes.
        let moves_blocks = !matches!(
            stalled.parsed,
            scsi::Command::Unmap { .. } | scsi::Command::ModeSelect { .. } | scsi::Command::Reservation(_)
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
        let Some(Stalled { command, parsed, place, began, .. }) = self.stalled.take() else { return };
        let task = command.task;
        let job = Job::new(Some(place), parsed, command.expected_len, Stage::Collecting(frame), began);
        self.open_job(task, job);
        self.connection.solicit(task, len);
    }

    /// The initiator expects to move less than a block: nothing is written, and the residual tells it.
    pub(super) fn move_nothing(&mut self, now: Instant) {
        let Some(Stalled { command, parsed, place, began, .. }) = self.stalled.take() else { return };
        let job = Job::new(Some(place), parsed, command.expected_len, Stage::Working, began);
        self.open_job(command.task, job);
        self.advance(command.task, now);
    }

    pub(super) fn on_collected(&mut self, task: TaskId, now: Instant) {
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        let stage = std::mem::replace(&mut job.stage, Stage::Working);
        let Stage::Collecting(data) = stage else { return };
        let (Some(Place { number, lun }), command) = (job.place.clone(), job.command) else { return };
        let unit = self.unit(number, &lun);
        let fencing = Fencing::of(lun.config.bdev.capabilities());
        match job::collected(&command, &unit, lun.config.mode, fencing, data, self.core.pool()) {
            Ok(steps) => {
                if let Some(job) = self.jobs.open.get_mut(&task) {
                    job.steps = steps;
                }
                self.advance(task, now);
            }
            Err(sense) => self.fail(task, sense),
        }
    }

    /// Ends a command that never became a job.
    pub(super) fn refuse(&mut self, task: TaskId, sense: Sense) {
        self.connection.respond(task, job::failure(sense, scsi::SenseFormat::Fixed));
    }

    /// Answers a command with bytes that came from no medium.
    pub(super) fn answer_bytes(&mut self, task: TaskId, place: Option<Place>, data: &[u8], now: Instant) {
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
                let available = u32::try_from(data.len()).expect("a frame is short");
                let stage = Stage::Answering(Some(frame.freeze()));
                let job = Job::new(place, scsi::Command::TestUnitReady, available, stage, now);
                self.open_job(task, job);
                self.connection.send_data(task, available, response);
            }
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
        | scsi::Command::Reservation(scsi::reservation::Request::Out { length, .. })
            if expected < *length =>
        {
            Some(Sense::PARAMETER_LENGTH)
        }
        _ => None,
    }
}
