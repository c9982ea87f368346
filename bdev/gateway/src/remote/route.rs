//! Which address to connect to: one of those configured, in turn, or where the target says that it has moved (RFC 7143 section 11.13.5).

use core::net::{IpAddr, SocketAddr};

use iscsi::Moved;

/// Redirections in a row that are followed.
const HOPS_MAX: u32 = 4;

#[derive(Debug)]
pub(super) struct Route {
    /// Where to begin: the configured addresses, or where the target has moved for good. One at the least.
    homes: Vec<SocketAddr>,
    /// Which of them is next.
    at: usize,
    /// The last attempt has come to nothing so far.
    pending: bool,
    /// Where to go this time instead.
    detour: Option<SocketAddr>,
    hops: u32,
}

impl Route {
    /// # Panics
    /// Without an address.
    pub(super) fn to(homes: Vec<SocketAddr>) -> Self {
        assert!(!homes.is_empty(), "a target is somewhere");
        Self { homes, at: 0, pending: false, detour: None, hops: 0 }
    }

    pub(super) fn homes(&self) -> &[SocketAddr] {
        &self.homes
    }

    /// The addresses of a session that has one of them: all of home, or the one that it was sent to.
    pub(super) fn ways_with(&self, address: SocketAddr) -> Vec<SocketAddr> {
        if self.homes.contains(&address) { self.homes.clone() } else { vec![address] }
    }

    /// The address of the next attempt: another one than that of an attempt that came to nothing, if there are several. A temporary
    /// redirection counts once.
    pub(super) fn next(&mut self) -> SocketAddr {
        if let Some(detour) = self.detour.take() {
            return detour;
        }
        if core::mem::replace(&mut self.pending, true) {
            self.at = (self.at + 1) % self.homes.len();
        }
        self.homes[self.at]
    }

    /// A session is up.
    pub(super) fn arrived(&mut self) {
        self.hops = 0;
        self.pending = false;
    }

    /// The target has moved to `address` (`ADDRESS[:PORT][,TAG]`, numerical).
    ///
    /// # Errors
    /// Why that is not followed; the next attempt begins at home, after the usual pause.
    pub(super) fn follow(&mut self, address: &str, how: Moved) -> Result<(), &'static str> {
        let target = parse(address).ok_or("this is no numerical address")?;
        self.hops += 1;
        if self.hops > HOPS_MAX {
            self.hops = 0;
            return Err("too many redirections in a row");
        }
        match how {
            Moved::Permanently => *self = Self { hops: self.hops, ..Self::to(vec![target]) },
            Moved::Temporarily => self.detour = Some(target),
        }
        Ok(())
    }
}

fn parse(text: &str) -> Option<SocketAddr> {
    let address = text.split_once(',').map_or(text, |(address, _)| address);
    let bare =
        || Some(SocketAddr::new(address.trim_matches(['[', ']']).parse::<IpAddr>().ok()?, iscsi::PORT));
    address.parse().ok().or_else(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portals_take_turns_until_one_answers() {
        let portals: Vec<SocketAddr> =
            (1..=3).map(|host| SocketAddr::new(IpAddr::from([10, 0, 0, host]), 3260)).collect();
        let mut route = Route::to(portals.clone());
        assert_eq!(
            [route.next(), route.next(), route.next(), route.next()],
            [0, 1, 2, 0].map(|at| portals[at])
        );
        route.arrived();
        assert_eq!(
            [route.next(), route.next()],
            [0, 1].map(|at| portals[at]),
            "where it was, as long as it answers"
        );
        let elsewhere: SocketAddr = "10.9.9.9:3260".parse().expect("address");
        route.follow("10.9.9.9", Moved::Permanently).expect("an address");
        assert_eq!([route.next(), route.next()], [elsewhere; 2]);
    }

    #[test]
    fn a_detour_counts_once_and_a_move_for_good() {
        let home: SocketAddr = "10.0.0.1:3260".parse().expect("address");
        let mut route = Route::to(vec![home]);
        route.follow("10.0.0.2:3261,1", Moved::Temporarily).expect("an address");
        assert_eq!((route.next().to_string(), route.next()), ("10.0.0.2:3261".into(), home));
        route.follow("10.0.0.3", Moved::Permanently).expect("an address");
        assert_eq!((route.next().to_string(), route.next().port()), ("10.0.0.3:3260".into(), 3260));
        route.follow("[::1],7", Moved::Permanently).expect("an address");
        assert_eq!(route.next().to_string(), "[::1]:3260");
        route.follow("storage.example:3260", Moved::Temporarily).expect_err("a name");
        route.follow("10.0.0.4", Moved::Temporarily).expect("an address");
        route.follow("10.0.0.4", Moved::Temporarily).expect_err("in a circle");
        route.follow("10.0.0.4", Moved::Temporarily).expect("from the beginning");
    }

    #[test]
    fn a_detour_is_a_way_of_its_own() {
        let [one, other]: [SocketAddr; 2] =
            ["10.0.0.1:3260", "10.0.1.1:3260"].map(|text| text.parse().expect("address"));
        let mut route = Route::to(vec![one, other]);
        assert_eq!(route.next(), one);
        assert_eq!(route.ways_with(other), [one, other]);
        route.follow("10.0.0.2:3260", Moved::Temporarily).expect("an address");
        let detour = route.next();
        assert_eq!((route.ways_with(detour), route.next()), (vec![detour], other));
    }
}
