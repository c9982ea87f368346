//! An AF_XDP socket on one queue of an Ethernet interface: frames pass between the NIC and this process's memory without the
//! kernel's network stack (zero-copy), or with one copy by the kernel (copy mode).
//!
//! Owner: one reactor, which polls the rings. The loader is this project's own, on bpf(2) (`program.rs`). Frames have no segmentation
//! offload here, and checksums are this process's work in both directions: a sender on the same machine that leaves them to its NIC (veth)
//! must not (`ethtool -K IF tx off`).
//!
//! Invariants:
//! - a chunk is the kernel's from the fill or transmit ring until it comes back by the receive or completion ring, and this process's
//!   in between; no chunk is in two places;
//! - addresses that the kernel gives are looked at before memory is.

mod program;
mod receive;
mod ring;
mod transmit;
mod umem;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use super::interface::{self, Interface, LinkState};
use super::option;
use super::transmit::Counts;
use super::{KernelDevice, PacketConfig, PacketError, PacketStats, Received};
use crate::socket::{Socket, descriptor};
use program::Attached;
use receive::XdpReceiver;
use ring::{Consumer, Producer};
use umem::{CHUNK, Umem};

pub use transmit::XdpSender;

/// Bytes of a chunk that the kernel keeps for itself when it receives.
const HEADROOM: usize = 256;
/// The only queue that is used.
const QUEUE: u32 = 0;
/// The Ethernet header's length.
const ETHERNET: usize = 14;

/// Who copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// Nobody: the NIC reaches this process's memory.
    ZeroCopy,
    /// The kernel, once for each frame.
    Copy,
}

impl XdpMode {
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::ZeroCopy => "xdp-zero-copy",
            Self::Copy => "xdp-copy",
        }
    }

    fn flags(self) -> u16 {
        let mode = match self {
            Self::ZeroCopy => libc::XDP_ZEROCOPY,
            Self::Copy => libc::XDP_COPY,
        };
        mode | libc::XDP_USE_NEED_WAKEUP | libc::XDP_USE_SG
    }
}

/// See the module.
#[derive(Debug)]
pub struct XdpDevice {
    interface: Interface,
    receiver: XdpReceiver,
    transmitter: XdpSender,
    /// Taken away before the socket closes.
    _attached: Attached,
    socket: Socket,
    /// A socket to ask about the interface, and to have its second address.
    watch: OwnedFd,
    mode: XdpMode,
}

/// How many of what.
struct Plan {
    receive_chunks: usize,
    slots: usize,
    slot_chunks: usize,
}

impl Plan {
    fn new(config: &PacketConfig) -> Self {
        let frame = config.mtu as usize + ETHERNET;
        Self {
            receive_chunks: config.receive_frames as usize * frame.div_ceil(CHUNK - HEADROOM),
            slots: config.transmit_frames as usize,
            slot_chunks: frame.div_ceil(CHUNK),
        }
    }

    fn receive_ring(&self) -> u32 {
        u32::try_from(self.receive_chunks.next_power_of_two()).expect("a few thousand chunks")
    }

    fn transmit_ring(&self) -> u32 {
        let chunks = self.slots * self.slot_chunks;
        u32::try_from(chunks.next_power_of_two()).expect("a few thousand chunks")
    }
}

impl XdpDevice {
    /// Opens the socket in this mode, and has the interface's frames come to it.
    ///
    /// # Errors
    /// See [`PacketError`].
    pub fn open(config: &PacketConfig, mode: XdpMode) -> Result<Self, PacketError> {
        let interface = Interface::find(&config.interface)?;
        interface.check_mtu(config.mtu)?;
        let fail = |what| {
            let interface = interface.name.clone();
            move |source| PacketError::of(interface, what, source)
        };
        let queues = interface::receive_queues(&interface).map_err(fail("asking for its queues"))?;
        if queues != 1 {
            return Err(PacketError::Queues { interface: interface.name, queues });
        }
        let fd = descriptor(libc::AF_XDP, libc::SOCK_RAW).map_err(fail("AF_XDP socket"))?;
        let raw = fd.as_raw_fd();
        option::set_send_buffer(raw, super::SEND_BUFFER);
        let plan = Plan::new(config);
        let umem = Umem::new(plan.receive_chunks + plan.slots * plan.slot_chunks);
        let umem = Rc::new(umem.map_err(fail("memory for frames"))?);
        option::set_xdp(raw, libc::XDP_UMEM_REG, &umem.registration())
            .map_err(fail("registering memory for frames"))?;
        let (receive, transmit) = (plan.receive_ring(), plan.transmit_ring());
        for (name, count) in [
            (libc::XDP_UMEM_FILL_RING, receive),
            (libc::XDP_RX_RING, receive),
            (libc::XDP_UMEM_COMPLETION_RING, transmit),
            (libc::XDP_TX_RING, transmit),
        ] {
            option::set_xdp(raw, name, &count).map_err(fail("making rings"))?;
        }
        let offsets = option::xdp_offsets(raw).map_err(fail("asking where the rings are"))?;
        let map = |error| fail("mapping the rings")(error);
        let fill = Producer::map(raw, libc::XDP_UMEM_PGOFF_FILL_RING, &offsets.fr, receive).map_err(map)?;
        let received = Consumer::map(raw, page(libc::XDP_PGOFF_RX_RING), &offsets.rx, receive);
        let completed =
            Consumer::map(raw, libc::XDP_UMEM_PGOFF_COMPLETION_RING, &offsets.cr, transmit).map_err(map)?;
        let send = Producer::map(raw, page(libc::XDP_PGOFF_TX_RING), &offsets.tx, transmit).map_err(map)?;
        let receiver = XdpReceiver::new(umem.clone(), fill, received.map_err(map)?, plan.receive_chunks);
        let base = plan.receive_chunks * CHUNK;
        let slots = (plan.slots, plan.slot_chunks);
        let transmitter = XdpSender::new(umem, raw, (send, completed), base, slots);
        option::bind_xdp(raw, interface.index, QUEUE, mode.flags()).map_err(fail("taking the queue so"))?;
        let attached = Attached::new(&interface, QUEUE, raw).map_err(|(what, error)| fail(what)(error))?;
        let watch = super::packet_socket().map_err(fail("packet socket"))?;
        config.join(watch.as_raw_fd(), &interface).map_err(fail(super::MORE_ADDRESSES))?;
        let socket = Socket::from_fd(fd);
        Ok(Self { interface, receiver, transmitter, _attached: attached, socket, watch, mode })
    }

    /// Who copies.
    pub fn mode(&self) -> XdpMode {
        self.mode
    }
}

impl KernelDevice for XdpDevice {
    type Sender = XdpSender;

    fn interface(&self) -> &Interface {
        &self.interface
    }

    fn receive(&mut self) -> Option<(Received<'_>, &mut XdpSender)> {
        let Self { receiver, transmitter, .. } = self;
        receiver.next().map(|received| (received, transmitter))
    }

    fn transmitter(&mut self) -> &mut XdpSender {
        self.transmitter.reclaim();
        &mut self.transmitter
    }

    fn kick(&mut self) -> io::Result<()> {
        self.receiver.give_back();
        if self.receiver.needs_wake_up() {
            wake_receiver(self.socket.raw());
        }
        self.transmitter.kick()
    }

    fn is_pending(&self) -> bool {
        self.transmitter.is_pending()
    }

    fn link_state(&self) -> LinkState {
        interface::state_of(self.watch.as_raw_fd(), &self.interface)
    }

    fn mtu(&self) -> Option<u32> {
        interface::mtu_of(self.watch.as_raw_fd(), &self.interface)
    }

    fn stats(&mut self) -> PacketStats {
        let counts = option::xdp_counts(self.socket.raw());
        let sent = Counts { refused: counts.refused, ..self.transmitter.counts() };
        PacketStats::new(self.receiver.counts(), sent, counts.drops)
    }

    fn socket(&self) -> &Socket {
        &self.socket
    }
}

fn page(offset: libc::off_t) -> u64 {
    u64::try_from(offset).expect("offsets of rings are not negative")
}

/// Without a buffer this only tells the driver that there are chunks again.
fn wake_receiver(fd: RawFd) {
    // SAFETY: no buffer and no address are passed; the descriptor is open.
    let _ = unsafe {
        libc::recvfrom(
            fd,
            core::ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            core::ptr::null_mut(),
            core::ptr::null_mut(),
        )
    };
}
