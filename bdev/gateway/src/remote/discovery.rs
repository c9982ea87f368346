//! Which targets a portal has: a discovery session (RFC 7143 section 4.3 and appendix C).
//!
//! ```text
//! LoggingIn --(logged in)--> Asking --(SendTargets=All answered)--> LoggingOut --(answered, or the stream ends)--> over
//!     \------------------------\------- refused, broken off, too late -------------------------------------------> over
//! ```
//!
//! Owner: a reactor, which polls it. Whoever asked looks whether it is over.

use core::net::SocketAddr;
use core::time::Duration;

use engine::{Core, Instant, Pool, Progress};
use iscsi::chap::{Account, Algorithm};
use iscsi::initiator::{Config, Connection, Event};
use iscsi::{Preferences, Protocol, TaskId, text};
use net::tcp::{TcpConfig, TcpNetwork};
use net::{Network, Stream, StreamStatus};

use crate::auth;
use crate::payload::Parts;
use crate::wire::{self, Buffers, Sender};

/// Who asks, and whom.
#[derive(Clone, Debug)]
pub struct DiscoveryConfig {
    /// The portal.
    pub address: SocketAddr,
    /// This end's iSCSI name.
    pub initiator: String,
    /// How to authenticate.
    pub account: Option<Account>,
    /// Hashes of CHAP to offer, the preferred first.
    pub algorithms: Vec<Algorithm>,
    /// The time for all of it.
    pub patience: Duration,
}

/// A target as its portal tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// Its iSCSI name.
    pub name: String,
    /// Its portals: `ADDRESS:PORT,TAG`, as they came.
    pub addresses: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    LoggingIn,
    Asking,
    LoggingOut,
    Over,
}

/// A discovery session moves no task's data.
struct Nothing;

impl Buffers for Nothing {
    fn store(&mut self, _: TaskId, _: usize, _: &[u8]) {}

    fn load(&self, _: TaskId, _: usize, _: usize) -> Option<Parts> {
        None
    }
}

/// See the module.
pub struct Discovery {
    stream: Box<dyn Stream>,
    connection: Connection,
    sender: Sender,
    pool: Pool,
    stage: Stage,
    until: Instant,
    outcome: Result<Vec<Discovered>, String>,
}

impl Discovery {
    /// Begins to ask.
    ///
    /// # Errors
    /// There is no random source for CHAP.
    pub fn begin(config: DiscoveryConfig, core: &Core, now: Instant) -> Result<Self, String> {
        Self::over(config, &mut TcpNetwork::new(core, TcpConfig::default()), core, now)
    }

    /// The same over a given network.
    ///
    /// # Errors
    /// As [`Discovery::begin`].
    pub fn over(
        config: DiscoveryConfig,
        network: &mut dyn Network,
        core: &Core,
        now: Instant,
    ) -> Result<Self, String> {
        let proving = |account| auth::proving(account, config.algorithms);
        let credentials = config.account.map(proving).transpose();
        let credentials = credentials.map_err(|error| format!("no random source: {error}"))?;
        let connection = Connection::new(Config {
            initiator: config.initiator,
            alias: None,
            target: None,
            isid: [0x80, 0, 0, 0x47, 0x4d, 1],
            preferences: Preferences::default(),
            credentials,
        });
        Ok(Self {
            stream: network.connect(config.address),
            connection,
            sender: Sender::default(),
            pool: core.pool().clone(),
            stage: Stage::LoggingIn,
            until: now + config.patience,
            outcome: Err("no answer in time".to_owned()),
        })
    }

    /// One turn.
    pub fn poll(&mut self, now: Instant) -> Progress {
        if self.stage == Stage::Over {
            return Progress::Idle;
        }
        let mut progress = self.stream.poll(now);
        let taken = wire::receive(&mut *self.stream, &mut self.connection, &mut Nothing, |_| false);
        progress |= Progress::from_count(taken);
        while let Some(event) = self.connection.poll_event() {
            progress = Progress::Busy;
            self.on_event(event);
        }
        if self.stream.status() == StreamStatus::Open {
            let sent = self.sender.run(&mut *self.stream, &mut self.connection, &Nothing, &self.pool);
            progress |= Progress::from_count(sent.unwrap_or(0)) | self.stream.poll(now);
        }
        self.watch(now);
        progress
    }

    fn on_event(&mut self, event: Event) {
        match (self.stage, event) {
            (Stage::LoggingIn, Event::LoggedIn) => {
                self.connection.send_targets("All");
                self.stage = Stage::Asking;
            }
            (Stage::Asking, Event::Text(text)) => {
                self.outcome = targets(&text);
                self.connection.log_out();
                self.stage = Stage::LoggingOut;
            }
            _ => {}
        }
    }

    fn watch(&mut self, now: Instant) {
        let ended = match (self.connection.closed(), self.stream.status()) {
            (Some(reason), _) => Some(reason.to_string()),
            (None, StreamStatus::Closed(reason)) => Some(reason.to_string()),
            _ => None,
        };
        if ended.is_none() && now < self.until {
            return;
        }
        if let Some(why) = ended.filter(|_| self.stage != Stage::LoggingOut) {
            self.outcome = Err(why);
        }
        self.stream.close();
        self.stage = Stage::Over;
    }

    /// True when the outcome is there.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// The targets, or why there are none, in words for the operator.
    ///
    /// # Errors
    /// Nobody answers, or not as a target.
    pub fn into_outcome(self) -> Result<Vec<Discovered>, String> {
        self.outcome
    }

    /// When to poll next at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        (self.stage != Stage::Over).then_some(self.until)
    }
}

/// Targets and their addresses out of an answer to SendTargets: each name is followed by its portals.
fn targets(answer: &[u8]) -> Result<Vec<Discovered>, String> {
    let strange = || "it answers SendTargets with something else".to_owned();
    let mut found: Vec<Discovered> = Vec::new();
    for (key, value) in text::parse(answer).map_err(|_| strange())? {
        match (key.as_str(), found.last_mut()) {
            ("TargetName", _) => found.push(Discovered { name: value, addresses: Vec::new() }),
            ("TargetAddress", Some(target)) => target.addresses.push(value),
            _ => return Err(strange()),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_followed_by_their_addresses() {
        let answer = b"TargetName=iqn.a\0TargetAddress=10.0.0.1:3260,1\0TargetAddress=[::1]:3261,2\0TargetName=iqn.b\0";
        let [first, second] = &targets(answer).expect("two")[..] else { panic!("two targets") };
        assert_eq!((first.name.as_str(), first.addresses.len()), ("iqn.a", 2));
        assert_eq!((second.name.as_str(), second.addresses.len()), ("iqn.b", 0));
        assert_eq!(targets(b""), Ok(Vec::new()));
        targets(b"TargetAddress=10.0.0.1:3260,1\0").expect_err("of no target");
        targets(b"SendTargets=Reject\0").expect_err("no targets");
    }
}
