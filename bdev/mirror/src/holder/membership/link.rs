//! The way to the peer's leg: up, down, probed again; and what its loss means.

use bdev::{IoError, Link, LinkDown};

use super::super::{Ctx, Doubt, Holder, Opening, Phase};
use super::Membership;
use crate::desk::Side;
use crate::events::{BarCause, EventKind};
use crate::format::Reason;
use crate::reader::Reader;

fn reason_of(error: IoError) -> Reason {
    match error {
        IoError::LinkDown | IoError::NotReady(_) | IoError::Aborted | IoError::Busy => Reason::LinkLost,
        IoError::TimedOut => Reason::TimedOut,
        _ => Reason::IoError,
    }
}

impl Holder {
    /// Starts to look for the peer, which the config may count already.
    pub(in crate::holder) fn expect_peer(&mut self, ctx: &mut Ctx<'_>) {
        if self.in_sync().has(Side::Peer) {
            self.lost_since = Some(ctx.now());
        }
        self.watch_link(ctx);
    }

    pub(in crate::holder) fn watch_link(&mut self, ctx: &mut Ctx<'_>) {
        if matches!(self.phase, Phase::Leaving(_) | Phase::Ended(_) | Phase::Opening(Opening::Config)) {
            return;
        }
        match ctx.link {
            Link::Down(why) => self.on_link_down(&why.clone(), ctx),
            Link::Up { session, geometry, .. } => {
                if self.session != Some(*session) {
                    self.on_link_down(&LinkDown::Lost("a new session".to_owned()), ctx);
                    self.session = Some(*session);
                    ctx.desk.set_peer_block_size(geometry.block_size);
                    self.peer_size = geometry.bytes();
                }
                self.probe_if_due(ctx);
            }
        }
    }

    pub(super) fn on_link_down(&mut self, why: &LinkDown, ctx: &mut Ctx<'_>) {
        self.session = None;
        if !matches!(self.membership, Membership::Away) {
            let words = match why {
                LinkDown::Connecting => "not connected yet".to_owned(),
                LinkDown::Silent => "no sign of life".to_owned(),
                LinkDown::Lost(words) | LinkDown::Refused(words) => words.clone(),
            };
            ctx.note(EventKind::PeerUnreachable(words));
            self.go_away(Reason::LinkLost, ctx);
        }
    }

    pub(super) fn probe_if_due(&mut self, ctx: &mut Ctx<'_>) {
        let due = match &self.membership {
            Membership::Away => ctx.now() >= self.next_probe,
            Membership::Barred { retry_at, .. } => ctx.now() >= *retry_at,
            _ => false,
        };
        if !due || !self.wants_peer() {
            return;
        }
        self.next_probe = ctx.now() + core::time::Duration::from_millis(100);
        self.attempt = ctx.desk.new_attempt();
        let mut reader = Reader::of_identity(Side::Peer, self.attempt, self.peer_size);
        reader.poke(ctx.desk);
        self.enter(Membership::Probing(Box::new(reader)));
    }

    /// A stop has no use for a peer that is not in the config any more.
    pub(super) fn wants_peer(&self) -> bool {
        self.in_sync().has(Side::Peer) || !matches!(self.phase, Phase::Closing(_))
    }

    /// An I/O on the peer's leg failed in a way that ends the session with it.
    pub(in crate::holder) fn lose_peer(&mut self, error: IoError, ctx: &mut Ctx<'_>) {
        match error {
            IoError::Fenced => self.look_who_is_there(ctx),
            IoError::LinkDown
            | IoError::TimedOut
            | IoError::NotReady(_)
            | IoError::Aborted
            | IoError::Busy => {
                ctx.note(EventKind::PeerFailed(error));
                self.go_away(reason_of(error), ctx);
            }
            _ => {
                ctx.note(EventKind::PeerFailed(error));
                self.go_away(Reason::IoError, ctx);
                self.enter(Membership::Barred {
                    why: BarCause::Failed(error),
                    reason: Reason::IoError,
                    retry_at: ctx.now() + ctx.setup.timing.retry,
                });
            }
        }
    }

    /// The peer's guard does not know us: a new session, or a newer generation. Its superblock says which.
    pub(super) fn look_who_is_there(&mut self, ctx: &mut Ctx<'_>) {
        if self.in_sync().has(Side::Peer) {
            self.doubt = Doubt::Fenced;
        }
        if self.is_peer_ours() {
            ctx.note(EventKind::PeerFailed(IoError::Fenced));
        }
        self.go_away(Reason::LinkLost, ctx);
    }

    pub(in crate::holder) fn go_away(&mut self, reason: Reason, ctx: &mut Ctx<'_>) {
        // It may have lost its cache when it is back, and what it has was copied, or is to be.
        if self.copy_target().is_some() {
            self.mark_exposed();
        }
        if self.in_sync().has(Side::Peer) && self.lost_since.is_none() {
            self.lost_since = Some(ctx.now());
            self.lost_reason = reason;
        }
        self.attempt = ctx.desk.new_attempt();
        self.unit.forget_returning();
        self.resync.cut_off();
        self.enter(Membership::Away);
        self.abandon_peer_step(ctx);
    }

    /// A config without the peer is durable: whatever it was about to be, it begins anew.
    pub(in crate::holder) fn drop_member(&mut self, ctx: &mut Ctx<'_>) {
        self.lost_since = None;
        if !matches!(self.membership, Membership::Barred { .. }) {
            self.go_away(Reason::LinkLost, ctx);
        }
    }

    /// A leg failed an I/O.
    pub(crate) fn leg_failed(&mut self, side: Side, error: IoError, ctx: &mut Ctx<'_>) {
        match side {
            Side::Peer if matches!(self.membership, Membership::Away | Membership::Barred { .. }) => {}
            Side::Peer => self.lose_peer(error, ctx),
            Side::Own => {
                self.own_leg_failed(reason_of(error), error, ctx);
            }
        }
    }

    pub(in crate::holder) fn bar_peer(&mut self, why: BarCause, ctx: &mut Ctx<'_>) {
        self.go_away(Reason::IoError, ctx);
        let retry_at = ctx.now() + ctx.setup.timing.retry;
        self.enter(Membership::Barred { why, reason: Reason::LinkLost, retry_at });
    }
}
