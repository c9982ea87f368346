//! Acts: faults that strike together, for what single ones drawn at random meet too seldom.

use core::time::Duration;

use engine::Prng;

use super::coverage::Phase;
use super::fault::{Event, Fault, Still, Way, Who};
use super::swarm::{millis, pick};

/// What is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Writes stick in the peer's disk, and whoever sent them goes: a fence has to wait for them (R10).
    StuckWrites,
    /// The holder is alone with hosts that read: its lease runs out, and its peer waits for that (I19).
    Isolation,
    /// The peer's power fails for so short a time that the holder may take it for a lost session: its cache is gone.
    LostCache,
}

/// What an act is for a plan.
pub(super) struct Played {
    pub(super) events: Vec<Event>,
    /// How long the load goes on after the act began.
    pub(super) tail: Duration,
}

impl Act {
    const ALL: [Self; 3] = [Self::StuckWrites, Self::Isolation, Self::LostCache];

    pub(super) fn draw(prng: &mut Prng) -> Self {
        pick(prng, &Self::ALL)
    }

    /// Its events, from this time on.
    pub(super) fn play(self, prng: &mut Prng, at: Duration) -> Played {
        let event = |at, during, fault| Event { at, during, fault };
        let writing = Some(Phase::Write);
        match self {
            Self::StuckWrites => {
                let sticks =
                    Fault::StickWrites(Who::Peer, 1 + prng.below(3) as u32, millis(prng, 1000, 6000));
                let goes = match prng.below(5) {
                    0 => Fault::Kill(Who::Holder, millis(prng, 1, 1000)),
                    1 => Fault::Kill(Who::Holder, millis(prng, 3000, 7000)),
                    2 => Fault::Reset(Way::Nodes),
                    3 => Fault::Pause(
                        Who::Holder,
                        pick(prng, &[Still::Process, Still::Machine]),
                        millis(prng, 3000, 7000),
                    ),
                    _ => Fault::Isolate(millis(prng, 3000, 7000)),
                };
                let after = at + millis(prng, 1, 400);
                let events = vec![event(at, None, sticks), event(after, writing, goes)];
                Played { events, tail: Duration::from_millis(8500) }
            }
            Self::Isolation => {
                let events = vec![event(at, None, Fault::Isolate(millis(prng, 2000, 6000)))];
                Played { events, tail: Duration::from_millis(6000) }
            }
            Self::LostCache => {
                let dark = event(at, writing, Fault::PowerCut(Who::Peer, millis(prng, 1, 60)));
                let dies =
                    event(at + millis(prng, 1, 40), None, Fault::Kill(Who::Holder, millis(prng, 2000, 5000)));
                let events = if prng.percent(50) { vec![dark] } else { vec![dark, dies] };
                Played { events, tail: Duration::from_millis(5000) }
            }
        }
    }
}
