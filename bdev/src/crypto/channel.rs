//! The data half: encrypts into frames of its own on the way down, decrypts in place on the way up, and carries an erase out.

use std::sync::Arc;

use engine::{Buf, Instant, Key, Pool, Progress, Slots};

use super::writer::Writer;
use super::{CryptoBdev, Erasure};
use crate::channel::{Bdev, Channel, Completions, Link};
use crate::error::IoError;
use crate::geometry::{BlockRange, Capabilities};
use crate::request::{Completed, Io, Op, Refused, Tag};

/// I/Os on one channel at the most.
const QUEUE_DEPTH: u32 = 1024;
/// The tag of an erase's operations: no key of the slots.
const ERASES: Tag = Tag(u64::MAX);

/// An I/O that the device below has, under a tag of ours.
struct Below {
    tag: Tag,
    /// What its owner gave to write: nobody may change it, so the device below got another frame.
    plain: Option<Buf>,
}

/// An erase that this channel was asked for.
struct Work {
    io: Io,
    erasure: Erasure,
    writer: Writer,
}

pub(super) struct CryptoChannel {
    device: Arc<CryptoBdev>,
    pool: Pool,
    base: Box<dyn Channel>,
    below: Slots<Below>,
    work: Option<Work>,
    done: Completions,
}

impl CryptoChannel {
    pub(super) fn new(device: Arc<CryptoBdev>, pool: Pool, base: Box<dyn Channel>) -> Self {
        let below = Slots::with_capacity(QUEUE_DEPTH);
        Self { device, pool, base, below, work: None, done: Completions::new() }
    }

    fn check(&self, op: &Op) -> Result<(), IoError> {
        op.check(self.device.geometry())?;
        let can = |capability| self.device.capabilities().contains(capability);
        match op {
            Op::Fence { .. } | Op::StoreState { .. } | Op::LoadState { .. } | Op::CompareAndWrite { .. } => {
                Err(IoError::Unsupported)
            }
            Op::CryptoErase if !can(Capabilities::CRYPTO_ERASE) => Err(IoError::ReadOnly),
            // No bytes: no key is needed.
            Op::Read { range, .. } | Op::Write { range, .. } if range.blocks == 0 => Ok(()),
            Op::Read { range, .. } | Op::Write { range, .. } if self.device.cipher().is_none() => {
                Err(IoError::Medium { lba: range.lba })
            }
            _ => Ok(()),
        }
    }

    /// A write's frame as it goes to the medium; `None` when there is no frame for it.
    fn encrypted(&self, range: BlockRange, from: &Buf) -> Option<Buf> {
        if range.blocks == 0 {
            return Some(from.clone());
        }
        let mut frame = self.pool.alloc(from.len())?;
        frame.copy_from_slice(from);
        self.device.cipher()?.encrypt(range.lba, &mut frame);
        Some(frame.freeze())
    }

    /// Hands an I/O to the device below.
    fn pass(&mut self, mut io: Io, now: Instant) -> Result<(), Refused> {
        let mut below = Below { tag: io.tag, plain: None };
        if let Op::Write { range, from, .. } = io.op() {
            match self.encrypted(*range, from) {
                Some(frame) => below.plain = swap(&mut io, frame),
                None => return Err(io.refuse(IoError::Busy)),
            }
        }
        if let Some(range) = range_of(io.op_mut()) {
            range.lba += self.device.reserved();
        }
        let Ok(key) = self.below.insert(below) else { unreachable!("room was checked at submit") };
        io.tag = Tag(key.to_bits());
        let Err(Refused { mut io, why }) = self.base.submit(io, now) else { return Ok(()) };
        let below = self.below.remove(key).expect("just inserted");
        io.tag = below.tag;
        self.restore(io.op_mut(), below.plain);
        Err(io.refuse(self.lifted(why)))
    }

    /// Makes an operation what its owner gave.
    fn restore(&self, op: &mut Op, plain: Option<Buf>) {
        if let Some(range) = range_of(op) {
            range.lba -= self.device.reserved();
        }
        if let (Op::Write { from, .. }, Some(plain)) = (op, plain) {
            *from = plain;
        }
    }

    /// The error with an address of this device.
    fn lifted(&self, error: IoError) -> IoError {
        match error {
            IoError::Medium { lba } => IoError::Medium { lba: lba.saturating_sub(self.device.reserved()) },
            other => other,
        }
    }

    fn answer(&mut self, below: Below, mut completed: Completed) {
        self.restore(&mut completed.op, below.plain);
        completed.tag = below.tag;
        completed.result = completed.result.map_err(|error| self.lifted(error));
        if let (Op::Read { range, into }, Ok(())) = (&mut completed.op, completed.result)
            && range.blocks != 0
        {
            match self.device.cipher() {
                Some(cipher) => cipher.decrypt(range.lba, into),
                None => completed.result = Err(IoError::Medium { lba: range.lba }),
            }
        }
        self.done.push_back(completed);
    }

    fn begin_erase(&mut self, io: Io, now: Instant) -> Result<(), Refused> {
        match self.device.erase() {
            Err(IoError::Busy) => return Err(io.refuse(IoError::Busy)),
            Err(error) => self.done.push_back(io.complete(Err(error), now)),
            Ok((erasure, rewrite)) => {
                let base = &self.device.base;
                let block_size = base.geometry().block_size;
                let writer = Writer::new(rewrite, base.capabilities(), block_size, self.pool.clone());
                self.work = Some(Work { io, erasure, writer });
                self.drive(now);
            }
        }
        Ok(())
    }

    /// Sends the erase's next operation, or ends it.
    fn drive(&mut self, now: Instant) {
        let Some(work) = &mut self.work else { return };
        let op = work.writer.next_op();
        if work.writer.rewrite().counts() {
            work.erasure.settle(work.writer.rewrite());
        }
        if work.writer.is_over() {
            self.end_erase(Ok(()), now);
        } else if let Some(op) = op
            && let Err(Refused { io, why }) = self.base.submit(Io::new(op, ERASES, now), now)
        {
            drop(io.complete(Err(why), now));
            self.on_erase_step(Err(why), now);
        }
    }

    fn on_erase_step(&mut self, result: Result<(), IoError>, now: Instant) {
        let Some(work) = &mut self.work else { return };
        if let Err(error) = work.writer.on_done(result) {
            self.end_erase(Err(error), now);
        }
    }

    fn end_erase(&mut self, result: Result<(), IoError>, now: Instant) {
        if let Some(Work { io, erasure, .. }) = self.work.take() {
            drop(erasure);
            self.done.push_back(io.complete(result, now));
        }
    }
}

/// The blocks that an operation names.
fn range_of(op: &mut Op) -> Option<&mut BlockRange> {
    match op {
        Op::Read { range, .. }
        | Op::Write { range, .. }
        | Op::Discard { range }
        | Op::WriteZeroes { range, .. }
        | Op::CompareAndWrite { range, .. }
        | Op::BlockStatus { range, .. } => Some(range),
        Op::Flush
        | Op::Fence { .. }
        | Op::StoreState { .. }
        | Op::LoadState { .. }
        | Op::HandOver
        | Op::CryptoErase => None,
    }
}

/// Puts another frame into a write; gives its own.
fn swap(io: &mut Io, frame: Buf) -> Option<Buf> {
    match io.op_mut() {
        Op::Write { from, .. } => Some(std::mem::replace(from, frame)),
        _ => None,
    }
}

impl Channel for CryptoChannel {
    fn submit(&mut self, io: Io, now: Instant) -> Result<(), Refused> {
        if self.below.is_full() {
            return Err(io.refuse(IoError::Busy));
        }
        if let Err(why) = self.check(io.op()) {
            self.done.push_back(io.complete(Err(why), now));
            return Ok(());
        }
        match io.op() {
            Op::CryptoErase => self.begin_erase(io, now),
            _ => self.pass(io, now),
        }
    }

    fn poll(&mut self, now: Instant, done: &mut Completions) -> Progress {
        let mut below = Completions::new();
        let mut progress = self.base.poll(now, &mut below);
        for completed in below {
            if completed.tag == ERASES {
                self.on_erase_step(completed.result, now);
                continue;
            }
            let ours = self.below.remove(Key::from_bits(completed.tag.0));
            self.answer(ours.expect("the device below answers what it was given"), completed);
        }
        self.drive(now);
        progress |= Progress::from_count(self.done.len());
        done.append(&mut self.done);
        progress
    }

    fn next_deadline(&self) -> Option<Instant> {
        let own = self.work.as_ref().filter(|work| work.writer.is_ready()).map(|_| Instant::EPOCH);
        Instant::earliest(own, self.base.next_deadline())
    }

    fn link(&self, now: Instant) -> Link {
        match self.base.link(now) {
            Link::Up { session, alive_at, .. } => {
                Link::Up { session, geometry: self.device.geometry(), alive_at }
            }
            down @ Link::Down(_) => down,
        }
    }
}

impl Drop for CryptoChannel {
    fn drop(&mut self) {
        self.end_erase(Err(IoError::Aborted), Instant::EPOCH);
    }
}
