//! The mirror: RAID1 over two legs, pure core and one driver.

pub mod arbiter;
pub mod bitmap;
pub mod command;
pub mod decide;
pub mod desk;
pub mod driver;
pub mod events;
pub mod format;
mod formatter;
mod guard;
pub mod holder;
pub mod intent_log;
pub mod leg_state;
mod locks;
pub mod mutation;
pub mod node;
mod pace;
pub mod probe;
pub mod range;
mod reader;
pub mod setup;
pub mod split;
pub mod status;
mod store;
pub mod truth;

pub use node::TRANSITION_MAX;
