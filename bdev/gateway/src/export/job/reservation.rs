//! Persistent reservations: for now the registration of a key with a leg, which fences it.

use bdev::{Capabilities, FenceKey};
use scsi::{Command, Sense, parameter};

use super::{Start, Step};

/// Whether the device below can lock old generations out: a leg can, and takes the registration of a key as `Op::Fence`.
/// Persistent reservations of ordinary LUNs are not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::export) enum Fencing {
    Possible,
    Impossible,
}

impl Fencing {
    pub(in crate::export) fn of(capabilities: Capabilities) -> Self {
        if capabilities.contains(Capabilities::FENCE) { Self::Possible } else { Self::Impossible }
    }
}

/// A key arrives in a list of 24 bytes.
pub(super) fn begin(command: &Command, fencing: Fencing) -> Result<Start, Sense> {
    match (command, fencing) {
        (Command::PersistentReserveOut { length: 24, .. }, Fencing::Possible) => Ok(Start::Collect(24)),
        (Command::PersistentReserveOut { .. }, Fencing::Possible) => Err(Sense::PARAMETER_LENGTH),
        _ => Err(Sense::INVALID_OPCODE),
    }
}

pub(super) fn collected(list: &[u8]) -> Result<Step, Sense> {
    let key = FenceKey::from_reservation_key(parameter::reserve_out_key(list)?);
    Ok(Step::Fence(key.ok_or(Sense::invalid_parameter_byte(8))?))
}
