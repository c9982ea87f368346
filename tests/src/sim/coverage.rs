//! Which fault struck while what was under way.

use core::fmt;
use std::collections::BTreeMap;

use super::fault::Point;

/// What is under way in the array. Several may be at once; idle means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing.
    Idle,
    /// A host's write has not been answered.
    Write,
    /// A transaction of the intent log is on its way to a disk.
    LogWrite,
    /// A leg is being brought in sync.
    Resync,
    /// A superblock is on its way to a disk, or the arbiter is asked.
    ConfigChange,
    /// The logical unit's state (persistent reservations) is on its way to a disk.
    ReservationChange,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Idle, Self::Write, Self::LogWrite, Self::Resync, Self::ConfigChange, Self::ReservationChange];

    const fn words(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Write => "write",
            Self::LogWrite => "log write",
            Self::Resync => "resync",
            Self::ConfigChange => "config",
            Self::ReservationChange => "reservation",
        }
    }
}

/// How often each fault point met each phase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    counts: BTreeMap<(Point, Phase), u64>,
}

impl Coverage {
    pub(crate) fn count(&mut self, point: Point, phases: &[Phase]) {
        for phase in phases {
            *self.counts.entry((point, *phase)).or_default() += 1;
        }
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (key, count) in &other.counts {
            *self.counts.entry(*key).or_default() += count;
        }
    }

    /// How often this fault met this phase.
    pub fn of(&self, point: Point, phase: Phase) -> u64 {
        self.counts.get(&(point, phase)).copied().unwrap_or(0)
    }

    /// The pairs that never met.
    pub fn missing(&self) -> Vec<(Point, Phase)> {
        let all = Point::ALL.into_iter().flat_map(|point| Phase::ALL.map(|phase| (point, phase)));
        all.filter(|(point, phase)| self.of(*point, *phase) == 0).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<15}", "fault")?;
        for phase in Phase::ALL {
            write!(f, "{:>12}", phase.words())?;
        }
        writeln!(f)?;
        for point in Point::ALL {
            write!(f, "{:<15}", format!("{point:?}"))?;
            for phase in Phase::ALL {
                write!(f, "{:>12}", self.of(point, phase))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
