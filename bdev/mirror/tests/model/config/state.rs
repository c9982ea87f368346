//! What the model remembers: two nodes, their legs, what is between them, the arbiter.

use bdev::FenceKey;
use mirror::decide::{FenceVerdict, Step, Steps, after_fence, on_fence};
use mirror::desk::Side;

use super::book::{Cfg, Past, Sb};

/// What is on a leg. Superblock and block are written whole and durably; the log has one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leg {
    pub(super) sb: Sb,
    pub(super) value: u8,
    pub(super) logged: bool,
    pub(super) marked: bool,
    pub(super) medium: Medium,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Medium {
    Sound,
    /// Takes nothing and gives nothing; what was on it is there when it is sound again.
    Broken,
}

/// A generation in eight bits: the jumps of forced promotions in the upper half, in order.
pub(super) fn short(generation: u64) -> u8 {
    let low = u32::try_from(generation & 0xffff_ffff).expect("masked");
    assert!(low < 16 && generation >> 32 < 16, "a small scope has few generations");
    u8::try_from(generation >> 32 << 4).expect("few jumps") | u8::try_from(low).expect("few generations")
}

/// And back.
pub(super) fn long(generation: u8) -> u64 {
    u64::from(generation >> 4) << 32 | u64::from(generation & 15)
}

/// A key of a session: node and generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(pub(super) u8, pub(super) u8);

impl From<Key> for FenceKey {
    fn from(key: Key) -> Self {
        Self { node: key.0, generation: long(key.1) }
    }
}

impl From<FenceKey> for Key {
    fn from(key: FenceKey) -> Self {
        Self(key.node, short(key.generation))
    }
}

/// The guard of a running node's leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Guard {
    pub(super) stands: Key,
    /// The key of the peer's session of now, of the one before if no fence came between, and of those before the last
    /// fence.
    pub(super) key: Option<Key>,
    pub(super) old: Option<Key>,
    pub(super) former: Option<Key>,
    /// A fence under way, and whether whoever asked still waits.
    pub(super) fencing: Option<(Key, Waits)>,
    /// Ticks since the holder was last let through, or since the node began; [`AGE_MAX`] and more are the same.
    pub(super) age: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Waits {
    Yes,
    No,
}

/// A tick is a second; the lease is two.
pub(super) const LEASE: u8 = 2;
pub(super) const AGE_MAX: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    Down,
    Hold(Hold),
    Standby,
    Promoting(Promoting),
    Holder(Holder),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Hold {
    pub(super) claim: Claim,
    pub(super) cause: Cause,
}

impl Hold {
    pub(super) const AGAIN: Self = Self { claim: Claim::None, cause: Cause::Again };
}

/// Why a node that its own superblock names as the holder begins to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Cause {
    /// It did before.
    Again,
    /// The old holder has just given it the array, and is about to say that it knows.
    Given,
    /// That takes longer than it should.
    Late,
}

/// Without an arbiter a node that starts fences its peer's leg before it serves with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Claim {
    None,
    Asked,
    Granted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Promoting {
    pub(super) generation: u8,
    pub(super) stage: Promotion,
    /// What the arbiter holds that the own superblock has not heard of.
    pub(super) behind: Option<Past>,
    /// What the arbiter holds.
    pub(super) has: Cfg,
    pub(super) by: By,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum By {
    Rule,
    Force,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Promotion {
    /// The guard refuses the old holder.
    Raised,
    /// The superblock says so.
    Fenced,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Holder {
    /// What it says of the array, as its own superblock would.
    pub(super) truth: Sb,
    /// What the arbiter holds, as far as it knows.
    pub(super) has: Cfg,
    pub(super) change: Option<Change>,
    /// One that the peer, or the arbiter, may have heard of though it never took effect.
    pub(super) suspended: Option<Change>,
    pub(super) own: OwnLeg,
    pub(super) phase: Phase,
    pub(super) way: Way,
    /// The peer's superblock as last seen.
    pub(super) peer: Option<Sb>,
    pub(super) log: Log,
    pub(super) marks: bool,
    pub(super) lease: u8,
    pub(super) write: Option<Write>,
    pub(super) copy: Copying,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    Opening,
    /// Both legs in sync: the peer has to join first.
    OpeningPeer,
    Serving,
    /// For a switchover.
    Closing,
    Leaving(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum End {
    Superseded,
    /// Nobody knows whether this node still holds.
    Orphaned,
}

/// The holder's own leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum OwnLeg {
    Counted,
    /// Counted, and it failed an I/O.
    Failing,
    Out,
    /// Copied to from the peer's.
    Copying,
}

/// The way to the peer's leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Way {
    Away,
    Arming(Entry),
    Fencing(Entry),
    Marking,
    Enrolling(Entry),
    Emptying,
    Copying,
    Rejoining,
    Joined,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Entry {
    Member,
    Delta,
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Change {
    pub(super) kind: Kind,
    /// What the own superblock would say after it.
    pub(super) next: Sb,
    pub(super) steps: Steps,
    pub(super) sent: Sent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Open,
    Degrade(Side),
    Arm,
    Enrol,
    Rejoin(Side),
    HandOver,
}

/// Whether the step that is due is on its way to the peer's leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sent {
    No,
    Yes,
}

impl Change {
    /// The step that is due.
    pub(super) fn is_at(&self, step: Step) -> bool {
        self.steps.next() == Some(step)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Log {
    Free,
    Unwritten,
    Durable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Write {
    pub(super) value: u8,
    pub(super) own: Part,
    pub(super) peer: Part,
}

/// A leg's part in a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// Not sent yet.
    Due,
    Sent,
    Done,
    Failed,
    /// The write does not go there.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Copying {
    None,
    /// To the peer's leg.
    Sent,
    /// From the peer's leg, on its way to the own one.
    Read(u8),
}

/// Something on its way to a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Message {
    /// Whose leg.
    pub(super) to: u8,
    pub(super) what: What,
    pub(super) at: Place,
    pub(super) session: Session,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum What {
    Data(u8),
    Copy(u8),
    Superblock(Sb),
    /// The log and the bitmap are emptied.
    Empty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Place {
    Wire,
    /// Let through by the guard: it cannot be recalled.
    Disk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Session {
    Current,
    /// Its sender has given it up; nobody waits for the answer.
    Old,
    /// And a fence has come since.
    Former,
}

/// A swap on its way to the arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ask {
    pub(super) from: Cfg,
    pub(super) next: Past,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Line {
    Up,
    Cut,
}

/// Messages on their way at the most.
pub(super) const MESSAGES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) legs: [Leg; 2],
    pub(super) roles: [Role; 2],
    pub(super) guards: [Guard; 2],
    pub(super) wire: [Option<Message>; MESSAGES],
    pub(super) arbiter: Past,
    /// A backup of it, and what it had when that took its place.
    pub(super) backup: Option<Past>,
    pub(super) lost: Option<Past>,
    pub(super) asks: [Option<Ask>; 2],
    /// A swap of a node that has given it up.
    pub(super) late: Option<Ask>,
    pub(super) link: Line,
    pub(super) reach: [Line; 2],
    /// The newest value that was acknowledged, and that a host has seen: in the array's own line, and in that which a
    /// promotion by force began.
    pub(super) acknowledged: [u8; 2],
    pub(super) seen: [u8; 2],
    /// What that line began with.
    pub(super) base: Option<u8>,
    pub(super) next_value: u8,
    pub(super) spent: Spent,
}

/// What has happened, of what a scope bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Spent {
    pub(super) crashes: u8,
    pub(super) cuts: u8,
    pub(super) switchovers: u8,
    pub(super) forces: u8,
    pub(super) failures: u8,
    pub(super) restores: u8,
}

impl State {
    pub(super) fn holder(&self, node: usize) -> Option<Holder> {
        if let Role::Holder(holder) = self.roles[node] { Some(holder) } else { None }
    }

    pub(super) fn holder_mut(&mut self, node: usize) -> Option<&mut Holder> {
        if let Role::Holder(holder) = &mut self.roles[node] { Some(holder) } else { None }
    }

    pub(super) fn is_up(&self, node: usize) -> bool {
        self.roles[node] != Role::Down
    }

    pub(super) fn is_connected(&self) -> bool {
        self.link == Line::Up && self.is_up(0) && self.is_up(1)
    }

    /// Writes of the peer that a leg has let through and that have not ended.
    pub(super) fn in_flight(&self, node: usize) -> u32 {
        let there = |message: &&Message| usize::from(message.to) == node && message.at == Place::Disk;
        u32::try_from(self.wire.iter().flatten().filter(there).count()).expect("few")
    }

    /// True when there is room for another message.
    pub(super) fn has_room(&self) -> bool {
        self.wire.iter().any(Option::is_none)
    }

    pub(super) fn send(&mut self, to: usize, what: What) {
        let to = u8::try_from(to).expect("0 or 1");
        let free = self.wire.iter().position(Option::is_none).expect("the caller asked has_room");
        self.wire[free] = Some(Message { to, what, at: Place::Wire, session: Session::Current });
        self.tidy();
    }

    /// One order for one set of messages.
    pub(super) fn tidy(&mut self) {
        self.wire.sort_unstable_by(|a, b| b.cmp(a));
    }

    /// The peer of `node` closes the session that it had to the leg of `node`.
    pub(super) fn end_session(&mut self, node: usize) {
        let guard = &mut self.guards[node];
        guard.old = guard.key.take().or(guard.old);
        if let Some((_, waits)) = &mut guard.fencing {
            *waits = Waits::No;
        }
        self.age_messages(node, Session::Current, Session::Old);
    }

    fn age_messages(&mut self, node: usize, from: Session, to: Session) {
        let there = |message: &&mut Message| usize::from(message.to) == node && message.session == from;
        for message in self.wire.iter_mut().flatten().filter(there) {
            message.session = to;
        }
        self.tidy();
    }

    /// The guard of `node` is asked for a fence; false when it refuses.
    pub(super) fn take_fence(&mut self, node: usize, key: Key) -> bool {
        if let FenceVerdict::Refuse { .. } = on_fence(self.guards[node].stands.into(), key.into()) {
            return false;
        }
        self.end_sessions(node);
        let guard = &mut self.guards[node];
        (guard.stands, guard.fencing) = (key, Some((key, Waits::Yes)));
        true
    }

    /// A fence of the leg of `node` is taken up: sessions before it have what `after_fence` leaves them.
    fn end_sessions(&mut self, node: usize) {
        self.end_session(node);
        self.age_messages(node, Session::Old, Session::Former);
        let guard = &mut self.guards[node];
        let left = after_fence(guard.old.take().map(Into::into)).map(Into::into);
        guard.former = left.or(guard.former);
        if guard.former.is_none() {
            // Whenever they arrive, they are refused.
            let refused = |message: &mut Message| {
                usize::from(message.to) == node
                    && message.session == Session::Former
                    && message.at == Place::Wire
            };
            for message in &mut self.wire {
                message.take_if(refused);
            }
            self.tidy();
        }
    }
}
