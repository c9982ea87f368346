//! Slots in order of last use: a doubly linked list inside two arrays.

/// The order of use of numbered slots. All operations take constant time and no memory.
#[derive(Debug)]
pub(super) struct Lru {
    /// Links of each slot, and of the anchor, which is the last element: its `newer` is the least recently
    /// used.
    links: Vec<Link>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    newer: u16,
    older: u16,
}

impl Lru {
    pub(super) fn new(slots: u16) -> Self {
        let links = (0..=slots).map(|at| Link { newer: at, older: at }).collect();
        Self { links }
    }

    fn anchor(&self) -> u16 {
        u16::try_from(self.links.len() - 1).expect("at most 65,535 slots")
    }

    fn link(&mut self, older: u16, newer: u16) {
        self.links[usize::from(older)].newer = newer;
        self.links[usize::from(newer)].older = older;
    }

    /// Takes a slot out; harmless when it is not in.
    pub(super) fn remove(&mut self, slot: u16) {
        let Link { newer, older } = self.links[usize::from(slot)];
        self.link(older, newer);
        self.links[usize::from(slot)] = Link { newer: slot, older: slot };
    }

    /// Makes a slot the most recently used, putting it in when it is not.
    pub(super) fn touch(&mut self, slot: u16) {
        self.remove(slot);
        let anchor = self.anchor();
        let newest = self.links[usize::from(anchor)].older;
        self.link(newest, slot);
        self.link(slot, anchor);
    }

    /// The slots, least recently used first.
    pub(super) fn oldest_first(&self) -> impl Iterator<Item = u16> {
        let anchor = self.anchor();
        let mut at = anchor;
        core::iter::from_fn(move || {
            at = self.links[usize::from(at)].newer;
            (at != anchor).then_some(at)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_order_of_use() {
        let mut lru = Lru::new(4);
        let order = |lru: &Lru| lru.oldest_first().collect::<Vec<_>>();
        for slot in [2, 0, 3, 1, 0, 0] {
            lru.touch(slot);
        }
        assert_eq!(order(&lru), [2, 3, 1, 0]);
        lru.remove(3);
        lru.remove(3);
        assert_eq!(order(&lru), [2, 1, 0]);
        lru.touch(2);
        assert_eq!(order(&lru), [1, 0, 2]);
    }
}
