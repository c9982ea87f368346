//! Resync: copies what the bitmap says from the leg in sync to the other one, in one pass, under range locks
//! (R5). A copy is written durably on its target; what the source has only in its cache stays in the log
//! until a flush, and both legs are flushed before the target counts. What no log has, because it was written while
//! the own leg was out, or over another holder, is flushed on the source before the first copy: a source that loses its cache has
//! everything that was copied, or a mark that says what it may lack.
//!
//! Trouble on the target never touches the front end (I14). The bitmap is the checkpoint: a resync that was
//! cut off goes on where it was.

use bdev::{Completed, Durability, IoError, Op};
use core::time::Duration;
use engine::{Instant, Key, Slots};

use super::journal::FlushFor;
use super::request::{Request, Work};
use super::{Ctx, Holder, Opening, Phase};
use crate::bitmap::ClearedBy;
use crate::decide::is_passing;
use crate::desk::{Purpose, Side};
use crate::events::{BarCause, EventKind};
use crate::format::Reason;
use crate::holder::membership::Membership;
use crate::locks::{Grant, Mode, Owner};
use crate::mutation::{Mutation, is_broken};
use crate::pace::{COPY_MIN, UNDER_WAY_MAX};
use crate::range::ByteRange;

/// Copies under way at a time: the smallest ones, of scattered granules, fill what may be under way.
const COPIES_MAX: u32 = 32;
const _: () = assert!(COPIES_MAX as u64 * COPY_MIN >= UNDER_WAY_MAX);
/// How long to wait for a frame.
const RETRY: Duration = Duration::from_millis(5);

/// Whether the operator lets it run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Throttle {
    /// It runs as fast as the hosts let it.
    Running,
    /// It waits for the operator.
    Paused,
}

#[derive(Debug)]
struct Copying {
    range: ByteRange,
    target: Side,
    attempt: u32,
    began: Instant,
}

/// The cache of the leg that copies are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SourceCache {
    /// It may have what no log has.
    Unflushed,
    /// It is being flushed.
    Flushing { attempt: u32 },
    /// What it has is in the log.
    Flushed,
}

/// What a resync is doing, or did.
#[derive(Debug)]
pub(super) struct Resync {
    copies: Slots<Copying>,
    source: SourceCache,
    cursor: u64,
    pub(super) throttle: Throttle,
    pub(super) progress: Option<Progress>,
    pub(super) last: Option<Progress>,
}

/// Figures of a resync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// When it began.
    pub began: Instant,
    /// When it ended; now, while it runs.
    pub until: Instant,
    /// Bytes that were out of sync when it began.
    pub total: u64,
    /// Bytes copied.
    pub copied: u64,
}

impl Progress {
    /// Bytes per second so far.
    pub fn rate(&self) -> u64 {
        let millis = u64::try_from((self.until - self.began).as_millis()).unwrap_or(u64::MAX).max(1);
        self.copied.saturating_mul(1000) / millis
    }

    /// Time left at that rate, with `left` bytes out of sync; `None` before anything was copied.
    pub fn time_left(&self, left: u64) -> Option<Duration> {
        left.checked_mul(1000)?.checked_div(self.rate()).map(Duration::from_millis)
    }
}

impl Resync {
    pub(super) fn new() -> Self {
        Self {
            copies: Slots::with_capacity(COPIES_MAX),
            source: SourceCache::Unflushed,
            cursor: 0,
            throttle: Throttle::Running,
            progress: None,
            last: None,
        }
    }

    pub(super) fn is_at_work(&self) -> bool {
        self.progress.is_some()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.copies.is_empty()
    }

    fn begin(&mut self, now: Instant, total: u64) {
        if self.progress.is_none() {
            (self.cursor, self.source) = (0, SourceCache::Unflushed);
            self.progress = Some(Progress { began: now, until: now, total, copied: 0 });
        }
    }

    /// It is over: the leg is in sync.
    pub(super) fn finish(&mut self, now: Instant) {
        self.last = self.progress.take().map(|progress| Progress { until: now, ..progress });
    }

    /// It is cut off: the leg went away.
    pub(super) fn cut_off(&mut self) {
        self.progress = None;
    }
}

impl Holder {
    /// Which leg is being copied to.
    fn resync_target(&self) -> Option<Side> {
        match (&self.membership, self.phase) {
            (Membership::Copying, Phase::Serving | Phase::Closing(_) | Phase::Opening(Opening::Peer)) => {
                Some(Side::Peer)
            }
            (Membership::Joined, Phase::Serving | Phase::Closing(_)) => {
                self.copy_target().filter(|target| *target == Side::Own)
            }
            _ => None,
        }
    }

    pub(super) fn drive_resync(&mut self, ctx: &mut Ctx<'_>) {
        let Some(target) = self.resync_target() else { return };
        self.resync.begin(ctx.now(), self.bitmap.set_bytes());
        if self.resync.throttle == Throttle::Paused || matches!(self.phase, Phase::Closing(_)) {
            return;
        }
        if self.bitmap.is_clear() && self.resync.is_idle() {
            if self.change.is_none() && !self.is_state_on_its_way() {
                self.begin_own_flush(FlushFor::Rejoin, ctx);
            }
            return;
        }
        if self.resync.source != SourceCache::Flushed {
            return self.flush_source(target.other(), ctx);
        }
        while !self.resync.copies.is_full() {
            let Some(most) = self.pace.next_copy(ctx.now()) else { return };
            let Some(range) = self.next_run(most, ctx) else { return };
            self.resync.cursor = range.end().div_ceil(1 << self.bitmap.granule_shift());
            let copying = Copying { range, target, attempt: self.attempt, began: ctx.now() };
            let Ok(key) = self.resync.copies.insert(copying) else { return };
            self.pace.on_copy(range.len, ctx.now());
            if self.locks.acquire(Owner::Copy(key), range, Mode::Copy) == Grant::Now {
                self.read_copy(key, ctx);
                // Somebody else has taken the last frame meanwhile.
                if self.resync.copies.get(key).is_none() {
                    return;
                }
            }
        }
    }

    /// Begins the flush, unless the source still has a write that it may put into its cache behind it, and that no log has: all
    /// later ones are in the log.
    fn flush_source(&mut self, source: Side, ctx: &mut Ctx<'_>) {
        let escapes =
            |request: &Request| matches!(&request.work, Work::Write(write) if write.escapes_the_log(source));
        if self.resync.source != SourceCache::Unflushed || self.requests.iter().any(|(_, r)| escapes(r)) {
            return;
        }
        let attempt = ctx.desk.new_attempt();
        self.resync.source = SourceCache::Flushing { attempt };
        ctx.desk.flush(source, Purpose::SourceFlush { attempt });
    }

    pub(super) fn on_source_flushed(
        &mut self,
        source: Side,
        attempt: u32,
        result: Result<(), IoError>,
        ctx: &mut Ctx<'_>,
    ) {
        if let Err(error) = result {
            self.unasked_flush_failed(source, error, ctx);
        }
        let due = self.resync.source == SourceCache::Flushing { attempt };
        if !due || self.resync_target() != Some(source.other()) {
            return;
        }
        match result {
            Ok(()) => self.resync.source = SourceCache::Flushed,
            Err(error) => {
                self.resync.source = SourceCache::Unflushed;
                self.source_failed(source, ByteRange::new(0, 0), error, ctx);
            }
        }
    }

    /// The next stretch to copy, of so many bytes at the most, or as frames are left: from the cursor on, and from the
    /// start again once all behind it is done.
    fn next_run(&mut self, most: u64, ctx: &Ctx<'_>) -> Option<ByteRange> {
        let has_frame = |bytes: &u64| ctx.desk.frame(usize::try_from(*bytes).expect("fits")).is_some();
        let most = [most, COPY_MIN].into_iter().find(has_frame)?;
        let run = self.bitmap.next_run(self.resync.cursor, most);
        if run.is_none() && self.resync.is_idle() {
            self.resync.cursor = 0;
            return self.bitmap.next_run(0, most);
        }
        run
    }

    /// The range is ours: read it from the source.
    pub(super) fn read_copy(&mut self, key: Key, ctx: &mut Ctx<'_>) {
        let Some(copying) = self.resync.copies.get(key) else { return };
        let (range, source) = (copying.range, copying.target.other());
        let place = self.on_leg(source, range);
        let Some(frame) = ctx.desk.frame(usize::try_from(range.len).expect("a copy fits in a frame")) else {
            return self.end_copy(key, ctx);
        };
        ctx.desk.read(source, place, frame, Purpose::CopyRead(key));
    }

    pub(super) fn on_copy_read(&mut self, key: Key, completed: Completed, ctx: &mut Ctx<'_>) {
        let Some(copying) = self.resync.copies.get(key) else { return };
        let (range, target, attempt) = (copying.range, copying.target, copying.attempt);
        // What an older copy meets says nothing about this one.
        if attempt != self.attempt || self.resync_target() != Some(target) {
            return self.end_copy(key, ctx);
        }
        if let Err(error) = completed.result {
            self.end_copy(key, ctx);
            return self.source_failed(target.other(), range, error, ctx);
        }
        let Op::Read { into, .. } = completed.op else { return self.end_copy(key, ctx) };
        if is_broken(Mutation::R5ClearBeforeCopy) {
            self.bitmap.clear(range, ClearedBy::CopiedAndFlushed);
        }
        if target == Side::Peer {
            self.owe_mark(ctx);
        }
        let place = self.on_leg(target, range);
        ctx.desk.write(target, place.start, into.freeze(), Durability::Durable, Purpose::CopyWrite(key));
    }

    pub(super) fn on_copy_written(&mut self, key: Key, result: Result<(), IoError>, ctx: &mut Ctx<'_>) {
        let Some(copying) = self.resync.copies.get(key) else { return };
        let (range, target, current) = (copying.range, copying.target, copying.attempt == self.attempt);
        if result.is_ok() {
            self.pace.on_copied(range.len, ctx.now().saturating_since(copying.began));
        }
        self.end_copy(key, ctx);
        match result {
            // A copy to a leg that went away since may be a copy to another leg than the one that is there now.
            Ok(()) if current => {
                self.bitmap.clear(range, ClearedBy::CopiedAndFlushed);
                if let Some(progress) = &mut self.resync.progress {
                    progress.copied += range.len;
                    progress.until = ctx.now();
                }
            }
            Ok(()) => {}
            Err(error) if current => self.leg_failed(target, error, ctx),
            Err(_) => {}
        }
    }

    /// The source cannot be read here: the target cannot be brought in sync now.
    pub(super) fn source_failed(
        &mut self,
        source: Side,
        range: ByteRange,
        error: IoError,
        ctx: &mut Ctx<'_>,
    ) {
        match source {
            Side::Peer if is_passing(error) => self.lose_peer(error, ctx),
            Side::Peer => {
                ctx.note(EventKind::ResyncStopped { at: range.start, error });
                self.own_leg_failed(Reason::IoError, error, ctx);
            }
            Side::Own => {
                ctx.note(EventKind::ResyncStopped { at: range.start, error });
                self.bar_peer(BarCause::SourceFailed, ctx);
            }
        }
    }

    fn end_copy(&mut self, key: Key, ctx: &Ctx<'_>) {
        if let Some(copying) = self.resync.copies.remove(key) {
            self.pace.on_copy_over(copying.range.len, ctx.now());
        }
        self.release(Owner::Copy(key));
    }

    /// When to look again whether a copy may begin.
    pub(super) fn resync_deadline(&self, now: Instant) -> Option<Instant> {
        self.resync.is_at_work().then(|| self.pace.next_try(now).unwrap_or(now + RETRY))
    }
}
