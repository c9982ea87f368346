//! The mirror: RAID1 over two legs, pure core and one driver.

pub mod bitmap;
pub mod decide;
pub mod format;
pub mod intent_log;
pub mod probe;
pub mod range;
