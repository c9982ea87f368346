//! Runs a [`Node`] on channels: the one place where the core meets devices.
//!
//! Owner: a reactor's shard. It has the own leg's channel, the peer's leg's channel (any whose link goes up
//! and down), the server of the volume that hosts see, and the server of the guarded leg that the peer sees.

use std::collections::VecDeque;
use std::sync::Arc;

use bdev::hop::{HopBdev, HopEvent, HopIdentity, HopServer, hop};
use bdev::{Bdev, Capabilities, Channel, Completions, Geometry, Io, IoError, LinkDown, OpenError};
use engine::{Core, Instant, Progress};
use uuid::Uuid;

use crate::arbiter::{Answer, Ask, Ticket};
use crate::command::{Command, Refusal};
use crate::decide::{HolderState, PromoteMode, Promotion};
use crate::desk::Side;
use crate::events::Event;
use crate::format::LegFlags;
use crate::node::Node;
use crate::setup::Setup;
use crate::status::Status;

/// I/Os taken from each server in one turn.
const BUDGET: usize = 256;

/// A leg's channel and what it had no room for.
struct Leg {
    channel: Box<dyn Channel>,
    waiting: VecDeque<Io>,
}

impl Leg {
    fn new(channel: Box<dyn Channel>) -> Self {
        Self { channel, waiting: VecDeque::new() }
    }

    fn send(&mut self, now: Instant, done: &mut Completions) {
        // A channel that stays full makes nobody wait beyond his time.
        let late = |io: &mut Io| io.deadline.is_some_and(|at| now >= at);
        while let Some(at) = self.waiting.iter_mut().position(late) {
            let Some(io) = self.waiting.remove(at) else { break };
            done.push_back(io.complete(Err(IoError::TimedOut), now));
        }
        while let Some(io) = self.waiting.pop_front() {
            match self.channel.submit(io, now) {
                Ok(()) => {}
                Err(refused) if refused.why == IoError::Busy => return self.waiting.push_front(refused.io),
                Err(refused) => done.push_back(refused.io.complete(Err(refused.why), now)),
            }
        }
    }
}

/// See the module.
pub struct Driver {
    node: Node,
    own: Leg,
    peer: Leg,
    front: HopServer,
    guard: HopServer,
    done: Completions,
    guarded: Guarded,
    volume: Option<Geometry>,
    /// Keeps the devices below alive.
    _bdevs: [Arc<dyn Bdev>; 2],
}

/// Whether the peer is shown our leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guarded {
    NotYet,
    Shown,
}

/// The devices that a driver serves.
pub struct Volumes {
    /// What hosts see.
    pub front: Arc<HopBdev>,
    /// What the peer sees: the own leg, behind its guard.
    pub guarded: Arc<HopBdev>,
}

impl Driver {
    /// Opens both legs and begins. `name` is the volume's; the guarded leg is called `name` + `_leg`.
    ///
    /// # Errors
    /// A leg cannot be opened.
    pub fn start(
        name: &str,
        mut setup: Setup,
        own: Arc<dyn Bdev>,
        peer: Arc<dyn Bdev>,
        core: &Core,
        now: Instant,
    ) -> Result<(Volumes, Self), OpenError> {
        let geometry = own.geometry();
        if own.capabilities().contains(Capabilities::VOLATILE_CACHE) {
            setup.flags |= LegFlags::VOLATILE_CACHE;
        }
        let channels = [own.clone().open(core)?, peer.clone().open(core)?];
        let powers = Capabilities::FLUSH
            | Capabilities::FUA
            | Capabilities::DISCARD
            | Capabilities::WRITE_ZEROES
            | Capabilities::DISCARD_ZEROES;
        let volume = HopIdentity {
            name: name.to_owned(),
            product: "Mirror",
            uuid: setup.array,
            geometry: Geometry { blocks: 0, ..geometry },
            capabilities: powers
                | Capabilities::UNIT_STATE
                | Capabilities::HAND_OVER
                | own.capabilities() & Capabilities::BLOCK_STATUS,
        };
        let guarded = HopIdentity {
            name: format!("{name}_leg"),
            product: "Mirror leg",
            uuid: Uuid::from_u128(setup.array.as_u128() ^ (1 + u128::from(setup.who.number()))),
            geometry,
            capabilities: powers | Capabilities::FENCE,
        };
        let (front_bdev, front) = hop(volume, core);
        let (guard_bdev, mut guard) = hop(guarded, core);
        guard.set_link(Err(LinkDown::Connecting));
        front.set_storage(&own);
        let [own_channel, peer_channel] = channels;
        let driver = Self {
            node: Node::new(setup, geometry, core.pool().clone(), now),
            own: Leg::new(own_channel),
            peer: Leg::new(peer_channel),
            front,
            guard,
            done: Completions::new(),
            guarded: Guarded::NotYet,
            volume: None,
            _bdevs: [own, peer],
        };
        Ok((Volumes { front: front_bdev, guarded: guard_bdev }, driver))
    }

    /// One turn.
    pub fn poll(&mut self, now: Instant) -> Progress {
        let mut moved = self.take_requests(now);
        moved += self.poll_legs(now);
        self.node.on_link(self.peer.channel.link(now), now);
        self.node.on_tick(now);
        moved += self.send(now);
        moved += self.reply();
        self.announce();
        Progress::from_count(moved)
    }

    fn take_requests(&mut self, now: Instant) -> usize {
        let mut moved = 0;
        while self.front.next_event().is_some() {
            moved += 1;
        }
        while let Some(event) = self.guard.next_event() {
            moved += 1;
            if let HopEvent::Closed(client) = event {
                self.node.on_guard_closed(client, now);
            }
        }
        for _ in 0..BUDGET {
            if !self.node.has_guard_room() {
                break;
            }
            let Some((client, io)) = self.guard.take() else { break };
            self.node.on_guarded(client, io, now);
            moved += 1;
        }
        for _ in 0..BUDGET {
            if !self.node.has_front_room() {
                break;
            }
            let Some((client, io)) = self.front.take() else { break };
            self.node.on_front(client, io, now);
            moved += 1;
        }
        moved
    }

    fn poll_legs(&mut self, now: Instant) -> usize {
        let _: Progress = self.peer.channel.poll(now, &mut self.done);
        let _: Progress = self.own.channel.poll(now, &mut self.done);
        self.drain(now)
    }

    fn drain(&mut self, now: Instant) -> usize {
        let mut moved = 0;
        while let Some(completed) = self.done.pop_front() {
            self.node.on_completed(completed, now);
            moved += 1;
        }
        moved
    }

    fn send(&mut self, now: Instant) -> usize {
        let mut moved = 0;
        loop {
            while let Some((side, io)) = self.node.next_out() {
                moved += 1;
                match side {
                    Side::Own => self.own.waiting.push_back(io),
                    Side::Peer => self.peer.waiting.push_back(io),
                }
            }
            self.peer.send(now, &mut self.done);
            self.own.send(now, &mut self.done);
            // What a channel refused for good is an answer, and may lead to more.
            if self.drain(now) == 0 {
                return moved;
            }
        }
    }

    fn reply(&mut self) -> usize {
        let mut moved = 0;
        while let Some((client, completed)) = self.node.next_front_reply() {
            self.front.complete(client, completed);
            moved += 1;
        }
        while let Some((client, completed)) = self.node.next_guard_reply() {
            self.guard.complete(client, completed);
            moved += 1;
        }
        moved
    }

    /// Tells hosts the size, and the peer that the leg is there.
    fn announce(&mut self) {
        if self.volume.is_none()
            && let Some(volume) = self.node.volume()
        {
            self.volume = Some(volume);
            self.front.set_geometry(volume);
        }
        self.front.set_access(self.node.access());
        if self.guarded == Guarded::NotYet && self.node.guards() {
            self.guarded = Guarded::Shown;
            self.guard.set_link(Ok(()));
        }
    }

    /// Ends everything that no channel has.
    fn abandon(&mut self) {
        let end = |io: Io| drop(io.complete(Err(IoError::Aborted), Instant::EPOCH));
        self.node.abandon();
        while let Some((_, io)) = self.node.next_out() {
            end(io);
        }
        self.own.waiting.drain(..).chain(self.peer.waiting.drain(..)).for_each(end);
        self.reply();
    }

    /// When to poll at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.peer.waiting.front().and_then(|io| io.deadline);
        let legs = Instant::earliest(self.own.channel.next_deadline(), self.peer.channel.next_deadline());
        Instant::earliest(Instant::earliest(legs, waiting), self.node.next_deadline())
    }

    /// The next question for the array's arbiter; its answer goes to [`Driver::on_arbiter`].
    pub fn next_ask(&mut self) -> Option<(Ticket, Ask)> {
        self.node.next_ask()
    }

    /// The arbiter's answer.
    pub fn on_arbiter(&mut self, ticket: Ticket, answer: Answer, now: Instant) {
        self.node.on_arbiter(ticket, answer, now);
    }

    /// The next event for the log.
    pub fn next_event(&mut self) -> Option<Event> {
        self.node.next_event()
    }

    /// A command of the operator.
    ///
    /// # Errors
    /// [`Refusal`], in words.
    pub fn command(&mut self, command: Command, now: Instant) -> Result<(), Refusal> {
        self.node.command(command, now)
    }

    /// Whether a promotion would go ahead now, as far as this node can tell.
    ///
    /// # Errors
    /// Why it would not.
    pub fn may_promote(&self, mode: PromoteMode, holder: HolderState) -> Result<Promotion, Refusal> {
        self.node.may_promote(mode, holder)
    }

    /// Begins to stop in order; poll until [`Driver::is_stopped`].
    pub fn stop(&mut self, now: Instant) {
        self.node.stop(now);
    }

    /// True once everything is on disk and answered.
    pub fn is_stopped(&self) -> bool {
        self.node.is_stopped()
    }

    /// What an operator sees.
    pub fn status(&self) -> Status {
        self.node.status()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.abandon();
    }
}

#[cfg(test)]
mod tests {
    use bdev::{Link, Op, Refused, Tag};
    use core::time::Duration;

    use super::*;

    /// Has no room, ever.
    struct Full;

    impl Channel for Full {
        fn submit(&mut self, io: Io, _: Instant) -> Result<(), Refused> {
            Err(io.refuse(IoError::Busy))
        }

        fn poll(&mut self, _: Instant, _: &mut Completions) -> Progress {
            Progress::Idle
        }

        fn link(&self, _: Instant) -> Link {
            Link::Down(LinkDown::Silent)
        }
    }

    #[test]
    fn a_channel_that_stays_full_keeps_nothing_beyond_its_deadline() {
        let (start, second) = (Instant::EPOCH, Duration::from_secs(1));
        let mut leg = Leg::new(Box::new(Full));
        let mut done = Completions::new();
        leg.waiting.push_back(Io::new(Op::Flush, Tag(1), start));
        leg.waiting.push_back(Io::new(Op::Flush, Tag(2), start).with_deadline(start + second));
        leg.send(start, &mut done);
        assert!(done.is_empty());
        leg.send(start + second, &mut done);
        let late = done.pop_front().expect("one is late");
        assert_eq!((late.tag, late.result, leg.waiting.len()), (Tag(2), Err(IoError::TimedOut), 1));
        drop(leg.waiting.pop_front().map(|io| io.complete(Ok(()), start)));
    }
}
