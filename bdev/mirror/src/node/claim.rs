//! The claim: a node that was the holder fences its peer's leg before it serves with it, and looks once more (R10). Until
//! then the peer may be promoted; from then on it cannot be while this node lives.
//!
//! ```text
//! None --(a start that counts on the peer)--> Storing --(own superblock)--> Fencing --(granted)--> Granted --> serve
//!   ^                                             '--------(refused, link lost)-----'
//!   '-------------------------------------------------------'
//! ```
//!
//! With an arbiter the first config needs its word, which only one of the two gets: no claim is made.

use bdev::{FenceKey, IoError, Link};
use engine::Instant;

use super::{Node, OwnWrite, Role};
use crate::decide::{Starting, next_generation};
use crate::desk::Purpose;
use crate::format::Superblock;
use crate::format::copies::Numbering;
use crate::probe::LegFound;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Claim {
    /// Not made, or lost.
    #[default]
    None,
    /// The own superblock learns the generation.
    Storing,
    /// The peer's guard is asked.
    Fencing {
        /// Names the question.
        attempt: u32,
    },
    /// This session with the peer's leg is the only one that writes it.
    Granted {
        /// The link's.
        session: u64,
    },
}

/// True when the node of the leg `theirs` has fenced it against the holder, and nothing newer is known: a promotion under
/// way, or one that came to nothing.
pub(super) fn is_promoting(own: &Superblock, theirs: &Superblock) -> bool {
    let FenceKey { node, generation } = theirs.fence;
    let is_own = node == theirs.index.number() && generation > own.config().generation();
    is_own && theirs.config() == own.config()
}

impl Node {
    /// True when this node may serve; else the claim goes its way.
    pub(super) fn is_claimed(&mut self, starting: Starting, own: &Superblock) -> bool {
        if starting == Starting::Alone || self.is_arbitrated() {
            return true;
        }
        let session = self.link_session();
        let Role::Holding(hold) = &mut self.role else { return false };
        match hold.claim {
            Claim::Granted { session: granted } if Some(granted) == session => true,
            Claim::Storing | Claim::Fencing { .. } => false,
            Claim::None | Claim::Granted { .. } => {
                let Some(LegFound::Leg(theirs)) = &hold.seen else { return false };
                let generation = next_generation(own, Some(&theirs.superblock));
                let key = FenceKey { node: own.index.number(), generation };
                let Some(store) = &mut self.store else { return false };
                let mut next = store.current().clone();
                next.fence = key;
                hold.claim = Claim::Storing;
                self.own_write = Some(OwnWrite::Claim(key));
                store.begin(Numbering::Write, next, &mut self.desk);
                false
            }
        }
    }

    /// True while the start waits for the peer's guard, or for the look after it.
    pub(super) fn is_claiming(&self) -> bool {
        let Role::Holding(hold) = &self.role else { return false };
        match hold.claim {
            Claim::None => false,
            Claim::Storing | Claim::Fencing { .. } => true,
            Claim::Granted { .. } => hold.seen.is_none() && self.link.is_up(),
        }
    }

    fn link_session(&self) -> Option<u64> {
        if let Link::Up { session, .. } = self.link { Some(session) } else { None }
    }

    /// The own superblock has the generation, or could not take it.
    pub(super) fn on_claim_stored(&mut self, key: FenceKey, result: Result<(), IoError>) {
        if let (Some(guard), Ok(())) = (&mut self.guard, result) {
            guard.raise(key, self.desk.now, &mut self.guarded);
        }
        let asks = result.is_ok() && self.link.is_up();
        let Role::Holding(hold) = &mut self.role else { return };
        if !asks {
            hold.claim = Claim::None;
            return hold.look_later(self.desk.now);
        }
        let attempt = self.desk.new_attempt();
        hold.claim = Claim::Fencing { attempt };
        self.desk.fence(key, Purpose::Fence { attempt });
    }

    /// The peer's guard answered.
    pub(super) fn on_claim_answered(&mut self, attempt: u32, result: Result<(), IoError>) {
        let session = self.link_session();
        let now: Instant = self.desk.now;
        let Role::Holding(hold) = &mut self.role else { return };
        if hold.claim != (Claim::Fencing { attempt }) {
            return;
        }
        match (result, session) {
            (Ok(()), Some(session)) => {
                hold.claim = Claim::Granted { session };
                hold.look_now();
            }
            // Somebody else has it, or nobody can be asked: look again.
            _ => {
                hold.claim = Claim::None;
                hold.look_later(now);
            }
        }
    }
}
