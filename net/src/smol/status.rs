//! What a link says of itself.

use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use engine::packet::{LinkState, PacketStats};
use engine::{Instant, LatencySummary};

use super::config::IpNet;
use super::device::{FrameDevice, Properties};
use super::path::PathCheck;

/// Counters of a link since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Of its device.
    pub frames: PacketStats,
    /// TCP segments with data sent.
    pub segments: u64,
    /// Of these, sent again. One that is cut on its way counts once.
    pub retransmissions: u64,
    /// Received segments whose checksum was wrong.
    pub corrupt: u64,
    /// Answers that the transmit ring had no room for.
    pub unsent: u64,
    /// Payload bytes copied from segments to sockets' buffers: each byte sent, once.
    pub copied_out: u64,
    /// Payload bytes that readers took out of sockets' buffers: each byte received, once.
    pub copied_in: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections begun.
    pub connects: u64,
    /// Times that the carrier was lost.
    pub carrier_losses: u64,
}

/// A link at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// Whether it carries frames.
    pub state: LinkState,
    /// Why its interface, which had gone and is there again, cannot be used.
    pub why: Option<String>,
    /// Bytes a second, received and sent, over about the last second.
    pub rates: [u64; 2],
    /// Its device.
    pub device: Properties,
    /// The longest packet that it sends.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Sockets in all, and those in use.
    pub sockets: (usize, usize),
    /// What passed.
    pub counters: LinkCounters,
    /// How long acknowledgements took, with the time that the far end held them back.
    pub round_trips: LatencySummary,
    /// Hosts that were talked to, and whether the longest packets reach them.
    pub paths: Vec<(IpAddr, PathCheck)>,
}

/// Over how long a rate is taken.
const SECOND: Duration = Duration::from_secs(1);

/// How much passed in about the last second.
pub(super) struct Meter {
    since: Instant,
    bytes: [u64; 2],
    rates: [u64; 2],
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, bytes: [0; 2], rates: [0; 2] }
    }

    /// Looks at the device, once in a second.
    pub(super) fn note(&mut self, device: &mut dyn FrameDevice, now: Instant) {
        let time = now.saturating_since(self.since);
        if time < SECOND {
            return;
        }
        let stats = device.stats();
        let bytes = [stats.received_bytes, stats.sent_bytes];
        let rate = |way: usize| {
            let passed = u128::from(bytes[way].saturating_sub(self.bytes[way]));
            u64::try_from(passed * 1_000_000_000 / time.as_nanos()).unwrap_or(u64::MAX)
        };
        self.rates = [rate(0), rate(1)];
        (self.since, self.bytes) = (now, bytes);
    }

    pub(super) fn rates(&self) -> [u64; 2] {
        self.rates
    }
}

/// Something that an operator may have to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkNews {
    /// The interface carries frames, or does so no more.
    Carrier {
        /// Which.
        interface: String,
        /// What it came to.
        state: LinkState,
    },
    /// The interface had gone and is there again, and cannot be used.
    Unusable {
        /// Which.
        interface: String,
        /// Why, and what to do.
        why: String,
    },
    /// The interface takes shorter packets than before.
    Narrow {
        /// Which.
        interface: String,
        /// Its MTU now.
        has: u32,
        /// What the link sends.
        wanted: u32,
    },
    /// Connections were refused, because all sockets of the link are in use.
    Crowded {
        /// Which.
        interface: String,
        /// How many there are.
        limit: usize,
    },
    /// The kernel has an address of the link's, since the link was made.
    Clash {
        /// Which.
        address: IpAddr,
        /// On which interface.
        interface: String,
    },
    /// It has become known how far the longest packets get.
    Path {
        /// The far end.
        host: IpAddr,
        /// What is known.
        check: PathCheck,
        /// The longest packet in bytes.
        mtu: u32,
    },
}

impl fmt::Display for LinkNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Carrier { interface, state } => {
                let words = match state {
                    LinkState::Up => "is up",
                    LinkState::NoCarrier => "has no carrier: look at the cable and at the other end",
                    LinkState::Down => "was set down",
                    LinkState::Gone => "is there no more; one of that name takes its place",
                };
                write!(f, "interface {interface} {words}")
            }
            Self::Unusable { interface, why } => {
                write!(f, "interface {interface} is there again and cannot be used: {why}")
            }
            Self::Narrow { interface, has, wanted } => write!(
                f,
                "interface {interface} was made narrower: its MTU is {has} now: `ip link set {interface} mtu {wanted}`, or data will stall"
            ),
            Self::Crowded { interface, limit } => write!(
                f,
                "interface {interface}: all {limit} sockets are in use, and connections are refused. Give the link more (--sockets): an array \
                 takes about 14"
            ),
            Self::Clash { address, interface } => write!(
                f,
                "the kernel has {address} now, on interface {interface}: both answer, and connections are reset. \
                 `ip addr del {address} dev {interface}`"
            ),
            Self::Path { host, check: PathCheck::TooNarrow, mtu } => write!(
                f,
                "packets of {mtu} bytes do not reach {host}, short ones do: data will stall. Set the MTU to {mtu} at both ends \
                 and on every switch between, or give the link a smaller mtu"
            ),
            Self::Path { host, check: PathCheck::Silent, mtu } => {
                write!(f, "{host} answers no echo: whether packets of {mtu} bytes reach it is not known")
            }
            Self::Path { host, check: PathCheck::Whole | PathCheck::Asking, mtu } => {
                write!(f, "packets of {mtu} bytes reach {host}")
            }
        }
    }
}
