//! Logical-unit state: some bytes of whoever serves the volume (persistent reservations), kept beside the data on every leg
//! that is in sync. Two copies, A and B; a write with sequence number `seq` goes to copy `seq & 1`. Every leg has both from the
//! moment it is formatted, or brought back, so that a copy is missing only where a medium has lost it.

use uuid::Uuid;

use super::field::fields;
use super::header::{self, At, BlockKind, HEADER_LEN, Header, PAYLOAD_LEN};
use super::layout::{Layout, UNIT_STATE_LEN, UNIT_STATE_OFFSET};
use super::{BLOCK_BYTES, BLOCK_SIZE, Block, BlockWrite};
use crate::mutation::{Mutation, is_broken};

fields! {
    /// The fields of a copy's first block; the content goes on behind the headers of the following ones.
    UNIT_STATE_FIELDS from HEADER_LEN;
    LENGTH: 4, "bytes of the content";
    FLAGS: 4, "bit 0: lost, and the content is empty; the others are zero";
    INCARNATIONS: 32, "boot ids of node 0 and node 1, as the holder knew them; nil: unknown";
    CONTENT: 3992, "content";
}
const _: () = assert!(CONTENT.end() == BLOCK_SIZE && FLAGS.len == 4);

/// Blocks of a copy.
const BLOCKS_MAX: usize = (UNIT_STATE_LEN / BLOCK_BYTES) as usize;
/// Most bytes of content.
pub const CONTENT_MAX: usize = CONTENT.len + (BLOCKS_MAX - 1) * PAYLOAD_LEN;

/// The flag of a state that is [`UnitStateHealth::Lost`].
const LOST: u32 = 1;
/// Number of the newer of the two states that a new leg has; the older one has the number before.
const FIRST: u64 = 2;

/// One state of a logical unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitState {
    /// Rises with every write; 0: of no leg.
    pub seq: u64,
    /// Config generation in which it was written.
    pub generation: u64,
    /// Boot ids of both nodes, as the holder knew them then; nil: unknown.
    pub incarnations: [Uuid; 2],
    /// Whether the content is known.
    pub health: UnitStateHealth,
    /// The content, at most [`CONTENT_MAX`] bytes.
    pub content: Vec<u8>,
}

/// Whether the content of a state is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnitStateHealth {
    /// It is what was stored last.
    #[default]
    Whole,
    /// Every copy of what was stored last was damaged: nobody knows what it said.
    Lost,
}

impl UnitState {
    /// What a new leg has: nothing was stored in the array.
    pub fn first(generation: u64) -> Self {
        Self { seq: FIRST, generation, ..Self::default() }
    }

    /// Nothing that is known; older than everything.
    pub fn lost() -> Self {
        Self { health: UnitStateHealth::Lost, ..Self::default() }
    }

    /// Whether there is a number before this one.
    pub fn has_twin(&self) -> bool {
        self.seq >= FIRST
    }

    /// The same under the number before: for the other copy, in place of whatever is there.
    pub fn twin(&self) -> Self {
        Self { seq: self.seq - 1, ..self.clone() }
    }

    /// What comes behind this one: of that config, with another content.
    #[must_use]
    pub fn successor(&self, generation: u64) -> Self {
        Self { seq: self.seq.max(FIRST - 1) + 1, generation, ..self.clone() }
    }

    /// Byte offset of the copy that a state goes to.
    pub fn offset(&self) -> u64 {
        copy_offset(self.seq)
    }

    /// True when `other` is older.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        (self.generation, self.seq) > (other.generation, other.seq)
    }

    /// The blocks of the copy, one behind the other from [`UnitState::offset`].
    ///
    /// # Panics
    /// When the content is longer than [`CONTENT_MAX`]: the caller's mistake.
    pub fn encode(&self, array: Uuid) -> Vec<u8> {
        assert!(self.content.len() <= CONTENT_MAX, "the content does not fit");
        let (first, rest) = self.content.split_at(self.content.len().min(CONTENT.len));
        let mut blocks = vec![[0; BLOCK_SIZE]];
        LENGTH.put(&mut blocks[0], &u32::try_from(self.content.len()).expect("short").to_le_bytes());
        let flags = if self.health == UnitStateHealth::Lost { LOST } else { 0 };
        FLAGS.put(&mut blocks[0], &flags.to_le_bytes());
        for (index, incarnation) in self.incarnations.iter().enumerate() {
            INCARNATIONS.part(index, 16).put(&mut blocks[0], incarnation.as_bytes());
        }
        blocks[0][CONTENT.offset..CONTENT.offset + first.len()].copy_from_slice(first);
        for piece in rest.chunks(PAYLOAD_LEN) {
            let mut block = [0; BLOCK_SIZE];
            block[HEADER_LEN..HEADER_LEN + piece.len()].copy_from_slice(piece);
            blocks.push(block);
        }
        let kept = Header { kind: BlockKind::UnitState, seq: self.seq, generation: self.generation };
        for (index, block) in blocks.iter_mut().enumerate() {
            header::seal(block, kept, At { array, address: self.offset() + index as u64 * BLOCK_BYTES });
        }
        blocks.concat()
    }

    /// The same as single blocks.
    pub fn blocks(&self, array: Uuid) -> Vec<BlockWrite> {
        let bytes = self.encode(array);
        let block = |(index, bytes): (usize, &[u8])| BlockWrite {
            offset: self.offset() + index as u64 * BLOCK_BYTES,
            block: bytes.try_into().expect("a whole block"),
        };
        bytes.chunks(BLOCK_SIZE).enumerate().map(block).collect()
    }

    /// The newest whole copy in the first 256 KiB of a leg; [`UnitState::lost`] where none is.
    pub fn newest(head: &[u8], array: Uuid) -> Self {
        let copies = [0, 1].into_iter().filter_map(|parity| decode(head, array, parity).ok());
        let newest = copies.reduce(|one, other| if other.is_newer_than(&one) { other } else { one });
        newest.unwrap_or_else(|| if is_broken(Mutation::LossUnseen) { Self::default() } else { Self::lost() })
    }
}

/// True when the first 256 KiB of a leg are zeroes but for states that formatting writes before the superblocks.
pub(crate) fn is_unused(head: &[u8]) -> bool {
    let is_first = |copy: usize, block: &Block| {
        let at = copy_offset(copy as u64);
        header::open_any_array(block, BlockKind::UnitState, at).is_ok()
            && super::is_zero(&block[LENGTH.offset..])
    };
    let copies = [0, 1].map(|parity| usize::try_from(copy_offset(parity)).expect("in the head"));
    head.chunks(BLOCK_SIZE).enumerate().all(|(index, block)| {
        let copy = copies.iter().position(|at| *at == index * BLOCK_SIZE);
        let first = |copy| block.try_into().is_ok_and(|block| is_first(copy, block));
        super::is_zero(block) || copy.is_some_and(first)
    })
}

fn copy_offset(seq: u64) -> u64 {
    UNIT_STATE_OFFSET + (seq & 1) * UNIT_STATE_LEN
}

/// A copy that is not whole.
#[derive(Debug)]
struct Damaged;

fn decode(head: &[u8], array: Uuid, parity: u64) -> Result<UnitState, Damaged> {
    let offset = copy_offset(parity);
    let block = |index: usize| -> Result<&Block, Damaged> {
        let at = usize::try_from(offset).map_err(|_| Damaged)? + index * BLOCK_SIZE;
        head.get(at..at + BLOCK_SIZE).and_then(|bytes| bytes.try_into().ok()).ok_or(Damaged)
    };
    let open = |index: usize| {
        let at = At { array, address: offset + index as u64 * BLOCK_BYTES };
        header::open(block(index)?, BlockKind::UnitState, at).map_err(|_| Damaged)
    };
    let first = block(0)?;
    let kept = open(0)?;
    let (len, flags) = (LENGTH.u32(first) as usize, FLAGS.u32(first));
    if kept.seq & 1 != parity || kept.seq == 0 || len > CONTENT_MAX || flags & !LOST != 0 {
        return Err(Damaged);
    }
    let health = if flags & LOST == 0 { UnitStateHealth::Whole } else { UnitStateHealth::Lost };
    let mut content = CONTENT.of(first).to_vec();
    for index in 1..=len.saturating_sub(CONTENT.len).div_ceil(PAYLOAD_LEN) {
        if open(index)? != kept {
            return Err(Damaged);
        }
        content.extend_from_slice(&block(index)?[HEADER_LEN..]);
    }
    content.truncate(len);
    let incarnations = [0, 1].map(|index| INCARNATIONS.part(index, 16).uuid(first));
    Ok(UnitState { seq: kept.seq, generation: kept.generation, incarnations, health, content })
}

const _: () = assert!(Layout::superblock_slot(1) + BLOCK_BYTES <= UNIT_STATE_OFFSET);

#[cfg(test)]
mod tests {
    use super::*;

    const ARRAY: Uuid = Uuid::from_u128(0xa11);

    fn state(seq: u64, len: usize) -> UnitState {
        let incarnations = [Uuid::from_u128(1), Uuid::from_u128(2)];
        let content = (0..len).map(|index| (index % 251) as u8 ^ seq as u8).collect();
        UnitState { seq, generation: 3, incarnations, health: UnitStateHealth::Whole, content }
    }

    fn write(head: &mut [u8], bytes: &[u8], offset: u64) {
        let at = usize::try_from(offset).expect("small");
        head[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn blank() -> Vec<u8> {
        vec![0; 256 << 10]
    }

    #[test]
    fn states_of_every_length_survive() {
        for len in [0, 1, CONTENT.len, CONTENT.len + 1, CONTENT.len + PAYLOAD_LEN, CONTENT_MAX] {
            let state = state(7, len);
            let mut head = blank();
            write(&mut head, &state.encode(ARRAY), state.offset());
            assert_eq!(UnitState::newest(&head, ARRAY), state, "{len}");
        }
    }

    #[test]
    fn a_write_that_a_crash_tears_leaves_the_older_state() {
        let (old, new) = (state(6, 9000), state(7, 12000));
        let bytes = new.encode(ARRAY);
        for torn in (0..bytes.len()).step_by(512) {
            let mut head = blank();
            write(&mut head, &old.encode(ARRAY), old.offset());
            write(&mut head, &state(5, 20000).encode(ARRAY), new.offset());
            write(&mut head, &bytes[..torn], new.offset());
            let found = UnitState::newest(&head, ARRAY);
            // The last sectors of the last block are zeroes in both.
            assert!(found == old || found == new, "torn at {torn}");
            assert!(found == old || torn > bytes.len() - BLOCK_SIZE, "torn at {torn}");
        }
    }

    #[test]
    fn a_newer_generation_counts_before_a_larger_number() {
        let mut head = blank();
        let (ours, strange) = (UnitState { generation: 9, ..state(4, 10) }, state(11, 10));
        write(&mut head, &ours.encode(ARRAY), ours.offset());
        write(&mut head, &strange.encode(ARRAY), strange.offset());
        assert_eq!(UnitState::newest(&head, ARRAY), ours);
    }

    #[test]
    fn damage_of_both_copies_is_noticed() {
        let mut head = blank();
        for seq in [6, 7] {
            let mut bytes = state(seq, 100).encode(ARRAY);
            bytes[200] ^= 1;
            write(&mut head, &bytes, copy_offset(seq));
        }
        for (what, array) in
            [(&head[..], ARRAY), (&head[..1000], ARRAY), (&blank(), ARRAY), (&head, Uuid::nil())]
        {
            assert_eq!(UnitState::newest(what, array), UnitState::lost());
        }
    }

    /// What is stored once it is lost is newer than what a leg may have that was not there.
    #[test]
    fn a_loss_is_remembered_until_something_is_stored() {
        let mut head = blank();
        for seq in [6, 7] {
            write(&mut head, &state(seq, 100).encode(ARRAY), copy_offset(seq));
        }
        let lost = UnitState::lost().successor(4);
        for copy in [lost.twin(), lost.clone()] {
            assert_eq!(copy.health, UnitStateHealth::Lost);
            write(&mut head, &copy.encode(ARRAY), copy.offset());
        }
        assert_eq!(UnitState::newest(&head, ARRAY), lost);
        let next = UnitState { health: UnitStateHealth::Whole, content: vec![1], ..lost.successor(4) };
        write(&mut head, &next.encode(ARRAY), next.offset());
        assert_eq!(UnitState::newest(&head, ARRAY), next);
        let mut unknown = next.encode(ARRAY);
        unknown[FLAGS.offset] = 2;
        write(&mut head, &unknown, next.offset());
        assert_eq!(
            UnitState::newest(&head, ARRAY),
            lost,
            "a copy that is not sealed as it is does not count"
        );
    }
}
