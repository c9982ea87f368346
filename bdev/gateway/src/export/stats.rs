//! What a LUN counts: for the administrator, and for hosts' log pages.

use std::cell::{Cell, RefCell};

use bdev::IoError;
use core::time::Duration;
use engine::LatencyHistogram;
use scsi::Command;
use scsi::log::Counters;

use crate::translate::Writing;

/// Counters of one LUN.
#[derive(Debug, Default)]
pub(super) struct LunStats {
    pub(super) active: Cell<u32>,
    pub(super) commands: Cell<u64>,
    pub(super) read_bytes: Cell<u64>,
    pub(super) written_bytes: Cell<u64>,
    /// Service times, from a command to its status.
    pub(super) reads: RefCell<LatencyHistogram>,
    pub(super) writes: RefCell<LatencyHistogram>,
    /// What log pages show; a LOG SELECT begins anew.
    pub(super) log: Cell<Counters>,
}

impl LunStats {
    fn log(&self, count: impl FnOnce(&mut Counters)) {
        let mut log = self.log.get();
        count(&mut log);
        self.log.set(log);
    }

    /// A command that succeeded moved so many bytes.
    pub(super) fn count_moved(&self, command: &Command, moved: u64, block_size: u64) {
        match command {
            Command::Read(_) => {
                self.read_bytes.set(self.read_bytes.get() + moved);
                self.log(|log| log.read_bytes += moved);
            }
            Command::Write(_) => {
                self.written_bytes.set(self.written_bytes.get() + moved);
                self.log(|log| log.written_bytes += moved);
            }
            Command::WriteAndVerify { .. } => self.log(|log| {
                log.written_bytes += moved;
                log.verified_bytes += moved;
            }),
            Command::Verify { transfer, .. } => {
                self.log(|log| log.verified_bytes += u64::from(transfer.blocks) * block_size);
            }
            _ => {}
        }
    }

    /// A command took so long.
    pub(super) fn count_time(&self, command: &Command, took: Duration) {
        match command {
            Command::Read(_) => {
                self.reads.borrow_mut().record(took);
                self.log(|log| {
                    log.reads += 1;
                    log.reading += took;
                });
            }
            Command::Write(_) => {
                self.writes.borrow_mut().record(took);
                self.log(|log| {
                    log.writes += 1;
                    log.writing += took;
                });
            }
            _ => {}
        }
    }

    /// A command's I/O failed.
    pub(super) fn count_error(&self, command: &Command, error: IoError, writing: Writing) {
        self.log(|log| match (error, command, writing) {
            // These say what the command or somebody else does, not what failed.
            (IoError::Miscompare { .. } | IoError::Busy | IoError::Fenced | IoError::Aborted, ..) => {}
            (IoError::Medium { .. }, Command::Verify { .. }, _) => log.verify_errors += 1,
            (IoError::Medium { .. }, _, Writing::Yes) => log.write_errors += 1,
            (IoError::Medium { .. }, _, Writing::No) => log.read_errors += 1,
            _ => log.other_errors += 1,
        });
    }
}
