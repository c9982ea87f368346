//! TransportIDs of iSCSI initiator ports (SPC-4 section 7.6.4.6).

use alloc::vec::Vec;

use super::InitiatorPort;

/// Protocol identifier 5 (iSCSI), format 01b (initiator port).
const INITIATOR_PORT: u8 = 0x45;
/// What stands between name and ISID.
const SEPARATOR: &[u8] = b",i,0x";
const HEADER_LEN: usize = 4;

/// The TransportID of a port: a multiple of four bytes.
pub(super) fn encode(port: &InitiatorPort) -> Vec<u8> {
    let mut text = port.name.as_bytes().to_vec();
    text.extend_from_slice(SEPARATOR);
    for byte in port.isid {
        text.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
    }
    // Ends with a NUL, and has at least twenty bytes.
    text.resize((text.len() + 1).max(20).next_multiple_of(4), 0);
    let len = u16::try_from(text.len()).expect("names are short").to_be_bytes();
    let mut bytes = alloc::vec![INITIATOR_PORT, 0, len[0], len[1]];
    bytes.append(&mut text);
    bytes
}

/// The port of the TransportID at the beginning of `bytes`, and how long it is; `None` when it is none of ours.
pub(super) fn decode(bytes: &[u8]) -> Option<(InitiatorPort, usize)> {
    let header = bytes.get(..HEADER_LEN)?;
    let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] != INITIATOR_PORT || !len.is_multiple_of(4) {
        return None;
    }
    let text = bytes.get(HEADER_LEN..HEADER_LEN + len)?;
    let text = &text[..text.iter().position(|byte| *byte == 0)?];
    let at = text.windows(SEPARATOR.len()).position(|window| window == SEPARATOR)?;
    let name = core::str::from_utf8(&text[..at]).ok()?;
    let digits = &text[at + SEPARATOR.len()..];
    if digits.is_empty() || digits.len() > 12 {
        return None;
    }
    let mut isid = 0u64;
    for digit in digits {
        isid = isid << 4 | u64::from(char::from(*digit).to_digit(16)?);
    }
    let isid = isid.to_be_bytes()[2..].try_into().expect("six bytes");
    Some((InitiatorPort::new(name, isid)?, HEADER_LEN + len))
}
