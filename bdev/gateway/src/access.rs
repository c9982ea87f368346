//! Who may use a target: initiator groups by name and by network, as SPDK has them.

use core::net::IpAddr;
use core::str::FromStr;

use thiserror::Error;

/// A network, or any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetMask {
    /// Every address.
    Any,
    /// Addresses whose first `prefix` bits are those of `address`.
    Network {
        /// The network's address.
        address: IpAddr,
        /// Significant bits.
        prefix: u8,
    },
}

/// Not a network.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("bad netmask {0:?}: use ANY, an address, or ADDRESS/PREFIX")]
pub struct NetMaskError(String);

impl FromStr for NetMask {
    type Err = NetMaskError;

    fn from_str(text: &str) -> Result<Self, NetMaskError> {
        if text.eq_ignore_ascii_case("any") || text == "ALL" {
            return Ok(Self::Any);
        }
        let bad = || NetMaskError(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.trim_matches(['[', ']']).parse().map_err(|_| bad())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), |prefix| prefix.parse().map_err(|_| bad()))?;
        if prefix > longest { Err(bad()) } else { Ok(Self::Network { address, prefix }) }
    }
}

impl NetMask {
    /// True when the address is in the network.
    pub fn contains(&self, candidate: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Network { address, prefix } => shared_bits(*address, candidate) >= Some(u32::from(*prefix)),
        }
    }
}

/// Leading bits that two addresses of one family have in common.
fn shared_bits(a: IpAddr, b: IpAddr) -> Option<u32> {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => Some((u32::from(a) ^ u32::from(b)).leading_zeros()),
        (IpAddr::V6(a), IpAddr::V6(b)) => Some((u128::from(a) ^ u128::from(b)).leading_zeros()),
        _ => None,
    }
}

/// Initiators that are let in together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitiatorGroup {
    /// Its tag.
    pub tag: i32,
    /// Names, `ANY`, or `!name` to keep one out.
    pub initiators: Vec<String>,
    /// Networks.
    pub netmasks: Vec<NetMask>,
}

/// What a group says of an initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Let in.
    Allowed,
    /// Kept out by name.
    Denied,
    /// Not this group's business.
    NotListed,
}

impl InitiatorGroup {
    /// What the group says of an initiator at an address. The first entry that names it decides.
    pub fn judge(&self, initiator: &str, address: IpAddr) -> Verdict {
        // iSCSI names compare without regard to case (RFC 3722 folds them).
        let names = |entry: &str| entry.eq_ignore_ascii_case("any") || entry.eq_ignore_ascii_case(initiator);
        for entry in &self.initiators {
            match entry.strip_prefix('!') {
                Some(denied) if names(denied) => return Verdict::Denied,
                None if names(entry) => {
                    let near = self.netmasks.iter().any(|mask| mask.contains(address));
                    return if near { Verdict::Allowed } else { Verdict::NotListed };
                }
                _ => {}
            }
        }
        Verdict::NotListed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        let mask: NetMask = "192.168.4.0/22".parse().expect("a network");
        assert!(mask.contains("192.168.7.255".parse().expect("address")));
        assert!(!mask.contains("192.168.8.0".parse().expect("address")));
        assert!(!mask.contains("::1".parse().expect("address")));
        assert!("ANY".parse::<NetMask>().expect("any").contains("::1".parse().expect("address")));
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "x", "10.0.0.0/"] {
            bad.parse::<NetMask>().expect_err(bad);
        }
    }

    #[test]
    fn the_first_entry_that_names_an_initiator_decides() {
        let group = InitiatorGroup {
            tag: 1,
            initiators: vec!["!iqn.bad".into(), "ANY".into()],
            netmasks: vec!["127.0.0.1".parse().expect("a network")],
        };
        let near = "127.0.0.1".parse().expect("address");
        assert_eq!(group.judge("iqn.BAD", near), Verdict::Denied);
        assert_eq!(group.judge("iqn.good", near), Verdict::Allowed);
        assert_eq!(group.judge("iqn.good", "127.0.0.2".parse().expect("address")), Verdict::NotListed);
    }
}
