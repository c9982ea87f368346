//! Serial number arithmetic on 32 bits (RFC 1982, RFC 7143 section 4.2.2.1(c)).

/// True when `a` comes before `b`.
pub fn before(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < 1 << 31
}

/// True when `a` is `b` or comes before it.
pub fn before_or_at(a: u32, b: u32) -> bool {
    a == b || before(a, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_wraps() {
        assert!(before(u32::MAX, 0) && before(1, 2) && !before(2, 1) && !before(5, 5));
        assert!(before_or_at(5, 5) && before_or_at(u32::MAX - 3, 7) && !before_or_at(7, u32::MAX - 3));
    }
}
