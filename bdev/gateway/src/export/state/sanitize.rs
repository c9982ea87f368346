//! SANITIZE at work (SBC-3 section 4.11): a channel of its own, which goes on whatever becomes of the session that asked for it. What
//! becomes of it is the unit's to say (`export/sanitizing.rs`).

use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;

use bdev::{Bdev, BlockRange, Capabilities, Channel, Completions, Durability, Io, IoError, Op, Tag};
use core::time::Duration;
use engine::{Buf, Core, Instant, Progress};
use scsi::parameter::{Inversion, Overwrite};
use scsi::sanitization::Order;

use super::super::logical_unit::LogicalUnit;
use super::super::lun::LunProvisioning;
use super::{Hold, Mode, Span};

/// Bytes written at once.
const PIECE: u32 = 256 << 10;

fn passes(order: &Order) -> u8 {
    match order {
        Order::Overwrite(overwrite) => overwrite.passes,
        Order::BlockErase | Order::CryptoErase => 1,
    }
}

/// What is done first.
fn first(order: &Order) -> Phase {
    match order {
        Order::Overwrite(_) | Order::BlockErase => Phase::Writing { pass: 0, lba: 0 },
        Order::CryptoErase => Phase::Rekeying,
    }
}

/// The byte at an offset of each block in a pass.
fn pattern_byte(order: &Order, pass: u8, offset: usize) -> u8 {
    match order {
        Order::BlockErase | Order::CryptoErase => 0,
        Order::Overwrite(Overwrite { pattern, inversion, .. }) => {
            let byte = pattern[offset % pattern.len()];
            if *inversion == Inversion::EachPass && pass % 2 == 1 { !byte } else { byte }
        }
    }
}

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Writes the block at this address on.
    Writing { pass: u8, lba: u64 },
    /// Gives blocks back from this address on.
    Discarding { lba: u64 },
    /// Changes the key, which is stable when that is done.
    Rekeying,
    /// Makes it stable.
    Flushing,
}

/// An operation at work.
pub(in crate::export) struct Running {
    order: Order,
    /// Blocks with their size, and how fast.
    bdev: Arc<dyn Bdev>,
    rate: Option<NonZeroU64>,
    /// Thick blocks keep their storage.
    provisioning: LunProvisioning,
    hold: Hold,
    channel: Option<Box<dyn Channel>>,
    phase: Phase,
    in_flight: bool,
    /// The frame that a pass writes, with the pass it is for.
    frame: Option<(u8, Buf)>,
    /// Bytes written since `began`, for the rate.
    written: u64,
    began: Option<Instant>,
}

/// What a turn came to.
pub(in crate::export) enum Turn {
    More(Progress),
    End,
}

impl Running {
    /// One that begins, at a unit's first block.
    pub(in crate::export) fn new(unit: &Rc<LogicalUnit>, bdev: Arc<dyn Bdev>, order: Order) -> Self {
        let whole = Span { lba: 0, blocks: u64::MAX };
        unit.on_change(whole);
        Self {
            phase: first(&order),
            order,
            bdev,
            rate: unit.sanitize_rate.get(),
            provisioning: unit.provisioning.get(),
            hold: Hold::new(unit, whole, Mode::Exclusive),
            channel: None,
            in_flight: false,
            frame: None,
            written: 0,
            began: None,
        }
    }

    /// True while nothing of it is under way.
    pub(in crate::export) fn is_at_rest(&self) -> bool {
        !self.in_flight
    }

    /// When to poll next at the latest.
    pub(in crate::export) fn next_deadline(&self) -> Option<Instant> {
        let own = if self.in_flight { None } else { self.due() };
        Instant::earliest(own, self.channel.as_ref().and_then(|channel| channel.next_deadline()))
    }

    /// Waits for what is under way, and sends nothing more.
    pub(in crate::export) fn wind_up(&mut self, now: Instant) -> Progress {
        let Some(channel) = &mut self.channel else { return Progress::Idle };
        let mut done = Completions::new();
        let progress = channel.poll(now, &mut done);
        self.in_flight &= done.is_empty();
        progress
    }

    /// How much of it is done, in 65,536ths.
    pub(in crate::export) fn progress(&self) -> u16 {
        let blocks = self.bdev.geometry().blocks;
        let whole = u128::from(passes(&self.order)) * u128::from(blocks.max(1));
        let done = match self.phase {
            Phase::Writing { pass, lba } => u128::from(pass) * u128::from(blocks) + u128::from(lba),
            Phase::Discarding { .. } | Phase::Flushing => whole,
            Phase::Rekeying => 0,
        };
        u16::try_from(done * 65_536 / whole).unwrap_or(u16::MAX)
    }

    /// When the next piece may be written.
    fn due(&self) -> Option<Instant> {
        let (began, rate) = (self.began?, self.rate?);
        let micros = u128::from(self.written) * 1_000_000 / u128::from(rate.get());
        Some(began + Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)))
    }

    /// One turn.
    ///
    /// # Errors
    /// The device's.
    pub(in crate::export) fn poll(&mut self, core: &Core, now: Instant) -> Result<Turn, IoError> {
        if !self.hold.is_granted() {
            return Ok(Turn::More(Progress::Idle));
        }
        if self.channel.is_none() {
            let opened = self.bdev.clone().open(core).map_err(|_| IoError::Busy)?;
            self.channel = Some(opened);
            self.began = Some(now);
        }
        let Some(channel) = &mut self.channel else { return Err(IoError::Busy) };
        let mut done = Completions::new();
        let mut progress = channel.poll(now, &mut done);
        for completed in done {
            self.in_flight = false;
            match completed.result {
                // It is sent again.
                Err(IoError::Busy) => continue,
                result => result?,
            }
            if self.step() {
                return Ok(Turn::End);
            }
            progress = Progress::Busy;
        }
        if !self.in_flight && self.due().is_none_or(|due| now >= due) {
            progress |= self.send(core, now)?;
        }
        Ok(Turn::More(progress))
    }

    /// The blocks of the next piece.
    fn piece(&self, lba: u64) -> BlockRange {
        let geometry = self.bdev.geometry();
        let most = u64::from(PIECE / geometry.block_size);
        let blocks = most.min(geometry.blocks.saturating_sub(lba));
        BlockRange::new(lba, u32::try_from(blocks).unwrap_or(u32::MAX))
    }

    /// What was under way is done; true when that was all.
    fn step(&mut self) -> bool {
        let blocks = self.bdev.geometry().blocks;
        let discards = self.order == Order::BlockErase
            && self.provisioning == LunProvisioning::Thin
            && self.bdev.capabilities().contains(Capabilities::DISCARD | Capabilities::DISCARD_ZEROES);
        self.phase = match self.phase {
            Phase::Writing { pass, lba } => {
                let piece = self.piece(lba);
                self.written += u64::from(piece.blocks) * u64::from(self.bdev.geometry().block_size);
                match piece.end() {
                    end if end < blocks => Phase::Writing { pass, lba: end },
                    _ if pass + 1 < passes(&self.order) => Phase::Writing { pass: pass + 1, lba: 0 },
                    _ if discards => Phase::Discarding { lba: 0 },
                    _ => Phase::Flushing,
                }
            }
            Phase::Discarding { lba } => match self.piece(lba).end() {
                end if end < blocks => Phase::Discarding { lba: end },
                _ => Phase::Flushing,
            },
            Phase::Rekeying | Phase::Flushing => return true,
        };
        false
    }

    fn send(&mut self, core: &Core, now: Instant) -> Result<Progress, IoError> {
        let op = match self.phase {
            Phase::Writing { pass, lba } => {
                let range = self.piece(lba);
                let Some(from) = self.frame(pass, core) else { return Ok(Progress::Idle) };
                let len = range.blocks as usize * self.bdev.geometry().block_size as usize;
                Op::Write { range, from: from.slice(0..len), durability: Durability::Accepted }
            }
            Phase::Discarding { lba } => Op::Discard { range: self.piece(lba) },
            Phase::Rekeying => Op::CryptoErase,
            Phase::Flushing => Op::Flush,
        };
        let Some(channel) = &mut self.channel else { return Err(IoError::Busy) };
        match channel.submit(Io::new(op, Tag(0), now), now) {
            Ok(()) => self.in_flight = true,
            Err(refused) => {
                let why = refused.why;
                drop(refused.io.complete(Err(why), now));
                if why != IoError::Busy {
                    return Err(why);
                }
            }
        }
        Ok(Progress::Busy)
    }

    /// The bytes of a pass.
    fn frame(&mut self, pass: u8, core: &Core) -> Option<Buf> {
        if let Some((_, frame)) = self.frame.as_ref().filter(|(of, _)| *of == pass) {
            return Some(frame.clone());
        }
        let block_size = self.bdev.geometry().block_size as usize;
        let mut frame = core.pool().alloc(PIECE as usize)?;
        for block in frame.chunks_mut(block_size) {
            for (offset, byte) in block.iter_mut().enumerate() {
                *byte = pattern_byte(&self.order, pass, offset);
            }
        }
        let frame = frame.freeze();
        self.frame = Some((pass, frame.clone()));
        Some(frame)
    }
}
