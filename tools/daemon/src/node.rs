//! The shard of a node: its bdevs, its iSCSI target, and the calls that change them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use bdev::Bdev;
use bdev::fault::FaultPlan;
use bdev::uring::UringBdev;
use core::time::Duration;
use engine::{Core, Instant, Progress, ReactorStats, Shard};
use gateway::{Served, Target, TargetConfig};
use mirror::driver::Driver;
use net::tcp::{TcpConfig, TcpNetwork};
use rpc::RpcError;
use serde_json::{Value, json};

use crate::methods;

/// A call on its way to the reactor.
#[derive(Debug)]
pub struct Call {
    /// The method.
    pub method: String,
    /// Its parameters.
    pub params: Option<Value>,
    /// Where the answer goes.
    pub reply: Sender<Result<Value, RpcError>>,
}

/// What other threads may send to the node.
#[derive(Debug)]
pub enum Message {
    /// A call of the control socket.
    Call(Call),
    /// End in order.
    ShutDown,
}

/// A device with what the control plane knows of it.
pub struct Entry {
    /// The device.
    pub bdev: Arc<dyn Bdev>,
    /// The call that made it, to be replayed.
    pub created_by: (String, Value),
    /// Its faults, for a device that can misbehave on command.
    pub faults: Option<FaultPlan>,
    /// The file device behind it, for a rescan.
    pub file: Option<Arc<UringBdev>>,
    /// Other devices that it is made of.
    pub bases: Vec<String>,
    /// The session behind an import.
    pub import: Option<Served>,
    /// The mirror whose volume it is.
    pub mirror: Option<Driver>,
}

/// Before or after `framework_start_init`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Options may be set; nothing runs.
    Startup,
    /// Everything runs.
    Runtime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    /// Mirrors stop in order; the peer is still shown our leg.
    Ending {
        until: Instant,
    },
    /// Sessions end.
    Closing {
        until: Instant,
    },
    Ended,
}

/// Sessions get this long to take their last answers.
const FAREWELL: Duration = Duration::from_secs(3);

/// See the module.
pub struct Node {
    /// Its core.
    pub core: Core,
    /// Its reactor's counters.
    pub stats: ReactorStats,
    /// Its devices by name.
    pub bdevs: BTreeMap<String, Entry>,
    /// Its iSCSI target.
    pub target: Target,
    /// Calls that made target objects, in order, to be replayed.
    pub target_calls: Vec<(String, Value)>,
    /// Where it is in its start.
    pub state: State,
    /// The time of the turn.
    pub now: Instant,
    /// Options set at start-up, to be replayed.
    pub options: BTreeMap<String, Value>,
    life: Life,
    ending: bool,
}

impl Node {
    /// A node on its reactor.
    pub fn new(core: &Core, stats: ReactorStats, state: State) -> Self {
        let network = Box::new(TcpNetwork::new(core, TcpConfig::default()));
        Self {
            core: core.clone(),
            stats,
            bdevs: BTreeMap::new(),
            target: Target::new(core, network, TargetConfig::default()),
            target_calls: Vec::new(),
            state,
            now: Instant::EPOCH,
            options: BTreeMap::new(),
            life: Life::Running,
            ending: false,
        }
    }

    /// Ends in order at the next turn.
    pub fn request_end(&mut self) {
        self.ending = true;
    }

    /// A device by name.
    ///
    /// # Errors
    /// There is none.
    pub fn bdev(&self, name: &str) -> Result<&Entry, RpcError> {
        self.bdevs
            .get(name)
            .ok_or_else(|| RpcError::no_device(format!("No such device: there is no bdev {name:?}")))
    }

    /// Who uses a device, in words.
    pub fn user_of(&self, name: &str) -> Option<String> {
        let over = self.bdevs.iter().find(|(_, entry)| entry.bases.iter().any(|base| base == name));
        let exported = self.target.luns().into_iter().find(|lun| lun.config.bdev.name() == name);
        over.map(|(over, _)| format!("bdev {over}"))
            .or_else(|| exported.map(|lun| format!("LUN {} of target {}", lun.number, lun.target)))
    }

    fn mirrors(&mut self) -> impl Iterator<Item = &mut Driver> {
        self.bdevs.values_mut().filter_map(|entry| entry.mirror.as_mut())
    }

    fn mirrors_stopped(&self) -> bool {
        self.bdevs.values().filter_map(|entry| entry.mirror.as_ref()).all(Driver::is_stopped)
    }

    /// Adds a device.
    ///
    /// # Errors
    /// The name is taken.
    pub fn add_bdev(&mut self, name: &str, entry: Entry) -> Result<Value, RpcError> {
        if self.bdevs.contains_key(name) {
            return Err(RpcError::exists(format!("bdev {name:?} exists already")));
        }
        self.bdevs.insert(name.to_owned(), entry);
        Ok(json!(name))
    }

    fn progress_of_end(&mut self, now: Instant) {
        match self.life {
            Life::Running if self.ending => {
                for mirror in self.mirrors() {
                    mirror.stop(now);
                }
                self.life = Life::Ending { until: now + FAREWELL };
            }
            Life::Ending { until } if self.mirrors_stopped() || now >= until => {
                self.target.shut_down();
                self.life = Life::Closing { until: now + FAREWELL };
            }
            Life::Closing { until } if self.target.is_idle() || now >= until => self.life = Life::Ended,
            _ => {}
        }
    }
}

impl Shard for Node {
    type Message = Message;

    fn handle(&mut self, message: Message, now: Instant) {
        self.now = now;
        match message {
            Message::ShutDown => self.ending = true,
            Message::Call(call) => {
                let answer = methods::dispatch(self, &call.method, call.params.as_ref());
                // A caller that left does not want its answer.
                let _ = call.reply.send(answer);
            }
        }
    }

    fn poll(&mut self, now: Instant) -> Progress {
        self.progress_of_end(now);
        let imports = self.bdevs.values_mut().filter_map(|entry| entry.import.as_mut());
        let progress = imports.fold(Progress::Idle, |progress, import| progress | import.poll(now));
        let mirrors = self.mirrors().fold(Progress::Idle, |progress, mirror| progress | mirror.poll(now));
        progress | mirrors | self.target.poll(now)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let imports = self.bdevs.values().filter_map(|entry| entry.import.as_ref()?.next_deadline()).min();
        let end = match self.life {
            Life::Ending { until } | Life::Closing { until } => Some(until),
            Life::Running | Life::Ended => None,
        };
        let mirrors = self.bdevs.values().filter_map(|entry| entry.mirror.as_ref()?.next_deadline()).min();
        let imports = Instant::earliest(imports, mirrors);
        Instant::earliest(end, Instant::earliest(imports, self.target.next_deadline()))
    }

    fn is_finished(&self) -> bool {
        self.life == Life::Ended
    }
}
