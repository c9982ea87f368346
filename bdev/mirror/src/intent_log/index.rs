//! Extent number to slot: a chained hash table of fixed size, because the write path may not allocate (I23).

/// No slot.
const NONE: u16 = u16::MAX;

/// Finds the slot of an extent. Slots are numbered below 65,535.
#[derive(Debug)]
pub(super) struct Index {
    heads: Vec<u16>,
    next: Vec<u16>,
    extents: Vec<u32>,
}

impl Index {
    pub(super) fn new(slots: u16) -> Self {
        let buckets = usize::from(slots).next_power_of_two();
        let slots = usize::from(slots);
        Self { heads: vec![NONE; buckets], next: vec![NONE; slots], extents: vec![0; slots] }
    }

    fn bucket(&self, extent: u32) -> usize {
        // Fibonacci hashing: neighbours go far apart, and the order is the same in every run.
        let hash = extent.wrapping_mul(0x9E37_79B9) >> 8;
        hash as usize & (self.heads.len() - 1)
    }

    pub(super) fn get(&self, extent: u32) -> Option<u16> {
        let mut at = self.heads[self.bucket(extent)];
        while at != NONE {
            if self.extents[usize::from(at)] == extent {
                return Some(at);
            }
            at = self.next[usize::from(at)];
        }
        None
    }

    pub(super) fn insert(&mut self, extent: u32, slot: u16) {
        debug_assert!(self.get(extent).is_none());
        let bucket = self.bucket(extent);
        self.next[usize::from(slot)] = self.heads[bucket];
        self.extents[usize::from(slot)] = extent;
        self.heads[bucket] = slot;
    }

    pub(super) fn remove(&mut self, slot: u16) {
        let after = self.next[usize::from(slot)];
        let bucket = self.bucket(self.extents[usize::from(slot)]);
        let mut at = self.heads[bucket];
        if at == slot {
            self.heads[bucket] = after;
            return;
        }
        while self.next[usize::from(at)] != slot {
            at = self.next[usize::from(at)];
        }
        self.next[usize::from(at)] = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn behaves_as_a_map() {
        let mut index = Index::new(64);
        let mut model = BTreeMap::new();
        let mut seed = 1_u32;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (slot, extent) = ((seed >> 8) as u16 % 64, seed >> 25);
            if let Some((&held, _)) = model.iter().find(|&(_, &s)| s == slot) {
                index.remove(slot);
                model.remove(&held);
            } else if let std::collections::btree_map::Entry::Vacant(vacant) = model.entry(extent) {
                index.insert(extent, slot);
                vacant.insert(slot);
            }
            for extent in 0..128 {
                assert_eq!(index.get(extent), model.get(&extent).copied());
            }
        }
    }
}
