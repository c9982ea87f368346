//! What is driven: a LUN over iSCSI, or a device in this process.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;
use std::path::PathBuf;
use std::sync::Arc;

use bdev::malloc::MallocBdev;
use bdev::null::NullBdev;
use bdev::uring::{FileOptions, UringBdev, UringError};
use bdev::{Bdev, Channel, Geometry, OpenError};
use engine::{Core, Instant};
use gateway::{LunUrl, Remote, RemoteConfig};
use iscsi::keys::DigestPreference;
use net::tcp::{TcpConfig, TcpNetwork};
use thiserror::Error;
use uuid::Uuid;

use crate::pair::{LEG_MIN, Pair};
use crate::workload::ByteSize;

/// Something to drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A LUN, with the project's own initiator over kernel TCP.
    Iscsi(LunUrl),
    /// A file or block device in this process, through io_uring.
    File(PathBuf),
    /// A RAM disk in this process.
    Malloc(ByteSize),
    /// A mirrored pair in this process, both legs in RAM and no wire between: what the mirror itself costs.
    Mirror(ByteSize),
    /// A device in this process that does nothing: what the load generator itself costs.
    Null(ByteSize),
}

/// Not a target.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{0:?} is no target: use iscsi://ADDRESS[:PORT]/TARGET/LUN with a numerical address, file:PATH, malloc:SIZE, mirror:SIZE (of each leg, 16m at least) or null:SIZE"
)]
pub struct TargetError(String);

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let error = || TargetError(text.to_owned());
        let size = |size: &str| {
            let size = size.parse::<ByteSize>().ok().filter(|size| size.bytes() >= 4096);
            size.filter(|size| size.bytes().is_multiple_of(512)).ok_or_else(error)
        };
        match text.split_once(':') {
            Some(("iscsi", _)) => text.parse().map(Self::Iscsi).map_err(|_| error()),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(PathBuf::from(path))),
            Some(("malloc", bytes)) => size(bytes).map(Self::Malloc),
            Some(("mirror", bytes)) => size(bytes)
                .and_then(|leg| if leg.bytes() >= LEG_MIN { Ok(Self::Mirror(leg)) } else { Err(error()) }),
            Some(("null", bytes)) => size(bytes).map(Self::Null),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iscsi(url) => write!(f, "iscsi://{}/{}/{}", url.portal, url.target, url.lun),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Malloc(size) => write!(f, "malloc:{size}"),
            Self::Mirror(size) => write!(f, "mirror:{size}"),
            Self::Null(size) => write!(f, "null:{size}"),
        }
    }
}

/// How targets are opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Sessions (channels) at each target.
    pub sessions: u16,
    /// This end's iSCSI name.
    pub initiator: String,
    /// Header and data digests of iSCSI sessions.
    pub digests: DigestPreference,
    /// How long a command may take at a target that answers pings.
    pub io_timeout: Duration,
}

/// Why a target cannot be opened.
#[derive(Debug, Error)]
pub enum TargetOpenError {
    /// The file cannot be a device.
    #[error(transparent)]
    File(#[from] UringError),
    /// The device gives no channel.
    #[error(transparent)]
    Device(#[from] OpenError),
}

/// One session of one target.
pub struct Opened {
    /// The target and the session's number.
    pub name: String,
    /// Its channel.
    pub channel: Box<dyn Channel>,
}

/// Opens all sessions of all targets on a core with a ring, by the clock that the load is run by.
///
/// # Errors
/// See [`TargetOpenError`]. A portal that does not answer is found later, by the load.
pub fn open(
    targets: &[Target],
    options: &OpenOptions,
    core: &Core,
    now: Instant,
) -> Result<Vec<Opened>, TargetOpenError> {
    let mut opened = Vec::new();
    for target in targets {
        let device = device(target, core, now)?;
        for session in 0..options.sessions {
            let number = u16::try_from(opened.len()).unwrap_or(u16::MAX);
            let channel = match &device {
                Device::Far(url) => remote(url, number, options, core),
                Device::Here(device) => device.clone().open(core)?,
                Device::Pair(pair) => pair.open(core)?,
            };
            opened.push(Opened { name: format!("{target} session {session}"), channel });
        }
    }
    Ok(opened)
}

/// What sessions are opened at.
enum Device<'a> {
    Far(&'a LunUrl),
    Here(Arc<dyn Bdev>),
    Pair(Pair),
}

fn device<'a>(target: &'a Target, core: &Core, now: Instant) -> Result<Device<'a>, TargetOpenError> {
    let geometry =
        |size: &ByteSize| Geometry { block_size: 512, physical_block_size: 4096, blocks: size.bytes() / 512 };
    Ok(match target {
        Target::Iscsi(url) => Device::Far(url),
        Target::File(path) => {
            Device::Here(UringBdev::open_file("file", Uuid::nil(), path, FileOptions::new(512))?)
        }
        Target::Malloc(size) => Device::Here(MallocBdev::new("malloc", Uuid::nil(), geometry(size))),
        Target::Mirror(leg) => Device::Pair(Pair::new(geometry(leg), core, now)?),
        Target::Null(size) => Device::Here(NullBdev::new("null", Uuid::nil(), geometry(size))),
    })
}

fn remote(url: &LunUrl, number: u16, options: &OpenOptions, core: &Core) -> Box<dyn Channel> {
    let mut config = RemoteConfig::new(options.initiator.as_str(), url.target.as_str(), url.portal);
    config.lun = url.lun;
    config.io_timeout = options.io_timeout;
    config.silence_max = options.io_timeout;
    config.preferences.header_digest = options.digests;
    config.preferences.data_digest = options.digests;
    // Each session is a nexus of its own.
    let [high, low] = number.to_be_bytes();
    config.isid = Some([0x80, 0, 0, 0x70, high, low]);
    let remote = Remote::new(format!("session{number}"), Uuid::nil(), config);
    remote.open_over(core, Box::new(TcpNetwork::new(core, TcpConfig::default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_parse_as_they_are_shown() {
        for text in [
            "iscsi://127.0.0.1:3270/iqn.2026-11.org.gemel:d0/1",
            "file:/dev/shm/x:y",
            "malloc:64m",
            "null:1g",
        ] {
            assert_eq!(text.parse::<Target>().expect(text).to_string(), text);
        }
        for bad in [
            "",
            "malloc",
            "malloc:",
            "malloc:100",
            "null:-1",
            "mirror:8m",
            "file:",
            "iscsi://host/iqn/0",
            "http://x/",
        ] {
            bad.parse::<Target>().expect_err(bad);
        }
    }
}
