//! Access that changes while sessions run: who may not stay, and who sees other LUNs than before.
//!
//! Owner: the target, which looks in the turn after a change, so that a call that changes much is looked at once.

use super::Target;
use super::session::Origin;
use crate::access::LunMask;

/// Whether the rules have changed since the sessions were looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AccessNews {
    #[default]
    None,
    Changed,
}

impl Target {
    /// Has every session see what it may see now, and ends those that may not stay.
    pub(super) fn revise_access(&mut self) {
        if core::mem::take(&mut self.access) == AccessNews::None {
            return;
        }
        let masks: Vec<(u64, Option<LunMask>)> = self
            .sessions
            .iter()
            .filter_map(|(id, entry)| {
                let session = &entry.session;
                let (node, who) = (session.node.as_ref()?, session.who.as_ref()?);
                // Whom the peer relays it has let in, and it looks itself.
                (session.origin == Origin::Host).then(|| (*id, self.access(node, session, who)))
            })
            .collect();
        for (id, mask) in masks {
            let Some(entry) = self.sessions.get_mut(&id) else { continue };
            match mask {
                Some(mask) => entry.session.show(mask),
                None => entry.session.dismiss(0, "the initiator may not use the target any more"),
            }
        }
    }
}
