//! XTS (IEEE 1619) over a block cipher that takes several blocks at once: the processor's AES instructions overlap, which a block at a
//! time leaves idle.
//!
//! A data unit is whole cipher blocks; ciphertext stealing is for units of other lengths, which no disk has.

use aes::Aes256;
use aes::cipher::consts::U16;
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt};

/// Bytes of a cipher block.
const BLOCK: usize = 16;
/// Cipher blocks at once: those of a data unit of 512 bytes.
const AT_ONCE: usize = 32;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Encrypt,
    Decrypt,
}

/// The cipher of the data, and the one of the tweak.
pub(super) struct Xts {
    data: Aes256,
    tweak: Aes256,
}

/// The tweak of the next cipher block: times the primitive element of GF(2^128).
fn next(tweak: u128) -> u128 {
    // x^128 is x^7 + x^2 + x + 1.
    let carried = if tweak >> 127 == 1 { 0x87 } else { 0 };
    (tweak << 1) ^ carried
}

/// Adds the tweak of each block, from `tweak` on; gives the one after the last.
fn mask(blocks: &mut [Array<u8, U16>], mut tweak: u128) -> u128 {
    for block in blocks {
        block.0 = (u128::from_le_bytes(block.0) ^ tweak).to_le_bytes();
        tweak = next(tweak);
    }
    tweak
}

impl Xts {
    pub(super) fn new(data: Aes256, tweak: Aes256) -> Self {
        Self { data, tweak }
    }

    /// Encrypts or decrypts the data unit of this number, in place.
    ///
    /// # Panics
    /// When it is not whole cipher blocks.
    pub(super) fn apply(&self, way: Way, number: u128, unit: &mut [u8]) {
        assert!(unit.len().is_multiple_of(BLOCK), "a data unit is whole cipher blocks");
        let mut first = Array(number.to_le_bytes());
        self.tweak.encrypt_block(&mut first);
        let mut tweak = u128::from_le_bytes(first.0);
        let (blocks, _) = Array::slice_as_chunks_mut(unit);
        for blocks in blocks.chunks_mut(AT_ONCE) {
            let after = mask(blocks, tweak);
            match way {
                Way::Encrypt => self.data.encrypt_blocks(blocks),
                Way::Decrypt => self.data.decrypt_blocks(blocks),
            }
            mask(blocks, tweak);
            tweak = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use aes::cipher::KeyInit;
    use xts_mode::{Xts128, get_tweak_default};

    use super::*;

    #[test]
    fn it_is_what_another_implementation_makes() {
        let key = |byte: u8| Aes256::new_from_slice(&[byte; 32]).expect("32 bytes");
        let (ours, theirs) = (Xts::new(key(1), key(2)), Xts128::new(key(1), key(2)));
        // Units shorter than what is done at once, as long, and longer; with and without a rest.
        for len in [16, 496, 512, 528, 4096] {
            for number in [0, 1, u128::from(u64::MAX)] {
                let plain: Vec<u8> = (0..len).map(|at| (at * 7 % 251) as u8).collect();
                let (mut own, mut other) = (plain.clone(), plain.clone());
                ours.apply(Way::Encrypt, number, &mut own);
                theirs.encrypt_sector(&mut other, get_tweak_default(number));
                assert_eq!(own, other, "{len} bytes, unit {number}");
                ours.apply(Way::Decrypt, number, &mut own);
                assert_eq!(own, plain, "{len} bytes, unit {number}");
            }
        }
    }
}
