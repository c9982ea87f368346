//! The sending half: slots of adjacent chunks, so that a frame's bytes are in one piece for whoever writes them.

use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;

use super::super::transmit::{Counts, Told, tell};
use super::super::{SendRequest, Transmit};
use super::ring::{Consumer, Producer};
use super::umem::{CHUNK, Umem};

/// Calls of one kick at the most: in copy mode one takes 32 chunks.
const CALLS_MAX: usize = 32;

/// See the module.
#[derive(Debug)]
pub struct XdpSender {
    umem: Rc<Umem>,
    fd: RawFd,
    ring: Producer<libc::xdp_desc>,
    completed: Consumer<u64>,
    /// Where the slots begin, and how many chunks each one is.
    base: usize,
    chunks: usize,
    /// Chunks of each slot that the kernel has.
    away: Vec<u8>,
    free: Vec<usize>,
    told: Told,
    counts: Counts,
}

impl XdpSender {
    /// `fd` stays open as long as the device.
    pub(super) fn new(
        umem: Rc<Umem>,
        fd: RawFd,
        (ring, completed): (Producer<libc::xdp_desc>, Consumer<u64>),
        base: usize,
        (slots, chunks): (usize, usize),
    ) -> Self {
        let free = (0..slots).rev().collect();
        let (away, counts) = (vec![0; slots], Counts::default());
        Self { umem, fd, ring, completed, base, chunks, away, free, told: Told::Everything, counts }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn is_pending(&self) -> bool {
        self.told == Told::NotYet
    }

    fn slot(&self, index: usize) -> usize {
        self.base + index * self.chunks * CHUNK
    }

    /// Takes back what was sent.
    pub(super) fn reclaim(&mut self) {
        let mut taken = 0;
        while let Some(address) = self.completed.peek(taken) {
            taken += 1;
            let at = usize::try_from(address).unwrap_or(usize::MAX).saturating_sub(self.base);
            let index = at / (self.chunks * CHUNK);
            let Some(away) = self.away.get_mut(index).filter(|away| **away > 0) else { continue };
            *away -= 1;
            if *away == 0 {
                self.free.push(index);
            }
        }
        if taken > 0 {
            self.completed.take(taken);
        }
    }

    /// Tells the kernel of everything committed.
    pub(super) fn kick(&mut self) -> io::Result<()> {
        self.reclaim();
        if self.told == Told::Everything {
            return Ok(());
        }
        self.ring.publish();
        for _ in 0..CALLS_MAX {
            if !self.ring.needs_wake_up() {
                self.told = Told::Everything;
                return Ok(());
            }
            self.counts.kicks += 1;
            let Err(error) = tell(self.fd) else {
                self.told = Told::Everything;
                return Ok(());
            };
            match error.raw_os_error() {
                // There is more than one call takes, or than the socket or the NIC has room for.
                Some(libc::EAGAIN) => self.reclaim(),
                // Later: the NIC's queue is full.
                Some(libc::EBUSY | libc::ENOBUFS | libc::EINTR) => return Ok(()),
                _ => return Err(error),
            }
        }
        // The rest with a later call.
        Ok(())
    }
}

impl Transmit for XdpSender {
    fn has_room(&self) -> bool {
        !self.free.is_empty() && self.ring.room() as usize >= self.chunks
    }

    fn reserve(&mut self, len: usize) -> Option<&mut [u8]> {
        if len > self.chunks * CHUNK || !self.has_room() {
            return None;
        }
        let at = self.slot(*self.free.last()?);
        // SAFETY: a free slot's chunks are this process's until they are pushed to the ring, which needs `&mut self`, and no other
        // slice of them is made before.
        Some(unsafe { self.umem.bytes_mut(at, len) })
    }

    fn commit(&mut self, len: usize, request: SendRequest) {
        assert_eq!(request, SendRequest::default(), "nothing is left to this device");
        assert!((1..=self.chunks * CHUNK).contains(&len), "committed a frame that was not reserved");
        let index = self.free.pop().expect("a slot was reserved");
        let at = self.slot(index);
        let pieces = len.div_ceil(CHUNK);
        for piece in 0..pieces {
            let begin = piece * CHUNK;
            let options = if piece + 1 < pieces { libc::XDP_PKT_CONTD } else { 0 };
            let len = u32::try_from(CHUNK.min(len - begin)).expect("a chunk is short");
            self.ring.push(libc::xdp_desc { addr: (at + begin) as u64, len, options });
        }
        self.away[index] = u8::try_from(pieces).expect("a slot is a few chunks");
        self.counts.frames += 1;
        self.counts.bytes += len as u64;
        self.told = Told::NotYet;
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsRawFd, FromRawFd};
    use std::os::unix::fs::FileExt;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    const PAGE: u64 = 4096;
    const OFFSETS: libc::xdp_ring_offset =
        libc::xdp_ring_offset { producer: 0, consumer: 64, desc: 256, flags: 128 };

    /// Memory as the kernel's, with two rings, of which the first wants to be told.
    fn memory() -> File {
        // SAFETY: the name is a constant string.
        let fd = unsafe { libc::memfd_create(c"rings".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the descriptor was just made and nobody else has it.
        let memory = unsafe { File::from_raw_fd(fd) };
        memory.set_len(2 * PAGE).expect("two pages");
        memory.write_all_at(&libc::XDP_RING_NEED_WAKEUP.to_ne_bytes(), OFFSETS.flags).expect("flags");
        memory
    }

    #[test]
    fn frames_that_the_kernel_has_no_room_for_are_told_of_again() {
        let memory = memory();
        let raw = memory.as_raw_fd();
        let ring = Producer::map(raw, 0, &OFFSETS, 8).expect("a ring");
        let completed = Consumer::map(raw, PAGE, &OFFSETS, 8).expect("a ring");
        let umem = Rc::new(Umem::new(8).expect("memory"));
        // Whose buffer fills like a socket's of the kind: EAGAIN.
        let (socket, kernel) = UnixDatagram::pair().expect("a pair");
        socket.set_nonblocking(true).expect("set");
        kernel.set_nonblocking(true).expect("set");
        while socket.send(&[]).is_ok() {}
        let mut sender = XdpSender::new(umem, socket.as_raw_fd(), (ring, completed), 0, (8, 1));
        sender.reserve(60).expect("room").fill(1);
        sender.commit(60, SendRequest::default());
        sender.kick().expect("no error");
        assert!(sender.is_pending(), "the frame has not left");
        while kernel.recv(&mut []).is_ok() {}
        sender.kick().expect("no error");
        assert!(!sender.is_pending());
    }
}
