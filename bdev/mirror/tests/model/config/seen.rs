//! Every state that has been seen, by a hash of 128 bits: so many that two of a few million states are told apart.

use core::hash::{BuildHasherDefault, Hash, Hasher};

#[expect(clippy::disallowed_types, reason = "it is asked, and never gone through in order")]
type Set = std::collections::HashSet<u128, BuildHasherDefault<Low>>;

/// See the module.
#[derive(Default)]
pub(super) struct Seen(Set);

impl Seen {
    /// True when the state is new.
    pub(super) fn insert(&mut self, state: &impl Hash) -> bool {
        let mut wide = Wide(0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f);
        state.hash(&mut wide);
        self.0.insert(wide.digest())
    }
}

/// Two lanes of 64 bits.
struct Wide(u64, u64);

impl Wide {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25);
        self.1 = (self.1 ^ word.rotate_left(32)).wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(29);
        self.1 = self.1.wrapping_add(self.0 >> 32);
    }

    fn digest(mut self) -> u128 {
        self.mix(0xff51_afd7_ed55_8ccd);
        self.mix(0xc4ce_b9fe_1a85_ec53);
        u128::from(self.0 ^ self.0 >> 31) << 64 | u128::from(self.1 ^ self.1 >> 29)
    }
}

impl Hasher for Wide {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(value.into());
    }

    fn write_u16(&mut self, value: u16) {
        self.mix(value.into());
    }

    fn write_isize(&mut self, value: isize) {
        self.mix(value.cast_unsigned() as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The low half of a digest is a hash already.
#[derive(Default)]
struct Low(u64);

impl Hasher for Low {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = (value >> 64) as u64 ^ value as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
