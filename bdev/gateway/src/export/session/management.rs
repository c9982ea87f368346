//! Task management: aborts, resets and queries, answered when what they end has ended (RFC 7143 section 11.5, RFC 7144).

use std::rc::Rc;

use engine::Instant;
use iscsi::TaskId;
use iscsi::initiator::Completion;
use iscsi::target::{Response, TaskFunction, TaskResponse};
use scsi::mode::TaskAborted;
use scsi::{Removal, Sense, SenseFormat, status};

use super::super::logical_unit::LogicalUnit;
use super::super::node::Lun;
use super::super::relay::Ends;
use super::super::resets::ResetKind;
use super::fence::Then;
use super::paths::Route;
use super::{Origin, Request, Session};

/// Codes of functions that are passed on (RFC 7144 section 6.3), and of the answer "yes".
const NEXUS_RESET: u8 = 11;
const QUERY_ASYNC_EVENT: u8 = 12;
const SUCCEEDED: u8 = TaskResponse::Succeeded as u8;

/// Whose function ends a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::export) enum Aborter {
    /// The same nexus's.
    Itself,
    /// Another one's.
    Another,
}

/// Bytes of sense by which a node that serves tells the one that relays a command that the host is to have its status, too: TASK ABORTED
/// alone is for the relay. The host gets none of them.
const FOR_THE_HOST: Sense = Sense::COMMANDS_CLEARED;

/// How the nexus of a command that is ended hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hears {
    /// Not at all, as far as the command goes.
    Nothing,
    /// The peer that relays it does, at once: only the peer's own aborts end it there.
    Relay,
    /// The host does, by the status of the command, when nothing of it is at work any more.
    Host,
}

impl Hears {
    pub(super) fn of(by: Aborter, unit: &LogicalUnit, origin: Origin) -> Self {
        //= rfc7143#section-11.5.1(b): who is told what of a command that another session ends.
        match (by, unit.settings().task_aborted, origin) {
            (Aborter::Itself, ..) | (Aborter::Another, TaskAborted::Attention, Origin::Host) => Self::Nothing,
            (Aborter::Another, TaskAborted::Status, _) => Self::Host,
            (Aborter::Another, TaskAborted::Attention, Origin::Peer) => Self::Relay,
        }
    }
}

/// Whether the answer of a node that serves, TASK ABORTED, is for the host.
pub(super) fn is_for_the_host(completion: &Completion) -> bool {
    !completion.sense.is_empty()
}

/// What there is of a task, as far as management goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// Nothing: its status has been sent, or there never was any.
    Gone,
    /// It has still to be answered.
    Open,
    /// It was ended, and something of it is at work all the same.
    Ending,
}

/// A management request that waits for the tasks that it ends.
pub(super) struct Management {
    request: TaskId,
    waits_for: Vec<TaskId>,
    response: TaskResponse,
    peer: Peer,
    ends: Ended,
}

/// What a function ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// One task, or none.
    One,
    /// Whatever there is: the answer is fenced.
    Several,
    /// That, and the session with it.
    Nexus,
}

/// Whether the node that serves has been asked, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    /// No, or it has answered.
    NotAwaited,
    /// I_T NEXUS RESET.
    Awaited,
    /// QUERY ASYNCHRONOUS EVENT about a LUN.
    Queried(u16),
}

impl Management {
    fn new(request: TaskId, waits_for: Vec<TaskId>) -> Self {
        let (response, peer) = (TaskResponse::Complete, Peer::NotAwaited);
        Self { request, waits_for, response, peer, ends: Ended::One }
    }
}

/// A target reset, which has parts here and at the peer.
pub(super) struct TargetReset {
    request: TaskId,
    kind: ResetKind,
    /// Those that have not ended.
    parts: usize,
    outcome: TaskResponse,
}

impl Session {
    pub(super) fn on_management(
        &mut self,
        request: TaskId,
        lun: u64,
        function: TaskFunction,
        now: Instant,
        requests: &mut Vec<Request>,
    ) {
        match function {
            TaskFunction::AbortTask(task) => self.abort_task(request, task, now),
            TaskFunction::QueryTask(task) => {
                self.answer_query(request, self.presence(task) == Presence::Open);
            }
            TaskFunction::TargetWarmReset => self.reset_all(request, ResetKind::WarmTarget, now, requests),
            TaskFunction::TargetColdReset => self.reset_all(request, ResetKind::ColdTarget, now, requests),
            TaskFunction::NexusReset => self.lose_nexus(request, now),
            TaskFunction::TaskReassign { task, exp_data_sn } => {
                //= rfc7143#section-11.5.3: the LUN is reserved here: the task's name says which it is.
                self.links.reassign(request, task, exp_data_sn);
            }
            // No command can ask for ACA: NormACA is zero in the INQUIRY data, and a CONTROL byte that asks is refused.
            TaskFunction::ClearAca | TaskFunction::Unknown(_) => {
                //= rfc7143#section-11.6.1(c): a function that nobody knows is not supported.
                self.answer_management(request, TaskResponse::Unsupported);
            }
            TaskFunction::AbortTaskSet
            | TaskFunction::ClearTaskSet
            | TaskFunction::LogicalUnitReset
            | TaskFunction::QueryTaskSet
            | TaskFunction::QueryAsyncEvent => self.manage_unit(request, lun, function, now, requests),
        }
    }

    fn manage_unit(
        &mut self,
        request: TaskId,
        lun: u64,
        function: TaskFunction,
        now: Instant,
        requests: &mut Vec<Request>,
    ) {
        let found = scsi::lun::decode(lun).and_then(|number| Some((number, self.lun(number)?)));
        let Some((number, lun)) = found else {
            return self.answer_management(request, TaskResponse::NoLun);
        };
        let passed = match function {
            TaskFunction::ClearTaskSet => self.pass_reset(request, number, ResetKind::ClearTaskSet, now),
            TaskFunction::LogicalUnitReset => self.pass_reset(request, number, ResetKind::LogicalUnit, now),
            _ => false,
        };
        if passed {
            return;
        }
        let reset = |kind| Request::Reset { request, units: vec![lun.unit.clone()], kind };
        match function {
            TaskFunction::AbortTaskSet => {
                let waits_for = self.abort_all(&lun.unit, Aborter::Itself, now);
                let management = Management::new(request, waits_for);
                self.management.push(Management { ends: Ended::Several, ..management });
            }
            TaskFunction::ClearTaskSet => requests.push(reset(ResetKind::ClearTaskSet)),
            TaskFunction::LogicalUnitReset => requests.push(reset(ResetKind::LogicalUnit)),
            TaskFunction::QueryTaskSet => {
                let open = self.is_busy_at(&lun.unit);
                self.answer_query(request, open);
            }
            _ => {
                let next = lun.state.nexuses.borrow().next_event(self.id);
                match next {
                    Some(next) => self.links.respond_query(request, TaskResponse::Succeeded, next),
                    None if self.query_peer(request, number, &lun, now) => {}
                    None => self.answer_management(request, TaskResponse::Complete),
                }
            }
        }
    }

    fn answer_management(&mut self, request: TaskId, response: TaskResponse) {
        self.links.respond_task_management(request, response);
    }

    /// Queries answer "function succeeded" for yes and "function complete" for no (RFC 7144 section 6.4.2).
    fn answer_query(&mut self, request: TaskId, yes: bool) {
        let response = if yes { TaskResponse::Succeeded } else { TaskResponse::Complete };
        self.answer_management(request, response);
    }

    /// What there is of a task: asked by every function, so that none takes for gone what may still land.
    pub(super) fn presence(&self, task: TaskId) -> Presence {
        match (self.jobs.open.get(&task), self.links.is_open(task)) {
            (Some(job), _) if job.aborted => Presence::Ending,
            (_, true) => Presence::Open,
            (Some(job), false) if job.in_flight => Presence::Ending,
            (_, false) => Presence::Gone,
        }
    }

    /// ABORT TASK: a task whose status has been sent does not exist any more; one that was ended already is waited for like any other.
    fn abort_task(&mut self, request: TaskId, task: TaskId, now: Instant) {
        if self.presence(task) == Presence::Gone {
            //= rfc7143#section-7.11(b): a task that was answered before its abort is none.
            //= rfc7143#section-11.6.1(b): what is not there is named: the task, elsewhere the LUN.
            return self.answer_management(request, TaskResponse::NoTask);
        }
        // A command that waits for a frame is no job yet.
        self.stalled.take_if(|stalled| stalled.task() == task);
        self.abort(task, Aborter::Itself, now);
        self.management.push(Management::new(request, vec![task]));
    }

    /// A target reset: every unit that the initiator can see, each where it is served. What the peer serves is reset there one
    /// by one: of this session's LUNs the peer would know no mask.
    fn reset_all(&mut self, request: TaskId, kind: ResetKind, now: Instant, requests: &mut Vec<Request>) {
        let Some(node) = self.node.clone() else { return };
        let numbers: Vec<u16> =
            node.luns.borrow().keys().copied().filter(|number| self.mask.shows(*number)).collect();
        let (passed, own): (Vec<u16>, Vec<u16>) =
            numbers.into_iter().partition(|number| self.is_reset_elsewhere(*number, now));
        let parts = passed.len() + 1;
        self.target_resets.push(TargetReset { request, kind, parts, outcome: TaskResponse::Complete });
        for number in passed {
            self.pass_reset(request, number, ResetKind::LogicalUnit, now);
        }
        let units = own.into_iter().filter_map(|number| Some(node.lun(number)?.unit.clone())).collect();
        requests.push(Request::Reset { request, units, kind });
    }

    /// A reset has ended what it was to end, here or at the peer: it is answered when that is all.
    pub(in crate::export) fn end_reset(&mut self, request: TaskId, response: TaskResponse) {
        let Some(at) = self.target_resets.iter().position(|reset| reset.request == request) else {
            return self.answer_behind_fence(request, response, Then::GoesOn);
        };
        let reset = &mut self.target_resets[at];
        reset.parts -= 1;
        if response != TaskResponse::Complete {
            reset.outcome = response;
        }
        if reset.parts > 0 {
            return;
        }
        let TargetReset { kind, outcome, .. } = self.target_resets.swap_remove(at);
        let then = if kind == ResetKind::ColdTarget { Then::AllEnd } else { Then::GoesOn };
        self.answer_behind_fence(request, outcome, then);
    }

    /// The units behind the session's LUNs.
    pub(in crate::export) fn units_seen(&self) -> Vec<Rc<LogicalUnit>> {
        let Some(node) = &self.node else { return Vec::new() };
        let luns = node.luns.borrow();
        luns.iter().filter(|(number, _)| self.mask.shows(**number)).map(|(_, lun)| lun.unit.clone()).collect()
    }

    /// I_T NEXUS RESET: what a loss of the nexus does, and behind the answer the loss itself (RFC 7144 section 6.3, SAM-5 section
    /// 6.3.4).
    fn lose_nexus(&mut self, request: TaskId, now: Instant) {
        let mut waits_for = Vec::new();
        for unit in self.units_seen() {
            waits_for.extend(self.abort_all(&unit, Aborter::Itself, now));
            if let Some(nexus) = &self.nexus {
                unit.change_older(|table| table.forget_older(nexus));
            }
            self.establish(&unit, Sense::NEXUS_LOSS);
        }
        if let Some(node) = &self.node {
            node.luns.borrow().values().for_each(|lun| {
                lun.unit.set_removal(self.id, Removal::Allowed);
            });
        }
        // A way that is down has no nexus at its end.
        let asked = self.relay.as_mut().is_some_and(|relay| relay.manage(request, NEXUS_RESET, Ends::Nexus));
        let peer = if asked { Peer::Awaited } else { Peer::NotAwaited };
        self.management.push(Management { peer, ends: Ended::Nexus, ..Management::new(request, waits_for) });
    }

    /// What a reset of the nexus, so answered, leaves of the session. One of a peer's is the peer's to end: its host's goes.
    fn after_nexus_reset(&self, response: TaskResponse) -> Then {
        match (response, self.origin) {
            (TaskResponse::Complete, Origin::Host) => Then::Ends,
            _ => Then::GoesOn,
        }
    }

    /// Asks the node that serves a LUN for attentions of this nexus; false when there is nobody to ask, who would have none.
    fn query_peer(&mut self, request: TaskId, number: u16, lun: &Lun, now: Instant) -> bool {
        let ends = Ends::Nothing(scsi::lun::encode(number));
        let asked = matches!(self.route(lun, now, now), Route::Peer)
            && self.relay.as_mut().is_some_and(|relay| relay.manage(request, QUERY_ASYNC_EVENT, ends));
        if asked {
            let peer = Peer::Queried(number);
            self.management.push(Management { peer, ..Management::new(request, Vec::new()) });
        }
        asked
    }

    /// The node that serves has answered about the nexus, or the nexus there is gone.
    pub(super) fn on_peer_asked(&mut self, request: TaskId, code: Option<u8>) {
        let is_it = |management: &&mut Management| management.request == request;
        let Some(management) = self.management.iter_mut().find(is_it) else { return };
        let pending = |number: u16| {
            let lun = self.node.as_ref().and_then(|node| node.lun(number));
            lun.is_some_and(|lun| lun.state.nexuses.borrow().is_pending(self.id))
        };
        management.response = match (management.peer, code) {
            _ if management.response == TaskResponse::Rejected => TaskResponse::Rejected,
            (Peer::Queried(number), None) if pending(number) => TaskResponse::Succeeded,
            (_, Some(SUCCEEDED)) => TaskResponse::Succeeded,
            (_, Some(0) | None) => TaskResponse::Complete,
            (_, Some(_)) => TaskResponse::Rejected,
        };
        management.peer = Peer::NotAwaited;
    }

    //= rfc7143#section-11.5.1(a)
    /// No status is sent for the task any more, unless the peer waits for one; an I/O under way is waited for.
    pub(super) fn abort(&mut self, task: TaskId, by: Aborter, now: Instant) {
        let job = self.jobs.open.get_mut(&task);
        let place = job.as_ref().and_then(|job| job.place.as_ref());
        let hears = place.map_or(Hears::Nothing, |place| Hears::of(by, &place.lun.unit, self.origin));
        let at_work = job.as_ref().is_some_and(|job| job.in_flight || job.is_astray());
        // The peer is told once.
        let is_to_be_passed = job.as_ref().is_some_and(|job| job.in_flight && !job.aborted);
        match (job, hears) {
            (Some(job), Hears::Host) if at_work => job.hears_of_end = hears,
            (job, _) => {
                if let Some(job) = job {
                    job.hears_of_end = Hears::Nothing;
                }
                self.silence(task, hears);
            }
        }
        if is_to_be_passed {
            self.abort_passed(task);
        }
        self.end_aborted(task, now);
    }

    /// Sends nothing more for an aborted task, but what its nexus is to hear.
    pub(super) fn silence(&mut self, task: TaskId, hears: Hears) {
        let response = Response { status: status::TASK_ABORTED, ..Response::default() };
        match (hears, self.origin) {
            (Hears::Nothing, _) => self.links.abort(task),
            (Hears::Host, Origin::Peer) => {
                let sense = FOR_THE_HOST.encode(SenseFormat::Fixed);
                self.links.terminate(task, Response { sense, ..response });
            }
            (Hears::Relay | Hears::Host, _) => self.links.terminate(task, response),
        }
    }

    /// Aborts a task about which the peer has been told otherwise.
    pub(super) fn forget(&mut self, task: TaskId, now: Instant) {
        self.links.abort(task);
        self.end_aborted(task, now);
    }

    fn end_aborted(&mut self, task: TaskId, now: Instant) {
        let Some(job) = self.jobs.open.get_mut(&task) else { return };
        if job.in_flight || job.is_astray() {
            (job.aborted, job.in_flight) = (true, true);
            job.shield();
        } else {
            self.close_job(task, now);
        }
    }

    /// Nobody knows what became of a task: what waits for its end is not told that it is over.
    pub(super) fn reject_waiting_for(&mut self, task: TaskId) {
        let waiting = self.management.iter_mut().filter(|management| management.waits_for.contains(&task));
        waiting.for_each(|management| management.response = TaskResponse::Rejected);
    }

    pub(super) fn finish_management(&mut self) {
        let open = &self.jobs.open;
        let ended = |management: &mut Management| {
            management.peer == Peer::NotAwaited
                //= rfc7143#section-4.2.3.3(a): what is ended is waited for before the answer.
                && management.waits_for.iter().all(|task| !open.contains_key(task))
        };
        let ended: Vec<Management> = self.management.extract_if(.., ended).collect();
        for Management { request, response, ends, .. } in ended {
            match ends {
                Ended::One => self.answer_management(request, response),
                Ended::Several => self.answer_behind_fence(request, response, Then::GoesOn),
                Ended::Nexus => self.answer_behind_fence(request, response, self.after_nexus_reset(response)),
            }
        }
    }
}
