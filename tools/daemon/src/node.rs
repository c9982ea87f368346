//! The control plane's tables: what was made, by which call, and where it lives. Off the data path: reactors hold what
//! runs, and this holds what is known of it.
//!
//! Owner: whoever has the lock, one call of the control socket at a time.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use bdev::Bdev;
use bdev::crypto::UserKey;
use bdev::fault::FaultPlan;
use bdev::meter::Metered;
use bdev::null::NullBdev;
use bdev::uring::UringBdev;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use engine::packet::kernel_addresses;
use engine::{Clock, Instant, MonotonicClock};
use gateway::Target;
use mirror::driver::Driver;
use net::smol::{IpNet, LinkNews};
use rpc::RpcError;
use serde_json::{Value, json};

use crate::capture::Capture;
use crate::events::{EventLog, News};
use crate::keep::Keeper;
use crate::log::Log;
use crate::reactor::{Reactor, Residents};

/// The node, as the threads of the control socket share it.
pub type SharedNode = Arc<Mutex<Node>>;

/// A reactor of the node by its place in `--cores`.
pub type ReactorIndex = usize;

/// What runs for a device on a reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resident {
    /// Nothing: its channels are all there is.
    None,
    /// The session behind an import.
    Import(ReactorIndex),
    /// The mirror whose volume it is.
    Mirror(ReactorIndex),
}

/// A device with what the control plane knows of it.
pub struct Entry {
    /// The device, with its meter.
    pub bdev: Arc<Metered>,
    /// The call that made it, to be replayed; `None` for what comes with another device.
    pub created_by: Option<(String, Value)>,
    /// Its faults, for a device that can misbehave on command.
    pub faults: Option<FaultPlan>,
    /// The file device behind it, for a rescan.
    pub file: Option<Arc<UringBdev>>,
    /// The null device behind it, for a resize.
    pub null: Option<Arc<NullBdev>>,
    /// Other devices that it is made of.
    pub bases: Vec<String>,
    /// What runs for it.
    pub resident: Resident,
}

/// A link with what the control plane knows of it.
pub struct LinkEntry {
    /// Its reactor.
    pub reactor: ReactorIndex,
    /// Its addresses with their networks.
    pub addresses: Vec<IpNet>,
    /// The call that made it, to be replayed.
    pub created_by: (String, Value),
    /// Where its frames are, or were last, written to.
    pub(crate) capture: Option<Capture>,
    /// Which of its addresses the kernel has taken meanwhile, and on which interface.
    clash: Option<(IpAddr, String)>,
}

impl LinkEntry {
    /// One that was just made.
    pub fn new(reactor: ReactorIndex, addresses: Vec<IpNet>, created_by: (String, Value)) -> Self {
        Self { reactor, addresses, created_by, capture: None, clash: None }
    }

    /// Of these addresses of the kernel's, one that is the link's, too.
    fn clash_with(&self, known: &[(String, IpAddr)]) -> Option<(IpAddr, String)> {
        let mine = |address: &IpAddr| self.addresses.iter().any(|net| net.address == *address);
        known
            .iter()
            .find(|(_, address)| mine(address))
            .map(|(interface, address)| (*address, interface.clone()))
    }
}

/// A user's key of crypto devices.
pub struct CryptoKey {
    /// The key.
    pub key: Arc<UserKey>,
    /// The call that made it, to be replayed. It may hold the key.
    pub created_by: (String, Value),
}

impl Entry {
    /// A device that is nothing but itself.
    pub fn new(bdev: Arc<dyn Bdev>, created_by: Option<(String, Value)>) -> Self {
        let bdev = Metered::new(bdev);
        Self {
            bdev,
            created_by,
            faults: None,
            file: None,
            null: None,
            bases: Vec::new(),
            resident: Resident::None,
        }
    }
}

/// Before or after `framework_start_init`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Options may be set; nothing runs.
    Startup,
    /// Everything runs.
    Runtime,
}

/// Where a node's configuration is.
#[derive(Debug)]
pub enum ConfigFile {
    /// Nowhere.
    None,
    /// It was loaded from there, and changes are not written.
    Loaded(PathBuf),
    /// Changes are written there.
    Kept(Keeper),
}

/// How far the node's end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    /// Mirrors stop in order; the peer is still shown our leg.
    Stopping {
        until: Instant,
    },
    /// Sessions end.
    Closing {
        until: Instant,
    },
}

/// Whether the node's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Ask again soon.
    NotYet,
    /// Nothing runs any more.
    Reached,
}

/// Mirrors get this long to stop, and sessions to take their last answers.
const FAREWELL: Duration = Duration::from_secs(3);

/// See the module.
pub struct Node {
    /// Its devices by name.
    pub bdevs: BTreeMap<String, Entry>,
    /// Keys of crypto devices by name.
    pub crypto_keys: BTreeMap<String, CryptoKey>,
    /// Links by name.
    pub links: BTreeMap<String, LinkEntry>,
    /// Calls that made target objects, in order, to be replayed.
    pub target_calls: Vec<(String, Value)>,
    /// Where it is in its start.
    pub state: State,
    /// What it logs.
    pub log: Log,
    /// Where its configuration is kept.
    pub config_file: ConfigFile,
    /// Options set at start-up, to be replayed.
    pub options: BTreeMap<String, Value>,
    events: EventLog,
    reactors: Vec<Reactor>,
    clock: MonotonicClock,
    ender: Sender<()>,
    life: Life,
    /// Errands so far: they are numbered.
    errands: u64,
}

impl Node {
    /// A node over its reactors, of which the first serves the portals. `ender` is told when somebody wants it to end.
    pub fn new(
        reactors: Vec<Reactor>,
        clock: MonotonicClock,
        state: State,
        ender: Sender<()>,
        log: Log,
    ) -> Self {
        Self {
            bdevs: BTreeMap::new(),
            crypto_keys: BTreeMap::new(),
            links: BTreeMap::new(),
            target_calls: Vec::new(),
            state,
            log,
            config_file: ConfigFile::None,
            options: BTreeMap::new(),
            events: EventLog::default(),
            reactors,
            clock,
            ender,
            life: Life::Running,
            errands: 0,
        }
    }

    // --- Reactors ---

    /// Its reactors.
    pub fn reactors(&self) -> &[Reactor] {
        &self.reactors
    }

    /// The clock that all reactors share.
    pub fn clock(&self) -> MonotonicClock {
        self.clock
    }

    /// Has something done on a reactor.
    ///
    /// # Errors
    /// The node is about to end, or the reactor has no room.
    pub fn on<T: Send + 'static>(
        &self,
        reactor: ReactorIndex,
        what: impl FnOnce(&mut Residents, Instant) -> T + Send + 'static,
    ) -> Result<T, RpcError> {
        let gone = || RpcError::internal("the node is shutting down");
        self.reactors.get(reactor).ok_or_else(gone)?.ask(what)
    }

    /// Has something done to the iSCSI target.
    ///
    /// # Errors
    /// As [`Node::on`].
    pub fn target<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Target) -> T + Send + 'static,
    ) -> Result<T, RpcError> {
        self.on(0, move |residents, _| what(residents.target()))
    }

    /// Has something done to a mirror.
    ///
    /// # Errors
    /// There is no such mirror; as [`Node::on`].
    pub fn mirror<T: Send + 'static>(
        &self,
        name: &str,
        what: impl FnOnce(&mut Driver, Instant) -> T + Send + 'static,
    ) -> Result<T, RpcError> {
        let none = || RpcError::no_device(format!("bdev {name} is no mirror"));
        let Resident::Mirror(reactor) = self.bdev(name)?.resident else { return Err(none()) };
        let key = name.to_owned();
        self.on(reactor, move |residents, now| Some(what(&mut residents.mirrors.get_mut(&key)?.driver, now)))?
            .ok_or_else(none)
    }

    /// The number of the next errand.
    pub(crate) fn next_errand(&mut self) -> u64 {
        self.errands += 1;
        self.errands
    }

    /// Where something goes that talks to these addresses: to the reactor of the link that reaches one, else as [`Node::place`] says.
    pub fn place_for(&self, addresses: &[SocketAddr]) -> ReactorIndex {
        let near = |link: &&LinkEntry| {
            addresses.iter().any(|address| link.addresses.iter().any(|net| net.contains(address.ip())))
        };
        let link = self.links.values().find(near);
        link.map_or_else(|| self.place(), |link| link.reactor)
    }

    /// Where the next resident goes: beside the front end if there is no other reactor, else where the fewest are.
    pub fn place(&self) -> ReactorIndex {
        let load = |reactor: &ReactorIndex| {
            let here = |entry: &&Entry| {
                entry.resident == Resident::Import(*reactor) || entry.resident == Resident::Mirror(*reactor)
            };
            self.bdevs.values().filter(here).count()
        };
        (1..self.reactors.len()).min_by_key(load).unwrap_or(0)
    }

    /// The log of events, up to date.
    pub fn events(&mut self) -> &EventLog {
        self.collect_events();
        &self.events
    }

    /// Takes in what mirrors noted.
    pub fn collect_events(&mut self) {
        self.events.collect(self.clock.now());
    }

    /// Tells of links whose address the kernel has taken: when they were made, it had none of them.
    pub fn look_at_addresses(&mut self) {
        if self.links.is_empty() {
            return;
        }
        // Without a list nothing is known, and it is asked for again.
        let Ok(known) = kernel_addresses() else { return };
        for (name, link) in &mut self.links {
            let clash = link.clash_with(&known);
            if let Some((address, interface)) = clash.clone().filter(|_| link.clash != clash) {
                // The log outlives the node.
                let _ = self
                    .events
                    .sender()
                    .send(News::Link(name.clone(), LinkNews::Clash { address, interface }));
            }
            link.clash = clash;
        }
    }

    // --- Devices ---

    /// A device by name.
    ///
    /// # Errors
    /// There is none.
    pub fn bdev(&self, name: &str) -> Result<&Entry, RpcError> {
        self.bdevs
            .get(name)
            .ok_or_else(|| RpcError::no_device(format!("No such device: there is no bdev {name:?}")))
    }

    /// Who uses which device, in words.
    ///
    /// # Errors
    /// As [`Node::on`].
    pub fn users(&self) -> Result<BTreeMap<String, String>, RpcError> {
        let exported = self.target(|target| target.luns())?.into_iter().map(|lun| {
            (lun.config.bdev.name().to_owned(), format!("LUN {} of target {}", lun.number, lun.target))
        });
        let under = self.bdevs.iter().flat_map(|(over, entry)| {
            entry.bases.iter().map(move |base| (base.clone(), format!("bdev {over}")))
        });
        Ok(exported.chain(under).collect())
    }

    /// Fails when somebody uses a device.
    ///
    /// # Errors
    /// The user, in words.
    pub fn check_free(&self, name: &str) -> Result<(), RpcError> {
        match self.users()?.get(name) {
            Some(user) => Err(RpcError::busy(format!("bdev {name} is used by {user}: remove that first"))),
            None => Ok(()),
        }
    }

    /// Fails when a name is taken.
    ///
    /// # Errors
    /// It is.
    pub fn check_new(&self, name: &str) -> Result<(), RpcError> {
        match self.bdevs.contains_key(name) {
            true => Err(RpcError::exists(format!("bdev {name:?} exists already"))),
            false => Ok(()),
        }
    }

    /// The operator gave up what could not be read beside a device's data.
    pub fn unit_state_given_up(&mut self, device: String) {
        self.events.unit_state_given_up(device);
    }

    /// Adds a device.
    ///
    /// # Errors
    /// The name is taken.
    pub fn add_bdev(&mut self, name: &str, entry: Entry) -> Result<Value, RpcError> {
        self.check_new(name)?;
        self.bdevs.insert(name.to_owned(), entry);
        self.events.registered(name);
        Ok(json!(name))
    }

    /// Removes a device and what runs for it.
    ///
    /// # Errors
    /// There is none, or it is in use.
    pub fn remove_bdev(&mut self, name: &str) -> Result<(), RpcError> {
        self.bdev(name)?;
        self.check_free(name)?;
        let Some(entry) = self.bdevs.remove(name) else { return Ok(()) };
        self.events.unregistered(name);
        let key = name.to_owned();
        match entry.resident {
            Resident::None => Ok(()),
            Resident::Import(reactor) => {
                self.on(reactor, move |residents, now| residents.leave_import(&key, now))
            }
            Resident::Mirror(reactor) => {
                self.on(reactor, move |residents, _| drop(residents.mirrors.remove(&key)))
            }
        }
    }

    // --- The end ---

    /// Asks for the node's end.
    pub fn request_end(&self) {
        // Whoever waits for it may have seen another request first.
        let _ = self.ender.send(());
    }

    /// False when a reactor is gone that nobody has ended.
    pub fn is_sound(&self) -> bool {
        self.reactors.iter().all(Reactor::is_running)
    }

    /// True when every reactor has turned since the last call.
    pub fn has_turned(&mut self) -> bool {
        // Each of them is asked.
        self.reactors.iter_mut().map(Reactor::has_turned).fold(true, |all, one| all & one)
    }

    /// Goes on with the end: mirrors stop in order, then sessions end at both ends. Call until it is reached.
    pub fn drive_end(&mut self) -> End {
        let now = self.clock.now();
        match self.life {
            Life::Running => {
                self.each(|residents, now| {
                    residents.mirrors.values_mut().for_each(|mirror| mirror.driver.stop(now));
                });
                self.life = Life::Stopping { until: now + FAREWELL };
            }
            Life::Stopping { until } => {
                let stopped = self
                    .each(|residents, _| residents.mirrors.values().all(|mirror| mirror.driver.is_stopped()));
                if stopped.iter().all(|stopped| *stopped) || now >= until {
                    // A reactor that is gone has no sessions.
                    let _ = self.target(Target::shut_down);
                    self.each(Residents::leave_imports);
                    self.life = Life::Closing { until: now + FAREWELL };
                }
            }
            Life::Closing { until } => {
                let left = self.each(|residents, _| residents.have_left()).into_iter().all(|left| left);
                let idle = left && self.target(|target| target.is_idle()).unwrap_or(true);
                if now >= until || idle {
                    return End::Reached;
                }
            }
        }
        End::NotYet
    }

    pub(crate) fn each<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Residents, Instant) -> T + Clone + Send + 'static,
    ) -> Vec<T> {
        self.reactors.iter().filter_map(|reactor| reactor.ask(what.clone()).ok()).collect()
    }

    /// Ends the reactors.
    ///
    /// # Errors
    /// One of them panicked, or the system's error that ended it.
    pub fn end_reactors(&mut self) -> io::Result<()> {
        let results: Vec<io::Result<()>> = self.reactors.drain(..).map(Reactor::end).collect();
        results.into_iter().collect()
    }
}
