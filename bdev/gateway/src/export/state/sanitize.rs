//! SANITIZE in the background (SBC-3 section 4.11): it has a channel of its own, and goes on whatever becomes of the session that
//! asked for it. It does not outlive the node.
//!
//! ```text
//! Idle --(order)--> Running --(last pass flushed)--> Idle
//!                      '------(I/O error)----> Failed --(order, or EXIT FAILURE MODE after AUSE)--> Running, Idle
//! ```
//!
//! Other commands are refused meanwhile; those that were at work when it began are waited for.

use std::rc::Rc;

use bdev::{BlockRange, Capabilities, Channel, Completions, Durability, Io, IoError, Op, Tag};
use core::time::Duration;
use engine::{Buf, Core, Instant, Progress};
use scsi::Sense;
use scsi::command::AllowUnrestrictedExit;
use scsi::parameter::{Inversion, Overwrite};

use super::super::node::Lun;
use super::{Hold, Mode, Span};

/// Bytes written at once.
const PIECE: u32 = 256 << 10;

/// What to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::export) enum Order {
    /// The patterns of a parameter list.
    Overwrite(Overwrite),
    /// Zeroes, and then the blocks are given back where the device can take them.
    BlockErase,
    /// Another key, so that what is on the medium can be read no more.
    CryptoErase,
}

impl Order {
    fn passes(&self) -> u8 {
        match self {
            Self::Overwrite(overwrite) => overwrite.passes,
            Self::BlockErase | Self::CryptoErase => 1,
        }
    }

    /// What is done first.
    fn first(&self) -> Phase {
        match self {
            Self::Overwrite(_) | Self::BlockErase => Phase::Writing { pass: 0, lba: 0 },
            Self::CryptoErase => Phase::Rekeying,
        }
    }

    /// The byte at an offset of each block in a pass.
    fn byte(&self, pass: u8, offset: usize) -> u8 {
        match self {
            Self::BlockErase | Self::CryptoErase => 0,
            Self::Overwrite(Overwrite { pattern, inversion, .. }) => {
                let byte = pattern[offset % pattern.len()];
                if *inversion == Inversion::EachPass && pass % 2 == 1 { !byte } else { byte }
            }
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
    exit: AllowUnrestrictedExit,
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

/// Whether an operation is at work.
#[derive(Default)]
pub(in crate::export) enum Sanitizing {
    /// None, or the last one went well.
    #[default]
    Idle,
    /// It is.
    Running(Box<Running>),
    /// The last one failed.
    Failed(AllowUnrestrictedExit),
}

impl Sanitizing {
    /// Begins; ends the failure of an earlier one.
    pub(in crate::export) fn begin(&mut self, lun: &Rc<Lun>, order: Order, exit: AllowUnrestrictedExit) {
        let whole = Span { lba: 0, blocks: u64::MAX };
        lun.unit.on_change(whole);
        *self = Self::Running(Box::new(Running {
            phase: order.first(),
            order,
            exit,
            hold: Hold::new(lun, whole, Mode::Exclusive),
            channel: None,
            in_flight: false,
            frame: None,
            written: 0,
            began: None,
        }));
    }

    /// EXIT FAILURE MODE.
    ///
    /// # Errors
    /// There is no failure, or it may not be left like this.
    pub(in crate::export) fn exit_failure(&mut self) -> Result<(), Sense> {
        match self {
            Self::Failed(AllowUnrestrictedExit::No) => Err(Sense::SANITIZE_FAILED),
            Self::Failed(AllowUnrestrictedExit::Yes) | Self::Idle => {
                *self = Self::Idle;
                Ok(())
            }
            Self::Running(_) => Err(self.refusal(1).unwrap_or(Sense::SANITIZE_IN_PROGRESS)),
        }
    }

    /// Why other commands are refused; `blocks` is the unit's size.
    pub(in crate::export) fn refusal(&self, blocks: u64) -> Option<Sense> {
        match self {
            Self::Idle => None,
            Self::Running(running) => {
                Some(Sense::SANITIZE_IN_PROGRESS.with_progress(running.progress(blocks)))
            }
            Self::Failed(_) => Some(Sense::SANITIZE_FAILED),
        }
    }

    pub(in crate::export) fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    /// When to poll next at the latest.
    pub(in crate::export) fn next_deadline(&self, lun: &Lun) -> Option<Instant> {
        let Self::Running(running) = self else { return None };
        let own = if running.in_flight { None } else { running.due(lun) };
        Instant::earliest(own, running.channel.as_ref().and_then(|channel| channel.next_deadline()))
    }

    /// One turn.
    pub(in crate::export) fn poll(&mut self, lun: &Lun, core: &Core, now: Instant) -> Progress {
        let Self::Running(running) = self else { return Progress::Idle };
        match running.poll(lun, core, now) {
            Ok(Turn::More(progress)) => progress,
            Ok(Turn::End) => {
                *self = Self::Idle;
                Progress::Busy
            }
            Err(_) => {
                *self = Self::Failed(running.exit);
                Progress::Busy
            }
        }
    }
}

/// What a turn came to.
enum Turn {
    More(Progress),
    End,
}

impl Running {
    /// How much of it is done, in 65,536ths.
    fn progress(&self, blocks: u64) -> u16 {
        let whole = u128::from(self.order.passes()) * u128::from(blocks.max(1));
        let done = match self.phase {
            Phase::Writing { pass, lba } => u128::from(pass) * u128::from(blocks) + u128::from(lba),
            Phase::Discarding { .. } | Phase::Flushing => whole,
            Phase::Rekeying => 0,
        };
        u16::try_from(done * 65_536 / whole).unwrap_or(u16::MAX)
    }

    /// When the next piece may be written.
    fn due(&self, lun: &Lun) -> Option<Instant> {
        let (began, rate) = (self.began?, lun.config.options.sanitize_rate?);
        let micros = u128::from(self.written) * 1_000_000 / u128::from(rate.get());
        Some(began + Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)))
    }

    fn poll(&mut self, lun: &Lun, core: &Core, now: Instant) -> Result<Turn, IoError> {
        if !self.hold.is_granted() {
            return Ok(Turn::More(Progress::Idle));
        }
        if self.channel.is_none() {
            let opened = lun.config.bdev.clone().open(core).map_err(|_| IoError::Busy)?;
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
            if self.step(lun) {
                return Ok(Turn::End);
            }
            progress = Progress::Busy;
        }
        if !self.in_flight && self.due(lun).is_none_or(|due| now >= due) {
            progress |= self.send(lun, core, now)?;
        }
        Ok(Turn::More(progress))
    }

    /// The blocks of the next piece.
    fn piece(lun: &Lun, lba: u64) -> BlockRange {
        let geometry = lun.config.bdev.geometry();
        let most = u64::from(PIECE / geometry.block_size);
        let blocks = most.min(geometry.blocks.saturating_sub(lba));
        BlockRange::new(lba, u32::try_from(blocks).unwrap_or(u32::MAX))
    }

    /// What was under way is done; true when that was all.
    fn step(&mut self, lun: &Lun) -> bool {
        let blocks = lun.config.bdev.geometry().blocks;
        let discards = self.order == Order::BlockErase
            && lun.config.bdev.capabilities().contains(Capabilities::DISCARD | Capabilities::DISCARD_ZEROES);
        self.phase = match self.phase {
            Phase::Writing { pass, lba } => {
                let piece = Self::piece(lun, lba);
                self.written += u64::from(piece.blocks) * u64::from(lun.config.bdev.geometry().block_size);
                match piece.end() {
                    end if end < blocks => Phase::Writing { pass, lba: end },
                    _ if pass + 1 < self.order.passes() => Phase::Writing { pass: pass + 1, lba: 0 },
                    _ if discards => Phase::Discarding { lba: 0 },
                    _ => Phase::Flushing,
                }
            }
            Phase::Discarding { lba } => match Self::piece(lun, lba).end() {
                end if end < blocks => Phase::Discarding { lba: end },
                _ => Phase::Flushing,
            },
            Phase::Rekeying | Phase::Flushing => return true,
        };
        false
    }

    fn send(&mut self, lun: &Lun, core: &Core, now: Instant) -> Result<Progress, IoError> {
        let op = match self.phase {
            Phase::Writing { pass, lba } => {
                let range = Self::piece(lun, lba);
                let Some(from) = self.frame(pass, lun, core) else { return Ok(Progress::Idle) };
                let len = range.blocks as usize * lun.config.bdev.geometry().block_size as usize;
                Op::Write { range, from: from.slice(0..len), durability: Durability::Accepted }
            }
            Phase::Discarding { lba } => Op::Discard { range: Self::piece(lun, lba) },
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
    fn frame(&mut self, pass: u8, lun: &Lun, core: &Core) -> Option<Buf> {
        if let Some((_, frame)) = self.frame.as_ref().filter(|(of, _)| *of == pass) {
            return Some(frame.clone());
        }
        let block_size = lun.config.bdev.geometry().block_size as usize;
        let mut frame = core.pool().alloc(PIECE as usize)?;
        for block in frame.chunks_mut(block_size) {
            for (offset, byte) in block.iter_mut().enumerate() {
                *byte = self.order.byte(pass, offset);
            }
        }
        let frame = frame.freeze();
        self.frame = Some((pass, frame.clone()));
        Some(frame)
    }
}
