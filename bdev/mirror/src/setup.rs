//! What a node is told once: who it is, and how patient it is.

use core::time::Duration;

use uuid::Uuid;

use crate::format::{ArbiterKind, ArrayName, LegFlags, LegIndex};

/// How patient a node is. Most of these bound how long a host waits when something dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a read lease lasts: a holder that has not heard from its peer for so long serves no reads
    /// while both legs are in sync, because the peer may have been promoted. For a new array; one that is there says
    /// itself, because both nodes have to agree.
    pub lease: Duration,
    /// How often the lease is renewed. At least four times in a lease.
    pub heartbeat: Duration,
    /// How long the holder counts as alive after its last I/O on this node's leg.
    pub silence: Duration,
    /// How long a lost peer has to come back before the holder goes on without it.
    pub grace: Duration,
    /// How long one I/O on the peer's leg may take.
    pub io_timeout: Duration,
    /// How long one I/O on the own leg may take, where the peer's leg can stand in: then the own leg goes out like one that
    /// fails. Longer than a sound disk tries; shorter than hosts wait (Linux 30 s, Windows 60 s).
    pub disk_timeout: Duration,
    /// How long an I/O waits for the last leg in sync, when that is out of reach or busy, before its host gets the error.
    pub stall: Duration,
    /// How long to leave a leg alone that was refused or failed.
    pub retry: Duration,
    /// How long a standby waits, once the holder is gone from its leg, before it asks for the array: the holder,
    /// if it lives, asks first.
    pub takeover: Duration,
    /// How old a copy of a leg has to be, at the most, to be told from the leg itself when it comes back in its place: so
    /// long after a write both legs' superblocks are numbered anew. Every session with the peer's leg begins with that, too.
    pub mark: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(2),
            heartbeat: Duration::from_millis(400),
            silence: Duration::from_millis(1500),
            grace: Duration::from_millis(300),
            io_timeout: Duration::from_millis(1200),
            disk_timeout: Duration::from_secs(10),
            stall: Duration::from_millis(2000),
            retry: Duration::from_secs(3),
            takeover: Duration::from_millis(1000),
            mark: Duration::from_secs(10),
        }
    }
}

impl Timing {
    /// Hosts wait at most about a second and a half when a node dies. Wants a quiet network and nodes that are not
    /// starved of processor time: a pause of a third of a second counts as a death.
    pub const fn fast() -> Self {
        Self {
            lease: Duration::from_millis(500),
            heartbeat: Duration::from_millis(100),
            grace: Duration::from_millis(100),
            io_timeout: Duration::from_millis(400),
            disk_timeout: Duration::from_secs(5),
            retry: Duration::from_secs(1),
            takeover: Duration::from_millis(250),
            mark: Duration::from_secs(1),
            silence: Duration::from_millis(350),
            stall: Duration::from_millis(700),
        }
    }

    /// With the array's own lease. Whatever profile the peer has, its heartbeats come often enough not to count as silence here.
    #[must_use]
    pub fn with_lease(self, lease: Duration) -> Self {
        let (heartbeat, silence) = (self.heartbeat.min(lease / 5), self.silence.max(lease * 7 / 10));
        Self { lease, heartbeat, silence, ..self }
    }
}

/// Whether somebody carries the node's questions to an arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArbiterLink {
    /// Nobody: the array's policy must do without.
    None,
    /// An etcd, whoever talks to it.
    Etcd,
}

/// Whether a fresh device is known to read as zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// It is: a new sparse file.
    Zeroed,
    /// Nobody knows.
    Unknown,
}

/// What to do with an own leg that is blank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBlank {
    /// Make a new array of it.
    Create {
        /// Who orders the generations.
        arbiter: ArbiterKind,
        /// Bytes of the data area; as many as fit when absent.
        data_size: Option<u64>,
        /// Most bytes to copy after a crash; see [`crate::format::LayoutRequest`].
        max_crash_resync: Option<u64>,
    },
    /// Take the vacant or lost place in the peer's array.
    Join,
}

/// When to start without the peer, where the peer might have gone on without this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DegradedPolicy {
    /// When the operator says so.
    Ask,
    /// After this time.
    After(Duration),
}

/// Who a node is.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Who carries questions to the arbiter.
    pub arbiter: ArbiterLink,
    /// Array uuid.
    pub array: Uuid,
    /// The array's name.
    pub name: ArrayName,
    /// Which leg is this node's.
    pub who: LegIndex,
    /// The node's id.
    pub node: Uuid,
    /// The machine's boot id: a volatile cache is intact while it stays the same.
    pub incarnation: Uuid,
    /// For a blank leg.
    pub on_blank: OnBlank,
    /// For a blank leg.
    pub content: Content,
    /// Properties of the own device.
    pub flags: LegFlags,
    /// Start without the peer?
    pub degraded: DegradedPolicy,
    /// Patience.
    pub timing: Timing,
    /// Decides nonces and leg uuids: from the system's random source.
    pub seed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nodes of an array may have been given different profiles: its lease they share.
    #[test]
    fn heartbeats_are_no_silence_whatever_profiles_the_nodes_have() {
        let profiles = [Timing::default(), Timing::fast()];
        for lease in profiles.map(|profile| profile.lease) {
            let [of_holder, of_standby] = profiles.map(|profile| profile.with_lease(lease));
            for (holder, standby) in [(of_holder, of_standby), (of_standby, of_holder)] {
                assert!(3 * holder.heartbeat <= standby.silence, "{holder:?} {standby:?}");
            }
        }
        for profile in profiles {
            assert_eq!(profile.with_lease(profile.lease), profile, "as it is");
        }
    }
}
