//! An arbiter that is restored from a backup: it names a holder of long ago, and whoever has not heard of a newer config believes
//! it. A node whose own leg its peer has fenced since, as the holder of a newer config, does not.
//!
//! What a node that was cut off cannot know is not searched: behind a restore nobody begins to hold.

use mirror::format::{Config, Superblock};

use super::Model;
use super::book::Past;
use super::state::State;

impl Model {
    /// A backup of what the arbiter has is made, once, and put in its place, once.
    pub(super) fn restore_steps(&mut self, state: &State) {
        if state.spent.restores >= self.scope.restores {
            return;
        }
        match state.backup {
            None => self.push("is backed up", 0, State { backup: Some(state.arbiter), ..*state }),
            Some(backup) if backup != state.arbiter => {
                let mut next = State { arbiter: backup, lost: Some(state.arbiter), ..*state };
                next.spent.restores += 1;
                self.push("is restored", 0, next);
            }
            Some(_) => {}
        }
    }

    /// A node is about to hold by the arbiter's word, and the arbiter has lost this.
    pub(super) fn holds_by_backup(&mut self, what: &'static str, state: &State, node: usize, lost: Past) {
        let own = self.book.get(state.legs[node].sb);
        let lost: Vec<Config> = self.book.past(lost).entries().to_vec();
        let backup = self.book.past(state.arbiter).current().generation();
        // Whoever was told by a holder does not go by the arbiter's word.
        let heard = backup.max(own.config().generation());
        if lost.iter().any(|config| config.generation() > heard && has_fenced(config, own)) {
            self.report(
                what,
                node,
                *state,
                "the arbiter is believed, and is older than the fence of a holder",
            );
        }
    }
}

/// True when the fence on a leg is one of the peer's, as the holder in this config or in one that follows it.
fn has_fenced(config: &Config, leg: &Superblock) -> bool {
    let peer = leg.index.other();
    config.holder == peer && leg.fence.node == peer.number() && leg.fence.generation >= config.generation()
}
