//! What must hold of the legs and of everything that stores a config, looked at from outside with the production decoders.
//!
//! R11: nobody serves in a generation that somebody else, or an earlier run of the same node, has served in. I2: a leg that the newest config counts has every acknowledged write. I3: one config for each generation, and
//! generations rise in every store. I5: where the legs differ, a log or bitmap that a rejoin unites says so. I6: quiet and
//! in sync means equal.

use std::collections::{BTreeMap, BTreeSet};

use bdev::sim::SimBdev;
use mirror::bitmap::Bitmap;
use mirror::decide::{PeerVerdict, SyncPlan, on_peer};
use mirror::format::layout::{BITMAP_OFFSET, LOG_LEN, LOG_OFFSET};
use mirror::format::{Config, ConfigId, LegIndex, LegMask, Superblock};
use mirror::intent_log::{Replay, replay};
use mirror::probe::{FoundLeg, HEAD_LEN, Image, LegFound, TAIL_LEN, classify};
use mirror::range::ByteRange;

use super::history::Value;
use super::host::{BLOCK, value_of};
use super::world::{Check, World};

const GRANULE: u64 = 64 << 10;

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// The nonce of each generation, of each data set: two that went on without each other may count alike.
    nonces: BTreeMap<(Side, u64), u64>,
    /// Which run of which node serves in each config.
    serving: BTreeMap<ConfigId, (usize, u64)>,
    /// The newest generation in each store.
    stores: [u64; 2],
    rotten: [bool; 2],
}

/// A data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// The one that there is, or that was promoted by force.
    Main,
    /// The one of the holder that was left behind.
    Old,
}

impl Checks {
    /// A node says that this is its config.
    pub(crate) fn on_config(&mut self, (node, side): (usize, Side), config: Option<Config>) -> Check {
        let Some(id) = config.map(|config| config.id) else { return Ok(()) };
        let nonce = *self.nonces.entry((side, id.generation)).or_insert(id.nonce);
        if nonce != id.nonce && id.generation != 0 {
            return Err(format!(
                "I3: two configs of generation {}, the second one at node {node}",
                id.generation
            ));
        }
        Ok(())
    }

    /// A run of a node serves with this config.
    pub(crate) fn on_service(&mut self, who: (usize, u64), config: Config) -> Check {
        let generation = config.generation();
        let first = *self.serving.entry(config.id).or_insert(who);
        if first != who {
            return Err(format!(
                "R11: run {} of node {} serves in generation {generation}, as run {} of node {} did",
                who.1, who.0, first.1, first.0
            ));
        }
        Ok(())
    }

    fn on_store(&mut self, (node, side): (usize, Side), superblock: &Superblock) -> Check {
        let generation = superblock.config().generation();
        if generation < self.stores[node] && !self.rotten[node] {
            let before = self.stores[node];
            return Err(format!(
                "I3: the store of node {node} fell from generation {before} to {generation}"
            ));
        }
        self.stores[node] = generation;
        self.on_config((node, side), Some(*superblock.config()))
    }

    /// Another disk is there.
    pub(crate) fn forget_store(&mut self, node: usize) {
        (self.stores[node], self.rotten[node]) = (0, false);
    }

    pub(crate) fn rotten(&self, node: usize) -> bool {
        self.rotten[node]
    }

    pub(crate) fn rotted(&mut self, node: usize) {
        self.rotten[node] = true;
    }
}

pub(super) fn peek(disk: &SimBdev, range: ByteRange) -> Vec<u8> {
    disk.peek(
        usize::try_from(range.start).expect("in memory"),
        usize::try_from(range.len).expect("in memory"),
    )
}

/// What is on a disk.
pub(crate) fn found(disk: &SimBdev) -> LegFound {
    let leg_size = super::world::LEG.bytes();
    let head = peek(disk, ByteRange::new(0, HEAD_LEN));
    let tail = peek(disk, ByteRange::new(leg_size - TAIL_LEN, TAIL_LEN));
    classify(&Image { leg_size, head: &head, tail: &tail }, None)
}

/// What is in an image of a whole disk.
pub(crate) fn found_in(image: &[u8]) -> LegFound {
    let (leg_size, len) = (image.len() as u64, image.len());
    let head = &image[..usize::try_from(HEAD_LEN).expect("in memory")];
    let tail = &image[len - usize::try_from(TAIL_LEN).expect("in memory")..];
    classify(&Image { leg_size, head, tail }, None)
}

/// The superblock that counts.
pub(crate) fn superblock(disk: &SimBdev) -> Option<Superblock> {
    match found(disk) {
        LegFound::Leg(leg) => Some(leg.superblock),
        LegFound::Blank | LegFound::Refused(_) => None,
    }
}

/// Everything that a leg's log and bitmap say may differ.
fn differences(disk: &SimBdev, superblock: &Superblock) -> Bitmap {
    let layout = &superblock.layout;
    let image = peek(disk, ByteRange::new(BITMAP_OFFSET, layout.bitmap_len()));
    let (mut bitmap, _) = Bitmap::load(superblock.array, layout, &image);
    let ring = peek(disk, ByteRange::new(LOG_OFFSET, LOG_LEN));
    match replay(&ring, superblock.array, &layout.log) {
        Replay::Unreadable { .. } => drop(bitmap.set_all()),
        Replay::Table(table) => {
            for extent in table.extents() {
                let shift = layout.log.extent_shift;
                bitmap.set(ByteRange::new(u64::from(extent) << shift, 1 << shift));
            }
        }
    }
    bitmap
}

impl World {
    /// Looks at both legs as they are at this moment.
    pub(crate) fn look_at_legs(&mut self, when: &str) -> Check {
        let found = [0, 1].map(|node| found(&self.machines[node].disk));
        for (node, leg) in found.iter().enumerate() {
            if let LegFound::Leg(leg) = leg {
                self.checks
                    .on_store((node, self.side_of(node)), &leg.superblock)
                    .map_err(|why| format!("{when}: {why}"))?;
            }
        }
        if let [LegFound::Leg(a), LegFound::Leg(b)] = &found {
            self.check_marks(a, b).map_err(|why| format!("{when}: {why}"))?;
        }
        self.check_members().map_err(|why| format!("{when}: {why}"))
    }

    /// I5.
    fn check_marks(&self, a: &FoundLeg, b: &FoundLeg) -> Check {
        let generation = |leg: &FoundLeg| leg.superblock.config().generation();
        let (ours, leg) = if generation(a) >= generation(b) { (a, b) } else { (b, a) };
        let (ours, theirs) = (&ours.superblock, &leg.superblock);
        let strange = self.damage.iter().any(|damage| damage.leg_lost);
        if !ours.is_in_sync() || strange {
            return Ok(());
        }
        match on_peer(ours, &LegFound::Leg(Box::new(leg.clone()))) {
            PeerVerdict::Member | PeerVerdict::Resync(SyncPlan::Delta) => {}
            _ => return Ok(()),
        }
        let disks = [ours, theirs].map(|leg| &self.machines[leg.index.index()].disk);
        let mut marked = differences(disks[0], ours);
        marked.union(&differences(disks[1], theirs));
        let offsets = [ours, theirs].map(|leg| leg.layout.data_offset);
        let unmarked = |granule: u64| !marked.is_any_set(ByteRange::new(granule * GRANULE, 1));
        for granule in self.touched().into_iter().filter(|granule| unmarked(*granule)) {
            let [a, b] =
                [0, 1].map(|at| peek(disks[at], ByteRange::new(offsets[at] + granule * GRANULE, GRANULE)));
            if a != b {
                let byte = a.iter().zip(&b).position(|(a, b)| a != b).unwrap_or(0);
                let block = granule * 128 + (byte / BLOCK) as u64;
                return Err(format!("I5: the legs differ at block {block}, and no log or bitmap says so"));
            }
        }
        self.check_caches(&disks, offsets, unmarked)
    }

    /// I5 once more, for what a loss of either cache would leave.
    fn check_caches(
        &self,
        disks: &[&std::sync::Arc<SimBdev>; 2],
        offsets: [u64; 2],
        unmarked: impl Fn(u64) -> bool,
    ) -> Check {
        for at in 0..2 {
            for (sector, stable) in disks[at].unstable() {
                let place = (sector * BLOCK) as u64;
                let Some(byte) = place.checked_sub(offsets[at]) else { continue };
                let granule = byte / GRANULE;
                if granule >= self.granules || !unmarked(granule) {
                    continue;
                }
                let other = peek(disks[1 - at], ByteRange::new(offsets[1 - at] + byte, BLOCK as u64));
                if other != stable {
                    let block = byte / BLOCK as u64;
                    return Err(format!(
                        "I5: without a cache the legs would differ at block {block}, and no log or bitmap says so"
                    ));
                }
            }
        }
        Ok(())
    }

    fn touched(&self) -> BTreeSet<u64> {
        self.history.blocks().map(|block| block / 128).collect()
    }

    /// The nodes whose legs count: that may be read, taken for a member or promoted.
    ///
    /// The arbiter hears of a config first, the holder's superblock second, the peer's leg last (R8). A holder goes by the
    /// arbiter's word. Its peer's leg counts once its own superblock says that it is in sync: until then no decision takes it
    /// for more than a copy under way, whatever the arbiter has (`decide::on_word`, `decide::on_peer`), and the holder may
    /// acknowledge without it.
    pub(crate) fn counted(&self) -> Vec<usize> {
        if let Some(split) = &self.split
            && let Some(counted) = split.counted()
        {
            return counted;
        }
        let Some(newest) = self.newest_config() else { return Vec::new() };
        let legs = LegIndex::BOTH.into_iter().filter(|leg| newest.in_sync.has(*leg));
        let heard = |leg: &LegIndex| {
            let own = superblock(&self.machines[leg.index()].disk);
            *leg == newest.holder || own.is_none_or(|own| own.is_in_sync())
        };
        legs.filter(heard).map(LegIndex::index).collect()
    }

    /// I2: every leg that counts has everything.
    fn check_members(&self) -> Check {
        for node in self.counted() {
            let damage = self.damage[node];
            if damage.leg_lost || damage.cache_lost || self.machines[node].disk.has_bad_blocks() {
                continue;
            }
            self.check_leg(node)?;
        }
        Ok(())
    }

    fn check_leg(&self, node: usize) -> Check {
        for (block, value) in self.held(node)? {
            self.history
                .check_leg(block, value)
                .map_err(|why| format!("I2: the leg of node {node}, which counts: {why}"))?;
        }
        Ok(())
    }

    /// What a leg holds in each block that was ever used; nothing when it cannot be read.
    pub(crate) fn held(&self, node: usize) -> Check<BTreeMap<u64, Value>> {
        let disk = &self.machines[node].disk;
        let Some(superblock) = superblock(disk) else { return Ok(BTreeMap::new()) };
        let held = |block: u64| {
            let place = superblock.layout.data_offset + block * BLOCK as u64;
            Ok((block, value_of(&peek(disk, ByteRange::new(place, BLOCK as u64)), block)?))
        };
        self.history.blocks().map(held).collect()
    }

    /// I6: the legs are the same bytes.
    pub(crate) fn check_equal(&self) -> Check {
        let legs = [0, 1].map(|node| superblock(&self.machines[node].disk));
        let [Some(a), Some(b)] = legs else { return Err("I6: a leg cannot be read".to_owned()) };
        if a.config() != b.config() || a.config().in_sync != LegMask::both() {
            return Err(format!("I6: the superblocks disagree: {:?} and {:?}", a.config(), b.config()));
        }
        for granule in 0..self.granules {
            let place =
                |leg: &Superblock| ByteRange::new(leg.layout.data_offset + granule * GRANULE, GRANULE);
            let images = [&a, &b].map(|leg| peek(&self.machines[leg.index.index()].disk, place(leg)));
            if images[0] != images[1] {
                let byte = images[0].iter().zip(&images[1]).position(|(a, b)| a != b).unwrap_or(0);
                return Err(format!(
                    "I6: the legs differ at block {}",
                    granule * 128 + (byte / BLOCK) as u64
                ));
            }
        }
        Ok(())
    }
}
