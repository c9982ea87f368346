//! How often a host that does not answer is asked for its Ethernet address. Pure.
//!
//! smoltcp would ask once in a second of its clock, which runs hundreds of times as fast as the world's: thousands of broadcasts a second,
//! from each link, for as long as its peer is away. So what it asks passes here, less and less often.

use core::cell::RefCell;
use core::net::IpAddr;
use core::time::Duration;

use engine::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, Icmpv6Message, Icmpv6Packet,
    IpProtocol, Ipv6Packet,
};

/// Between the first two questions; twice as long between each two after that.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// Between two questions at the most.
const LAST_PAUSE: Duration = Duration::from_millis(100);
/// Whoever was not asked for so long is asked as for the first time.
const FORGOTTEN: Duration = Duration::from_secs(1);
/// Hosts that are remembered.
const HOSTS_MAX: usize = 16;

/// What a frame says about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Talk {
    /// It asks for this one.
    Asks(IpAddr),
    /// This one answers.
    Answers(IpAddr),
}

impl Talk {
    /// `None` where the frame says nothing of the kind (RFC 826; RFC 4861, section 4).
    pub(super) fn of(frame: &[u8]) -> Option<Self> {
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        match ethernet.ethertype() {
            EthernetProtocol::Arp => {
                let packet = ArpPacket::new_checked(ethernet.payload()).ok()?;
                let ArpRepr::EthernetIpv4 { operation, source_protocol_addr, target_protocol_addr, .. } =
                    ArpRepr::parse(&packet).ok()?
                else {
                    return None;
                };
                match operation {
                    ArpOperation::Request => Some(Self::Asks(target_protocol_addr.into())),
                    ArpOperation::Reply => Some(Self::Answers(source_protocol_addr.into())),
                    ArpOperation::Unknown(_) => None,
                }
            }
            EthernetProtocol::Ipv6 => {
                let packet = Ipv6Packet::new_checked(ethernet.payload()).ok()?;
                if packet.next_header() != IpProtocol::Icmpv6 {
                    return None;
                }
                let message = Icmpv6Packet::new_checked(packet.payload()).ok()?;
                match message.msg_type() {
                    Icmpv6Message::NeighborSolicit => Some(Self::Asks(message.target_addr().into())),
                    Icmpv6Message::NeighborAdvert => Some(Self::Answers(message.target_addr().into())),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// A host that has not answered yet.
#[derive(Clone, Copy, Debug)]
struct Question {
    host: IpAddr,
    /// When it may be asked again, and how long after that once more.
    next: Instant,
    pause: Duration,
}

/// See the module.
#[derive(Default)]
pub(super) struct Neighbours {
    open: RefCell<Vec<Question>>,
}

impl Neighbours {
    /// Whether the stack's question may leave now.
    pub(super) fn may_ask(&self, host: IpAddr, now: Instant) -> bool {
        let mut open = self.open.borrow_mut();
        let known =
            open.iter().position(|one| one.host == host).filter(|at| now < open[*at].next + FORGOTTEN);
        if let Some(at) = known {
            let question = &mut open[at];
            if now < question.next {
                return false;
            }
            question.pause = (question.pause * 2).min(LAST_PAUSE);
            question.next = now + question.pause;
            return true;
        }
        open.retain(|one| one.host != host);
        if open.len() == HOSTS_MAX {
            open.remove(0);
        }
        open.push(Question { host, next: now + FIRST_PAUSE, pause: FIRST_PAUSE });
        true
    }

    /// A host has answered.
    pub(super) fn answered(&self, host: IpAddr) {
        self.open.borrow_mut().retain(|one| one.host != host);
    }

    /// When the next question may leave that the stack may want to ask before; `None` when it asks nobody.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.open.borrow().iter().map(|one| one.next).filter(|next| *next > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_host_that_does_not_answer_is_asked_less_and_less_often() {
        let (neighbours, host) = (Neighbours::default(), IpAddr::from([10, 0, 0, 2]));
        let begin = Instant::from(Duration::from_secs(1));
        let asked =
            |from: u32, to: u32| (from..to).filter(|ms| neighbours.may_ask(host, begin + MS * *ms)).count();
        assert_eq!(asked(0, 64), 7, "at 0, 1, 3, 7, 15, 31 and 63 ms");
        assert_eq!(asked(64, 1064), 10);
        // Others are not held back by it.
        let other = IpAddr::from([10, 0, 0, 3]);
        assert!(neighbours.may_ask(other, begin + MS * 1064));
        assert!(neighbours.next(begin + MS * 1064).is_some());
        neighbours.answered(host);
        neighbours.answered(other);
        assert_eq!(neighbours.next(begin), None);
        assert_eq!(asked(1064, 1067), 2, "anew");
        assert_eq!(asked(5000, 5003), 2, "nobody asked for a while");
    }
}
