//! The transitions of a node, for the operator: the last of them are kept, each with its cause.

use std::collections::VecDeque;

use engine::Instant;

/// Transitions kept.
const KEPT: usize = 64;

/// One transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When, on the node's own clock.
    pub at: Instant,
    /// What, in words.
    pub what: String,
}

/// The last transitions, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Events {
    kept: VecDeque<Transition>,
}

impl Events {
    /// Notes one; the same words twice in a row are one.
    pub(crate) fn note(&mut self, at: Instant, what: impl Into<String>) {
        let what = what.into();
        if self.kept.back().is_some_and(|last| last.what == what) {
            return;
        }
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Transition { at, what });
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Transition> {
        self.kept.iter()
    }
}
