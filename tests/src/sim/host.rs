//! An initiator with a path to each node: the production import, its sessions, and a load that remembers what it wrote.

use core::net::{IpAddr, SocketAddr};
use core::ops::Range;
use core::time::Duration;
use std::collections::BTreeMap;

use bdev::{BlockRange, Channel, Completed, Completions, Durability, FenceKey, Io, IoError, Op, Tag};
use engine::{Core, Instant, Prng};
use gateway::{Remote, RemoteConfig, StandbyMode};
use net::sim::SimNet;
use uuid::Uuid;

use super::history::{History, Outcome, Value};
use super::machine::{self, FRONT_PORT};
use super::orders::{Number, Orders};
use super::plan::Load;
use super::spc::{Demand, Nexus};
use super::tally::Tally;

/// Bytes of a block.
pub(crate) const BLOCK: usize = 512;
const MS: Duration = Duration::from_millis(1);

struct Path {
    channel: Box<dyn Channel>,
    session: Option<u64>,
    not_before: Instant,
    /// Registrations that were sent this way.
    registered: u64,
    /// The last one that was granted; 0: none.
    granted: u64,
}

/// An operation that has not been answered.
struct Open {
    node: usize,
    /// Of the path, when it was sent.
    session: Option<u64>,
    service: super::history::Service,
    invoked: Instant,
    what: What,
    /// What a reservation of somebody else may keep out.
    watched: Option<Number>,
}

enum What {
    Write { blocks: Range<u64>, value: Value },
    Read { blocks: Range<u64>, before: Vec<Option<(Instant, Value)>> },
    Flush,
    Register(Registration),
}

/// A reservation key of one of a host's paths, on its way or granted. Keys of a path rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registration {
    /// The host.
    pub(crate) host: usize,
    /// The node that the path leads to.
    pub(crate) node: usize,
    /// The how manieth it is on this path.
    pub(crate) count: u64,
}

impl Registration {
    fn key(self) -> FenceKey {
        FenceKey { node: self.host as u8, generation: self.count << 1 | self.node as u64 }
    }

    /// The registration that has this reservation key.
    pub(crate) fn of_key(key: u64) -> Option<Self> {
        let FenceKey { node, generation } = FenceKey::from_reservation_key(key)?;
        Some(Self { host: node.into(), node: usize::from(generation & 1 == 1), count: generation >> 1 })
    }
}

/// What the load is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Reads, writes and flushes at random places.
    Load,
    /// What is open ends; nothing more is sent.
    Drain,
}

pub(crate) struct Host {
    pub(crate) number: usize,
    pub(crate) ip: IpAddr,
    core: Core,
    paths: [Path; 2],
    /// The path that answered last.
    preferred: usize,
    open: BTreeMap<u64, Open>,
    next_tag: u64,
    next_issue: Instant,
    prng: Prng,
    done: Completions,
    pub(crate) mode: Mode,
    pub(crate) ops_left: u64,
    /// What was aborted and is over: it is written anew, as a host does over another path.
    again: Vec<Range<u64>>,
    /// Blocks that still have to be read, at the end.
    to_read: Vec<u64>,
    pub(crate) tally: Tally,
    news: Vec<Registration>,
    served: Vec<(usize, Instant)>,
    pub(crate) due: Instant,
}

pub(crate) fn address(number: usize) -> IpAddr {
    [10, 0, 1, u8::try_from(number + 1).expect("few hosts")].into()
}

impl Host {
    pub(crate) fn new(number: usize, core: &Core, net: &SimNet, seed: u64, load: &Load) -> Self {
        let ip = address(number);
        let path = |node: usize| {
            let portal = SocketAddr::new(machine::address(node), FRONT_PORT);
            let mut config =
                RemoteConfig::new(format!("iqn.2026-11.sim:host{number}"), machine::volume_name(), portal);
            config.io_timeout = load.patience;
            let remote = Remote::new(format!("path{node}"), Uuid::nil(), config);
            let channel = remote.open_over(core, Box::new(net.host(ip)));
            Path { channel, session: None, not_before: Instant::EPOCH, registered: 0, granted: 0 }
        };
        Self {
            number,
            ip,
            core: core.clone(),
            paths: [path(0), path(1)],
            preferred: 0,
            open: BTreeMap::new(),
            next_tag: 0,
            next_issue: Instant::EPOCH,
            prng: Prng::from_seed(seed ^ (number as u64 + 1) << 40),
            done: Completions::new(),
            mode: Mode::Load,
            ops_left: load.ops,
            again: Vec::new(),
            to_read: Vec::new(),
            tally: Tally::default(),
            news: Vec::new(),
            served: Vec::new(),
            due: Instant::EPOCH,
        }
    }

    pub(crate) fn is_writing(&self) -> bool {
        self.open.values().any(|open| matches!(open.what, What::Write { .. }))
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.open.is_empty() && self.to_read.is_empty()
    }

    /// From now on these blocks are read, until each was.
    pub(crate) fn read_all(&mut self, blocks: Vec<u64>) {
        self.mode = Mode::Drain;
        self.to_read = blocks;
        self.due = Instant::EPOCH;
    }

    /// One turn.
    ///
    /// # Errors
    /// A read saw what it must not.
    pub(crate) fn turn(&mut self, now: Instant, env: &mut Env<'_>) -> Result<(), String> {
        let mut busy = false;
        for node in 0..2 {
            let path = &mut self.paths[node];
            busy |= path.channel.poll(now, &mut self.done).is_busy();
            let session = match path.channel.link(now) {
                bdev::Link::Up { session, .. } => Some(session),
                bdev::Link::Down(_) => None,
            };
            if session != path.session {
                // Whatever the old session had sent is lost with it.
                env.net.vanish(self.ip, machine::address(node));
                if session.is_some() {
                    env.history.logged_in(self.number, node, now);
                }
                path.session = session;
                busy = true;
            }
        }
        while let Some(completed) = self.done.pop_front() {
            busy = true;
            self.on_done(completed, now, env)?;
        }
        busy |= self.issue(now, env);
        let deadlines = self.paths.iter().filter_map(|path| path.channel.next_deadline());
        let next = if self.wants_more() { Some(self.next_issue) } else { None };
        let next = deadlines.chain(next).min().unwrap_or(now + 100 * MS);
        let soon = now + Duration::from_micros(if busy { 3 } else { 50 });
        self.due = if busy { soon } else { next.max(soon).min(now + 100 * MS) };
        Ok(())
    }

    fn wants_more(&self) -> bool {
        match self.mode {
            Mode::Load => self.ops_left > 0,
            Mode::Drain => !self.to_read.is_empty(),
        }
    }

    fn issue(&mut self, now: Instant, env: &mut Env<'_>) -> bool {
        let depth = if self.mode == Mode::Load { env.load.depth } else { 16 };
        let mut issued = false;
        while self.wants_more() && now >= self.next_issue && self.open.len() < depth {
            let Some(node) = self.choose_path(now, env) else { break };
            if !self.has_frames() {
                self.next_issue = now + MS;
                break;
            }
            match self.mode {
                Mode::Load => self.issue_load(node, now, env),
                Mode::Drain => self.issue_last(node, now, env),
            }
            issued = true;
        }
        issued
    }

    /// All share one pool: a host that finds it low waits, as one with its own memory would.
    fn has_frames(&self) -> bool {
        self.core.pool().stats().iter().all(|class| class.free > 0)
    }

    fn choose_path(&mut self, now: Instant, env: &Env<'_>) -> Option<usize> {
        let usable = |path: &Path| path.session.is_some() && now >= path.not_before;
        let other = 1 - self.preferred;
        // Both ways lead to the node that serves.
        if env.standby == StandbyMode::Forward && usable(&self.paths[other]) && self.prng.percent(30) {
            return Some(other);
        }
        if usable(&self.paths[self.preferred]) {
            Some(self.preferred)
        } else if usable(&self.paths[other]) {
            self.preferred = other;
            Some(other)
        } else {
            self.next_issue = now + 5 * MS;
            None
        }
    }

    fn issue_load(&mut self, node: usize, now: Instant, env: &mut Env<'_>) {
        self.ops_left -= 1;
        let think = u64::try_from(env.load.think.as_nanos()).expect("short");
        self.next_issue = now + Duration::from_nanos(self.prng.below(think.max(1)));
        if self.prng.percent(5) {
            let gap = u64::try_from(env.load.gap.as_nanos()).expect("short");
            self.next_issue += Duration::from_nanos(self.prng.below(gap.max(1)));
        }
        let is_taken = |blocks: &Range<u64>| {
            env.standby == StandbyMode::Forward && env.history.is_being_written(blocks.clone())
        };
        if let Some(blocks) = self.again.pop_if(|blocks| !is_taken(blocks)) {
            return self.send_write(node, blocks, now, env);
        }
        let blocks = self.place(env);
        let draw = self.prng.below(100);
        let taken = is_taken(&blocks);
        if self.number + env.load.readers >= env.load.hosts || taken {
            self.send_read(node, blocks, now, env);
        } else if draw >= 100 - env.load.register_percent {
            self.send_register(node, now, env);
        } else if draw < env.load.read_percent {
            self.send_read(node, blocks, now, env);
        } else if draw < env.load.read_percent + env.load.flush_percent {
            self.send(node, Op::Flush, What::Flush, now, env);
        } else {
            self.send_write(node, blocks, now, env);
        }
    }

    /// Few places: operations meet. Some are whole granules, and some cross from one to the next.
    fn place(&mut self, env: &Env<'_>) -> Range<u64> {
        let Load { granules, large_percent, .. } = *env.load;
        let granule = self.prng.below(granules) * env.load.stride % env.granules;
        let start = granule * 128;
        let (offset, len) = if self.prng.below(100) < large_percent {
            ([0, 64][self.prng.below(2) as usize], [128, 192, 256][self.prng.below(3) as usize])
        } else {
            (self.prng.below(3) * 60, 1 + self.prng.below(8))
        };
        let first = (start + offset).min(env.granules * 128 - len);
        first..first + len
    }

    fn issue_last(&mut self, node: usize, now: Instant, env: &mut Env<'_>) {
        let Some(first) = self.to_read.pop() else { return };
        // Neighbours are read together.
        let mut blocks = first..first + 1;
        while self.to_read.last().is_some_and(|next| *next + 1 == blocks.start)
            && blocks.end - blocks.start < 64
        {
            self.to_read.pop();
            blocks.start -= 1;
        }
        self.send_read(node, blocks, now, env);
    }

    fn send_read(&mut self, node: usize, blocks: Range<u64>, now: Instant, env: &mut Env<'_>) {
        let range = range_of(&blocks);
        let into = self.core.pool().alloc(range.blocks as usize * BLOCK).expect("frames enough");
        let before = blocks.clone().map(|block| env.history.acknowledged(block)).collect();
        self.send(node, Op::Read { range, into }, What::Read { blocks, before }, now, env);
    }

    fn send_write(&mut self, node: usize, blocks: Range<u64>, now: Instant, env: &mut Env<'_>) {
        let range = range_of(&blocks);
        let mut frame = self.core.pool().alloc(range.blocks as usize * BLOCK).expect("frames enough");
        let service = (node, env.runs[node]);
        let value = env.history.invoke_write(blocks.clone(), self.number, service, now);
        fill(&mut frame, &blocks, value);
        let durability = if self.prng.percent(10) { Durability::Durable } else { Durability::Accepted };
        let op = Op::Write { range, from: frame.freeze(), durability };
        self.send(node, op, What::Write { blocks, value }, now, env);
    }

    /// One at a time on each path.
    fn send_register(&mut self, node: usize, now: Instant, env: &mut Env<'_>) {
        let under_way = |open: &Open| matches!(open.what, What::Register(it) if it.node == node);
        if self.open.values().any(under_way) {
            return;
        }
        let path = &mut self.paths[node];
        path.registered += 1;
        let registration = Registration { host: self.number, node, count: path.registered };
        let op = Op::Fence { key: registration.key() };
        self.send(node, op, What::Register(registration), now, env);
    }

    /// The last registration that was granted on each path.
    pub(crate) fn granted(&self) -> impl Iterator<Item = Registration> + '_ {
        let granted = |node: usize| self.paths[node].granted;
        let all = (0..2).map(move |node| Registration { host: self.number, node, count: granted(node) });
        all.filter(|registration| registration.count != 0)
    }

    /// What was granted on a path is this from now on, by the operator's word.
    pub(crate) fn regrant(&mut self, node: usize, count: u64) {
        self.paths[node].granted = count;
        self.news.clear();
    }

    /// Which nodes answered with GOOD since this was last asked, and since when they were asked to.
    pub(crate) fn take_served(&mut self) -> Vec<(usize, Instant)> {
        core::mem::take(&mut self.served)
    }

    /// Registrations that were granted since this was last asked.
    pub(crate) fn take_news(&mut self) -> Vec<Registration> {
        core::mem::take(&mut self.news)
    }

    fn send(&mut self, node: usize, op: Op, what: What, now: Instant, env: &mut Env<'_>) {
        self.next_tag += 1;
        let tag = self.next_tag;
        let session = self.paths[node].session;
        let demand = match &op {
            Op::Read { .. } => Some(Demand::Read),
            Op::Write { .. } | Op::Flush => Some(Demand::Write),
            _ => None,
        };
        let nexus = Nexus { host: self.number, node };
        let watched = demand.map(|demand| env.orders.watch(nexus, demand));
        let open = Open { node, session, service: (node, env.runs[node]), invoked: now, what, watched };
        self.open.insert(tag, open);
        if let Err(refused) = self.paths[node].channel.submit(Io::new(op, Tag(tag), now), now) {
            let why = refused.why;
            self.done.push_back(refused.io.complete(Err(why), now));
        }
    }

    fn on_done(&mut self, completed: Completed, now: Instant, env: &mut Env<'_>) -> Result<(), String> {
        let open = self.open.remove(&completed.tag.0).ok_or("an I/O was answered twice")?;
        if let Some(watched) = open.watched {
            match completed.result {
                Ok(()) => env.orders.passed(watched)?,
                Err(IoError::Fenced) => env.orders.kept_out(watched)?,
                Err(_) => env.orders.unwatch(watched),
            }
        }
        if let Err(error) = completed.result {
            self.on_error(&open, error, now, env);
            return Ok(());
        }
        self.tally.good += 1;
        self.tally.passed_on += u64::from(open.node != env.serving);
        self.preferred = open.node;
        env.history.answered(open.service, open.invoked, now);
        self.served.push((open.node, open.invoked));
        match (open.what, completed.op) {
            (What::Write { blocks, value }, _) => env.history.acknowledge(blocks, value, now),
            // What was granted on the side that hosts have left is gone.
            (What::Register(_), _) if open.invoked < env.history.epoch => {}
            (What::Register(registration), _) => {
                self.paths[registration.node].granted = registration.count;
                self.news.push(registration);
            }
            (What::Read { blocks, before }, Op::Read { into, .. }) => {
                for ((block, bytes), before) in blocks.zip(into.chunks_exact(BLOCK)).zip(before) {
                    let value = value_of(bytes, block)?;
                    env.history.read(block, value, (open.invoked, now), before)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn on_error(&mut self, open: &Open, error: IoError, now: Instant, env: &mut Env<'_>) {
        self.tally.bad += 1;
        match &open.what {
            What::Write { value, blocks } => {
                // Its session goes on: the node has said that it is aborted, or swept away by a reset.
                let ended = error == IoError::TimedOut && self.paths[open.node].session == open.session;
                let outcome = if ended { Outcome::Ended } else { Outcome::Unknown };
                if ended {
                    self.tally.aborted += 1;
                    self.again.push(blocks.clone());
                }
                env.history.give_up(*value, outcome, now);
            }
            What::Read { blocks, .. } if self.mode == Mode::Drain => {
                self.to_read.extend(blocks.clone());
                self.to_read.sort_unstable();
            }
            What::Read { .. } | What::Flush | What::Register(_) => {}
        }
        if matches!(error, IoError::NotReady(_) | IoError::LinkDown | IoError::TimedOut | IoError::Fenced) {
            self.paths[open.node].not_before = now + 20 * MS;
            self.preferred = 1 - open.node;
        }
        self.next_issue = self.next_issue.max(now + MS);
    }
}

/// What a host's turn is given.
pub(crate) struct Env<'a> {
    pub(crate) net: &'a SimNet,
    pub(crate) history: &'a mut History,
    pub(crate) orders: &'a mut Orders,
    pub(crate) load: &'a Load,
    pub(crate) standby: StandbyMode,
    /// Granules of the volume.
    pub(crate) granules: u64,
    /// The run of each node's process.
    pub(crate) runs: [u64; 2],
    /// The node that serves, or served last.
    pub(crate) serving: usize,
}

impl Env<'_> {
    /// Whom reservations keep out has changed, or may have.
    pub(crate) fn look_at_bars(&mut self) {
        self.history.barred.clone_from(self.orders.barred());
    }
}

fn range_of(blocks: &Range<u64>) -> BlockRange {
    BlockRange::new(blocks.start, u32::try_from(blocks.end - blocks.start).expect("a short range"))
}

/// Every word of a block says whose it is.
pub(crate) fn fill(frame: &mut [u8], blocks: &Range<u64>, value: Value) {
    for (block, bytes) in blocks.clone().zip(frame.chunks_exact_mut(BLOCK)) {
        for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
            let content = if index % 2 == 0 { value } else { block };
            word.copy_from_slice(&content.to_le_bytes());
        }
    }
}

/// The value in a block's bytes.
///
/// # Errors
/// They are no write's.
pub(crate) fn value_of(bytes: &[u8], block: u64) -> Result<Value, String> {
    let word =
        |index: usize| u64::from_le_bytes(bytes[index * 8..index * 8 + 8].try_into().expect("eight bytes"));
    let (value, place) = (word(0), word(1));
    let whole = (0..BLOCK / 8).all(|index| word(index) == if index % 2 == 0 { value } else { place });
    match (value, place) {
        (0, 0) if whole => Ok(0),
        _ if whole && place == block && value != 0 => Ok(value),
        _ => Err(format!("block {block} holds a mixture: value {value} of block {place}")),
    }
}
