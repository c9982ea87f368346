//! One session with a far LUN, shared by any number of channels on any core.
//!
//! Owner: one reactor, which polls the [`Served`]. The session is kept up whether anybody uses it or not, as SPDK's iSCSI bdev
//! does; users find the far size as soon as it is known.

use std::collections::VecDeque;
use std::sync::Arc;

use bdev::hop::{ClientId, HopBdev, HopIdentity, HopServer, hop};
use bdev::{Bdev, Channel, Completions, Geometry, Io, IoError, Link, LinkDown, Tag};
use engine::{Core, Instant, Key, Progress, Slots};
use net::tcp::{TcpConfig, TcpNetwork};

use super::Remote;
use super::channel::RemoteChannel;
use super::live::ladder::Rung;
use super::live::ways::{Way, WayNews};

/// I/Os of all users under way at the most.
const IN_FLIGHT_MAX: u32 = 1024;

/// Whose I/O it is.
struct Owner {
    client: ClientId,
    tag: Tag,
}

/// See the module.
pub struct Served {
    server: HopServer,
    channel: RemoteChannel,
    owners: Slots<Owner>,
    /// I/Os that the far command window had no room for.
    waiting: VecDeque<(ClientId, Io)>,
    done: Completions,
    /// The link as the users know it.
    seen: Option<Result<Geometry, LinkDown>>,
}

impl Served {
    /// Opens the session on `core`; the bdev is for everybody.
    ///
    pub fn new(remote: &Remote, core: &Core) -> (Arc<HopBdev>, Self) {
        Self::over(remote, Box::new(TcpNetwork::new(core, TcpConfig::default())), core)
    }

    /// The same over a given network: the simulator's way in.
    pub fn over(remote: &Remote, network: Box<dyn net::Network>, core: &Core) -> (Arc<HopBdev>, Self) {
        let (bdev, server) = hop(identity(remote), core);
        let channel = remote.channel(core, network);
        let owners = Slots::with_capacity(IN_FLIGHT_MAX);
        let (waiting, done) = (VecDeque::new(), Completions::new());
        (bdev, Self { server, channel, owners, waiting, done, seen: None })
    }

    /// One turn. What users asked for leaves in it; what the far window had no room for, in the next one after that opens.
    pub fn poll(&mut self, now: Instant) -> Progress {
        while self.server.next_event().is_some() {}
        let mut progress = self.submit(now);
        progress |= self.channel.poll(now, &mut self.done);
        while let Some(mut completed) = self.done.pop_front() {
            let owner = self.owners.remove(Key::from_bits(completed.tag.0)).expect("an I/O has an owner");
            completed.tag = owner.tag;
            self.server.complete(owner.client, completed);
        }
        self.watch_link(now);
        if !self.waiting.is_empty() {
            progress |= self.submit(now);
        }
        progress
    }

    /// What was done for the sake of late I/Os since somebody asked.
    pub fn take_rungs(&mut self) -> VecDeque<Rung> {
        self.channel.take_rungs()
    }

    /// What became of ways while the session stayed, since somebody asked.
    pub fn take_way_news(&mut self) -> VecDeque<WayNews> {
        self.channel.take_way_news()
    }

    /// The ways to the target now.
    pub fn ways(&self) -> Vec<Way> {
        self.channel.ways()
    }

    /// Logs out and takes nothing any more; poll until [`Served::is_gone`].
    pub fn leave(&mut self, now: Instant) {
        self.channel.leave(now);
    }

    /// True when the logout was answered, or nobody answers.
    pub fn is_gone(&self) -> bool {
        self.channel.is_gone()
    }

    /// Tells the users when the link changes.
    fn watch_link(&mut self, now: Instant) {
        let seen = match self.channel.link(now) {
            Link::Up { geometry, .. } => Ok(geometry),
            Link::Down(why) => Err(why),
        };
        if self.seen.as_ref() == Some(&seen) {
            return;
        }
        if let Ok(geometry) = seen {
            self.server.set_geometry(geometry);
        }
        self.server.set_link(seen.clone().map(drop));
        self.seen = Some(seen);
    }

    fn submit(&mut self, now: Instant) -> Progress {
        let mut count = 0;
        while !self.owners.is_full() {
            let Some((client, io)) = self.waiting.pop_front().or_else(|| self.server.take()) else { break };
            if !self.start(client, io, now) {
                break;
            }
            count += 1;
        }
        Progress::from_count(count)
    }

    /// False when the far end has no room now.
    fn start(&mut self, client: ClientId, mut io: Io, now: Instant) -> bool {
        let tag = io.tag;
        let Ok(key) = self.owners.insert(Owner { client, tag }) else { unreachable!("room was checked") };
        io.tag = Tag(key.to_bits());
        let Err(refused) = self.channel.submit(io, now) else { return true };
        self.owners.remove(key);
        let mut io = refused.io;
        io.tag = tag;
        if refused.why == IoError::Busy {
            self.waiting.push_front((client, io));
            return false;
        }
        self.server.complete(client, io.complete(Err(refused.why), now));
        true
    }

    /// When to poll next at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.channel.next_deadline()
    }
}

fn identity(remote: &Remote) -> HopIdentity {
    HopIdentity {
        name: remote.name().to_owned(),
        product: remote.product(),
        uuid: remote.uuid(),
        geometry: remote.geometry(),
        capabilities: remote.capabilities(),
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        for (client, io) in self.waiting.drain(..) {
            self.server.complete(client, io.complete(Err(IoError::Aborted), Instant::EPOCH));
        }
    }
}
