//! Options of packet sockets.

use std::io;
use std::os::fd::RawFd;

use super::ring::RingRequest;

fn set<T>(fd: RawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).expect("an option is short");
    // SAFETY: the pointer and length are of one value, which is only read during the call.
    let result = unsafe { libc::setsockopt(fd, level, name, core::ptr::from_ref(value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub(super) fn set_flag(fd: RawFd, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    set(fd, libc::SOL_PACKET, name, &value)
}

pub(super) fn set_ring(fd: RawFd, name: libc::c_int, request: RingRequest) -> io::Result<()> {
    set(fd, libc::SOL_PACKET, name, &request)
}

/// As much as asked for with the privilege to, else as much as the system allows.
pub(super) fn set_send_buffer(fd: RawFd, bytes: libc::c_int) {
    if set(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &bytes).is_err() {
        // Less means that a full queue is told to more often.
        let _ = set(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &bytes);
    }
}

/// `PACKET_MR_MULTICAST`.
const MULTICAST: libc::c_ushort = 0;
/// `PACKET_MR_UNICAST`.
const UNICAST: libc::c_ushort = 3;

/// `struct packet_mreq`.
#[repr(C)]
struct Membership {
    interface: libc::c_int,
    kind: libc::c_ushort,
    address_len: libc::c_ushort,
    address: [u8; 8],
}

/// Frames to this address are received beside those to the interface's own, also by a NIC that looks at addresses itself.
pub(super) fn add_address(fd: RawFd, interface: u32, address: [u8; 6]) -> io::Result<()> {
    let kind = if address[0] & 1 == 0 { UNICAST } else { MULTICAST };
    let mut long = [0; 8];
    long[..6].copy_from_slice(&address);
    let interface = libc::c_int::try_from(interface).expect("an index is small");
    let membership = Membership { interface, kind, address_len: 6, address: long };
    set(fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)
}

/// All frames of the interface, from now on.
pub(super) fn bind(fd: RawFd, interface: u32) -> io::Result<()> {
    let all = u16::try_from(libc::ETH_P_ALL).expect("a small constant");
    // SAFETY: all-zero is a valid `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { core::mem::zeroed() };
    address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).expect("a small constant");
    address.sll_protocol = all.to_be();
    address.sll_ifindex = i32::try_from(interface).expect("an index is small");
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).expect("an address is short");
    // SAFETY: the pointer and length are of one address, which is only read during the call.
    let result = unsafe { libc::bind(fd, (&raw const address).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn get<T: Copy>(fd: RawFd, level: libc::c_int, name: libc::c_int, zero: T) -> Option<T> {
    let mut value = zero;
    let mut len = libc::socklen_t::try_from(size_of::<T>()).expect("an option is short");
    // SAFETY: the pointer and length are of one value, which the call fills; every bit pattern of the types that this is
    // called with is valid: they are numbers.
    let result = unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut len) };
    (result == 0).then_some(value)
}

/// Frames dropped since the last call.
pub(super) fn take_drops(fd: RawFd) -> u64 {
    let zero = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let stats = get(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, zero);
    stats.map_or(0, |stats| u64::from(stats.tp_drops))
}

pub(super) fn set_xdp<T>(fd: RawFd, name: libc::c_int, value: &T) -> io::Result<()> {
    set(fd, libc::SOL_XDP, name, value)
}

/// Where the rings of an AF_XDP socket are.
pub(super) fn xdp_offsets(fd: RawFd) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: all-zero is a valid `xdp_mmap_offsets`.
    let zero: libc::xdp_mmap_offsets = unsafe { core::mem::zeroed() };
    get(fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, zero).ok_or_else(io::Error::last_os_error)
}

/// Frames that did not pass an AF_XDP socket so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct XdpCounts {
    /// Received ones that there was no room for.
    pub(super) drops: u64,
    /// Of those to be sent, descriptors that make no sense.
    pub(super) refused: u64,
}

pub(super) fn xdp_counts(fd: RawFd) -> XdpCounts {
    // SAFETY: all-zero is a valid `xdp_statistics`.
    let zero: libc::xdp_statistics = unsafe { core::mem::zeroed() };
    let stats = get(fd, libc::SOL_XDP, libc::XDP_STATISTICS, zero);
    stats.map_or_else(XdpCounts::default, |stats| XdpCounts {
        drops: stats.rx_dropped + stats.rx_ring_full + stats.rx_fill_ring_empty_descs,
        refused: stats.tx_invalid_descs,
    })
}

/// Frames of one queue of the interface, from now on.
pub(super) fn bind_xdp(fd: RawFd, interface: u32, queue: u32, flags: u16) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::sa_family_t::try_from(libc::AF_XDP).expect("a small constant"),
        sxdp_flags: flags,
        sxdp_ifindex: interface,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: 0,
    };
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_xdp>()).expect("an address is short");
    // SAFETY: the pointer and length are of one address, which is only read during the call.
    let result = unsafe { libc::bind(fd, (&raw const address).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes the error that an interface going down leaves behind.
pub(super) fn clear_error(fd: RawFd) {
    let _: Option<libc::c_int> = get(fd, libc::SOL_SOCKET, libc::SO_ERROR, 0);
}
