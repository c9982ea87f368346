//! All of Gemel's unsafe code: the huge-page arena, frames, the io_uring ring.
//!
//! Each unsafe block states its reason. What leaves this crate is safe: no caller can reach memory that is not its own or
//! free a buffer that the kernel still uses.

mod arena;
pub mod pool;

pub use arena::{ArenaError, HUGE_PAGE, PageBacking};
pub use pool::{BUF_LEN_MAX, Buf, BufMut, ClassStats, FRAME_ALIGN, FRAME_SIZES, Pages, Pool, PoolConfig};
