//! The receiving half: chunks that the kernel fills, several for a frame of more than one.

use std::rc::Rc;

use super::super::receive::Counts;
use super::super::{ChecksumState, Received};
use super::ring::{Consumer, Producer};
use super::umem::{CHUNK, Umem};

/// The longest frame, of as many chunks as a packet of the kernel's has parts.
const FRAME_MAX: usize = 17 * CHUNK;

/// See the module.
#[derive(Debug)]
pub(super) struct XdpReceiver {
    umem: Rc<Umem>,
    fill: Producer<u64>,
    ring: Consumer<libc::xdp_desc>,
    /// Bytes of the memory that are received into, from its beginning.
    len: usize,
    /// The chunk that is being shown.
    shown: Option<u64>,
    /// Frames of several chunks are put together here.
    together: Vec<u8>,
    counts: Counts,
}

impl XdpReceiver {
    pub(super) fn new(
        umem: Rc<Umem>,
        mut fill: Producer<u64>,
        ring: Consumer<libc::xdp_desc>,
        chunks: usize,
    ) -> Self {
        (0..chunks).for_each(|chunk| fill.push((chunk * CHUNK) as u64));
        fill.publish();
        let together = Vec::with_capacity(FRAME_MAX);
        Self { umem, fill, ring, len: chunks * CHUNK, shown: None, together, counts: Counts::default() }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// True when the kernel has to be told that there is room again.
    pub(super) fn needs_wake_up(&self) -> bool {
        self.fill.needs_wake_up()
    }

    /// Gives the chunk that was shown last back to the kernel.
    pub(super) fn give_back(&mut self) {
        if let Some(chunk) = self.shown.take() {
            self.fill.push(chunk);
            self.fill.publish();
        }
    }

    /// The next frame that is any use. Gives the one before back.
    pub(super) fn next(&mut self) -> Option<Received<'_>> {
        self.give_back();
        loop {
            let pieces = self.whole()?;
            let first = self.ring.peek(0)?;
            let lies_here = |piece: &libc::xdp_desc| {
                let at = usize::try_from(piece.addr).unwrap_or(usize::MAX);
                at.checked_add(piece.len as usize).is_some_and(|end| end <= self.len)
            };
            if pieces == 1 && lies_here(&first) {
                self.ring.take(1);
                self.shown = Some(chunk_of(first.addr));
                return Some(self.show(first));
            }
            self.together.clear();
            let mut is_whole = true;
            for ahead in 0..pieces {
                let piece = self.ring.peek(ahead).filter(lies_here);
                let room = FRAME_MAX - self.together.len();
                let Some(piece) = piece else {
                    is_whole = false;
                    continue;
                };
                is_whole &= piece.len as usize <= room;
                if is_whole {
                    // SAFETY: the kernel has filled the chunk, which lies in the part to receive into, and does not write to it
                    // until it is pushed below.
                    let bytes = unsafe { self.umem.bytes(place(piece.addr), piece.len as usize) };
                    self.together.extend_from_slice(bytes);
                }
                self.fill.push(chunk_of(piece.addr));
            }
            self.fill.publish();
            self.ring.take(pieces);
            if is_whole {
                self.counts.frames += 1;
                self.counts.bytes += self.together.len() as u64;
                return Some(Received { bytes: &self.together, checksum: ChecksumState::Unverified });
            }
            self.counts.unusable += 1;
        }
    }

    fn show(&mut self, piece: libc::xdp_desc) -> Received<'_> {
        self.counts.frames += 1;
        self.counts.bytes += u64::from(piece.len);
        // SAFETY: the kernel has filled the chunk, which lies in the part to receive into; it is given back by `give_back`, which
        // needs `&mut self`, and not written to before.
        let bytes = unsafe { self.umem.bytes(place(piece.addr), piece.len as usize) };
        Received { bytes, checksum: ChecksumState::Unverified }
    }

    /// How many entries the next frame is; `None` when none is there as a whole.
    fn whole(&self) -> Option<u32> {
        let mut count = 0;
        loop {
            let piece = self.ring.peek(count)?;
            count += 1;
            if piece.options & libc::XDP_PKT_CONTD == 0 {
                return Some(count);
            }
        }
    }
}

fn place(address: u64) -> usize {
    usize::try_from(address).expect("an address in this process")
}

fn chunk_of(address: u64) -> u64 {
    address & !(CHUNK as u64 - 1)
}
