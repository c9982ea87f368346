//! Keys: the user's, which wraps, and the media key, which is wrapped and encrypts. Neither shows in a message or a `Debug`.

use core::fmt;

use aes::Aes256;
use aes::cipher::KeyInit;
use aes_kw::KwAes256;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use super::xts::{Way, Xts};
use crate::error::IoError;

/// Bytes of a media key: two keys of AES-256.
const MEDIA_KEY_LEN: usize = 64;
/// Bytes of a wrapped one (RFC 3394: eight more).
pub(super) const WRAPPED_LEN: usize = MEDIA_KEY_LEN + 8;

/// Why bytes are no user's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UserKeyError {
    /// A part has another length.
    #[error("key and key2 have 16 or 32 bytes each")]
    Length,
    /// The parts differ in length.
    #[error("key and key2 have the same length")]
    Uneven,
    /// The parts are the same.
    #[error("key and key2 must differ")]
    Same,
    /// There is one part, of 16 bytes.
    #[error("a key without key2 has 32 bytes")]
    Short,
}

/// What the user keeps: it wraps media keys and encrypts nothing else.
pub struct UserKey {
    /// The parts, each after its length.
    material: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserKey(***)")
    }
}

impl UserKey {
    /// A key of 32 bytes, or of two parts of 16 or 32 bytes each.
    ///
    /// # Errors
    /// Other lengths, or the same part twice.
    pub fn new(key: &[u8], key2: Option<&[u8]>) -> Result<Self, UserKeyError> {
        let legal = |part: &[u8]| matches!(part.len(), 16 | 32);
        if !legal(key) || key2.is_some_and(|key2| !legal(key2)) {
            return Err(UserKeyError::Length);
        }
        match key2 {
            None if key.len() < 32 => return Err(UserKeyError::Short),
            Some(key2) if key2.len() != key.len() => return Err(UserKeyError::Uneven),
            Some(key2) if key2 == key => return Err(UserKeyError::Same),
            _ => {}
        }
        let mut material = Zeroizing::new(Vec::with_capacity(2 * 33));
        for part in [Some(key), key2].into_iter().flatten() {
            material.push(u8::try_from(part.len()).expect("16 or 32"));
            material.extend_from_slice(part);
        }
        Ok(Self { material })
    }

    /// The key that wraps under one header: one-step derivation with SHA-256 (NIST SP 800-56C section 4). `bound` is what the header
    /// says beside the wrapped key; where any of it is another, nothing unwraps.
    fn wrapping_key(&self, bound: &[u8]) -> KwAes256 {
        let digest = Sha256::new()
            .chain_update(1u32.to_be_bytes())
            .chain_update(&self.material[..])
            .chain_update(b"gemel crypto bdev, wrapping key")
            .chain_update(bound);
        let mut key = digest.finalize();
        let wrap = KwAes256::new_from_slice(&key).expect("SHA-256 gives a key of AES-256");
        key.as_mut_slice().zeroize();
        wrap
    }

    pub(super) fn wrap(&self, media: &MediaKey, bound: &[u8]) -> [u8; WRAPPED_LEN] {
        let mut wrapped = [0; WRAPPED_LEN];
        let done = self.wrapping_key(bound).wrap_key(&media.0[..], &mut wrapped);
        done.expect("the lengths are those of the algorithm");
        wrapped
    }

    /// `None` where it is another user's key that wrapped, or `bound` is another.
    pub(super) fn unwrap(&self, wrapped: &[u8; WRAPPED_LEN], bound: &[u8]) -> Option<MediaKey> {
        let mut media = MediaKey(Zeroizing::new([0; MEDIA_KEY_LEN]));
        self.wrapping_key(bound).unwrap_key(wrapped, &mut media.0[..]).ok()?;
        Some(media)
    }
}

/// What the data are encrypted with.
pub(super) struct MediaKey(Zeroizing<[u8; MEDIA_KEY_LEN]>);

impl MediaKey {
    /// A new one, from the system's random source.
    ///
    /// # Errors
    /// It gives nothing.
    pub(super) fn random() -> Result<Self, IoError> {
        let mut key = Zeroizing::new([0; MEDIA_KEY_LEN]);
        getrandom::fill(&mut key[..]).map_err(|error| IoError::Os(error.raw_os_error().unwrap_or(0)))?;
        Ok(Self(key))
    }

    #[cfg(test)]
    pub(super) fn of(bytes: [u8; MEDIA_KEY_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn cipher(&self, block_size: u32) -> Cipher {
        let (data, tweak) = self.0.split_at(MEDIA_KEY_LEN / 2);
        let aes = |key| Aes256::new_from_slice(key).expect("32 bytes");
        Cipher { xts: Xts::new(aes(data), aes(tweak)), block_size: block_size as usize }
    }
}

/// AES-256-XTS (IEEE 1619) with a data unit for each block; the tweak is its LBA.
pub(super) struct Cipher {
    xts: Xts,
    block_size: usize,
}

impl Cipher {
    /// Encrypts whole blocks from `lba` on, in place.
    pub(super) fn encrypt(&self, lba: u64, blocks: &mut [u8]) {
        for (lba, block) in (u128::from(lba)..).zip(blocks.chunks_exact_mut(self.block_size)) {
            self.xts.apply(Way::Encrypt, lba, block);
        }
    }

    /// Decrypts whole blocks from `lba` on, in place. A block of zeroes is one that was never written, or was given back, and reads as
    /// zeroes: no block that was encrypted looks like that (the chance is 2^-4096 and less).
    pub(super) fn decrypt(&self, lba: u64, blocks: &mut [u8]) {
        for (lba, block) in (u128::from(lba)..).zip(blocks.chunks_exact_mut(self.block_size)) {
            if block.iter().any(|byte| *byte != 0) {
                self.xts.apply(Way::Decrypt, lba, block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: &[u8] = b"what the header says";

    fn user(byte: u8) -> UserKey {
        UserKey::new(&[byte; 32], None).expect("a key")
    }

    #[test]
    fn a_users_key_has_two_parts_at_the_most_and_shows_nothing() {
        let make = |key: &[u8], key2: Option<&[u8]>| UserKey::new(key, key2).map(drop);
        assert_eq!(make(&[1; 32], None), Ok(()));
        assert_eq!(make(&[1; 16], Some(&[2; 16])), Ok(()));
        assert_eq!(make(&[1; 32], Some(&[2; 32])), Ok(()));
        assert_eq!(make(&[1; 16], None), Err(UserKeyError::Short));
        assert_eq!(make(&[1; 32], Some(&[2; 16])), Err(UserKeyError::Uneven));
        assert_eq!(make(&[1; 32], Some(&[1; 32])), Err(UserKeyError::Same));
        assert_eq!(make(&[1; 24], None), Err(UserKeyError::Length));
        assert_eq!(make(&[], Some(&[])), Err(UserKeyError::Length));
        assert_eq!(format!("{:?}", user(0x77)), "UserKey(***)");
    }

    #[test]
    fn only_the_same_key_and_the_same_header_unwrap() {
        let media = MediaKey::random().expect("random bytes");
        let wrapped = user(1).wrap(&media, BOUND);
        assert_eq!(user(1).unwrap(&wrapped, BOUND).expect("ours").0, media.0);
        assert!(user(2).unwrap(&wrapped, BOUND).is_none());
        assert!(user(1).unwrap(&wrapped, b"another header").is_none());
        let two = |a: u8, b: u8| UserKey::new(&[a; 16], Some(&[b; 16])).expect("a key");
        assert!(two(1, 2).unwrap(&two(2, 1).wrap(&media, BOUND), BOUND).is_none());
        for at in 0..WRAPPED_LEN {
            let mut damaged = wrapped;
            damaged[at] ^= 1;
            assert!(user(1).unwrap(&damaged, BOUND).is_none(), "byte {at}");
        }
    }

    /// IEEE 1619-2007, annex B, vector 10: AES-256, data unit FFh.
    #[test]
    fn it_is_the_standards_xts() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex"))
                .collect()
        };
        let key = "2718281828459045235360287471352662497757247093699959574966967627\
                   3141592653589793238462643383279502884197169399375105820974944592";
        let media = MediaKey::of(hex(key).try_into().expect("64 bytes"));
        let plain: Vec<u8> = (0..512).map(|at| at as u8).collect();
        let mut block = plain.clone();
        media.cipher(512).encrypt(0xff, &mut block);
        assert_eq!(block[..16], hex("1c3b3a102f770386e4836c99e370cf9b"));
        media.cipher(512).decrypt(0xff, &mut block);
        assert_eq!(block, plain);
    }

    #[test]
    fn each_block_has_its_own_tweak_and_a_hole_is_zeroes() {
        for block_size in [512, 4096] {
            let cipher = MediaKey::random().expect("random bytes").cipher(block_size);
            let size = block_size as usize;
            let mut blocks = vec![7; 3 * size];
            cipher.encrypt(u64::MAX - 3, &mut blocks);
            assert_ne!(blocks[..size], blocks[size..2 * size]);
            blocks[size..2 * size].fill(0);
            cipher.decrypt(u64::MAX - 3, &mut blocks);
            assert!(blocks[..size].iter().chain(&blocks[2 * size..]).all(|byte| *byte == 7));
            assert!(blocks[size..2 * size].iter().all(|byte| *byte == 0));
        }
    }
}
