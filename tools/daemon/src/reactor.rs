//! What runs on a reactor of the node: the iSCSI target on the first one, imports and mirrors on any.
//!
//! Owner: the reactor's thread. The control plane never touches any of it: it sends orders and gets copies back. Nothing
//! here waits for the control plane.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};

use core::time::Duration;

use engine::{
    Core, Instant, MonotonicClock, Pinning, Pool, Progress, ReactorConfig, ReactorSnapshot, ReactorThread,
    RingCapabilities, Sender, Shard,
};
use gateway::{Served, Stations, Target, TargetConfig, Way, poll_in_order};
use mirror::arbiter::{Answer, Ticket};
use mirror::driver::Driver;
use net::Routes;
use net::smol::Link;
use net::tcp::{TcpConfig, TcpNetwork};
use rpc::RpcError;

use crate::errands::Sent;
use crate::etcd::Courier;
use crate::events::{EventSender, News};
use crate::pollers::{PollCount, Polled, PollerInfo};

/// Something that the control plane wants done on a reactor.
type Order = Box<dyn FnOnce(&mut Residents, Instant) + Send>;

/// What the control plane may send.
pub enum Message {
    /// Do this.
    Order(Order),
    /// Return.
    End,
}

/// How often somebody who waits for a reactor looks whether it is still there.
const LOOK: Duration = Duration::from_millis(500);

/// Whether a reactor serves the portals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// The first: the iSCSI target, and what the others do.
    Front,
    /// Imports and mirrors.
    Back,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    Ended,
}

/// A mirror, and who carries its questions to the arbiter.
pub struct Array {
    /// The mirror.
    pub driver: Driver,
    /// `None` where the policy does without an arbiter.
    pub courier: Option<Courier>,
    /// The mirror's name, and where its events go.
    pub events: (String, EventSender),
    /// How often it was polled.
    pub polls: PollCount,
}

impl Array {
    fn poll(&mut self, now: Instant) -> Progress {
        let progress = self.polls.count(self.driver.poll(now));
        if let Some(courier) = &self.courier {
            while let Some((ticket, ask)) = self.driver.next_ask() {
                courier.send(ticket, ask);
            }
        }
        while let Some(event) = self.driver.next_event() {
            let (name, sender) = &self.events;
            // The log outlives the reactors.
            let _ = sender.send(News::Mirror(name.clone(), event));
        }
        progress
    }
}

/// Sends answers of an arbiter to the mirror that asked.
pub fn deliver_to(reactor: Sender<Message>, mirror: String) -> impl Fn(Ticket, Answer) + Send + 'static {
    move |ticket, answer| {
        let mirror = mirror.clone();
        let order = move |residents: &mut Residents, now: Instant| {
            if let Some(array) = residents.mirrors.get_mut(&mirror) {
                array.driver.on_arbiter(ticket, answer, now);
            }
        };
        // A mailbox without room loses the answer: the mirror asks again.
        let _ = reactor.send(Message::Order(Box::new(order)));
    }
}

/// The shard of a reactor.
pub struct Residents {
    /// Its core.
    pub core: Core,
    /// Links of this reactor by name.
    pub links: BTreeMap<String, Polled<Link>>,
    /// How addresses are reached from here.
    pub routes: Routes,
    /// Sessions behind imported LUNs, by the bdev's name.
    pub imports: BTreeMap<String, Polled<Served>>,
    /// Those that log out.
    leaving: Vec<Served>,
    /// Mirrors by their volume's name.
    pub mirrors: BTreeMap<String, Array>,
    /// What is done for the control plane, by number.
    pub errands: BTreeMap<u64, Sent>,
    target: Option<Polled<Target>>,
    /// Where the target's and the links' news goes.
    events: Option<EventSender>,
    life: Life,
}

impl Residents {
    fn new(core: &Core, duty: Duty) -> Self {
        let routes = Routes::new(TcpNetwork::new(core, TcpConfig::default()));
        let target = || Target::new(core, Box::new(routes.clone()), TargetConfig::default());
        Self {
            core: core.clone(),
            links: BTreeMap::new(),
            target: (duty == Duty::Front).then(|| Polled::new(target())),
            routes,
            imports: BTreeMap::new(),
            leaving: Vec::new(),
            mirrors: BTreeMap::new(),
            errands: BTreeMap::new(),
            events: None,
            life: Life::Running,
        }
    }

    /// The iSCSI target.
    ///
    /// # Panics
    /// On a reactor without that duty: the programmer's mistake.
    pub fn target(&mut self) -> &mut Target {
        &mut self.target.as_mut().expect("the first reactor has the target").what
    }

    /// Logs an import out and forgets it.
    pub fn leave_import(&mut self, name: &str, now: Instant) {
        if let Some(mut import) = self.imports.remove(name) {
            import.what.leave(now);
            self.leaving.push(import.what);
        }
    }

    /// The ways of imports.
    pub fn ways(&self) -> Vec<(String, Vec<Way>)> {
        self.imports.iter().map(|(name, import)| (name.clone(), import.what.ways())).collect()
    }

    /// Logs all imports out.
    pub fn leave_imports(&mut self, now: Instant) {
        let names: Vec<String> = self.imports.keys().cloned().collect();
        names.iter().for_each(|name| self.leave_import(name, now));
    }

    /// True when no import is in the middle of its logout.
    pub fn have_left(&self) -> bool {
        self.leaving.is_empty()
    }

    /// From now on, what becomes of initiators' connections is told there.
    pub fn report_to(&mut self, events: EventSender) {
        self.events = Some(events);
    }

    /// What is polled here.
    pub fn pollers(&self) -> Vec<PollerInfo> {
        let info =
            |kind: &str, name: &str, count: PollCount| PollerInfo { name: format!("{kind}{name}"), count };
        let imports = self.imports.iter().map(|(name, import)| info("import_", name, import.count));
        let links = self.links.iter().map(|(name, link)| info("link_", name, link.count));
        let mirrors = self.mirrors.iter().map(|(name, array)| info("mirror_", name, array.polls));
        let target = self.target.iter().map(|target| info("iscsi_target", "", target.count));
        target.chain(links).chain(imports).chain(mirrors).collect()
    }
}

impl Shard for Residents {
    type Message = Message;

    fn handle(&mut self, message: Message, now: Instant) {
        match message {
            Message::Order(order) => order(self, now),
            Message::End => self.life = Life::Ended,
        }
    }

    fn poll(&mut self, now: Instant) -> Progress {
        let mut progress = self.receive(now);
        progress |= self.poll_errands(now);
        progress |= poll_in_order(self, now);
        progress |= self.transmit(now);
        self.tell();
        progress
    }

    fn prepare_sleep(&mut self) {
        self.links.values_mut().for_each(|link| link.what.prepare_sleep());
    }

    fn next_deadline(&self) -> Option<Instant> {
        let imports = self.imports.values().filter_map(|import| import.what.next_deadline()).min();
        let leaving = self.leaving.iter().filter_map(Served::next_deadline).min();
        let imports = Instant::earliest(imports, leaving);
        let mirrors = self.mirrors.values().filter_map(|array| array.driver.next_deadline()).min();
        let target = self.target.as_ref().and_then(|target| target.what.next_deadline());
        let errands = self.errands.values().filter_map(|sent| sent.errand.next_deadline()).min();
        let links = self.links.values().filter_map(|link| link.what.next_deadline()).min();
        let users =
            Instant::earliest(Instant::earliest(imports, errands), Instant::earliest(mirrors, target));
        Instant::earliest(users, links)
    }

    fn is_finished(&self) -> bool {
        self.life == Life::Ended
    }
}

/// What a turn is made of: links take what arrived, their users act on it, links send what comes of that, and the log is told.
impl Residents {
    fn receive(&mut self, now: Instant) -> Progress {
        all(self.links.values_mut(), |link| link.count.count(link.what.receive(now)))
    }

    fn poll_errands(&mut self, now: Instant) -> Progress {
        all(self.errands.values_mut(), |sent| sent.errand.poll(now))
    }

    fn transmit(&mut self, now: Instant) -> Progress {
        all(self.links.values_mut(), |link| link.what.transmit(now))
    }

    fn tell(&mut self) {
        let Self { links, imports, target, events, .. } = self;
        let tell = |news: News| {
            // The log outlives the reactors.
            let _ = events.as_ref().map(|events| events.send(news));
        };
        for (name, link) in links {
            link.what.take_news().into_iter().for_each(|news| tell(News::Link(name.clone(), news)));
        }
        for (name, import) in imports {
            import.what.take_rungs().into_iter().for_each(|rung| tell(News::Late(name.clone(), rung)));
            import.what.take_way_news().into_iter().for_each(|news| tell(News::Way(name.clone(), news)));
        }
        let Some(Polled { what: target, .. }) = target else { return };
        let (departed, more) = target.departures();
        departed.into_iter().map(News::Departed).for_each(tell);
        if more > 0 {
            tell(News::MoreDeparted(more));
        }
        target.unreadable().into_iter().map(News::Unreadable).for_each(tell);
    }
}

impl Stations for Residents {
    fn poll_imports(&mut self, now: Instant) -> Progress {
        let progress = all(self.imports.values_mut(), |import| import.count.count(import.what.poll(now)));
        if self.leaving.is_empty() {
            return progress;
        }
        let leaving = all(self.leaving.iter_mut(), |import| import.poll(now));
        self.leaving.retain(|import| !import.is_gone());
        progress | leaving
    }

    fn poll_mirrors(&mut self, now: Instant) -> Progress {
        all(self.mirrors.values_mut(), |mirror| mirror.poll(now))
    }

    fn poll_target(&mut self, now: Instant) -> Progress {
        all(self.target.iter_mut(), |target| target.count.count(target.what.poll(now)))
    }
}

/// Polls each one.
fn all<T>(residents: impl Iterator<Item = T>, poll: impl FnMut(T) -> Progress) -> Progress {
    residents.map(poll).fold(Progress::Idle, |sum, one| sum | one)
}

/// The control plane's end of a reactor.
pub struct Reactor {
    thread: ReactorThread<Message>,
    tid: u32,
    pulse: Pulse,
}

/// Whether a reactor turns: it is asked, and somebody looks later.
#[derive(Debug, Default)]
struct Pulse {
    asked: u64,
    answered: Arc<AtomicU64>,
}

/// The calling thread's number in the system; 0 where /proc is not mounted.
fn own_tid() -> u32 {
    let link = std::fs::read_link("/proc/thread-self").unwrap_or_default();
    link.file_name().and_then(|name| name.to_str()?.parse().ok()).unwrap_or(0)
}

impl Reactor {
    /// Starts a reactor.
    ///
    /// # Errors
    /// The system's, when there is no thread or no io_uring.
    pub fn start(config: ReactorConfig, pool: Pool, clock: MonotonicClock, duty: Duty) -> io::Result<Self> {
        let (tell, tid) = sync_channel(1);
        let thread = engine::spawn(config, pool, clock, move |core, _| {
            // Whoever starts it waits for it.
            let _ = tell.send(own_tid());
            Residents::new(core, duty)
        })?;
        if thread.pinning == Pinning::Floating {
            tracing::warn!(
                "core {} cannot be had: its reactor runs where the scheduler puts it",
                config.core
            );
        }
        Ok(Self { thread, tid: tid.recv().unwrap_or(0), pulse: Pulse::default() })
    }

    /// Has something done on the reactor, and waits for what comes of it: a turn, or a wake-up.
    ///
    /// # Errors
    /// The reactor's mailbox is full, or it is no more.
    pub fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Residents, Instant) -> T + Send + 'static,
    ) -> Result<T, RpcError> {
        let (reply, answer) = sync_channel(1);
        let order = move |residents: &mut Residents, now: Instant| {
            // The asker waits.
            let _ = reply.send(what(residents, now));
        };
        let busy = |_| RpcError::busy("the reactor's mailbox is full: try again");
        self.thread.sender.send(Message::Order(Box::new(order))).map_err(busy)?;
        loop {
            match answer.recv_timeout(LOOK) {
                Ok(outcome) => return Ok(outcome),
                Err(RecvTimeoutError::Timeout) if self.is_running() => {}
                // Its mailbox outlives it, with the order inside.
                Err(_) => return Err(RpcError::internal("the reactor has ended")),
            }
        }
    }

    /// True when the reactor has turned since the last call, which is when it was asked; asks again.
    pub fn has_turned(&mut self) -> bool {
        let Pulse { asked, answered } = &mut self.pulse;
        if answered.load(Ordering::Acquire) != *asked {
            return false;
        }
        let (next, answered) = (*asked + 1, answered.clone());
        let order = move |_: &mut Residents, _: Instant| answered.store(next, Ordering::Release);
        // A mailbox that is full is asked again next time.
        if self.thread.sender.send(Message::Order(Box::new(order))).is_ok() {
            *asked = next;
        }
        self.is_running()
    }

    /// Its mailbox, for those who do not wait.
    pub fn sender(&self) -> Sender<Message> {
        self.thread.sender.clone()
    }

    /// Its core.
    pub fn core(&self) -> u32 {
        self.thread.core
    }

    /// Its thread's number in the system.
    pub fn tid(&self) -> u32 {
        self.tid
    }

    /// What its ring uses of io_uring.
    pub fn ring(&self) -> RingCapabilities {
        self.thread.ring
    }

    /// Its counters.
    pub fn stats(&self) -> ReactorSnapshot {
        self.thread.stats.snapshot()
    }

    /// False once its thread is gone.
    pub fn is_running(&self) -> bool {
        !self.thread.thread.is_finished()
    }

    /// Ends it and waits for its thread.
    ///
    /// # Errors
    /// It panicked, or the system's error that ended it.
    pub fn end(self) -> io::Result<()> {
        // A mailbox that is full drains within a turn; a thread that is gone takes nothing.
        let mut message = Message::End;
        while let Err(back) = self.thread.sender.send(message) {
            if self.thread.thread.is_finished() {
                break;
            }
            std::thread::yield_now();
            message = back;
        }
        let panicked = |_| io::Error::other("a reactor panicked: see the lines above");
        self.thread.thread.join().map_err(panicked)?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use engine::{IdlePolicy, PoolConfig, RingMode};

    use super::*;

    fn waits(mut until: impl FnMut() -> bool) -> bool {
        (0..2000).any(|_| {
            std::thread::park_timeout(Duration::from_millis(1));
            until()
        })
    }

    #[test]
    fn a_reactor_that_hangs_has_not_turned() {
        let pool = Pool::new(PoolConfig::with_memory(16 << 20)).expect("memory");
        let config = ReactorConfig { core: 0, policy: IdlePolicy::Block, ring: RingMode::Probe };
        let clock = MonotonicClock::start();
        let mut reactor = Reactor::start(config, pool, clock, Duty::Back).expect("a reactor");
        assert!(reactor.has_turned(), "nothing was asked yet");
        assert!(waits(|| reactor.has_turned()));
        let ((release, released), (began, begun)) = (channel::<()>(), channel::<()>());
        let hang = move |_: &mut Residents, _: Instant| {
            // The test waits for the one and ends the other.
            let _ = (began.send(()), released.recv());
        };
        assert!(reactor.sender().send(Message::Order(Box::new(hang))).is_ok());
        begun.recv().expect("it hangs");
        // What was asked before it hung may have been answered.
        reactor.has_turned();
        std::thread::park_timeout(Duration::from_millis(50));
        assert!(!reactor.has_turned());
        drop(release);
        assert!(waits(|| reactor.has_turned()));
        reactor.end().expect("in order");
    }
}
