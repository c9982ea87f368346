//! The one place that knows both block devices and the network, in two directions that mirror each other:
//! [`export`] makes a LUN of a bdev, [`remote`] makes a bdev of a LUN. [`translate`] is the table between their errors.

pub mod access;
pub mod auth;
pub mod export;
mod payload;
pub mod remote;
pub mod translate;
pub mod turn;
pub mod url;
mod wire;

pub use access::{InitiatorGroup, LunMask, NetMask};
pub use auth::{AuthGroup, AuthPolicy, User};
pub use export::{
    ConnectionInfo, Departure, ExportError, Limits, LunAccess, LunConfig, LunInfo, LunMode, LunOptions,
    LunProvisioning, Map, NodeConfig, PORTAL_GROUP_TAG_MAX, PeerConfig, Percent, Portal, PortalGroup,
    Redirect, StandbyMode, Target, TargetConfig, Visibility,
};
pub use remote::{
    Discovered, Discovery, DiscoveryConfig, Remote, RemoteConfig, Rung, RungTimes, Served, Way, WayNews,
    WayState,
};
pub use turn::{Stations, poll_in_order};
pub use url::LunUrl;
