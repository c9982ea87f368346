//! Commands that move more than a frame holds: whose turn it is to have the frames for one.
//!
//! Owner: the target, one for all sessions. A command takes a place in the queue, is granted it, gathers its frames and keeps the place
//! as long as it keeps them. So however many come, together they hold no more than half of the pool's large frames, and the other half
//! goes round among shorter commands. Sessions take turns; of one session's commands, the first is the one that came first.
//! Whoever is granted needs nothing more than frames that others give back sooner or later: none of those waits for it. What the peer relays
//! has a queue of its own: a command that is relayed waits, with what it was granted here, for a turn at the other node, and
//! must not be what those that are relayed from there wait for.

use std::cell::RefCell;
use std::rc::Rc;

use engine::{BUF_LEN_MAX, BufMut, Pool};

use super::session::paths::Origin;
use super::state::NexusId;
use crate::payload::PayloadMut;

/// The most that one command moves, in bytes, where the pool has enough frames: as LIO says for a file of its own.
const TRANSFER_MAX: usize = 8 << 20;

/// Bytes that commands of more than a frame may hold together, of each origin.
fn budget(pool: &Pool) -> usize {
    let [.., large] = pool.stats();
    large.frames * large.frame_size / 4
}

/// The most that one command moves with a pool, in bytes: MAXIMUM TRANSFER LENGTH, a power of two.
pub(super) fn transfer_bytes_max(pool: &Pool) -> usize {
    let most = budget(pool).clamp(BUF_LEN_MAX, TRANSFER_MAX);
    1 << most.ilog2()
}

/// Whose a command is. All sessions of an initiator's name have one share, but one of its ways may be dead while it goes on by another.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    initiator: Rc<str>,
    session: NexusId,
    origin: Origin,
}

impl Owner {
    /// A session of an initiator, and the way that its commands come.
    pub(super) fn new(initiator: &str, session: NexusId, origin: Origin) -> Self {
        Self { initiator: initiator.into(), session, origin }
    }

    fn is_same_host(&self, other: &Self) -> bool {
        self.initiator == other.initiator
    }
}

#[derive(Clone, Debug)]
struct Entry {
    number: u64,
    /// A host has one command in each.
    round: u64,
    owner: Owner,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Queue {
    granted: Vec<Entry>,
    waiting: Vec<Entry>,
    next: u64,
    /// Of what was granted last.
    round: u64,
}

impl Queue {
    fn enter(&mut self, owner: &Owner, bytes: usize) -> u64 {
        self.next += 1;
        let own = self.granted.iter().chain(&self.waiting).filter(|entry| entry.owner.is_same_host(owner));
        let after = own.map(|entry| entry.round + 1).max().unwrap_or(0);
        let round = after.max(self.round);
        self.waiting.push(Entry { number: self.next, round, owner: owner.clone(), bytes });
        self.next
    }

    fn held(&self, is: impl Fn(&Entry) -> bool) -> usize {
        self.granted.iter().filter(|entry| is(entry)).map(|entry| entry.bytes).sum()
    }

    /// False for a command whose host has all that one may have: it waits for that host alone.
    fn has_share(&self, entry: &Entry, budget: usize) -> bool {
        let own = self.held(|granted| granted.owner.is_same_host(&entry.owner));
        own == 0 || own + entry.bytes <= budget / 2
    }

    fn grant(&mut self, budget: usize) {
        loop {
            let order = |at: &usize| (self.waiting[*at].round, self.waiting[*at].number);
            let able = (0..self.waiting.len()).filter(|at| self.has_share(&self.waiting[*at], budget));
            match able.min_by_key(order) {
                // One that does not fit is not overtaken: it would wait for ever.
                Some(at) if self.held(|_| true) + self.waiting[at].bytes <= budget => {
                    let entry = self.waiting.remove(at);
                    self.round = entry.round;
                    self.granted.push(entry);
                }
                _ => return,
            }
        }
    }

    /// True while a session has a turn that another one waits for.
    fn holds_up(&self, owner: &Owner, budget: usize) -> bool {
        let is_own = |entry: &Entry| entry.owner.session == owner.session;
        let waits = |entry: &Entry| entry.owner.is_same_host(owner) || self.has_share(entry, budget);
        self.granted.iter().any(is_own) && self.waiting.iter().any(|entry| !is_own(entry) && waits(entry))
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct LongCommands {
    budget: usize,
    hosts: RefCell<Queue>,
    peers: RefCell<Queue>,
}

impl LongCommands {
    /// Of a node with this pool.
    pub(super) fn new(pool: &Pool) -> Rc<Self> {
        Rc::new(Self { budget: budget(pool), hosts: RefCell::default(), peers: RefCell::default() })
    }

    fn of(&self, origin: Origin) -> &RefCell<Queue> {
        match origin {
            Origin::Host => &self.hosts,
            Origin::Peer => &self.peers,
        }
    }

    /// True while a session has a turn that another one waits for.
    pub(super) fn holds_up(&self, owner: &Owner) -> bool {
        self.of(owner.origin).borrow().holds_up(owner, self.budget)
    }
}

/// Bytes that a command wants room for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Of its data,
    pub(super) len: usize,
    /// and of what it reads while it has them: a frame at the most, or nothing. It comes with the room for the data, because whoever
    /// has some frames and waits for more may wait for others that do the same.
    pub(super) scratch: usize,
}

impl Wanted {
    /// Nothing beside the data.
    pub(super) fn data(len: usize) -> Self {
        Self { len, scratch: 0 }
    }
}

/// That room.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) data: PayloadMut,
    pub(super) scratch: Option<BufMut>,
}

impl Room {
    /// For data that fit in a frame: all of it or nothing.
    pub(super) fn of_frame(pool: &Pool, Wanted { len, scratch }: Wanted) -> Option<Self> {
        let data = pool.alloc(len)?.into();
        let scratch = if scratch > 0 { Some(pool.alloc(scratch)?) } else { None };
        Some(Self { data, scratch })
    }
}

/// What comes of asking for room.
#[derive(Debug)]
pub(super) enum Turn {
    /// Here it is.
    Come(Room),
    /// Ask again.
    Later,
    /// It is more than there can be.
    Never,
}

/// A command's place; given back when dropped, with the frames that it has gathered.
#[derive(Debug)]
pub(super) struct Ticket {
    commands: Rc<LongCommands>,
    origin: Origin,
    number: u64,
    wanted: Wanted,
    frames: Vec<BufMut>,
}

impl Ticket {
    /// A place at the end of the queue; `None` when the command moves more than there can be.
    pub(super) fn new(commands: &Rc<LongCommands>, owner: &Owner, wanted: Wanted) -> Option<Self> {
        let bytes = wanted.len.next_multiple_of(BUF_LEN_MAX);
        if bytes > commands.budget {
            return None;
        }
        let number = {
            let mut queue = commands.of(owner.origin).borrow_mut();
            let number = queue.enter(owner, bytes);
            queue.grant(commands.budget);
            number
        };
        Some(Self { commands: commands.clone(), origin: owner.origin, number, wanted, frames: Vec::new() })
    }

    fn is_granted(&self) -> bool {
        self.commands.of(self.origin).borrow().granted.iter().any(|entry| entry.number == self.number)
    }

    /// Takes what frames there are, when it has its turn; the command's room once it is complete.
    pub(super) fn gather(&mut self, pool: &Pool) -> Option<Room> {
        if !self.is_granted() {
            return None;
        }
        let Wanted { len, scratch } = self.wanted;
        let mut there: usize = self.frames.iter().map(|frame| frame.len()).sum();
        while there < len {
            let frame = pool.alloc((len - there).min(BUF_LEN_MAX))?;
            there += frame.len();
            self.frames.push(frame);
        }
        let scratch = if scratch > 0 { Some(pool.alloc(scratch)?) } else { None };
        let data = PayloadMut::of(std::mem::take(&mut self.frames))?;
        Some(Room { data, scratch })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut queue = self.commands.of(self.origin).borrow_mut();
        queue.granted.retain(|entry| entry.number != self.number);
        queue.waiting.retain(|entry| entry.number != self.number);
        queue.grant(self.commands.budget);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{Pages, PoolConfig};

    const MIB: usize = 1 << 20;

    /// The only session of an initiator.
    fn only(initiator: &str) -> Owner {
        Owner::new(initiator, initiator.len() as u64, Origin::Host)
    }

    fn enter(commands: &Rc<LongCommands>, initiator: &str, len: usize) -> Ticket {
        Ticket::new(commands, &only(initiator), Wanted::data(len)).expect("not too much")
    }

    #[test]
    fn the_longest_transfer_leaves_half_of_the_large_frames() {
        let most = |mib: usize| {
            let config = PoolConfig { pages: Pages::Ordinary, ..PoolConfig::with_memory(mib * MIB) };
            transfer_bytes_max(&Pool::new(config).expect("memory"))
        };
        assert_eq!(
            [most(4), most(16), most(24), most(32), most(64)].map(|bytes| bytes / MIB),
            [1, 2, 2, 4, 8]
        );
    }

    #[test]
    fn hosts_take_turns_and_nobody_is_overtaken_for_ever() {
        // 16 large frames: a budget of 4 MiB for hosts, and as much for the peer.
        let pool = Pool::for_tests();
        let commands = LongCommands::new(&pool);
        let mut first = enter(&commands, "one", 2 * MIB);
        let mut other = enter(&commands, "other", 2 * MIB);
        let mut second = enter(&commands, "one", 2 * MIB);
        let mut whole = enter(&commands, "other", 4 * MIB);
        let data = (first.gather(&pool).expect("its turn"), other.gather(&pool).expect("its turn"));
        assert!(second.gather(&pool).is_none() && whole.gather(&pool).is_none());
        drop((first, data.0));
        assert!(second.gather(&pool).is_some() && whole.gather(&pool).is_none());
        let mut third = enter(&commands, "one", 2 * MIB);
        drop((other, data.1));
        assert!(third.gather(&pool).is_none(), "it is the other host's turn, which waits for the rest");
        assert!(whole.gather(&pool).is_none());
        drop(second);
        assert_eq!(whole.gather(&pool).map(|room| room.data.len()), Some(4 * MIB));
        drop(whole);
        assert!(third.gather(&pool).is_some());
    }

    #[test]
    fn a_host_has_half_of_it_or_one_command() {
        let pool = Pool::for_tests();
        let commands = LongCommands::new(&pool);
        let one = only("one");
        let mut own = [(); 2].map(|()| enter(&commands, "one", 2 * MIB));
        assert!(own[0].gather(&pool).is_some() && own[1].gather(&pool).is_none());
        assert!(!commands.holds_up(&one), "it waits for itself");
        let by_another_way = Owner::new("one", 9, Origin::Host);
        let mut third = Ticket::new(&commands, &by_another_way, Wanted::data(2 * MIB)).expect("not too much");
        assert!(third.gather(&pool).is_none() && commands.holds_up(&one), "the share is the host's");
        let mut other = enter(&commands, "other", 2 * MIB);
        assert!(other.gather(&pool).is_some(), "there is something for the next one");
        drop((own, other, third));
        let mut whole = enter(&commands, "one", 4 * MIB);
        let waiting = enter(&commands, "other", 2 * MIB);
        assert!(whole.gather(&pool).is_some() && commands.holds_up(&one));
        assert!(!commands.holds_up(&only("other")), "it has no turn");
        drop(waiting);
        assert!(!commands.holds_up(&one));
    }

    /// Each of two nodes relays to the other one: what holds the turn here, and waits there, is not waited for there.
    #[test]
    fn what_the_peer_relays_does_not_wait_for_what_is_relayed_to_it() {
        let pool = Pool::for_tests();
        let commands = LongCommands::new(&pool);
        let mut relayed = enter(&commands, "one", 4 * MIB);
        let served = Ticket::new(&commands, &Owner::new("three", 3, Origin::Peer), Wanted::data(4 * MIB));
        let data = (relayed.gather(&pool), served.expect("not too much").gather(&pool));
        assert!(data.0.is_some() && data.1.is_some());
    }

    #[test]
    fn what_is_more_than_everything_has_no_place() {
        let commands = LongCommands::new(&Pool::for_tests());
        let of = |len| Ticket::new(&commands, &only("one"), Wanted::data(len));
        assert!(of(4 * MIB + 1).is_none() && of(4 * MIB).is_some());
    }

    #[test]
    fn frames_are_gathered_as_others_give_them_back() {
        let pool = Pool::for_tests();
        let commands = LongCommands::new(&pool);
        let mut held: Vec<_> = std::iter::from_fn(|| pool.alloc(MIB)).collect();
        let mut ticket = enter(&commands, "one", 3 * MIB + 512);
        for _ in 0..3 {
            assert!(ticket.gather(&pool).is_none());
            held.pop();
        }
        assert!(
            ticket.gather(&pool).is_some_and(|room| room.data.len() == 3 * MIB + 512),
            "the rest is short"
        );
        drop(ticket);
        assert_eq!(pool.stats()[2].free, 3);
    }
}
