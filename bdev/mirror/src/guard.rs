//! The guard of the own leg: what the peer may do to it (R10, I15).
//!
//! Owner: the node. A client is one session of the peer. Anybody may read the metadata, because that is how a
//! holder learns what it meets; nobody may touch the data or write but the session whose key is the fence that
//! stands.
//!
//! A fence goes in four steps: older keys are refused from now on; everything already submitted ends; the own
//! superblock says so durably; the client is let in. Fences wait for each other. Also one that says nothing new is
//! written down: the superblock's number is what tells the leg of this session from an older copy of itself.

use std::collections::{BTreeMap, VecDeque};

use bdev::hop::ClientId;
use bdev::{BlockRange, Completed, FenceKey, Io, IoError, NotReady, Op, Tag};
use core::time::Duration;
use engine::Instant;

use crate::decide::{FenceVerdict, HolderSession, after_fence, is_drained, may_write, on_fence};
use crate::desk::{Desk, Purpose, Side};
use crate::format::layout::{Layout, SUPERBLOCK_OFFSET};
use crate::format::{LegIndex, Superblock};
use crate::probe::TAIL_LEN;
use crate::range::ByteRange;

/// Answers for the peer.
pub(crate) type Replies = VecDeque<(ClientId, Completed)>;

#[derive(Debug, Default)]
struct Client {
    key: Option<FenceKey>,
    in_flight: u32,
    last: Instant,
}

/// Whether the own superblock was written for a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Owed,
    Stored,
}

/// A fence under way.
#[derive(Debug)]
struct Fencing {
    client: ClientId,
    io: Io,
    key: FenceKey,
    mark: Mark,
}

/// What the fence under way waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FenceStep {
    /// There is none.
    Idle,
    /// I/Os of the peer have to end.
    Waiting,
    /// The node has to step down if it serves, end its own I/O, and write this to its superblock.
    Raising(FenceKey),
    /// The client can be let in.
    Granting,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Guard {
    block_size: u64,
    /// The only node that may fence this leg from outside.
    peer: LegIndex,
    /// How long a session counts as alive after its last I/O; a holder's heartbeat is much faster.
    silence: Duration,
    shows: Shown,
    stands: FenceKey,
    clients: BTreeMap<ClientId, Client>,
    fencing: Option<Fencing>,
    waiting: VecDeque<(ClientId, Io)>,
    last_granted: Option<Instant>,
    /// Superblocks that the holder wrote to our leg, for [`Guard::next_seen`].
    seen: VecDeque<Superblock>,
}

impl Guard {
    pub(crate) fn new(block_size: u32, superblock: &Superblock, silence: Duration) -> Self {
        let (layout, fence) = (&superblock.layout, superblock.fence);
        Self {
            block_size: u64::from(block_size),
            peer: superblock.index.other(),
            silence,
            shows: Shown {
                block_size: u64::from(block_size),
                head: layout.data_offset,
                tail: layout.leg_size - TAIL_LEN,
            },
            stands: fence,
            clients: BTreeMap::new(),
            fencing: None,
            waiting: VecDeque::new(),
            last_granted: None,
            seen: VecDeque::new(),
        }
    }

    /// This node took a generation of its own: older keys are refused. The own superblock says so already or
    /// will before anything is served.
    pub(crate) fn raise(&mut self, key: FenceKey, now: Instant, replies: &mut Replies) {
        if key.generation <= self.stands.generation {
            return;
        }
        self.stands = key;
        // One that was under way has come too late.
        self.give_up(IoError::Fenced, now, replies);
    }

    /// The generation of this node's own that could not be written down: the fence before it stands again, and whoever holds
    /// asks to be let in once more. On no superblock, a larger one would keep the holder out for good: it goes by what it reads.
    pub(crate) fn take_back(&mut self, key: FenceKey, before: FenceKey) {
        if self.stands == key {
            self.stands = before;
            self.clients.values_mut().for_each(|client| client.key = None);
        }
    }

    /// When an I/O was last let through that only a holder may do.
    pub(crate) fn last_granted(&self) -> Option<Instant> {
        self.last_granted
    }

    /// Whether the peer, as the holder, is at work here.
    pub(crate) fn holder_session(&self, now: Instant) -> HolderSession {
        let alive = |client: &Client| client.key == Some(self.stands) && now - client.last < self.silence;
        if self.clients.values().any(alive) { HolderSession::Alive } else { HolderSession::Absent }
    }

    /// The peer's I/Os in flight on the own leg.
    pub(crate) fn in_flight(&self) -> u32 {
        self.clients.values().map(|client| client.in_flight).sum()
    }

    pub(crate) fn on_closed(&mut self, client: ClientId) {
        self.clients.remove(&client);
    }

    /// An I/O of the peer.
    pub(crate) fn on_io(&mut self, client: ClientId, io: Io, desk: &mut Desk, replies: &mut Replies) {
        if let Op::Fence { key } = io.op() {
            // A key of this node itself, or of nobody, is a lie or a loop.
            if key.node != self.peer.number() {
                let now = desk.now;
                return replies.push_back((client, io.complete(Err(IoError::Fenced), now)));
            }
            self.waiting.push_back((client, io));
            return self.next_fence(desk.now, replies);
        }
        let now = desk.now;
        let shows = self.shows;
        let entry = self.clients.entry(client).or_default();
        entry.last = now;
        let standing = may_write(self.stands, entry.key);
        match (io.op(), standing) {
            (Op::Read { range, .. }, Err(_)) if shows.has(*range) => {}
            (_, Ok(())) => self.last_granted = Some(now),
            (_, Err(error)) => return replies.push_back((client, io.complete(Err(error), now))),
        }
        entry.in_flight += 1;
        let (shell, op) = io.detach();
        desk.submit(Side::Own, op, Purpose::Guarded { client, tag: shell.tag });
    }

    /// An I/O of the peer ended on the own leg.
    pub(crate) fn on_done(
        &mut self,
        client: ClientId,
        tag: Tag,
        mut completed: Completed,
        now: Instant,
        replies: &mut Replies,
    ) {
        if let Some(entry) = self.clients.get_mut(&client) {
            entry.in_flight -= 1;
        }
        // It is the answer that grants, whatever it says, and it leaves after the turn in which the I/O was taken.
        self.last_granted = self.last_granted.map(|last| last.max(now));
        if completed.result.is_ok() {
            self.watch(&completed.op);
        }
        completed.tag = tag;
        replies.push_back((client, completed));
    }

    /// The holder writes our superblock through us: look at what passes.
    fn watch(&mut self, op: &Op) {
        let Op::Write { range, from, .. } = op else { return };
        let start = range.lba * self.block_size;
        for seq in 0..2 {
            let slot = ByteRange::new(Layout::superblock_slot(seq), 4096);
            let covered = start <= slot.start && slot.end() <= start + from.len() as u64;
            if start < SUPERBLOCK_OFFSET + 8192 && covered {
                let at = usize::try_from(slot.start - start).expect("inside a frame");
                let block = from[at..at + 4096].try_into().expect("a whole block");
                self.seen.extend(Superblock::decode(block, slot.start));
            }
        }
    }

    /// The next superblock that the holder wrote.
    pub(crate) fn next_seen(&mut self) -> Option<Superblock> {
        self.seen.pop_front()
    }

    // --- Fences ---

    fn next_fence(&mut self, now: Instant, replies: &mut Replies) {
        while self.fencing.is_none()
            && let Some((client, io)) = self.waiting.pop_front()
        {
            let Op::Fence { key } = *io.op() else { unreachable!("only fences wait") };
            self.clients.entry(client).or_default().last = now;
            match on_fence(self.stands, key) {
                FenceVerdict::Refuse { .. } => {
                    replies.push_back((client, io.complete(Err(IoError::Fenced), now)));
                }
                FenceVerdict::Raise(_) | FenceVerdict::Again => {
                    self.clients.values_mut().for_each(|client| client.key = after_fence(client.key));
                    self.stands = key;
                    self.fencing = Some(Fencing { client, io, key, mark: Mark::Owed });
                }
            }
        }
    }

    /// What the fence under way waits for.
    pub(crate) fn fence_step(&self) -> FenceStep {
        match &self.fencing {
            None => FenceStep::Idle,
            Some(fencing) if fencing.mark == Mark::Owed => FenceStep::Raising(fencing.key),
            Some(_) if !is_drained(self.in_flight()) => FenceStep::Waiting,
            Some(_) => FenceStep::Granting,
        }
    }

    /// The own superblock holds the fence.
    pub(crate) fn on_stored(&mut self, key: FenceKey) {
        if let Some(fencing) = self.fencing.as_mut().filter(|fencing| fencing.key == key) {
            fencing.mark = Mark::Stored;
        }
    }

    /// Lets the client in.
    pub(crate) fn grant(&mut self, now: Instant, replies: &mut Replies) {
        let Some(Fencing { client, io, key, .. }) = self.fencing.take() else { return };
        let entry = self.clients.entry(client).or_default();
        (entry.key, entry.last) = (Some(key), now);
        self.last_granted = Some(now);
        replies.push_back((client, io.complete(Ok(()), now)));
        self.next_fence(now, replies);
    }

    /// The superblock could not be written: the client is told, and may ask again.
    pub(crate) fn give_up(&mut self, error: IoError, now: Instant, replies: &mut Replies) {
        let Some(Fencing { client, io, .. }) = self.fencing.take() else { return };
        replies.push_back((client, io.complete(Err(error), now)));
        self.next_fence(now, replies);
    }

    /// The node stops: nobody waits any longer.
    pub(crate) fn close(&mut self, now: Instant, replies: &mut Replies) {
        let fencing = self.fencing.take().map(|fencing| (fencing.client, fencing.io));
        for (client, io) in fencing.into_iter().chain(self.waiting.drain(..)) {
            replies.push_back((client, io.complete(Err(IoError::NotReady(NotReady::Starting)), now)));
        }
    }
}

/// What anybody may read: what a probe looks at.
#[derive(Clone, Copy, Debug)]
struct Shown {
    block_size: u64,
    /// The metadata end here.
    head: u64,
    /// The tail begins here: the third superblock copy, and what a foreign format may keep before it.
    tail: u64,
}

impl Shown {
    fn has(self, range: BlockRange) -> bool {
        let end = range.lba.saturating_add(u64::from(range.blocks)).saturating_mul(self.block_size);
        end <= self.head || range.lba.saturating_mul(self.block_size) >= self.tail
    }
}

#[cfg(test)]
mod tests;
