//! Connections that ended otherwise than in order, for those who look after the node.
//!
//! Owner: the target. A flood of them does not grow anything: [`KEPT`] wait to be taken, and the rest is counted.

use core::mem;
use core::net::SocketAddr;
use std::collections::VecDeque;

use iscsi::CloseReason;

/// Departures that wait to be taken.
const KEPT: usize = 16;

/// A connection that ended otherwise than by a logout or by its initiator's hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// The initiator's address, where it was known.
    pub address: Option<SocketAddr>,
    /// The initiator's name, where it got so far.
    pub initiator: Option<String>,
    /// Why this end closed it.
    pub why: CloseReason,
}

/// What was noted since somebody looked.
#[derive(Debug, Default)]
pub(super) struct Departures {
    kept: VecDeque<Departure>,
    more: u64,
}

impl Departures {
    /// Notes one, if there is something to tell.
    pub(super) fn note(&mut self, departure: Departure) {
        match departure.why {
            CloseReason::LoggedOut | CloseReason::Moved { .. } => {}
            _ if self.kept.len() == KEPT => self.more += 1,
            _ => self.kept.push_back(departure),
        }
    }

    /// Takes all, with the number of those that there was no room for.
    pub(super) fn take(&mut self) -> (Vec<Departure>, u64) {
        (self.kept.drain(..).collect(), mem::take(&mut self.more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_ends_in_order_are_not_told() {
        let mut noted = Departures::default();
        let mut note = |why: CloseReason| {
            noted.note(Departure { address: None, initiator: None, why });
        };
        note(CloseReason::LoggedOut);
        for _ in 0..20 {
            note(CloseReason::HeaderDigest);
        }
        let (kept, more) = noted.take();
        assert_eq!((kept.len(), more), (KEPT, 4));
        assert_eq!(noted.take(), (Vec::new(), 0));
    }
}
