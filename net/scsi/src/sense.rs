//! Sense data, fixed and descriptor format (SPC-4 section 4.5).

use alloc::vec;
use alloc::vec::Vec;

/// Sense keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SenseKey {
    /// No sense.
    NoSense = 0,
    /// Not ready.
    NotReady = 2,
    /// Medium error.
    MediumError = 3,
    /// Hardware error.
    HardwareError = 4,
    /// Illegal request.
    IllegalRequest = 5,
    /// Unit attention.
    UnitAttention = 6,
    /// Data protect.
    DataProtect = 7,
    /// Copy aborted.
    CopyAborted = 0xa,
    /// Aborted command.
    AbortedCommand = 0xb,
    /// Miscompare.
    Miscompare = 0xe,
}

/// Which byte is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldPointer {
    /// A byte of the command descriptor block.
    Cdb(u16),
    /// A byte of the parameter list.
    Parameter(u16),
}

/// Fixed or descriptor format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SenseFormat {
    /// Fixed, 18 bytes.
    #[default]
    Fixed,
    /// Descriptors.
    Descriptor,
}

/// What went wrong, as SCSI says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// Sense key.
    pub key: SenseKey,
    /// Additional sense code and qualifier.
    pub asc_ascq: u16,
    /// INFORMATION field: an LBA, or the offset of a miscompare.
    pub information: Option<u64>,
    /// Which byte is at fault, for an illegal request.
    pub field: Option<FieldPointer>,
    /// How far an operation is, in 65,536ths, for a unit that is not ready (SPC-4 section 4.5.2.4.4).
    pub progress: Option<u16>,
}

macro_rules! senses {
    ($($(#[$doc:meta])* $name:ident = $key:ident, $code:expr;)*) => {
        $($(#[$doc])* pub const $name: Self = Self::new(SenseKey::$key, $code);)*
    };
}

impl Sense {
    senses! {
        /// No sense.
        NONE = NoSense, 0;
        /// The logical unit is becoming ready.
        BECOMING_READY = NotReady, 0x0401;
        /// Somebody has to do something before the logical unit is ready.
        MANUAL_INTERVENTION = NotReady, 0x0403;
        /// Asymmetric access state transition.
        ACCESS_TRANSITION = NotReady, 0x040a;
        /// The target port is in the standby state.
        PORT_STANDBY = NotReady, 0x040b;
        /// The target port is in the unavailable state.
        PORT_UNAVAILABLE = NotReady, 0x040c;
        /// A sanitize operation is at work.
        SANITIZE_IN_PROGRESS = NotReady, 0x041b;
        /// There is no medium.
        MEDIUM_NOT_PRESENT = NotReady, 0x3a00;
        /// The last sanitize operation failed.
        SANITIZE_FAILED = MediumError, 0x3103;
        /// Unrecovered read error.
        READ_ERROR = MediumError, 0x1100;
        /// Write error.
        WRITE_ERROR = MediumError, 0x0c00;
        /// The logical unit failed its self-test.
        SELF_TEST_FAILED = HardwareError, 0x3e03;
        /// Internal target failure.
        INTERNAL_FAILURE = HardwareError, 0x4400;
        /// Logical unit communication failure.
        COMMUNICATION_FAILURE = HardwareError, 0x0800;
        /// Invalid command operation code.
        INVALID_OPCODE = IllegalRequest, 0x2000;
        /// Invalid field in command information unit: the initiator's data do not fit the command.
        INVALID_INFORMATION_UNIT = IllegalRequest, 0x0e03;
        /// Logical block address out of range.
        LBA_OUT_OF_RANGE = IllegalRequest, 0x2100;
        /// Invalid field in CDB.
        INVALID_FIELD_IN_CDB = IllegalRequest, 0x2400;
        /// Saving parameters is not supported.
        SAVING_NOT_SUPPORTED = IllegalRequest, 0x3900;
        /// Logical unit not supported.
        LUN_NOT_SUPPORTED = IllegalRequest, 0x2500;
        /// Medium removal is prevented.
        REMOVAL_PREVENTED = IllegalRequest, 0x5302;
        /// Invalid field in parameter list.
        INVALID_FIELD_IN_PARAMETERS = IllegalRequest, 0x2600;
        /// Invalid message error: a task attribute that is not supported.
        INVALID_MESSAGE = IllegalRequest, 0x4900;
        /// Invalid release of persistent reservation.
        INVALID_RELEASE = IllegalRequest, 0x2604;
        /// What is to be kept does not fit beside the data.
        INSUFFICIENT_RESOURCES = IllegalRequest, 0x5503;
        /// Insufficient registration resources.
        INSUFFICIENT_REGISTRATION_RESOURCES = IllegalRequest, 0x5504;
        /// Operation in progress: the list identifier is in use.
        OPERATION_IN_PROGRESS = IllegalRequest, 0x0016;
        /// Invalid token operation, unsupported token type.
        UNSUPPORTED_TOKEN_TYPE = IllegalRequest, 0x2301;
        /// Invalid token operation, token unknown.
        TOKEN_UNKNOWN = IllegalRequest, 0x2304;
        /// Invalid token operation, token revoked: what it stood for has changed.
        TOKEN_REVOKED = IllegalRequest, 0x2306;
        /// Invalid token operation, token expired.
        TOKEN_EXPIRED = IllegalRequest, 0x2307;
        /// Invalid token operation, invalid token length.
        INVALID_TOKEN_LENGTH = IllegalRequest, 0x230a;
        /// Too many CSCD descriptors.
        TOO_MANY_CSCDS = IllegalRequest, 0x2606;
        /// Unsupported CSCD descriptor type code.
        UNSUPPORTED_CSCD = IllegalRequest, 0x2607;
        /// Too many segment descriptors.
        TOO_MANY_SEGMENTS = IllegalRequest, 0x2608;
        /// Unsupported segment descriptor type code.
        UNSUPPORTED_SEGMENT = IllegalRequest, 0x2609;
        /// Inline data length exceeded.
        INLINE_DATA_LENGTH = IllegalRequest, 0x260b;
        /// A segment does not fit in its source or destination.
        COPY_OUT_OF_RANGE = CopyAborted, 0x0000;
        /// Nobody here is the source or destination, or it does not serve.
        COPY_TARGET_UNREACHABLE = CopyAborted, 0x0804;
        /// Reading the source or writing the destination failed.
        COPY_DEVICE_FAILURE = CopyAborted, 0x0d01;
        /// Parameter list length error.
        PARAMETER_LENGTH = IllegalRequest, 0x1a00;
        /// Power on, reset, or bus device reset occurred.
        POWER_ON = UnitAttention, 0x2900;
        /// SCSI bus reset occurred: the target was reset.
        TARGET_RESET = UnitAttention, 0x2902;
        /// Device internal reset: the unit is served by another node, or anew.
        INTERNAL_RESET = UnitAttention, 0x2904;
        /// A host asked for another way, and does not get it.
        SET_TARGET_PORT_GROUPS_FAILED = HardwareError, 0x670a;
        /// I_T nexus loss occurred.
        NEXUS_LOSS = UnitAttention, 0x2907;
        /// Commands cleared by another initiator.
        COMMANDS_CLEARED = UnitAttention, 0x2f00;
        /// SOME COMMANDS CLEARED BY ISCSI PROTOCOL EVENT.
        COMMANDS_CLEARED_BY_PROTOCOL = UnitAttention, 0x477f;
        /// Bus device reset function occurred.
        LUN_RESET = UnitAttention, 0x2903;
        /// The medium may have changed.
        MEDIUM_CHANGED = UnitAttention, 0x2800;
        /// Mode parameters changed.
        MODE_CHANGED = UnitAttention, 0x2a01;
        /// Log parameters changed.
        LOG_CHANGED = UnitAttention, 0x2a02;
        /// Reservations preempted.
        RESERVATIONS_PREEMPTED = UnitAttention, 0x2a03;
        /// Reservations released.
        RESERVATIONS_RELEASED = UnitAttention, 0x2a04;
        /// Registrations preempted.
        REGISTRATIONS_PREEMPTED = UnitAttention, 0x2a05;
        /// Asymmetric access state changed.
        ACCESS_STATE_CHANGED = UnitAttention, 0x2a06;
        /// Capacity data has changed.
        CAPACITY_CHANGED = UnitAttention, 0x2a09;
        /// Thin provisioning soft threshold reached.
        SOFT_THRESHOLD_REACHED = UnitAttention, 0x3807;
        /// Device identifier changed: its identifying information.
        IDENTIFIER_CHANGED = UnitAttention, 0x3f05;
        /// Reported LUNs data has changed.
        LUNS_CHANGED = UnitAttention, 0x3f0e;
        /// Write protected.
        WRITE_PROTECTED = DataProtect, 0x2700;
        /// Software write protected.
        SOFTWARE_WRITE_PROTECTED = DataProtect, 0x2702;
        /// Space allocation failed: the thin device is full.
        SPACE_ALLOCATION_FAILED = DataProtect, 0x2707;
        /// Unexpected unsolicited data.
        UNEXPECTED_UNSOLICITED_DATA = AbortedCommand, 0x0c0c;
        /// Incorrect amount of data.
        INCORRECT_AMOUNT_OF_DATA = AbortedCommand, 0x0c0d;
        /// Protocol service CRC error.
        CRC_ERROR = AbortedCommand, 0x4705;
        /// I/O process terminated.
        TERMINATED = AbortedCommand, 0x0006;
        /// Miscompare during verify operation.
        MISCOMPARE = Miscompare, 0x1d00;
    }

    /// Sense without further fields.
    pub const fn new(key: SenseKey, asc_ascq: u16) -> Self {
        Self { key, asc_ascq, information: None, field: None, progress: None }
    }

    /// Invalid field in CDB, at this byte.
    pub const fn invalid_cdb_byte(byte: u16) -> Self {
        Self { field: Some(FieldPointer::Cdb(byte)), ..Self::INVALID_FIELD_IN_CDB }
    }

    /// Invalid field in the parameter list, at this byte.
    pub const fn invalid_parameter_byte(byte: u16) -> Self {
        Self { field: Some(FieldPointer::Parameter(byte)), ..Self::INVALID_FIELD_IN_PARAMETERS }
    }

    /// The same, at a byte of the parameter list.
    #[must_use]
    pub const fn at_parameter_byte(mut self, byte: u16) -> Self {
        self.field = Some(FieldPointer::Parameter(byte));
        self
    }

    /// The same with an INFORMATION field.
    #[must_use]
    pub const fn with_information(mut self, information: u64) -> Self {
        self.information = Some(information);
        self
    }

    /// The same with a progress indication.
    #[must_use]
    pub const fn with_progress(mut self, progress: u16) -> Self {
        self.progress = Some(progress);
        self
    }

    /// As bytes.
    pub fn encode(&self, format: SenseFormat) -> Vec<u8> {
        match format {
            SenseFormat::Fixed => self.encode_fixed(),
            SenseFormat::Descriptor => self.encode_descriptors(),
        }
    }

    fn key_specific(&self) -> Option<[u8; 3]> {
        let (flag, byte) = match (self.field, self.progress) {
            (Some(FieldPointer::Cdb(byte)), _) => (0xc0, byte),
            (Some(FieldPointer::Parameter(byte)), _) => (0x80, byte),
            (None, progress) => (0x80, progress?),
        };
        let pointer = byte.to_be_bytes();
        Some([flag, pointer[0], pointer[1]])
    }

    fn encode_fixed(&self) -> Vec<u8> {
        let mut bytes = vec![0; 18];
        bytes[0] = 0x70;
        bytes[2] = self.key as u8;
        bytes[7] = 10;
        // A larger value does not fit in the fixed format: VALID stays zero (SPC-4 4.5.3).
        if let Some(information) = self.information.and_then(|value| u32::try_from(value).ok()) {
            bytes[0] |= 0x80;
            bytes[3..7].copy_from_slice(&information.to_be_bytes());
        }
        bytes[12..14].copy_from_slice(&self.asc_ascq.to_be_bytes());
        if let Some(specific) = self.key_specific() {
            bytes[15..18].copy_from_slice(&specific);
        }
        bytes
    }

    fn encode_descriptors(&self) -> Vec<u8> {
        let code = self.asc_ascq.to_be_bytes();
        let mut bytes = vec![0x72, self.key as u8, code[0], code[1], 0, 0, 0, 0];
        if let Some(information) = self.information {
            bytes.extend_from_slice(&[0, 0x0a, 0x80, 0]);
            bytes.extend_from_slice(&information.to_be_bytes());
        }
        if let Some(specific) = self.key_specific() {
            bytes.extend_from_slice(&[2, 6, 0, 0, specific[0], specific[1], specific[2], 0]);
        }
        bytes[7] = u8::try_from(bytes.len() - 8).expect("two short descriptors");
        bytes
    }
}

/// Key and code of received sense data of either format; `None` when it is neither.
pub fn decode(bytes: &[u8]) -> Option<(u8, u16)> {
    let code = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    match bytes.first()? & 0x7f {
        0x70 | 0x71 => Some((bytes.get(2)? & 0xf, code(12)?)),
        0x72 | 0x73 => Some((bytes.get(1)? & 0xf, code(2)?)),
        _ => None,
    }
}

/// The INFORMATION field of received sense data of either format, where it is valid.
pub fn information(bytes: &[u8]) -> Option<u64> {
    match bytes.first()? & 0x7f {
        0x70 | 0x71 if bytes[0] & 0x80 != 0 => {
            Some(u64::from(u32::from_be_bytes(bytes.get(3..7)?.try_into().ok()?)))
        }
        0x72 | 0x73 => {
            let mut rest = bytes.get(8..)?;
            while let [kind, len, ..] = *rest {
                let body = rest.get(2..2 + usize::from(len))?;
                if kind == 0 && body.first()? & 0x80 != 0 {
                    return Some(u64::from_be_bytes(body.get(2..10)?.try_into().ok()?));
                }
                rest = &rest[2 + usize::from(len)..];
            }
            None
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_decode_to_what_was_encoded() {
        let sense = Sense::invalid_cdb_byte(2).with_information(77);
        for format in [SenseFormat::Fixed, SenseFormat::Descriptor] {
            assert_eq!(decode(&sense.encode(format)), Some((5, 0x2400)));
            assert_eq!(information(&sense.encode(format)), Some(77));
            assert_eq!(information(&Sense::NONE.encode(format)), None);
        }
        let fixed = sense.encode(SenseFormat::Fixed);
        assert_eq!((fixed[0], fixed[15], fixed[17]), (0xf0, 0xc0, 2));
        assert_eq!(decode(&[0x70, 0]), None);
        assert_eq!(decode(&[]), None);
        assert_eq!(information(&[0x72, 0, 0, 0, 0, 0, 0, 9, 0, 200]), None);
    }
}
