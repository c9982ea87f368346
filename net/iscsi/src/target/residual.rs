//! How far what was expected and what a command moves are apart (RFC 7143 section 11.4.5).

use crate::pdu::{Header, flag};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Residual {
    None,
    Overflow(u32),
    Underflow(u32),
}

pub(super) fn residual(expected: u32, actual: u64) -> Residual {
    let wide = u64::from(expected);
    match actual.cmp(&wide) {
        core::cmp::Ordering::Equal => Residual::None,
        core::cmp::Ordering::Greater => Residual::Overflow(u32::try_from(actual - wide).unwrap_or(u32::MAX)),
        core::cmp::Ordering::Less => Residual::Underflow(u32::try_from(wide - actual).unwrap_or(u32::MAX)),
    }
}

impl Residual {
    pub(super) fn apply(self, header: Header) -> Header {
        match self {
            Self::None => header,
            Self::Overflow(count) => header.with_flags(flag::OVERFLOW).with_residual(count),
            Self::Underflow(count) => header.with_flags(flag::UNDERFLOW).with_residual(count),
        }
    }
}
