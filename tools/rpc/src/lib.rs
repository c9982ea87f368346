//! JSON-RPC as SPDK's socket speaks it: requests are JSON texts back to back, answers are compact and end with a newline.

pub mod client;
pub mod config;
pub mod error;
pub mod message;
pub mod private;

pub use client::{Client, ClientError};
pub use error::RpcError;
pub use message::{Frames, Incoming, Request, response};
