//! Text of login and text PDUs: `key=value` pairs, each ended by a NUL (RFC 7143 section 6.1).

use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// The longest key name (RFC 7143 section 6.1).
pub const KEY_LEN_MAX: usize = 63;
/// The longest value that is accepted; the RFC allows 255 unless a key says more.
pub const VALUE_LEN_MAX: usize = 8192;

/// Bytes of the longest iSCSI-local-name-value, such as an alias (RFC 7143 section 6.1).
pub const LOCAL_NAME_MAX: usize = 255;

/// Key and value pairs in order.
pub type Pairs = Vec<(String, String)>;

/// Not text as RFC 7143 section 6.1 wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextError {
    /// Not UTF-8.
    Encoding,
    /// A pair without `=`.
    NoValue,
    /// A key that is empty, too long, or has forbidden characters.
    Key,
    /// A value that is too long.
    Value,
}

/// Splits a data segment into pairs.
///
/// # Errors
/// See [`TextError`].
pub fn parse(bytes: &[u8]) -> Result<Pairs, TextError> {
    bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty()).map(parse_pair).collect()
}

fn parse_pair(part: &[u8]) -> Result<(String, String), TextError> {
    let text = core::str::from_utf8(part).map_err(|_| TextError::Encoding)?;
    let (key, value) = text.split_once('=').ok_or(TextError::NoValue)?;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '@' | '_' | '#' | '/');
    //= rfc7143#section-6.1(c): the characters of a key, 63 at the most.
    if key.is_empty() || key.len() > KEY_LEN_MAX || !key.chars().all(legal) {
        return Err(TextError::Key);
    }
    if value.len() > VALUE_LEN_MAX {
        return Err(TextError::Value);
    }
    Ok((key.to_string(), value.to_string()))
}

/// Appends one pair.
pub fn emit(into: &mut Vec<u8>, key: &str, value: &str) {
    into.extend_from_slice(key.as_bytes());
    into.push(b'=');
    into.extend_from_slice(value.as_bytes());
    into.push(0);
}

/// A number as iSCSI text writes it: decimal or `0x` hexadecimal.
pub fn parse_number(text: &str) -> Option<u32> {
    //= rfc7143#section-6.1(b): hexadecimal behind 0x or 0X, else decimal, and no sign.
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16).ok().filter(|_| !hex.starts_with('+')),
        // Rust would take a sign.
        None if text.starts_with('+') => None,
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_parsed_as_they_are_emitted() {
        let mut bytes = Vec::new();
        emit(&mut bytes, "InitiatorName", "iqn.2026-11.example:a=b");
        emit(&mut bytes, "HeaderDigest", "CRC32C,None");
        let pairs = parse(&bytes).expect("text");
        assert_eq!(pairs[0].1, "iqn.2026-11.example:a=b");
        assert_eq!(pairs[1], ("HeaderDigest".into(), "CRC32C,None".into()));
    }

    #[test]
    fn garbage_is_an_error() {
        assert_eq!(parse(b"NoEquals\0"), Err(TextError::NoValue));
        assert_eq!(parse(b"=x\0"), Err(TextError::Key));
        assert_eq!(parse(b"a b=x\0"), Err(TextError::Key));
        assert_eq!(parse(b"a=\xff\0"), Err(TextError::Encoding));
        assert_eq!(parse(b"\0\0"), Ok(Vec::new()));
    }

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        assert_eq!(parse_number("0x10000"), Some(65536));
        assert_eq!(parse_number("262144"), Some(262_144));
        for bad in ["", "-1", "+5", "0x+5", "0x", "1k", "4294967296"] {
            assert_eq!(parse_number(bad), None, "{bad}");
        }
    }
}
