//! Binary values in text: `0x` and hexadecimal digits, or `0b` and base64 (RFC 7143 section 6.1).

use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Base64 with or without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Bytes as `0x` and hexadecimal digits.
pub(super) fn encode_hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).expect("a nibble");
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("0x");
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

/// The bytes of a value in either form, at most `max` of them.
pub(super) fn decode(text: &str, max: usize) -> Option<Vec<u8>> {
    let (form, digits) = text.split_at_checked(2)?;
    let bytes = match form {
        "0x" | "0X" if digits.len() <= 2 * max => decode_hex(digits.as_bytes())?,
        "0b" | "0B" if digits.len() <= 4 * max.div_ceil(3) => BASE64.decode(digits).ok()?,
        _ => return None,
    };
    (!bytes.is_empty() && bytes.len() <= max).then_some(bytes)
}

fn decode_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let nibble = |digit: &u8| char::from(*digit).to_digit(16).map(|value| value as u8);
    // An odd number of digits lacks a leading zero.
    let (first, pairs) = digits.split_at(digits.len() % 2);
    let mut bytes: Vec<u8> = first.iter().map(nibble).collect::<Option<_>>()?;
    for pair in pairs.chunks_exact(2) {
        bytes.push(nibble(&pair[0])? << 4 | nibble(&pair[1])?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_decode_within_their_limit() {
        assert_eq!(decode("0x00ffA5", 3), Some(alloc::vec![0, 0xff, 0xa5]));
        assert_eq!(decode("0X1ff", 3), Some(alloc::vec![1, 0xff]));
        assert_eq!(decode("0bAP+l", 3), Some(alloc::vec![0, 0xff, 0xa5]));
        assert_eq!(decode("0BAP8=", 3), Some(alloc::vec![0, 0xff]));
        assert_eq!(decode("0bAP8", 3), Some(alloc::vec![0, 0xff]));
        for bad in
            ["", "0", "0x", "0b", "00ff", "0xfg", "0bA", "0b====", "0x00ffA5b0", "0bAP+lpQ==", "0bAP+lAP+l"]
        {
            assert_eq!(decode(bad, 3), None, "{bad}");
        }
        assert_eq!(decode("0é1", 3), None);
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode_hex(&bytes), 256), Some(bytes));
    }
}
