//! All of Gemel's unsafe code: the huge-page arena, frames, the io_uring ring, files and sockets for it, packet rings, wake-ups,
//! what becomes of the process when it crashes, how long a thread's slices are.
//!
//! Each unsafe block states its reason. What leaves this crate is safe: no caller can reach memory that is not its own or
//! free a buffer that the kernel still uses.

pub mod allocations;
mod arena;
pub mod clock;
pub mod file;
pub mod packet;
pub mod pool;
pub mod process;
pub mod ring;
pub mod schedule;
mod segment;
mod socket;
mod waker;

pub use arena::{ArenaError, HUGE_PAGE, PageBacking};
pub use file::{Access, Caching, Extent, File, FileKind, Storage};
pub use pool::{BUF_LEN_MAX, Buf, BufMut, ClassStats, FRAME_ALIGN, FRAME_SIZES, Pages, Pool, PoolConfig};
pub use ring::{
    Completion, Operation, RangeMode, Registered, RingCapabilities, RingClient, RingConfig, RingHandle,
    RingMode, UnknownRingMode, WriteMode,
};
pub use segment::Segment;
pub use socket::Socket;
pub use waker::Waker;
