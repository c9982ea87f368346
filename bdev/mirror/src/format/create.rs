//! Formatting a leg: the steps that turn a blank device into a leg, in an order in which a crash leaves it
//! blank or torn, never half a leg that looks whole. Superblocks come last.

use bdev::FenceKey;
use uuid::Uuid;

use super::config::{Config, LegIndex, LegMask};
use super::heard::Heard;
use super::history::History;
use super::layout::{LOG_LEN, LOG_OFFSET, Layout, SUPERBLOCK_OFFSET};
use super::leg_record::{LegFlags, LegRecord, LegState};
use super::superblock::{ArbiterKind, ArrayName, Features, Lease, RunState, Superblock};
use super::unit_state::UnitState;
use super::{BLOCK_BYTES, BlockWrite};
use crate::{bitmap, intent_log};

/// One step; the driver executes them in order and waits for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make these bytes of the device read as zeroes.
    Zero {
        /// First byte.
        offset: u64,
        /// Number of bytes, a multiple of the block size.
        len: u64,
    },
    /// Write a block.
    Write(Box<BlockWrite>),
    /// Make everything before stable.
    Flush,
}

/// Who the new leg is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateLeg {
    /// Array uuid: a fresh one for a new array, the array's for a joining leg.
    pub array: Uuid,
    /// The array's name.
    pub name: ArrayName,
    /// A fresh uuid for the leg.
    pub leg: Uuid,
    /// Which leg.
    pub index: LegIndex,
    /// Id of the node that owns it.
    pub node: Uuid,
    /// What is where.
    pub layout: Layout,
    /// Its properties; [`LegFlags::ZEROED`] when the data area is known to read as zeroes.
    pub flags: LegFlags,
    /// The node's boot id.
    pub incarnation: Uuid,
    /// Who orders the generations.
    pub arbiter: ArbiterKind,
    /// How long a read lease lasts.
    pub lease: Lease,
}

impl CreateLeg {
    /// The superblock of the first leg of a new array: this node holds it, alone in sync, in generation 1.
    /// The other place is vacant and tracked since creation.
    pub fn founder(&self, nonce: u64) -> Superblock {
        let config = Config::first(nonce, self.index, LegMask::only(self.index));
        self.superblock(config, LegState::InSync, 1)
    }

    /// The superblock of a leg that waits for the holder, the other node, to bring it in: generation 0.
    pub fn joiner(&self) -> Superblock {
        self.superblock(Config::joining(self.index.other()), LegState::Joining, 0)
    }

    fn superblock(&self, config: Config, state: LegState, tracked_since: u64) -> Superblock {
        let own = LegRecord {
            uuid: self.leg,
            state,
            flags: self.flags,
            incarnation: self.incarnation,
            tracked_since,
            seen_seq: 0,
        };
        let mut legs = [LegRecord::vacant(); 2];
        legs[self.index.index()] = own;
        Superblock {
            seq: 1,
            array: self.array,
            name: self.name,
            leg: self.leg,
            index: self.index,
            node: self.node,
            features: Features::default(),
            layout: self.layout,
            run_state: RunState::Clean,
            fence: FenceKey { node: config.holder.number(), generation: config.generation() },
            history: History::new(config),
            heard: Heard::default(),
            arbiter: self.arbiter,
            arbiter_id: Uuid::nil(),
            lease: self.lease,
            legs,
            events: 1,
        }
    }
}

impl Superblock {
    /// The steps that put this first superblock and empty metadata on a device. The bytes before 64 KiB and
    /// the data area stay as they are.
    pub fn format_steps(&self) -> Vec<Step> {
        let tail = self.layout.superblock_tail();
        let metadata_len = self.layout.data_offset - LOG_OFFSET;
        let mut steps = vec![
            Step::Zero { offset: SUPERBLOCK_OFFSET, len: LOG_OFFSET - SUPERBLOCK_OFFSET },
            Step::Zero { offset: tail, len: BLOCK_BYTES },
            Step::Flush,
            Step::Zero { offset: LOG_OFFSET, len: metadata_len },
        ];
        let write = |block: BlockWrite| Step::Write(Box::new(block));
        steps.push(write(intent_log::first_block(self.array, &self.layout.log)));
        steps.extend(bitmap::first_blocks(self.array, &self.layout).map(write));
        let unit = UnitState::first(self.config().generation());
        steps.extend([unit.twin(), unit].iter().flat_map(|state| state.blocks(self.array)).map(write));
        steps.push(Step::Flush);
        // Twice, so that the leg survives the loss of either copy from its first moment on.
        let twin = Self { seq: self.seq - 1, ..self.clone() };
        steps.push(write(twin.first_writes().slot));
        steps.push(Step::Flush);
        let writes = self.first_writes();
        steps.push(write(writes.slot));
        steps.push(Step::Flush);
        steps.extend(writes.tail.map(write));
        steps.push(Step::Flush);
        steps
    }
}

const _: () = assert!(LOG_LEN.is_multiple_of(BLOCK_BYTES));
