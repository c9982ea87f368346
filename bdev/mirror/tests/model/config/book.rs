//! Superblocks, configs and what those follow by number, so that a state is small; and the decisions, asked with the real values.

use std::collections::BTreeMap;

use bdev::FenceKey;
use mirror::bitmap::Bitmap;
use mirror::decide::{SyncPlan, unite};
use mirror::format::{
    ArbiterKind, ArrayName, Config, ConfigFlags, ConfigId, Copy, CreateLeg, History, LayoutRequest, Lease,
    LegFlags, LegIndex, LegState, Superblock,
};
use mirror::format::{Layout, LegMask, Reason};
use mirror::intent_log::{FREE, Replay, Replayed};
use mirror::probe::{FoundLeg, LegFound};
use mirror::range::ByteRange;
use uuid::Uuid;

/// Number of a superblock in the book.
pub(super) type Sb = u16;
/// Number of a config in the book.
pub(super) type Cfg = u16;
/// Number of a config with those that it follows: what the arbiter holds.
pub(super) type Past = u16;

const ARRAY: Uuid = Uuid::from_u128(77);
/// The one block of the model, in the first extent and granule.
const BLOCK: ByteRange = ByteRange { start: 0, len: 4096 };

pub(super) struct Book {
    superblocks: Vec<Superblock>,
    by_image: BTreeMap<Vec<u8>, Sb>,
    configs: Vec<Config>,
    pasts: Vec<History>,
    lines: BTreeMap<Past, usize>,
    records: Records,
}

/// What the arbiter keeps of a config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Records {
    /// With those that it follows.
    Whole,
    /// By itself, as before records told what they follow: nodes that were upgraded find such a one.
    Bare,
}

fn create(index: LegIndex, arbiter: ArbiterKind) -> CreateLeg {
    let request =
        LayoutRequest { leg_size: 24 << 20, block_size: 512, data_size: None, max_crash_resync: None };
    CreateLeg {
        array: ARRAY,
        name: ArrayName::new("model").expect("a name"),
        leg: Uuid::from_u128(0x1e60 + u128::from(index.number())),
        index,
        node: Uuid::from_u128(0x90de + u128::from(index.number())),
        layout: Layout::plan(request).expect("24 MiB are a leg"),
        flags: LegFlags::ZEROED,
        incarnation: Uuid::from_u128(1),
        arbiter,
        lease: Lease::default(),
    }
}

fn is_forced(config: &Config) -> bool {
    config.flags.contains(ConfigFlags::FORCED)
}

/// Superblock writes are not counted here: a leg that was set back is another model's matter.
fn uncounted(mut superblock: Superblock) -> Superblock {
    (superblock.seq, superblock.events) = (1, 1);
    for leg in &mut superblock.legs {
        leg.seen_seq = 0;
    }
    superblock
}

impl Book {
    /// A book, and the superblocks of a pair whose node 0 holds with both legs in sync.
    pub(super) fn new(arbiter: ArbiterKind, records: Records) -> (Self, [Sb; 2]) {
        let mut book = Self {
            superblocks: Vec::new(),
            by_image: BTreeMap::new(),
            configs: Vec::new(),
            pasts: Vec::new(),
            lines: BTreeMap::new(),
            records,
        };
        let mut ours = create(LegIndex::Zero, arbiter).founder(1);
        let mut theirs = create(LegIndex::One, arbiter).joiner();
        let both = ours.config().successor(2, LegIndex::Zero, LegMask::both(), Reason::Rejoined);
        ours.history.push(both.expect("generations left"));
        theirs.history = ours.history;
        for (index, record) in [*ours.own(), *theirs.own()].into_iter().enumerate() {
            for superblock in [&mut ours, &mut theirs] {
                superblock.legs[index] = record;
                (superblock.legs[index].state, superblock.legs[index].tracked_since) = (LegState::InSync, 2);
                superblock.fence = FenceKey { node: 0, generation: 2 };
            }
        }
        let superblocks = [ours, theirs].map(|superblock| book.number(superblock));
        (book, superblocks)
    }

    pub(super) fn number(&mut self, superblock: Superblock) -> Sb {
        let superblock = uncounted(superblock);
        let image = superblock.encode(0).to_vec();
        if let Some(&number) = self.by_image.get(&image) {
            return number;
        }
        let number = Sb::try_from(self.superblocks.len()).expect("a small scope has few superblocks");
        self.superblocks.push(superblock);
        self.by_image.insert(image, number);
        number
    }

    pub(super) fn get(&self, number: Sb) -> &Superblock {
        &self.superblocks[usize::from(number)]
    }

    /// Whether a superblock is of the line that a promotion by force began: 1, and otherwise 0.
    pub(super) fn line(&self, number: Sb) -> usize {
        usize::from(self.newest_of(number, 1).is_some())
    }

    /// The newest config of a line that a superblock knows: force begins one with its first.
    pub(super) fn newest_of(&self, number: Sb, line: usize) -> Option<Config> {
        let entries = self.get(number).history.entries();
        let forced = entries.iter().position(is_forced);
        match (line, forced) {
            (0, _) => entries.get(forced.map_or(0, |at| at + 1)).copied(),
            (_, forced) => forced.map(|_| entries[0]),
        }
    }

    /// The line of what the arbiter holds.
    pub(super) fn line_of_past(&self, number: Past) -> usize {
        self.lines.get(&number).copied().unwrap_or_default()
    }

    /// What the arbiter is told of this superblock's config.
    pub(super) fn past_of(&mut self, number: Sb) -> Past {
        let history = self.get(number).history;
        let past = self.past_number(&match self.records {
            Records::Whole => history,
            Records::Bare => History::of_unknown_past(*history.current()),
        });
        self.lines.insert(past, self.line(number));
        past
    }

    pub(super) fn past_number(&mut self, past: &History) -> Past {
        let at = self.pasts.iter().position(|known| known == past).unwrap_or_else(|| {
            self.pasts.push(*past);
            self.pasts.len() - 1
        });
        Past::try_from(at).expect("a small scope has few configs")
    }

    pub(super) fn past(&self, number: Past) -> &History {
        &self.pasts[usize::from(number)]
    }

    /// The newest of them.
    pub(super) fn newest_number(&mut self, number: Past) -> Cfg {
        self.config_number(*self.past(number).current())
    }

    /// True when a swap by whoever knows `from` happens where the arbiter holds `there`.
    pub(super) fn is_there(&self, there: Past, from: Cfg) -> bool {
        self.past(there).current().id == self.config(from).id
    }

    /// True when whoever learns of `next` from the arbiter learns of what it replaces: unless it was forced.
    pub(super) fn follows(&self, next: Past, from: Cfg) -> bool {
        let (next, from) = (self.past(next), self.config(from));
        is_forced(next.current()) || next.entries().contains(from) || self.records == Records::Bare
    }

    pub(super) fn config_number(&mut self, config: Config) -> Cfg {
        let at = self.configs.iter().position(|known| *known == config).unwrap_or_else(|| {
            self.configs.push(config);
            self.configs.len() - 1
        });
        Cfg::try_from(at).expect("a small scope has few configs")
    }

    pub(super) fn config(&self, number: Cfg) -> &Config {
        &self.configs[usize::from(number)]
    }

    pub(super) fn id(&self, number: Sb) -> ConfigId {
        self.get(number).config().id
    }

    /// What a probe finds on a leg with this superblock.
    pub(super) fn found(&self, number: Sb) -> LegFound {
        let superblock = self.get(number).clone();
        let access = superblock.features.access();
        LegFound::Leg(Box::new(FoundLeg { newest: superblock.seq, superblock, from: Copy::Slot0, access }))
    }

    /// Whether the block is out of sync after the union with what the target says of it.
    pub(super) fn unite(&self, ours: bool, plan: SyncPlan, logged: bool, marked: bool) -> bool {
        let layout = self.superblocks[0].layout;
        let bitmap = |set: bool| {
            let mut bitmap = Bitmap::new(ARRAY, &layout);
            if set {
                bitmap.set(BLOCK);
            }
            bitmap
        };
        let mut table = vec![FREE; usize::from(layout.log.slots)];
        table[0] = if logged { 0 } else { FREE };
        let log = Replay::Table(Replayed { seq: 1, generation: 0, base_seq: 1, table, salvaged: Vec::new() });
        let mut united = bitmap(ours);
        unite(&mut united, plan, &log, &bitmap(marked), layout.log.extent_shift);
        united.is_any_set(BLOCK)
    }
}
