//! Logical unit numbers as eight raw bytes (SAM-5 section 4.7).

/// The unit number of a raw LUN in peripheral or flat addressing of one level; `None` for any other method.
pub fn decode(raw: u64) -> Option<u16> {
    let bytes = raw.to_be_bytes();
    if bytes[2..] != [0; 6] {
        return None;
    }
    match bytes[0] >> 6 {
        0 if bytes[0] == 0 => Some(u16::from(bytes[1])),
        1 => Some(u16::from(bytes[0] & 0x3f) << 8 | u16::from(bytes[1])),
        _ => None,
    }
}

/// A raw LUN: peripheral addressing below 256, flat above.
pub fn encode(number: u16) -> u64 {
    let method = if number < 256 { 0 } else { 0x4000 };
    u64::from(number & 0x3fff | method) << 48
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_both_ways() {
        for number in [0, 1, 255, 256, 16383] {
            assert_eq!(decode(encode(number)), Some(number));
        }
        assert_eq!(decode(0x4001_0000_0000_0000), Some(1));
        assert_eq!(decode(0x0000_0001_0000_0000), None);
        assert_eq!(decode(0xc101_0000_0000_0000), None);
    }
}
