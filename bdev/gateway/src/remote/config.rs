//! How a remote device connects.

use core::net::SocketAddr;
use core::time::Duration;

use iscsi::Preferences;
use iscsi::chap::{Account, Algorithm};
use iscsi::keys::{Choice, DigestPreference};

use super::live::ladder::RungTimes;

/// How a remote device connects.
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    /// This end's iSCSI name.
    pub initiator: String,
    /// The target's iSCSI name.
    pub target: String,
    /// The target's portal.
    pub address: SocketAddr,
    /// More portals of the same group, over other links: all of them are used, and what was under way on one that is cut goes on at
    /// another. [`RemoteConfig::add_way`] adds one.
    pub more_addresses: Vec<SocketAddr>,
    /// Logical unit number.
    pub lun: u16,
    /// ISID: stable, so that a reconnection replaces the old session. `None` for one of the device's own
    /// ([`RemoteConfig::isid_of`]): two devices of one target do not replace each other's.
    pub isid: Option<[u8; 6]>,
    /// Between pings.
    pub keep_alive: Duration,
    /// A ping without an answer for this long means that the peer is dead.
    pub silence_max: Duration,
    /// The first pause between attempts; it doubles up to the last.
    pub retry_min: Duration,
    /// The last pause between attempts.
    pub retry_max: Duration,
    /// An I/O without a deadline of its own gets this one. When it passes, the I/O is aborted, and after that the LUN reset,
    /// before the session ends; one with a deadline of its own ends the session at once.
    pub io_timeout: Duration,
    /// How long the target may take for an abort, and for a reset.
    pub rung_times: RungTimes,
    /// What to negotiate for. With several connections I/Os go by the one with the least to do; at error recovery level 2 they
    /// outlive the connection that they were sent by.
    pub preferences: Preferences,
    /// How to authenticate; with the target's credential, it must prove itself too.
    pub account: Option<Account>,
    /// Hashes of CHAP to offer, the preferred first.
    pub algorithms: Vec<Algorithm>,
}

impl RemoteConfig {
    /// Hashes of CHAP that are offered by default, the preferred first.
    pub const ALGORITHMS: [Algorithm; 4] = Algorithm::ALL;

    /// The settings of a replication link: digests on, bursts as long as the longest write, so that a write costs one round
    /// trip and never an R2T.
    pub fn new(initiator: impl Into<String>, target: impl Into<String>, address: SocketAddr) -> Self {
        let preferences = Preferences {
            header_digest: DigestPreference::Prefer,
            data_digest: DigestPreference::Prefer,
            max_recv_data_segment_length: 1 << 20,
            max_burst_length: 1 << 20,
            first_burst_length: 1 << 20,
            initial_r2t: Choice::No,
            immediate_data: Choice::Yes,
            //= rfc7143#section-13.15: the higher of both ends' counts; this one comes again at once where it may.
            default_time2wait: 0,
            ..Preferences::default()
        };
        Self {
            initiator: initiator.into(),
            target: target.into(),
            address,
            more_addresses: Vec::new(),
            lun: 0,
            isid: None,
            keep_alive: Duration::from_millis(250),
            silence_max: Duration::from_millis(1000),
            retry_min: Duration::from_millis(50),
            retry_max: Duration::from_millis(1000),
            io_timeout: Duration::from_millis(5000),
            rung_times: RungTimes::default(),
            preferences,
            account: None,
            algorithms: Self::ALGORITHMS.to_vec(),
        }
    }

    /// The ISID of a device by its name and LUN: of the random type (RFC 7143 section 11.12.5), and the same at each start, because
    /// a registration at the target is that of the ISID.
    pub fn isid_of(device: &str, lun: u16) -> [u8; 6] {
        // FNV-1a, folded.
        let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        let hash = device.as_bytes().iter().fold(0x811c_9dc5, step);
        let [high, rest @ ..] = hash.to_be_bytes();
        let lun = lun.to_be_bytes();
        [0x80, rest[0] ^ high, rest[1], rest[2], lun[0], lun[1]]
    }

    /// All portals, each once.
    pub fn ways(&self) -> Vec<SocketAddr> {
        let mut ways = vec![self.address];
        for address in &self.more_addresses {
            if !ways.contains(address) {
                ways.push(*address);
            }
        }
        ways
    }

    /// One more portal of the same group. The session has a connection to each, and offers what it needs to survive the end of one.
    pub fn add_way(&mut self, address: SocketAddr) {
        self.more_addresses.push(address);
        let ways = u32::try_from(self.ways().len()).unwrap_or(u32::MAX);
        self.preferences.max_connections = self.preferences.max_connections.max(ways);
        self.offer_recovery(2);
    }

    /// Offers an error recovery level. At level 2 what is under way waits as long as the target does for a connection to come
    /// back, within its own deadline.
    pub fn offer_recovery(&mut self, level: u32) {
        self.preferences.error_recovery_level = level;
        if level >= 2 {
            self.preferences.default_time2retain = 20;
        }
    }
}
