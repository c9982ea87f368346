//! The receiving half.

use core::slice;

use super::ring::{FRAME, Ring};

/// Bytes of `struct virtio_net_hdr`.
pub(super) const VNET_HEADER: usize = 10;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum is still partial, because the frame never left the machine.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_F_DATA_VALID`: somebody has verified it.
const DATA_VALID: u8 = 2;

/// What is known of a frame's transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumState {
    /// The kernel or the NIC vouches for it.
    Trusted,
    /// Nobody has looked.
    Unverified,
}

impl ChecksumState {
    /// By the flags of a `virtio_net_hdr`.
    pub(super) fn of(flags: u8) -> Self {
        if flags & (NEEDS_CHECKSUM | DATA_VALID) != 0 { Self::Trusted } else { Self::Unverified }
    }
}

/// A received frame, in the ring.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// From the Ethernet header on. Longer than the MTU when segments were merged on their way.
    pub bytes: &'a [u8],
    /// Of its transport protocol.
    pub checksum: ChecksumState,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) frames: u64,
    pub(super) bytes: u64,
    pub(super) unusable: u64,
}

/// Whose the next frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The kernel's, or one that was not looked at.
    Next,
    /// It was shown.
    Shown,
}

/// See the module.
#[derive(Debug)]
pub struct Receiver {
    ring: Ring,
    turn: Turn,
    counts: Counts,
}

impl Receiver {
    pub(super) fn new(ring: Ring) -> Self {
        Self { ring, turn: Turn::Next, counts: Counts::default() }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Gives the frame that was shown last back to the kernel.
    pub(super) fn give_back(&mut self) {
        if self.turn == Turn::Shown {
            self.turn = Turn::Next;
            self.ring.set_status(libc::TP_STATUS_KERNEL);
            self.ring.advance();
        }
    }

    /// The next frame that is any use. Gives the one before back.
    pub(super) fn next(&mut self) -> Option<Received<'_>> {
        self.give_back();
        let usable = (0..self.ring.frames()).find_map(|_| {
            if self.ring.status() & libc::TP_STATUS_USER == 0 {
                return Some(None);
            }
            self.turn = Turn::Shown;
            let found = self.look();
            if found.is_none() {
                self.counts.unusable += 1;
                self.give_back();
            }
            found.map(Some)
        });
        let (offset, len, checksum) = usable??;
        self.counts.frames += 1;
        self.counts.bytes += len as u64;
        // SAFETY: `look` has checked that the bytes lie in the frame. The frame is this process's until `give_back`, which
        // needs `&mut self`; the kernel does not write to it before.
        let bytes = unsafe { slice::from_raw_parts(self.ring.frame().as_ptr().add(offset), len) };
        Some(Received { bytes, checksum })
    }

    /// Where the frame's bytes are; `None` for one that is no use: of a VLAN, cut short, or damaged.
    fn look(&self) -> Option<(usize, usize, ChecksumState)> {
        let frame = self.ring.frame();
        // SAFETY: the frame is this process's, begins with a `tpacket2_hdr`, and is aligned to a page.
        let header = unsafe { frame.cast::<libc::tpacket2_hdr>().as_ptr().read() };
        let (offset, len) = (usize::from(header.tp_mac), header.tp_snaplen as usize);
        let whole = header.tp_snaplen == header.tp_len && offset + len <= FRAME;
        let tagged = header.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
        if tagged || !whole || offset < size_of::<libc::tpacket2_hdr>() + VNET_HEADER {
            return None;
        }
        // SAFETY: the `virtio_net_hdr` lies right before the Ethernet header, in the frame.
        let flags = unsafe { frame.as_ptr().add(offset - VNET_HEADER).read() };
        Some((offset, len, ChecksumState::of(flags)))
    }
}
