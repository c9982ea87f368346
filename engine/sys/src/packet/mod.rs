//! A packet socket with its own rings (`TPACKET_V2`) on one Ethernet interface, for a TCP/IP stack in this process.
//!
//! Owner: one reactor, which polls the rings; there is no system call for each frame. A `virtio_net_hdr` goes with each frame
//! (`PACKET_VNET_HDR`): what the kernel has verified is not verified again, and frames longer than the MTU pass in both
//! directions, segmented by the NIC or where they leave the machine. Own transmissions are not seen
//! (`PACKET_IGNORE_OUTGOING`).
//!
//! Beside it are two other ways to the same frames, behind one trait ([`KernelDevice`]): an AF_XDP socket (`xdp/`), and the far end of a
//! TAP interface of this machine (`tap.rs`).
//!
//! Invariants:
//! - a received frame belongs to this process from its status word saying so until [`PacketDevice::receive`] or
//!   [`PacketDevice::kick`] is called next, which give it back;
//! - a frame to send is written only while its status word says that the kernel is done with it.

mod changes;
mod interface;
mod option;
mod receive;
mod ring;
mod tap;
mod transmit;
mod xdp;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use memmap2::{MmapOptions, MmapRaw};
use thiserror::Error;

pub use changes::InterfaceChanges;
pub use interface::{Interface, LinkState, kernel_addresses};
pub use receive::{ChecksumState, Received, Receiver};
pub use tap::{TapDevice, TapSender};
pub use transmit::{PartialChecksum, SegmentFormat, Segmentation, SendRequest, Transmitter};
pub use xdp::{XdpDevice, XdpMode, XdpSender};

use crate::socket::{Socket, descriptor};
use ring::Geometry;

/// What to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketConfig {
    /// The interface's name.
    pub interface: String,
    /// The least MTU that it must have, in bytes without the Ethernet header.
    pub mtu: u32,
    /// A unicast address that is received beside the interface's own.
    pub address: [u8; 6],
    /// Multicast addresses that are received: a NIC drops what nobody has asked for.
    pub groups: Vec<[u8; 6]>,
    /// Frames that the receive ring holds.
    pub receive_frames: u32,
    /// Frames that the transmit ring holds.
    pub transmit_frames: u32,
}

impl PacketConfig {
    /// Has the interface receive what the socket wants beside its own address.
    fn join(&self, fd: RawFd, interface: &Interface) -> io::Result<()> {
        let own = [self.address].into_iter().filter(|address| *address != interface.address);
        own.chain(self.groups.iter().copied())
            .try_for_each(|address| option::add_address(fd, interface.index, address))
    }
}

/// Why a packet socket cannot be had.
#[derive(Debug, Error)]
pub enum PacketError {
    /// There is no such interface.
    #[error("there is no network interface {0:?} here: `ip link` lists them")]
    NoInterface(String),
    /// The process lacks the privilege.
    #[error(
        "packet sockets need CAP_NET_RAW: run as root, or give it with AmbientCapabilities=CAP_NET_RAW CAP_NET_ADMIN"
    )]
    NotPermitted,
    /// The interface is administratively down.
    #[error("interface {0} is down: `ip link set {0} up` first")]
    Down(String),
    /// The interface carries no Ethernet.
    #[error("interface {0} is no Ethernet: a replication NIC has to be")]
    NotEthernet(String),
    /// The interface's MTU is too small.
    #[error(
        "interface {interface} has an MTU of {has}, and {wanted} is wanted: `ip link set {interface} mtu {wanted}`, at both \
         ends and on what is between"
    )]
    Mtu {
        /// Which.
        interface: String,
        /// Its MTU.
        has: u32,
        /// What was asked for.
        wanted: u32,
    },
    /// The interface spreads its frames.
    #[error(
        "interface {interface} has {queues} receive queues, and AF_XDP takes the frames of one here: `ethtool -L {interface} combined 1`, or \
         rx 1 where it has no combined ones"
    )]
    Queues {
        /// Which.
        interface: String,
        /// How many.
        queues: u32,
    },
    /// The interface is no TAP.
    #[error("interface {0} is no TAP that is free: `ip tuntap add dev {0} mode tap vnet_hdr` makes one")]
    NotTap(String),
    /// Anything else that the system refuses.
    #[error("interface {interface}: {what}: {source}")]
    System {
        /// Which.
        interface: String,
        /// What was tried.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

/// Frames that passed, and that did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketStats {
    /// Frames received.
    pub received: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Frames that the kernel dropped because the receive ring was full.
    pub ring_drops: u64,
    /// Frames dropped here: tagged for a VLAN, or longer than a ring frame.
    pub unusable: u64,
    /// Frames sent.
    pub sent: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Calls that handed frames to the kernel.
    pub kicks: u64,
    /// Frames that the kernel refused to send. Packet rings count calls that it took less of than it was given: it names no frames.
    pub refused: u64,
}

impl PacketError {
    /// Of a call that a process without privileges may not make.
    fn of(interface: String, what: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted,
            _ => Self::System { interface, what, source },
        }
    }
}

impl PacketStats {
    fn new(received: receive::Counts, sent: transmit::Counts, ring_drops: u64) -> Self {
        Self {
            received: received.frames,
            received_bytes: received.bytes,
            ring_drops,
            unusable: received.unusable,
            sent: sent.frames,
            sent_bytes: sent.bytes,
            kicks: sent.kicks,
            refused: sent.refused,
        }
    }
}

/// The sending half of a device.
pub trait Transmit {
    /// True when a frame can be reserved.
    fn has_room(&self) -> bool;

    /// The bytes of the next frame; `None` when there is no room, or no frame is so long.
    fn reserve(&mut self, len: usize) -> Option<&mut [u8]>;

    /// The frame that was reserved, of `len` bytes, is complete.
    ///
    /// # Panics
    /// When no frame of that length was reserved.
    fn commit(&mut self, len: usize, request: SendRequest);
}

/// A way to an interface's frames by a descriptor of the kernel's.
pub trait KernelDevice {
    /// Its sending half.
    type Sender: Transmit + 'static;

    /// The interface, as it was when it was opened.
    fn interface(&self) -> &Interface;

    /// The next received frame, with the other half, so that it can be answered while it is looked at.
    fn receive(&mut self) -> Option<(Received<'_>, &mut Self::Sender)>;

    /// The sending half.
    fn transmitter(&mut self) -> &mut Self::Sender;

    /// Ends a turn: gives the last received frame back and hands what was committed to the kernel.
    ///
    /// # Errors
    /// The system's; `NetworkDown` when the interface is down. What was committed stays, and leaves with a later call.
    fn kick(&mut self) -> io::Result<()>;

    /// True while committed frames wait for a [`KernelDevice::kick`].
    fn is_pending(&self) -> bool;

    /// Whether the interface carries frames now.
    fn link_state(&self) -> LinkState;

    /// The interface's MTU now; `None` where it is there no more.
    fn mtu(&self) -> Option<u32>;

    /// What passed since it was opened.
    fn stats(&mut self) -> PacketStats;

    /// The descriptor, to wait on in a ring: it is readable when a frame was received.
    fn socket(&self) -> &Socket;
}

/// See the module.
#[derive(Debug)]
pub struct PacketDevice {
    interface: Interface,
    socket: Socket,
    receiver: Receiver,
    transmitter: Transmitter,
    ring_drops: u64,
}

impl PacketDevice {
    /// Opens the socket, maps its rings and binds it.
    ///
    /// # Errors
    /// See [`PacketError`].
    pub fn open(config: &PacketConfig) -> Result<Self, PacketError> {
        let interface = Interface::find(&config.interface)?;
        interface.check_mtu(config.mtu)?;
        let fail = |what| {
            let interface = interface.name.clone();
            move |source| PacketError::System { interface, what, source }
        };
        let fd = packet_socket()
            .map_err(|source| PacketError::of(interface.name.clone(), "packet socket", source))?;
        let raw = fd.as_raw_fd();
        option::set_flag(raw, libc::PACKET_VERSION, VERSION_2).map_err(fail("TPACKET_V2"))?;
        option::set_flag(raw, libc::PACKET_VNET_HDR, 1).map_err(fail("PACKET_VNET_HDR"))?;
        option::set_flag(raw, libc::PACKET_LOSS, 1).map_err(fail("PACKET_LOSS"))?;
        // Before Linux 4.20 own frames come back: the stack above drops what it sent itself.
        let _ = option::set_flag(raw, libc::PACKET_IGNORE_OUTGOING, 1);
        option::set_send_buffer(raw, SEND_BUFFER);
        let receive = Geometry::new(config.receive_frames);
        let transmit = Geometry::new(config.transmit_frames);
        option::set_ring(raw, libc::PACKET_RX_RING, receive.request()).map_err(fail("receive ring"))?;
        option::set_ring(raw, libc::PACKET_TX_RING, transmit.request()).map_err(fail("transmit ring"))?;
        let map = map_rings(raw, receive.bytes() + transmit.bytes()).map_err(fail("mapping the rings"))?;
        option::bind(raw, interface.index).map_err(fail("bind"))?;
        config.join(raw, &interface).map_err(fail(MORE_ADDRESSES))?;
        let map = Rc::new(map);
        Ok(Self {
            receiver: Receiver::new(receive.ring(&map, 0)),
            transmitter: Transmitter::new(transmit.ring(&map, receive.bytes()), raw),
            interface,
            socket: Socket::from_fd(fd),
            ring_drops: 0,
        })
    }
}

impl KernelDevice for PacketDevice {
    type Sender = Transmitter;

    fn interface(&self) -> &Interface {
        &self.interface
    }

    fn receive(&mut self) -> Option<(Received<'_>, &mut Transmitter)> {
        let Self { receiver, transmitter, .. } = self;
        receiver.next().map(|received| (received, transmitter))
    }

    fn transmitter(&mut self) -> &mut Transmitter {
        &mut self.transmitter
    }

    fn kick(&mut self) -> io::Result<()> {
        self.receiver.give_back();
        self.transmitter.kick()
    }

    fn is_pending(&self) -> bool {
        self.transmitter.is_pending()
    }

    fn link_state(&self) -> LinkState {
        // A pending error would end every wait at once.
        option::clear_error(self.socket.raw());
        interface::state_of(self.socket.raw(), &self.interface)
    }

    fn mtu(&self) -> Option<u32> {
        interface::mtu_of(self.socket.raw(), &self.interface)
    }

    fn stats(&mut self) -> PacketStats {
        self.ring_drops += option::take_drops(self.socket.raw());
        PacketStats::new(self.receiver.counts(), self.transmitter.counts(), self.ring_drops)
    }

    fn socket(&self) -> &Socket {
        &self.socket
    }
}

/// `TPACKET_V2` of `enum tpacket_versions`.
const VERSION_2: libc::c_int = 1;
/// What was tried when the interface takes no more addresses.
const MORE_ADDRESSES: &str = "more addresses";
/// What may be with the NIC at once, in bytes: the rings bound it, not the default of the system, which is three long frames.
const SEND_BUFFER: libc::c_int = 8 << 20;

fn packet_socket() -> io::Result<OwnedFd> {
    // Bound to a protocol later, so that no frame of another interface comes in before the rings are there.
    descriptor(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK)
}

fn map_rings(fd: RawFd, bytes: usize) -> io::Result<MmapRaw> {
    MmapOptions::new().len(bytes).populate().map_raw(fd)
}

#[cfg(test)]
mod tests;
