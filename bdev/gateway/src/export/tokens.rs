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
use scsi::reservation::Nexus;

use super::crowd::oldest_of_most;
use super::logical_unit::LogicalUnit;
use super::node::{Lun, Place};
use super::state::Span;
use crate::access::LunMask;

/// Tokens that are remembered; the oldest go of the initiator that has the most.
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

    /// Nobody may read the blocks by the token any more, whoever is at it.
    fn revoke(&self) {
        self.state.set(Blocks::Changed);
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
    /// Name of the initiator that made it.
    maker: Option<String>,
}

impl Meaning {
    /// Whether an initiator may read by the token what its mask shows, or does not. A token that was handed over is the right to read;
    /// one's own is worth no more than what one sees.
    pub(super) fn may_be_read(&self, by: Option<&Nexus>, mask: &LunMask) -> bool {
        let own = by.is_some_and(|nexus| self.maker.as_deref() == Some(nexus.initiator.name()));
        !own || mask.shows(self.place.number)
    }
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
        (place, maker): (&Place, Option<&Nexus>),
        populate: &Populate,
        secret: &[u8; SECRET_LEN],
        now: Instant,
    ) -> Token {
        let described = place.lun.described();
        let blocks: u64 = populate.ranges.iter().map(|range| u64::from(range.blocks)).sum();
        self.last += 1;
        let bytes = blocks * u64::from(described.block_size);
        let maker = maker.map(|nexus| nexus.initiator.name());
        let token = Token::new(self.last, secret, bytes, &described, maker.unwrap_or_default());
        let watched = Rc::new(Watched::new(&populate.ranges));
        place.lun.unit.watch(&watched);
        if self.given.len() == TOKENS_MAX {
            let makers = self.given.iter().map(|entry| entry.meaning.maker.as_deref());
            let spare = oldest_of_most(makers.enumerate());
            spare.and_then(|spare| self.given.remove(spare));
        }
        self.given.push_back(Entry {
            token: token.clone(),
            meaning: Meaning {
                place: place.clone(),
                ranges: populate.ranges.clone(),
                watched,
                maker: maker.map(str::to_owned),
            },
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
        let is_of = |entry: &Entry| Rc::ptr_eq(&entry.meaning.place.lun, lun);
        self.given.iter().filter(|entry| is_of(entry)).for_each(|entry| entry.meaning.watched.revoke());
        self.given.retain(|entry| !is_of(entry));
    }

    /// The token is not needed any more.
    pub(super) fn delete(&mut self, token: &Token) {
        self.given.retain(|entry| !entry.token.is(token));
    }
}
