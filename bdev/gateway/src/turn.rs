//! The order in which a reactor polls what hosts' commands pass through.
//!
//! A command comes in at the target and goes to a mirror; from there it goes to the own leg and, by an import, to the peer. Answers come
//! back the same way. The one order is here, so that the daemon's reactors, the simulator and the ratchet have it from one place.

use engine::{Instant, Progress};

/// What a reactor polls, each kind as a whole.
pub trait Stations {
    /// Sessions with the peer's targets.
    fn poll_imports(&mut self, now: Instant) -> Progress;

    /// Mirrors, with the guards of their legs.
    fn poll_mirrors(&mut self, now: Instant) -> Progress;

    /// The target of hosts and of the peer.
    fn poll_target(&mut self, now: Instant) -> Progress;
}

/// One turn: inwards from the peer to hosts, so that an answer is passed on at once; then, when the target had something to do, outwards
/// again, so that what hosts ask for is on its way to the peer before the ring is entered, which may do the own leg's write there and then.
pub fn poll_in_order(stations: &mut impl Stations, now: Instant) -> Progress {
    let inwards = stations.poll_imports(now) | stations.poll_mirrors(now);
    let target = stations.poll_target(now);
    if !target.is_busy() {
        return inwards | target;
    }
    target | stations.poll_mirrors(now) | stations.poll_imports(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes who is polled; a command waits at the target for some turns.
    struct Noted {
        polled: String,
        commands: usize,
    }

    impl Noted {
        fn note(&mut self, who: char) -> Progress {
            self.polled.push(who);
            Progress::Idle
        }
    }

    impl Stations for Noted {
        fn poll_imports(&mut self, _: Instant) -> Progress {
            self.note('i')
        }

        fn poll_mirrors(&mut self, _: Instant) -> Progress {
            self.note('m')
        }

        fn poll_target(&mut self, _: Instant) -> Progress {
            let idle = self.note('t');
            let busy = Progress::from_count(self.commands);
            self.commands = self.commands.saturating_sub(1);
            idle | busy
        }
    }

    #[test]
    fn what_a_target_took_goes_out_in_the_same_turn_and_an_idle_turn_goes_round_once() {
        let mut stations = Noted { polled: String::new(), commands: 1 };
        assert_eq!(poll_in_order(&mut stations, Instant::EPOCH), Progress::Busy);
        assert_eq!(poll_in_order(&mut stations, Instant::EPOCH), Progress::Idle);
        assert_eq!(stations.polled, "imtmiimt");
    }
}
