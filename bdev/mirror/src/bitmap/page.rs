//! One page of the bitmap on disk: the codec, and the choice between its two slots.

use uuid::Uuid;

use crate::format::header::{self, At, BlockKind, HEADER_LEN, Header, HeaderError, PAYLOAD_LEN};
use crate::format::layout::{Layout, PAGE_BITS};
use crate::format::{BLOCK_SIZE, Block, BlockWrite};

/// 64-bit words in a page.
pub(super) const PAGE_WORDS: usize = PAYLOAD_LEN / 8;
const _: () = assert!(PAGE_WORDS as u64 * 64 == PAGE_BITS);

/// The bits of one page; bit n of the page is bit n % 64 of word n / 64.
pub(super) type Words = [u64; PAGE_WORDS];

/// Encodes a page for the slot that `seq` names.
pub(super) fn encode(array: Uuid, page: u32, seq: u64, generation: u64, words: &[u64]) -> BlockWrite {
    let mut block = [0; BLOCK_SIZE];
    for (bytes, word) in block[HEADER_LEN..].chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let offset = Layout::bitmap_block(page, seq);
    header::seal(
        &mut block,
        Header { kind: BlockKind::Bitmap, seq, generation },
        At { array, address: offset },
    );
    BlockWrite { offset, block }
}

fn payload(block: &Block) -> Words {
    let mut words = [0; PAGE_WORDS];
    for (word, bytes) in words.iter_mut().zip(block[HEADER_LEN..].chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    }
    words
}

/// A page as found on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Sequence number of the newest whole slot; the next write goes to the other one.
    pub(super) seq: u64,
    /// The bits: never fewer than were durable.
    pub(super) words: Words,
    /// What the slots were like.
    pub(super) health: PageHealth,
}

/// What the two slots of a page were like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageHealth {
    /// Nothing damaged.
    Whole,
    /// The older slot damaged. Its bits are added to the other's.
    Mended,
    /// No slot whole, or the newer one is damaged: all ones (I9).
    Lost,
}

/// Reads a page from its two slots.
pub(super) fn decode(slots: [&Block; 2], array: Uuid, page: u32) -> Found {
    let read = |seq: u64| {
        let at = At { array, address: Layout::bitmap_block(page, seq) };
        let header = header::open(slots[usize::from(seq != 0)], BlockKind::Bitmap, at)?;
        // A slot holds the sequence numbers of its own parity; anything else was copied there.
        if header.seq & 1 == seq { Ok(header.seq) } else { Err(HeaderError::Corrupt) }
    };
    match (read(0), read(1)) {
        (Ok(even), Ok(odd)) => {
            let (seq, newest) = if even > odd { (even, slots[0]) } else { (odd, slots[1]) };
            Found { seq, words: payload(newest), health: PageHealth::Whole }
        }
        (Ok(seq), Err(error)) => one_slot(seq, slots[0], slots[1], error),
        (Err(error), Ok(seq)) => one_slot(seq, slots[1], slots[0], error),
        (Err(_), Err(_)) => Found { seq: 0, words: [u64::MAX; PAGE_WORDS], health: PageHealth::Lost },
    }
}

/// The other slot may be the older one, or a newer one that is torn, or rotten. Of a newer one nobody can say which bits it had:
/// torn, they were not relied on; rotten, they were.
fn one_slot(seq: u64, whole: &Block, other: &Block, error: HeaderError) -> Found {
    let words = payload(whole);
    match error {
        HeaderError::Blank if seq == 1 => Found { seq, words, health: PageHealth::Whole },
        HeaderError::Corrupt if seq.checked_sub(1) == Some(header::claimed_seq(other)) => {
            let damaged = payload(other);
            let words = core::array::from_fn(|i| words[i] | damaged[i]);
            Found { seq, words, health: PageHealth::Mended }
        }
        _ => Found { seq, words: [u64::MAX; PAGE_WORDS], health: PageHealth::Lost },
    }
}
