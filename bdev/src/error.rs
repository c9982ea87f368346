//! Why an I/O failed, by culprit. Maps totally to SCSI sense in the gateway.

use thiserror::Error;

/// Why a device does not serve now though nothing is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// This node is not the holder; the peer serves.
    Standby,
    /// Starting: assembling, or waiting for the peer or for the operator.
    Starting,
    /// I/O is frozen until the arbiter or the operator decides.
    Frozen,
    /// The device is on its way to the other node, and nothing of the I/O was begun: it may be asked again, of whoever serves then.
    Moving,
}

/// Why an I/O failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IoError {
    /// The medium failed at this logical block.
    #[error("medium error at block {lba}")]
    Medium {
        /// First bad logical block, as far as known.
        lba: u64,
    },
    /// The operating system's error number, where it is none of the others.
    #[error("operating system error {0}")]
    Os(i32),
    /// The range is not inside the device: the caller's mistake.
    #[error("block range out of range")]
    OutOfRange,
    /// The device cannot do this operation: the caller did not look at the capabilities.
    #[error("operation not supported by the device")]
    Unsupported,
    /// The device is write-protected.
    #[error("write protected")]
    ReadOnly,
    /// No space left behind a thin device.
    #[error("no space left")]
    NoSpace,
    /// The blocks do not hold what a compare-and-write wanted; nothing was written.
    #[error("miscompare at byte {offset}")]
    Miscompare {
        /// First byte that differs, counted from the beginning of the range.
        offset: u32,
    },
    /// The far end of the device is gone; for a write the outcome is unknown.
    #[error("link down")]
    LinkDown,
    /// No answer by the deadline; for a write the outcome is unknown.
    #[error("deadline passed")]
    TimedOut,
    /// The far end has locked this node's generation out. Never a reason to degrade.
    #[error("fenced: a newer generation holds the leg")]
    Fenced,
    /// The far end broke the protocol.
    #[error("the peer broke the protocol")]
    Protocol,
    /// Not now.
    #[error("not ready: {0:?}")]
    NotReady(NotReady),
    /// A local limit is reached; try again.
    #[error("busy")]
    Busy,
    /// Given up because its owner is going away.
    #[error("aborted")]
    Aborted,
}
