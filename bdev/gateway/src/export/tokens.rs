//! ROD tokens that a target has given out: which blocks each stands for, and whether they are still what they were.
//!
//! Owner: the target node. A token ends when it is not used for its time, when one of its blocks is written, and when another
//! node may have written, because it served meanwhile.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use core::time::Duration;
use engine::Instant;
use scsi::Sense;
use scsi::copy::token::{Populate, Range, SECRET_LEN, Token};

use super::logical_unit::LogicalUnit;
use super::node::{Lun, Place};
use super::state::Span;

/// Tokens that are remembered; the oldest go.
const TOKENS_MAX: usize = 256;

/// Blocks of a unit that nobody has written since.
#[derive(Debug)]
pub(super) struct Watched {
    spans: Vec<Span>,
    state: Cell<Blocks>,
}

/// What became of the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blocks {
    Unchanged,
    Changed,
}

impl Watched {
    fn new(ranges: &[Range]) -> Self {
        let span = |range: &Range| Span { lba: range.lba, blocks: u64::from(range.blocks) };
        let spans = ranges.iter().filter(|range| range.blocks > 0).map(span).collect();
        Self { spans, state: Cell::new(Blocks::Unchanged) }
    }

    /// Somebody is about to change these blocks.
    pub(super) fn on_change(&self, changed: Span) {
        if self.spans.iter().any(|span| span.overlaps(changed)) {
            self.state.set(Blocks::Changed);
        }
    }

    /// Whether the blocks are still what they were.
    ///
    /// # Errors
    /// The token is revoked.
    pub(super) fn check(&self) -> Result<(), Sense> {
        match self.state.get() {
            Blocks::Unchanged => Ok(()),
            Blocks::Changed => Err(Sense::TOKEN_REVOKED),
        }
    }
}

/// What a token stands for.
#[derive(Clone)]
pub(super) struct Meaning {
    pub(super) place: Place,
    pub(super) ranges: Vec<Range>,
    pub(super) watched: Rc<Watched>,
}

struct Entry {
    token: Token,
    meaning: Meaning,
    epoch: Option<u64>,
    timeout: Duration,
    used: Instant,
}

/// See the module.
#[derive(Default)]
pub(super) struct Tokens {
    given: VecDeque<Entry>,
    last: u64,
}

impl Tokens {
    /// A token for blocks that nobody is writing.
    pub(super) fn create(
        &mut self,
        place: &Place,
        populate: &Populate,
        secret: &[u8; SECRET_LEN],
        now: Instant,
    ) -> Token {
        let described = place.lun.described();
        let blocks: u64 = populate.ranges.iter().map(|range| u64::from(range.blocks)).sum();
        self.last += 1;
        let token = Token::new(self.last, secret, blocks * u64::from(described.block_size), &described);
        let watched = Rc::new(Watched::new(&populate.ranges));
        place.lun.unit.watch(&watched);
        if self.given.len() == TOKENS_MAX {
            self.given.pop_front();
        }
        self.given.push_back(Entry {
            token: token.clone(),
            meaning: Meaning { place: place.clone(), ranges: populate.ranges.clone(), watched },
            epoch: place.lun.unit.epoch(),
            timeout: Duration::from_secs(populate.timeout.into()),
            used: now,
        });
        token
    }

    /// What a token stands for; from now on its time begins anew.
    ///
    /// # Errors
    /// It is not known, has expired, or was revoked.
    pub(super) fn find(&mut self, token: &Token, now: Instant) -> Result<Meaning, Sense> {
        let at = self.given.iter().position(|entry| entry.token.is(token)).ok_or(Sense::TOKEN_UNKNOWN)?;
        let entry = &mut self.given[at];
        if now > entry.used + entry.timeout {
            self.given.remove(at);
            return Err(Sense::TOKEN_EXPIRED);
        }
        let unit: &LogicalUnit = &entry.meaning.place.lun.unit;
        if entry.epoch != unit.epoch() {
            return Err(Sense::TOKEN_REVOKED);
        }
        entry.meaning.watched.check()?;
        entry.used = now;
        Ok(entry.meaning.clone())
    }

    /// A LUN is gone, and what stood for its blocks.
    pub(super) fn forget(&mut self, lun: &Rc<Lun>) {
        self.given.retain(|entry| !Rc::ptr_eq(&entry.meaning.place.lun, lun));
    }

    /// The token is not needed any more.
    pub(super) fn delete(&mut self, token: &Token) {
        self.given.retain(|entry| !entry.token.is(token));
    }
}
