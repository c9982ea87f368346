//! The sending half.

use core::num::NonZeroU16;
use core::slice;
use std::io;
use std::os::fd::RawFd;

use super::Transmit;
use super::receive::VNET_HEADER;
use super::ring::{FRAME, Ring};

/// Where the data of a frame to send begin: after the aligned `tpacket2_hdr`.
const DATA: usize = size_of::<libc::tpacket2_hdr>();
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;

/// A checksum that the NIC, or the kernel, is to complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// The first byte that it covers, from the frame's beginning.
    pub start: u16,
    /// Where it is, from `start`; it holds the sum of the pseudo header.
    pub offset: u16,
}

/// What is cut to segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentFormat {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
}

/// A frame that is cut on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// How.
    pub format: SegmentFormat,
    /// Payload bytes of one segment.
    pub size: NonZeroU16,
}

/// What is to be done to a frame on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendRequest {
    /// Bytes of all headers together; zero where nothing is to be done.
    pub header_len: u16,
    /// The checksum to complete.
    pub checksum: Option<PartialChecksum>,
    /// Cut it.
    pub segmentation: Option<Segmentation>,
}

impl SendRequest {
    /// `struct virtio_net_hdr`, in the machine's byte order.
    pub(super) fn header(&self) -> [u8; VNET_HEADER] {
        let mut header = [0; VNET_HEADER];
        let mut put = |at: usize, value: u16| header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        put(2, self.header_len);
        put(4, self.segmentation.map_or(0, |cut| cut.size.get()));
        put(6, self.checksum.map_or(0, |sum| sum.start));
        put(8, self.checksum.map_or(0, |sum| sum.offset));
        header[0] = if self.checksum.is_some() { NEEDS_CHECKSUM } else { 0 };
        header[1] = match self.segmentation.map(|cut| cut.format) {
            None => 0,
            Some(SegmentFormat::TcpV4) => 1,
            Some(SegmentFormat::TcpV6) => 4,
        };
        header
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) frames: u64,
    pub(super) bytes: u64,
    pub(super) kicks: u64,
    pub(super) refused: u64,
}

/// Whether committed frames wait for the kernel to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Everything,
    NotYet,
}

/// Tells the kernel that there are frames in a socket's ring. It says how many bytes it took.
pub(super) fn tell(fd: RawFd) -> io::Result<u64> {
    // SAFETY: no buffer and no address are passed; the descriptor is its owner's, who is there.
    let sent = unsafe { libc::sendto(fd, core::ptr::null(), 0, libc::MSG_DONTWAIT, core::ptr::null(), 0) };
    u64::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Whether all that was committed since the kernel had everything will have been taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Account {
    /// It has so many bytes to take yet.
    Open(u64),
    /// A call failed, and does not say what it took before.
    Lost,
}

/// See the module.
#[derive(Debug)]
pub struct Transmitter {
    ring: Ring,
    fd: RawFd,
    told: Told,
    account: Account,
    counts: Counts,
}

impl Transmitter {
    /// The longest frame, in bytes from the Ethernet header on.
    pub const FRAME_MAX: usize = FRAME - DATA - VNET_HEADER;

    /// `fd` stays open as long as the device.
    pub(super) fn new(ring: Ring, fd: RawFd) -> Self {
        Self { ring, fd, told: Told::Everything, account: Account::Open(0), counts: Counts::default() }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn is_pending(&self) -> bool {
        self.told == Told::NotYet
    }

    /// Tells the kernel of everything committed.
    pub(super) fn kick(&mut self) -> io::Result<()> {
        if self.told == Told::Everything {
            return Ok(());
        }
        self.counts.kicks += 1;
        match tell(self.fd) {
            Ok(taken) => {
                self.note_taken(taken);
                Ok(())
            }
            Err(error) => {
                self.account = Account::Lost;
                match error.raw_os_error() {
                    // Later: the NIC's queue is full.
                    Some(libc::EAGAIN | libc::ENOBUFS | libc::EINTR) => Ok(()),
                    _ => Err(error),
                }
            }
        }
    }

    /// A call took so many bytes. It ends early, without an error, where the socket has no room for all.
    fn note_taken(&mut self, bytes: u64) {
        if let Account::Open(open) = &mut self.account {
            *open = open.saturating_sub(bytes);
        }
        if self.ring.last_status() & libc::TP_STATUS_SEND_REQUEST != 0 {
            return;
        }
        self.told = Told::Everything;
        // What is no use is skipped, and not among the bytes that were taken.
        self.counts.refused += u64::from(matches!(self.account, Account::Open(1..)));
        self.account = Account::Open(0);
    }
}

impl Transmit for Transmitter {
    fn has_room(&self) -> bool {
        self.ring.status() & (libc::TP_STATUS_SEND_REQUEST | libc::TP_STATUS_SENDING) == 0
    }

    fn reserve(&mut self, len: usize) -> Option<&mut [u8]> {
        if len > Self::FRAME_MAX || !self.has_room() {
            return None;
        }
        let data = DATA + VNET_HEADER;
        // SAFETY: the bytes lie in the frame (`FRAME_MAX`), and the kernel is done with it (`has_room`) and does not look at
        // it before `commit` sets its status, which needs `&mut self`. They are initialised: the kernel maps zeroes.
        Some(unsafe { slice::from_raw_parts_mut(self.ring.frame().as_ptr().add(data), len) })
    }

    fn commit(&mut self, len: usize, request: SendRequest) {
        assert!(len <= Self::FRAME_MAX && self.has_room(), "committed a frame that was not reserved");
        let frame = self.ring.frame().as_ptr();
        let vnet = request.header();
        let total = u32::try_from(len + VNET_HEADER).expect("a frame is short");
        // SAFETY: the frame is this process's (`has_room`); the header's fields and the `virtio_net_hdr` lie in it, and it
        // is aligned to a page.
        unsafe {
            (&raw mut (*frame.cast::<libc::tpacket2_hdr>()).tp_len).write(total);
            frame.add(DATA).copy_from_nonoverlapping(vnet.as_ptr(), VNET_HEADER);
        }
        self.ring.set_status(libc::TP_STATUS_SEND_REQUEST);
        self.ring.advance();
        self.counts.frames += 1;
        self.counts.bytes += len as u64;
        self.told = Told::NotYet;
        if let Account::Open(open) = &mut self.account {
            *open += len as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;
    use std::rc::Rc;

    use memmap2::{MmapMut, MmapRaw};

    use super::super::ring::Geometry;
    use super::*;

    const LEN: usize = 60;

    /// A ring, the same one as the kernel sees it, and a socket that is told and takes nothing by itself.
    struct Bench {
        sender: Transmitter,
        kernel: Ring,
        _sockets: (UnixDatagram, UnixDatagram),
    }

    impl Bench {
        fn new() -> Self {
            let geometry = Geometry::new(15);
            let map = Rc::new(MmapRaw::from(MmapMut::map_anon(geometry.bytes()).expect("memory")));
            let sockets = UnixDatagram::pair().expect("a pair");
            let sender = Transmitter::new(geometry.ring(&map, 0), sockets.0.as_raw_fd());
            Self { sender, kernel: geometry.ring(&map, 0), _sockets: sockets }
        }

        fn commit(&mut self, frames: usize) {
            for _ in 0..frames {
                self.sender.reserve(LEN).expect("room").fill(1);
                self.sender.commit(LEN, SendRequest::default());
            }
        }

        /// The kernel is done with so many frames.
        fn take(&mut self, frames: usize) {
            for _ in 0..frames {
                assert_eq!(self.kernel.status(), libc::TP_STATUS_SEND_REQUEST);
                self.kernel.set_status(libc::TP_STATUS_AVAILABLE);
                self.kernel.advance();
            }
        }
    }

    /// A socket whose buffer is full ends a call early, and that is no error.
    #[test]
    fn frames_that_a_call_did_not_come_to_are_told_of_again() {
        let mut bench = Bench::new();
        bench.commit(3);
        bench.take(1);
        bench.sender.note_taken(LEN as u64);
        assert!(bench.sender.is_pending(), "two have not left");
        bench.sender.kick().expect("no error");
        assert!(bench.sender.is_pending(), "nor have they now");
        bench.take(2);
        bench.sender.note_taken(2 * LEN as u64);
        assert!(!bench.sender.is_pending());
        assert_eq!((bench.sender.counts.kicks, bench.sender.counts.refused), (1, 0));
    }

    #[test]
    fn frames_that_the_kernel_skips_are_counted() {
        let mut bench = Bench::new();
        bench.commit(2);
        bench.take(2);
        bench.sender.note_taken(LEN as u64);
        assert_eq!((bench.sender.is_pending(), bench.sender.counts.refused), (false, 1));
        // The account is even again.
        bench.commit(1);
        bench.take(1);
        bench.sender.note_taken(LEN as u64);
        assert_eq!(bench.sender.counts.refused, 1);
    }
}
