//! Legs that are set back: which older copy of a leg the array has to tell from the leg, judged from outside.
//!
//! A leg is numbered anew by each session of a holder with it, and the holder's own superblock remembers the number before
//! anything is sent. So a copy has to be told from the leg once a session began after it was taken. One that is younger than
//! the last session cannot be, unless the holder has numbered the leg since: no fault that the simulator strikes with.

use engine::Instant;
use mirror::format::LegMask;
use mirror::probe::LegFound;
use mirror::status::{PeerSight, RoleKind, Status};

use super::checks;
use super::world::World;

/// A copy of a whole disk.
#[derive(Clone, Debug)]
pub(crate) struct Backup {
    pub(crate) image: Vec<u8>,
    taken: Instant,
}

/// What a holder knows of its peer's leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Acquaintance {
    /// It does not rely on it.
    #[default]
    None,
    /// It writes to it.
    Relies,
}

/// Of one leg.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sessions {
    now: Acquaintance,
    /// When the last one began.
    last: Option<Instant>,
}

/// Whether a leg was set back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SetBack {
    /// It is what the array wrote.
    #[default]
    No,
    /// It was, and the holder has not lost sight of it since: what it says of the leg, it says of what the leg was.
    Unnoticed,
    /// It was, and the holder has lost sight of it since.
    Lost,
}

impl World {
    pub(crate) fn back_up(&mut self) {
        let bytes = usize::try_from(super::world::LEG.bytes()).expect("in memory");
        let taken = self.now;
        self.backups =
            [0, 1].map(|node| Some(Backup { image: self.machines[node].disk.peek(0, bytes), taken }));
    }

    /// The newest holder says how it stands to its peer's leg.
    pub(crate) fn watch_sessions(&mut self, node: usize, status: &Status) {
        let peer = 1 - node;
        let serves = matches!(status.role, RoleKind::Holder | RoleKind::Frozen);
        let Some(config) = status.config.filter(|config| serves && config.holder.index() == node) else {
            return;
        };
        let sight = status.peer.as_ref().map(|peer| peer.sight);
        let relies = matches!(sight, Some(PeerSight::Joined | PeerSight::Resync));
        if !relies && self.damage[peer].set_back == SetBack::Unnoticed {
            self.damage[peer].set_back = SetBack::Lost;
        }
        // A holder whose own leg is out has nothing to remember with.
        let remembers = relies && config.in_sync.contains(LegMask::only(config.holder));
        let sessions = &mut self.sessions[peer];
        match (sessions.now, remembers) {
            (Acquaintance::None, true) => {
                *sessions = Sessions { now: Acquaintance::Relies, last: Some(self.now) };
            }
            (Acquaintance::Relies, false) => sessions.now = Acquaintance::None,
            _ => {}
        }
    }

    /// The array has to tell the backup from the leg.
    pub(crate) fn is_told_apart(&self, node: usize) -> bool {
        let Some(backup) = &self.backups[node] else { return false };
        let LegFound::Leg(old) = checks::found_in(&backup.image) else { return false };
        // Another leg has been there since.
        let ours = checks::superblock(&self.machines[1 - node].disk);
        let other = ours.is_some_and(|ours| ours.peer().uuid != old.superblock.leg);
        other || self.sessions[node].last.is_some_and(|last| last > backup.taken)
    }
}
