//! What the control plane has a reactor do with a device and waits for: a read, the look that makes a crypto device, or a
//! discovery session.
//!
//! Owner: the reactor, by number. One that nobody waited for to the end is dropped when the next one begins. Whoever waits for a
//! portal does so without the node ([`Waiting`]): other calls go on meanwhile.

use std::sync::Arc;

use bdev::crypto::{CryptoBdev, CryptoError, Opening, Request};
use bdev::{Bdev, IoError};
use core::time::Duration;
use engine::{Instant, Progress};
use gateway::{Discovered, Discovery, DiscoveryConfig};
use rpc::RpcError;

use crate::node::{Node, ReactorIndex, Resident};
use crate::reactor::Residents;
use crate::reading::Reading;

/// How long one may take, and how often it is looked at.
const TIME: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_micros(500);

/// Something to be done.
pub enum Errand {
    /// Bytes of a device.
    Reading(Reading),
    /// A crypto device that is opened or formatted.
    Opening(Box<Opening>),
    /// A portal that is asked for its targets.
    Discovering(Box<Discovery>),
}

impl Errand {
    /// One turn.
    pub fn poll(&mut self, now: Instant) -> Progress {
        match self {
            Self::Reading(reading) => reading.poll(now),
            Self::Opening(opening) => opening.poll(now),
            Self::Discovering(discovery) => discovery.poll(now),
        }
    }

    /// When to poll next at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self {
            Self::Reading(reading) => reading.next_deadline(),
            Self::Opening(opening) => opening.next_deadline(),
            Self::Discovering(discovery) => discovery.next_deadline(),
        }
    }

    /// True when nothing of it is on its way any more.
    fn is_over(&self) -> bool {
        match self {
            Self::Reading(reading) => reading.is_over(),
            Self::Opening(opening) => opening.is_over(),
            Self::Discovering(discovery) => discovery.is_over(),
        }
    }

    fn into_yield(self) -> Option<Yield> {
        match self {
            Self::Reading(reading) => Some(Yield::Bytes(reading.into_bytes())),
            Self::Opening(opening) => opening.into_result().map(Yield::Device),
            Self::Discovering(discovery) => Some(Yield::Targets(discovery.into_outcome())),
        }
    }
}

/// One with a reactor.
pub struct Sent {
    /// What is to be done.
    pub errand: Errand,
    /// How long somebody waits for it.
    until: Instant,
}

impl Sent {
    /// True when nobody will ask for it any more, and nothing of it is on its way.
    fn is_forgotten(&self, now: Instant) -> bool {
        now >= self.until + TIME && self.errand.is_over()
    }
}

/// What came of one.
pub enum Yield {
    /// Of a device.
    Bytes(Result<Vec<u8>, IoError>),
    /// A crypto device.
    Device(Result<Arc<CryptoBdev>, CryptoError>),
    /// Of a portal.
    Targets(Result<Vec<Discovered>, String>),
}

/// An errand that is waited for.
#[derive(Debug)]
pub struct Waiting {
    reactor: ReactorIndex,
    number: u64,
    until: Instant,
    /// What is slow when it is.
    what: String,
}

impl Waiting {
    /// Looks whether it is over.
    ///
    /// # Errors
    /// As [`Node::on`]; that it takes too long.
    pub fn look(&self, node: &Node) -> Result<Option<Yield>, RpcError> {
        let (number, until) = (self.number, self.until);
        let take = move |residents: &mut Residents, now: Instant| {
            let over = residents.errands.get(&number).is_none_or(|sent| sent.errand.is_over());
            let taken = if over { residents.errands.remove(&number) } else { None };
            (taken.and_then(|sent| sent.errand.into_yield()), now >= until)
        };
        match node.on(self.reactor, take)? {
            (None, true) => Err(RpcError::busy(format!("{} takes too long to answer: try again", self.what))),
            (found, _) => Ok(found),
        }
    }
}

impl Node {
    /// Reads bytes of a device where a mirror lives; offset and length are multiples of the device's block size.
    ///
    /// # Errors
    /// There is no such mirror; as [`Node::on`]; the device's, or that it takes too long.
    pub fn read(
        &mut self,
        mirror: &str,
        device: Arc<dyn Bdev>,
        offset: u64,
        len: u64,
    ) -> Result<Vec<u8>, RpcError> {
        let Resident::Mirror(reactor) = self.bdev(mirror)?.resident else {
            return Err(RpcError::no_device(format!("bdev {mirror} is no mirror")));
        };
        let name = device.name().to_owned();
        let begin = move |residents: &Residents, _: Instant| {
            let reading = Reading::begin(device, &residents.core, offset, len);
            reading.map(Errand::Reading).map_err(|error| error.to_string())
        };
        match self.run(reactor, &format!("bdev {name}"), begin)? {
            Yield::Bytes(bytes) => {
                bytes.map_err(|error| RpcError::refused(format!("bdev {name} cannot be read: {error}")))
            }
            Yield::Device(_) | Yield::Targets(_) => Err(RpcError::internal("another errand came back")),
        }
    }

    /// Opens or formats a crypto device.
    ///
    /// # Errors
    /// As [`Node::on`]; why there is no device, or that the base takes too long.
    pub fn open_crypto(&mut self, request: Request) -> Result<Arc<CryptoBdev>, RpcError> {
        let base = request.base.name().to_owned();
        let begin = move |residents: &Residents, _: Instant| {
            let opening = Opening::begin(request, &residents.core);
            opening.map(|opening| Errand::Opening(Box::new(opening))).map_err(|error| error.to_string())
        };
        match self.run(0, &format!("bdev {base}"), begin)? {
            Yield::Device(device) => device.map_err(|error| RpcError::refused(error.to_string())),
            Yield::Bytes(_) | Yield::Targets(_) => Err(RpcError::internal("another errand came back")),
        }
    }

    /// Begins to ask a portal for its targets, within the time that the configuration allows; [`discovered`] takes the answer.
    ///
    /// # Errors
    /// As [`Node::on`]; why nobody can be asked.
    pub fn discover(&mut self, config: DiscoveryConfig) -> Result<Waiting, RpcError> {
        let address = config.address;
        let begin = move |residents: &Residents, now: Instant| {
            let discovery = Discovery::over(config, &mut residents.routes.clone(), &residents.core, now);
            discovery.map(|discovery| Errand::Discovering(Box::new(discovery)))
        };
        self.begin(self.place_for(&[address]), &address.to_string(), begin)
    }

    /// Has an errand done on a reactor.
    fn begin(
        &mut self,
        reactor: ReactorIndex,
        what: &str,
        begin: impl FnOnce(&Residents, Instant) -> Result<Errand, String> + Send + 'static,
    ) -> Result<Waiting, RpcError> {
        let number = self.next_errand();
        let begun = self.on(reactor, move |residents, now| {
            residents.errands.retain(|_, sent| !sent.is_forgotten(now));
            let (errand, until) = (begin(residents, now)?, now + TIME);
            residents.errands.insert(number, Sent { errand, until });
            Ok::<_, String>(until)
        })?;
        let until = begun.map_err(RpcError::refused)?;
        Ok(Waiting { reactor, number, until, what: what.to_owned() })
    }

    /// Has an errand done on a reactor, and waits for it.
    fn run(
        &mut self,
        reactor: ReactorIndex,
        what: &str,
        begin: impl FnOnce(&Residents, Instant) -> Result<Errand, String> + Send + 'static,
    ) -> Result<Yield, RpcError> {
        let waiting = self.begin(reactor, what, begin)?;
        loop {
            if let Some(found) = waiting.look(self)? {
                return Ok(found);
            }
            std::thread::park_timeout(LOOK);
        }
    }
}

/// The targets that a portal told of.
///
/// # Errors
/// Why it does not.
pub fn discovered(found: Yield, address: &str) -> Result<Vec<Discovered>, RpcError> {
    match found {
        Yield::Targets(told) => {
            told.map_err(|why| RpcError::refused(format!("{address} does not tell of its targets: {why}")))
        }
        Yield::Bytes(_) | Yield::Device(_) => Err(RpcError::internal("another errand came back")),
    }
}
