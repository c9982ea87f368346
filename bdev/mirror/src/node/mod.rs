//! One node of an array: the pure core that production and the simulator run alike.
//!
//! Events go in ([`Node::on_front`], [`Node::on_guarded`], [`Node::on_completed`], [`Node::on_link`],
//! [`Node::on_tick`], [`Node::command`]); I/Os and answers come out ([`Node::next_out`],
//! [`Node::next_front_reply`], [`Node::next_guard_reply`]). No socket, file, clock, thread or random source is
//! inside.
//!
//! ```text
//! Booting --+--> Standby --(promote)--> Promoting --> Holder --(stop)--> Stopped
//!           |       ^------------(a newer fence)--------'
//!           +--> Holding --(peer seen, policy or command)--> Holder
//!           '--> Failed
//! from everywhere but Failed --(stop)--> Ending --(own leg flushed)--> Stopped
//! ```

mod access;
mod boot;
mod claim;
mod ending;
mod guarded;
mod hold;
mod own_disk;
mod promote;
mod takeover;

use std::collections::VecDeque;

use bdev::hop::ClientId;
use bdev::{Completed, FenceKey, Geometry, Io, IoError, Link, LinkDown, NotReady};
use core::time::Duration;
use engine::{Instant, Pool, Prng};

use crate::arbiter::{Answer, Ballot};
use crate::command::{Command, Refusal};
use crate::decide::{
    self, DataAge, DegradedStart, HoldReason, HolderSession, HolderState, PromoteMode, PromoteRefusal,
    Promotion, StandbyReason, Standing,
};
use crate::desk::{Desk, Purpose, Side};
use crate::events::{Event, EventKind, Events};
use crate::format::{Config, History, RunState, Superblock, UnitState, UnitStateHealth};
use crate::guard::{Guard, Replies};
use crate::holder::{Ctx, Ending, Holder, Phase};
use crate::reader::unit_state;
use crate::setup::Setup;
use crate::status::{PeerSight, RoleKind, Status};
use crate::store::{Store, Stored};
pub use access::TRANSITION_MAX;
use access::Ways;
use boot::Boot;
use ending::Last;
use hold::{Hold, StartCause};
use own_disk::DiskWatch;
use promote::Promoting;
use takeover::{Wanted, Watch};

/// What a node is doing for its array.
enum Role {
    /// Finding out what is on its own leg.
    Booting(Boot),
    /// Consistent-hold.
    Holding(Box<Hold>),
    /// The peer serves, or would.
    Standby(StandbyReason),
    /// Becoming the holder.
    Promoting(Box<Promoting>),
    /// The holder.
    Holder(Box<Holder>),
    /// Told to stop.
    Ending(Last),
    /// Stopped in order, or had nothing to stop.
    Stopped,
    /// The own leg cannot be used, in words.
    Failed(String),
}

/// Why the own superblock is being written, outside the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnWrite {
    /// The boot id.
    Incarnation,
    /// A fence of the peer.
    Fence(FenceKey),
    /// The fence of a promotion.
    Promotion(FenceKey),
    /// The generation that the peer's leg is about to be fenced with, before this node serves.
    Claim(FenceKey),
}

/// Whether the node is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    On,
    Stopping,
}

/// How long a peer that was given the array gets before this node wonders where it is.
const PEER_TAKES_UP: core::time::Duration = core::time::Duration::from_secs(2);

/// How long a standby that is told to stop waits for a holder that is at work, so that both can be told at once.
const LINGER: Duration = Duration::from_secs(2);

/// See the module.
pub struct Node {
    setup: Setup,
    own_geometry: Geometry,
    desk: Desk,
    store: Option<Store>,
    guard: Option<Guard>,
    role: Role,
    own_write: Option<OwnWrite>,
    prng: Prng,
    events: Events,
    link: Link,
    front: VecDeque<(ClientId, Completed)>,
    guarded: Replies,
    began: Instant,
    degraded: DegradedStart,
    run: Run,
    /// How long a standby that was told to stop waits for its holder.
    linger_until: Option<Instant>,
    ballot: Ballot,
    watch: Watch,
    /// Until it is taken up.
    cause: StartCause,
    /// The logical unit's state, as the own leg had it when it was last read as a whole.
    unit: UnitState,
    /// What hosts were told of the ways to the volume.
    told: Ways,
    disk: DiskWatch,
}

impl Node {
    /// A node that begins to read its own leg. `pool` is where metadata and copies get their frames.
    pub fn new(setup: Setup, own: Geometry, pool: Pool, now: Instant) -> Self {
        let mut desk = Desk::new(pool, own, setup.timing.io_timeout);
        desk.now = now;
        let prng = Prng::from_seed(setup.seed);
        let mut node = Self {
            own_geometry: own,
            desk,
            store: None,
            guard: None,
            role: Role::Stopped,
            own_write: None,
            prng,
            events: Events::default(),
            link: Link::Down(LinkDown::Connecting),
            front: VecDeque::new(),
            guarded: VecDeque::new(),
            began: now,
            degraded: DegradedStart::Withheld,
            run: Run::On,
            linger_until: None,
            ballot: Ballot::new(),
            watch: Watch::default(),
            cause: StartCause::Again,
            unit: UnitState::lost(),
            told: Ways::default(),
            disk: DiskWatch::default(),
            setup,
        };
        node.begin_boot();
        node
    }

    // --- Events ---

    /// True while an I/O of a host can be taken.
    pub fn has_front_room(&self) -> bool {
        let holder = match &self.role {
            Role::Holder(holder) => holder.has_room(),
            _ => true,
        };
        holder && self.desk.has_room()
    }

    /// True while an I/O of the peer can be taken.
    pub fn has_guard_room(&self) -> bool {
        self.desk.has_room()
    }

    /// An I/O of a host.
    pub fn on_front(&mut self, client: ClientId, io: Io, now: Instant) {
        self.desk.now = now;
        let why = match &self.role {
            Role::Holder(_) => return self.with_holder(|holder, ctx| holder.on_front(client, io, ctx)),
            Role::Standby(_) => NotReady::Standby,
            Role::Booting(_)
            | Role::Holding(_)
            | Role::Promoting(_)
            | Role::Ending(_)
            | Role::Stopped
            | Role::Failed(_) => NotReady::Starting,
        };
        self.front.push_back((client, io.complete(Err(IoError::NotReady(why)), now)));
    }

    /// An I/O on a leg came back.
    pub fn on_completed(&mut self, completed: Completed, now: Instant) {
        self.desk.now = now;
        let (side, purpose, completed) = self.desk.settle(completed);
        self.on_answer(side, purpose, completed);
    }

    /// An I/O has ended for the core.
    fn on_answer(&mut self, side: Side, purpose: Purpose, completed: Completed) {
        match purpose {
            Purpose::GivenUp => {}
            Purpose::Guarded { client, tag } => self.on_guarded_done(client, tag, completed),
            Purpose::Format => self.on_formatted(completed.result),
            Purpose::FirstFlush => self.on_first_flush(completed.result),
            Purpose::LastFlush => self.on_last_flush(completed.result),
            Purpose::Superblock { .. } if side == Side::Own && self.own_write.is_some() => {
                self.on_own_superblock(completed.result);
            }
            Purpose::Read { job } if !matches!(self.role, Role::Holder(_)) => {
                self.on_read(side, job, &completed);
                self.desk.give_back(completed);
            }
            _ if matches!(self.role, Role::Holder(_)) => {
                self.with_holder(|holder, ctx| holder.on_completed(side, purpose, completed, ctx));
            }
            Purpose::Fence { attempt } => self.on_claim_answered(attempt, completed.result),
            // What a holder that is no more had sent.
            _ => {}
        }
        self.settle();
    }

    /// What the peer's channel says of its link.
    pub fn on_link(&mut self, link: Link, now: Instant) {
        self.desk.now = now;
        self.link = link;
    }

    /// Time passed.
    pub fn on_tick(&mut self, now: Instant) {
        self.desk.now = now;
        self.watch_own_disk();
        self.drive_ballot();
        if let (Some(store), Some(_)) = (&mut self.store, self.own_write) {
            // It may have had no frame before.
            store.poke(&mut self.desk);
        }
        match &mut self.role {
            Role::Booting(_) => self.drive_boot(),
            Role::Holding(_) => self.drive_hold(),
            Role::Promoting(_) => self.drive_promotion(),
            Role::Holder(_) => self.with_holder(|holder, ctx| holder.on_tick(ctx)),
            Role::Standby(_) if self.run == Run::Stopping => self.drive_lingering(),
            Role::Standby(_) => {
                self.drive_standby();
                self.hold_again();
            }
            Role::Ending(_) | Role::Stopped | Role::Failed(_) => {}
        }
        self.settle();
        self.watch_ways();
    }

    /// When [`Node::on_tick`] has to be called at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        Instant::earliest(self.role_deadline(), self.disk_deadline())
    }

    fn role_deadline(&self) -> Option<Instant> {
        match &self.role {
            Role::Holding(_) if self.is_taking_up() => {
                Some(self.desk.now + core::time::Duration::from_millis(2))
            }
            Role::Booting(_) | Role::Holding(_) | Role::Promoting(_) | Role::Ending(_) => {
                Some(self.desk.now + Duration::from_millis(20))
            }
            Role::Holder(holder) => Instant::earliest(
                holder.next_deadline(&self.link, &self.setup, self.desk.now),
                self.ballot.next_deadline(self.desk.now),
            ),
            Role::Standby(_) if self.is_arbitrated() || self.run == Run::Stopping => {
                Some(self.desk.now + Duration::from_millis(20))
            }
            Role::Standby(_) => self.told.next_deadline(),
            Role::Stopped | Role::Failed(_) => None,
        }
    }

    // --- What comes out ---

    /// The next I/O for a leg's channel.
    pub fn next_out(&mut self) -> Option<(Side, Io)> {
        self.desk.next_out()
    }

    /// The next answer for a host.
    pub fn next_front_reply(&mut self) -> Option<(ClientId, Completed)> {
        self.front.pop_front()
    }

    /// The next event for the log.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.next_out()
    }

    /// The next answer for the peer.
    pub fn next_guard_reply(&mut self) -> Option<(ClientId, Completed)> {
        self.guarded.pop_front()
    }

    /// The volume's size, once a leg is known.
    pub fn volume(&self) -> Option<Geometry> {
        let layout = self.store.as_ref()?.current().layout;
        let block_size = layout.block_size;
        Some(Geometry { block_size, physical_block_size: 4096, blocks: layout.blocks() })
    }

    /// True once the own leg can be shown to the peer.
    pub fn guards(&self) -> bool {
        self.guard.is_some()
    }

    // --- The operator ---

    /// A command of the operator.
    ///
    /// # Errors
    /// [`Refusal`], in words; nothing has happened then.
    pub fn command(&mut self, command: Command, now: Instant) -> Result<(), Refusal> {
        self.desk.now = now;
        let result = match (command, &mut self.role) {
            (_, Role::Failed(_)) => Err(Refusal::NoLeg),
            (Command::Promote { .. }, Role::Holder(_)) => {
                Err(Refusal::Promote(PromoteRefusal::AlreadyHolder))
            }
            (Command::Promote { mode, holder }, Role::Standby(_) | Role::Holding(_)) => {
                self.promote(mode, holder)
            }
            (Command::Promote { .. }, _) => Err(Refusal::Busy),
            (Command::Demote(how), Role::Holder(_)) => {
                self.with_holder(|holder, ctx| holder.demote(how, ctx))
            }
            (Command::Demote(_), Role::Standby(_) | Role::Holding(_) | Role::Promoting(_)) => {
                self.stand_aside();
                Ok(())
            }
            (Command::Demote(_), _) => Err(Refusal::Busy),
            (Command::Switchover, Role::Holder(_)) => self.with_holder(|holder, ctx| holder.hand_over(ctx)),
            (Command::StartDegraded, Role::Holding(_)) => self.start_degraded(),
            (Command::StartDegraded, Role::Booting(_)) => Err(Refusal::Busy),
            (Command::StartDegraded, _) => Err(Refusal::NotHolding),
            (Command::Degrade, Role::Holder(_)) => {
                self.with_holder(|holder, ctx| holder.degrade_by_hand(ctx))
            }
            (Command::Resync(throttle), Role::Holder(_)) => {
                self.with_holder(|holder, ctx| holder.throttle(throttle, ctx));
                Ok(())
            }
            (Command::ResolveSplit { theirs, how }, Role::Holder(_)) => {
                self.with_holder(|holder, ctx| holder.resolve_split(theirs, how, ctx))
            }
            (
                Command::Degrade | Command::Resync(_) | Command::Switchover | Command::ResolveSplit { .. },
                _,
            ) => Err(Refusal::NotHolder),
        };
        self.on_tick(now);
        result
    }

    /// Begins to stop in order.
    pub fn stop(&mut self, now: Instant) {
        self.desk.now = now;
        if self.run == Run::Stopping {
            return;
        }
        self.run = Run::Stopping;
        self.note(EventKind::Stopping);
        if !matches!(self.role, Role::Holder(_)) {
            self.ballot.forget();
        }
        match self.role {
            Role::Holder(_) => self.with_holder(|holder, ctx| holder.close(ctx)),
            // Its holder may be stopping as well, and has yet to say so on this leg (R12).
            Role::Standby(_) if self.holder_session() == HolderSession::Alive => {
                self.linger_until = Some(now + LINGER);
            }
            // Nothing of it can be used.
            Role::Failed(_) => self.stopped(),
            _ => self.end(),
        }
        self.settle();
    }

    /// A standby that was told to stop does when its holder has, or does not, or time is up.
    fn drive_lingering(&mut self) {
        let Some(until) = self.linger_until else { return };
        if !matches!(self.role, Role::Standby(_)) || self.own_write.is_some() {
            return;
        }
        if self.desk.now >= until || self.holder_session() == HolderSession::Absent {
            self.end();
        }
    }

    /// The node ends here and now, as if it had crashed: fences of the peer are answered "not ready".
    pub(crate) fn abandon(&mut self) {
        if let Some(guard) = &mut self.guard {
            guard.close(self.desk.now, &mut self.guarded);
        }
    }

    /// True once nothing of this node is on its way.
    pub fn is_stopped(&self) -> bool {
        matches!(self.role, Role::Stopped | Role::Failed(_))
            && self.desk.in_flight(Side::Own) == 0
            && self.own_write.is_none()
    }

    /// What an operator sees.
    pub fn status(&self) -> Status {
        let superblock = self.store.as_ref().map(Store::current);
        let (role, reason) = self.role_in_words();
        let mut status = Status {
            role,
            reason,
            config: superblock.map(|superblock| *superblock.config()),
            legs: superblock.map(|superblock| superblock.legs),
            arbiter: superblock.map(|superblock| superblock.arbiter),
            own: self.setup.who.index(),
            data_size: superblock.map_or(0, |superblock| superblock.layout.data_size),
            data_offset: superblock.map_or(0, |superblock| superblock.layout.data_offset),
            peer: None,
            log: None,
            dirty_bytes: 0,
            resync: None,
            last_resync: None,
            throttle: crate::holder::resync::Throttle::Running,
            counters: crate::holder::Counters::default(),
            events: self.events.all().cloned().collect(),
            now: self.desk.now,
            access: self.access().state(),
        };
        if let Role::Holder(holder) = &self.role {
            holder.report(&mut status);
        }
        if let (Some(peer), Link::Down(why)) = (&mut status.peer, &self.link)
            && peer.sight == PeerSight::Unreachable
        {
            peer.cause = Some(why.to_string());
        }
        status
    }

    fn role_in_words(&self) -> (RoleKind, Option<String>) {
        match &self.role {
            Role::Booting(boot) => (RoleKind::Starting, Some(boot.words().to_owned())),
            Role::Holding(hold) => (RoleKind::Holding, hold.reason.as_ref().map(HoldReason::to_string)),
            Role::Standby(_) if self.run == Run::Stopping => (RoleKind::Stopping, None),
            Role::Standby(reason) => (RoleKind::Standby, Some(reason.to_string())),
            Role::Promoting(_) => (RoleKind::Promoting, None),
            Role::Holder(_) => (RoleKind::Holder, None),
            Role::Ending(_) => (RoleKind::Stopping, None),
            Role::Stopped => (RoleKind::Stopped, None),
            Role::Failed(why) => (RoleKind::Failed, Some(why.clone())),
        }
    }

    /// Whether a promotion would go ahead now, as far as this node can tell.
    ///
    /// # Errors
    /// Why it would not.
    pub fn may_promote(&self, mode: PromoteMode, holder: HolderState) -> Result<Promotion, Refusal> {
        match &self.role {
            Role::Failed(_) => Err(Refusal::NoLeg),
            Role::Holder(_) => Err(Refusal::Promote(PromoteRefusal::AlreadyHolder)),
            Role::Booting(_) | Role::Promoting(_) | Role::Ending(_) | Role::Stopped => Err(Refusal::Busy),
            Role::Standby(_) if self.resumes_now(mode) => {
                let generation = crate::decide::next_generation(self.own(), None);
                Ok(Promotion { generation, data: DataAge::Unproven })
            }
            Role::Holding(hold) if self.resumes(mode) => Err(hold.waits()),
            Role::Holding(_) | Role::Standby(_) => self.outlook(mode, holder, &self.known(), self.doubt()),
        }
    }

    // --- Inside ---

    /// What is known of this leg's age beyond its superblock, and beyond what [`Node::known`] says.
    fn doubt(&self) -> DataAge {
        let told = match &self.role {
            Role::Holding(hold) => hold.age(),
            Role::Standby(StandbyReason::PeerIsNewer { .. }) => DataAge::Past,
            // The holder writes to it.
            Role::Standby(_) if self.holder_session() == HolderSession::Alive => DataAge::Current,
            _ => DataAge::Unproven,
        };
        told.max(self.watch.doubt)
    }

    /// What this node was told, or saw at the peer, that its own superblock does not say.
    fn known(&self) -> Standing {
        let line = |newer: &Config| Box::new(History::of_unknown_past(*newer));
        match &self.role {
            Role::Holding(hold) if self.is_arbitrated() => match &hold.arbiter {
                Some(Answer::Holds(line)) => decide::standing(self.own(), line.as_deref()),
                _ => Standing::Current,
            },
            Role::Standby(StandbyReason::Diverged { newer }) => {
                Standing::Diverged { line: line(newer), last_shared: None }
            }
            Role::Standby(StandbyReason::PeerIsNewer { newer }) => Standing::Behind(line(newer)),
            _ => Standing::Current,
        }
    }

    /// A standby that its own superblock names as the holder does not take the array from anybody.
    fn resumes(&self, mode: PromoteMode) -> bool {
        let config = self.own().config();
        mode == PromoteMode::Ordinary && config.holder == self.setup.who && config.generation() > 0
    }

    /// Nor does it wait for anybody, where it knows of nothing newer than its own superblock.
    fn resumes_now(&self, mode: PromoteMode) -> bool {
        matches!(self.role, Role::Standby(_)) && self.resumes(mode) && self.known() == Standing::Current
    }

    /// Whether the peer, as the holder, is at work on this node's leg. One that has marked it clean is not.
    fn holder_session(&self) -> HolderSession {
        let clean = self.store.as_ref().is_some_and(|store| store.current().run_state == RunState::Clean);
        match &self.guard {
            Some(guard) if !clean => guard.holder_session(self.desk.now),
            _ => HolderSession::Absent,
        }
    }

    fn stand_aside(&mut self) {
        // What the operator wanted before, he does not want any more; nor does an answer that is on its way undo this.
        self.watch.wanted = None;
        self.ballot.forget();
        let demoted = match &self.role {
            Role::Standby(_) => self.own().config().holder == self.setup.who,
            _ => true,
        };
        if demoted {
            self.begin_standby(StandbyReason::Demoted);
        }
    }

    /// From now on it does, or for another reason, and says so.
    fn begin_standby(&mut self, reason: StandbyReason) {
        if !matches!(self.role, Role::Standby(before) if before == reason) {
            self.note(EventKind::StandingBy(reason));
            self.role = Role::Standby(reason);
        }
    }

    fn stopped(&mut self) {
        self.note(EventKind::Stopped);
        self.role = Role::Stopped;
    }

    fn note(&mut self, kind: EventKind) {
        self.events.note(self.desk.now, kind);
    }

    fn next_job(&mut self) -> u32 {
        self.desk.new_attempt()
    }

    fn own(&self) -> &Superblock {
        self.store.as_ref().expect("a leg is known in this role").current()
    }

    /// The own leg was read as a whole.
    fn take_unit_state(&mut self, images: &[Vec<u8>]) {
        self.unit = unit_state(images, self.own().array);
        // On a leg that does not count it says nothing.
        if self.unit.health == UnitStateHealth::Lost && self.own().is_in_sync() {
            self.note(EventKind::UnitStateLost);
        }
    }

    fn fail(&mut self, why: impl Into<String>) {
        let why = why.into();
        self.note(EventKind::LegUnusable(why.clone()));
        self.role = Role::Failed(why);
    }

    fn with_holder<T>(&mut self, act: impl FnOnce(&mut Holder, &mut Ctx<'_>) -> T) -> T {
        let Role::Holder(holder) = &mut self.role else { unreachable!("the caller looked at the role") };
        let mut ctx = Ctx {
            desk: &mut self.desk,
            own: self.store.as_mut().expect("a holder has a leg"),
            front: &mut self.front,
            prng: &mut self.prng,
            events: &mut self.events,
            ballot: &mut self.ballot,
            setup: &self.setup,
            link: &self.link,
        };
        act(holder, &mut ctx)
    }

    /// After each event: what it means beyond the role that took it.
    fn settle(&mut self) {
        self.leave_holder();
        self.drive_guard();
        self.drive_end();
    }

    /// The holder's own generation binds the guard; a holder that ended makes room.
    fn leave_holder(&mut self) {
        let Role::Holder(holder) = &self.role else { return };
        let key = FenceKey { node: self.setup.who.number(), generation: holder.truth().fence };
        if let (Some(guard), Phase::Serving) = (&mut self.guard, holder.phase()) {
            guard.raise(key, self.desk.now, &mut self.guarded);
        }
        if holder.phase() == Phase::Serving && self.run == Run::Stopping {
            // A switchover that came to nothing while the node was told to stop.
            self.with_holder(|holder, ctx| holder.close(ctx));
        }
        let Role::Holder(holder) = &self.role else { return };
        let Phase::Ended(ending) = holder.phase() else { return };
        let had = holder.config().id;
        if self.desk.is_own_unsettled() {
            // Whatever comes next on this node finds a disk that has nothing left of this one.
            return;
        }
        if self.own().config().id != had {
            // A change was on its way when it ended, or it had not come to its first.
            self.note(EventKind::ConfigAdopted(*self.own().config()));
        }
        if ending == Ending::HandedOver {
            // The peer is given time to take up what it was given.
            self.watch.leave_alone_until(self.desk.now + PEER_TAKES_UP);
        }
        match (ending, self.run) {
            (Ending::Clean, _) => self.stopped(),
            (_, Run::Stopping) => self.end(),
            (Ending::Superseded | Ending::HandedOver, Run::On) => {
                self.begin_standby(StandbyReason::PeerHolds);
            }
            (Ending::Demoted, Run::On) => self.begin_standby(StandbyReason::Demoted),
            (Ending::Orphaned, Run::On) => {
                self.cause = StartCause::Orphaned;
                self.begin_hold();
            }
        }
    }

    /// A block of the own superblock that the node itself wrote.
    fn on_own_superblock(&mut self, result: Result<(), IoError>) {
        let Some(store) = &mut self.store else { return };
        let Some(stored) = store.on_done(result, &mut self.desk) else { return };
        let Some(write) = self.own_write.take() else { return };
        match (write, stored) {
            (OwnWrite::Incarnation, Stored::Durable) => {}
            (OwnWrite::Incarnation, Stored::Failed(error)) => {
                self.fail(format!("its superblock cannot be written: {error}"));
            }
            (OwnWrite::Fence(key), Stored::Durable) => {
                if let Some(guard) = &mut self.guard {
                    guard.on_stored(key);
                }
                self.note(EventKind::Fenced { by: key.node, generation: key.generation });
            }
            (OwnWrite::Fence(_), Stored::Failed(error)) => {
                if let Some(guard) = &mut self.guard {
                    guard.give_up(error, self.desk.now, &mut self.guarded);
                }
            }
            (OwnWrite::Claim(key), Stored::Durable) => self.on_claim_stored(key, Ok(())),
            (OwnWrite::Claim(key), Stored::Failed(error)) => self.on_claim_stored(key, Err(error)),
            (OwnWrite::Promotion(_), Stored::Durable) => self.on_promotion_fenced(),
            (OwnWrite::Promotion(key), Stored::Failed(error)) => self.on_promotion_unwritten(key, error),
        }
    }
}
