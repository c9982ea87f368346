//! The out-of-sync bitmap: "these granules are known stale on that leg". One bit for 64 KiB, in memory, with
//! a durable copy.
//!
//! Owner: the array core; pure, no I/O. Rules: R5, R6, R7, R9, I5, I8, I9. Format: `FORMAT.md`.
//!
//! Setting is free and never waits: a set that is not on disk yet is covered by the intent log, which asks
//! [`Bitmap::is_durable`] before an extent leaves (R4, R6). Clearing takes the reason that R5 allows, and
//! reaches the disk whenever the page is written next.
//!
//! A page has two slots, used in turn, so a torn write leaves the older one. Both invalid: all ones (I9). At
//! most one write of a page is outstanding.

mod page;

#[cfg(test)]
mod tests;

use uuid::Uuid;

pub use page::PageHealth;

use crate::format::layout::{Layout, PAGE_BITS};
use crate::format::{BLOCK_SIZE, Block, BlockWrite};
use crate::range::{ByteRange, UnitRange};
use page::PAGE_WORDS;

/// Why bits may be cleared (R5): there is no other way, and never by inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClearedBy {
    /// A copy under an exclusive range lock that completed, with both legs flushed after it.
    CopiedAndFlushed,
    /// An application write of whole granules that every leg completed durably.
    WrittenToEveryLeg,
    /// A command of the operator, which the caller has recorded.
    Operator,
}

/// Which pages to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Pages with bits set since they were written: an intent-log extent, or a config change, waits for them.
    Marks,
    /// Those, and pages where bits were only cleared: the checkpoint of a resync.
    Everything,
}

/// A page to write and make durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageWrite {
    /// The page, for [`Bitmap::on_durable`] and [`Bitmap::on_failed`].
    pub page: u32,
    /// Place and content.
    pub write: BlockWrite,
}

/// What a bitmap was like on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Pages whose older slot is damaged.
    pub mended: u32,
    /// Pages without a whole slot, or whose newer one is damaged, taken as all ones.
    pub lost: u32,
}

/// The page's life between memory and disk. Versions count changes; they start anew with each start.
#[derive(Clone, Copy, Debug, Default)]
struct PageState {
    /// Number of the write that is on disk.
    seq: u64,
    /// Changes of any kind so far.
    version: u64,
    /// The version at the last 0 to 1 change.
    marked: u64,
    /// The version on disk.
    durable: u64,
    /// The version in the outstanding write.
    writing: Option<u64>,
}

impl PageState {
    fn wants(&self, urgency: Urgency) -> bool {
        let needed = match urgency {
            Urgency::Marks => self.marked,
            Urgency::Everything => self.version,
        };
        self.writing.is_none() && needed > self.durable
    }
}

/// The bitmap of one array.
#[derive(Debug)]
pub struct Bitmap {
    array: Uuid,
    data_size: u64,
    granule_shift: u32,
    granules: u64,
    words: Vec<u64>,
    pages: Vec<PageState>,
    /// Pages whose disk copy lacks a set bit: so that a quiet bitmap costs nothing to ask.
    unmarked: u32,
    set_granules: u64,
    /// Where the search for pages goes on, so that all get their turn.
    cursor: u32,
}

/// The pages of a formatted leg: no bit set.
pub(crate) fn first_blocks(array: Uuid, layout: &Layout) -> impl Iterator<Item = BlockWrite> + use<> {
    (0..layout.bitmap_pages()).map(move |page| page::encode(array, page, 1, 0, &[0; PAGE_WORDS]))
}

impl Bitmap {
    /// A bitmap with no bit set, as it is on a leg that was just formatted.
    pub fn new(array: Uuid, layout: &Layout) -> Self {
        let pages = layout.bitmap_pages() as usize;
        Self {
            array,
            data_size: layout.data_size,
            granule_shift: layout.granule_shift,
            granules: layout.granules(),
            words: vec![0; pages * PAGE_WORDS],
            pages: vec![PageState { seq: 1, ..PageState::default() }; pages],
            unmarked: 0,
            set_granules: 0,
            cursor: 0,
        }
    }

    /// Reads the image of all pages, [`Layout::bitmap_len`] bytes from
    /// [`crate::format::layout::BITMAP_OFFSET`]. A block that could not be read has to be given as all ones:
    /// never as zeroes.
    ///
    /// # Panics
    /// When the image has another length: the caller's mistake.
    pub fn load(array: Uuid, layout: &Layout, image: &[u8]) -> (Self, LoadReport) {
        assert_eq!(image.len() as u64, layout.bitmap_len(), "an image of all bitmap pages");
        let mut bitmap = Self::new(array, layout);
        let mut report = LoadReport::default();
        let block = |bytes: &[u8]| -> Block { bytes.try_into().expect("a whole block") };
        for (page, slots) in (0..layout.bitmap_pages()).zip(image.chunks_exact(2 * BLOCK_SIZE)) {
            let slots = [block(&slots[..BLOCK_SIZE]), block(&slots[BLOCK_SIZE..])];
            let found = page::decode([&slots[0], &slots[1]], array, page);
            bitmap.restore(page, &found);
            report.mended += u32::from(found.health == PageHealth::Mended);
            report.lost += u32::from(found.health == PageHealth::Lost);
        }
        (bitmap, report)
    }

    fn restore(&mut self, page: u32, found: &page::Found) {
        let state = &mut self.pages[page as usize];
        state.seq = found.seq;
        if found.health != PageHealth::Whole {
            // The disk no longer says what memory says: write it.
            state.version = 1;
            state.marked = 1;
            self.unmarked += 1;
        }
        let first = page as usize * PAGE_WORDS;
        self.words[first..first + PAGE_WORDS].copy_from_slice(&found.words);
        self.cut_off_tail();
        let words = &self.words[first..first + PAGE_WORDS];
        self.set_granules += words.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
    }

    /// Clears what lies behind the last granule: a lost page brings ones there.
    fn cut_off_tail(&mut self) {
        let (word, bit) = split(self.granules);
        if let Some(word) = self.words.get_mut(word) {
            *word &= low_bits(bit);
        }
        let whole = self.granules.div_ceil(64) as usize;
        self.words[whole..].fill(0);
    }

    // --- Asking ---

    /// Granules that are out of sync.
    pub fn set_granules(&self) -> u64 {
        self.set_granules
    }

    /// Bytes that are out of sync, in whole granules.
    pub fn set_bytes(&self) -> u64 {
        self.set_granules << self.granule_shift
    }

    /// Granules of the data area.
    pub fn granules(&self) -> u64 {
        self.granules
    }

    /// log2 of the granule in bytes.
    pub fn granule_shift(&self) -> u32 {
        self.granule_shift
    }

    /// True when nothing is out of sync.
    pub fn is_clear(&self) -> bool {
        self.set_granules == 0
    }

    /// True when every granule that the range touches is out of sync.
    pub fn is_set(&self, range: ByteRange) -> bool {
        let units = self.touched(range);
        self.spans(units).all(|(word, mask)| self.words[word] & mask == mask)
    }

    /// True when some granule that the range touches is out of sync.
    pub fn is_any_set(&self, range: ByteRange) -> bool {
        let units = self.touched(range);
        self.spans(units).any(|(word, mask)| self.words[word] & mask != 0)
    }

    /// True when every bit set in memory for the range is set on disk as well.
    pub fn is_durable(&self, range: ByteRange) -> bool {
        if self.unmarked == 0 {
            return true;
        }
        let pages = &self.pages[self.pages_of(self.touched(range))];
        pages.iter().all(|page| page.marked <= page.durable)
    }

    /// True when every bit set in memory is set on disk as well.
    pub fn is_all_durable(&self) -> bool {
        self.unmarked == 0
    }

    /// The first run of out-of-sync granules at or after granule `from`, cut off after `max_bytes` and at the
    /// end of the data: what a resync copies next.
    pub fn next_run(&self, from: u64, max_bytes: u64) -> Option<ByteRange> {
        let first = self.find(from, Bit::Set)?;
        let end = self.granules.min(first.saturating_add((max_bytes >> self.granule_shift).max(1)));
        let past = self.find_before(end, first, Bit::Clear).unwrap_or(end);
        let run = UnitRange { first, count: past - first };
        Some(run.bytes(self.granule_shift, self.data_size))
    }

    /// The first part of a range whose granules are all out of sync, or none of them.
    pub fn leading_run(&self, range: ByteRange) -> ByteRange {
        let first = range.start >> self.granule_shift;
        let other = if self.is_any_set(ByteRange::new(range.start, 1)) { Bit::Clear } else { Bit::Set };
        let past = range.touched(self.granule_shift).end();
        let end = self.find_before(past, first, other).map_or(range.end(), |past| past << self.granule_shift);
        ByteRange::new(range.start, range.end().min(end) - range.start)
    }

    /// All runs of out-of-sync granules, whole, in order.
    pub fn runs(&self) -> impl Iterator<Item = ByteRange> {
        let mut from = 0;
        core::iter::from_fn(move || {
            let run = self.next_run(from, u64::MAX)?;
            from = run.end().div_ceil(1 << self.granule_shift);
            Some(run)
        })
    }

    /// The first granule at or after `from` whose bit is `wanted`.
    fn find(&self, from: u64, wanted: Bit) -> Option<u64> {
        self.find_before(self.granules, from, wanted)
    }

    /// The same before granule `end`: no further is looked.
    fn find_before(&self, end: u64, from: u64, wanted: Bit) -> Option<u64> {
        let (mut word, bit) = split(from);
        let mut mask = !low_bits(bit);
        let words = self.words.get(..end.div_ceil(64) as usize)?;
        while let Some(&bits) = words.get(word) {
            let hits = mask & if wanted == Bit::Set { bits } else { !bits };
            if hits != 0 {
                let at = word as u64 * 64 + u64::from(hits.trailing_zeros());
                return (at < end).then_some(at);
            }
            (word, mask) = (word + 1, u64::MAX);
        }
        None
    }

    // --- Changing ---

    /// Marks every granule that the range touches. Gives the number of granules that were clear.
    pub fn set(&mut self, range: ByteRange) -> u64 {
        let units = self.touched(range);
        self.change(units, Bit::Set)
    }

    /// Marks everything.
    pub fn set_all(&mut self) -> u64 {
        self.set(ByteRange::new(0, self.data_size))
    }

    /// Clears the granules that the range covers whole, for a reason that R5 knows. Gives the number that
    /// were set.
    pub fn clear(&mut self, range: ByteRange, by: ClearedBy) -> u64 {
        match by {
            ClearedBy::CopiedAndFlushed | ClearedBy::WrittenToEveryLeg | ClearedBy::Operator => {}
        }
        let clamped = self.clamp(range);
        let covered = clamped.covered(self.granule_shift, self.data_size);
        self.change(covered, Bit::Clear)
    }

    /// Adds everything that is set in `other`: the other leg's bitmap, at rejoin.
    ///
    /// # Panics
    /// When the two are not of one geometry.
    pub fn union(&mut self, other: &Self) -> u64 {
        assert_eq!((self.data_size, self.granule_shift), (other.data_size, other.granule_shift));
        other.runs().map(|run| self.set(run)).sum()
    }

    fn change(&mut self, units: UnitRange, to: Bit) -> u64 {
        let mut changed = 0;
        let mut page_changed = None;
        for (word, mask) in Spans::new(units) {
            let bits = &mut self.words[word];
            let before = *bits;
            match to {
                Bit::Set => *bits |= mask,
                Bit::Clear => *bits &= !mask,
            }
            let flipped = u64::from((before ^ *bits).count_ones());
            changed += flipped;
            let page = word / PAGE_WORDS;
            if flipped != 0 && page_changed != Some(page) {
                self.note_change(page, to);
                page_changed = Some(page);
            }
        }
        match to {
            Bit::Set => self.set_granules += changed,
            Bit::Clear => self.set_granules -= changed,
        }
        changed
    }

    fn note_change(&mut self, page: usize, to: Bit) {
        let state = &mut self.pages[page];
        state.version += 1;
        if to == Bit::Set {
            self.unmarked += u32::from(state.marked <= state.durable);
            state.marked = state.version;
        }
    }

    // --- Writing pages ---

    /// The next page to write, if any. Several pages may be outstanding, each once. `generation` is the
    /// holder's current one.
    pub fn next_page(&mut self, urgency: Urgency, generation: u64) -> Option<PageWrite> {
        if urgency == Urgency::Marks && self.unmarked == 0 {
            return None;
        }
        let count = self.pages.len() as u32;
        let turn = (self.cursor..count).chain(0..self.cursor);
        let page = turn.into_iter().find(|&page| self.pages[page as usize].wants(urgency))?;
        self.cursor = (page + 1) % count;
        let state = &mut self.pages[page as usize];
        state.writing = Some(state.version);
        let first = page as usize * PAGE_WORDS;
        let words = &self.words[first..first + PAGE_WORDS];
        Some(PageWrite { page, write: page::encode(self.array, page, state.seq + 1, generation, words) })
    }

    /// The outstanding write of `page` is durable.
    ///
    /// # Panics
    /// When none is outstanding: a programming error.
    pub fn on_durable(&mut self, page: u32) {
        let state = &mut self.pages[page as usize];
        let was_unmarked = state.marked > state.durable;
        state.durable = state.writing.take().expect("a write of this page is outstanding");
        state.seq += 1;
        self.unmarked -= u32::from(was_unmarked && state.marked <= state.durable);
    }

    /// The outstanding write of `page` failed or its outcome is unknown: it goes to the same slot again.
    pub fn on_failed(&mut self, page: u32) {
        let writing = self.pages[page as usize].writing.take();
        assert!(writing.is_some(), "a write of this page is outstanding");
    }

    /// True when memory and disk agree and no write is outstanding.
    pub fn is_saved(&self) -> bool {
        self.pages.iter().all(|page| page.writing.is_none() && page.version == page.durable)
    }

    // --- Arithmetic ---

    fn clamp(&self, range: ByteRange) -> ByteRange {
        let start = range.start.min(self.data_size);
        ByteRange::new(start, range.end().min(self.data_size) - start)
    }

    fn touched(&self, range: ByteRange) -> UnitRange {
        self.clamp(range).touched(self.granule_shift)
    }

    fn pages_of(&self, units: UnitRange) -> core::ops::Range<usize> {
        if units.count == 0 {
            return 0..0;
        }
        (units.first / PAGE_BITS) as usize..units.end().div_ceil(PAGE_BITS) as usize
    }

    fn spans(&self, units: UnitRange) -> Spans {
        Spans::new(units)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bit {
    Set,
    Clear,
}

fn split(granule: u64) -> (usize, u32) {
    ((granule / 64) as usize, (granule % 64) as u32)
}

/// A word with the lowest `bits` (0 to 63) bits set.
fn low_bits(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// The words of a run of bits, each with the mask of the bits in the run.
struct Spans {
    at: u64,
    end: u64,
}

impl Spans {
    fn new(units: UnitRange) -> Self {
        Self { at: units.first, end: units.end() }
    }
}

impl Iterator for Spans {
    type Item = (usize, u64);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let (word, bit) = split(self.at);
        let past = self.end.min((word as u64 + 1) * 64);
        let count = (past - self.at) as u32;
        let run = if count == 64 { u64::MAX } else { low_bits(count) };
        self.at = past;
        Some((word, run << bit))
    }
}
