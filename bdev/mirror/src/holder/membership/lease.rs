//! The read lease: a read of the data area through the peer's guard, which only a fenced session may do.

use bdev::IoError;
use engine::Instant;

use super::super::read::heartbeat_range;
use super::super::{Ctx, Holder};
use super::Membership;
use crate::decide::lease_until;
use crate::desk::{Purpose, Side};

impl Holder {
    pub(super) fn heartbeat(&mut self, ctx: &mut Ctx<'_>) {
        let beats =
            matches!(self.membership, Membership::Copying | Membership::Rejoining | Membership::Joined);
        if !beats || ctx.now() < self.next_heartbeat {
            return;
        }
        let range = heartbeat_range();
        let place = self.on_leg(Side::Peer, range);
        let Some(frame) = ctx.desk.metadata_frame() else { return };
        let sent = ctx.now();
        self.next_heartbeat = sent + ctx.setup.timing.heartbeat;
        ctx.desk.read(Side::Peer, place, frame, Purpose::Heartbeat { attempt: self.attempt, sent });
    }

    pub(super) fn on_heartbeat(&mut self, sent: Instant, result: Result<(), IoError>, ctx: &mut Ctx<'_>) {
        match result {
            // If the block is bad the peer is alive: a read of the host will find it.
            Ok(()) | Err(IoError::Medium { .. }) => {
                self.lease_until = self.lease_until.max(lease_until(sent, ctx.setup.timing.lease));
            }
            Err(error) => self.lose_peer(error, ctx),
        }
    }
}
