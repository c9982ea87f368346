//! Power cuts: what may survive of the writes that are in flight or in a leg's cache.
//!
//! Looked at are, of each leg, in the order in which its writes lie one over the other:
//!
//! - every prefix, and every prefix with its last write torn at each sector;
//! - of each metadata write it alone, all but it, and both with it torn at each sector;
//! - random subsets, sector by sector.
//!
//! Prefixes end at every metadata write, and at the [`NEWEST`] newest writes whatever they are. That is enough for longer lists: a data
//! write is the newest when it joins, so that it was torn, and the last, when nothing was on top of it. Later, with more than those on
//! top, a prefix that ends there differs from the one that ends at the next metadata write by data writes between the two alone; each of
//! these lies in its own block, about which the legs' metadata say the same either way, and which random subsets leave out.
//! `GEMEL_DEEP` looks at all of them.

use engine::Prng;

use super::recorder::Number;

/// So many newest writes end a prefix, even if they are data.
const NEWEST: usize = 4;
/// A metadata block has so many sectors.
const BLOCK_SECTORS: usize = 8;
/// A longer write that is torn at each sector has so many at the most: the unit's state is one.
const TORN_SECTORS: usize = 32;

/// How much of a write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Survival {
    /// All its sectors.
    Whole,
    /// Its first sectors, so many.
    First(u8),
    /// All but its first sectors.
    AllBut(u8),
    /// Each sector or not, by this seed.
    Some(u64),
}

impl Survival {
    pub(crate) fn keeps(self, sector: usize) -> bool {
        match self {
            Self::Whole => true,
            Self::First(count) => sector < usize::from(count),
            Self::AllBut(count) => sector >= usize::from(count),
            Self::Some(seed) => Prng::from_seed(seed ^ sector as u64).percent(50),
        }
    }
}

/// The writes of which something survives, in the order in which they ended.
pub(crate) type Way = Vec<(Number, Survival)>;

/// What a write is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Area {
    /// The intent log.
    Log,
    /// Other metadata.
    Metadata,
    Data,
}

/// A write that power may take back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unsettled {
    pub(crate) number: Number,
    pub(crate) sectors: usize,
    pub(crate) area: Area,
}

impl Unsettled {
    /// The places where it is torn.
    fn tears(&self) -> core::ops::Range<u8> {
        let count = if self.sectors <= TORN_SECTORS { self.sectors } else { BLOCK_SECTORS };
        1..u8::try_from(count).expect("few")
    }
}

/// How many ways are looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Breadth {
    /// Random subsets.
    pub(crate) random: u32,
    /// Newest writes that end a prefix.
    newest: usize,
}

impl Breadth {
    /// The usual one, or all prefixes with `GEMEL_DEEP`.
    pub(crate) fn usual() -> Self {
        if is_deep() { Self { random: 8, newest: usize::MAX } } else { Self { random: 2, newest: NEWEST } }
    }

    /// Where something is to be found.
    pub(crate) fn narrow() -> Self {
        Self { random: 2, newest: 1 }
    }
}

/// True when more is asked for than an ordinary run has time for.
pub(crate) fn is_deep() -> bool {
    std::env::var_os("GEMEL_DEEP").is_some()
}

/// The ways in which power may fail for one leg.
pub(crate) struct Cuts {
    /// Nothing survives, everything, and what is between: prefixes, whole and torn.
    pub(crate) prefixes: Vec<Way>,
    /// Subsets that are no prefixes.
    pub(crate) subsets: Vec<Way>,
}

impl Cuts {
    pub(crate) fn of(pending: &[Unsettled], prng: &mut Prng, breadth: Breadth) -> Self {
        Self { prefixes: prefixes(pending, breadth), subsets: subsets(pending, prng, breadth) }
    }

    /// All of them; the first is nothing, the second everything.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Way> {
        self.prefixes.iter().chain(&self.subsets)
    }
}

fn whole(pending: &[Unsettled]) -> Way {
    pending.iter().map(|write| (write.number, Survival::Whole)).collect()
}

fn prefixes(pending: &[Unsettled], breadth: Breadth) -> Vec<Way> {
    let mut ways = vec![Way::new(), whole(pending)];
    let old = pending.len().saturating_sub(breadth.newest);
    for (at, last) in pending.iter().enumerate() {
        if at < old && last.area == Area::Data {
            continue;
        }
        let before = whole(&pending[..at]);
        let ending = |survival| before.iter().copied().chain([(last.number, survival)]).collect::<Way>();
        ways.extend(last.tears().map(|count| ending(Survival::First(count))));
        if at + 1 < pending.len() {
            ways.push(ending(Survival::Whole));
        }
    }
    ways
}

fn subsets(pending: &[Unsettled], prng: &mut Prng, breadth: Breadth) -> Vec<Way> {
    let mut ways = Vec::new();
    let all = whole(pending);
    for (at, odd) in pending.iter().enumerate().filter(|(_, write)| write.area != Area::Data) {
        let torn = |count| {
            let mut way = all.clone();
            way[at].1 = Survival::AllBut(count);
            way
        };
        ways.push(all.iter().filter(|(number, _)| *number != odd.number).copied().collect());
        ways.push(vec![(odd.number, Survival::Whole)]);
        ways.extend(odd.tears().map(|count| vec![(odd.number, Survival::First(count))]));
        ways.extend(odd.tears().map(torn));
    }
    let random = if pending.is_empty() { 0 } else { breadth.random };
    for _ in 0..random {
        let survivors: Vec<_> = pending.iter().filter(|_| prng.percent(50)).collect();
        ways.push(survivors.iter().map(|write| (write.number, Survival::Some(prng.next_u64()))).collect());
    }
    ways
}
