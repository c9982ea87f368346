//! SCSI for a block device, without I/O: command descriptor blocks, sense, inquiry and mode pages (SPC-4, SBC-3).
//!
//! Commands are one table ([`command::TABLE`]): parsing, REPORT SUPPORTED OPERATION CODES and length checks all read it.
#![no_std]

extern crate alloc;

pub mod alua;
pub mod command;
pub mod copy;
pub mod identifying;
pub mod initiator;
pub mod inquiry;
pub mod kept;
pub mod log;
pub mod lun;
pub mod mode;
pub mod opcodes;
pub mod parameter;
pub mod reservation;
pub mod sanitization;
pub mod sense;
pub mod task_set;
pub mod thresholds;
pub mod unit;

pub use command::{Access, ByteCheck, Command, Immediate, Removal, Sanitize, StartStop, Transfer, parse};
pub use sense::{FieldPointer, Sense, SenseFormat, SenseKey};
pub use unit::{
    Accounting, Encryption, Identity, Medium, Provisioning, Queries, Unit, WriteCache, WriteProtection,
    ZeroCount, answer,
};

#[cfg(test)]
mod example;

/// SCSI status codes (SAM-5 section 5.3.1).
pub mod status {
    /// GOOD.
    pub const GOOD: u8 = 0x00;
    /// CHECK CONDITION.
    pub const CHECK_CONDITION: u8 = 0x02;
    /// BUSY.
    pub const BUSY: u8 = 0x08;
    /// RESERVATION CONFLICT.
    pub const RESERVATION_CONFLICT: u8 = 0x18;
    /// TASK SET FULL.
    pub const TASK_SET_FULL: u8 = 0x28;
    /// TASK ABORTED.
    pub const TASK_ABORTED: u8 = 0x40;
}
