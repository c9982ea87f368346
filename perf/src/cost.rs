//! What a load costs: processor time at both ends, and what the target's own layers say of their share.

use core::time::Duration;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use engine::ReactorStats;
use rpc::Client;
use serde_json::Value;
use thiserror::Error;

use crate::run::Observer;

/// A process that is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// This one.
    Own,
    /// Another.
    Other(u32),
}

impl Process {
    /// Time on processors of all its threads that are there now. What the kernel does for it in interrupts is not in it.
    ///
    /// # Errors
    /// The system's: no such process, not permitted, or a kernel without schedstat.
    pub fn cpu_time(self) -> io::Result<Duration> {
        let folder = match self {
            Self::Own => "/proc/self/task".to_owned(),
            Self::Other(pid) => format!("/proc/{pid}/task"),
        };
        let mut nanos = 0;
        for task in fs::read_dir(folder)? {
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            nanos += text.split_whitespace().next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanos))
    }
}

/// How to look at the target's end.
#[derive(Clone, Debug, Default)]
pub struct FarEnd {
    /// Its process.
    pub pid: Option<u32>,
    /// The control socket of a gemeld, which knows its process, its reactors and its layers.
    pub socket: Option<PathBuf>,
}

/// Why the target's end cannot be looked at.
#[derive(Debug, Error)]
pub enum FarEndError {
    /// The socket does not answer as a gemeld does.
    #[error("the target's control socket {path}: {1}", path = .0.display())]
    Socket(PathBuf, String),
    /// The process cannot be looked at.
    #[error("the target's process {0}: {1}")]
    Process(u32, io::Error),
}

/// Operations and their total time, of one kind in one layer of the target.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sum {
    count: f64,
    micros: f64,
}

/// A layer of the target and a kind of operation.
type LayerName = (String, String);

#[derive(Clone, Debug, Default)]
struct Snapshot {
    own_cpu: Duration,
    own_busy: Duration,
    far_cpu: Option<Duration>,
    far_busy: Option<Duration>,
    layers: BTreeMap<LayerName, Sum>,
}

/// One layer of the target in the time that was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct FarLayer {
    /// The LUN or bdev.
    pub name: String,
    /// `read`, `write`, `unmap` or `flush`.
    pub operation: String,
    /// Operations.
    pub count: f64,
    /// Their mean latency in microseconds, all layers below in it.
    pub mean: f64,
}

/// What a load cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Costs {
    /// Processor time of this end.
    pub own_cpu: Duration,
    /// The part of it in turns of the reactor that found work: the rest was polling.
    pub own_busy: Duration,
    /// Processor time of the target's process, where it is known.
    pub far_cpu: Option<Duration>,
    /// The part of it in turns of its reactors that found work, where it is a gemeld.
    pub far_busy: Option<Duration>,
    /// The target's layers, where it is a gemeld.
    pub far_layers: Vec<FarLayer>,
}

/// Looks at both ends when measuring begins and when it has ended.
#[derive(Debug)]
pub struct Probe {
    far: FarEnd,
    begin: Snapshot,
    end: Snapshot,
}

impl Probe {
    /// A look at a far end; asks once, so that a mistake is told before the load.
    ///
    /// # Errors
    /// See [`FarEndError`].
    pub fn new(mut far: FarEnd) -> Result<Self, FarEndError> {
        if let Some(socket) = &far.socket {
            let reactors = call(socket, "framework_get_reactors")?;
            let pid = reactors["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
            far.pid = far.pid.or(pid);
        }
        if let Some(pid) = far.pid {
            Process::Other(pid).cpu_time().map_err(|error| FarEndError::Process(pid, error))?;
        }
        Ok(Self { far, begin: Snapshot::default(), end: Snapshot::default() })
    }

    /// What was spent between the two looks.
    pub fn costs(&self) -> Costs {
        let (begin, end) = (&self.begin, &self.end);
        let between = |from: Option<Duration>, to: Option<Duration>| Some(to?.saturating_sub(from?));
        Costs {
            own_cpu: end.own_cpu.saturating_sub(begin.own_cpu),
            own_busy: end.own_busy.saturating_sub(begin.own_busy),
            far_cpu: between(begin.far_cpu, end.far_cpu),
            far_busy: between(begin.far_busy, end.far_busy),
            far_layers: difference(&begin.layers, &end.layers),
        }
    }

    fn look(&self, stats: &ReactorStats) -> Snapshot {
        let mut snapshot = Snapshot {
            own_cpu: Process::Own.cpu_time().unwrap_or_default(),
            own_busy: Duration::from_nanos(stats.snapshot().busy_nanos),
            far_cpu: self.far.pid.and_then(|pid| Process::Other(pid).cpu_time().ok()),
            ..Snapshot::default()
        };
        let Some(socket) = &self.far.socket else { return snapshot };
        if let Ok(answer) = call(socket, "framework_get_reactors") {
            let busy = answer["reactors"].as_array().into_iter().flatten();
            let nanos = busy.filter_map(|reactor| reactor["busy"].as_u64()).sum();
            snapshot.far_busy = Some(Duration::from_nanos(nanos));
        }
        if let Ok(luns) = call(socket, "lun_get_list") {
            collect(
                &luns,
                |lun| format!("LUN {}/{}", word(&lun["target"]), lun["lun_id"]),
                &mut snapshot.layers,
            );
        }
        if let Ok(bdevs) = call(socket, "bdev_get_latency") {
            let name = |bdev: &Value| format!("{} ({})", word(&bdev["name"]), word(&bdev["product_name"]));
            collect(&bdevs, name, &mut snapshot.layers);
        }
        snapshot
    }
}

impl Observer for Probe {
    fn on_begin(&mut self, stats: &ReactorStats) {
        self.begin = self.look(stats);
    }

    fn on_end(&mut self, stats: &ReactorStats) {
        self.end = self.look(stats);
    }
}

fn call(socket: &Path, method: &str) -> Result<Value, FarEndError> {
    let answer = Client::connect(socket).and_then(|mut client| client.call(method, None));
    answer.map_err(|error| FarEndError::Socket(socket.to_owned(), error.to_string()))
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn collect(answer: &Value, name: impl Fn(&Value) -> String, into: &mut BTreeMap<LayerName, Sum>) {
    for layer in answer.as_array().into_iter().flatten() {
        for operation in ["read", "write", "unmap", "flush"] {
            let figures = &layer[operation];
            let (Some(count), Some(mean)) = (figures["count"].as_f64(), figures["mean_us"].as_f64()) else {
                continue;
            };
            into.insert((name(layer), operation.to_owned()), Sum { count, micros: count * mean });
        }
    }
}

fn difference(begin: &BTreeMap<LayerName, Sum>, end: &BTreeMap<LayerName, Sum>) -> Vec<FarLayer> {
    let mut layers = Vec::new();
    for (key, after) in end {
        let before = begin.get(key).copied().unwrap_or_default();
        let count = after.count - before.count;
        if count > 0.0 {
            let (name, operation) = key.clone();
            layers.push(FarLayer { name, operation, count, mean: (after.micros - before.micros) / count });
        }
    }
    layers
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn own_time_rises_with_work() {
        let before = Process::Own.cpu_time().expect("Linux");
        let mut sum = 0_u64;
        while Process::Own.cpu_time().expect("Linux") - before < Duration::from_millis(5) {
            sum = (0..100_000).fold(sum, |sum, value| sum.rotate_left(5) ^ value);
        }
        assert!(Process::Other(u32::MAX).cpu_time().is_err(), "there is no such process ({sum})");
    }

    #[test]
    fn a_layer_shows_what_it_did_between_two_looks() {
        let look = |count: u64, mean: f64| {
            let mut layers = BTreeMap::new();
            let luns = json!([{"target": "t", "lun_id": 0, "read": {"count": count, "mean_us": mean}}]);
            collect(&luns, |lun| word(&lun["target"]).to_owned(), &mut layers);
            layers
        };
        let between = difference(&look(10, 100.0), &look(30, 60.0));
        let read = FarLayer { name: "t".into(), operation: "read".into(), count: 20.0, mean: 40.0 };
        assert_eq!(between, [read]);
        assert_eq!(difference(&look(10, 100.0), &look(10, 100.0)), []);
    }
}
