//! Commands as they come in: which LUN, what stands in their way, and what becomes of them.

use std::rc::Rc;

use bdev::{Capabilities, Geometry};
use engine::Instant;
use iscsi::TaskId;
use iscsi::target::{self, Response};
use scsi::mode::Modes;
use scsi::{Access, Queries, Sense, SenseFormat, Unit, WriteProtection, parameter};

use super::super::job::{self, Context, Start, Step};
use super::super::long::{Ticket, Turn, transfer_bytes_max};
use super::super::lun::Port;
use super::super::node::{Lun, Node, Place, port_name};
use super::Session;
use super::dormant::Arrival;
use super::frames::wanted;
use super::jobs::{Job, Stage};
use super::paths::Passage;
use crate::payload::PayloadMut;
use crate::wire::Buffers;

/// A command for whose data there is no room yet, neither a frame nor to park it: the session does not read on.
pub(super) struct Stalled {
    arrival: Arrival,
    parsed: scsi::Command,
    pub(super) place: Place,
    len: u32,
    way: Way,
    /// Its place among those that wait for more than a frame.
    ticket: Option<Ticket>,
}

impl Stalled {
    pub(super) fn task(&self) -> TaskId {
        self.arrival.task()
    }
}

/// Where a command is carried out that waits for its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Here,
    /// Not clear, or at the peer (`paths.rs`).
    Elsewhere,
}

/// A LUN's unit with what it was made from: made again only when the device changes, not for each command.
pub(super) struct CachedUnit {
    geometry: Geometry,
    capabilities: Capabilities,
    modes: Modes,
    unit: Rc<Unit>,
}

/// Commands that are looked at where there is no logical unit, too (SPC-4 section 5.12): REQUEST SENSE, INQUIRY, REPORT LUNS.
fn is_for_no_lun(opcode: u8) -> bool {
    matches!(opcode, 0x03 | 0x12 | 0xa0)
}

/// How a command ends that is refused, in the format that the unit has sense data in; without a unit there is one format.
pub(super) fn refusal(sense: Sense, place: Option<&Place>) -> Response {
    job::failure(sense, sense_format(place))
}

/// Format of sense data at a place.
pub(super) fn sense_format(place: Option<&Place>) -> SenseFormat {
    place.map_or(SenseFormat::Fixed, |place| place.lun.unit.settings().sense_format)
}

impl Session {
    /// What a command meets here.
    pub(super) fn context<'a>(
        &'a self,
        unit: &'a Unit,
        place: &'a Place,
        node: &'a Node,
        now: Instant,
    ) -> Context<'a> {
        Context {
            unit,
            lun: &place.lun,
            nexus: self.id,
            node,
            reserver: self.nexus.as_deref(),
            number: place.number,
            mask: &self.mask,
            now,
        }
    }

    pub(super) fn unit(&mut self, number: u16, lun: &Lun) -> Rc<Unit> {
        let (geometry, capabilities) = (lun.config.bdev.geometry(), lun.config.bdev.capabilities());
        let modes = lun.unit.modes();
        if let Some(cached) = self.units.get(&number)
            && (cached.geometry, cached.capabilities, cached.modes) == (geometry, capabilities, modes)
        {
            return cached.unit.clone();
        }
        let unit = Rc::new(self.make_unit(lun));
        self.units.insert(number, CachedUnit { geometry, capabilities, modes, unit: unit.clone() });
        unit
    }

    pub(super) fn make_unit(&self, lun: &Lun) -> Unit {
        let port = self.nexus.as_ref().map_or(1, |nexus| nexus.port);
        let name = self.node.as_ref().map(|node| node.name()).unwrap_or_default();
        let all = self.node.as_ref().map(|node| node.named_ports()).unwrap_or_default();
        let management = self.node.as_ref().map(|node| node.management()).unwrap_or_default();
        let agreed = self.links.leading().connection.has_queries();
        let queries = if agreed { Queries::Yes } else { Queries::No };
        let port = Port { number: port, name: port_name(&name, port), all, management, queries };
        lun.config.unit(port, lun.unit.modes(), transfer_bytes_max(self.core.pool()))
    }

    pub(super) fn on_command(&mut self, command: target::Command, now: Instant) {
        // A tag is free for the initiator when it has the answer, whether it has said so or not.
        let answered = self.recovers() && self.links.forget_answered(command.task);
        let at_rest = |job: &Job| !job.in_flight && matches!(job.stage, Stage::Answering(_));
        if answered && self.jobs.open.get(&command.task).is_some_and(at_rest) {
            self.close_job(command.task, now);
        }
        if self.jobs.open.contains_key(&command.task) {
            return self.end("the initiator reuses the tag of a task that it has just aborted");
        }
        let number = scsi::lun::decode(command.lun);
        let place = number.and_then(|number| Some(Place { number, lun: self.lun(number)? }));
        match (scsi::parse(&command.cdb), place) {
            (Ok(scsi::Command::ReportLuns { select, allocation }), place) => {
                self.report_luns(command.task, (select, allocation), place.as_ref(), now);
            }
            (Ok(parsed), Some(place)) => self.enter_task_set(command, parsed, place, now),
            (Ok(parsed), None) => self.absent(&command, &parsed, now),
            (Err(sense), place) if place.is_some() || is_for_no_lun(command.cdb[0]) => {
                self.refuse(command.task, sense, place.as_ref());
            }
            (Err(_), _) => self.refuse(command.task, Sense::LUN_NOT_SUPPORTED, None),
        }
    }

    /// A command that waits for no other one.
    pub(super) fn arrive(&mut self, arrival: Arrival, parsed: scsi::Command, place: Place, now: Instant) {
        if let Some(sense) = self.take_attention(place.number, &place.lun, &parsed, now) {
            return self.refuse(arrival.task(), sense, Some(&place));
        }
        let stats = &place.lun.stats;
        stats.commands.set(stats.commands.get() + 1);
        if let scsi::Command::ReportTargetPortGroups { header, allocation } = parsed {
            return self.report_target_port_groups(arrival.task(), (header, allocation), place, now);
        }
        let Some(arrival) = self.divert(arrival, &parsed, &place, now) else { return };
        self.begin(arrival, parsed, place, now);
    }

    /// Begins a command that is carried out here.
    pub(super) fn begin(&mut self, arrival: Arrival, parsed: scsi::Command, place: Place, now: Instant) {
        let (task, cdb) = (arrival.task(), arrival.command.cdb);
        if let Some(refusal) = self.kept_out(&cdb, &place.lun) {
            return self.bar_arrival(arrival, parsed, &place, refusal, now);
        }
        if let Some(sense) = self.stands_in_the_way(&place, &cdb, &parsed) {
            return self.refuse(task, sense, Some(&place));
        }
        let arrival = match parsed {
            scsi::Command::Reservation(request)
                if !place.lun.config.bdev.capabilities().contains(Capabilities::FENCE) =>
            {
                match self.on_reservation(arrival, request, &place, now) {
                    Some(arrival) => arrival,
                    None => return,
                }
            }
            _ => arrival,
        };
        if matches!(parsed, scsi::Command::Inquiry { page: Some(0x88), .. }) {
            // Ports come and go with the maps of the target.
            self.units.remove(&place.number);
        }
        let unit = self.unit(place.number, &place.lun);
        let Some(node) = self.node.clone() else { return };
        let context = self.context(&unit, &place, &node, now);
        match job::start(&parsed, &context) {
            Start::Fail(sense) => self.refuse(task, sense, Some(&place)),
            Start::Data(data) => self.answer_bytes(task, Some(place), &data, now),
            Start::Collect(len) => {
                self.stalled = Some(Stalled { arrival, parsed, place, len, way: Way::Here, ticket: None });
                self.retry_stalled(now);
            }
            Start::Steps(steps) => {
                let mut job = Job::of(arrival, place, parsed, Stage::Working);
                job.steps = steps;
                self.open_job(task, job);
                self.advance(task, now);
            }
        }
    }

    /// What keeps the unit from doing a command: its state, or its protection.
    fn stands_in_the_way(&mut self, place: &Place, cdb: &[u8; 16], command: &scsi::Command) -> Option<Sense> {
        let unit = self.unit(place.number, &place.lun);
        if let Some(sense) = unit.refusal(cdb) {
            return Some(sense);
        }
        let identifies =
            matches!(command, scsi::Command::Inquiry { .. } | scsi::Command::RequestSense { .. });
        // An import that was never connected has no size yet.
        if unit.blocks == 0 && !identifies {
            return Some(Sense::BECOMING_READY);
        }
        let while_sanitizing = identifies
            || matches!(
                command,
                scsi::Command::ReportSupportedOpcodes { .. }
                    | scsi::Command::ReportSupportedTaskManagement { .. }
            );
        let renews = matches!(command, scsi::Command::Sanitize(_)) && !place.lun.unit.is_sanitizing();
        if !while_sanitizing
            && !renews
            && let Some(sense) = place.lun.unit.sanitize_refusal()
        {
            return Some(sense);
        }
        let refusal = match (command.access(), unit.protection) {
            (Access::None, _) => None,
            (Access::Writes, WriteProtection::Protected) => Some(Sense::WRITE_PROTECTED),
            (Access::Writes, WriteProtection::Software) => Some(Sense::SOFTWARE_WRITE_PROTECTED),
            _ => None,
        };
        let needs_medium = command.access() != Access::None;
        needs_medium.then(|| place.lun.unit.medium.get().refusal()).flatten().or(refusal)
    }

    /// A unit attention comes before any command but those that SPC-4 exempts.
    pub(super) fn take_attention(
        &mut self,
        number: u16,
        lun: &Lun,
        command: &scsi::Command,
        now: Instant,
    ) -> Option<Sense> {
        let blocks = lun.config.bdev.geometry().blocks;
        if self.seen_blocks.insert(number, blocks).is_some_and(|seen| seen != blocks) {
            lun.state.nexuses.borrow_mut().tell(self.id, Sense::CAPACITY_CHANGED);
        }
        self.watch_access(number, lun, now);
        let exempt = matches!(
            command,
            scsi::Command::Inquiry { .. }
                | scsi::Command::ReportLuns { .. }
                | scsi::Command::RequestSense { .. }
        );
        if exempt { None } else { lun.state.nexuses.borrow_mut().take(self.id) }
    }

    pub(super) fn absent(&mut self, command: &target::Command, parsed: &scsi::Command, now: Instant) {
        let answer = match *parsed {
            scsi::Command::Inquiry { page, allocation } => {
                scsi::inquiry::absent(page).map(|data| (data, allocation))
            }
            // It tells in its data what any other command ends with (SPC-4 section 6.39).
            scsi::Command::RequestSense { descriptor, allocation } => {
                let format = if descriptor { SenseFormat::Descriptor } else { SenseFormat::Fixed };
                Ok((Sense::LUN_NOT_SUPPORTED.encode(format), allocation))
            }
            _ => Err(Sense::LUN_NOT_SUPPORTED),
        };
        match answer {
            Ok((mut data, allocation)) => {
                data.truncate(allocation as usize);
                self.answer_bytes(command.task, None, &data, now);
            }
            Err(sense) => self.refuse(command.task, sense, None),
        }
    }

    fn report_luns(
        &mut self,
        task: TaskId,
        (select, allocation): (u8, u32),
        place: Option<&Place>,
        now: Instant,
    ) {
        let luns: Vec<u64> = match (select, &self.node) {
            // Those of SPC-5 (section 6.39): every unit is a simple one, and none is in a conglomerate. 11h leaves out subsidiary units.
            (0 | 2 | 0x11, Some(node)) => {
                let luns = node.luns.borrow();
                let shown = || luns.iter().filter(|(number, _)| self.mask.shows(**number));
                // The initiator sees what has changed, and need not be told (SAM-5 section 5.14).
                for (_, lun) in shown() {
                    lun.state.nexuses.borrow_mut().clear(self.id, Sense::LUNS_CHANGED);
                }
                shown().map(|(number, _)| scsi::lun::encode(*number)).collect()
            }
            // Well known, and administrative logical units.
            (1 | 0x10, _) => Vec::new(),
            // 12h asks for the subsidiary units of an administrative one, and this is none.
            _ => return self.refuse(task, Sense::invalid_cdb_byte(2), place),
        };
        if allocation < 16 {
            return self.refuse(task, Sense::invalid_cdb_byte(6), place);
        }
        let mut data = parameter::report_luns(&luns);
        data.truncate(allocation as usize);
        self.answer_bytes(task, None, &data, now);
    }

    /// Takes the data of a command that is not carried out here at once.
    pub(super) fn collect_passage(
        &mut self,
        arrival: Arrival,
        parsed: scsi::Command,
        place: Place,
        len: u32,
        now: Instant,
    ) {
        self.stalled = Some(Stalled { arrival, parsed, place, len, way: Way::Elsewhere, ticket: None });
        self.retry_stalled(now);
    }

    pub(super) fn retry_stalled(&mut self, now: Instant) {
        let Some(stalled) = &self.stalled else { return };
        let block_size = stalled.place.lun.config.bdev.geometry().block_size;
        // Fewer bytes than the CDB wants: the blocks that come, as long as they are whole.
        let moves_blocks = job::list_len(&stalled.parsed).is_none();
        let command = &stalled.arrival.command;
        let expected = if command.writes { command.expected_len } else { 0 };
        if let Some(sense) = job::wrong_length(&stalled.parsed, expected, block_size) {
            return self.refuse_length(sense, block_size, now);
        }
        let len = stalled.len.min(expected);
        if moves_blocks && len % block_size != 0 {
            let (task, transfer_len) = (stalled.task(), u64::from(stalled.len));
            let failure = refusal(Sense::INVALID_INFORMATION_UNIT, Some(&stalled.place));
            self.stalled = None;
            return self.links.respond(task, Response { transfer_len, ..failure });
        }
        if len == 0 {
            return self.move_nothing(now);
        }
        let task = stalled.task();
        let wanted = wanted(&stalled.parsed, len, &stalled.place);
        let mut ticket = self.stalled.as_mut().and_then(|stalled| stalled.ticket.take());
        let (stage, room) = match self.room(&mut ticket, wanted) {
            Turn::Come(room) => (Stage::Working, Some(room)),
            Turn::Never => {
                let Some(Stalled { place, .. }) = self.stalled.take() else { return };
                return self.refuse(task, Sense::INVALID_FIELD_IN_CDB, Some(&place));
            }
            Turn::Later => match self.park(task, len) {
                Some(stage) => (stage, None),
                None if self.is_impatient(now) => {
                    self.stalled = None;
                    return self.turn_away(task);
                }
                None => {
                    if let Some(stalled) = &mut self.stalled {
                        stalled.ticket = ticket;
                    }
                    return;
                }
            },
        };
        self.impatient_since = None;
        let Some(mut stalled) = self.stalled.take() else { return };
        let early = std::mem::take(&mut stalled.arrival.early);
        self.open_stalled(stalled, stage, now);
        if let Some(job) = self.jobs.open.get_mut(&task) {
            job.ticket = ticket;
        }
        match room {
            Some(room) => self.begin_collecting(task, room, (len, &early), now),
            None => {
                self.jobs.store(task, 0, &early);
                self.store_early_data(task);
            }
        }
    }

    /// The data that come are too short or too long. Another node that serves finds so, too, when it is passed the command without any,
    /// after what comes before that: a unit attention, a reservation, protection.
    fn refuse_length(&mut self, sense: Sense, block_size: u32, now: Instant) {
        let Some(stalled) = &self.stalled else { return };
        let finds_so = job::wrong_length(&stalled.parsed, 0, block_size).is_some();
        if stalled.way == Way::Elsewhere && finds_so {
            return self.move_nothing(now);
        }
        let (task, place) = (stalled.task(), stalled.place.clone());
        self.stalled = None;
        self.refuse(task, sense, Some(&place));
    }

    /// A command that stood still is a job.
    fn open_stalled(&mut self, stalled: Stalled, stage: Stage, now: Instant) {
        let Stalled { arrival, parsed, place, way, .. } = stalled;
        let task = arrival.task();
        let job = match way {
            Way::Here => Job::of(arrival, place, parsed, stage),
            Way::Elsewhere => {
                let resets = place.lun.state.nexuses.borrow().resets(self.id);
                let (expected_len, at) = (arrival.command.expected_len, arrival.at);
                let mut job = Job::new(Some(place), parsed, expected_len, stage, at);
                job.passage = Some(Box::new(Passage::new(arrival, resets, now)));
                job
            }
        };
        self.open_job(task, job);
    }

    /// Nothing moves: nothing is written, and the residual tells it.
    pub(super) fn move_nothing(&mut self, now: Instant) {
        let Some(stalled) = self.stalled.take() else { return };
        let task = stalled.task();
        self.open_stalled(stalled, Stage::Working, now);
        self.advance(task, now);
    }

    pub(super) fn on_collected(&mut self, task: TaskId, now: Instant) {
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        let stage = std::mem::replace(&mut job.stage, Stage::Working);
        let Stage::Collecting(data) = stage else { return };
        if let Some(passage) = &mut job.passage {
            passage.take_data(data.freeze());
            return self.advance(task, now);
        }
        self.take_collected(task, data, now);
    }

    /// The data of a command that is carried out here.
    pub(super) fn take_collected(&mut self, task: TaskId, data: PayloadMut, now: Instant) {
        let Some(job) = self.jobs.open.get(&task) else { return };
        let (Some(place), command) = (job.place.clone(), job.command) else { return };
        let unit = self.unit(place.number, &place.lun);
        let Some(node) = self.node.clone() else { return };
        let context = self.context(&unit, &place, &node, now);
        match job::collected(&command, &context, data) {
            Ok(mut steps) => {
                if let Some(Step::Copy(copying)) = steps.front()
                    && copying.is_in_background()
                    && let Some(step) = steps.pop_front()
                {
                    return match self.continue_in_background(place, step, now) {
                        Ok(()) => self.succeed(task, None),
                        Err(sense) => self.fail(task, sense),
                    };
                }
                if let Some(job) = self.jobs.open.get_mut(&task) {
                    job.steps = steps;
                }
                self.advance(task, now);
            }
            Err(sense) => self.fail(task, sense),
        }
    }

    /// Ends a command that never became a job.
    pub(super) fn refuse(&mut self, task: TaskId, sense: Sense, place: Option<&Place>) {
        self.links.respond(task, refusal(sense, place));
    }

    /// Answers a command with bytes that came from no medium.
    pub(super) fn answer_bytes(&mut self, task: TaskId, place: Option<Place>, data: &[u8], now: Instant) {
        let response = Response { transfer_len: data.len() as u64, ..Response::default() };
        let frame = (!data.is_empty()).then(|| self.core.pool().alloc(data.len()));
        match frame {
            None => self.links.respond(task, response),
            Some(None) => {
                let busy = Response { status: scsi::status::BUSY, ..Response::default() };
                self.links.respond(task, busy);
            }
            Some(Some(mut frame)) => {
                frame.copy_from_slice(data);
                let available = u32::try_from(data.len()).expect("a frame is short");
                let stage = Stage::Answering(Some(frame.freeze().into()));
                let job = Job::new(place, scsi::Command::TestUnitReady, available, stage, now);
                self.open_job(task, job);
                self.links.send_data(task, available, response);
            }
        }
    }
}
