//! How much of the pool one session may hold: frames whose time its initiator decides, because it has yet to send what they are for,
//! or to take what is in them.
//!
//! A session gets a frame as long as all that it holds is not more than [`SHARE`] times what is free. So one alone may have two
//! thirds of the pool, many have equal shares, and something is always left for the next. A write that gets no frame now is parked:
//! what comes unasked for it waits on the heap, within bounds, the session reads on, and hears aborts and resets. One that cannot even
//! be parked stops the session for [`PATIENCE`] at the most; then such commands are answered TASK SET FULL until there is room.

use core::time::Duration;
use std::collections::VecDeque;

use engine::{Instant, Pool};
use iscsi::TaskId;
use iscsi::target::Response;
use scsi::{Sense, status};

use super::super::job;
use super::super::long::{Room, Ticket, Turn, Wanted};
use super::super::node::Place;
use super::Session;
use super::footing::Footing;
use super::jobs::{Job, Stage};
use super::turns::Pace;
use crate::payload::FRAME;

/// What is held may be this many times what is free.
const SHARE: usize = 2;
/// So much is nobody's share: commands of a few blocks never look at the pool.
const SMALL: usize = 256 << 10;
/// Bytes that may come unasked for parked commands of one session.
const PARKED_MAX: usize = 8 << 20;
/// How long a session may stand still for want of a frame.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between looks for data that do not come.
const LOOK: Duration = Duration::from_secs(1);

/// The data of a command that has no frame yet.
pub(super) struct Parked {
    /// From offset zero, as far as anything has come.
    bytes: Vec<u8>,
    /// The most that comes unasked.
    unasked: usize,
    /// Bytes that the command takes in all.
    len: u32,
}

impl Parked {
    /// Keeps bytes that came; there is room for what may come unasked.
    pub(super) fn store(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset.saturating_add(bytes.len()).min(self.unasked);
        let Some(len) = end.checked_sub(offset) else { return };
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(&bytes[..len]);
    }

    /// What came so far.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn held(&self) -> usize {
        self.bytes.len()
    }
}

/// What a command for so many bytes of data wants.
pub(super) fn wanted(command: &scsi::Command, len: u32, place: &Place) -> Wanted {
    let len = len as usize;
    let block_size = place.lun.config.bdev.geometry().block_size;
    Wanted { len, scratch: job::scratch_len(command, len, block_size) }
}

impl Job {
    /// What a command wants that has no frame yet.
    fn wanted(&self) -> Option<(u32, Wanted)> {
        let (Stage::Parked(Parked { len, .. }), Some(place)) = (&self.stage, &self.place) else {
            return None;
        };
        Some((*len, wanted(&self.command, *len, place)))
    }
}

/// Whether a session that holds so much may have one more frame, for so many bytes.
pub(super) fn may_hold(held: usize, pool: &Pool, len: usize) -> bool {
    let with = held + Pool::frame_bytes(len);
    with <= SMALL || held == 0 || with <= SHARE.saturating_mul(pool.free_bytes(len))
}

/// How the data come that a session's initiator was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrivals {
    looked_at: Instant,
    pace: Pace,
}

impl Arrivals {
    /// Looks since when none have come; `None` when it was looked a moment ago.
    fn look(&mut self, arrived: u64, now: Instant) -> Option<Instant> {
        if now < self.looked_at + LOOK {
            return None;
        }
        self.looked_at = now;
        Some(self.pace.nothing_since(arrived, now))
    }
}

impl Session {
    /// Room for a command's data, and a frame beside it where it reads while it has them, if the session may have that now. More than a
    /// frame has its turn (`long.rs`).
    pub(super) fn room(&self, ticket: &mut Option<Ticket>, wanted: Wanted) -> Turn {
        let Wanted { len, scratch } = wanted;
        if len > FRAME {
            return self.turns.take(ticket, &self.core, wanted);
        }
        let beside = if scratch > 0 { Pool::frame_bytes(scratch) } else { 0 };
        let may = may_hold(self.jobs.held + beside, self.core.pool(), len);
        Room::of_frame(self.core.pool(), wanted).filter(|_| may).map_or(Turn::Later, Turn::Come)
    }

    /// Parks the command that has no frame; `None` when there is no room for what may come of it.
    pub(super) fn park(&mut self, task: TaskId, len: u32) -> Option<Stage> {
        let parked = self.room_to_park(len)?;
        self.parked.push_back(task);
        Some(Stage::Parked(parked))
    }

    /// Room for what may come unasked of a command without a frame.
    pub(super) fn room_to_park(&self, len: u32) -> Option<Parked> {
        let parameters = self.links.leading().connection.parameters();
        let may_come = parameters.immediate_data.is_yes() || !parameters.initial_r2t.is_yes();
        let unasked = if may_come { parameters.first_burst_length.min(len) as usize } else { 0 };
        let parked = self.jobs.open.values().filter_map(|job| match &job.stage {
            Stage::Parked(parked) => Some(parked.unasked),
            _ => None,
        });
        let fits = parked.sum::<usize>() + unasked <= PARKED_MAX;
        fits.then(|| Parked { bytes: Vec::new(), unasked, len })
    }

    /// Gives frames to those that wait for them, the oldest first. Those that wait for their turn hold up nobody else, nor does anybody
    /// hold up those that have it.
    pub(super) fn unpark(&mut self, now: Instant) {
        let mut waiting = VecDeque::new();
        let mut is_out_of_frames = false;
        for task in std::mem::take(&mut self.parked) {
            let Some(job) = self.jobs.open.get_mut(&task) else { continue };
            // One that is not parked any more was aborted.
            let Some((len, wanted)) = job.wanted() else { continue };
            if is_out_of_frames && wanted.len <= FRAME {
                waiting.push_back(task);
                continue;
            }
            let mut ticket = job.ticket.take();
            let room = self.room(&mut ticket, wanted);
            let Some(job) = self.jobs.open.get_mut(&task) else { continue };
            job.ticket = ticket;
            match room {
                Turn::Come(room) => {
                    let early = match &mut job.stage {
                        Stage::Parked(parked) => std::mem::take(&mut parked.bytes),
                        _ => Vec::new(),
                    };
                    self.begin_collecting(task, room, (len, &early), now);
                }
                Turn::Later => {
                    is_out_of_frames |= wanted.len <= FRAME;
                    waiting.push_back(task);
                }
                Turn::Never => self.fail(task, Sense::INVALID_FIELD_IN_CDB),
            }
        }
        self.parked = waiting;
    }

    /// The command has room: its data may come.
    pub(super) fn begin_collecting(
        &mut self,
        task: TaskId,
        Room { mut data, scratch }: Room,
        (len, parked): (u32, &[u8]),
        now: Instant,
    ) {
        for early in [parked, &self.links.take_early_data(task)] {
            data.store(0, early);
        }
        self.impatient_since = None;
        if let Some(job) = self.jobs.open.get_mut(&task) {
            job.stage = Stage::Collecting(data);
            job.footing = Footing::with(scratch);
            job.asked_at = now;
        }
        self.jobs.charge(task, len as usize);
        self.links.solicit(task, len);
    }

    /// Whether a command that cannot be parked has waited long enough, or one before it has.
    pub(super) fn is_impatient(&mut self, now: Instant) -> bool {
        let since = *self.impatient_since.get_or_insert(now);
        now >= since + PATIENCE
    }

    /// When it has.
    pub(super) fn patience_deadline(&self) -> Option<Instant> {
        self.stalled.as_ref().and(self.impatient_since).map(|since| since + PATIENCE)
    }

    /// TASK SET FULL: the initiator is to send less at a time (SAM-5 section 5.3.1).
    pub(super) fn turn_away(&mut self, task: TaskId) {
        self.links.respond(task, Response { status: status::TASK_SET_FULL, ..Response::default() });
    }

    /// What a session holds until the initiator has acknowledged it may be acknowledged by now, and it has nothing else to say.
    pub(super) fn ask_to_acknowledge(&mut self) {
        if self.recovers() {
            // One on its way is not sent again.
            self.links.iter_mut().for_each(|link| link.connection.ping());
        }
    }

    /// Drops the connection by which data were asked for that do not come: what they are for is not held for ever. The session ends
    /// with its only connection. A host that sends any of what it was asked for is only slow.
    pub(super) fn watch_data(&mut self, now: Instant) {
        let Some(since) = self.arrivals.look(self.jobs.arrived, now) else { return };
        let late = |job: &Job| job.is_taking() && now >= job.asked_at.max(since) + self.patience.silence;
        let late: Vec<TaskId> =
            self.jobs.open.iter().filter(|(_, job)| late(job)).map(|(task, _)| *task).collect();
        const WHY: &str = "the initiator does not send the data that it was asked for";
        for task in late {
            match self.links.len() {
                0 | 1 => return self.dismiss_once(0, WHY),
                _ => self.links.dismiss(task, WHY),
            }
        }
    }
}
