//! Who may use a target: initiator groups by name and by network, as SPDK has them.

use std::collections::BTreeSet;

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
    /// As [`NetMask::Network`], and they are kept out.
    Barred {
        /// The network's address.
        address: IpAddr,
        /// Significant bits.
        prefix: u8,
    },
}

/// Not a network.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("bad netmask {0:?}: use ANY, an address, or ADDRESS/PREFIX, with ! before it to keep it out")]
pub struct NetMaskError(String);

impl FromStr for NetMask {
    type Err = NetMaskError;

    fn from_str(text: &str) -> Result<Self, NetMaskError> {
        if text.eq_ignore_ascii_case("any") || text == "ALL" {
            return Ok(Self::Any);
        }
        let bad = || NetMaskError(text.to_owned());
        if let Some(barred) = text.strip_prefix('!') {
            return match barred.parse()? {
                Self::Network { address, prefix } => Ok(Self::Barred { address, prefix }),
                Self::Any | Self::Barred { .. } => Err(bad()),
            };
        }
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
            Self::Network { address, prefix } | Self::Barred { address, prefix } => {
                shared_bits(*address, candidate) >= Some(u32::from(*prefix))
            }
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
    /// Names, `alias:` and an alias, or `ANY`; with `!` before it, an entry keeps out.
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

/// Who asks to be let in. Name and alias are what the initiator says. CHAP proves that it is one of the users of the authentication group,
/// and the one of that name only where users are tied to names ([`crate::User::initiators`]).
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// InitiatorName.
    pub name: &'a str,
    /// InitiatorAlias.
    pub alias: &'a str,
    /// Where it comes from.
    pub address: IpAddr,
}

impl InitiatorGroup {
    /// What the group says of an initiator. The first entry that names it decides, then the first network that it is in.
    pub fn judge(&self, caller: Caller<'_>) -> Verdict {
        // iSCSI names compare without regard to case (RFC 3722 folds them).
        let names = |entry: &str| match entry.strip_prefix("alias:") {
            Some(alias) => !alias.is_empty() && alias == caller.alias,
            None => entry.eq_ignore_ascii_case("any") || entry.eq_ignore_ascii_case(caller.name),
        };
        for entry in &self.initiators {
            match entry.strip_prefix('!') {
                Some(denied) if names(denied) => return Verdict::Denied,
                None if names(entry) => return self.judge_address(caller.address),
                _ => {}
            }
        }
        Verdict::NotListed
    }

    fn judge_address(&self, address: IpAddr) -> Verdict {
        match self.netmasks.iter().find(|mask| mask.contains(address)) {
            Some(NetMask::Barred { .. }) => Verdict::Denied,
            Some(_) => Verdict::Allowed,
            None => Verdict::NotListed,
        }
    }
}

/// Which LUNs of a target an initiator sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LunMask {
    /// All.
    #[default]
    All,
    /// These.
    Only(BTreeSet<u16>),
}

impl LunMask {
    /// True when a LUN shows.
    pub fn shows(&self, number: u16) -> bool {
        match self {
            Self::All => true,
            Self::Only(shown) => shown.contains(&number),
        }
    }

    /// What either shows.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        match (self, other) {
            (Self::Only(a), Self::Only(b)) => Self::Only(a.union(b).copied().collect()),
            _ => Self::All,
        }
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
    fn masks_add_up() {
        let only = |numbers: &[u16]| LunMask::Only(numbers.iter().copied().collect());
        let both = only(&[1]).or(&only(&[3]));
        assert!(both.shows(1) && both.shows(3) && !both.shows(0));
        assert_eq!(both.or(&LunMask::All), LunMask::All);
    }

    #[test]
    fn the_first_entry_that_names_an_initiator_decides() {
        let group = InitiatorGroup {
            tag: 1,
            initiators: vec!["!iqn.bad".into(), "ANY".into()],
            netmasks: vec!["127.0.0.1".parse().expect("a network")],
        };
        let judge = |group: &InitiatorGroup, name, alias, address: &str| {
            group.judge(Caller { name, alias, address: address.parse().expect("address") })
        };
        assert_eq!(judge(&group, "iqn.BAD", "", "127.0.0.1"), Verdict::Denied);
        assert_eq!(judge(&group, "iqn.good", "", "127.0.0.1"), Verdict::Allowed);
        assert_eq!(judge(&group, "iqn.good", "", "127.0.0.2"), Verdict::NotListed);
        let netmasks = ["!10.0.0.5", "10.0.0.0/24"].map(|mask| mask.parse().expect("a network")).to_vec();
        let group =
            InitiatorGroup { tag: 2, initiators: vec!["!alias:old".into(), "alias:new".into()], netmasks };
        assert_eq!(judge(&group, "iqn.x", "new", "10.0.0.4"), Verdict::Allowed);
        assert_eq!(judge(&group, "iqn.x", "new", "10.0.0.5"), Verdict::Denied);
        assert_eq!(judge(&group, "iqn.x", "old", "10.0.0.4"), Verdict::Denied);
        assert_eq!(judge(&group, "iqn.x", "", "10.0.0.4"), Verdict::NotListed);
        "!ANY".parse::<NetMask>().expect_err("nobody at all");
    }
}
