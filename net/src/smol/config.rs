//! What a link is made of, and what is wrong with it.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;
use core::time::Duration;

use engine::packet::PacketError;
use thiserror::Error;

use super::kernel::DeviceKind;

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IpNet {
    /// The address.
    pub address: IpAddr,
    /// Bits that all addresses of the network share.
    pub prefix: u8,
}

/// Not an address with a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no address of a network: use ADDRESS/PREFIX, as 10.0.0.1/24 or fd00::1/64")]
pub struct UnknownNet(String);

impl FromStr for IpNet {
    type Err = UnknownNet;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownNet(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(unknown)?;
        let address: IpAddr = address.parse().map_err(|_| unknown())?;
        let prefix: u8 = prefix.parse().map_err(|_| unknown())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if prefix > bits { Err(unknown()) } else { Ok(Self { address, prefix }) }
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// What a loss is taken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// A loss: as much stays under way as the far end has room for. For a link that replication has for itself.
    #[default]
    None,
    /// Others who need the path, too: less is sent for a while (RFC 5681). For a path with a slower part in it, or with others on it.
    Reno,
}

/// Not a way to deal with congestion.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no congestion control: use none or reno")]
pub struct UnknownCongestion(String);

impl FromStr for Congestion {
    type Err = UnknownCongestion;

    fn from_str(text: &str) -> Result<Self, UnknownCongestion> {
        match text {
            "none" => Ok(Self::None),
            "reno" => Ok(Self::Reno),
            other => Err(UnknownCongestion(other.to_owned())),
        }
    }
}

/// What a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// The interface.
    pub interface: String,
    /// What carries its frames.
    pub device: DeviceKind,
    /// Its addresses; the kernel must have none of them.
    pub addresses: Vec<IpNet>,
    /// The way to other networks, for each family at the most one.
    pub gateways: Vec<IpAddr>,
    /// The longest packet in bytes, without the Ethernet header.
    pub mtu: u32,
    /// The link's Ethernet address; one derived from the interface's when absent.
    pub hardware_address: Option<[u8; 6]>,
    /// Connections, also half-open ones and those that end.
    pub sockets: usize,
    /// Bytes that one connection buffers in each direction.
    pub buffer: usize,
    /// Frames that each ring of the interface holds.
    pub ring_frames: u32,
    /// What a loss is taken for.
    pub congestion: Congestion,
    /// The shortest retransmission timeout.
    pub min_rto: Duration,
    /// How long an acknowledgement waits for data that it can ride on.
    pub ack_delay: Duration,
    /// How long a connection may take to be established.
    pub connect_timeout: Duration,
    /// Decides ports and sequence numbers: take it from a random source.
    pub seed: u64,
}

impl LinkConfig {
    /// Jumbo frames on `interface`, and defaults for the rest.
    pub fn new(interface: &str, seed: u64) -> Self {
        Self {
            interface: interface.to_owned(),
            device: DeviceKind::default(),
            addresses: Vec::new(),
            gateways: Vec::new(),
            mtu: 9000,
            hardware_address: None,
            sockets: 32,
            buffer: 512 << 10,
            ring_frames: 256,
            congestion: Congestion::default(),
            min_rto: Duration::from_micros(500),
            ack_delay: Duration::from_micros(200),
            connect_timeout: Duration::from_secs(5),
            seed,
        }
    }

    /// Everything that can be told without the machine.
    pub(super) fn check(&self) -> Result<(), LinkError> {
        let wrong = |what: String| Err(LinkError::Config(what));
        if self.addresses.is_empty() || self.addresses.len() > ADDRESSES_MAX {
            return wrong(format!("name 1 to {ADDRESSES_MAX} addresses"));
        }
        for (index, net) in self.addresses.iter().enumerate() {
            if !is_host(net.address) {
                return wrong(format!("{net} is no address of one host"));
            }
            if self.addresses[..index].iter().any(|other| other.address == net.address) {
                return wrong(format!("{} is named twice", net.address));
            }
        }
        for (index, gateway) in self.gateways.iter().enumerate() {
            if !self.addresses.iter().any(|net| net.contains(*gateway) && net.address != *gateway) {
                return wrong(format!("the gateway {gateway} is in no network of the link's"));
            }
            if self.gateways[..index].iter().any(|other| other.is_ipv4() == gateway.is_ipv4()) {
                return wrong("there can be one gateway for each of IPv4 and IPv6".to_owned());
            }
        }
        let least = if self.addresses.iter().any(|net| net.address.is_ipv6()) { 1280 } else { 576 };
        if !(least..=9216).contains(&self.mtu) {
            return wrong(format!("mtu must be {least} to 9216, not {}", self.mtu));
        }
        if self.hardware_address.is_some_and(|address| address[0] & 1 != 0 || address == [0; 6]) {
            return wrong("the Ethernet address is none of one host".to_owned());
        }
        if !(Duration::from_micros(250)..=Duration::from_secs(1)).contains(&self.min_rto) {
            return wrong("min_rto must be 250 us to 1 s".to_owned());
        }
        if self.ack_delay * 2 > self.min_rto {
            return wrong(
                "ack_delay must be at most half of min_rto: the far end would send again".to_owned(),
            );
        }
        let bounds = [
            ("sockets", self.sockets, 4, 256),
            ("buffer", self.buffer, 64 << 10, 8 << 20),
            ("ring_frames", self.ring_frames as usize, 32, 4096),
        ];
        match bounds.iter().find(|(_, value, least, most)| !(least..=most).contains(&value)) {
            Some((name, value, least, most)) => {
                wrong(format!("{name} must be {least} to {most}, not {value}"))
            }
            None => Ok(()),
        }
    }
}

/// Addresses of one link, as many as smoltcp is built for.
const ADDRESSES_MAX: usize = 8;

fn is_host(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast)
}

impl IpNet {
    /// True when the address is in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shared = |mine: u128, other: u128, bits: u32| {
            let rest = bits - u32::from(self.prefix);
            mine.checked_shr(rest).unwrap_or(0) == other.checked_shr(rest).unwrap_or(0)
        };
        match (self.address, address) {
            (IpAddr::V4(mine), IpAddr::V4(other)) => {
                shared(u128::from(u32::from(mine)), u128::from(u32::from(other)), 32)
            }
            (IpAddr::V6(mine), IpAddr::V6(other)) => shared(u128::from(mine), u128::from(other), 128),
            _ => false,
        }
    }
}

/// Why there is no link.
#[derive(Debug, Error)]
pub enum LinkError {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Config(String),
    /// The kernel has the address.
    #[error(
        "the kernel has {address} too, on interface {interface}, and both would answer: take it away there \
         (`ip addr del {address} dev {interface}`), or choose another"
    )]
    AddressTaken {
        /// Which.
        address: IpAddr,
        /// Where.
        interface: String,
    },
    /// The interface cannot be used.
    #[error(transparent)]
    Device(#[from] PacketError),
    /// The system says no to something else.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The reason.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> LinkConfig {
        LinkConfig { addresses: vec![net("10.0.0.1/24")], ..LinkConfig::new("eth1", 1) }
    }

    fn net(text: &str) -> IpNet {
        text.parse().expect(text)
    }

    #[test]
    fn networks_parse_as_they_print_and_know_their_own() {
        for text in ["10.0.0.1/24", "0.0.0.0/0", "fd00::1/64", "10.0.0.1/32"] {
            assert_eq!(net(text).to_string(), text);
        }
        for text in ["", "10.0.0.1", "10.0.0.1/33", "fd00::1/129", "10.0.0.1/", "a/24", "10.0.0.1/-1"] {
            text.parse::<IpNet>().expect_err(text);
        }
        let address = |text: &str| text.parse::<IpAddr>().expect(text);
        assert!(net("10.0.0.1/24").contains(address("10.0.0.255")));
        assert!(!net("10.0.0.1/24").contains(address("10.0.1.0")));
        assert!(net("0.0.0.0/0").contains(address("192.0.2.1")));
        assert!(!net("0.0.0.0/0").contains(address("fd00::1")));
        assert!(net("fd00::1/64").contains(address("fd00::ffff")) && !net("::/128").contains(address("::1")));
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_words() {
        config().check().expect("sound");
        let refused = |change: &dyn Fn(&mut LinkConfig), words: &str| {
            let mut config = config();
            change(&mut config);
            let error = config.check().expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(&|config| config.addresses.clear(), "1 to 8 addresses");
        refused(&|config| config.addresses = vec![net("224.0.0.1/8")], "one host");
        refused(&|config| config.addresses.push(net("10.0.0.1/8")), "twice");
        refused(&|config| config.gateways = vec![IpAddr::from([10, 0, 1, 1])], "in no network");
        refused(&|config| config.gateways = vec![[10, 0, 0, 2].into(), [10, 0, 0, 3].into()], "one gateway");
        refused(&|config| config.mtu = 9217, "mtu");
        refused(&|config| config.hardware_address = Some([1, 0, 0, 0, 0, 0]), "one host");
        refused(&|config| config.min_rto = Duration::ZERO, "min_rto");
        refused(&|config| config.ack_delay = Duration::from_millis(3), "ack_delay");
        refused(&|config| config.sockets = 0, "sockets");
        refused(&|config| config.buffer = 1 << 30, "buffer");
    }
}
