//! The holder: the node that runs the mirror. What happens to a write is in `write.rs`; what happens when the
//! peer dies with writes in flight is in `change.rs` (the config without it) and `write.rs` (what waited for
//! it); how it comes back is in `membership/` and `resync.rs`.
//!
//! Owner: the node. Pure: events in, I/Os out through the desk. Rules: R1-R5, R7, R8, R12; I1, I2, I4-I6,
//! I12-I14, I18, I21.
//!
//! ```text
//! Opening --(config durable, peer settled)--> Serving --(stop)--> Closing --(clean)--> Ended(Clean)
//!    '------------(a newer generation)-----------'---------------------> Leaving ----> Ended(Superseded)
//! ```

mod caching;
pub(crate) mod change;
mod flush;
mod journal;
mod marks;
pub(crate) mod membership;
mod operator;
mod own_leg;
mod patience;
mod read;
mod request;
pub mod resync;
mod split;
mod state;
mod stop;
mod unit_state;
pub(crate) mod write;

use std::collections::VecDeque;

use bdev::hop::ClientId;
use bdev::{Completed, Geometry, Io, IoError, Link, NotReady};
use engine::{Instant, Key, Prng, Slots};

use crate::arbiter::Ballot;
use crate::bitmap::Bitmap;
use crate::decide::{FullReason, Standing, Starting, SyncPlan, begins_from};
use crate::desk::{Desk, Purpose, Side};
use crate::events::{EventKind, Events};
use crate::format::{ArbiterKind, Config, ConfigId, Layout, LegIndex, LegMask, Reason, UnitState};
use crate::intent_log::IntentLog;
use crate::locks::{Owner, RangeLocks};
use crate::pace::{Asked, Pace};
use crate::range::ByteRange;
use crate::setup::Setup;
use crate::store::Store;
use change::Change;
use journal::Journal;
use membership::{Membership, Outstanding, PeerLeg};
pub(crate) use own_leg::Hung;
use own_leg::{OwnLeg, Pauses};
use patience::Waiting;
use request::Request;
use resync::Resync;
use unit_state::Unit;

pub(crate) use crate::decide::Doubt;
pub(crate) use crate::truth::Truth;
pub(crate) use request::REQUESTS_MAX;
pub use state::Counters;
pub(crate) use state::{Body, Ending, Farewell, Freeze, Opening, Phase, Sides};

/// What the holder is given to work with at each event.
pub(crate) struct Ctx<'a> {
    pub(crate) desk: &'a mut Desk,
    pub(crate) own: &'a mut Store,
    pub(crate) front: &'a mut VecDeque<(ClientId, Completed)>,
    pub(crate) prng: &'a mut Prng,
    pub(crate) events: &'a mut Events,
    pub(crate) ballot: &'a mut Ballot,
    pub(crate) setup: &'a Setup,
    pub(crate) link: &'a Link,
}

impl Ctx<'_> {
    pub(crate) fn now(&self) -> Instant {
        self.desk.now
    }

    pub(crate) fn note(&mut self, kind: EventKind) {
        self.events.note(self.desk.now, kind);
    }
}

/// See the module.
pub(crate) struct Holder {
    who: LegIndex,
    arbiter: ArbiterKind,
    /// What the arbiter holds, as far as this node knows.
    arbiter_has: Option<ConfigId>,
    layout: Layout,
    phase: Phase,
    /// What a [`Phase::Closing`] is for.
    farewell: Farewell,
    truth: Truth,
    change: Option<Change>,
    /// A config that its peer, or the arbiter, may have heard of though it never took effect here.
    suspended: Option<Change>,
    retry_change_at: Option<Instant>,
    freeze: Freeze,
    membership: Membership,
    peer: Option<PeerLeg>,
    /// Numbers the ways to the peer's leg: what an older one sends back is not believed.
    attempt: u32,
    session: Option<u64>,
    peer_size: u64,
    next_probe: Instant,
    /// Since when a leg that the config counts is away, and why.
    lost_since: Option<Instant>,
    lost_reason: Reason,
    /// What is known of a peer's leg that has diverged.
    split: split::Split,
    own_failure: Option<Reason>,
    /// A flush of the own leg failed with it while the peer's counts, too (`flush.rs`).
    own_lost: Option<IoError>,
    own_leg: OwnLeg,
    own_pauses: Pauses,
    doubt: Doubt,
    emptying: Outstanding,
    log: IntentLog,
    bitmap: Bitmap,
    locks: RangeLocks,
    granted: VecDeque<Owner>,
    requests: Slots<Request>,
    /// Writes that wait until the superblocks say that acknowledged data may be in caches.
    uncached: Vec<Key>,
    /// Writes that wait for a slot of the log, oldest first.
    admitting: VecDeque<Key>,
    /// Writes that wait for a transaction.
    logging: Vec<Key>,
    /// Requests that a leg failed.
    waiting: Waiting,
    /// Reads and answers that wait for the lease.
    unleased: Vec<Key>,
    lease_until: Instant,
    next_heartbeat: Instant,
    /// When the superblocks are to be numbered anew.
    mark_at: Option<Instant>,
    journal: Journal,
    /// The error of a flush that no host has asked for, until one flushes.
    untold: Option<IoError>,
    resync: Resync,
    unit: Unit,
    /// The generation in which this holder began.
    opened_in: u64,
    pace: Pace,
    counters: Counters,
}

/// What a new holder begins with.
pub(crate) struct Inheritance {
    /// What this node's own log and bitmap say.
    pub(crate) log: IntentLog,
    pub(crate) bitmap: Bitmap,
    pub(crate) starting: Starting,
    pub(crate) reason: Reason,
    /// The least generation to take.
    pub(crate) generation: u64,
    /// What the arbiter's config is to the own superblock's.
    pub(crate) standing: Standing,
    /// What the arbiter holds.
    pub(crate) arbiter_has: Option<ConfigId>,
    /// The logical unit's state on this node's leg.
    pub(crate) unit: UnitState,
}

impl Holder {
    /// Begins with a new generation (R11), which is on its way to the own leg when this returns.
    pub(crate) fn begin(inheritance: Inheritance, ctx: &mut Ctx<'_>) -> Self {
        let Inheritance { log, mut bitmap, starting, reason, generation, standing, unit, .. } = inheritance;
        let own = begins_from(ctx.own.current(), &standing, reason);
        if own.config() != ctx.own.current().config() {
            ctx.note(EventKind::ConfigAdopted(*own.config()));
        }
        // What is on a leg that does not count, or that was set back, is a thing of the past.
        let past = match starting {
            Starting::FromPeer(SyncPlan::Full(FullReason::Reverted)) => true,
            Starting::FromPeer(_) => !own.is_in_sync(),
            Starting::Both | Starting::Resync(_) | Starting::Alone => false,
        };
        let unit = if past { UnitState::lost() } else { unit };
        let unit = Unit::new(unit, own.config());
        if let Starting::FromPeer(SyncPlan::Full(why)) = starting {
            ctx.note(EventKind::OwnFullCopy(why));
            bitmap.set_all();
        }
        let mut holder = Self {
            who: own.index,
            arbiter: own.arbiter,
            arbiter_has: inheritance.arbiter_has,
            layout: own.layout,
            phase: Phase::Opening(Opening::Config),
            farewell: Farewell::Stop,
            truth: Truth::of(&own),
            change: None,
            suspended: None,
            retry_change_at: None,
            freeze: Freeze::Flowing,
            membership: Membership::Away,
            peer: None,
            attempt: ctx.desk.new_attempt(),
            session: None,
            peer_size: 0,
            next_probe: Instant::EPOCH,
            lost_since: None,
            lost_reason: Reason::LinkLost,
            split: split::Split::None,
            own_failure: None,
            own_lost: None,
            own_leg: OwnLeg::Counted,
            own_pauses: Pauses::default(),
            doubt: Doubt::None,
            emptying: Outstanding::No,
            log,
            bitmap,
            locks: RangeLocks::default(),
            granted: VecDeque::new(),
            requests: Slots::with_capacity(REQUESTS_MAX),
            uncached: Vec::new(),
            admitting: VecDeque::new(),
            logging: Vec::new(),
            waiting: Waiting::default(),
            unleased: Vec::new(),
            lease_until: Instant::EPOCH,
            next_heartbeat: Instant::EPOCH,
            mark_at: None,
            journal: Journal::default(),
            untold: None,
            resync: Resync::new(),
            unit,
            opened_in: 0,
            pace: Pace::default(),
            counters: Counters::default(),
        };
        holder.open(starting, reason, generation, ctx);
        holder
    }

    // --- Facts ---

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// The generation in which it began to serve.
    pub(crate) fn opened_in(&self) -> u64 {
        self.opened_in
    }

    pub(crate) fn truth(&self) -> &Truth {
        &self.truth
    }

    pub(crate) fn config(&self) -> &Config {
        self.truth.config()
    }

    fn leg(&self, side: Side) -> LegIndex {
        match side {
            Side::Own => self.who,
            Side::Peer => self.who.other(),
        }
    }

    /// The legs that the config counts.
    fn in_sync(&self) -> Sides {
        self.sides(self.config().in_sync)
    }

    fn sides(&self, mask: LegMask) -> Sides {
        let side = |side| if mask.has(self.leg(side)) { Sides::only(side) } else { Sides::empty() };
        side(Side::Own) | side(Side::Peer)
    }

    fn is_both(&self) -> bool {
        self.in_sync() == Sides::all()
    }

    fn data_offset(&self, side: Side) -> u64 {
        match (side, &self.peer) {
            (Side::Peer, Some(peer)) => peer.store.current().layout.data_offset,
            (Side::Own | Side::Peer, _) => self.layout.data_offset,
        }
    }

    /// A stretch of the data area as bytes of a leg.
    fn on_leg(&self, side: Side, range: ByteRange) -> ByteRange {
        ByteRange::new(self.data_offset(side) + range.start, range.len)
    }

    pub(crate) fn geometry(&self) -> Geometry {
        let Layout { block_size, data_size, .. } = self.layout;
        Geometry {
            block_size,
            physical_block_size: 4096.max(block_size),
            blocks: data_size / u64::from(block_size),
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        !self.requests.is_full()
    }

    // --- Events ---

    /// An I/O of a host.
    pub(crate) fn on_front(&mut self, client: ClientId, io: Io, ctx: &mut Ctx<'_>) {
        let now = ctx.now();
        let refusal = match self.phase {
            Phase::Serving => io.op().check(self.geometry()).err(),
            Phase::Opening(_) => Some(IoError::NotReady(NotReady::Starting)),
            Phase::Closing(_) | Phase::Leaving(_) | Phase::Ended(_) => {
                Some(IoError::NotReady(NotReady::Moving))
            }
        };
        if let Some(error) = refusal {
            return ctx.front.push_back((client, io.complete(Err(error), now)));
        }
        self.accept(client, io, ctx);
        self.settle(ctx);
    }

    /// An I/O on a leg came back.
    pub(crate) fn on_completed(
        &mut self,
        side: Side,
        purpose: Purpose,
        completed: Completed,
        ctx: &mut Ctx<'_>,
    ) {
        match purpose {
            Purpose::Request(key) => self.on_request_done(key, side, completed, ctx),
            Purpose::Transaction { seq } => self.on_transaction(seq, completed.result, ctx),
            Purpose::Page { page } => self.on_page(page, completed.result, ctx),
            Purpose::Flush => self.on_flushed(side, completed.result, ctx),
            Purpose::ChangeFlush { attempt } => self.on_change_flushed(side, attempt, completed.result, ctx),
            Purpose::SourceFlush { attempt } => self.on_source_flushed(side, attempt, completed.result, ctx),
            Purpose::CopyRead(key) => self.on_copy_read(key, completed, ctx),
            Purpose::CopyWrite(key) => self.on_copy_written(key, completed.result, ctx),
            Purpose::Superblock { attempt } => self.on_superblock(side, attempt, completed.result, ctx),
            Purpose::UnitState { delivery } => {
                self.on_state_copied(side, delivery, completed.result, ctx);
            }
            Purpose::Read { .. }
            | Purpose::Fence { .. }
            | Purpose::Emptying { .. }
            | Purpose::Heartbeat { .. } => {
                self.on_membership(purpose, &completed, ctx);
                ctx.desk.give_back(completed);
            }
            Purpose::Guarded { .. }
            | Purpose::Format
            | Purpose::FirstFlush
            | Purpose::LastFlush
            | Purpose::GivenUp => {}
        }
        self.settle(ctx);
    }

    /// Time passed, or the link changed.
    pub(crate) fn on_tick(&mut self, ctx: &mut Ctx<'_>) {
        let asked = if self.requests.is_empty() { Asked::Nothing } else { Asked::Something };
        self.pace.on_time(asked, ctx.now());
        self.watch_link(ctx);
        self.settle(ctx);
    }

    /// Does everything that the last event made possible, in a fixed order.
    pub(super) fn settle(&mut self, ctx: &mut Ctx<'_>) {
        self.run_granted(ctx);
        self.drive_change(ctx);
        self.drive_caching(ctx);
        self.drive_marks(ctx);
        self.drive_membership(ctx);
        self.drive_leases(ctx);
        self.drive_patience(ctx);
        self.drive_own_leg(ctx);
        self.drive_resync(ctx);
        self.drive_journal(ctx);
        self.drive_errands(ctx);
        self.run_granted(ctx);
        self.drive_phase(ctx);
    }

    /// The phase moves on when what it waits for is there.
    fn drive_phase(&mut self, ctx: &mut Ctx<'_>) {
        match self.phase {
            Phase::Opening(Opening::Peer) if self.is_settled() => self.serve(ctx),
            // Only the peer's leg counts, and it is not there.
            Phase::Opening(Opening::Peer)
                if self.in_sync() == Sides::PEER
                    && self.peer_to_drop(ctx).is_some()
                    && self.change.is_none() =>
            {
                ctx.note(EventKind::Orphaned);
                self.leave(Ending::Orphaned, ctx);
            }
            Phase::Closing(_) => self.drive_closing(ctx),
            Phase::Leaving(ending) => self.drive_leaving(ending, ctx),
            Phase::Opening(_) | Phase::Serving | Phase::Ended(_) => {}
        }
    }

    fn is_settled(&self) -> bool {
        matches!(self.membership, Membership::Joined) || !self.in_sync().has(Side::Peer)
    }

    fn serve(&mut self, ctx: &mut Ctx<'_>) {
        self.phase = Phase::Serving;
        self.opened_in = self.config().generation();
        ctx.note(EventKind::Serving { generation: self.config().generation() });
    }

    /// A newer generation is at work: acknowledge nothing more.
    pub(crate) fn step_down(&mut self, ctx: &mut Ctx<'_>) {
        if !matches!(self.phase, Phase::Leaving(_) | Phase::Ended(_)) {
            ctx.note(EventKind::SteppingDown);
            ctx.ballot.forget();
            self.change = None;
            self.phase = Phase::Leaving(Ending::Superseded);
        }
    }

    fn drive_leaving(&mut self, ending: Ending, ctx: &mut Ctx<'_>) {
        self.abandon_requests(ctx);
        let quiet = self.requests.is_empty() && ctx.desk.own_in_flight() == 0 && !ctx.own.is_busy();
        // Whoever comes after this holder may be the next one on this node: nothing of the old one is left for it, whose answer
        // could pass for one to the new one.
        if quiet && ctx.desk.in_flight(Side::Peer) == 0 {
            self.phase = Phase::Ended(ending);
        }
    }

    /// When to be called at the latest.
    pub(crate) fn next_deadline(&self, ctx_link: &Link, setup: &Setup, now: Instant) -> Option<Instant> {
        let mut next = self.membership_deadline(ctx_link, setup, now);
        next = Instant::earliest(next, self.retry_change_at);
        if let (Phase::Closing(_), Farewell::HandOver { until }) = (self.phase, self.farewell) {
            next = Instant::earliest(next, Some(until));
        }
        next = Instant::earliest(next, self.patience_deadline(setup));
        next = Instant::earliest(next, self.own_leg_deadline(now));
        next = Instant::earliest(next, self.mark_deadline());
        next = Instant::earliest(next, self.errand_deadline(now));
        Instant::earliest(next, self.resync_deadline(now))
    }
}
