//! What a link says of itself.

use core::fmt;
use core::net::IpAddr;

use engine::LatencySummary;
use engine::packet::{LinkState, PacketStats};

use super::config::IpNet;
use super::device::Properties;
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
