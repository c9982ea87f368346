//! The far end of a TAP interface: its kernel is at the other end of the wire. For an initiator or a target on the same machine.
//!
//! Owner: one reactor. Frames go one by one through read(2) and write(2), each with its `virtio_net_hdr`: long ones are not cut, and
//! checksums are not made, as both ends are in one memory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use super::interface::{self, Interface, LinkState};
use super::receive::{self, VNET_HEADER};
use super::transmit;
use super::{
    ChecksumState, KernelDevice, PacketConfig, PacketError, PacketStats, Received, SendRequest, Transmit,
};
use crate::socket::Socket;

/// The longest packet that IPv4 can say the length of, and an Ethernet header.
const FRAME_MAX: usize = 65_535 + 14;
const DEVICE: &str = "/dev/net/tun";

/// See the module.
#[derive(Debug)]
pub struct TapDevice {
    interface: Interface,
    file: File,
    socket: Socket,
    /// A socket to ask about the interface.
    watch: OwnedFd,
    frame: Vec<u8>,
    counts: receive::Counts,
    transmitter: TapSender,
}

/// The sending half of a TAP.
#[derive(Debug)]
pub struct TapSender {
    file: File,
    frame: Vec<u8>,
    counts: transmit::Counts,
}

impl TapSender {
    /// The longest frame, in bytes from the Ethernet header on.
    pub const FRAME_MAX: usize = FRAME_MAX;
}

impl TapDevice {
    /// Takes the far end of a TAP that is there, and up.
    ///
    /// # Errors
    /// See [`PacketError`].
    pub fn open(config: &PacketConfig) -> Result<Self, PacketError> {
        let interface = Interface::find(&config.interface)?;
        interface.check_mtu(config.mtu)?;
        let fail = |what| {
            let interface = interface.name.clone();
            move |source: io::Error| match source.raw_os_error() {
                // Of another kind, or another process has its far end.
                Some(libc::EINVAL | libc::EBUSY) => PacketError::NotTap(interface),
                _ => PacketError::of(interface, what, source),
            }
        };
        let options = |options: &mut OpenOptions| {
            options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(DEVICE)
        };
        let file = options(&mut OpenOptions::new()).map_err(fail(DEVICE))?;
        interface::take_tap(file.as_raw_fd(), &interface.name).map_err(fail("TUNSETIFF"))?;
        take_long_frames(file.as_raw_fd()).map_err(fail("TUNSETOFFLOAD"))?;
        let other = file.try_clone().map_err(fail("a second descriptor"))?;
        let third = file.try_clone().map_err(fail("a third descriptor"))?;
        let watch = super::packet_socket().map_err(fail("packet socket"))?;
        Ok(Self {
            interface,
            file,
            socket: Socket::from_fd(other.into()),
            watch,
            frame: vec![0; VNET_HEADER + FRAME_MAX],
            counts: receive::Counts::default(),
            transmitter: TapSender {
                file: third,
                frame: vec![0; VNET_HEADER + FRAME_MAX],
                counts: transmit::Counts::default(),
            },
        })
    }
}

/// `TUN_F_CSUM`, `TUN_F_TSO4`, `TUN_F_TSO6`: the kernel leaves the work to this end.
const OFFLOADS: libc::c_ulong = 1 | 2 | 4;

fn take_long_frames(fd: RawFd) -> io::Result<()> {
    // SAFETY: the argument is a number.
    let result = unsafe { libc::ioctl(fd, libc::TUNSETOFFLOAD, OFFLOADS) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Transmit for TapSender {
    fn has_room(&self) -> bool {
        true
    }

    fn reserve(&mut self, len: usize) -> Option<&mut [u8]> {
        self.frame.get_mut(VNET_HEADER..VNET_HEADER + len)
    }

    fn commit(&mut self, len: usize, request: SendRequest) {
        self.frame[..VNET_HEADER].copy_from_slice(&request.header());
        self.counts.kicks += 1;
        match self.file.write(&self.frame[..VNET_HEADER + len]) {
            // One call takes one frame.
            Ok(taken) if taken == VNET_HEADER + len => {
                self.counts.frames += 1;
                self.counts.bytes += len as u64;
            }
            // The interface is down, or its queue is full: lost, as on any wire.
            Ok(_) | Err(_) => self.counts.refused += 1,
        }
    }
}

impl KernelDevice for TapDevice {
    type Sender = TapSender;

    fn interface(&self) -> &Interface {
        &self.interface
    }

    fn receive(&mut self) -> Option<(Received<'_>, &mut TapSender)> {
        let len = self.file.read(&mut self.frame).ok()?.checked_sub(VNET_HEADER)?;
        self.counts.frames += 1;
        self.counts.bytes += len as u64;
        let bytes = &self.frame[VNET_HEADER..VNET_HEADER + len];
        Some((Received { bytes, checksum: ChecksumState::of(self.frame[0]) }, &mut self.transmitter))
    }

    fn transmitter(&mut self) -> &mut TapSender {
        &mut self.transmitter
    }

    fn kick(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn is_pending(&self) -> bool {
        false
    }

    fn link_state(&self) -> LinkState {
        interface::state_of(self.watch.as_raw_fd(), &self.interface)
    }

    fn mtu(&self) -> Option<u32> {
        interface::mtu_of(self.watch.as_raw_fd(), &self.interface)
    }

    fn stats(&mut self) -> PacketStats {
        PacketStats::new(self.counts, self.transmitter.counts, 0)
    }

    fn socket(&self) -> &Socket {
        &self.socket
    }
}
