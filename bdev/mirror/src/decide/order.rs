//! The order of every change of what the superblocks say (R8): arbiter first, superblock second, act third.
//!
//! Owner: the holder walks the steps, each durable before the next begins. What [`Step::Act`] stands behind is what makes
//! the change true; legs that come after it hear of it.

use crate::desk::Side;
use crate::format::{ArbiterKind, Config};
use crate::mutation::{Mutation, is_broken};

use super::arbitrate::asks_arbiter;

/// What changes, as far as its order goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Novelty {
    /// The first config of a holder.
    Open,
    /// A config without a leg.
    Degrade {
        /// That leg.
        out: Side,
    },
    /// The generation of the next fence.
    Arm,
    /// The peer's leg hears what the own one says.
    Enrol,
    /// Both superblocks have a new number.
    Mark,
    /// The peer's remembers the own one's.
    Remember,
    /// What the bitmap tells.
    Track,
    /// A config with both legs.
    Rejoin,
    /// Acknowledged data may be in caches.
    Cache,
    /// Stopped in order.
    Close,
    /// A config that names the peer as the holder.
    HandOver,
    /// A config above a leg that has diverged.
    Outrank,
}

/// The legs whose superblocks can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Able {
    /// Both.
    Both,
    /// This one alone: the other is out, or away.
    Only(Side),
}

impl Able {
    fn has(self, side: Side) -> bool {
        match self {
            Self::Both => true,
            Self::Only(only) => only == side,
        }
    }
}

/// Whether one leg is about to have the only copy of what both have acknowledged, in a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LastCopy {
    /// This one.
    Cached(Side),
    /// Both have it, or it is on the medium.
    No,
}

/// Part of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// A leg's cache is empty.
    Flush(Side),
    /// The arbiter lets it happen.
    Arbiter,
    /// A leg's superblock says so.
    Leg(Side),
    /// It takes effect.
    Act,
}

/// What is left to be done, the next one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Steps([Option<Step>; STEPS]);

const STEPS: usize = 5;

impl FromIterator<Step> for Steps {
    /// # Panics
    /// When there are more than a change can have.
    fn from_iter<T: IntoIterator<Item = Step>>(steps: T) -> Self {
        let mut all = [None; STEPS];
        steps.into_iter().enumerate().for_each(|(at, step)| all[at] = Some(step));
        Self(all)
    }
}

impl Steps {
    /// The one that is due; `None`: the change is over.
    pub const fn next(&self) -> Option<Step> {
        self.0[0]
    }

    /// That one is done.
    pub fn done(&mut self) {
        self.0.rotate_left(1);
        self.0[STEPS - 1] = None;
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = Step> {
        self.0.into_iter().flatten()
    }

    /// The peer's leg has it, and it is true: what is left is to tell the own one.
    #[must_use]
    pub fn resumed(&self) -> Self {
        self.iter().filter(|step| *step == Step::Leg(Side::Own)).collect()
    }
}

/// The legs that are told, in order. What decides when both nodes start anew comes first: the peer's superblock where the own
/// leg is the one that goes out, and where the array goes to the peer: until that one knows nobody is in, and once the own
/// one says so this node is out. A leg that comes back is told last: it counts in nobody's eyes before the holder waits for it.
const fn told(what: Novelty) -> &'static [Side] {
    match what {
        Novelty::Open
        | Novelty::Arm
        | Novelty::Track
        | Novelty::Outrank
        | Novelty::Degrade { out: Side::Peer } => &[Side::Own],
        Novelty::Enrol | Novelty::Mark | Novelty::HandOver | Novelty::Degrade { out: Side::Own } => {
            &[Side::Peer, Side::Own]
        }
        Novelty::Rejoin | Novelty::Cache | Novelty::Close => &[Side::Own, Side::Peer],
        Novelty::Remember => &[Side::Peer],
    }
}

/// The steps of a change from the config `now` to `next` (R8). A flush comes before anybody can hear of a last copy.
pub fn steps(
    what: Novelty,
    able: Able,
    arbiter: ArbiterKind,
    (now, next): (&Config, &Config),
    last: LastCopy,
) -> Steps {
    let mut legs: Vec<Side> = told(what).iter().copied().filter(|side| able.has(*side)).collect();
    if what == Novelty::Rejoin && is_broken(Mutation::R8TargetFirst) {
        legs.reverse();
    }
    let mut steps: Vec<Step> = legs.into_iter().map(Step::Leg).collect();
    let acts = if is_broken(Mutation::R8ActBeforeSuperblock) { 0 } else { steps.len().min(1) };
    steps.insert(acts, Step::Act);
    if asks_arbiter(arbiter, now, next) {
        let asks = if is_broken(Mutation::R8ArbiterLast) { steps.len() } else { 0 };
        steps.insert(asks, Step::Arbiter);
    }
    if let LastCopy::Cached(side) = last {
        steps.insert(0, Step::Flush(side));
    }
    steps.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{LegIndex, LegMask, Reason};

    const ALL: [Novelty; 13] = [
        Novelty::Open,
        Novelty::Degrade { out: Side::Own },
        Novelty::Degrade { out: Side::Peer },
        Novelty::Arm,
        Novelty::Enrol,
        Novelty::Mark,
        Novelty::Remember,
        Novelty::Track,
        Novelty::Rejoin,
        Novelty::Cache,
        Novelty::Close,
        Novelty::HandOver,
        Novelty::Outrank,
    ];

    /// Each change with a new config, under an arbiter, with a cache to be emptied.
    const TABLE: &str = "\
Open: Flush(Own) Arbiter Leg(Own) Act
Degrade { out: Own }: Flush(Own) Arbiter Leg(Peer) Act Leg(Own)
Degrade { out: Peer }: Flush(Own) Arbiter Leg(Own) Act
Arm: Flush(Own) Arbiter Leg(Own) Act
Enrol: Flush(Own) Arbiter Leg(Peer) Act Leg(Own)
Mark: Flush(Own) Arbiter Leg(Peer) Act Leg(Own)
Remember: Flush(Own) Arbiter Leg(Peer) Act
Track: Flush(Own) Arbiter Leg(Own) Act
Rejoin: Flush(Own) Arbiter Leg(Own) Act Leg(Peer)
Cache: Flush(Own) Arbiter Leg(Own) Act Leg(Peer)
Close: Flush(Own) Arbiter Leg(Own) Act Leg(Peer)
HandOver: Flush(Own) Arbiter Leg(Peer) Act Leg(Own)
Outrank: Flush(Own) Arbiter Leg(Own) Act
";

    fn words(steps: &Steps) -> String {
        steps.iter().map(|step| format!(" {step:?}")).collect()
    }

    #[test]
    fn the_order_is_as_written() {
        let now = Config::first(1, LegIndex::Zero, LegMask::both());
        let next = now.successor(2, LegIndex::Zero, LegMask::ZERO, Reason::LinkLost).expect("some left");
        let mut table = String::new();
        for what in ALL {
            let all = steps(what, Able::Both, ArbiterKind::Etcd, (&now, &next), LastCopy::Cached(Side::Own));
            table += &format!("{what:?}:{}\n", words(&all));
            let few = steps(what, Able::Both, ArbiterKind::Biased, (&now, &next), LastCopy::No);
            assert_eq!(words(&all), format!(" Flush(Own) Arbiter{}", words(&few)), "the rest is the same");
            let same = steps(what, Able::Both, ArbiterKind::Etcd, (&now, &now), LastCopy::No);
            assert_eq!(same, few, "the arbiter knows nothing but configs");
        }
        assert_eq!(table, TABLE);
    }

    #[test]
    fn a_leg_that_cannot_be_told_is_left_out() {
        let now = Config::first(1, LegIndex::Zero, LegMask::both());
        for (what, side) in ALL.into_iter().flat_map(|what| Side::BOTH.map(|side| (what, side))) {
            let few = steps(what, Able::Only(side), ArbiterKind::Biased, (&now, &now), LastCopy::No);
            assert!(!few.iter().any(|step| step == Step::Leg(side.other())), "{what:?} {side:?}");
            assert!(few.iter().any(|step| step == Step::Act));
        }
    }

    #[test]
    fn steps_are_done_one_after_the_other() {
        let mut left: Steps =
            [Step::Arbiter, Step::Leg(Side::Peer), Step::Act, Step::Leg(Side::Own)].into_iter().collect();
        assert_eq!(left.resumed().iter().collect::<Vec<_>>(), [Step::Leg(Side::Own)]);
        for step in [Step::Arbiter, Step::Leg(Side::Peer), Step::Act, Step::Leg(Side::Own)] {
            assert_eq!(left.next(), Some(step));
            left.done();
        }
        assert_eq!(left.next(), None);
    }
}
