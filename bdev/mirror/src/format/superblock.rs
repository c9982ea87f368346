//! The superblock: identity of array and leg, layout, config history, leg records, fence.
//!
//! One value, one codec, exact inverses of each other. Everything read from a disk is checked before it is
//! believed: a decoded superblock holds only legal states and a layout that stays inside the leg.

use bdev::FenceKey;
use core::time::Duration;
use thiserror::Error;
use uuid::Uuid;

use super::config::{Config, ConfigFlags, ConfigId, GENERATION_MAX, LegIndex, LegMask, Reason};
use super::field::{Field, fields};
use super::header::{self, At, BlockKind, HEADER_LEN, Header, HeaderError};
use super::heard::Heard;
use super::history::{HISTORY_LEN, History};
use super::layout::{LAYOUT_VERSION, Layout, LogGeometry};
use super::leg_record::{LegFlags, LegRecord, LegState};
use super::{BLOCK_SIZE, Block};
use crate::mutation::{Mutation, is_broken};

const CONFIG_LEN: usize = 24;
const LEG_LEN: usize = 56;

fields! {
    /// The superblock's fields, behind the header.
    SUPERBLOCK_FIELDS from HEADER_LEN;
    COMPAT: 4, "compatible features: unknown ones are ignored";
    RO_COMPAT: 4, "read-compatible features: with unknown ones the leg is read-only";
    INCOMPAT: 4, "incompatible features: with unknown ones the leg is refused";
    LAYOUT: 2, "layout version: 1";
    INDEX: 1, "leg index, which is the node's number: 0 or 1";
    RUN_STATE: 1, "1 clean, 2 running, 3 running, acknowledged data in caches";
    LEG: 16, "leg uuid";
    NODE: 16, "node id";
    ARBITER: 16, "arbiter id; nil where it has none";
    ARBITER_KIND: 1, "1 biased, 2 manual, 3 cluster manager, 4 etcd";
    FENCE_NODE: 1, "node that the fence lets in: 0 or 1";
    LEASE: 2, "read lease in milliseconds; 0: 2000";
    PAD: 4, "zero";
    FENCE_GENERATION: 8, "lowest generation that this leg accepts";
    EVENTS: 8, "number of superblock writes since creation; for people, decides nothing";
    NAME: 64, "array name, UTF-8, padded with zeroes";
    LEG_SIZE: 8, "bytes of the leg, in whole blocks";
    DATA_OFFSET: 8, "first byte of the data area";
    DATA_SIZE: 8, "bytes of the data area";
    BLOCK: 4, "logical block size in bytes: 512 or 4096";
    GRANULE_SHIFT: 2, "log2 of the bitmap's granule in bytes: 16";
    EXTENT_SHIFT: 2, "log2 of the intent log's extent in bytes: 16 to 22";
    EXTENTS: 4, "extents of the data area";
    SLOTS: 2, "slots of the intent log";
    HISTORY_COUNT: 1, "configs in the history, 1 to 16";
    HISTORY_COMPLETE: 1, "1 while no config has been dropped from the history, else 0";
    LEGS: 2 * LEG_LEN, "records of leg 0 and leg 1";
    HISTORY: HISTORY_LEN * CONFIG_LEN, "configs, newest first; the first is the current one";
    HEARD: HISTORY_LEN * 8, "for each config, the sequence number that this superblock had before it; 0: not known";
}
const _: () = assert!(HEARD.end() <= BLOCK_SIZE && PAD.len == 4);

fields! {
    /// A config record's fields.
    CONFIG_FIELDS from 0;
    C_GENERATION: 8, "generation; 0 for a leg that has never been in a config";
    C_NONCE: 8, "nonce";
    C_HOLDER: 1, "holder: 0 or 1";
    C_IN_SYNC: 1, "legs in sync: bit 0 leg 0, bit 1 leg 1";
    C_FLAGS: 1, "flags: bit 0 forced";
    C_REASON: 1, "reason, 1 to 12";
    C_PAD: 4, "zero";
}
const _: () = assert!(C_PAD.end() == CONFIG_LEN);

fields! {
    /// A leg record's fields.
    LEG_FIELDS from 0;
    L_UUID: 16, "leg uuid; nil where no leg has taken the place";
    L_STATE: 1, "0 spare, 1 joining, 2 syncing, 3 in sync, 4 missing, 5 faulty, 6 stale, 7 split";
    L_FLAGS: 1, "flags: bit 0 write-mostly, bit 1 volatile cache, bit 2 zeroed";
    L_PAD: 6, "zero";
    L_INCARNATION: 16, "boot or cache-loss id last seen";
    L_TRACKED: 8, "generation since which bitmap and logs track the leg; 0: not tracked";
    L_SEQ: 8, "sequence number of the leg's superblock last seen; 0: never";
}
const _: () = assert!(L_SEQ.end() == LEG_LEN && L_PAD.len == 6);

/// Whether the array was stopped in order (R12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RunState {
    /// Drained, flushed, log empty.
    Clean = 1,
    /// In service, or died in service; whatever was acknowledged was durable.
    Running = 2,
    /// The same, and what was acknowledged may be in the legs' caches alone.
    Cached = 3,
}

impl RunState {
    /// All.
    pub const ALL: [Self; 3] = [Self::Clean, Self::Running, Self::Cached];

    /// In service from now on: what a former holder left in caches is there still.
    #[must_use]
    pub const fn in_service(self) -> Self {
        match self {
            Self::Clean | Self::Running => Self::Running,
            Self::Cached => Self::Cached,
        }
    }
}

/// Who orders the generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ArbiterKind {
    /// The holder may degrade, the peer is promoted by hand only.
    Biased = 1,
    /// Every change is the operator's.
    Manual = 2,
    /// An outside cluster manager that fences.
    ClusterManager = 3,
    /// A transaction in etcd.
    Etcd = 4,
}

impl ArbiterKind {
    const ALL: [Self; 4] = [Self::Biased, Self::Manual, Self::ClusterManager, Self::Etcd];

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == code)
    }
}

/// The length of a read lease, 20 ms to a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lease(u16);

impl Lease {
    const DEFAULT_MS: u64 = 2000;

    /// Of this length, to the millisecond; `None` when it cannot be had.
    pub fn of(time: Duration) -> Option<Self> {
        let millis = u16::try_from(time.as_millis()).ok().filter(|millis| (20..=60_000).contains(millis))?;
        Some(if u64::from(millis) == Self::DEFAULT_MS { Self::default() } else { Self(millis) })
    }

    /// How long.
    pub fn time(self) -> Duration {
        Duration::from_millis(if self.0 == 0 { Self::DEFAULT_MS } else { u64::from(self.0) })
    }
}

/// Feature masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Features {
    /// Unknown ones are ignored.
    pub compat: u32,
    /// With unknown ones the leg may be read only.
    pub ro_compat: u32,
    /// With unknown ones the leg is refused.
    pub incompat: u32,
}

impl Features {
    /// Read-compatible features that this program knows.
    pub const KNOWN_RO_COMPAT: u32 = 0;
    /// Incompatible features that this program knows.
    pub const KNOWN_INCOMPAT: u32 = 0;

    /// What these features let this program do.
    pub const fn access(self) -> Access {
        let incompat = self.incompat & !Self::KNOWN_INCOMPAT;
        let ro_compat = self.ro_compat & !Self::KNOWN_RO_COMPAT;
        if incompat != 0 {
            Access::Refused { incompat }
        } else if ro_compat != 0 {
            Access::ReadOnly { ro_compat }
        } else {
            Access::Full
        }
    }
}

/// What this program may do with a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Everything.
    Full,
    /// Read it.
    ReadOnly {
        /// The features that this program does not know.
        ro_compat: u32,
    },
    /// Nothing.
    Refused {
        /// The features that this program does not know.
        incompat: u32,
    },
}

/// The array's name: 1 to 64 bytes of UTF-8, for people.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ArrayName([u8; NAME.len]);

impl ArrayName {
    /// From text; `None` when empty, longer than 64 bytes, or with a NUL in it.
    pub fn new(name: &str) -> Option<Self> {
        let mut bytes = [0; NAME.len];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        (!name.is_empty() && !name.contains('\0')).then_some(Self(bytes))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        core::str::from_utf8(&self.0[..len]).unwrap_or("")
    }

    fn from_stored(bytes: &[u8]) -> Option<Self> {
        let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        if !super::is_zero(&bytes[len..]) {
            return None;
        }
        Self::new(core::str::from_utf8(&bytes[..len]).ok()?)
    }
}

impl core::fmt::Debug for ArrayName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// A leg's superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Sequence number of this write; the slot is `seq & 1`.
    pub seq: u64,
    /// Array uuid.
    pub array: Uuid,
    /// The array's name.
    pub name: ArrayName,
    /// This leg's uuid.
    pub leg: Uuid,
    /// Which leg this is.
    pub index: LegIndex,
    /// Id of the node that owns the leg.
    pub node: Uuid,
    /// Feature masks.
    pub features: Features,
    /// What is where.
    pub layout: Layout,
    /// Stopped in order, or not.
    pub run_state: RunState,
    /// The lowest generation that this leg accepts, and the node that it lets in at that generation (R10).
    pub fence: FenceKey,
    /// The last configs; the first is the current one.
    pub history: History,
    /// Which number this superblock had before each of them.
    pub heard: Heard,
    /// Who orders the generations.
    pub arbiter: ArbiterKind,
    /// The arbiter's own id; nil where it has none.
    pub arbiter_id: Uuid,
    /// How long a read lease lasts: the same for both nodes, because one serves by it and the other waits it out.
    pub lease: Lease,
    /// What is known of leg 0 and leg 1.
    pub legs: [LegRecord; 2],
    /// Number of superblock writes; for people, decides nothing.
    pub events: u64,
}

/// Why a block is not a usable superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SuperblockError {
    /// Not a whole superblock of this place.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Whole, but with a feature that this program does not know.
    #[error(
        "the leg uses incompatible features {incompat:#x} that this program does not know: use a newer one"
    )]
    Incompatible {
        /// The unknown features.
        incompat: u32,
    },
    /// Whole, but of a newer layout.
    #[error("the leg has layout version {0}; this program knows version {LAYOUT_VERSION}: use a newer one")]
    LayoutVersion(u16),
    /// Whole, but with a value that no program of ours writes.
    #[error("the superblock is whole but its {0} makes no sense")]
    Nonsense(&'static str),
}

impl Superblock {
    /// The current config.
    pub fn config(&self) -> &Config {
        self.history.current()
    }

    /// The record of this leg itself.
    pub fn own(&self) -> &LegRecord {
        &self.legs[self.index.index()]
    }

    /// The record of the other leg.
    pub fn peer(&self) -> &LegRecord {
        &self.legs[self.index.other().index()]
    }

    /// What this superblock says once it has the history `next`.
    #[must_use]
    pub fn hearing(&self, next: &History) -> Self {
        let heard = self.heard.on(&self.history, next, self.seq);
        Self { history: *next, heard, ..self.clone() }
    }

    /// True when the leg was set back to an older copy of itself before it went on without the other one: that one's
    /// superblock, `theirs`, remembers a higher number of ours.
    pub fn was_set_back(&self, theirs: &Self) -> bool {
        let record = theirs.peer();
        let number = self.heard.beyond(&self.history, theirs.config());
        let number = number.unwrap_or(self.seq);
        record.uuid == self.leg && number < record.seen_seq && !is_broken(Mutation::RevertUnseen)
    }

    /// True when the current config counts this leg as in sync.
    pub fn is_in_sync(&self) -> bool {
        self.config().in_sync.has(self.index)
    }

    /// As a sealed block for byte offset `address` of its device.
    pub fn encode(&self, address: u64) -> Block {
        let mut block = [0; BLOCK_SIZE];
        self.put_identity(&mut block);
        put_layout(&mut block, &self.layout);
        for (i, leg) in self.legs.iter().enumerate() {
            put_leg(&mut block, LEGS.part(i, LEG_LEN), leg);
        }
        for (i, config) in self.history.entries().iter().enumerate() {
            put_config(&mut block, HISTORY.part(i, CONFIG_LEN), config);
        }
        for (i, number) in self.heard.numbers().iter().enumerate() {
            HEARD.part(i, 8).put(&mut block, &number.to_le_bytes());
        }
        HISTORY_COUNT.put(&mut block, &[byte(self.history.entries().len())]);
        HISTORY_COMPLETE.put(&mut block, &[u8::from(self.history.is_complete())]);
        let generation = self.config().generation();
        let header = Header { kind: BlockKind::Superblock, seq: self.seq, generation };
        header::seal(&mut block, header, At { array: self.array, address });
        block
    }

    fn put_identity(&self, block: &mut Block) {
        COMPAT.put(block, &self.features.compat.to_le_bytes());
        RO_COMPAT.put(block, &self.features.ro_compat.to_le_bytes());
        INCOMPAT.put(block, &self.features.incompat.to_le_bytes());
        INDEX.put(block, &[self.index.number()]);
        RUN_STATE.put(block, &[self.run_state as u8]);
        LEG.put(block, self.leg.as_bytes());
        NODE.put(block, self.node.as_bytes());
        ARBITER.put(block, self.arbiter_id.as_bytes());
        ARBITER_KIND.put(block, &[self.arbiter as u8]);
        LEASE.put(block, &self.lease.0.to_le_bytes());
        FENCE_NODE.put(block, &[self.fence.node]);
        FENCE_GENERATION.put(block, &self.fence.generation.to_le_bytes());
        EVENTS.put(block, &self.events.to_le_bytes());
        NAME.put(block, &self.name.0);
    }

    /// Reads a block from byte offset `address` of its device.
    ///
    /// # Errors
    /// [`SuperblockError`]: anything but a whole, sensible superblock that this program may read.
    pub fn decode(block: &Block, address: u64) -> Result<Self, SuperblockError> {
        let (header, array) = header::open_any_array(block, BlockKind::Superblock, address)?;
        let features = Features {
            compat: COMPAT.u32(block),
            ro_compat: RO_COMPAT.u32(block),
            incompat: INCOMPAT.u32(block),
        };
        if let Access::Refused { incompat } = features.access() {
            return Err(SuperblockError::Incompatible { incompat });
        }
        if LAYOUT.u16(block) != LAYOUT_VERSION {
            return Err(SuperblockError::LayoutVersion(LAYOUT.u16(block)));
        }
        Ok(Self {
            seq: header.seq,
            array: not_nil(array, "array uuid")?,
            name: ArrayName::from_stored(NAME.of(block)).ok_or(SuperblockError::Nonsense("array name"))?,
            leg: not_nil(LEG.uuid(block), "leg uuid")?,
            index: leg_index(INDEX.u8(block), "leg index")?,
            node: NODE.uuid(block),
            features,
            layout: get_layout(block)?,
            run_state: run_state(RUN_STATE.u8(block))?,
            fence: get_fence(block)?,
            history: get_history(block)?,
            heard: get_heard(block),
            arbiter: ArbiterKind::from_code(ARBITER_KIND.u8(block))
                .ok_or(SuperblockError::Nonsense("arbiter kind"))?,
            arbiter_id: ARBITER.uuid(block),
            lease: Lease(LEASE.u16(block)),
            legs: [get_leg(block, LEGS.part(0, LEG_LEN))?, get_leg(block, LEGS.part(1, LEG_LEN))?],
            events: EVENTS.u64(block),
        })
    }
}

fn byte(count: usize) -> u8 {
    u8::try_from(count).expect("a count of at most 16")
}

fn not_nil(uuid: Uuid, what: &'static str) -> Result<Uuid, SuperblockError> {
    if uuid.is_nil() { Err(SuperblockError::Nonsense(what)) } else { Ok(uuid) }
}

fn leg_index(number: u8, what: &'static str) -> Result<LegIndex, SuperblockError> {
    LegIndex::from_number(number).ok_or(SuperblockError::Nonsense(what))
}

fn run_state(code: u8) -> Result<RunState, SuperblockError> {
    let known = RunState::ALL.into_iter().find(|state| *state as u8 == code);
    known.ok_or(SuperblockError::Nonsense("run state"))
}

fn get_fence(block: &Block) -> Result<FenceKey, SuperblockError> {
    let node = leg_index(FENCE_NODE.u8(block), "fence")?.number();
    let generation = generation(FENCE_GENERATION.u64(block), "fence")?;
    Ok(FenceKey { node, generation })
}

fn generation(generation: u64, what: &'static str) -> Result<u64, SuperblockError> {
    if generation > GENERATION_MAX { Err(SuperblockError::Nonsense(what)) } else { Ok(generation) }
}

fn put_layout(block: &mut Block, layout: &Layout) {
    LAYOUT.put(block, &LAYOUT_VERSION.to_le_bytes());
    LEG_SIZE.put(block, &layout.leg_size.to_le_bytes());
    DATA_OFFSET.put(block, &layout.data_offset.to_le_bytes());
    DATA_SIZE.put(block, &layout.data_size.to_le_bytes());
    BLOCK.put(block, &layout.block_size.to_le_bytes());
    GRANULE_SHIFT.put(block, &shift(layout.granule_shift).to_le_bytes());
    EXTENT_SHIFT.put(block, &shift(layout.log.extent_shift).to_le_bytes());
    EXTENTS.put(block, &layout.log.extents.to_le_bytes());
    SLOTS.put(block, &layout.log.slots.to_le_bytes());
}

fn shift(shift: u32) -> u16 {
    u16::try_from(shift).expect("a shift below 64")
}

fn get_layout(block: &Block) -> Result<Layout, SuperblockError> {
    let layout = Layout {
        leg_size: LEG_SIZE.u64(block),
        block_size: BLOCK.u32(block),
        data_offset: DATA_OFFSET.u64(block),
        data_size: DATA_SIZE.u64(block),
        granule_shift: GRANULE_SHIFT.u16(block).into(),
        log: LogGeometry {
            slots: SLOTS.u16(block),
            extent_shift: EXTENT_SHIFT.u16(block).into(),
            extents: EXTENTS.u32(block),
        },
    };
    if layout.is_sound() { Ok(layout) } else { Err(SuperblockError::Nonsense("layout")) }
}

fn put_leg(block: &mut Block, at: Field, leg: &LegRecord) {
    at.inner(L_UUID).put(block, leg.uuid.as_bytes());
    at.inner(L_STATE).put(block, &[leg.state as u8]);
    at.inner(L_FLAGS).put(block, &[leg.flags.bits()]);
    at.inner(L_INCARNATION).put(block, leg.incarnation.as_bytes());
    at.inner(L_TRACKED).put(block, &leg.tracked_since.to_le_bytes());
    at.inner(L_SEQ).put(block, &leg.seen_seq.to_le_bytes());
}

fn get_leg(block: &Block, at: Field) -> Result<LegRecord, SuperblockError> {
    const WHAT: SuperblockError = SuperblockError::Nonsense("leg record");
    Ok(LegRecord {
        uuid: at.inner(L_UUID).uuid(block),
        state: LegState::from_code(at.inner(L_STATE).u8(block)).ok_or(WHAT)?,
        flags: LegFlags::from_bits(at.inner(L_FLAGS).u8(block)).ok_or(WHAT)?,
        incarnation: at.inner(L_INCARNATION).uuid(block),
        tracked_since: generation(at.inner(L_TRACKED).u64(block), "leg record")?,
        seen_seq: at.inner(L_SEQ).u64(block),
    })
}

fn put_config(block: &mut Block, at: Field, config: &Config) {
    at.inner(C_GENERATION).put(block, &config.id.generation.to_le_bytes());
    at.inner(C_NONCE).put(block, &config.id.nonce.to_le_bytes());
    at.inner(C_HOLDER).put(block, &[config.holder.number()]);
    at.inner(C_IN_SYNC).put(block, &[config.in_sync.bits()]);
    at.inner(C_FLAGS).put(block, &[config.flags.bits()]);
    at.inner(C_REASON).put(block, &[config.reason as u8]);
}

fn get_config(block: &Block, at: Field) -> Result<Config, SuperblockError> {
    const WHAT: SuperblockError = SuperblockError::Nonsense("config");
    let id = ConfigId {
        generation: generation(at.inner(C_GENERATION).u64(block), "config")?,
        nonce: at.inner(C_NONCE).u64(block),
    };
    let in_sync = LegMask::from_bits(at.inner(C_IN_SYNC).u8(block)).filter(|mask| !mask.is_empty());
    Ok(Config {
        id,
        holder: leg_index(at.inner(C_HOLDER).u8(block), "config")?,
        in_sync: in_sync.ok_or(WHAT)?,
        flags: ConfigFlags::from_bits(at.inner(C_FLAGS).u8(block)).ok_or(WHAT)?,
        reason: Reason::from_code(at.inner(C_REASON).u8(block)).ok_or(WHAT)?,
    })
}

fn get_heard(block: &Block) -> Heard {
    Heard::from_stored(core::array::from_fn(|i| HEARD.part(i, 8).u64(block)))
}

fn get_history(block: &Block) -> Result<History, SuperblockError> {
    const WHAT: SuperblockError = SuperblockError::Nonsense("history");
    let count = usize::from(HISTORY_COUNT.u8(block));
    let complete = match HISTORY_COMPLETE.u8(block) {
        0 => false,
        1 => true,
        _ => return Err(WHAT),
    };
    if count > HISTORY_LEN {
        return Err(WHAT);
    }
    let configs: Result<Vec<_>, _> =
        (0..count).map(|i| get_config(block, HISTORY.part(i, CONFIG_LEN))).collect();
    History::from_stored(&configs?, complete).ok_or(WHAT)
}
