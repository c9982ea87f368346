//! Copies whose command has ended (IMMED): each goes on by itself, as long as its session does.

use engine::{BUF_LEN_MAX, Instant, Progress};
use scsi::Sense;
use scsi::copy::CONCURRENT_MAX;

use bdev::Completed;
use std::rc::Rc;

use super::super::job::{After, Step};
use super::super::logical_unit::LogicalUnit;
use super::super::node::Place;
use super::Session;
use super::footing::Footing;
use super::frames::may_hold;
use super::jobs::Sent;

/// Of one session; [`CONCURRENT_MAX`] of a target.
const OPEN_MAX: usize = 8;
/// Set in the tags of their I/Os; tags of tasks have 32 bits.
const BACKGROUND: u64 = 1 << 32;

/// See the module.
pub(super) struct Background {
    number: u32,
    /// Where it was asked for.
    place: Place,
    /// What it is at; never absent but for a moment.
    step: Option<Step>,
    footing: Footing,
    state: State,
    /// Its place among those of the target.
    _behind: Rc<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    InFlight,
    /// Aborted, and its last I/O is under way.
    Aborted,
}

impl Background {
    /// True while it has frames: for its I/O, or with the piece that it copies. It may hold blocks then, so it waits for no share.
    fn is_at_work(&self) -> bool {
        let goes_on = || self.step.as_ref().is_some_and(Step::goes_on);
        self.state != State::Waiting || self.footing.has_frames() || goes_on()
    }

    /// It ends with the I/O that it is at, which may yet change its blocks.
    fn abort(&mut self) {
        self.state = State::Aborted;
        if let Some(step) = &self.step {
            self.footing.shield(step);
        }
    }

    fn is_at(&self, unit: &Rc<LogicalUnit>) -> bool {
        let at = |place: &Place| Rc::ptr_eq(&place.lun.unit, unit);
        at(&self.place) || self.step.as_ref().is_some_and(|step| step.touches(&at))
    }
}

impl Session {
    /// Takes the steps of a command that does not wait for them.
    ///
    /// # Errors
    /// The session, or the target, has as many as it may.
    pub(super) fn continue_in_background(
        &mut self,
        place: Place,
        step: Step,
        now: Instant,
    ) -> Result<(), Sense> {
        let node = self.node.as_ref().ok_or(Sense::INTERNAL_FAILURE)?;
        let of_target = Rc::strong_count(&node.behind) - 1;
        if self.background.len() >= OPEN_MAX || of_target >= usize::from(CONCURRENT_MAX) {
            return Err(Sense::OPERATION_IN_PROGRESS);
        }
        let behind = node.behind.clone();
        self.last_background = self.last_background.wrapping_add(1);
        let number = self.last_background;
        let background = Background {
            number,
            place,
            step: Some(step),
            footing: Footing::default(),
            state: State::Waiting,
            _behind: behind,
        };
        self.background.push(background);
        self.advance_background(number, now);
        Ok(())
    }

    fn advance_background(&mut self, number: u32, now: Instant) {
        let at_work = self.background.iter().filter(|background| background.is_at_work()).count();
        let held = self.jobs.held + at_work * BUF_LEN_MAX;
        let may_begin = may_hold(held, self.core.pool(), BUF_LEN_MAX);
        let Some(background) = self.background.iter_mut().find(|background| background.number == number)
        else {
            return;
        };
        let (State::Waiting, Some(step)) = (background.state, &background.step) else { return };
        let place = step.place().unwrap_or(&background.place).clone();
        let is_there = self.node.as_ref().is_some_and(|node| node.has(&place));
        let refused = step.check(self.nexus.as_deref()).is_err();
        let Place { number: lun_number, lun } = place;
        if refused || !is_there || lun.unit.sanitize_refusal().is_some() {
            return self.background.retain(|background| background.number != number);
        }
        // What is waited for at the blocks keeps its frames: they are the session's share.
        if !(may_begin || background.is_at_work()) {
            return;
        }
        if !background.footing.is_complete(step, &lun, self.core.pool()) {
            return;
        }
        let tag = bdev::Tag(BACKGROUND | u64::from(number));
        let sending = (step, &mut background.footing);
        match super::jobs::send(&mut self.channels, &self.core, (lun_number, &lun), sending, tag, now) {
            Sent::Later => {}
            Sent::Submitted => background.state = State::InFlight,
            Sent::Refused(_) | Sent::NoChannel => {
                self.background.retain(|background| background.number != number);
            }
        }
    }

    /// Takes a completion that is of one of them; gives back any other.
    pub(super) fn on_background(&mut self, completed: Completed, now: Instant) -> Option<Completed> {
        if completed.tag.0 & BACKGROUND == 0 {
            return Some(completed);
        }
        let number = u32::try_from(completed.tag.0 & !BACKGROUND).expect("32 bits");
        let at = self.background.iter().position(|background| background.number == number)?;
        let background = &mut self.background[at];
        let step = background.step.take().filter(|_| background.state == State::InFlight);
        let after = step.map(|step| step.finish(completed, &mut background.footing.scratch));
        background.state = State::Waiting;
        match after {
            Some(After::Again(step)) => background.step = Some(step),
            Some(After::Next(step)) => {
                background.step = Some(step);
                background.footing.leave();
            }
            // It has ended, and its status says how.
            _ => {
                self.background.remove(at);
                return None;
            }
        }
        self.advance_background(number, now);
        None
    }

    /// Those that waited for something.
    pub(super) fn poll_background(&mut self, now: Instant) -> Progress {
        if self.is_over() {
            self.background.retain(|background| background.state != State::Waiting);
            self.background.iter_mut().for_each(Background::abort);
        }
        let waiting = self.background.iter().filter(|background| background.state == State::Waiting);
        let waiting: Vec<u32> = waiting.map(|background| background.number).collect();
        for number in waiting {
            self.advance_background(number, now);
        }
        Progress::Idle
    }

    /// A reset or an abort of everything at the unit: they end with the I/O that they are at.
    pub(super) fn abort_background(&mut self, unit: &Rc<LogicalUnit>) {
        self.background.retain(|background| !(background.is_at(unit) && background.state == State::Waiting));
        self.background.iter_mut().filter(|background| background.is_at(unit)).for_each(Background::abort);
    }

    /// True while an aborted one's I/O is under way.
    pub(super) fn is_aborting_background(&self, unit: &Rc<LogicalUnit>) -> bool {
        self.background.iter().any(|background| background.state == State::Aborted && background.is_at(unit))
    }
}
