//! A plan: everything about a run, from a seed.

use core::time::Duration;

use gateway::{LunMode, StandbyMode};
use mirror::format::ArbiterKind;

use super::fault::Event;
use super::swarm;

/// What hosts do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Initiators.
    pub hosts: usize,
    /// Of them, the last ones only read.
    pub readers: usize,
    /// Operations that each has open at the most.
    pub depth: usize,
    /// Longest pause of a host between two operations.
    pub think: Duration,
    /// Every twentieth pause is longer, up to this: the load comes in bursts and lasts for the whole run.
    pub gap: Duration,
    /// Different granules that are used,
    pub granules: u64,
    /// and how far apart they are.
    pub stride: u64,
    /// Of a hundred operations, reads,
    pub read_percent: u64,
    /// and flushes.
    pub flush_percent: u64,
    /// Of a hundred operations, registrations of a reservation key.
    pub register_percent: u64,
    /// Of a hundred places, those of a whole granule or more.
    pub large_percent: u64,
    /// Operations of each host, at the most.
    pub ops: u64,
    /// How long a host waits for an answer before it aborts what it has sent; then it resets the LUN.
    pub patience: Duration,
}

/// How patient the nodes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// As they come.
    Ordinary,
    /// The fast profile.
    Fast,
}

/// Latencies: shortest and longest.
pub(super) type Span = (Duration, Duration);

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Decides everything that is not written here.
    pub seed: u64,
    /// Who orders the generations.
    pub policy: ArbiterKind,
    /// Durability mode of the LUN.
    pub mode: LunMode,
    /// What the node that does not serve does with what hosts ask it.
    pub standby: StandbyMode,
    /// How patient the nodes are.
    pub patience: Patience,
    /// What hosts do.
    pub load: Load,
    /// Hosts beyond them that contend for the unit by reservations.
    pub contenders: usize,
    /// Latency of the links.
    pub net: Span,
    /// Latency of the disks.
    pub disk: Span,
    /// Drift of each node's clock in parts per million.
    pub drift_ppm: [i64; 2],
    /// What one turn of a reactor takes.
    pub turn_cost: Duration,
    /// How long load and faults go on.
    pub length: Duration,
    /// The faults, by time.
    pub events: Vec<Event>,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        swarm::plan(seed)
    }

    /// Everybody who uses the unit.
    pub(super) fn initiators(&self) -> core::ops::Range<usize> {
        0..self.load.hosts + self.contenders
    }

    /// The same with these of its events alone, and so many operations of each host: what `shrink` found.
    #[must_use]
    pub fn only(mut self, events: &[usize], ops: u64) -> Self {
        self.events = events.iter().filter_map(|index| self.events.get(*index).copied()).collect();
        self.load.ops = self.load.ops.min(ops);
        self
    }
}
