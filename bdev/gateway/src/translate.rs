//! Errors of block devices as SCSI says them, and back. Both directions are total.

use bdev::{IoError, NotReady};
use scsi::{Sense, SenseKey, sense, status};

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// CHECK CONDITION with this sense.
    Check(Sense),
    /// A status without sense.
    Status(u8),
}

/// An I/O error as a host sees it. `writing` chooses between the sense codes of reading and writing.
pub fn to_scsi(error: IoError, writing: Writing) -> Outcome {
    Outcome::Check(match error {
        IoError::Medium { lba } => match writing {
            Writing::Yes => Sense::WRITE_ERROR.with_information(lba),
            Writing::No => Sense::READ_ERROR.with_information(lba),
        },
        IoError::Os(_) | IoError::Protocol => Sense::INTERNAL_FAILURE,
        IoError::Miscompare { offset } => Sense::MISCOMPARE.with_information(u64::from(offset)),
        IoError::OutOfRange => Sense::LBA_OUT_OF_RANGE,
        IoError::Unsupported => Sense::INVALID_OPCODE,
        IoError::ReadOnly => Sense::WRITE_PROTECTED,
        IoError::NoSpace => Sense::SPACE_ALLOCATION_FAILED,
        IoError::LinkDown | IoError::TimedOut => Sense::COMMUNICATION_FAILURE,
        IoError::NotReady(NotReady::Standby) => Sense::PORT_STANDBY,
        IoError::NotReady(NotReady::Starting) => Sense::BECOMING_READY,
        IoError::NotReady(NotReady::Frozen) => Sense::PORT_UNAVAILABLE,
        IoError::NotReady(NotReady::Moving) => Sense::ACCESS_TRANSITION,
        IoError::Aborted => Sense::TERMINATED,
        IoError::Fenced => return Outcome::Status(status::RESERVATION_CONFLICT),
        IoError::Busy => return Outcome::Status(status::BUSY),
    })
}

/// Whether the failed command wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// It did.
    Yes,
    /// It did not.
    No,
}

/// A status and its sense data as an I/O result; `lba` is the command's first block.
///
/// # Errors
/// Everything but GOOD.
pub fn from_scsi(code: u8, sense_data: &[u8], lba: u64) -> Result<(), IoError> {
    match code {
        status::GOOD => Ok(()),
        status::RESERVATION_CONFLICT => Err(IoError::Fenced),
        status::BUSY | status::TASK_SET_FULL => Err(IoError::Busy),
        status::TASK_ABORTED => Err(IoError::Aborted),
        status::CHECK_CONDITION => {
            let offset = sense::information(sense_data).and_then(|offset| u32::try_from(offset).ok());
            match sense::decode(sense_data) {
                None => Err(IoError::Protocol),
                Some((_, 0x1d00)) => Err(IoError::Miscompare { offset: offset.unwrap_or(0) }),
                Some(found) => Err(from_sense(found, lba)),
            }
        }
        _ => Err(IoError::Protocol),
    }
}

fn from_sense((key, code): (u8, u16), lba: u64) -> IoError {
    let is = |wanted: SenseKey| key == wanted as u8;
    match code {
        0x040a => IoError::NotReady(NotReady::Moving),
        0x040b => IoError::NotReady(NotReady::Standby),
        0x040c => IoError::NotReady(NotReady::Frozen),
        0x2000 => IoError::Unsupported,
        0x2100 => IoError::OutOfRange,
        0x2707 => IoError::NoSpace,
        0x2700..=0x2706 => IoError::ReadOnly,
        _ if is(SenseKey::NotReady) => IoError::NotReady(NotReady::Starting),
        _ if is(SenseKey::MediumError) => IoError::Medium { lba },
        _ if is(SenseKey::AbortedCommand) => IoError::Aborted,
        _ if is(SenseKey::UnitAttention) => IoError::Busy,
        0x0800 => IoError::LinkDown,
        _ if is(SenseKey::IllegalRequest) => IoError::Unsupported,
        _ => IoError::Os(5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scsi::SenseFormat;

    #[test]
    fn errors_that_matter_survive_the_way_over_the_wire() {
        for error in [
            IoError::Medium { lba: 7 },
            IoError::Miscompare { offset: 513 },
            IoError::OutOfRange,
            IoError::Unsupported,
            IoError::ReadOnly,
            IoError::NoSpace,
            IoError::LinkDown,
            IoError::Fenced,
            IoError::Busy,
            IoError::Aborted,
            IoError::NotReady(NotReady::Standby),
            IoError::NotReady(NotReady::Starting),
            IoError::NotReady(NotReady::Frozen),
            IoError::NotReady(NotReady::Moving),
        ] {
            let back = match to_scsi(error, Writing::Yes) {
                Outcome::Check(sense) => {
                    from_scsi(status::CHECK_CONDITION, &sense.encode(SenseFormat::Fixed), 7)
                }
                Outcome::Status(code) => from_scsi(code, &[], 7),
            };
            assert_eq!(back, Err(error));
        }
        assert_eq!(from_scsi(status::GOOD, &[], 0), Ok(()));
        assert_eq!(from_scsi(0x55, &[], 0), Err(IoError::Protocol));
        assert_eq!(from_scsi(status::CHECK_CONDITION, &[], 0), Err(IoError::Protocol));
    }
}
