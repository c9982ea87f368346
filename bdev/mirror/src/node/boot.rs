//! Start: what is on the own leg? A blank one is formatted, as the first of a new array or as a newcomer in
//! the peer's; anything foreign or torn is refused, and nothing is written.
//!
//! ```text
//! Flushing --(answered)--> Identifying --(a leg of ours)--> Loading (or stand by)
//!                               '--(blank)--> AwaitingArray --> Formatting --> the same
//! ```
//!
//! The flush comes before everything: a process that died may have left its last writes in the disk's cache. What is read and gone on
//! from is stable then, so that a power cut tears the writes of one process at the most: a log stands one torn transaction, and not
//! that of a dead process beside that of the next one. The flush takes as long as it takes, as the reads behind it do; of a disk that
//! hangs the operator is told (`own_disk.rs`). He is told of a flush that fails, too, and the leg is read all the same: it has what it had,
//! and a log that is torn twice after all costs a copy of everything.

use bdev::{Completed, IoError};
use uuid::{Builder, Uuid};

use super::{Node, OwnWrite, Role};
use crate::arbiter::Answer;
use crate::bitmap::Bitmap;
use crate::decide::{DataAge, DegradedStart, StandbyReason, misses_acknowledged};
use crate::desk::{Purpose, Side};
use crate::events::EventKind;
use crate::format::copies::Numbering;
use crate::format::{ArbiterKind, CreateLeg, Layout, LayoutRequest, Lease, LegFlags, Superblock};
use crate::formatter::Formatter;
use crate::guard::Guard;
use crate::intent_log::Replay;
use crate::leg_state::{LegEvent, after};
use crate::probe::{FoundLeg, LegFound, ProbeError};
use crate::reader::{Reader, Reading, differences, found};
use crate::setup::{ArbiterLink, Content, OnBlank};
use crate::store::Store;

/// How far the start is.
pub(super) enum Boot {
    /// What an earlier process wrote becomes stable.
    Flushing,
    /// What is on the own leg?
    Identifying(Box<Reader>),
    /// A blank leg waits to see the peer's, whose array it joins.
    AwaitingArray(Option<Box<Reader>>),
    /// A blank leg becomes one of ours.
    Formatting(Box<Formatter>),
    /// The own log and bitmap.
    Loading(Box<Reader>),
}

impl Boot {
    pub(super) fn words(&self) -> &'static str {
        match self {
            Self::Flushing => "flushing this node's leg",
            Self::Identifying(_) => "reading this node's leg",
            Self::AwaitingArray(_) => "this node's leg is blank: waiting for the peer, whose array it joins",
            Self::Formatting(_) => "formatting this node's leg",
            Self::Loading(_) => "reading this node's log and bitmap",
        }
    }
}

impl Node {
    pub(super) fn begin_boot(&mut self) {
        self.role = Role::Booting(Boot::Flushing);
        self.desk.flush(Side::Own, Purpose::FirstFlush);
    }

    pub(super) fn on_first_flush(&mut self, result: Result<(), IoError>) {
        if let Err(error) = result {
            self.note(EventKind::OwnLegFailed(error));
        }
        // It may have been told to stop meanwhile.
        if matches!(self.role, Role::Booting(Boot::Flushing)) {
            self.identify();
        }
    }

    fn identify(&mut self) {
        let job = self.next_job();
        let reader = Reader::of_identity(Side::Own, job, self.own_geometry.bytes());
        self.role = Role::Booting(Boot::Identifying(Box::new(reader)));
        self.drive_boot();
    }

    pub(super) fn drive_boot(&mut self) {
        let link_up = self.link.is_up();
        let Role::Booting(boot) = &mut self.role else { return };
        match boot {
            Boot::Identifying(reader) | Boot::Loading(reader) | Boot::AwaitingArray(Some(reader)) => {
                reader.poke(&mut self.desk);
            }
            Boot::Formatting(formatter) => formatter.poke(&mut self.desk),
            Boot::AwaitingArray(None) if link_up => {
                let reader = self.peer_reader();
                if let Role::Booting(Boot::AwaitingArray(waiting)) = &mut self.role {
                    *waiting = reader;
                }
            }
            Boot::AwaitingArray(None) | Boot::Flushing => {}
        }
    }

    /// A look at the peer's leg: anybody may read its metadata.
    pub(super) fn peer_reader(&mut self) -> Option<Box<Reader>> {
        let bdev::Link::Up { geometry, .. } = self.link else { return None };
        self.desk.set_peer_block_size(geometry.block_size);
        let job = self.next_job();
        let mut reader = Reader::of_identity(Side::Peer, job, geometry.bytes());
        reader.poke(&mut self.desk);
        Some(Box::new(reader))
    }

    /// Part of a metadata read, outside the holder.
    pub(super) fn on_read(&mut self, side: Side, job: u32, completed: &Completed) {
        let reader = match &mut self.role {
            Role::Booting(
                Boot::Identifying(reader) | Boot::Loading(reader) | Boot::AwaitingArray(Some(reader)),
            ) => reader,
            Role::Holding(_) => return self.on_hold_read(side, job, completed),
            Role::Promoting(_) => return self.on_promotion_read(job, completed),
            Role::Standby(_) if side == Side::Peer => return self.on_standby_read(job, completed),
            _ => return,
        };
        match reader.on_done(job, completed, &mut self.desk) {
            Reading::Continues => {}
            Reading::Lost(error) => self.on_boot_lost(side, error),
            Reading::Done(images) => {
                let unread = reader.unread();
                self.on_boot_read(side, &images, unread);
            }
        }
    }

    fn on_boot_lost(&mut self, side: Side, error: IoError) {
        match side {
            Side::Own => self.fail(format!("it cannot be read: {error}")),
            Side::Peer => self.role = Role::Booting(Boot::AwaitingArray(None)),
        }
    }

    fn on_boot_read(&mut self, side: Side, images: &[Vec<u8>], unread: Option<IoError>) {
        if side == Side::Peer {
            return self.on_array_seen(images);
        }
        if matches!(self.role, Role::Booting(Boot::Loading(_))) {
            let (log, bitmap) = differences(images, self.own());
            self.take_unit_state(images);
            return self.hold_with(log, bitmap);
        }
        match found(self.own_geometry.bytes(), images, self.setup.array) {
            LegFound::Refused(refused) => self.fail(why_refused(&refused, unread)),
            LegFound::Leg(leg) => self.on_leg(*leg),
            LegFound::Blank => self.on_blank(),
        }
    }

    fn on_leg(&mut self, leg: FoundLeg) {
        let FoundLeg { superblock, .. } = leg;
        if superblock.index != self.setup.who {
            let (is, told) = (superblock.index.number(), self.setup.who.number());
            return self
                .fail(format!("it is leg {is} of the array, and this node is configured as node {told}"));
        }
        self.adopt(superblock);
    }

    /// The own leg is known.
    fn adopt(&mut self, superblock: Superblock) {
        if let Err(error) = superblock.layout.check_blocks(self.own_geometry.block_size) {
            return self.fail(error.to_string());
        }
        let linked = match superblock.arbiter {
            ArbiterKind::Etcd => ArbiterLink::Etcd,
            ArbiterKind::Biased | ArbiterKind::Manual | ArbiterKind::ClusterManager => ArbiterLink::None,
        };
        if linked != self.setup.arbiter {
            return self.fail(match linked {
                ArbiterLink::Etcd => "the array's generations are ordered by etcd: name its endpoints",
                ArbiterLink::None => "etcd was named, and the array's policy is another one",
            });
        }
        self.setup.timing = self.setup.timing.with_lease(superblock.lease.time());
        let silence = self.setup.timing.silence;
        self.guard = Some(Guard::new(self.own_geometry.block_size, &superblock, silence));
        let joining = superblock.config().generation() == 0;
        let holds = superblock.config().holder == superblock.index;
        self.store = Some(Store::own(superblock));
        if joining {
            self.stand_by(StandbyReason::Joining);
        } else if holds && self.own().arbiter == ArbiterKind::ClusterManager {
            self.stand_by(StandbyReason::AwaitingPromotion);
        } else if holds {
            self.begin_hold();
        } else {
            self.stand_by(StandbyReason::PeerHolds);
        }
    }

    fn stand_by(&mut self, reason: StandbyReason) {
        self.note(EventKind::StandingBy(reason));
        self.role = Role::Standby(reason);
        let who = self.setup.who.index();
        let incarnation = self.setup.incarnation;
        let Some(store) = &mut self.store else { return };
        if store.current().legs[who].incarnation != incarnation {
            let mut next = store.current().clone();
            let record = &mut next.legs[who];
            if misses_acknowledged(store.current(), incarnation) {
                // Until the holder has brought it in sync again.
                record.state = after(record.state, LegEvent::Excluded);
            }
            record.incarnation = incarnation;
            self.own_write = Some(OwnWrite::Incarnation);
            store.begin(Numbering::Write, next, &mut self.desk);
        }
    }

    pub(super) fn begin_hold(&mut self) {
        // It is looked at anew.
        self.watch.doubt = DataAge::Current;
        let layout = self.own().layout;
        let job = self.next_job();
        let reader = Reader::of_everything(Side::Own, job, self.own_geometry.bytes(), &layout);
        self.role = Role::Booting(Boot::Loading(Box::new(reader)));
        self.drive_boot();
    }

    // --- A blank leg ---

    fn on_blank(&mut self) {
        let OnBlank::Create { arbiter, data_size, max_crash_resync } = self.setup.on_blank else {
            self.role = Role::Booting(Boot::AwaitingArray(None));
            return;
        };
        let request = LayoutRequest {
            leg_size: self.own_geometry.bytes(),
            block_size: self.own_geometry.block_size,
            data_size,
            max_crash_resync,
        };
        match Layout::plan(request) {
            Err(error) => self.fail(error.to_string()),
            Ok(layout) => {
                let nonce = self.prng.next_u64();
                let founder = self.new_leg(layout, arbiter).founder(nonce);
                self.note(EventKind::FormattingNew);
                self.format(founder);
            }
        }
    }

    fn on_array_seen(&mut self, images: &[Vec<u8>]) {
        let bdev::Link::Up { geometry, .. } = self.link else {
            self.role = Role::Booting(Boot::AwaitingArray(None));
            return;
        };
        match found(geometry.bytes(), images, self.setup.array) {
            LegFound::Leg(leg) if leg.superblock.index == self.setup.who => {
                self.fail(format!(
                    "the peer's leg is leg {} too: one of the nodes is configured wrongly",
                    leg.superblock.index.number()
                ));
            }
            LegFound::Leg(leg) => self.join(&leg.superblock),
            LegFound::Refused(error) => {
                self.fail(format!("the peer's leg, whose array it was to join: {error}"));
            }
            // Both are blank: somebody has to create the array.
            LegFound::Blank => self.role = Role::Booting(Boot::AwaitingArray(None)),
        }
    }

    fn join(&mut self, array: &Superblock) {
        let fits = array.layout.check_blocks(self.own_geometry.block_size);
        match fits.and_then(|()| array.layout.joining(self.own_geometry.bytes())) {
            Err(error) => self.fail(error.to_string()),
            Ok(layout) => {
                let base = self.new_leg(layout, array.arbiter);
                let create = CreateLeg { name: array.name, lease: array.lease, ..base };
                self.note(EventKind::FormattingToJoin);
                self.format(create.joiner());
            }
        }
    }

    fn new_leg(&mut self, layout: Layout, arbiter: ArbiterKind) -> CreateLeg {
        let zeroed = match self.setup.content {
            Content::Zeroed => LegFlags::ZEROED,
            Content::Unknown => LegFlags::empty(),
        };
        CreateLeg {
            array: self.setup.array,
            name: self.setup.name,
            leg: self.new_uuid(),
            index: self.setup.who,
            node: self.setup.node,
            layout,
            flags: self.setup.flags | zeroed,
            incarnation: self.setup.incarnation,
            arbiter,
            lease: Lease::of(self.setup.timing.lease).unwrap_or_default(),
        }
    }

    fn new_uuid(&mut self) -> Uuid {
        let (high, low) = (self.prng.next_u64(), self.prng.next_u64());
        Builder::from_random_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes()).into_uuid()
    }

    fn format(&mut self, superblock: Superblock) {
        let mut formatter = Formatter::new(superblock);
        formatter.poke(&mut self.desk);
        self.role = Role::Booting(Boot::Formatting(Box::new(formatter)));
    }

    pub(super) fn on_formatted(&mut self, result: Result<(), IoError>) {
        let Role::Booting(Boot::Formatting(formatter)) = &mut self.role else { return };
        match formatter.on_done(result, &mut self.desk) {
            Err(error) => self.fail(format!("it cannot be formatted: {error}")),
            Ok(None) => {}
            Ok(Some(superblock)) => self.adopt(superblock),
        }
    }

    fn hold_with(&mut self, log: Replay, bitmap: Bitmap) {
        let mut hold = super::Hold::new(log, bitmap, self.desk.now);
        if self.is_arbitrated() && self.is_taking_up() {
            // The old holder asked the arbiter before it told us (R8), and nobody has been able to ask since.
            hold.arbiter = Some(Answer::Holds(Some(Box::new(self.own().history))));
        }
        // What was allowed once was allowed for then.
        self.degraded = DegradedStart::Withheld;
        self.role = Role::Holding(Box::new(hold));
        self.drive_hold();
    }
}

/// What looks damaged may be whole, on a disk that does not give it.
fn why_refused(refused: &ProbeError, unread: Option<IoError>) -> String {
    match (refused, unread) {
        (ProbeError::Torn { .. } | ProbeError::Foreign(_), Some(error)) => {
            format!("its start or end cannot be read ({error}): look at the disk, and start this node again")
        }
        _ => refused.to_string(),
    }
}
