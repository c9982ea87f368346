//! `iscsi://ADDRESS[:PORT]/TARGET/LUN`, as libiscsi's tools write it, with a numerical address.

use core::net::{IpAddr, SocketAddr};
use core::str::FromStr;

use thiserror::Error;

/// A LUN at a portal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LunUrl {
    /// The portal.
    pub portal: SocketAddr,
    /// The target's name.
    pub target: String,
    /// The unit's number.
    pub lun: u16,
}

/// Not the URL of a LUN.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("bad URL {0:?}: use iscsi://ADDRESS[:PORT]/TARGET/LUN with a numerical address")]
pub struct UrlError(String);

impl FromStr for LunUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        parse(text).ok_or_else(|| UrlError(text.to_owned()))
    }
}

/// A portal as `ADDRESS[:PORT]`, with a numerical address.
pub fn portal(text: &str) -> Option<SocketAddr> {
    let bare = || Some(SocketAddr::new(text.trim_matches(['[', ']']).parse::<IpAddr>().ok()?, iscsi::PORT));
    text.parse().ok().or_else(bare)
}

fn parse(text: &str) -> Option<LunUrl> {
    let mut parts = text.strip_prefix("iscsi://")?.splitn(3, '/');
    let (address, target, lun) = (parts.next()?, parts.next()?, parts.next()?);
    Some(LunUrl { portal: portal(address)?, target: target.to_owned(), lun: lun.parse().ok()? })
        .filter(|url| !url.target.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_parse_or_are_refused() {
        let url: LunUrl = "iscsi://127.0.0.1:3270/iqn.2026-11.org.gemel:d0/1".parse().expect("a URL");
        assert_eq!((url.portal.port(), url.lun), (3270, 1));
        assert_eq!("iscsi://[::1]/iqn.x/0".parse::<LunUrl>().expect("a URL").portal.port(), 3260);
        assert_eq!(url.target, "iqn.2026-11.org.gemel:d0");
        "http://127.0.0.1/x/0".parse::<LunUrl>().expect_err("another scheme");
        "iscsi://127.0.0.1/x/y".parse::<LunUrl>().expect_err("no number");
        for bad in ["", "iscsi://", "iscsi://127.0.0.1/iqn.x", "iscsi://127.0.0.1//0", "iscsi://host/iqn.x/0"]
        {
            bad.parse::<LunUrl>().expect_err(bad);
        }
    }
}
