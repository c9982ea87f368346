//! Which way a command goes at a LUN that two nodes serve (SPC-4 section 5.15): carried out here, passed to the peer, held
//! until it is clear, or refused. The state of this node's target port group for the LUN decides, as the device says.

use std::rc::Rc;

use bdev::AccessState;
use core::time::Duration;
use engine::{Instant, Progress};
use iscsi::TaskId;
use iscsi::chap::Proving;
use iscsi::initiator::Completion;
use iscsi::target::Response;
use scsi::alua;
use scsi::reservation::Request as Reserve;
use scsi::{Command, Sanitize, Sense, status};

use super::super::groups::groups;
use super::super::job::{self, Start};
use super::super::logical_unit::LogicalUnit;
use super::super::long::{Room, Turn, Wanted};
use super::super::node::{Lun, Place, port_group};
use super::super::relay::{Ends, News, Passed, Passing, PassingData, Relay};
use super::super::state::{Resets, Standing};
use super::Session;
use super::access_states::News as StateNews;
use super::barrier::Settled;
use super::dormant::Arrival;
use super::jobs::{Job, Stage};
use super::management::{Hears, is_for_the_host};
use crate::payload::{FRAME, Payload, PayloadMut};

/// How long a transition may take, as the extended header of REPORT TARGET PORT GROUPS tells.
pub(in crate::export) const TRANSITION_SECONDS: u8 = 15;
/// How long a command is held while it is not clear who serves; then the host is told, and may come back.
pub(super) const HELD_MAX: Duration = Duration::from_secs(8);
/// Between looks of a command that the peer would not have.
pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// What becomes of the commands of hosts at a node that does not serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StandbyMode {
    /// They are passed to the peer: active/non-optimized.
    #[default]
    Forward,
    /// They are refused: standby.
    Refuse,
}

/// Where a session's commands come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::export) enum Origin {
    /// A host, through a portal of this node.
    #[default]
    Host,
    /// A host, through a portal of the peer, which relays it.
    Peer,
}

/// Which way.
pub(super) enum Route {
    Here,
    Peer,
    Hold,
    Refuse(Sense),
}

/// A command that is not carried out here at once.
pub(super) struct Passage {
    arrival: Arrival,
    data: Option<Payload>,
    since: Instant,
    not_before: Instant,
    /// What the nexus had seen when it came.
    resets: Resets,
    /// When the way that it had gone was lost, while it may still land (`barrier.rs`).
    pub(super) lost_at: Option<Instant>,
}

/// Bytes of an answer that comes from the peer.
fn passed_len(command: &Command, expected_len: u32, place: &Place) -> usize {
    let block_size = u64::from(place.lun.config.bdev.geometry().block_size);
    let wanted = match command {
        Command::Read(_) => job::transfer_len(command, block_size),
        _ => 0,
    };
    (expected_len as usize).min(usize::try_from(wanted).unwrap_or(usize::MAX).max(FRAME))
}

/// Commands that are answered whatever the state is: who the unit is, what it understands, and how it can be reached.
fn is_answered_here(command: &Command) -> bool {
    matches!(
        command,
        Command::Inquiry { .. }
            | Command::ReportLuns { .. }
            | Command::ReportTargetPortGroups { .. }
            | Command::ReportSupportedOpcodes { .. }
            | Command::ReportSupportedTaskManagement { .. }
            | Command::ReportPriority { .. }
            | Command::ReportTimestamp { .. }
    )
}

/// Commands that are answered here where nobody else can be asked.
fn is_known_here(command: &Command) -> bool {
    matches!(
        command,
        Command::ModeSense { .. }
            | Command::ReadCapacity10
            | Command::ReadCapacity16 { .. }
            | Command::RequestSense { .. }
    )
}

/// Commands that say or change what the node that serves remembers of the unit: there is nothing to look at here before they go to
/// it.
fn is_of_the_serving_node(command: &Command) -> bool {
    matches!(
        command,
        Command::Reservation(Reserve::In { .. } | Reserve::Reserve | Reserve::Release)
            | Command::RequestSense { .. }
            | Command::PreventAllow(_)
            | Command::StartStopUnit { .. }
            | Command::Sanitize(Sanitize { length: 0, .. })
            | Command::LogReset
            | Command::CopyOperationAbort { .. }
            | Command::ReceiveCopyStatus { .. }
            | Command::ReceiveCopyStatusLid4 { .. }
            | Command::ReceiveTokenInformation { .. }
    )
}

/// Commands that a node that stands by has the other one carry out, even where it passes on no others: they bring it out of it.
fn is_for_either(command: &Command) -> bool {
    matches!(command, Command::SetTargetPortGroups { .. })
}

/// Commands that do the same when they are carried out again, as long as nobody has seen their answer.
pub(super) fn is_repeatable(command: &Command) -> bool {
    matches!(
        command,
        Command::TestUnitReady
            | Command::RequestSense { .. }
            | Command::Read(_)
            | Command::Write(_)
            | Command::WriteAndVerify { .. }
            | Command::Verify { .. }
            | Command::SynchronizeCache { .. }
            | Command::PreventAllow(_)
            | Command::Unmap { .. }
            | Command::WriteSame { .. }
            | Command::ModeSense { .. }
            | Command::LogSense { .. }
            | Command::ReportIdentifying { .. }
            | Command::ReceiveDiagnostic { .. }
            | Command::ReceiveCopyStatus { .. }
            | Command::ReceiveCopyStatusLid4 { .. }
            | Command::ReceiveTokenInformation { .. }
            | Command::ReadCapacity10
            | Command::ReadCapacity16 { .. }
            | Command::Reservation(Reserve::In { .. })
    )
}

impl Session {
    pub(super) fn report_target_port_groups(
        &mut self,
        task: TaskId,
        (header, allocation): (alua::Header, u32),
        place: Place,
        now: Instant,
    ) {
        let Some(node) = &self.node else { return };
        let mut data = alua::report(header, &groups(node, &place.lun), TRANSITION_SECONDS);
        data.truncate(allocation as usize);
        self.answer_bytes(task, Some(place), &data, now);
    }

    /// A change of this node's state is a unit attention, but for the nexus that asked for it.
    pub(super) fn watch_access(&mut self, number: u16, lun: &Lun, now: Instant) {
        if self.access_states.see(number, lun.config.bdev.access().state(), now) == StateNews::Changed {
            lun.state.nexuses.borrow_mut().tell(self.id, Sense::ACCESS_STATE_CHANGED);
        }
    }

    /// The way of a command; most go as [`Session::route`] says.
    fn route_of(&self, command: &Command, lun: &Lun, since: Instant, now: Instant) -> Route {
        match self.route(lun, since, now) {
            Route::Refuse(sense) if sense == Sense::PORT_STANDBY && is_for_either(command) => Route::Peer,
            route => route,
        }
    }

    pub(super) fn route(&self, lun: &Lun, since: Instant, now: Instant) -> Route {
        // What comes from the peer is not sent back, and the peer holds it if need be.
        let unclear = match self.origin {
            Origin::Host if now < since + HELD_MAX => Route::Hold,
            Origin::Host | Origin::Peer => Route::Refuse(Sense::ACCESS_TRANSITION),
        };
        match (
            lun.config.bdev.access().state(),
            self.origin,
            self.node.as_ref().map(|node| node.standby_mode()),
        ) {
            (AccessState::Optimized, ..) if lun.unit.is_ready() => Route::Here,
            (AccessState::Optimized, ..) if lun.unit.is_unreadable() => {
                Route::Refuse(Sense::MANUAL_INTERVENTION)
            }
            (AccessState::NonOptimized, Origin::Host, Some(StandbyMode::Forward)) => Route::Peer,
            (AccessState::NonOptimized, Origin::Host, _) => Route::Refuse(Sense::PORT_STANDBY),
            (AccessState::Unavailable, ..) => Route::Refuse(Sense::PORT_UNAVAILABLE),
            (AccessState::Optimized | AccessState::NonOptimized | AccessState::Transitioning, ..) => unclear,
        }
    }

    /// Takes a command that is not carried out here at once; gives back one that is.
    pub(super) fn divert(
        &mut self,
        arrival: Arrival,
        parsed: &Command,
        place: &Place,
        now: Instant,
    ) -> Option<Arrival> {
        // A unit attention that waits here is what REQUEST SENSE tells first.
        let told_here = matches!(parsed, Command::RequestSense { .. })
            && place.lun.state.nexuses.borrow().is_pending(self.id);
        if is_answered_here(parsed) || told_here {
            return Some(arrival);
        }
        match self.route_of(parsed, &place.lun, now, now) {
            Route::Here => return Some(arrival),
            Route::Refuse(_) | Route::Hold if is_known_here(parsed) => return Some(arrival),
            Route::Refuse(sense) => {
                self.refuse(arrival.task(), sense, Some(place));
            }
            Route::Hold | Route::Peer => self.begin_passage(arrival, *parsed, place.clone(), now),
        }
        None
    }

    fn begin_passage(&mut self, arrival: Arrival, parsed: Command, place: Place, now: Instant) {
        let unit = self.unit(place.number, &place.lun);
        let task = arrival.task();
        let start = match is_of_the_serving_node(&parsed) {
            true => None,
            false => {
                let Some(node) = self.node.clone() else { return };
                let context = self.context(&unit, &place, &node, now);
                Some(job::start(&parsed, &context))
            }
        };
        match start {
            Some(Start::Fail(sense)) => self.refuse(task, sense, Some(&place)),
            Some(Start::Collect(len)) => self.collect_passage(arrival, parsed, place, len, now),
            Some(Start::Data(_) | Start::Steps(_)) | None => {
                let resets = place.lun.state.nexuses.borrow().resets(self.id);
                let (expected_len, at) = (arrival.command.expected_len, arrival.at);
                let mut job = Job::new(Some(place), parsed, expected_len, Stage::Working, at);
                job.passage = Some(Box::new(Passage::new(arrival, resets, now)));
                self.open_job(task, job);
                self.advance(task, now);
            }
        }
    }

    /// The next step of a job is to find its way.
    pub(super) fn dispatch(&mut self, task: TaskId, now: Instant) {
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        let (Some(place), Some(passage)) = (job.place.clone(), &mut job.passage) else { return };
        if now < passage.not_before {
            return;
        }
        // Nobody wakes for a pause that is over.
        passage.not_before = Instant::EPOCH;
        let (since, resets) = (passage.since, passage.resets);
        let (command, is_astray) = (job.command, job.is_astray());
        let way = self.route_of(&command, &place.lun, since, now);
        // It ends otherwise than by being carried out only when it cannot land any more.
        if is_astray && !matches!(way, Route::Here) {
            return;
        }
        if let Some(sense) = self.was_reset(&place, resets) {
            return self.fail(task, sense);
        }
        match way {
            Route::Hold => self.leave_turn(task),
            Route::Refuse(sense) => self.fail(task, sense),
            Route::Here => self.carry_out(task, &place, now),
            // The peer is said to serve, and cannot be asked or would not: that is unclear, too.
            Route::Peer if now >= since + HELD_MAX => self.fail(task, Sense::ACCESS_TRANSITION),
            Route::Peer => self.pass(task, now),
        }
    }

    /// This node serves by now.
    fn carry_out(&mut self, task: TaskId, place: &Place, now: Instant) {
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        if let (Some(passage), true) = (&mut job.passage, self.stalled.is_some())
            && passage.data.is_none()
        {
            // One command at a time stands still for want of a frame.
            passage.not_before = now + PAUSE;
            return self.leave_turn(task);
        }
        let Some(passage) = job.passage.take() else { return };
        let command = job.command;
        let Some(data) = passage.data else {
            // Nothing was taken from the host yet: as if it came now.
            job.leave();
            self.jobs.remove(task);
            return self.begin(passage.arrival, command, place.clone(), now);
        };
        job.standing = passage.arrival.standing;
        if let Some(refusal) = self.kept_out(&passage.arrival.command.cdb, &place.lun) {
            return self.bar(task, refusal, now);
        }
        let Some(data) = data.try_unique() else { return self.fail(task, Sense::INTERNAL_FAILURE) };
        self.take_collected(task, data, now);
    }

    fn pass(&mut self, task: TaskId, now: Instant) {
        let Some(node) = self.node.clone() else { return };
        let Some(is_up) = self.wanted_relay(now).map(|relay| relay.is_up()) else { return };
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        let (Some(passage), Some(place)) = (&mut job.passage, &job.place) else { return };
        // What this host may see is known here alone.
        let list = passage.data.as_ref().map(Payload::list).unwrap_or_default();
        if let Err(sense) = job::check_shown(&job.command, list, &node, (self.nexus.as_deref(), &self.mask)) {
            return self.fail(task, sense);
        }
        if !is_up {
            passage.not_before = now + PAUSE;
            return self.leave_turn(task);
        }
        // A window that is closed there opens with an answer.
        if !self.relay.as_ref().is_some_and(Relay::has_room) {
            return;
        }
        let command = &passage.arrival.command;
        let data = match (&passage.data, command.reads) {
            (Some(data), _) => PassingData::Out(data.clone()),
            (None, true) if command.expected_len > 0 => {
                let len = passed_len(&job.command, command.expected_len, place);
                let turn = match len {
                    0..=FRAME => {
                        let room = Room::of_frame(self.core.pool(), Wanted::data(len));
                        room.map_or(Turn::Later, Turn::Come)
                    }
                    _ => self.turns.take(&mut job.ticket, &self.core, Wanted::data(len)),
                };
                let mut into = match turn {
                    Turn::Come(room) => room.data,
                    Turn::Later => return,
                    Turn::Never => return self.fail(task, Sense::INVALID_FIELD_IN_CDB),
                };
                into.clear();
                PassingData::In(into)
            }
            (None, _) => PassingData::None,
        };
        let expected_len = match &data {
            PassingData::Out(from) => u32::try_from(from.len()).expect("no longer than a command may"),
            _ => command.expected_len,
        };
        let (lun, cdb, attribute) = (command.lun, command.cdb, command.attribute);
        let passing = Passing { task, lun, cdb, attribute, expected_len, data };
        job.in_flight = self.relay.as_mut().is_some_and(|relay| relay.pass(passing));
        if job.in_flight {
            self.on_choice_passed(task, now);
        }
    }

    /// A command that looks for its way has no frames for what comes by it, and holds up nobody; one that has the host's data keeps them.
    pub(super) fn leave_turn(&mut self, task: TaskId) {
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        if job.passage.as_ref().is_some_and(|passage| passage.data.is_none()) {
            job.ticket = None;
        }
    }

    /// The peer is asked which node shall serve, with the host's list: if it is this one, the host knows what will change here.
    fn on_choice_passed(&mut self, task: TaskId, now: Instant) {
        let (Some(job), Some(node)) = (self.jobs.open.get(&task), &self.node) else { return };
        let Job { command: Command::SetTargetPortGroups { .. }, place: Some(place), .. } = job else {
            return;
        };
        let Some(list) = job.passage.as_ref().and_then(|passage| passage.data.as_ref()) else { return };
        let list = list.list();
        let own = port_group(place.lun.config.bdev.access().side());
        if alua::set(list, &groups(node, &place.lun)) == Ok(Some(own)) {
            place.lun.unit.chosen.set(Some(own));
            self.access_states.ask(place.number, AccessState::Optimized, now);
        }
    }

    /// The choice of a host came to nothing.
    pub(super) fn on_choice_refused(&mut self, task: TaskId) {
        if let Some(Job { command: Command::SetTargetPortGroups { .. }, place: Some(place), .. }) =
            self.jobs.open.get(&task)
        {
            place.lun.unit.chosen.set(None);
            self.access_states.refuse(place.number);
        }
    }

    /// One turn of the relay, if there is one.
    pub(super) fn poll_relay(&mut self, now: Instant) -> Progress {
        let Some(relay) = &mut self.relay else { return Progress::Idle };
        let mut news = Vec::new();
        let progress = relay.poll(self.core.pool(), now, &mut news);
        self.on_news(news, now);
        progress
    }

    fn on_news(&mut self, news: Vec<News>, now: Instant) {
        for news in news {
            match news {
                News::Passed(task, Passed::Answered(completion, data)) => {
                    self.on_answered(task, &completion, data, now);
                }
                News::Passed(task, Passed::Lost) => self.on_passage_lost(task, now),
                News::Passed(task, Passed::Ended) => self.on_passage_ended(task, now),
                News::LetIn => self.settle(Settled::Barred, now, |_| true),
                News::Managed(request, Ends::AtLun(lun), code) => self.on_managed(request, lun, code),
                News::Managed(request, _, code) => self.on_peer_asked(request, Some(code)),
                News::ResetsLost => self.on_resets_lost(),
                News::AnswerLost(request) => self.on_peer_asked(request, None),
                News::NexusLost => self.lose_peer(),
            }
        }
    }

    /// The nexus at the node that serves is gone, and what that node knew of it (SAM-5 section 6.3.4).
    fn lose_peer(&mut self) {
        let Some(node) = &self.node else { return };
        for (number, lun) in node.luns.borrow().iter().filter(|(number, _)| self.mask.shows(**number)) {
            let passed = self.access_states.has_seen(*number)
                && lun.config.bdev.access().state() != AccessState::Optimized;
            if passed {
                lun.state.nexuses.borrow_mut().tell(self.id, Sense::NEXUS_LOSS);
            }
        }
    }

    /// This node serves the unit: what the peer was asked about it is answered here.
    pub(in crate::export) fn take_back_passed(&mut self, unit: &Rc<LogicalUnit>, now: Instant) {
        let (Some(relay), Some(node)) = (&mut self.relay, &self.node) else { return };
        let mut news = Vec::new();
        for (number, _) in node.luns.borrow().iter().filter(|(_, lun)| Rc::ptr_eq(&lun.unit, unit)) {
            relay.take_back(scsi::lun::encode(*number), &mut news);
        }
        self.on_news(news, now);
        let here = |job: &Job| job.place.as_ref().is_some_and(|place| Rc::ptr_eq(&place.lun.unit, unit));
        self.settle(Settled::Barred, now, here);
    }

    /// A command that was under way when the unit was reset, or its nexus lost, ends with that.
    fn was_reset(&self, place: &Place, seen: Resets) -> Option<Sense> {
        let mut nexuses = place.lun.state.nexuses.borrow_mut();
        let sense = nexuses.resets(self.id).since(seen)?;
        nexuses.take_reset(self.id);
        Some(sense)
    }

    fn on_answered(&mut self, task: TaskId, completion: &Completion, data: Option<PayloadMut>, now: Instant) {
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        job.in_flight = false;
        if job.aborted {
            return self.close_job(task, now);
        }
        if let Some(sense) = job.verdict {
            return self.fail(task, sense);
        }
        let transition = scsi::sense::decode(&completion.sense) == Some((2, 0x040a));
        if transition && let Some(passage) = &mut job.passage {
            // It does not serve either, for now.
            passage.not_before = now + PAUSE;
            return self.leave_turn(task);
        }
        // Somebody else's reset or PREEMPT AND ABORT. The node that serves knows whether TAS is zero, and the host is not told.
        if completion.status == status::TASK_ABORTED {
            job.aborted = true;
            job.hears_of_end = if is_for_the_host(completion) { Hears::Host } else { Hears::Nothing };
            if !is_for_the_host(completion) {
                self.links.abort(task);
            }
            return self.close_job(task, now);
        }
        let failed = completion.status != status::GOOD;
        let expected = job.passage.as_ref().map_or(u64::from(job.expected_len), |passage| passage.promised());
        let moved = expected - u64::from(completion.underflow).min(expected);
        let transfer_len = moved + u64::from(completion.overflow);
        let response = Response { status: completion.status, sense: completion.sense.clone(), transfer_len };
        if failed {
            self.on_choice_refused(task);
        }
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        match data {
            Some(data) if completion.status == status::GOOD && moved > 0 => {
                let available =
                    u32::try_from(moved.min(data.len() as u64)).expect("no longer than a command may");
                job.answer(Some(data.freeze()));
                self.jobs.charge(task, available as usize);
                self.links.send_data(task, available, response);
            }
            _ => self.respond(task, response),
        }
    }

    /// An aborted command is at the peer: it is ended there.
    pub(super) fn abort_passed(&mut self, task: TaskId) {
        let Some(passage) = self.jobs.open.get(&task).and_then(|job| job.passage.as_ref()) else { return };
        if let Some(relay) = &mut self.relay {
            relay.abort(task, passage.arrival.command.lun);
        }
    }

    /// When a command that is held or waits for the peer has to be looked at again.
    pub(super) fn passages_deadline(&self) -> Option<Instant> {
        let idle = self.jobs.open.values().filter(|job| !job.in_flight && !job.is_astray());
        idle.filter_map(|job| job.passage.as_ref()).map(|passage| passage.next_look()).min()
    }

    /// A stream to the peer, that the session had asked for.
    pub(in crate::export) fn attach_relay(
        &mut self,
        stream: Box<dyn net::Stream>,
        credentials: Option<Proving>,
        now: Instant,
    ) {
        if let Some(relay) = &mut self.relay {
            relay.attach(stream, credentials, now);
        }
    }

    /// There is no such stream to be had now.
    pub(in crate::export) fn put_off_relay(&mut self, now: Instant) {
        if let Some(relay) = &mut self.relay {
            relay.put_off(now);
        }
    }

    /// Streams to the peer that there were.
    pub(in crate::export) fn relay_dials(&self) -> usize {
        self.relay.as_ref().map_or(0, |relay| relay.dials())
    }

    /// The session is over: nobody needs the peer any more.
    pub(super) fn drop_relay(&mut self, now: Instant) {
        let Some(mut relay) = self.relay.take() else { return };
        let mut news = Vec::new();
        relay.close(now, &mut news);
        self.on_news(news, now);
    }
}

impl Passage {
    pub(super) fn new(arrival: Arrival, resets: Resets, now: Instant) -> Self {
        Self { arrival, data: None, since: now, not_before: Instant::EPOCH, resets, lost_at: None }
    }

    /// Bytes that the peer was promised of the host's data, or may send: the host may have promised more than its command moves.
    fn promised(&self) -> u64 {
        match (&self.data, self.arrival.command.reads) {
            (Some(data), _) => data.len() as u64,
            (None, true) => u64::from(self.arrival.command.expected_len),
            (None, false) => 0,
        }
    }

    /// Its place in the unit's task set.
    pub(super) fn standing(&self) -> Option<&Standing> {
        self.arrival.standing.as_ref()
    }

    fn next_look(&self) -> Instant {
        if self.not_before == Instant::EPOCH { self.since + HELD_MAX } else { self.not_before }
    }

    /// The host's data are in.
    pub(super) fn take_data(&mut self, data: Payload) {
        self.data = Some(data);
    }
}
