//! What is seen of a link's interface, and what of that an operator has to hear. Pure.

use core::time::Duration;

use engine::Instant;
use engine::packet::LinkState;

use super::config::LinkConfig;
use super::device::{FrameDevice, Watches};
use super::status::LinkNews;

/// How often the interface is looked after where nobody tells of changes.
const LOOK: Duration = Duration::from_millis(20);
/// And where somebody does.
const SECOND_LOOK: Duration = Duration::from_millis(500);
/// News that nobody took; more is left out.
const NEWS_MAX: usize = 64;

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Frames pass as before, or do not.
    AsBefore,
    /// They pass no more.
    Lost,
    /// They pass again, or do not for another reason.
    Changed,
}

/// Whether an operator was told of something that lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Told,
}

/// See the module.
pub(super) struct Watch {
    interface: String,
    /// Packets that the link sends.
    mtu: u32,
    state: LinkState,
    /// Why an interface that is there again cannot be used.
    why: Option<String>,
    narrow: Trouble,
    crowded: Trouble,
    next_look: Instant,
    news: Vec<LinkNews>,
}

impl Watch {
    pub(super) fn new(config: &LinkConfig, state: LinkState, now: Instant) -> Self {
        Self {
            interface: config.interface.clone(),
            mtu: config.mtu,
            state,
            why: None,
            narrow: Trouble::None,
            crowded: Trouble::None,
            next_look: now + LOOK,
            news: Vec::new(),
        }
    }

    pub(super) fn state(&self) -> LinkState {
        self.state
    }

    pub(super) fn is_up(&self) -> bool {
        self.state == LinkState::Up
    }

    pub(super) fn why(&self) -> Option<&String> {
        self.why.as_ref()
    }

    pub(super) fn next_look(&self) -> Instant {
        self.next_look
    }

    /// Whether it is time to look: the interface has changed, or was not looked at for long.
    pub(super) fn is_due(&mut self, device: &mut dyn FrameDevice, now: Instant) -> bool {
        let due = device.has_changed() || now >= self.next_look;
        if due {
            self.next_look = now
                + match device.watches() {
                    Watches::Itself => SECOND_LOOK,
                    Watches::Nothing => LOOK,
                };
        }
        due
    }

    /// The interface was looked at: its state, and the longest packet that it takes.
    pub(super) fn look(&mut self, state: LinkState, mtu: u32) -> Seen {
        let before = core::mem::replace(&mut self.state, state);
        if before != state {
            self.tell(LinkNews::Carrier { interface: self.interface.clone(), state });
        }
        self.look_at_mtu(mtu);
        match (before, state) {
            (before, after) if before == after => Seen::AsBefore,
            (LinkState::Up, _) => Seen::Lost,
            _ => Seen::Changed,
        }
    }

    fn look_at_mtu(&mut self, mtu: u32) {
        // One that is gone has none.
        let is_narrow = mtu < self.mtu && self.state != LinkState::Gone;
        if is_narrow && self.narrow == Trouble::None {
            self.tell(LinkNews::Narrow { interface: self.interface.clone(), has: mtu, wanted: self.mtu });
        }
        self.narrow = if is_narrow { Trouble::Told } else { Trouble::None };
    }

    /// The interface is there again with its device: the next look, at once, sees its state, and tells.
    pub(super) fn replaced(&mut self, now: Instant) {
        self.next_look = now;
        self.why = None;
    }

    /// The interface is there again, and cannot be used: told when the reason is another one.
    pub(super) fn not_replaced(&mut self, why: String) {
        if self.why.as_ref() != Some(&why) {
            self.tell(LinkNews::Unusable { interface: self.interface.clone(), why: why.clone() });
            self.why = Some(why);
        }
    }

    /// Somebody wanted a socket, and there was none: told once, until some are free again.
    pub(super) fn crowded(&mut self, limit: usize) {
        if self.crowded == Trouble::None {
            self.crowded = Trouble::Told;
            self.tell(LinkNews::Crowded { interface: self.interface.clone(), limit });
        }
    }

    /// Sockets are free.
    pub(super) fn roomy(&mut self) {
        self.crowded = Trouble::None;
    }

    pub(super) fn tell(&mut self, news: LinkNews) {
        if self.news.len() < NEWS_MAX {
            self.news.push(news);
        }
    }

    pub(super) fn take_news(&mut self) -> Vec<LinkNews> {
        core::mem::take(&mut self.news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_told_once_and_again_when_it_comes_again() {
        let now = Instant::EPOCH;
        let mut watch = Watch::new(&LinkConfig::new("eth1", 1), LinkState::Up, now);
        let looks =
            [(LinkState::Up, 9000), (LinkState::Up, 1500), (LinkState::Up, 1500), (LinkState::Gone, 0)];
        let seen = looks.map(|(state, mtu)| watch.look(state, mtu));
        assert_eq!(seen, [Seen::AsBefore, Seen::AsBefore, Seen::AsBefore, Seen::Lost]);
        assert_eq!(watch.look(LinkState::Up, 9000), Seen::Changed);
        assert_eq!(watch.look(LinkState::Up, 8999), Seen::AsBefore);
        let narrow = |news: &LinkNews| matches!(news, LinkNews::Narrow { .. });
        let news = watch.take_news();
        assert_eq!(news.iter().filter(|one| narrow(one)).count(), 2, "{news:?}");
        assert!(news[0].to_string().contains("MTU is 1500 now: `ip link set eth1 mtu 9000`"), "{}", news[0]);
        (0..3).for_each(|_| watch.crowded(16));
        watch.roomy();
        watch.crowded(16);
        let news = watch.take_news();
        assert!(news.len() == 2 && news[0].to_string().contains("all 16 sockets"), "{news:?}");
    }
}
