//! What a verified block holds: who wrote it, the how-manyth write of it that was, where it belongs, and a checksum over all.

/// Bytes of a verified block.
pub const BLOCK_LEN: usize = 4096;

const MAGIC: u64 = 0x4745_4d45_4c56_3031;

/// The identity of one write of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Names the run, so that a former run's blocks are told apart.
    pub writer: u64,
    /// Rises with each write of the block.
    pub sequence: u64,
    /// The block's number.
    pub address: u64,
}

/// What a block that holds no stamp looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unstamped {
    /// All zeroes: never written.
    Blank,
    /// Something else: torn, damaged or somebody else's.
    Damaged,
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")))
}

fn checksum(bytes: &[u8]) -> u64 {
    words(bytes).fold(0xcbf2_9ce4_8422_2325, |sum, word| {
        (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29)
    })
}

impl Stamp {
    /// Fills a block: every word depends on the stamp, so that a torn block shows.
    ///
    /// # Panics
    /// When `block` is not [`BLOCK_LEN`] bytes long.
    pub fn write(&self, block: &mut [u8]) {
        assert_eq!(block.len(), BLOCK_LEN);
        let mut filler = engine::Prng::from_seed(
            self.writer ^ self.sequence.rotate_left(32) ^ self.address.rotate_left(16),
        );
        for word in block.chunks_exact_mut(8) {
            word.copy_from_slice(&filler.next_u64().to_le_bytes());
        }
        for (index, value) in [MAGIC, self.writer, self.sequence, self.address].into_iter().enumerate() {
            block[index * 8..index * 8 + 8].copy_from_slice(&value.to_le_bytes());
        }
        let sum = checksum(&block[..BLOCK_LEN - 8]);
        block[BLOCK_LEN - 8..].copy_from_slice(&sum.to_le_bytes());
    }

    /// Reads a block's stamp.
    ///
    /// # Errors
    /// It holds none.
    pub fn read(block: &[u8]) -> Result<Self, Unstamped> {
        if block.iter().all(|byte| *byte == 0) {
            return Err(Unstamped::Blank);
        }
        let mut fields = words(block);
        let mut next = || fields.next().ok_or(Unstamped::Damaged);
        let (magic, stamp) = (next()?, Self { writer: next()?, sequence: next()?, address: next()? });
        let whole = block.len() == BLOCK_LEN
            && words(&block[BLOCK_LEN - 8..]).next() == Some(checksum(&block[..BLOCK_LEN - 8]));
        if magic == MAGIC && whole { Ok(stamp) } else { Err(Unstamped::Damaged) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_tells_its_stamp_and_every_damage() {
        let stamp = Stamp { writer: 3, sequence: 9, address: 77 };
        let mut block = vec![0; BLOCK_LEN];
        assert_eq!(Stamp::read(&block), Err(Unstamped::Blank));
        stamp.write(&mut block);
        assert_eq!(Stamp::read(&block), Ok(stamp));
        for at in [0, 8, 100, 2048, 4095] {
            block[at] ^= 4;
            assert_eq!(Stamp::read(&block), Err(Unstamped::Damaged), "byte {at}");
            block[at] ^= 4;
        }
        let mut torn = block.clone();
        Stamp { sequence: 8, ..stamp }.write(&mut torn);
        torn[..512].copy_from_slice(&block[..512]);
        assert_eq!(Stamp::read(&torn), Err(Unstamped::Damaged));
    }
}
