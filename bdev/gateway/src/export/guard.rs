//! Keeps logins from getting in the way of sessions: how many connections may be logging in, in all and from one address, and
//! how fast they may come.
//!
//! Owner: the target. Sessions are never touched. An address that floods loses its own oldest logins first.

use std::collections::BTreeMap;

use core::net::IpAddr;
use engine::Instant;

use super::Limits;

/// Addresses whose rate is remembered at the most.
const ADDRESSES_MAX: usize = 4096;

/// Who counts as one: an IPv4 address, or a network of IPv6 in which every address is one host's to choose (RFC 4291 section
/// 2.5.4).
pub(super) fn origin_of(address: IpAddr) -> IpAddr {
    match address {
        // Every host of a link has the same network here.
        IpAddr::V6(address) if address.is_unicast_link_local() => address.into(),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        address @ IpAddr::V4(_) => address,
    }
}

/// What to do with a connection that was just accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Let it log in.
    Welcome,
    /// Let it log in, and end this one, which is logging in too.
    Instead(u64),
    /// Close it.
    TurnedAway,
}

/// A connection that is logging in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) id: u64,
    pub(super) address: IpAddr,
}

/// Logins that an address may begin now, in thousandths, and when that was true.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: u64,
    at: Instant,
}

#[derive(Debug, Default)]
pub(super) struct LoginGuard {
    buckets: BTreeMap<IpAddr, Bucket>,
}

const TOKEN: u64 = 1000;

impl LoginGuard {
    /// Judges a connection; `pending` are those that are logging in, the oldest first.
    pub(super) fn judge(
        &mut self,
        limits: &Limits,
        pending: &[Pending],
        address: IpAddr,
        now: Instant,
    ) -> Verdict {
        if !self.take(limits, address, now) {
            return Verdict::TurnedAway;
        }
        let of = |address| pending.iter().filter(move |pending| pending.address == address);
        if of(address).count() >= limits.logins_per_address {
            // The newest of one address replaces its oldest: a host that died in a login is not locked out by its own remains.
            return of(address).next().map_or(Verdict::TurnedAway, |oldest| Verdict::Instead(oldest.id));
        }
        if pending.len() < limits.logins {
            return Verdict::Welcome;
        }
        let crowd = pending.iter().max_by_key(|pending| of(pending.address).count());
        match crowd {
            Some(crowd) if of(crowd.address).count() > of(address).count() + 1 => {
                of(crowd.address).next().map_or(Verdict::TurnedAway, |oldest| Verdict::Instead(oldest.id))
            }
            _ => Verdict::TurnedAway,
        }
    }

    fn take(&mut self, limits: &Limits, address: IpAddr, now: Instant) -> bool {
        let full = u64::from(limits.login_burst) * TOKEN;
        let filled = |bucket: &Bucket| {
            let millis = u64::try_from(now.saturating_since(bucket.at).as_millis()).unwrap_or(u64::MAX);
            bucket.tokens.saturating_add(millis.saturating_mul(limits.logins_per_second.into())).min(full)
        };
        if self.buckets.len() >= ADDRESSES_MAX && !self.buckets.contains_key(&address) {
            // Those that are full again are as good as forgotten.
            self.buckets.retain(|_, bucket| filled(bucket) < full);
            if self.buckets.len() >= ADDRESSES_MAX {
                return false;
            }
        }
        let bucket = self.buckets.entry(address).or_insert(Bucket { tokens: full, at: now });
        let tokens = filled(bucket);
        // What is less than a token's time is not lost between two calls.
        if tokens != bucket.tokens || tokens == full {
            *bucket = Bucket { tokens, at: now };
        }
        if bucket.tokens < TOKEN {
            return false;
        }
        bucket.tokens -= TOKEN;
        true
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn host(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    fn pending(hosts: &[u8]) -> Vec<Pending> {
        hosts.iter().zip(1..).map(|(number, id)| Pending { id, address: host(*number) }).collect()
    }

    #[test]
    fn whoever_crowds_the_rest_out_loses_his_oldest_login() {
        let limits = Limits { logins: 4, logins_per_address: 3, ..Limits::default() };
        let mut guard = LoginGuard::default();
        let now = Instant::from_nanos(1);
        let mut judge = |hosts: &[u8], who| guard.judge(&limits, &pending(hosts), host(who), now);
        assert_eq!(judge(&[1, 1], 1), Verdict::Welcome);
        assert_eq!(judge(&[1, 1, 1], 1), Verdict::Instead(1), "its own limit");
        assert_eq!(judge(&[2, 1, 1, 1], 3), Verdict::Instead(2), "all places are taken");
        assert_eq!(judge(&[1, 2, 3, 4], 5), Verdict::TurnedAway, "nobody has more than his share");
        assert_eq!(judge(&[1, 1, 2, 2], 2), Verdict::TurnedAway);
    }

    #[test]
    fn logins_come_no_faster_than_they_may() {
        let limits = Limits { logins_per_second: 10, login_burst: 5, ..Limits::default() };
        let mut guard = LoginGuard::default();
        let mut now = Instant::from_nanos(1);
        let welcome = |guard: &mut LoginGuard, who, now| {
            (0..100).filter(|_| guard.judge(&limits, &[], host(who), now) == Verdict::Welcome).count()
        };
        assert_eq!(welcome(&mut guard, 1, now), 5);
        assert_eq!(welcome(&mut guard, 2, now), 5, "another address has its own");
        now += Duration::from_millis(250);
        assert_eq!(welcome(&mut guard, 1, now), 2);
        now += Duration::from_secs(100);
        assert_eq!(welcome(&mut guard, 1, now), 5);
    }

    #[test]
    fn a_network_of_one_host_is_one_origin() {
        let origin = |text: &str| origin_of(text.parse().expect("an address"));
        assert_eq!(origin("2001:db8::1:2:3:4"), origin("2001:db8::ffff:0:0:1"));
        assert_ne!(origin("2001:db8:0:1::1"), origin("2001:db8:0:2::1"));
        assert_ne!(origin("fe80::1"), origin("fe80::2"), "the network of a link is nobody's own");
        assert_ne!(origin("10.0.0.1"), origin("10.0.0.2"));
    }

    #[test]
    fn addresses_are_not_remembered_without_end() {
        let limits = Limits::default();
        let mut guard = LoginGuard::default();
        let now = Instant::from_nanos(1);
        for number in 0..ADDRESSES_MAX as u32 + 10 {
            let address = IpAddr::from(number.to_be_bytes());
            guard.judge(&limits, &[], address, now);
        }
        assert_eq!(guard.buckets.len(), ADDRESSES_MAX);
        guard.judge(&limits, &[], host(1), now + Duration::from_secs(60));
        assert_eq!(guard.buckets.len(), 1);
    }
}
