//! Which address to connect to: the configured one, or where the target says that it has moved (RFC 7143 section 11.13.5).

use core::net::{IpAddr, SocketAddr};

use iscsi::Moved;

/// Redirections in a row that are followed.
const HOPS_MAX: u32 = 4;

#[derive(Debug)]
pub(super) struct Route {
    /// Where to begin: the configured address, or where the target has moved for good.
    home: SocketAddr,
    /// Where to go this time instead.
    detour: Option<SocketAddr>,
    hops: u32,
}

impl Route {
    pub(super) fn to(home: SocketAddr) -> Self {
        Self { home, detour: None, hops: 0 }
    }

    /// The address of the next attempt. A temporary redirection counts once.
    pub(super) fn next(&mut self) -> SocketAddr {
        self.detour.take().unwrap_or(self.home)
    }

    /// A session is up.
    pub(super) fn arrived(&mut self) {
        self.hops = 0;
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
            Moved::Permanently => self.home = target,
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
    fn a_detour_counts_once_and_a_move_for_good() {
        let home: SocketAddr = "10.0.0.1:3260".parse().expect("address");
        let mut route = Route::to(home);
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
}
