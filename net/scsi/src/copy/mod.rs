//! Third-party copy (SPC-4 sections 5.17, 6.4 and 6.20 to 6.26): parameter lists of EXTENDED COPY in, parameter data out; tokens are
//! in [`token`].

mod status;
pub mod token;
mod vpd;

use alloc::vec::Vec;

use crate::command::Immediate;
use crate::inquiry;
use crate::sense::Sense;
use crate::unit::Unit;
pub use status::{CopyState, CopyStatus, Origin};
pub use vpd::operating_parameters;
pub(crate) use vpd::third_party_copy;

/// Most CSCD descriptors of a list.
pub const CSCDS_MAX: usize = 16;
/// Most segment descriptors of a list.
pub const SEGMENTS_MAX: usize = 64;
/// Most bytes of both kinds of descriptors together.
pub const DESCRIPTORS_LEN_MAX: usize = 4096;
/// Most bytes that one segment descriptor copies.
pub const SEGMENT_LEN_MAX: u32 = 64 << 20;
/// Copies that go on at once, whose commands do not wait for them.
pub const CONCURRENT_MAX: u8 = 64;
/// Bytes of the longest parameter list: header and descriptors.
pub const LIST_LEN_MAX: u32 = HEADER4_LEN as u32 + DESCRIPTORS_LEN_MAX as u32;
/// CSCD descriptor ID of the logical unit that the command is for.
pub const THIS_UNIT: usize = 0xffff;

/// Bytes of the header of a list with a one-byte identifier,
const HEADER1_LEN: usize = 16;
/// and of one with four.
const HEADER4_LEN: usize = 48;
const IDENTIFICATION: u8 = 0xe4;
const CSCD_LEN: usize = 32;
const BLOCK_TO_BLOCK: u8 = 0x02;
const BLOCK_TO_BLOCK_OFFSET: u8 = 0x0a;

/// A copy source or destination, by its designation descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cscd {
    code_set: u8,
    kind: u8,
    value: Vec<u8>,
}

impl Cscd {
    /// True when the descriptor names this logical unit.
    pub fn names(&self, unit: &Unit) -> bool {
        let Ok(page) = inquiry::data(Some(0x83), unit) else { return false };
        let mut rest = &page[4..];
        while let [code_set, kind, _, len, ..] = *rest {
            let Some(value) = rest.get(4..4 + usize::from(len)) else { return false };
            // Association zero: the logical unit.
            if kind & 0x30 == 0
                && (code_set & 0x0f, kind & 0x0f) == (self.code_set, self.kind)
                && value == self.value
            {
                return true;
            }
            rest = &rest[4 + usize::from(len)..];
        }
        false
    }
}

/// Where a segment begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Index of its descriptor.
    pub cscd: usize,
    /// Block.
    pub lba: u64,
    /// Bytes into that block.
    pub offset: u16,
}

/// How much a segment copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Blocks of the source.
    SourceBlocks(u16),
    /// Blocks of the destination: DC is one.
    DestinationBlocks(u16),
    /// Bytes.
    Bytes(u32),
}

/// A segment descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// From where.
    pub source: Start,
    /// To where.
    pub destination: Start,
    /// How much.
    pub amount: Amount,
}

/// Whether the outcome is kept for RECEIVE COPY RESULTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Results {
    /// Under this list identifier.
    Kept(u32),
    /// No: the list has no identifier.
    NotKept,
}

/// A parameter list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyList {
    /// Whether its outcome is kept.
    pub results: Results,
    /// When the status comes.
    pub immediate: Immediate,
    /// Sources and destinations.
    pub cscds: Vec<Cscd>,
    /// What to copy, in order.
    pub segments: Vec<Segment>,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) << 16 | u32::from(u16_at(bytes, at + 2))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}

/// Lengths of a list's parts.
struct Parts {
    header: usize,
    cscds: usize,
    segments: usize,
}

/// Reads a parameter list of EXTENDED COPY(LID1).
///
/// # Errors
/// A list that is too short or too long, descriptors that are too many or of another kind.
pub fn parse(list: &[u8]) -> Result<CopyList, Sense> {
    let header = list.get(..HEADER1_LEN).ok_or(Sense::PARAMETER_LENGTH)?;
    // No inline data: no descriptor that would use them is supported.
    if u32_at(header, 12) != 0 {
        return Err(Sense::INLINE_DATA_LENGTH);
    }
    let parts = Parts {
        header: HEADER1_LEN,
        cscds: usize::from(u16_at(header, 2)),
        segments: usize::try_from(u32_at(header, 8)).unwrap_or(usize::MAX),
    };
    let results = match header[1] >> 3 & 3 {
        3 => Results::NotKept,
        _ => Results::Kept(u32::from(header[0])),
    };
    parse_parts(list, &parts, results, Immediate::No)
}

/// Reads a parameter list of EXTENDED COPY(LID4).
///
/// # Errors
/// As [`parse`], and a header that is not of format 01h.
pub fn parse_lid4(list: &[u8]) -> Result<CopyList, Sense> {
    let header = list.get(..HEADER4_LEN).ok_or(Sense::PARAMETER_LENGTH)?;
    let wrong = |at: u16| Err(Sense::invalid_parameter_byte(at));
    match (header[0], u16_at(header, 2), header[16]) {
        (1, 0x20, 0xff) => {}
        (1, 0x20, _) => return wrong(16),
        (1, ..) => return wrong(2),
        _ => return wrong(0),
    }
    if u16_at(header, 46) != 0 {
        return Err(Sense::INLINE_DATA_LENGTH);
    }
    let list_id = u32_at(header, 20);
    let results = match (header[1] >> 3 & 3, list_id) {
        (3, 0) => Results::NotKept,
        (3, _) => return wrong(20),
        _ => Results::Kept(list_id),
    };
    let immediate = if header[15] & 1 != 0 { Immediate::Yes } else { Immediate::No };
    let parts = Parts {
        header: HEADER4_LEN,
        cscds: usize::from(u16_at(header, 42)),
        segments: usize::from(u16_at(header, 44)),
    };
    parse_parts(list, &parts, results, immediate)
}

fn parse_parts(
    list: &[u8],
    parts: &Parts,
    results: Results,
    immediate: Immediate,
) -> Result<CopyList, Sense> {
    let total = parts.cscds.saturating_add(parts.segments);
    if total > DESCRIPTORS_LEN_MAX || list.len() < parts.header + total {
        return Err(Sense::PARAMETER_LENGTH);
    }
    if parts.cscds > CSCDS_MAX * CSCD_LEN {
        return Err(Sense::TOO_MANY_CSCDS);
    }
    let (cscds, segments) = list[parts.header..parts.header + total].split_at(parts.cscds);
    Ok(CopyList {
        results,
        immediate,
        cscds: parse_cscds(cscds, parts.header)?,
        segments: parse_segments(segments, parts.header + parts.cscds)?,
    })
}

fn parse_cscds(bytes: &[u8], first: usize) -> Result<Vec<Cscd>, Sense> {
    let mut cscds = Vec::new();
    for (index, descriptor) in bytes.chunks(CSCD_LEN).enumerate() {
        let at = u16::try_from(first + index * CSCD_LEN).unwrap_or(u16::MAX);
        if descriptor[0] != IDENTIFICATION {
            return Err(Sense::UNSUPPORTED_CSCD.at_parameter_byte(at));
        }
        if descriptor.len() < CSCD_LEN {
            return Err(Sense::PARAMETER_LENGTH);
        }
        let len = usize::from(descriptor[7]);
        let value = descriptor.get(8..8 + len.min(20)).filter(|_| len <= 20);
        let value = value.ok_or(Sense::invalid_parameter_byte(at + 7))?.to_vec();
        cscds.push(Cscd { code_set: descriptor[4] & 0x0f, kind: descriptor[5] & 0x0f, value });
    }
    Ok(cscds)
}

fn parse_segments(mut bytes: &[u8], first: usize) -> Result<Vec<Segment>, Sense> {
    let mut segments = Vec::new();
    let whole = bytes.len();
    while !bytes.is_empty() {
        let at = u16::try_from(first + whole - bytes.len()).unwrap_or(u16::MAX);
        let kind = bytes[0];
        let wanted = match kind {
            BLOCK_TO_BLOCK => 28,
            BLOCK_TO_BLOCK_OFFSET => 32,
            _ => return Err(Sense::UNSUPPORTED_SEGMENT.at_parameter_byte(at)),
        };
        if segments.len() == SEGMENTS_MAX {
            return Err(Sense::TOO_MANY_SEGMENTS);
        }
        let descriptor = bytes.get(..wanted).ok_or(Sense::PARAMETER_LENGTH)?;
        if usize::from(u16_at(descriptor, 2)) != wanted - 4 {
            return Err(Sense::invalid_parameter_byte(at + 2));
        }
        segments.push(segment(kind, descriptor));
        bytes = &bytes[wanted..];
    }
    Ok(segments)
}

fn segment(kind: u8, descriptor: &[u8]) -> Segment {
    let offset = |at: usize| if kind == BLOCK_TO_BLOCK_OFFSET { u16_at(descriptor, at) } else { 0 };
    let start = |index: usize, lba: usize, offset_at: usize| Start {
        cscd: usize::from(u16_at(descriptor, index)),
        lba: u64_at(descriptor, lba),
        offset: offset(offset_at),
    };
    let amount = match (kind, descriptor[1] & 0x02) {
        (BLOCK_TO_BLOCK_OFFSET, _) => Amount::Bytes(u32_at(descriptor, 8)),
        (_, 0) => Amount::SourceBlocks(u16_at(descriptor, 10)),
        _ => Amount::DestinationBlocks(u16_at(descriptor, 10)),
    };
    Segment { source: start(4, 12, 28), destination: start(6, 20, 30), amount }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn cscd() -> Vec<u8> {
        let mut bytes = vec![0; CSCD_LEN];
        bytes[0] = IDENTIFICATION;
        bytes[4..8].copy_from_slice(&[1, 3, 0, 8]);
        bytes[8..16].copy_from_slice(&[0x30, 0, 0, 0, 0, 0, 0, 7]);
        bytes
    }

    fn block_to_block(blocks: u16, from: u64, to: u64) -> Vec<u8> {
        let mut bytes = vec![BLOCK_TO_BLOCK, 0, 0, 24, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(&blocks.to_be_bytes());
        bytes.extend_from_slice(&from.to_be_bytes());
        bytes.extend_from_slice(&to.to_be_bytes());
        bytes
    }

    fn list(cscds: &[Vec<u8>], segments: &[Vec<u8>]) -> Vec<u8> {
        let (cscds, segments) = (cscds.concat(), segments.concat());
        let mut bytes = vec![9, 0];
        bytes.extend_from_slice(&(cscds.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(segments.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        [bytes, cscds, segments].concat()
    }

    #[test]
    fn a_list_says_what_to_copy() {
        let parsed = parse(&list(&[cscd()], &[block_to_block(8, 1, 1 << 33)])).expect("a list");
        assert_eq!(parsed.results, Results::Kept(9));
        let start = |lba: u64| Start { cscd: 0, lba, offset: 0 };
        let (source, destination) = (start(1), start(1 << 33));
        assert_eq!(parsed.segments, [Segment { source, destination, amount: Amount::SourceBlocks(8) }]);
    }

    /// The same list with a four-byte identifier.
    fn list4(id: u32, immediate: u8, cscds: &[Vec<u8>], segments: &[Vec<u8>]) -> Vec<u8> {
        let (cscds, segments) = (cscds.concat(), segments.concat());
        let mut bytes = vec![0; 48];
        bytes[0] = 1;
        bytes[3] = 0x20;
        bytes[15] = immediate;
        bytes[16] = 0xff;
        bytes[20..24].copy_from_slice(&id.to_be_bytes());
        bytes[42..44].copy_from_slice(&(cscds.len() as u16).to_be_bytes());
        bytes[44..46].copy_from_slice(&(segments.len() as u16).to_be_bytes());
        [bytes, cscds, segments].concat()
    }

    #[test]
    fn both_formats_say_the_same() {
        let (cscds, segments) = ([cscd(), cscd()], [block_to_block(8, 1, 2), block_to_block(3, 4, 5)]);
        let short = parse(&list(&cscds, &segments)).expect("a list");
        let long = parse_lid4(&list4(1 << 20, 1, &cscds, &segments)).expect("a list");
        assert_eq!((&long.cscds, &long.segments), (&short.cscds, &short.segments));
        assert_eq!((long.results, long.immediate), (Results::Kept(1 << 20), Immediate::Yes));
        let good = list4(7, 0, &cscds, &segments);
        for len in 0..good.len() {
            assert_eq!(parse_lid4(&good[..len]), Err(Sense::PARAMETER_LENGTH), "{len}");
        }
        for (at, value, byte) in [(0, 0, 0), (3, 0x40, 2), (16, 0xe4, 16), (1, 0x18, 20)] {
            let mut spoilt = good.clone();
            spoilt[at] = value;
            assert_eq!(parse_lid4(&spoilt), Err(Sense::invalid_parameter_byte(byte)), "{at}");
        }
        let mut other = good;
        other[48] = 0xe0;
        assert_eq!(parse_lid4(&other), Err(Sense::UNSUPPORTED_CSCD.at_parameter_byte(48)));
    }

    #[test]
    fn what_is_too_much_too_short_or_unknown_is_refused() {
        let good = list(&[cscd()], &[block_to_block(8, 0, 8)]);
        for len in 1..good.len() {
            assert_eq!(parse(&good[..len]), Err(Sense::PARAMETER_LENGTH), "{len}");
        }
        let many = list(&vec![cscd(); CSCDS_MAX + 1], &[block_to_block(1, 0, 1)]);
        assert_eq!(parse(&many), Err(Sense::TOO_MANY_CSCDS));
        let many = list(&[cscd()], &vec![block_to_block(1, 0, 1); SEGMENTS_MAX + 1]);
        assert_eq!(parse(&many), Err(Sense::TOO_MANY_SEGMENTS));
        let long = list(&[cscd()], &vec![block_to_block(1, 0, 1); 200]);
        assert_eq!(parse(&long), Err(Sense::PARAMETER_LENGTH));
        let mut other = good.clone();
        other[16] = 0xe0;
        assert_eq!(parse(&other), Err(Sense::UNSUPPORTED_CSCD.at_parameter_byte(16)));
        let mut other = good;
        other[48] = 0x03;
        assert_eq!(parse(&other), Err(Sense::UNSUPPORTED_SEGMENT.at_parameter_byte(48)));
    }

    #[test]
    fn any_bytes_are_a_list_or_are_refused() {
        let mut state = 7u64;
        let good = list(&[cscd(), cscd()], &[block_to_block(8, 0, 8), block_to_block(8, 0, 8)]);
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..4 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = (state >> 56) as u8;
            }
            let _ = parse(&bytes);
        }
    }
}
