//! The journal of a run: one line for each transition. The same plan gives the same bytes.

use core::fmt;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;

use engine::Instant;

#[derive(Debug, Default)]
struct Inner {
    text: String,
    lines: usize,
    /// FNV-1a over everything ever written: tells two journals apart when neither was kept.
    digest: u64,
}

/// Shared by everybody who has something to tell; outlives a run that panics.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    inner: Rc<RefCell<Inner>>,
    keep: Keep,
}

/// Whether the text is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The digest alone: many seeds.
    Digest,
    /// All of it.
    Text,
}

impl Journal {
    pub(crate) fn new(keep: Keep) -> Self {
        let inner = Inner { digest: 0xcbf2_9ce4_8422_2325, ..Inner::default() };
        Self { inner: Rc::new(RefCell::new(inner)), keep }
    }

    /// One line.
    pub(crate) fn line(&self, at: Instant, who: &str, what: fmt::Arguments<'_>) {
        let micros = at.as_nanos() / 1000;
        let line = format!("{:>7}.{:06} {who:<7} {what}\n", micros / 1_000_000, micros % 1_000_000);
        let mut inner = self.inner.borrow_mut();
        inner.lines += 1;
        inner.digest = line
            .bytes()
            .fold(inner.digest, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        if self.keep == Keep::Text {
            inner.text.push_str(&line);
        }
    }

    pub(crate) fn digest(&self) -> u64 {
        self.inner.borrow().digest
    }

    /// What was kept.
    pub(crate) fn text(&self) -> String {
        let inner = self.inner.borrow();
        let mut text = inner.text.clone();
        if self.keep == Keep::Digest {
            // The reader has to know why there is nothing.
            let _ = writeln!(text, "({} lines, not kept)", inner.lines);
        }
        text
    }
}
