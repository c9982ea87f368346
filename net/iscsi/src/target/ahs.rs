//! Additional header segments of a command (RFC 7143 section 11.2.2).

use crate::pdu::{Header, RejectReason, flag};

/// Types of additional header segments (RFC 7143 sections 11.2.2.1 and 11.2.2.3).
mod kind {
    pub(super) const EXTENDED_CDB: u8 = 1;
    pub(super) const BIDIRECTIONAL_LENGTH: u8 = 2;
}

/// Looks at what follows a command's header. An extended CDB is well formed, and the command that needs it is not supported,
/// which SCSI says; data in both directions are refused here.
pub(super) fn check(header: &Header, mut segments: &[u8]) -> Result<(), RejectReason> {
    while !segments.is_empty() {
        let [high, low, kind, ..] = segments else { return Err(RejectReason::InvalidField) };
        // The length counts what follows type and length; the whole is padded to four bytes.
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let whole = (3 + len).next_multiple_of(4);
        if segments.len() < whole {
            return Err(RejectReason::InvalidField);
        }
        match *kind {
            kind::EXTENDED_CDB if len > 1 => {}
            kind::BIDIRECTIONAL_LENGTH if len == 5 => return Err(RejectReason::NotSupported),
            _ => return Err(RejectReason::InvalidField),
        }
        segments = &segments[whole..];
    }
    //= rfc7143#section-11.3.1(a): R and W at once make a command in both directions.
    if header.has(flag::READ | flag::WRITE) { Err(RejectReason::NotSupported) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pdu::opcode;

    #[test]
    fn additional_header_segments_are_checked() {
        let command = Header::new(opcode::SCSI_COMMAND, flag::FINAL | flag::READ);
        assert_eq!(check(&command, &[]), Ok(()));
        let mut extended = [0; 20];
        extended[..4].copy_from_slice(&[0, 17, kind::EXTENDED_CDB, 0]);
        assert_eq!(check(&command, &extended), Ok(()));
        assert_eq!(check(&command, &extended[..16]), Err(RejectReason::InvalidField));
        let length = [0, 5, kind::BIDIRECTIONAL_LENGTH, 0, 0, 0, 2, 0];
        assert_eq!(check(&command, &length), Err(RejectReason::NotSupported));
        assert_eq!(check(&command, &[0, 1, 9, 0]), Err(RejectReason::InvalidField));
        let both = command.with_flags(flag::WRITE);
        assert_eq!(check(&both, &[]), Err(RejectReason::NotSupported));
    }
}
