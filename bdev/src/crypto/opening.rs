//! A device is made of another one that holds a header, or gets one.
//!
//! Owner: a reactor. Whoever asked looks whether it is over.
//!
//! ```text
//! Reading --(a header, its key unwraps, both slots alike)--> Ended
//!    |----(the same, and one slot is stale)--> Writing --> Ended
//!    |----(a format is asked for, and nothing is in its way)--> Writing --> Ended
//!    '----(anything else: nothing is written)--> Ended
//! ```

use std::sync::Arc;

use engine::{Core, Instant, Pool, Progress};
use thiserror::Error;
use uuid::Uuid;

use super::header::{Found, Header, NoHeader, OtherSlot, RESERVED, Slot, look};
use super::key::MediaKey;
use super::rewrite::Rewrite;
use super::writer::Writer;
use super::{CryptoBdev, UserKey};
use crate::access::Access;
use crate::channel::{Bdev, Channel, Completions, OpenError};
use crate::error::IoError;
use crate::geometry::{BlockRange, Capabilities};
use crate::request::{Io, Op, Tag};

/// Bytes of one read.
const PIECE: u32 = 64 << 10;

/// What a format may destroy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Nothing: the first MiB must be blank.
    Blank,
    /// Whatever is there.
    Anything,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A device that was formatted before: this one, or any.
    Open(Option<Uuid>),
    /// A new one of this identity.
    Format(Uuid, Over),
}

/// Which device is asked for.
pub struct Request {
    /// Its name.
    pub name: String,
    /// The device below.
    pub base: Arc<dyn Bdev>,
    /// The key that wraps its media key.
    pub user: Arc<UserKey>,
    /// What is done.
    pub wish: Wish,
}

/// Why there is no device.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CryptoError {
    /// The device below has no channel for it.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The device below failed.
    #[error("bdev {base}: {error}")]
    Io {
        /// The device below.
        base: String,
        /// Its error.
        error: IoError,
    },
    /// No room for a header and a block.
    #[error("bdev {base} is too small: the header takes 1 MiB")]
    TooSmall {
        /// The device below.
        base: String,
    },
    /// Another node writes there, too, and would go on with an old key.
    #[error(
        "bdev {base} is shared with another node, which would not hear of a new key: put a crypto bdev under each leg"
    )]
    Shared {
        /// The device below.
        base: String,
    },
    /// It cannot be formatted.
    #[error("bdev {base} cannot be written")]
    ReadOnly {
        /// The device below.
        base: String,
    },
    /// There is no header.
    #[error("bdev {base} is no crypto bdev: {why}")]
    NoHeader {
        /// The device below.
        base: String,
        /// What is there.
        why: NoHeader,
    },
    /// Another key wrapped.
    #[error("the key does not open bdev {base}: it was formatted with another one; nothing was written")]
    WrongKey {
        /// The device below.
        base: String,
    },
    /// Another device is there.
    #[error("bdev {base} holds the crypto bdev of uuid {found}")]
    OtherUuid {
        /// The device below.
        base: String,
        /// What it holds.
        found: Uuid,
    },
    /// The data unit is no block.
    #[error("bdev {base} was formatted with blocks of {formatted} bytes, and has blocks of {now} now")]
    BlockSize {
        /// The device below.
        base: String,
        /// What the header says.
        formatted: u32,
        /// What the device says.
        now: u32,
    },
    /// A format would destroy something.
    #[error("bdev {base} is not formatted: its first MiB is not blank ({what})")]
    InUse {
        /// The device below.
        base: String,
        /// What is there.
        what: String,
    },
}

enum State {
    /// Pieces of what lies before the data; whether one is on its way.
    Reading {
        bytes: Vec<u8>,
        waiting: bool,
    },
    /// The header, and the device that there is when it is written.
    Writing(Writer, Arc<CryptoBdev>),
    Ended(Result<Arc<CryptoBdev>, CryptoError>),
}

/// See the module.
pub struct Opening {
    request: Request,
    channel: Box<dyn Channel>,
    pool: Pool,
    block_size: u32,
    state: State,
}

impl Opening {
    /// Begins to look at the device below.
    ///
    /// # Errors
    /// It cannot be opened on this core, is too small, or shared with another node.
    pub fn begin(request: Request, core: &Core) -> Result<Self, CryptoError> {
        let base = request.base.name().to_owned();
        let geometry = request.base.geometry();
        if request.base.access() != Access::Local {
            return Err(CryptoError::Shared { base });
        }
        if geometry.bytes() < RESERVED + u64::from(geometry.block_size) {
            return Err(CryptoError::TooSmall { base });
        }
        if matches!(request.wish, Wish::Format(..)) && Self::is_read_only(&request) {
            return Err(CryptoError::ReadOnly { base });
        }
        let channel = request.base.clone().open(core)?;
        let state = State::Reading { bytes: Vec::new(), waiting: false };
        Ok(Self { request, channel, pool: core.pool().clone(), block_size: geometry.block_size, state })
    }

    fn is_read_only(request: &Request) -> bool {
        request.base.capabilities().contains(Capabilities::READ_ONLY)
    }

    /// One turn.
    pub fn poll(&mut self, now: Instant) -> Progress {
        let mut done = Completions::new();
        let mut progress = self.channel.poll(now, &mut done);
        for completed in done {
            progress = Progress::Busy;
            self.on_done(completed.op, completed.result);
        }
        if let Some(op) = self.next_op()
            && let Err(refused) = self.channel.submit(Io::new(op, Tag(0), now), now)
        {
            let why = refused.why;
            let completed = refused.io.complete(Err(why), now);
            self.on_done(completed.op, completed.result);
        }
        progress
    }

    fn next_op(&mut self) -> Option<Op> {
        match &mut self.state {
            State::Reading { bytes, waiting } if !*waiting => {
                let into = self.pool.alloc(PIECE as usize)?;
                *waiting = true;
                let range =
                    BlockRange::new(bytes.len() as u64 / u64::from(self.block_size), PIECE / self.block_size);
                Some(Op::Read { range, into })
            }
            State::Writing(writer, bdev) => {
                let op = writer.next_op();
                if writer.is_over() {
                    self.state = State::Ended(Ok(bdev.clone()));
                }
                op
            }
            State::Reading { .. } | State::Ended(_) => None,
        }
    }

    fn on_done(&mut self, op: Op, result: Result<(), IoError>) {
        let outcome = match (&mut self.state, op, result) {
            (State::Reading { waiting, .. }, _, Err(IoError::Busy)) => {
                *waiting = false;
                Ok(())
            }
            (State::Reading { bytes, waiting }, Op::Read { into, .. }, Ok(())) => {
                *waiting = false;
                bytes.extend_from_slice(&into);
                Ok(())
            }
            (State::Writing(writer, _), _, result) => writer.on_done(result),
            (_, _, result) => result,
        };
        if let Err(error) = outcome {
            let base = self.request.base.name().to_owned();
            self.state = State::Ended(Err(CryptoError::Io { base, error }));
        } else if let State::Reading { bytes, .. } = &mut self.state
            && bytes.len() as u64 >= RESERVED
        {
            let bytes = std::mem::take(bytes);
            self.state = self.decide(look(&bytes)).unwrap_or_else(|error| State::Ended(Err(error)));
        }
    }

    fn decide(&self, found: Result<Found, NoHeader>) -> Result<State, CryptoError> {
        let base = || self.request.base.name().to_owned();
        match (self.request.wish, found) {
            (Wish::Open(uuid), Ok(found)) => self.open(uuid, found),
            (Wish::Open(_), Err(why)) => Err(CryptoError::NoHeader { base: base(), why }),
            (Wish::Format(uuid, Over::Anything), _)
            | (Wish::Format(uuid, Over::Blank), Err(NoHeader::Blank)) => self.format(uuid),
            (Wish::Format(_, Over::Blank), Err(why)) => {
                Err(CryptoError::InUse { base: base(), what: why.to_string() })
            }
            (Wish::Format(_, Over::Blank), Ok(found)) => {
                let what = format!("it holds the crypto bdev of uuid {}", found.header.uuid);
                Err(CryptoError::InUse { base: base(), what })
            }
        }
    }

    fn open(&self, wanted: Option<Uuid>, found: Found) -> Result<State, CryptoError> {
        let base = self.request.base.name().to_owned();
        let Found { header, slot, other } = found;
        if wanted.is_some_and(|wanted| wanted != header.uuid) {
            return Err(CryptoError::OtherUuid { base, found: header.uuid });
        }
        if header.block_size != self.block_size {
            return Err(CryptoError::BlockSize { base, formatted: header.block_size, now: self.block_size });
        }
        let Some(media) = header.unwrap(&self.request.user) else {
            return Err(CryptoError::WrongKey { base });
        };
        let bdev = self.device(header.clone(), &media);
        match other {
            OtherSlot::Stale if !Self::is_read_only(&self.request) => {
                Ok(self.write(Rewrite::beside(header, slot), bdev))
            }
            OtherSlot::Stale | OtherSlot::Same => Ok(State::Ended(Ok(bdev))),
        }
    }

    fn format(&self, uuid: Uuid) -> Result<State, CryptoError> {
        let base = || self.request.base.name().to_owned();
        let media = MediaKey::random().map_err(|error| CryptoError::Io { base: base(), error })?;
        let header = Header::new(uuid, 1, self.block_size, &media, &self.request.user);
        let bdev = self.device(header.clone(), &media);
        Ok(self.write(Rewrite::both(header, Slot::First), bdev))
    }

    fn device(&self, header: Header, media: &MediaKey) -> Arc<CryptoBdev> {
        let Request { name, base, user, .. } = &self.request;
        CryptoBdev::new(name.clone(), base.clone(), user.clone(), header, media)
    }

    fn write(&self, rewrite: Rewrite, bdev: Arc<CryptoBdev>) -> State {
        let capabilities = self.request.base.capabilities();
        State::Writing(Writer::new(rewrite, capabilities, self.block_size, self.pool.clone()), bdev)
    }

    /// When to poll next at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        let ready = match &self.state {
            State::Reading { waiting, .. } => !waiting,
            State::Writing(writer, _) => writer.is_ready(),
            State::Ended(_) => return None,
        };
        if ready { Some(Instant::EPOCH) } else { self.channel.next_deadline() }
    }

    /// True when nothing of it is on its way any more.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Ended(_))
    }

    /// What came of it; `None` before it is over.
    pub fn into_result(self) -> Option<Result<Arc<CryptoBdev>, CryptoError>> {
        match self.state {
            State::Ended(result) => Some(result),
            State::Reading { .. } | State::Writing(..) => None,
        }
    }
}
