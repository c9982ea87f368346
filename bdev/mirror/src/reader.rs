//! Reads metadata of a leg: the head and tail that say what is there, then the log's ring and the bitmap.
//!
//! A chunk that cannot be read is read again block by block: one bad sector takes the copy that it is in, and not its
//! neighbours with it (R9 keeps two slots of the superblock in one chunk), and an error that passes takes nothing. What
//! still cannot be read is handed over as all ones, never as zeroes: every decoder takes that for damage, and damage counts
//! as "may differ". A leg that goes away ends the job.

use bdev::{Completed, IoError, Op};
use uuid::Uuid;

use crate::bitmap::Bitmap;
use crate::desk::{Desk, Purpose, Side};
use crate::format::layout::{BITMAP_OFFSET, LOG_LEN, LOG_OFFSET, Layout};
use crate::format::{BLOCK_BYTES, Superblock, UnitState};
use crate::intent_log::{Replay, replay};
use crate::probe::{HEAD_LEN, Image, LegFound, TAIL_LEN, classify};
use crate::range::ByteRange;

/// Bytes of one read.
const CHUNK: u64 = 64 << 10;
/// How often a block by itself is asked for.
const TRIES: u32 = 3;
/// Errors of one job after which nothing is asked for twice any more: such a disk is broken, and each error may take it long.
const ERRORS_MAX: u32 = 64;

/// A job: some stretches of a leg, read one after the other.
#[derive(Debug)]
pub(crate) struct Reader {
    side: Side,
    job: u32,
    stretches: Vec<ByteRange>,
    images: Vec<Vec<u8>>,
    /// The chunk or block on its way.
    sent: Option<ByteRange>,
    /// A chunk that failed: its blocks are read one by one.
    singly: Option<ByteRange>,
    /// How often the block that is due has failed by itself.
    failed: u32,
    /// Errors so far.
    errors: u32,
    /// Why a block was given up.
    unread: Option<IoError>,
}

/// What a job is at.
#[derive(Debug)]
pub(crate) enum Reading {
    /// More to come.
    Continues,
    /// One image for each stretch.
    Done(Vec<Vec<u8>>),
    /// The leg cannot be reached.
    Lost(IoError),
}

impl Reader {
    /// The stretches that [`found`] looks at.
    pub(crate) fn of_identity(side: Side, job: u32, leg_size: u64) -> Self {
        Self::new(side, job, identity(leg_size))
    }

    /// The identity, the ring and the bitmap of a leg with this layout.
    pub(crate) fn of_everything(side: Side, job: u32, leg_size: u64, layout: &Layout) -> Self {
        let mut stretches = identity(leg_size);
        stretches.extend(details(layout));
        Self::new(side, job, stretches)
    }

    fn new(side: Side, job: u32, stretches: Vec<ByteRange>) -> Self {
        let images = vec![Vec::new(); stretches.len()];
        Self { side, job, stretches, images, sent: None, singly: None, failed: 0, errors: 0, unread: None }
    }

    fn is_single(&self, start: u64) -> bool {
        self.singly.is_some_and(|failed| (failed.start..failed.end()).contains(&start))
    }

    fn next_chunk(&self) -> Option<ByteRange> {
        let unread = |(stretch, image): (&ByteRange, &Vec<u8>)| {
            let done = image.len() as u64;
            let start = stretch.start + done;
            let most = if self.is_single(start) { BLOCK_BYTES } else { CHUNK };
            (done < stretch.len).then(|| ByteRange::new(start, most.min(stretch.len - done)))
        };
        self.stretches.iter().zip(&self.images).find_map(unread)
    }

    /// Sends the next read, if a frame is there; of a block, where there is none for more.
    pub(crate) fn poke(&mut self, desk: &mut Desk) {
        if self.sent.is_some() {
            return;
        }
        let Some(chunk) = self.next_chunk() else { return };
        let len = usize::try_from(chunk.len).expect("a chunk is short");
        let (chunk, frame) = match desk.frame(len) {
            Some(frame) => (chunk, frame),
            None => {
                let Some(frame) = desk.metadata_frame() else { return };
                (ByteRange::new(chunk.start, BLOCK_BYTES.min(chunk.len)), frame)
            }
        };
        desk.read(self.side, chunk, frame, Purpose::Read { job: self.job });
        self.sent = Some(chunk);
    }

    /// A read ended. One of another job is not ours.
    pub(crate) fn on_done(&mut self, job: u32, completed: &Completed, desk: &mut Desk) -> Reading {
        if job != self.job {
            return Reading::Continues;
        }
        let Some(chunk) = self.sent.take() else { return Reading::Continues };
        let Op::Read { into, .. } = &completed.op else { return Reading::Continues };
        let at = self
            .stretches
            .iter()
            .position(|stretch| chunk.start >= stretch.start && chunk.end() <= stretch.end());
        let at = at.expect("a chunk of ours");
        match completed.result {
            Ok(()) => {
                self.images[at].extend_from_slice(into);
                self.failed = 0;
            }
            Err(error @ (IoError::Medium { .. } | IoError::Os(_))) => {
                if self.is_given_up(chunk) {
                    self.unread = Some(error);
                    let image = &mut self.images[at];
                    image.resize(image.len() + into.len(), 0xff);
                }
            }
            Err(error) => return Reading::Lost(error),
        }
        self.poke(desk);
        if self.sent.is_none() && self.next_chunk().is_none() {
            return Reading::Done(core::mem::take(&mut self.images));
        }
        Reading::Continues
    }

    /// The last error of what could not be read.
    pub(crate) fn unread(&self) -> Option<IoError> {
        self.unread
    }

    /// A read failed: true when it is not tried again.
    fn is_given_up(&mut self, chunk: ByteRange) -> bool {
        self.errors += 1;
        let hopeless = self.errors >= ERRORS_MAX;
        if hopeless {
            self.singly = None;
        } else if !self.is_single(chunk.start) {
            self.singly = Some(chunk);
            return false;
        }
        self.failed += 1;
        let over = hopeless || self.failed >= TRIES;
        if over {
            self.failed = 0;
        }
        over
    }
}

/// The stretches that say what is there: the head, and the tail.
pub(crate) fn identity(leg_size: u64) -> Vec<ByteRange> {
    let head = ByteRange::new(0, HEAD_LEN.min(leg_size));
    let end = leg_size / 4096 * 4096;
    let tail = TAIL_LEN.min(end);
    vec![head, ByteRange::new(end - tail, tail)]
}

/// The stretches that say in what a leg with this layout may differ: the ring, and the bitmap.
pub(crate) fn details(layout: &Layout) -> [ByteRange; 2] {
    [ByteRange::new(LOG_OFFSET, LOG_LEN), ByteRange::new(BITMAP_OFFSET, layout.bitmap_len())]
}

/// Says what the identity's images hold.
pub(crate) fn found(leg_size: u64, images: &[Vec<u8>], expected: impl Into<Option<Uuid>>) -> LegFound {
    classify(&Image { leg_size, head: &images[0], tail: &images[1] }, expected.into())
}

/// The logical unit's state in the identity's images.
pub(crate) fn unit_state(images: &[Vec<u8>], array: Uuid) -> UnitState {
    UnitState::newest(&images[0], array)
}

/// What the ring and the bitmap behind the identity say.
pub(crate) fn differences(images: &[Vec<u8>], superblock: &Superblock) -> (Replay, Bitmap) {
    let replayed = replay(&images[2], superblock.array, &superblock.layout.log);
    let (bitmap, _) = Bitmap::load(superblock.array, &superblock.layout, &images[3]);
    (replayed, bitmap)
}
