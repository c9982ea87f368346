//! ROD tokens and the commands about them (SBC-3 sections 4.28, 5.12 and 5.59, SPC-4 section 5.17.6): POPULATE TOKEN, WRITE USING
//! TOKEN.
//!
//! A token stands for the bytes that its ranges had when it was made, and is revoked when one of them changes: the type "point in
//! time copy, change vulnerable". Nobody can make one up: it holds [`SECRET_LEN`] random bytes.

use alloc::vec;
use alloc::vec::Vec;

use super::{IDENTIFICATION, u16_at, u32_at, u64_at};
use crate::sense::Sense;
use crate::unit::Unit;

/// Bytes of a token.
pub const TOKEN_LEN: usize = 512;
/// Random bytes of a token.
pub const SECRET_LEN: usize = 32;
/// Most range descriptors of a list.
pub const RANGES_MAX: usize = 64;
/// Most bytes that a token stands for.
pub const BYTES_MAX: u64 = 256 << 20;
/// Most bytes of one WRITE USING TOKEN that go without delay.
pub(super) const BYTES_OPTIMAL: u64 = 64 << 20;
/// Seconds that a token is kept unused, unless something else is asked for.
pub const TIMEOUT_DEFAULT: u32 = 60;
/// Most seconds that can be asked for.
pub const TIMEOUT_MAX: u32 = 600;
/// Bytes of the longest parameter list.
pub const LIST_LEN_MAX: u32 = (WRITE_HEADER_LEN + RANGES_MAX * RANGE_LEN) as u32;

const POPULATE_HEADER_LEN: usize = 16;
const WRITE_HEADER_LEN: usize = 536;
const RANGE_LEN: usize = 16;
/// Where a WRITE USING TOKEN list has the token.
const TOKEN_AT: usize = 16;
/// ROD TOKEN LENGTH: the bytes that follow the field.
const LENGTH: u16 = 0x01f8;
const SECRET_AT: usize = 128;
/// A mark of the initiator that asked for it, behind the secret.
const MAKER_AT: usize = SECRET_AT + SECRET_LEN;

/// The mark of a name (FNV-1a).
fn mark(name: &str) -> u64 {
    let add = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, add)
}

/// Point in time copy, change vulnerable.
pub(super) const CHANGE_VULNERABLE: u32 = 0x0080_0001;
/// Any point in time copy.
const ANY_POINT_IN_TIME: u32 = 0x0080_ffff;
/// The block device zero ROD token: zeroes without end.
pub(super) const ZERO: u32 = 0xffff_0001;

/// When the status comes.
pub use crate::command::Immediate;

/// A run of blocks, as a range descriptor has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First block.
    pub lba: u64,
    /// Blocks; none is no error.
    pub blocks: u32,
}

/// A POPULATE TOKEN parameter list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Populate {
    /// When the status comes.
    pub immediate: Immediate,
    /// Seconds that the token is kept unused.
    pub timeout: u32,
    /// What it stands for.
    pub ranges: Vec<Range>,
}

/// What becomes of the token afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delete {
    /// DEL_TKN: it is not needed any more.
    Yes,
    /// It stays.
    No,
}

/// A WRITE USING TOKEN parameter list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteUsing {
    /// When the status comes.
    pub immediate: Immediate,
    /// What becomes of the token.
    pub delete: Delete,
    /// Blocks of the destination to skip in what the token stands for.
    pub offset: u64,
    /// Where the bytes come from.
    pub source: Source,
    /// Where they go.
    pub ranges: Vec<Range>,
}

/// What a token is, as far as the token itself says it.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// Zeroes.
    Zeroes,
    /// Whatever a token of this target stands for.
    Token(Token),
}

impl core::fmt::Debug for Source {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Zeroes => f.write_str("Zeroes"),
            Self::Token(token) => write!(f, "{token:?}"),
        }
    }
}

/// A token's bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Vec<u8>);

impl core::fmt::Debug for Token {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Whoever has the bytes can read the blocks.
        write!(f, "token {}", self.id())
    }
}

impl Token {
    /// A token that stands for `bytes` bytes of a unit, and that the initiator of this name has asked for.
    pub fn new(id: u64, secret: &[u8; SECRET_LEN], bytes: u64, unit: &Unit, maker: &str) -> Self {
        let mut token = vec![0; TOKEN_LEN];
        token[..4].copy_from_slice(&CHANGE_VULNERABLE.to_be_bytes());
        token[6..8].copy_from_slice(&LENGTH.to_be_bytes());
        token[8..16].copy_from_slice(&id.to_be_bytes());
        // Creator: an identification descriptor with the unit's NAA designator.
        token[16] = IDENTIFICATION;
        token[20..24].copy_from_slice(&[0x01, 0x03, 0, 8]);
        token[24..32].copy_from_slice(&unit.identity.naa.to_be_bytes());
        token[45..48].copy_from_slice(&unit.block_size.to_be_bytes()[1..]);
        token[56..64].copy_from_slice(&bytes.to_be_bytes());
        token[96..100].copy_from_slice(&unit.block_size.to_be_bytes());
        token[SECRET_AT..SECRET_AT + SECRET_LEN].copy_from_slice(secret);
        token[MAKER_AT..MAKER_AT + 8].copy_from_slice(&mark(maker).to_be_bytes());
        Self(token)
    }

    /// Whether an initiator of this name has asked for it. A token that says otherwise than it did when it was made is none any more.
    pub fn is_made_by(&self, initiator: &str) -> bool {
        u64_at(&self.0, MAKER_AT) == mark(initiator)
    }

    /// Whether it stands for blocks of this unit.
    pub fn is_of(&self, unit: &Unit) -> bool {
        u64_at(&self.0, 24) == unit.identity.naa
    }

    /// COPY MANAGER ROD TOKEN IDENTIFIER.
    pub fn id(&self) -> u64 {
        u64_at(&self.0, 8)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether both are the same, in a time that does not tell where they differ.
    pub fn is(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
    }
}

/// The block device zero ROD token.
pub fn zero_token() -> Token {
    let mut token = vec![0; TOKEN_LEN];
    token[..4].copy_from_slice(&ZERO.to_be_bytes());
    token[6..8].copy_from_slice(&LENGTH.to_be_bytes());
    Token(token)
}

fn source(bytes: &[u8]) -> Result<Source, Sense> {
    if u16_at(bytes, 6) != LENGTH {
        return Err(Sense::INVALID_TOKEN_LENGTH);
    }
    match u32_at(bytes, 0) {
        ZERO => Ok(Source::Zeroes),
        CHANGE_VULNERABLE => Ok(Source::Token(Token(bytes.to_vec()))),
        _ => Err(Sense::UNSUPPORTED_TOKEN_TYPE),
    }
}

/// The token that a WRITE USING TOKEN list names, if it is one of a target's.
pub fn named(list: &[u8]) -> Option<Token> {
    match source(list.get(TOKEN_AT..TOKEN_AT + TOKEN_LEN)?) {
        Ok(Source::Token(token)) => Some(token),
        Ok(Source::Zeroes) | Err(_) => None,
    }
}

fn byte(at: usize) -> Sense {
    Sense::invalid_parameter_byte(u16::try_from(at).unwrap_or(u16::MAX))
}

/// The complete descriptors behind a header whose last two bytes are their length.
fn ranges(list: &[u8], header: usize, unit: &Unit) -> Result<Vec<Range>, Sense> {
    let claimed = usize::from(u16_at(list, header - 2));
    if claimed < RANGE_LEN {
        return Err(byte(header - 2));
    }
    let descriptors = &list[header..list.len().min(header + claimed)];
    let mut ranges = Vec::new();
    for descriptor in descriptors.chunks_exact(RANGE_LEN) {
        if ranges.len() == RANGES_MAX {
            return Err(Sense::TOO_MANY_SEGMENTS);
        }
        let range = Range { lba: u64_at(descriptor, 0), blocks: u32_at(descriptor, 8) };
        unit.check_range(range.lba, range.blocks)?;
        ranges.push(range);
    }
    let total: u64 = ranges.iter().map(|range| u64::from(range.blocks)).sum();
    if total > BYTES_MAX / u64::from(unit.block_size) || overlap(&ranges) {
        return Err(byte(header));
    }
    Ok(ranges)
}

fn overlap(ranges: &[Range]) -> bool {
    let mut sorted: Vec<Range> = ranges.iter().copied().filter(|range| range.blocks > 0).collect();
    sorted.sort_by_key(|range| range.lba);
    sorted.windows(2).any(|pair| pair[0].lba + u64::from(pair[0].blocks) > pair[1].lba)
}

fn immediate(flags: u8) -> Immediate {
    if flags & 1 != 0 { Immediate::Yes } else { Immediate::No }
}

/// Reads a POPULATE TOKEN parameter list.
///
/// # Errors
/// The byte that is wrong, or the length.
pub fn populate(list: &[u8], unit: &Unit) -> Result<Populate, Sense> {
    if list.len() < POPULATE_HEADER_LEN {
        return Err(Sense::PARAMETER_LENGTH);
    }
    if u16_at(list, 0) < 0x1e {
        return Err(byte(0));
    }
    let timeout = match u32_at(list, 4) {
        0 => TIMEOUT_DEFAULT,
        timeout if timeout <= TIMEOUT_MAX => timeout,
        _ => return Err(byte(4)),
    };
    // RTV: the type counts.
    if list[2] & 2 != 0 && !matches!(u32_at(list, 8), CHANGE_VULNERABLE | ANY_POINT_IN_TIME) {
        return Err(byte(8));
    }
    Ok(Populate { immediate: immediate(list[2]), timeout, ranges: ranges(list, POPULATE_HEADER_LEN, unit)? })
}

/// Reads a WRITE USING TOKEN parameter list.
///
/// # Errors
/// The byte that is wrong, the length, or a token that could not be one.
pub fn write_using(list: &[u8], unit: &Unit) -> Result<WriteUsing, Sense> {
    if list.len() < WRITE_HEADER_LEN {
        return Err(Sense::PARAMETER_LENGTH);
    }
    if u16_at(list, 0) < 0x226 {
        return Err(byte(0));
    }
    Ok(WriteUsing {
        immediate: immediate(list[2]),
        delete: if list[2] & 2 != 0 { Delete::Yes } else { Delete::No },
        offset: u64_at(list, 8),
        source: source(&list[TOKEN_AT..TOKEN_AT + TOKEN_LEN])?,
        ranges: ranges(list, WRITE_HEADER_LEN, unit)?,
    })
}

fn descriptors(ranges: &[Range]) -> Vec<u8> {
    let one = |range: &Range| [&range.lba.to_be_bytes()[..], &range.blocks.to_be_bytes(), &[0; 4]].concat();
    ranges.iter().flat_map(one).collect()
}

impl Populate {
    /// The parameter list.
    pub fn encode(&self) -> Vec<u8> {
        let ranges = descriptors(&self.ranges);
        let mut list = vec![0; POPULATE_HEADER_LEN];
        list[2] = u8::from(self.immediate == Immediate::Yes);
        list[4..8].copy_from_slice(&self.timeout.to_be_bytes());
        finish(list, &ranges)
    }
}

impl WriteUsing {
    /// The parameter list.
    pub fn encode(&self) -> Vec<u8> {
        let ranges = descriptors(&self.ranges);
        let mut list = vec![0; WRITE_HEADER_LEN];
        let delete = if self.delete == Delete::Yes { 2 } else { 0 };
        list[2] = u8::from(self.immediate == Immediate::Yes) | delete;
        list[8..16].copy_from_slice(&self.offset.to_be_bytes());
        let zero = zero_token();
        let token = if let Source::Token(token) = &self.source { token } else { &zero };
        list[16..16 + TOKEN_LEN].copy_from_slice(&token.0);
        finish(list, &ranges)
    }
}

/// Both lengths of a list.
fn finish(mut list: Vec<u8>, ranges: &[u8]) -> Vec<u8> {
    let len = u16::try_from(ranges.len()).unwrap_or(u16::MAX);
    let header = list.len();
    list[header - 2..].copy_from_slice(&len.to_be_bytes());
    list.extend_from_slice(ranges);
    let total = u16::try_from(list.len() - 2).unwrap_or(u16::MAX);
    list[..2].copy_from_slice(&total.to_be_bytes());
    list
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::example::unit;

    /// Ranges that do not overlap.
    fn some_ranges() -> impl Strategy<Value = Vec<Range>> {
        vec((0u64..100, 0u32..1000), 1..RANGES_MAX).prop_map(|steps| {
            let mut at = 0;
            let place = |(gap, blocks): (u64, u32)| {
                let lba = at + gap;
                at = lba + u64::from(blocks);
                Range { lba, blocks }
            };
            steps.into_iter().map(place).collect()
        })
    }

    fn whether(yes: bool) -> Immediate {
        if yes { Immediate::Yes } else { Immediate::No }
    }

    proptest! {
        #[test]
        fn lists_are_read_as_they_were_written(
            ranges in some_ranges(), now in any::<bool>(), timeout in 1..=TIMEOUT_MAX, offset in any::<u64>(),
            secret in any::<[u8; 32]>(), zeroes in any::<bool>(), keep in any::<bool>(),
        ) {
            let list = Populate { immediate: whether(now), timeout, ranges: ranges.clone() };
            prop_assert_eq!(populate(&list.encode(), &unit()), Ok(list));
            let source = if zeroes { Source::Zeroes } else { Source::Token(Token::new(7, &secret, 512, &unit(), "")) };
            let delete = if keep { Delete::No } else { Delete::Yes };
            let list = WriteUsing { immediate: whether(now), delete, offset, source, ranges };
            prop_assert_eq!(write_using(&list.encode(), &unit()), Ok(list));
        }

        #[test]
        fn any_bytes_are_a_list_or_are_refused(bytes in vec(any::<u8>(), 0..600)) {
            let _ = populate(&bytes, &unit());
            let _ = write_using(&bytes, &unit());
        }
    }

    fn one(lba: u64, blocks: u32) -> Vec<u8> {
        Populate { immediate: Immediate::No, timeout: 1, ranges: vec![Range { lba, blocks }] }.encode()
    }

    #[test]
    fn what_the_standard_refuses_is_refused() {
        let good = one(0, 8);
        let with = |at: usize, bytes: &[u8]| {
            let mut list = good.clone();
            list[at..at + bytes.len()].copy_from_slice(bytes);
            populate(&list, &unit())
        };
        assert_eq!(populate(&good[..15], &unit()), Err(Sense::PARAMETER_LENGTH));
        assert_eq!(with(0, &[0, 0x1d]), Err(byte(0)));
        assert_eq!(with(4, &601u32.to_be_bytes()), Err(byte(4)));
        assert_eq!(with(14, &[0, 15]), Err(byte(14)));
        assert_eq!(with(2, &[2]), Err(byte(8)), "a type that is no point in time copy");
        assert_eq!(populate(&one(1 << 20, 1), &unit()), Err(Sense::LBA_OUT_OF_RANGE));
        assert_eq!(populate(&one(0, (BYTES_MAX / 512) as u32 + 1), &unit()), Err(byte(16)));
        let twice = Populate {
            immediate: Immediate::No,
            timeout: 1,
            ranges: vec![Range { lba: 8, blocks: 8 }, Range { lba: 0, blocks: 9 }],
        };
        assert_eq!(populate(&twice.encode(), &unit()), Err(byte(16)));
        let many = Populate { ranges: vec![Range { lba: 0, blocks: 0 }; RANGES_MAX + 1], ..twice };
        assert_eq!(populate(&many.encode(), &unit()), Err(Sense::TOO_MANY_SEGMENTS));
    }

    #[test]
    fn tokens_that_could_not_be_are_refused() {
        let list = WriteUsing {
            immediate: Immediate::No,
            delete: Delete::No,
            offset: 0,
            source: Source::Zeroes,
            ranges: vec![Range { lba: 0, blocks: 1 }],
        };
        let with = |at: usize, bytes: &[u8]| {
            let mut list = list.encode();
            list[at..at + bytes.len()].copy_from_slice(bytes);
            write_using(&list, &unit())
        };
        assert_eq!(with(22, &[0, 1]), Err(Sense::INVALID_TOKEN_LENGTH));
        assert_eq!(with(16, &[0, 0x80, 0, 0]), Err(Sense::UNSUPPORTED_TOKEN_TYPE));
        assert_eq!(with(0, &[2, 0x25]), Err(byte(0)));
        let token = Token::new(7, &[9; SECRET_LEN], 4096, &unit(), "iqn.a");
        assert!(token.is_made_by("iqn.a") && !token.is_made_by("iqn.b") && !zero_token().is_made_by(""));
        let mut other = unit();
        other.identity.naa += 1;
        assert!(token.is_of(&unit()) && !token.is_of(&other));
        let mut bytes = list.encode();
        assert_eq!(named(&bytes), None, "zeroes");
        bytes[16..16 + TOKEN_LEN].copy_from_slice(token.as_bytes());
        assert_eq!((named(&bytes), named(&bytes[..500])), (Some(token.clone()), None));
        assert!(token.is(&token.clone()) && !token.is(&zero_token()));
        assert_eq!(
            (token.id(), token.as_bytes().len(), &token.as_bytes()[56..64]),
            (7, 512, &[0, 0, 0, 0, 0, 0, 16, 0][..])
        );
    }
}
