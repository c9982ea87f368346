//! What to ask for: which operation, where and how long. Pure: a seed decides everything.
//!
//! A [`Workload`] is the description, a [`Generator`] one session's stream of [`Request`]s from it. Offsets are in bytes and
//! multiples of the smallest size in use; popular places of a zipf pattern are scattered over the whole span.

mod pattern;
mod size;
mod weighted;
mod zipf;

use engine::Prng;
use thiserror::Error;

pub use pattern::{Pattern, PatternError};
pub use size::{ByteSize, ByteSizeError};
pub use weighted::{Weighted, WeightedError};
pub(crate) use zipf::unit;
pub use zipf::{Scatter, Zipf};

/// Kinds of operation, in the order in which results show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Read.
    Read,
    /// Write.
    Write,
    /// Discard (UNMAP).
    Trim,
    /// Flush (SYNCHRONIZE CACHE).
    Flush,
}

/// Not a kind of operation.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no kind of operation: use read, write, trim or flush")]
pub struct KindError(String);

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Trim, Self::Flush];

    /// As on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Trim => "trim",
            Self::Flush => "flush",
        }
    }

    /// Its place in [`Kind::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

impl core::fmt::Display for Kind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl core::str::FromStr for Kind {
    type Err = KindError;

    fn from_str(text: &str) -> Result<Self, KindError> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| KindError(text.to_owned()))
    }
}

/// What to ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Shares of the kinds of operation.
    pub mix: Weighted<Kind>,
    /// Shares of the lengths.
    pub sizes: Weighted<ByteSize>,
    /// Where.
    pub pattern: Pattern,
    /// Bytes to use from the device's start; all of it when there is none.
    pub span: Option<ByteSize>,
}

/// Why a workload does not fit a device.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WorkloadError {
    /// A length is no multiple of the block size.
    #[error("{size} bytes are no multiple of the device's blocks of {block_size}: choose other sizes")]
    Unaligned {
        /// The length.
        size: u64,
        /// The device's block size.
        block_size: u32,
    },
    /// A length is no multiple of the smallest one, in whose steps places are chosen.
    #[error("{size} bytes are no multiple of {smallest}, the smallest size: choose sizes that are")]
    Mixed {
        /// The length.
        size: u64,
        /// The smallest length.
        smallest: u64,
    },
    /// A length is longer than one I/O may be.
    #[error("{size} bytes are more than one I/O may have ({max})")]
    TooLong {
        /// The length.
        size: u64,
        /// The longest.
        max: usize,
    },
    /// The span is longer than the device.
    #[error("the device has {capacity} bytes, the load wants to use {span}: choose a smaller span")]
    SpanTooLong {
        /// Bytes of the device.
        capacity: u64,
        /// Bytes wanted.
        span: u64,
    },
    /// The span has no room for one operation.
    #[error("{span} bytes have no room for an operation of {size}")]
    SpanTooShort {
        /// Bytes to use.
        span: u64,
        /// The longest operation.
        size: u64,
    },
}

/// One operation to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its kind.
    pub kind: Kind,
    /// First byte; zero for a flush.
    pub offset: u64,
    /// Bytes; zero for a flush.
    pub len: u32,
}

/// Which of several streams over the same device: sequential ones begin at equal distances.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// This one's number, from zero.
    pub index: u32,
    /// How many there are.
    pub count: u32,
}

#[derive(Clone, Debug)]
enum Places {
    Sequential { next: u64 },
    Random,
    Zipf { zipf: Zipf, scatter: Scatter },
}

/// One session's stream of requests.
#[derive(Clone, Debug)]
pub struct Generator {
    mix: Weighted<Kind>,
    sizes: Weighted<ByteSize>,
    span: u64,
    unit: u64,
    places: Places,
    prng: Prng,
}

impl Generator {
    /// A stream over a device of `capacity` bytes in blocks of `block_size`.
    ///
    /// # Errors
    /// The workload does not fit the device.
    pub fn new(
        workload: &Workload,
        (capacity, block_size): (u64, u32),
        stream: Stream,
        seed: u64,
    ) -> Result<Self, WorkloadError> {
        let span = workload.span.map_or(capacity, |span| span.bytes());
        let sizes = || workload.sizes.values().map(ByteSize::bytes);
        let unit = sizes().min().expect("a mix is never empty");
        let longest = sizes().max().expect("a mix is never empty");
        for size in sizes() {
            check_size(size, unit, block_size)?;
        }
        if span > capacity {
            return Err(WorkloadError::SpanTooLong { capacity, span });
        }
        if span < longest {
            return Err(WorkloadError::SpanTooShort { span, size: longest });
        }
        let units = span / unit;
        let places = match workload.pattern {
            Pattern::Sequential => {
                Places::Sequential { next: units / u64::from(stream.count) * u64::from(stream.index) * unit }
            }
            Pattern::Random => Places::Random,
            Pattern::Zipf(theta) => {
                Places::Zipf { zipf: Zipf::new(units, theta.0), scatter: Scatter::new(units) }
            }
        };
        // Streams differ; the pattern's popular places are the same for all.
        let prng = Prng::from_seed(seed ^ (u64::from(stream.index) << 32 | u64::from(stream.index)));
        Ok(Self { mix: workload.mix.clone(), sizes: workload.sizes.clone(), span, unit, places, prng })
    }

    /// The next request.
    pub fn next_request(&mut self) -> Request {
        let kind = *self.mix.pick(&mut self.prng);
        if kind == Kind::Flush {
            return Request { kind, offset: 0, len: 0 };
        }
        let len = self.sizes.pick(&mut self.prng).bytes();
        let offset = self.place(len);
        Request { kind, offset, len: u32::try_from(len).expect("checked against the longest I/O") }
    }

    /// A place with room for `len` bytes.
    fn place(&mut self, len: u64) -> u64 {
        let last = (self.span - len) / self.unit;
        match &mut self.places {
            Places::Sequential { next } => {
                let at = if *next + len > self.span { 0 } else { *next };
                *next = at + len;
                at
            }
            Places::Random => self.prng.below(last + 1) * self.unit,
            Places::Zipf { zipf, scatter } => {
                let rank = zipf.sample(&mut self.prng);
                scatter.place(rank).min(last) * self.unit
            }
        }
    }
}

fn check_size(size: u64, unit: u64, block_size: u32) -> Result<(), WorkloadError> {
    if size == 0 || !size.is_multiple_of(u64::from(block_size)) {
        return Err(WorkloadError::Unaligned { size, block_size });
    }
    if !size.is_multiple_of(unit) {
        return Err(WorkloadError::Mixed { size, smallest: unit });
    }
    if size > engine::BUF_LEN_MAX as u64 {
        return Err(WorkloadError::TooLong { size, max: engine::BUF_LEN_MAX });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
